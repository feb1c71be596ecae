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


def plan(kernels: Sequence[Kernel], graph: Graph, capacity_bytes: float, keeps_weights: bool) -> Residency:
    """Keep what fits, first come first served.

    Parameters
    ----------
    capacity_bytes : float
        On-chip memory that tensors may hold [B].
    keeps_weights : bool
        Weights may stay from run to run, beside the activations at their peak: all of the network's if they
        fit, else those of the first kernels.
    """
    last: dict[str, int] = {}
    for index, kernel in enumerate(kernels):
        for t in kernel.inputs:
            last[t.name] = index
    graph_outputs = {t.name for t in graph.outputs}
    live: dict[str, float] = {}
    held, saved, on_chip = [], [], []
    kept: set[str] = set()
    for index, kernel in enumerate(kernels):
        here = frozenset(t.name for t in kernel.inputs if t.name in live)
        gain = sum(t.size_bytes for t in _unique(kernel.inputs) if t.name in here)
        written = {t.name for t in kernel.outputs}
        read = [t for t in kernel.inputs if t.role == "activation" and t.name not in here]
        for t in _unique([*kernel.outputs, *read]):
            if last.get(t.name, -1) > index and sum(live.values()) + t.size_bytes <= capacity_bytes:
                live[t.name] = t.size_bytes
                kept.add(t.name)
                # What is read for the first time still crosses once, as does what the caller gets.
                gain += t.size_bytes if t.name in written and t.name not in graph_outputs else 0.0
        held.append(sum(live.values()))
        saved.append(min(gain, kernel.bytes_compulsory))
        on_chip.append(here)
        for name in [n for n in live if last[n] == index]:
            del live[name]
    weights = 0.0
    if keeps_weights:
        room = capacity_bytes - max(held, default=0.0)
        for index, kernel in enumerate(kernels):
            own = [t for t in _unique(kernel.inputs) if t.role == "weight"]
            size = sum(t.size_bytes for t in own)
            if size * kernel.repeat <= room:
                room -= size * kernel.repeat
                weights += size * kernel.repeat
                saved[index] = min(saved[index] + size, kernel.bytes_compulsory)
                on_chip[index] |= {t.name for t in own}
        held = [h + weights for h in held]
    return Residency(tuple(held), tuple(saved), tuple(on_chip), len(kept), weights)


def _unique(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({t.name: t for t in tensors}.values())
