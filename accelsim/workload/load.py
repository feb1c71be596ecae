"""One way in: a name, a path, a module or a graph becomes a `Graph`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from accelsim.core.catalog import catalog
from accelsim.core.errors import ConfigError, ModelFileError, RequestError, did_you_mean
from accelsim.core.yamlfile import read_yaml
from accelsim.workload.graph import Graph

PHASES = ("forward", "prefill", "decode")


def load_workload(
    source: Any,
    *,
    dims: Mapping[str, int] | None = None,
    phase: str | None = None,
    context: int | None = None,
    strict: bool = False,
    inputs: Sequence[Any] | None = None,
) -> Graph:
    """Load a workload.

    Parameters
    ----------
    source : str or Path or Graph or torch.nn.Module
        A catalog name (``"resnet50"``), an ``.onnx`` file, a HuggingFace ``config.json``, a workload
        ``.yaml``, or a graph, which is returned as it is.
    dims : mapping, optional
        Sizes of named dimensions of an ONNX file.
    phase : {"forward", "prefill", "decode"}, optional
        For autoregressive models; the model's own default when None.
    context : int, optional
        Tokens of prompt (prefill) or of cache (decode).
    strict : bool
        Refuse operators that are only approximated.
    inputs : sequence, optional
        Example inputs of a PyTorch module: tensors, shapes, or ``(shape, type)`` pairs.

    Returns
    -------
    Graph
        For one item (batch 1 unless the file fixes another batch).

    Raises
    ------
    AccelsimError
        One line that names the file and what to do.
    """
    if isinstance(source, Graph):
        return source
    if phase is not None and phase not in PHASES:
        raise RequestError(f"unknown phase '{phase}'", hint=did_you_mean(phase, PHASES))
    if context is not None and (
        isinstance(context, bool) or not isinstance(context, int) or not 1 <= context <= 2**24
    ):
        raise RequestError(f"context {context!r} is not a positive number of tokens")
    if any(c.__module__.startswith("torch.nn") for c in type(source).__mro__):
        from accelsim.workload.torch import from_torch

        graph = from_torch(source, *(inputs or ()))
        if strict:
            graph.coverage().require_exact()
        return graph
    if not isinstance(source, str | Path):
        what = f"{type(source).__name__} {source!r} is no name, file, graph or PyTorch module"
        hint = "sweep takes several" if isinstance(source, list | tuple) else "see load_workload"
        raise RequestError(what, hint=hint)
    path = workload_file(source)
    key = tuple(sorted(dims.items())) if dims else ()
    return _load(path, path.stat().st_mtime_ns, key, phase, context, strict)


def workload_file(source: str | Path) -> Path:
    """File of a catalog name or of a path.

    Raises
    ------
    ModelFileError, UnknownNameError
        There is no such file or name.
    """
    text = str(source)
    suffix = Path(text).suffix.lower()
    if not isinstance(source, Path) and "/" not in text and suffix not in (".onnx", ".json", ".yaml", ".yml"):
        return catalog("workloads").find(text)
    path = Path(text).expanduser()
    if path.is_dir():
        raise ModelFileError("this is a folder, expected a model file", text)
    if not path.exists():
        raise ModelFileError("no such file", text)
    return path


@lru_cache(maxsize=64)
def _load(
    path: Path,
    _modified: int,
    dims: tuple[tuple[str, int], ...],
    phase: str | None,
    context: int | None,
    strict: bool,
) -> Graph:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        graph = from_document(read_yaml(path), path.stem, str(path), phase, context)
    elif suffix == ".json":
        from accelsim.workload.huggingface import from_config

        graph = from_config(path, phase=phase, context=context)
    else:
        from accelsim.workload.onnx import from_onnx

        graph = from_onnx(path, dims=dict(dims))
    if strict:
        graph.coverage().require_exact()
    return graph


def from_document(
    document: dict[str, Any], name: str, where: str, phase: str | None, context: int | None
) -> Graph:
    """Build the graph of a workload YAML: ``builder`` and ``parameters``, with ``title``, ``source`` and
    ``item`` beside them.
    """
    from accelsim.workload.builders.families import BUILDERS

    allowed = {"title", "builder", "parameters", "source", "task", "item", "note"}
    unknown = sorted(set(document) - allowed)
    if unknown:
        raise ConfigError(f"unknown field '{unknown[0]}'", where, did_you_mean(unknown[0], allowed))
    builder = document.get("builder")
    if builder not in BUILDERS:
        raise ConfigError(
            f"unknown builder '{builder}'", f"{where}: builder", did_you_mean(str(builder), BUILDERS)
        )
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ConfigError("expected a mapping of names to values", f"{where}: parameters")
    try:
        graph = BUILDERS[builder](name, parameters, phase, context)
    except TypeError as error:
        raise ConfigError(str(error).replace("()", ""), f"{where}: parameters") from None
    except KeyError as error:
        raise ConfigError(f"parameter {error} is missing", f"{where}: parameters") from None
    graph.metadata.update({k: v for k, v in document.items() if k in ("title", "source", "task", "note")})
    return graph
