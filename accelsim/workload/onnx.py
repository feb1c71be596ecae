"""ONNX files as workload graphs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelsim.core.errors import (
    GraphError,
    MissingExtraError,
    ModelFileError,
    RequestError,
    UnsupportedOpError,
    did_you_mean,
)
from accelsim.workload.batching import compare_batches, mark_batch, unresolved
from accelsim.workload.graph import Graph, Op, Tensor

# Names that exporters give to a first axis that is the batch.
_BATCH = re.compile(r"(?i)^(.*batch.*|n|b|bs|unk.*|none|\?|.*dynamic_axes_\d+|dynamicdimension\.\d+)$")


@dataclass(frozen=True)
class _Axis:
    """One axis of an input: a number, or a name that `--dim` binds."""

    size: int
    name: str = ""


@dataclass(frozen=True)
class _Input:
    name: str
    dtype: int
    axes: tuple[_Axis, ...]


def from_onnx(source: Any, *, dims: Mapping[str, int] | None = None, name: str | None = None) -> Graph:
    """Read an ONNX model; weights are not loaded.

    Parameters
    ----------
    source : str or Path or onnx.ModelProto
    dims : mapping, optional
        Sizes of named dimensions. A first axis that is plainly the batch (named ``batch``, ``N``, ``unk__1``
        ..., or not at all) is 1 unless given; ``batch`` stands for it, whatever its name. An unnamed axis is
        called ``INPUT.AXIS``.
    name : str, optional
        Name of the graph; the file's stem when None.

    Returns
    -------
    Graph
        At the batch that the file fixes, or 1.

    Raises
    ------
    ModelFileError
        Not a readable ONNX file, or a dimension that is open.
    GraphError
        A cycle, a tensor without producer, shapes that do not fit.
    UnsupportedOpError
        An operator whose output shape cannot be known.
    MissingExtraError
        The package `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "reading an ONNX file") from None
    from accelsim.workload.onnx_walk import Walker

    model, where, folder = read_model(source)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    inputs = _inputs(model, where)
    sizes, batch = _bind(inputs, dict(dims or {}), where)
    named = any(axis.name in batch for i in inputs for axis in i.axes)
    items = next((sizes[n] for n in batch), None) if named else _fixed_batch(inputs)

    def walk(times: int) -> tuple[list[Op], list[Tensor]]:
        grown = {n: size * (times if n in batch else 1) for n, size in sizes.items()}
        walker = Walker(model, where, folder, grown)
        tensors = [_tensor(i, grown, batch, times, items if not named else None) for i in inputs]
        walker.run(model.graph, {v.tensor.name: v for v in tensors})
        return walker.ops, [v.tensor for v in tensors]

    ops, tensors = walk(1)
    if not ops:
        raise GraphError("the graph has no operator that depends on an input", where)
    ops, note = (
        _batched(ops, tensors, walk)
        if items is not None
        else (ops, "no input has an axis that could be the batch")
    )
    facts = {
        "source": where,
        "format": "onnx",
        "opset": next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None),
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "dims": sizes,
        **({"batch_note": note} if note else {}),
    }
    stem = Path(where).stem if folder is not None else model.graph.name or "model"
    graph = Graph(name or stem, ops, batch=items or 1, metadata=facts)
    wanted = (dims or {}).get("batch")
    return graph.with_batch(wanted) if wanted is not None and not named else graph


def _batched(ops: list[Op], tensors: list[Tensor], walk: Any) -> tuple[list[Op], str]:
    """Batch axes by importing twice; by rules where the file only works at its own batch."""
    try:
        return compare_batches(ops, walk(2)[0]), ""
    except (GraphError, UnsupportedOpError):
        marked = mark_batch(ops, tensors)
        return marked, unresolved(marked)


# -- reading -------------------------------------------------------------------------------------------------


def read_model(source: Any) -> tuple[Any, str, Path | None]:
    """The model, how errors name it, and the folder that external data lies in."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if isinstance(source, onnx.ModelProto):
        return source, source.graph.name or "model", None
    path = Path(source).expanduser()
    if path.is_dir():
        raise ModelFileError("this is a folder, expected an ONNX file", str(path))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read the file ({error.strerror})", str(path)) from None
    if not raw:
        raise ModelFileError("the file is empty", str(path))
    model = onnx.ModelProto()
    try:
        model.ParseFromString(raw)
    except (DecodeError, ValueError):
        raise ModelFileError(
            "not an ONNX file, or a truncated one", str(path), "export the model again"
        ) from None
    if not model.ir_version or not model.HasField("graph"):
        raise ModelFileError("not an ONNX file", str(path), "export the model again")
    if not model.graph.node or not model.graph.output:
        missing = "operators" if not model.graph.node else "outputs"
        raise ModelFileError(f"the model has no {missing}", str(path))
    return model, str(path), path.resolve().parent


def _inputs(model: Any, where: str) -> list[_Input]:
    """Graph inputs that are not initializers; an open axis has size 0 and a name."""
    held = {t.name for t in model.graph.initializer}
    found = []
    for entry in model.graph.input:
        if entry.name in held:
            continue
        if not entry.type.HasField("tensor_type"):
            kind = entry.type.WhichOneof("value") or "nothing"
            raise UnsupportedOpError(
                f"input '{entry.name}' is a {kind.replace('_type', '')}, not a tensor", where
            )
        tensor = entry.type.tensor_type
        if not tensor.HasField("shape"):
            raise ModelFileError(
                f"input '{entry.name}' has no shape", where, "export the model with input shapes"
            )
        axes = []
        for i, d in enumerate(tensor.shape.dim):
            if d.HasField("dim_value"):
                if d.dim_value < 1:
                    raise ModelFileError(
                        f"axis {i} of input '{entry.name}' has size {d.dim_value}",
                        where,
                        "sizes must be positive",
                    )
                axes.append(_Axis(d.dim_value))
            else:
                axes.append(_Axis(0, d.dim_param or f"{entry.name}.{i}"))
        found.append(_Input(entry.name, tensor.elem_type, tuple(axes)))
    return found


def _bind(inputs: list[_Input], dims: dict[str, int], where: str) -> tuple[dict[str, int], set[str]]:
    """Size of every named dimension, and the names that are the batch."""
    for key, size in dims.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise RequestError(f"dimension '{key}' is {size!r}, expected a positive integer", where)
    names = [axis.name for i in inputs for axis in i.axes if axis.name]
    batch = {
        i.axes[0].name
        for i in inputs
        if i.axes and i.axes[0].name and (_BATCH.match(i.axes[0].name) or i.axes[0].name == f"{i.name}.0")
    }
    unknown = sorted(set(dims) - set(names) - {"batch"})
    if unknown:
        hint = did_you_mean(unknown[0], names) if names else "the file fixes all its sizes"
        raise RequestError(f"no input has a dimension '{unknown[0]}'", where, hint)
    items = dims.get("batch", next((dims[n] for n in sorted(batch) if n in dims), 1))
    sizes = {n: dims.get(n, items) if n in batch else dims.get(n, 0) for n in names}
    for i in inputs:
        for position, axis in enumerate(i.axes):
            if axis.name and not sizes[axis.name]:
                raise ModelFileError(
                    f"dimension '{axis.name}' (axis {position} of input '{i.name}') is open",
                    where,
                    f"give it: --dim {axis.name}=SIZE",
                )
    return sizes, batch


def _fixed_batch(inputs: list[_Input]) -> int | None:
    """First axis of the first input, where the file fixes it."""
    return next((i.axes[0].size for i in inputs if i.axes), None)


def _tensor(given: _Input, sizes: Mapping[str, int], batch: set[str], times: int, fixed: int | None) -> Any:
    from accelsim.workload.onnx_node import Value, format_of

    shape = [axis.size or sizes[axis.name] for axis in given.axes]
    where = next((k for k, axis in enumerate(given.axes) if axis.name in batch), None)
    if fixed is not None and shape and shape[0] == fixed:
        where = 0
        shape[0] *= times
    return Value(
        Tensor(given.name, tuple(shape), format_of(given.dtype, given.name), batch_axis=where), given.dtype
    )
