"""The kernel constants of a device as a vector: which there are, their limits, and devices with others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any, get_args

import numpy as np

from accelsim.hardware.section import Section

Path = tuple[str, ...]

FITTED = ("product", "formats", "attention", "conv", "moe")
"""Sections of ``kernels`` whose constants are fitted; collectives have a protocol per constant, so that a few
rows say little about each."""

CHOICES: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "tile": (16.0, 64.0, 128.0, 256.0),
        "narrow_tile": (16.0, 64.0, 128.0, 192.0, 256.0),
        "smallest_tile": (16.0, 64.0, 128.0),
        "packed": (0.0, 1.0),
        "history": (0.0, 1.0),
        "streams": (0.0, 1.0),
        "step_keys": (64.0, 128.0, 256.0),
        "split_fill": (0.0, 1.0, 2.0, 4.0, 8.0),
        "split_keys": (64.0, 128.0, 256.0, 512.0, 1024.0),
        "most_splits": (8.0, 16.0, 32.0, 64.0, 128.0),
        "sequences": (992.0, 1e9),
        "skips": (0.0, 1.0),
        "pad_rows": (16.0, 32.0, 64.0, 128.0),
        "largest_tile": (64.0, 128.0, 256.0),
        "foreign": (0.0, 1.0),
        "splits": (0.0, 1.0),
        "least_rows": (0.0, 64.0, 128.0),
        "least_columns": (0.0, 64.0, 128.0),
        "swizzle": (0.0, 1.0, 2.0, 4.0),
        "split_work": (0.0, 2.0**20, 2.0**21, 2.0**22),
    }
)
"""Fields that are choices of a library rather than quantities, and the values that libraries have."""

_SPLITTING = frozenset({"split_fill", "split_keys", "most_splits", "history"})

STARTS: Mapping[str, float] = MappingProxyType(
    {"repack_s": 3e-6, "power_lag_s": 5e-4, "ungated_s": 5e-6, "sort_s": 5e-6}
)
"""Quantities that are zero where a library does without, and where a search for them starts."""

_TRIAL = count()
_UNITS = {"_s": ("us", 1e-6), "_j": ("pJ", 1e-12)}


def constants(device: Any) -> dict[Path, float]:
    """Constants above zero that a fit may change, by the path of their fields in ``device.kernels``; numbers
    of a list by their position.
    """
    found: dict[Path, float] = {}
    for name in FITTED:
        node = getattr(device.kernels, name, None)
        if node is not None:
            _collect(node, (name,), found)
    return found


def transferred(device: Any, others: Sequence[Any]) -> dict[Path, float]:
    """Constants that a device without measurements takes from others, for the kernels that it has itself.

    Geometric means (plain ones where some are zero) over the others that have the kernel, with weights that
    fall by e per doubling of the 16-bit rate of an SM between them, and for attention per doubling of its
    shared memory: kernels are written for an instruction set, and attention keeps its tiles there. Choices of
    a library are those of the nearest. The share of the L2 that a copy can use comes from parts with the same
    kind of memory: dies with HBM are so large that their L2 has two halves, which keep copies of what the
    other holds. Kernels whose constants another device assumes say nothing, nor do attention kernels on
    vector lanes where the nearest's is on tensor cores, or the reverse.
    """
    near = [float(np.exp(-abs(np.log2(_rate(device) / _rate(other))))) for other in others]
    held_on_chip = [w * float(np.exp(-_shared_doublings(device, o))) for w, o in zip(near, others)]
    alike = [float(_stacked(other) == _stacked(device)) for other in others]
    tables = [_own_numbers(other) for other in others]
    found: dict[Path, float] = {}
    for path in numbers(device):
        weights = near
        if path[0] == "attention":
            weights = _of_kind(path[:3], held_on_chip, tables)
        elif path == ("product", "l2_share") and any(alike):
            weights = alike
        held = [(w, table[path]) for w, table in zip(weights, tables) if path in table and w > 0.0]
        if not held:
            continue
        w, values = (np.array(column) for column in zip(*held))
        if path[-1] in CHOICES:
            found[path] = float(values[int(np.argmax(w))])
        elif values.min() > 0.0:
            found[path] = float(np.exp(w @ np.log(values) / w.sum()))
        else:
            found[path] = float(w @ values / w.sum())
    return found


def _of_kind(section: Path, weights: list[float], tables: list[dict[Path, float]]) -> list[float]:
    """The weights of those whose kernel runs on the same units as that of the nearest which has it."""
    unit = [table.get((*section, "streams")) for table in tables]
    nearest = max(((w, u) for w, u in zip(weights, unit) if u is not None), default=(0.0, None))[1]
    return [w if u == nearest else 0.0 for w, u in zip(weights, unit)]


def own_sections(device: Any) -> list[Path]:
    """`sections` without the kernels of a stack whose constants the device only assumes: those of the generic
    file, or of another family.
    """
    known = {path for path, q in device.quantities.items() if q.status == "measured"}
    measured = {tuple(path.split(".")[1:4]) for path in known if path.startswith("kernels.")}
    return [section for section in sections(device) if len(section) < 3 or section in measured]


def _own_numbers(device: Any) -> dict[Path, float]:
    own = set(own_sections(device))
    return {
        path: v
        for path, v in numbers(device).items()
        if path[:3] in own or path[:2] in own or path[:1] in own
    }


def _rate(device: Any) -> float:
    sm = device.sm
    return float(sm.tensor_flop_per_clock.get("fp16") or sm.vector_flop_per_clock["fp32"])


def _shared_doublings(device: Any, other: Any) -> float:
    return abs(math.log2(device.sm.shared_memory_bytes / other.sm.shared_memory_bytes))


def _stacked(device: Any) -> bool:
    return "HBM" in str(device.memory.type)


def numbers(device: Any) -> dict[Path, float]:
    """All numbers of the sections that are fitted, zeros and choices included."""
    found: dict[Path, float] = {}
    for name in FITTED:
        _collect(getattr(device.kernels, name), (name,), found, every=True)
    return found


def sections(device: Any) -> list[Path]:
    """Paths of the kernels that have constants: ``("product",)``, ``("attention", "vllm", "decode")``, ..."""
    found: list[Path] = []
    for name in FITTED:
        waiting: list[tuple[Path, Any]] = [((name,), getattr(device.kernels, name))]
        while waiting:
            path, node = waiting.pop()
            if isinstance(node, Mapping):
                waiting += [((*path, key), child) for key, child in node.items()]
            else:
                found.append(path)
    return found


def choices(device: Any, section: Path) -> dict[Path, float]:
    """Fields of a section that are choices of a library, and what they are, quantities that may be zero
    included while they are; those of attention that decide how keys are split only where they are.
    """
    node = _node(device.kernels, section)
    fields = type(node).model_fields
    held = {name: float(getattr(node, name)) for name in fields if name in CHOICES or name in STARTS}
    held = {name: value for name, value in held.items() if name in CHOICES or not value}
    if not held.get("split_fill", 1.0):
        held = {name: value for name, value in held.items() if name not in _SPLITTING}
    return {(*section, name): value for name, value in held.items()}


def _collect(node: Any, path: Path, found: dict[Path, float], every: bool = False) -> None:
    if isinstance(node, Section):
        children: Iterable[tuple[str, Any]] = (
            (name, getattr(node, name)) for name in type(node).model_fields
        )
    elif isinstance(node, Mapping):
        children = node.items()
    elif isinstance(node, tuple):
        children = ((str(i), child) for i, child in enumerate(node))
    else:
        # Whole numbers are choices of a library rather than quantities.
        if isinstance(node, float) and (every or (node > 0 and path[-1] not in CHOICES)):
            found[path] = node
        return
    for name, child in children:
        _collect(child, (*path, name), found, every)


def limits(device: Any, path: Path) -> tuple[float, float]:
    """Least and most value of a constant, from its field; 0 and infinity where it has none."""
    *parents, last = path
    node = _node(device.kernels, parents)
    low, high = 0.0, math.inf
    rules: Iterable[Any] = ()
    if isinstance(node, Section):
        rules = type(node).model_fields[last].metadata
    elif isinstance(node, tuple):
        field = type(_node(device.kernels, parents[:-1])).model_fields[parents[-1]]
        rules = getattr(get_args(field.annotation)[0], "__metadata__", ())
        rules = [rule for info in rules for rule in getattr(info, "metadata", (info,))]
    if rules:
        for rule in rules:
            low = max(low, float(getattr(rule, "ge", None) or getattr(rule, "gt", None) or 0.0))
            most = getattr(rule, "le", None)
            high = high if most is None else min(high, float(most))
    return low, high


def _node(node: Any, path: Iterable[str]) -> Any:
    for name in path:
        if isinstance(node, tuple):
            node = node[int(name)]
        else:
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


def with_kernel(device: Any, section: Path, like: Path) -> Any:
    """The device with one more kernel, which starts with the constants of another."""
    kernels = _replaced(device.kernels, _nested(section, _node(device.kernels, like)))
    return device.model_copy(update={"kernels": kernels, "hash": f"{device.hash}+{next(_TRIAL)}"})


def _nested(path: Path, value: Any) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _replaced(node: Any, changes: Mapping[str, Any]) -> Any:
    if isinstance(node, tuple):
        return tuple(changes.get(str(i), held) for i, held in enumerate(node))
    mapping = isinstance(node, Mapping)
    update = {}
    for name, change in changes.items():
        held = node.get(name, {}) if mapping else getattr(node, name)
        update[name] = _replaced(held, change) if isinstance(change, Mapping) else change
    return {**node, **update} if mapping else node.model_copy(update=update)


def value(device: Any, path: Path) -> float:
    """The constant that a device has."""
    return float(_node(device.kernels, path))


def value_at(device: Any, section: Path) -> Any:
    """The constants of one kernel."""
    return _node(device.kernels, section)


def whole(device: Any, changes: Mapping[Path, float]) -> dict[Path, float | tuple[float, ...]]:
    """The changes as fields: a list of which one number changes is given whole."""
    after = with_constants(device, changes)
    found: dict[Path, float | tuple[float, ...]] = {}
    for path, number in changes.items():
        node = _node(after.kernels, path[:-1])
        if isinstance(node, tuple):
            found[path[:-1]] = node
        else:
            found[path] = number
    return found


def alias(device: Any, path: Path) -> Path:
    """The path as a hardware file has it: ``product.ramp`` for ``product.ramp_s``."""
    names: list[str] = []
    node = device.kernels
    for name in path:
        field = type(node).model_fields.get(name) if isinstance(node, Section) else None
        names.append((field.alias if field is not None else None) or name)
        node = _node(node, (name,))
    return tuple(names)


def written(path: Path, value: float | tuple[float, ...]) -> float | str | list[float]:
    """A constant as a hardware file has it, with a unit where it needs one; four digits."""
    if isinstance(value, tuple):
        return [float(f"{v:.4g}") for v in value]
    unit, scale = _UNITS.get(path[-1][-2:], ("", 1.0))
    if unit == "us" and 0.0 < value < 1e-7:
        unit, scale = "ns", 1e-9
    return f"{value / scale:.4g} {unit}" if unit else float(f"{value:.4g}")
