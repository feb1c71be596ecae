"""Which tensors stay in on-chip memory between kernels, and what that saves.

Kernels run in order, so a tensor can stay from the kernel that writes it to the last that reads it, as long
as everything that is live then fits together. Weights can stay from run to run where a device keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    bands : tuple of int
        Bands of rows that each kernel runs in, see `accelsim.architectures.systolic.bands`.
    """

    held_bytes: tuple[float, ...]
    saved_bytes: tuple[float, ...]
    on_chip: tuple[frozenset[str], ...]
    tensors: int
    weight_bytes: float
    bands: tuple[int, ...]


def nothing(kernels: int) -> Residency:
    """The plan of a cold device: everything passes through external memory."""
    zeros = (0.0,) * kernels
    return Residency(zeros, zeros, (frozenset(),) * kernels, 0, 0.0, (1,) * kernels)


@dataclass(frozen=True)
class Usage:
    """What a plan needs to know of a network, one entry per kernel.

    Attributes
    ----------
    inputs : tuple
        Name, size [B], what the kernel reads of it [B], whether it can stay once it was read, and the
        written tensors whose memory it is.
    outputs : tuple
        Name, size [B], whether the caller gets it.
    weights : tuple
        Name and size of one execution [B].
    repeats, compulsory_bytes : tuple
    last : mapping
        Last kernel that reads a written tensor.
    """

    inputs: tuple[tuple[tuple[str, float, float, bool, tuple[str, ...]], ...], ...]
    outputs: tuple[tuple[tuple[str, float, bool], ...], ...]
    weights: tuple[tuple[tuple[str, float], ...], ...]
    repeats: tuple[int, ...]
    compulsory_bytes: tuple[float, ...]
    last: Mapping[str, int]


def usage(kernels: Sequence[Kernel], graph: Graph, compulsory_bytes: Sequence[float]) -> Usage:
    """Collect the tensors of each kernel."""
    views = _views(graph)
    given = {t.name for t in graph.outputs}
    last: dict[str, int] = {}
    inputs, outputs, weights = [], [], []
    for index, kernel in enumerate(kernels):
        own = _unique(kernel.inputs)
        seen = _seen(kernel)
        inputs.append(
            tuple(
                (
                    t.name,
                    t.size_bytes,
                    seen.get(t.name, t.size_bytes),
                    t.role == "activation" and t.name not in views,
                    views.get(t.name, (t.name,)),
                )
                for t in own
            )
        )
        outputs.append(tuple((t.name, t.size_bytes, t.name in given) for t in _unique(kernel.outputs)))
        weights.append(tuple((t.name, t.size_bytes) for t in own if t.role == "weight"))
        for *_, sources in inputs[-1]:
            for name in sources:
                last[name] = index
    repeats = tuple(kernel.repeat for kernel in kernels)
    return Usage(tuple(inputs), tuple(outputs), tuple(weights), repeats, tuple(compulsory_bytes), last)


def plan(used: Usage, capacity_bytes: float, weight_share: float = 0.0) -> Residency:
    """Keep what fits, first come first served.

    Parameters
    ----------
    used : Usage
    capacity_bytes : float
        On-chip memory, less what is set apart for sums [B].
    weight_share : float
        Part of it that weights may hold from run to run; activations get what is left.
    """
    pinned, weights = _pinned(used, weight_share * capacity_bytes)
    room = SHARE * capacity_bytes if weights == 0.0 else capacity_bytes * TOTAL_SHARE - weights
    live: dict[str, float] = {}
    leaving: dict[int, list[str]] = {}
    occupied = 0.0
    held, saved, on_chip = [], [], []
    tensors = 0
    for index, inputs in enumerate(used.inputs):
        here = {name for name, *_, sources in inputs if all(n in live for n in sources)}
        gain = sum(read for name, _, read, *_ in inputs if name in here or name in pinned[index])
        # What is read for the first time still crosses once, as does what the caller gets.
        new = [(name, size, 0.0 if given else size) for name, size, given in used.outputs[index]]
        new += [(name, size, 0.0) for name, size, _, stays, _ in inputs if stays and name not in here]
        for name, size, gained in new:
            end = used.last.get(name, -1)
            if end > index and name not in live and occupied + size <= room:
                live[name] = size
                leaving.setdefault(end, []).append(name)
                occupied += size
                tensors += 1
                gain += gained
        held.append(occupied + weights)
        saved.append(min(gain, used.compulsory_bytes[index]))
        on_chip.append(frozenset(here | pinned[index]))
        for name in leaving.pop(index, ()):
            occupied -= live.pop(name)
    return Residency(tuple(held), tuple(saved), tuple(on_chip), tensors, weights, (1,) * len(held))


def _seen(kernel: Kernel) -> dict[str, float]:
    """Part of a convolution's image that it reads: strides wider than the kernel skip pixels [B]."""
    op = kernel.anchor
    if op.kind != "conv":
        return {}
    rest = sum({t.name: t.size_bytes for t in op.inputs[1:]}.values())
    return {op.inputs[0].name: max(0.0, op.work.bytes_read - rest)}


def _views(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Tensors that free ops made out of others, and the written tensors whose memory they are."""
    views: dict[str, tuple[str, ...]] = {}
    for op in graph:
        if op.work.free:
            held = tuple(dict.fromkeys(n for t in op.inputs for n in views.get(t.name, (t.name,))))
            views.update({t.name: held for t in op.outputs})
    return views


def _pinned(used: Usage, room: float) -> tuple[list[frozenset[str]], float]:
    """Weights of each kernel that stay from run to run, and their size [B]."""
    names, total = [], 0.0
    for own, repeat in zip(used.weights, used.repeats):
        size = sum(size for _, size in own) * repeat
        fits = total + size <= room
        names.append(frozenset(name for name, _ in own) if fits else frozenset())
        total += size if fits else 0.0
    return names, total


def _unique(tensors: Sequence[Tensor]) -> list[Tensor]:
    return list({t.name: t for t in tensors}.values())
