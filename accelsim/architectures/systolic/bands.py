"""Chains of layers that run band by band of rows, so that what lies between them stays on chip although it
does not fit whole.

A chain's weights stay for all bands, a band of each tensor between its layers is on chip at a time, and the
rows that the next window still needs are kept rather than computed again. What a band costs: weights enter
the arrays once per band.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from accelsim.architectures.base import Kernel
from accelsim.architectures.systolic.residency import SHARE, Residency, Usage
from accelsim.workload.graph import Tensor

LOCAL = frozenset({"conv", "pool", "activation", "batch_norm", "elementwise", "matmul"})
"""Kinds whose rows of output need a few rows of input."""


def banded(
    plan: Residency, used: Usage, kernels: Sequence[Kernel], workspace: Sequence[float], capacity_bytes: float
) -> Residency:
    """Run chains of kernels in bands where a plan leaves a tensor between neighbours off chip.

    Parameters
    ----------
    plan : Residency
        What stays whole.
    used : Usage
    kernels : sequence of Kernel
    workspace : sequence of float
        On-chip bytes that a kernel's products take beside the weights: operand and sums of all its rows.
    capacity_bytes : float
        On-chip memory, less what is set apart for sums [B].

    Returns
    -------
    Residency
        A plan with all bands one when no chain fits. Chains grow as long as their weights and one row of each
        tensor fit; the fewest bands that fit are taken.
    """
    readers: dict[str, set[int]] = {}
    for index, inputs in enumerate(used.inputs):
        for name, *_, sources in inputs:
            for source in (name, *sources):
                readers.setdefault(source, set()).add(index)
    between = [_between(index, used, kernels, plan, readers) for index in range(len(kernels) - 1)]
    held, saved = list(plan.held_bytes), list(plan.saved_bytes)
    on_chip, bands = list(plan.on_chip), list(plan.bands)
    tensors = plan.tensors
    start = 0
    while start < len(kernels) - 1:
        stop, count = start, 1
        while stop < len(between) and between[stop] is not None:
            chain = [t for t in between[start : stop + 1] if t is not None]
            room = SHARE * capacity_bytes - max(plan.held_bytes[start : stop + 2])
            fits = _fewest(chain, kernels[start : stop + 2], used, workspace[start : stop + 2], room, start)
            if fits == 0:
                break
            stop, count = stop + 1, fits
        chain = [t for t in between[start:stop] if t is not None]
        weights = [_weights(used, plan, index) for index in range(start, stop + 1)]
        strips = sum(_strip(t, kernels[start + i + 1], count) for i, t in enumerate(chain))
        for index in range(start, stop + 1) if chain else ():
            held[index] += strips + sum(weights) - weights[index - start]
            bands[index] = count
            gain = 0.0
            if index > start:
                name = chain[index - start - 1].name
                gain += next(read for n, _, read, *_ in used.inputs[index] if n == name)
                on_chip[index] = on_chip[index] | {name}
            if index < stop:
                gain += chain[index - start].size_bytes
                tensors += 1
            saved[index] = min(saved[index] + gain, used.compulsory_bytes[index])
        start = stop + 1
    return replace(
        plan,
        held_bytes=tuple(held),
        saved_bytes=tuple(saved),
        on_chip=tuple(on_chip),
        tensors=tensors,
        bands=tuple(bands),
    )


def _between(
    index: int, used: Usage, kernels: Sequence[Kernel], plan: Residency, readers: dict[str, set[int]]
) -> Tensor | None:
    """The tensor that a kernel hands to the next one and to no other, when both are local."""
    first, second = kernels[index], kernels[index + 1]
    if first.anchor.kind not in LOCAL or second.anchor.kind not in LOCAL or first.repeat != second.repeat:
        return None
    given = {name for name, _, given in used.outputs[index] if given}
    for tensor in first.outputs:
        name = tensor.name
        if name in given or name in plan.on_chip[index + 1] or readers.get(name) != {index + 1}:
            continue
        if second.inputs and second.anchor.inputs[0].name == name:
            return tensor
    return None


def _weights(used: Usage, plan: Residency, index: int) -> float:
    """Weights of a kernel that do not stay anyhow [B]."""
    return sum(size for name, size in used.weights[index] if name not in plan.on_chip[index])


def _rows(tensor: Tensor) -> int:
    """Rows of all images, or of a matrix."""
    shape = tensor.shape
    rows = shape[0] * shape[2] if len(shape) == 4 else tensor.elements // shape[-1]
    return max(1, rows)


def _strip(tensor: Tensor, reader: Kernel, count: int) -> float:
    """On-chip bytes of a band of a tensor: its rows, and those that the next window needs again."""
    rows = _rows(tensor)
    window = 1
    if reader.anchor.kind in ("conv", "pool") and len(tensor.shape) == 4:
        height = reader.anchor.inputs[1].shape[2] if reader.anchor.kind == "conv" else _pool_rows(reader)
        window = (height - 1) * _first(reader.anchor.attribute("dilation", 1)) + 1
    each = -(-rows // count) + (window - 1 if count > 1 else 0)
    return tensor.size_bytes * min(rows, each) / rows


def _pool_rows(reader: Kernel) -> int:
    return _first(reader.anchor.attribute("kernel", 1))


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple | list) else value)


def _fewest(
    chain: Sequence[Tensor],
    kernels: Sequence[Kernel],
    used: Usage,
    workspace: Sequence[float],
    room: float,
    start: int,
) -> int:
    """Fewest bands, a power of two, with which a chain that begins at kernel `start` fits; 0 for none."""
    weights = sum(size for index in range(len(kernels)) for _, size in used.weights[start + index])
    most = min(_rows(t) for t in chain)
    count = 2
    while count <= most:
        strips = sum(_strip(t, kernels[i + 1], count) for i, t in enumerate(chain))
        if weights + strips + max(workspace) / count <= room:
            return count
        count *= 2
    return 0
