"""Which tensors stay in on-chip memory between kernels, and what that saves.

Kernels run in order, so a tensor can stay from the kernel that writes it to the last that reads it, as long
as everything that is live then fits together. Weights can stay from run to run where a device keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.architectures.base import Kernel
from accelsim.workload.graph import Graph, Tensor

SHARE = 0.75
"""Part of the on-chip memory that tensors may hold between kernels; the rest is for tiles that come and go.
Assumed."""

WEIGHT_SHARES = (0.25, 0.4, 0.55, 0.7, 0.85)
TOTAL_SHARE = 0.97
"""Parts of it that weights may hold where they stay from run to run, and that weights and activations may
hold together: the Edge TPU's compiler reports up to 6.9 of 8 MiB of cached parameters. Recalled."""


@dataclass(frozen=True)
class Residency:
    """What a plan does to each kernel.

    Attributes
    ----------
    held_bytes : tuple of float
        Memory that is not free for tiles while the kernel runs [B].
    saved_bytes : tuple of float
        Compulsory traffic that does not happen [B].
    on_chip : tuple of frozenset of str
        Inputs that the kernel reads from on-chip memory, by name.
    tensors : int
        Activations that stay.
    weight_bytes : float
        Weights that stay from run to run [B].
    """

    held_bytes: tuple[float, ...]
    saved_bytes: tuple[float, ...]
    on_chip: tuple[frozenset[str], ...]
    tensors: int
    weight_bytes: float


def nothing(kernels: Sequence[Kernel]) -> Residency:
    """The plan of a cold device: everything passes through external memory."""
    zeros = (0.0,) * len(kernels)
    return Residency(zeros, zeros, (frozenset(),) * len(kernels), 0, 0.0)


def plan(
    kernels: Sequence[Kernel], graph: Graph, capacity_bytes: float, weight_share: float = 0.0
) -> Residency:
    """Keep what fits, first come first served.

    Parameters
    ----------
    capacity_bytes : float
        On-chip memory, less what is set apart for sums [B].
    weight_share : float
        Part of it that weights may hold from run to run; activations get what is left.
    """
    last: dict[str, int] = {}
    for index, kernel in enumerate(kernels):
        for t in kernel.inputs:
            last[t.name] = index
    graph_outputs = {t.name for t in graph.outputs}
    pinned, weights = _pinned(kernels, weight_share * capacity_bytes)
    room = SHARE * capacity_bytes if weights == 0.0 else capacity_bytes * TOTAL_SHARE - weights
    live: dict[str, float] = {}
    held, saved, on_chip = [], [], []
    kept: set[str] = set()
    for index, kernel in enumerate(kernels):
        here = {t.name for t in kernel.inputs if t.name in live}
        gain = sum(t.size_bytes for t in _unique(kernel.inputs) if t.name in here)
        written = {t.name for t in kernel.outputs}
        read = [t for t in kernel.inputs if t.role == "activation" and t.name not in here]
        for t in _unique([*kernel.outputs, *read]):
            if last.get(t.name, -1) > index and sum(live.values()) + t.size_bytes <= room:
                live[t.name] = t.size_bytes
                kept.add(t.name)
                # What is read for the first time still crosses once, as does what the caller gets.
                gain += t.size_bytes if t.name in written and t.name not in graph_outputs else 0.0
        for t in _unique(kernel.inputs):
            if t.name in pinned[index]:
                gain += t.size_bytes
                here.add(t.name)
        held.append(sum(live.values()) + weights)
        saved.append(min(gain, kernel.bytes_compulsory))
        on_chip.append(frozenset(here))
        for name in [n for n in live if last[n] == index]:
            del live[name]
    return Residency(tuple(held), tuple(saved), tuple(on_chip), len(kept), weights)


def _pinned(kernels: Sequence[Kernel], room: float) -> tuple[list[frozenset[str]], float]:
    """Weights of each kernel that stay from run to run, and their size [B]."""
    names, total = [], 0.0
    for kernel in kernels:
        own = [t for t in _unique(kernel.inputs) if t.role == "weight"]
        size = sum(t.size_bytes for t in own) * kernel.repeat
        fits = total + size <= room
        names.append(frozenset(t.name for t in own) if fits else frozenset())
        total += size if fits else 0.0
    return names, total


def _unique(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({t.name: t for t in tensors}.values())
