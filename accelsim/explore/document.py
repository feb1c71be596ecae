"""Studies as files: the YAML that a paper can ship.

.. code-block:: yaml

    title: Bandwidth against array size
    question: Which array serves ResNet-50 with the least energy?
    space:
      workload: resnet50
      hardware: tpu-v4
      batch: {pow2: [1, 64]}
      array.rows: [64, 128, 256]
      memory.bandwidth: {log: ["0.3 TB/s", "2.4 TB/s", 4]}
    zipped: [[batch, context]]
    where: ["batch < 64 or array.rows > 64"]
    search: {objective: [latency_s, energy_per_item_j], constraints: ["latency_s <= 0.01"], budget: 200}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelsim.core.errors import AccelsimError, ConfigError, did_you_mean
from accelsim.core.yamlfile import read_yaml
from accelsim.explore.space import Space, linear, log, pow2

_FIELDS = ("title", "question", "space", "zipped", "where", "search", "objectives")
_SEARCH = ("objective", "constraints", "budget", "sampler", "seed")
_RANGES: dict[str, Callable[..., list[Any]]] = {"pow2": pow2, "linear": linear, "log": log}


@dataclass(frozen=True)
class Document:
    """A study as written down.

    Attributes
    ----------
    title, question : str
    space : Space
    search : dict
        Arguments of `search`; empty for a sweep.
    objectives : tuple of str
        Columns that a report of a sweep trades off.
    text : str
        The file itself, kept with the rows.
    """

    title: str
    question: str
    space: Space
    search: dict[str, Any] = field(default_factory=dict)
    objectives: tuple[str, ...] = ()
    text: str = ""


def read_study(path: str | Path) -> Document:
    """Read a study from a YAML file; paths in it are relative to the file.

    Raises
    ------
    ConfigError
        It cannot be read, or has an unknown field.
    AccelsimError
        A name or value in it does not exist; the file is named.
    """
    path = Path(path)
    document = read_yaml(path)
    _known(document, _FIELDS, str(path))
    axes = document.get("space")
    if not isinstance(axes, dict):
        raise ConfigError("a study needs a section 'space' of parameters and values", str(path))
    search = document.get("search") or {}
    _known(search, _SEARCH, f"{path}: search")
    try:
        space = Space(
            {name: _axis(name, value, path.parent) for name, value in axes.items()},
            zipped=document.get("zipped") or (),
            where=document.get("where") or (),
        )
    except AccelsimError as error:
        raise ConfigError(error.what, ": ".join(filter(None, (str(path), error.where))), error.hint) from None
    objectives = search.get("objective", document.get("objectives") or ())
    return Document(
        str(document.get("title", path.stem)),
        str(document.get("question", "")),
        space,
        search,
        (objectives,) if isinstance(objectives, str) else tuple(objectives),
        path.read_text(encoding="utf-8"),
    )


def _known(section: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(section, Mapping):
        raise ConfigError("expected a mapping of names to values", where)
    for name in section:
        if name not in names:
            raise ConfigError(f"unknown field '{name}'", where, did_you_mean(str(name), names))


def _axis(name: str, value: Any, folder: Path) -> Any:
    """The values of an axis: as they are, a range, or files beside the study."""
    if isinstance(value, Mapping):
        if len(value) == 1:
            (kind, arguments) = next(iter(value.items()))
            if kind in _RANGES and isinstance(arguments, list):
                try:
                    return _RANGES[kind](*arguments)
                except TypeError:
                    raise ConfigError(
                        f"{kind} takes numbers: [low, high] or [low, high, count]", name
                    ) from None
            if kind not in _RANGES and name not in ("precision", "parallel", "dims"):
                raise ConfigError(f"unknown range '{kind}'", name, did_you_mean(str(kind), _RANGES))
        return [value]
    if name in ("workload", "hardware"):
        held = value if isinstance(value, list) else [value]
        return [str(folder / v) if isinstance(v, str) and (folder / v).is_file() else v for v in held]
    return value
