"""From a hardware YAML file to a device: inheritance, sources, validation, changes and differences."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from accelsim.core.catalog import catalog
from accelsim.core.errors import ConfigError, UnknownNameError, did_you_mean
from accelsim.core.paths import data_folder
from accelsim.core.quantity import Quantity
from accelsim.core.yamlfile import read_yaml
from accelsim.hardware.schema import DEVICES, Device
from accelsim.hardware.section import Section

if TYPE_CHECKING:
    import pandas as pd

_EVIDENCE = ("source", "status")
_STATUSES = ("cited", "measured", "assumed")
# Facts that are names rather than quantities, even where they begin with a digit ("7series", "10AX115").
_NAMES = frozenset({"year", "title", "vendor", "family", "note", "type", "part", "technology"})
_S = TypeVar("_S", bound=BaseModel)
_NUMERIC = re.compile(r"^\s*[+-]?\.?\d")


def load_hardware(name_or_path: str | Path | Device) -> Any:
    """Load a device by name or from a YAML file.

    Parameters
    ----------
    name_or_path : str or Path or Device
        A catalog name (``"h100-sxm"``), the path of a file, or a device, which is returned as it is.

    Returns
    -------
    GpuDevice or SystolicDevice or FpgaDevice

    Raises
    ------
    UnknownNameError, ConfigError
        The name is unknown; or the file is unreadable, has an unknown field, a wrong unit, a size that is not
        positive, or a number without a source. The message names the file and the field.
    """
    if isinstance(name_or_path, Device):
        return name_or_path
    if not isinstance(name_or_path, str | Path):
        what = f"{type(name_or_path).__name__} {name_or_path!r} is no name, file or device"
        hint = "sweep takes several" if isinstance(name_or_path, list | tuple) else "see load_hardware"
        raise ConfigError(what, hint=hint)
    path = catalog("hardware").resolve(name_or_path)
    path = path.resolve()
    held = _LOADED.get(path)
    if held is not None and all(_modified(file) == then for file, then in held[0]):
        return held[1]
    files: list[Path] = []
    device = build(_resolved(path, files), path.stem, str(path))
    _LOADED[path] = (tuple((file, _modified(file)) for file in files), device)
    return device


_LOADED: dict[Path, tuple[tuple[tuple[Path, int], ...], Any]] = {}


def _modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else -1


def _resolved(path: Path, files: list[Path]) -> dict[str, Any]:
    """The file's document over those it extends, numbers as `Quantity`; `files` collects what is read."""
    if path in files:
        circle = " -> ".join(file.stem for file in [*files[files.index(path) :], path])
        raise ConfigError(f"'extends' goes in a circle: {circle}", str(files[-1]))
    files.append(path)
    own, parent_name = _own(path)
    if parent_name is None:
        return _merged(_common(own.get("kind"), path, files), own)
    if not isinstance(parent_name, str):
        raise ConfigError(f"'extends' must be a name, got {parent_name!r}", str(path))
    parent = path.parent / f"{parent_name}.yaml"
    if not parent.is_file():
        try:
            parent = catalog("hardware").find(parent_name)
        except UnknownNameError as error:
            raise ConfigError(f"'extends' names no file: {error.what}", str(path), error.hint) from None
    return _merged(_resolved(parent.resolve(), files), own)


_READ: dict[Path, tuple[int, tuple[dict[str, Any], Any]]] = {}


def _own(path: Path) -> tuple[dict[str, Any], Any]:
    """A file's own document and what it extends. Most devices share files, so these are held until they
    change; nobody may write into the document.
    """
    then = _modified(path)
    held = _READ.get(path)
    if held is None or held[0] != then:
        document = read_yaml(path)
        parent_name = document.pop("extends", None)
        held = then, (_with_evidence(document, "", "", "assumed", str(path)), parent_name)
        _READ[path] = held
    return held[1]


def _common(kind: Any, path: Path, files: list[Path]) -> dict[str, Any]:
    """What every device of a kind starts from: the shipped ``_KIND.yaml``, where there is one."""
    common = (data_folder("hwconfigs") / str(kind) / f"_{kind}.yaml").resolve()
    if kind not in DEVICES or not common.is_file() or path == common:
        return {}
    return _resolved(common, files)


def _with_evidence(node: dict[str, Any], field: str, source: str, status: str, where: str) -> dict[str, Any]:
    """Attach the nearest `source` and `status` to every number."""
    source = node.get("source", source)
    status = node.get("status", status)
    if status not in _STATUSES:
        raise ConfigError(
            f"status '{status}' is not one of {', '.join(_STATUSES)}", f"{where}: {field or 'file'}"
        )
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key in _EVIDENCE:
            continue
        path = f"{field}.{key}" if field else str(key)
        if isinstance(value, dict) and "value" in value:
            extra = set(value) - {"value", *_EVIDENCE}
            if extra:
                raise ConfigError(f"unknown key '{sorted(extra)[0]}' beside a value", f"{where}: {path}")
            result[key] = _leaf(
                value["value"], value.get("source", source), value.get("status", status), path, where
            )
        elif isinstance(value, dict):
            result[key] = _with_evidence(value, path, source, status, where)
        elif _is_number(value) and key not in _NAMES:
            result[key] = _leaf(value, source, status, path, where)
        else:
            result[key] = value
    return result


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or (isinstance(value, str) and bool(_NUMERIC.match(value)))


def _leaf(value: Any, source: Any, status: str, path: str, where: str) -> Any:
    if not source or not isinstance(source, str):
        raise ConfigError(
            f"the number '{value}' has no source",
            f"{where}: {path}",
            "add 'source:' to the number, its section or the file",
        )
    if status not in _STATUSES:
        raise ConfigError(f"status '{status}' is not one of {', '.join(_STATUSES)}", f"{where}: {path}")
    return Quantity(value, source, status)  # type: ignore[arg-type]


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        held = result.get(key)
        result[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return result


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _plain(v) for k, v in node.items()}
    return node.value if isinstance(node, Quantity) else node


def build(document: dict[str, Any], name: str, where: str) -> Any:
    """Validate a resolved document and make the device."""
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in DEVICES:
        raise ConfigError(f"kind '{kind}' is not one of {', '.join(DEVICES)}", f"{where}: kind")
    plain = {"name": name, **_plain(document)}
    quantities = {path: q for path, q in _leaves(document) if isinstance(q, Quantity)}
    return _validated(DEVICES[kind], {**plain, "quantities": quantities, "document": document}, where)


def _validated(model: type[Device], values: dict[str, Any], where: str) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(*_first_problem(error, model, where)) from None


def read_section(model: type[_S], path: Path) -> tuple[_S, dict[str, Quantity]]:
    """A file that is not a device, with every number's source and status by path.

    Raises
    ------
    ConfigError
        The file is unreadable, has an unknown field, a wrong unit, or a number without a source.
    """
    document = _with_evidence(read_yaml(path), "", "", "assumed", str(path))
    try:
        found = model.model_validate(_plain(document))
    except ValidationError as error:
        raise ConfigError(*_first_problem(error, model, str(path))) from None
    return found, {name: q for name, q in _leaves(document) if isinstance(q, Quantity)}


def digest(device: Device) -> str:
    """Hash of what a simulation can depend on: the values in SI, so "3.35 TB/s" and "3350 GB/s" are equal."""
    values = device.model_dump(exclude={"title", "note", "vendor"}, exclude_defaults=True)
    text = json.dumps(_rounded(values), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _rounded(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _rounded(v) for k, v in node.items()}
    return f"{node:.12g}" if isinstance(node, float) else node


def _first_problem(error: ValidationError, model: type[BaseModel], where: str) -> tuple[str, str, str]:
    """One line for a validation error: the first problem, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    hint = ""
    if first["type"] == "extra_forbidden":
        message = f"unknown field '{first['loc'][-1]}'"
        hint = did_you_mean(field, _paths(model))
    elif first["type"] == "missing":
        message = "this field is missing"
    elif "input" in first and not isinstance(first["input"], dict) and str(first["input"]) not in message:
        message = f"{message} (got '{first['input']}')"
    if len(problems) > 1:
        message += f" (and {len(problems) - 1} more)"
    return message, f"{where}: {field}" if field else where, hint


def replaced(device: Device, changes: Mapping[str, Any]) -> Any:
    """See `Device.replace`."""
    model = type(device)
    document: dict[str, Any] = dict(device.document)
    quantities = dict(device.quantities)
    for path, value in changes.items():
        keys = path.split(".")
        if not _holds(document, keys) and path not in _paths(model):
            raise ConfigError(f"no parameter '{path}'", device.name, did_you_mean(path, _paths(model)))
        if _is_number(value):
            value = Quantity(value, f"changed from {device.name} by the user", "assumed")
            quantities[path] = value
        else:
            quantities = {p: q for p, q in quantities.items() if p != path and not p.startswith(f"{path}.")}
        document = _with(document, keys, value)
    label = ",".join(f"{k}={v}" for k, v in changes.items())
    base = device.name.split("[")[0]
    held = device.name[len(base) + 1 : -1] if device.name != base else ""
    # Sections that did not change are read and checked already: sweeps replace the same few parameters often.
    sections = {
        field: kept for field in model.model_fields if isinstance(kept := getattr(device, field), Section)
    }
    kept = {f: s for f, s in sections.items() if document.get(f) is device.document.get(f)}
    values: dict[str, Any] = {"name": f"{base}[{held + ',' if held else ''}{label}]", **kept}
    values.update({key: _plain(node) for key, node in document.items() if key not in kept})
    return _validated(model, {**values, "quantities": quantities, "document": document}, device.name)


def _holds(node: Any, keys: Sequence[str]) -> bool:
    """Whether a document has a value at a path."""
    for key in keys:
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True


def _with(node: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """A document with another value at a path; what does not change is shared."""
    key, *rest = keys
    held = node.get(key)
    return {**node, key: _with(held if isinstance(held, dict) else {}, rest, value) if rest else value}


def extended(device: Device, document: dict[str, Any], name: str) -> Any:
    """A device with a document in the format of a hardware file over its own, named `name`."""
    own = _with_evidence(document, "", "", "assumed", name)
    return build(_merged(dict(device.document), own), name, name)


def _paths(model: Any, prefix: str = "") -> set[str]:
    """Dotted YAML paths that a device class accepts."""
    found: set[str] = set()
    for name, info in model.model_fields.items():
        if info.exclude:
            continue
        path = f"{prefix}{info.alias or name}"
        nested = [
            t for t in (info.annotation, *getattr(info.annotation, "__args__", ())) if isinstance(t, type)
        ]
        section = next((t for t in nested if issubclass(t, Section)), None)
        found |= _paths(section, f"{path}.") if section else {path}
    return found


def difference(device: Device, other: str | Path | Device) -> pd.DataFrame:
    """See `Device.diff`: columns ``parameter``, one per device."""
    import pandas as pd

    second = load_hardware(other)
    mine, theirs = dict(_leaves(device.document)), dict(_leaves(second.document))
    rows = []
    for path in sorted({*mine, *theirs}):
        a, b = (_plain(d.get(path)) for d in (mine, theirs))
        if a != b:
            rows.append({"parameter": path, device.name: a, second.name: b})
    return pd.DataFrame(rows, columns=["parameter", device.name, second.name])


def sources(device: Device) -> pd.DataFrame:
    """Every number of a device: columns ``parameter value status source``."""
    import pandas as pd

    return pd.DataFrame(
        [
            {"parameter": path, "value": q.value, "status": q.status, "source": q.source}
            for path, q in device.quantities.items()
        ]
    )
