"""Points to rows: the part of a sweep that workers run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from accelsim.engine.simulate import simulate
from accelsim.explore.space import Space
from accelsim.explore.store import Columns
from accelsim.hardware.spec import load_hardware
from accelsim.workload.load import workload_file

REQUEST = ("workload", "hardware", "batch", "precision")


def evaluate(points: Sequence[Mapping[str, Any]]) -> Columns:
    """Simulate points.

    Parameters
    ----------
    points : sequence of mapping
        Arguments of `simulate`; dotted names are hardware parameters.

    Returns
    -------
    mapping of str to list
        The summaries as columns, None where a row has no such number, and the axes that a summary lacks.
    """
    return columns_of([_row(point) for point in points])


def _row(point: Mapping[str, Any]) -> dict[str, Any]:
    changes = tuple((name, value) for name, value in point.items() if "." in name)
    settings = {name: value for name, value in point.items() if "." not in name}
    if changes:
        settings["hardware"] = _changed(settings["hardware"], changes)
    row = simulate(**settings).summary
    if changes:
        row["hardware"] = load_hardware(point["hardware"]).name
    for name, value in point.items():
        if name not in REQUEST:
            row.setdefault(name, value)
    return row


@lru_cache(maxsize=256)
def _changed(hardware: Any, changes: tuple[tuple[str, Any], ...]) -> Any:
    return load_hardware(hardware).replace(**dict(changes))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Rows as columns of plain numbers and texts."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_plain(row.get(name)) for row in rows] for name in names}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, int | float | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)


def keys_of(space: Space) -> list[bytes]:
    """Hash of everything that each point of a space depends on, beside the model version."""
    tokens = {name: [_token(name, value) for value in held] for name, held in space.axes.items()}
    values = {name: {id(v): t for v, t in zip(space.axes[name], tokens[name])} for name in tokens}
    names = sorted(space.axes)
    digest = hashlib.blake2b
    return [
        digest(b"|".join(values[name][id(point[name])] for name in names), digest_size=16).digest()
        for point in space.points()
    ]


def _token(name: str, value: Any) -> bytes:
    """What one value of an axis stands for: the content of devices and models, not their names alone."""
    if name == "hardware":
        content = load_hardware(value).hash
    elif name == "workload":
        content = _model_hash(value)
    else:
        content = json.dumps(value, sort_keys=True, default=repr)
    return f"{name}={content}".encode()


def _model_hash(value: Any) -> str:
    if hasattr(value, "hash"):
        return str(value.hash)
    path = workload_file(value)
    return f"{path.stem}:{hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}"
