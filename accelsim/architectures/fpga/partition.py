"""Pipelines in turn: a network that does not fit is cut into parts, each a pipeline of its own that fills the
part of the board, with the tensors between them in external memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from accelsim.architectures.fpga.fifo import pixel_bits, with_fifos
from accelsim.architectures.fpga.folding import least_cost
from accelsim.architectures.fpga.network import Edge, Network, Part, Stage, Unit
from accelsim.architectures.fpga.options import Floats
from accelsim.workload.graph import Tensor

PARTS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of parts that are tried. They depend on no board, so a larger one has all the choices of a smaller
one."""

SLACK = 1.1  # a part may cost this much more than in the most even cut, to cut where less crosses

Span = tuple[int, int]
"""First stage of a part, and the one after its last."""


def points(network: Network) -> list[int]:
    """Where a network can be cut: before these stages, between kernels."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, stage in enumerate(network.stages):
        first.setdefault(stage.part, i)
        last[stage.part] = i
    inside = {p for part in first for p in range(first[part] + 1, last[part] + 1)}
    return [p for p in range(1, len(network.stages)) if p not in inside]


def crossing(network: Network, position: int) -> list[int]:
    """Stages before a cut that stages behind it read; what a DMA brings in is brought in again instead."""
    sources = {e.source for stage in network.stages[position:] for e in stage.edges if e.source < position}
    return sorted(s for s in sources if network.stages[s].unit.kind != "dma_in")


def spans(network: Network, technology: str, *, embedded: bool) -> Iterator[tuple[Span, ...]]:
    """Ways to cut a network into 2, 3, 4 ... parts of about equal cost.

    The cost of a stage is that of its cheapest folding at fixed prices of LUT, DSP and memory blocks. Of the
    cuts whose dearest part is within `SLACK` of the most even ones, the one that moves the fewest bits
    through external memory is taken.
    """
    places = [0, *points(network), len(network.stages)]
    costs = [least_cost(stage.unit, technology, embedded=embedded) for stage in network.stages]
    total = np.concatenate([[0.0], np.cumsum(costs)])[places]
    bits = [0.0]
    for p in places[1:-1]:
        units = [network.stages[s].unit for s in crossing(network, p)]
        bits.append(float(sum(u.pixels * pixel_bits(u) for u in units)))
    moved = np.array([*bits, 0.0])
    # What lies between two places costs their difference; nothing lies before its start.
    between = np.where(np.tri(len(total), k=0, dtype=bool), np.inf, total - total[:, None])
    even = [np.where(np.arange(len(total)) == 0, 0.0, np.inf)]  # dearest of k parts up to each place
    before: tuple[Span, ...] | None = None
    for count in PARTS:
        if count >= len(places):
            break
        while len(even) <= count:
            even.append(np.maximum(even[-1][:, None], between).min(axis=0))
        chosen = _cut(between, moved, count, SLACK * float(even[count][-1]))
        found = tuple((places[a], places[b]) for a, b in pairwise(chosen))
        if found != before:
            yield found
        before = found
    finest = tuple(pairwise(places))
    if finest != before and len(finest) <= PARTS[-1]:
        yield finest


def _cut(between: Floats, moved: Floats, count: int, limit: float) -> list[int]:
    """Indices of `count` + 1 places, both ends included: parts of at most `limit` that move the least."""
    n = len(moved)
    least = np.where(np.arange(n) == 0, 0.0, np.inf)
    came = np.zeros((count + 1, n), dtype=np.int64)
    for k in range(1, count + 1):
        ways = np.where(between <= limit, (least + moved)[:, None], np.inf)
        came[k] = ways.argmin(axis=0)
        least = ways.min(axis=0)
    chosen = [n - 1]
    for k in range(count, 0, -1):
        chosen.append(int(came[k, chosen[-1]]))
    return chosen[::-1]


def part(network: Network, span: Span) -> Network:
    """The pipeline of some stages of a network: what enters and leaves passes a DMA."""
    low, high = span
    inside = network.stages[low:high]
    read = {e.source for stage in network.stages[high:] for e in stage.edges}
    stages: list[Stage] = []
    parts: list[Part] = []
    place: dict[int, int] = {}  # stage of the network -> stage of this part
    homes: dict[int, int] = {}  # likewise for kernels

    def home(index: int) -> int:
        if index not in homes:
            homes[index] = len(parts)
            parts.append(network.parts[index])
        return homes[index]

    def bring(source: int) -> int:
        """The DMA of a tensor that another part made."""
        if source not in place:
            stage = network.stages[source]
            place[source] = len(stages)
            if stage.unit.kind == "dma_in":
                stages.append(replace(stage, part=home(stage.part)))
            else:
                name = f"{stage.name}.load"
                stages.append(Stage(name, len(parts), _dma("dma_in", stage.unit), ()))
                parts.append(Part(name, tensor=_buffer(network, source)))
        return place[source]

    for i, stage in enumerate(inside, start=low):
        edges = tuple(replace(e, source=bring(e.source)) for e in stage.edges)
        place[i] = len(stages)
        stages.append(replace(stage, part=home(stage.part), edges=edges))
    for i, stage in enumerate(inside, start=low):
        if i in read and stage.unit.kind != "dma_in":
            name = f"{stage.name}.store"
            edge = Edge(place[i], "stream", stage.unit.pixels)
            stages.append(Stage(name, len(parts), _dma("dma_out", stage.unit), (edge,)))
            parts.append(Part(name, tensor=_buffer(network, i), inward=False))
    here = {p.name.split("[")[0] for p in parts}
    said = tuple(text for text in network.approximated if text.split(":")[0] in here)
    return with_fifos(Network(tuple(stages), tuple(parts), said))


def _dma(kind: str, unit: Unit) -> Unit:
    elements = unit.pixels * unit.mh * unit.rounds
    common = (1, 1, unit.pixels, 1, unit.out_bits, unit.out_bits)
    if kind == "dma_in":
        return Unit("dma_in", *common, pixels_in=elements)
    return Unit("dma_out", *common, pixels_in=elements)


def _buffer(network: Network, index: int) -> Tensor:
    """What lies in external memory between two parts."""
    stage = network.stages[index]
    made = network.parts[stage.part].ops[-1].outputs[0]
    shape = (stage.unit.pixels, stage.unit.mh * stage.unit.rounds)
    return replace(made, name=f"{stage.name}.buffer", shape=shape, batch_axis=None)


def held_bytes(network: Network, cuts: tuple[Span, ...]) -> float:
    """The most that lies between parts at any time, for one item [B]."""
    most = 0.0
    for low, high in cuts:
        # While a part runs, what it reads and what it writes for later parts are both there.
        alive = {s for p in (low, high) for s in crossing(network, p)}
        most = max(most, sum(_buffer(network, s).size_bytes for s in alive))
    return most
