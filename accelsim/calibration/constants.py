"""The kernel constants of a device as a vector: which there are, their limits, and devices with others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from accelsim.hardware.section import Section

Path = tuple[str, ...]

FITTED = ("product", "attention", "conv", "moe")
"""Sections of ``kernels`` whose constants are fitted; collectives have a protocol per constant, so that a few
rows say little about each."""

_TRIAL = count()
_UNITS = {"_s": ("us", 1e-6), "_j": ("pJ", 1e-12)}


def constants(device: Any) -> dict[Path, float]:
    """Constants above zero that a fit may change, by the path of their fields in ``device.kernels``."""
    found: dict[Path, float] = {}
    for name in FITTED:
        node = getattr(device.kernels, name, None)
        if node is not None:
            _collect(node, (name,), found)
    return found


def _collect(node: Any, path: Path, found: dict[Path, float]) -> None:
    if isinstance(node, Section):
        children: Iterable[tuple[str, Any]] = (
            (name, getattr(node, name)) for name in type(node).model_fields
        )
    elif isinstance(node, Mapping):
        children = node.items()
    else:
        # Whole numbers are choices of a library rather than quantities.
        if isinstance(node, float) and node > 0 and math.isfinite(node):
            found[path] = node
        return
    for name, child in children:
        _collect(child, (*path, name), found)


def limits(device: Any, path: Path) -> tuple[float, float]:
    """Least and most value of a constant, from its field; 0 and infinity where it has none."""
    *parents, last = path
    node = _node(device.kernels, parents)
    low, high = 0.0, math.inf
    if isinstance(node, Section):
        for rule in type(node).model_fields[last].metadata:
            low = max(low, float(getattr(rule, "ge", None) or getattr(rule, "gt", None) or 0.0))
            most = getattr(rule, "le", None)
            high = high if most is None else min(high, float(most))
    return low, high


def _node(node: Any, path: Iterable[str]) -> Any:
    for name in path:
        node = node[name] if isinstance(node, Mapping) else getattr(node, name)
    return node


def with_constants(device: Any, values: Mapping[Path, float]) -> Any:
    """The device with other constants. It is for predictions only: its document stays as it was."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = value
    kernels = _replaced(device.kernels, tree)
    # Caches hold devices by hash, so each trial needs its own.
    return device.model_copy(update={"kernels": kernels, "hash": f"{device.hash}+{next(_TRIAL)}"})


def _replaced(node: Any, changes: Mapping[str, Any]) -> Any:
    mapping = isinstance(node, Mapping)
    update = {}
    for name, change in changes.items():
        held = node[name] if mapping else getattr(node, name)
        update[name] = _replaced(held, change) if isinstance(change, Mapping) else change
    return {**node, **update} if mapping else node.model_copy(update=update)


def alias(device: Any, path: Path) -> Path:
    """The path as a hardware file has it: ``product.ramp`` for ``product.ramp_s``."""
    names: list[str] = []
    node = device.kernels
    for name in path:
        field = type(node).model_fields.get(name) if isinstance(node, Section) else None
        names.append((field.alias if field is not None else None) or name)
        node = _node(node, (name,))
    return tuple(names)


def written(path: Path, value: float) -> float | str:
    """A constant as a hardware file has it, with a unit where it needs one; four digits."""
    unit, scale = _UNITS.get(path[-1][-2:], ("", 1.0))
    return f"{value / scale:.4g} {unit}" if unit else float(f"{value:.4g}")
