"""FIFOs: how many pixels each stream between two stages must hold so that a pipeline neither stalls nor
deadlocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.architectures.fpga.network import Edge, Network, Stage, Unit, UnitKind
from accelsim.core.errors import GraphError

if TYPE_CHECKING:
    from accelsim.architectures.fpga.timing import Pace

SLACK = 2
"""Pixels that a stream holds beside what its reader needs at once."""

_FRAME_CYCLES = 1e6  # of the balanced pipeline; only ratios matter
_MODES = {"stream": 0, "window": 1, "all": 2}  # as in `stages`


@dataclass(frozen=True)
class Wiring:
    """A pipeline's edges as the arrays that `stages.simulate` takes.

    Attributes
    ----------
    outputs : array
        Output pixels of each stage.
    offsets, edges : array
        Inputs of each stage, and their geometry.
    reader_offsets, readers, reader_stages : array
        The edges that read each stage.
    """

    outputs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    edges: NDArray[np.int64]
    reader_offsets: NDArray[np.int64]
    readers: NDArray[np.int64]
    reader_stages: NDArray[np.int64]


def wiring(stages: Sequence[Stage], capacities: Sequence[Sequence[int]]) -> Wiring:
    """Arrays of a pipeline whose edges hold `capacities` pixels, by stage and input."""
    edges, offsets, feeds = [], [0], []
    for index, stage in enumerate(stages):
        for edge, depth in zip(stage.edges, capacities[index]):
            geometry: tuple[int, ...] = (1,) * 9
            w = stage.unit.window
            if w is not None and edge.mode == "window":
                reach = ((w.kernel_h - 1) * w.dilation_h, (w.kernel_w - 1) * w.dilation_w)
                geometry = (w.height, w.width, *reach, w.stride_h, w.stride_w, w.pad_h, w.pad_w, w.out_w)
            edges.append((edge.source, _MODES[edge.mode], edge.pixels, depth, *geometry, stage.unit.pixels))
            feeds.append((edge.source, len(edges) - 1, index))
        offsets.append(len(edges))
    feeds.sort()
    counts = np.bincount([f[0] for f in feeds], minlength=len(stages)) if feeds else np.zeros(len(stages))
    return Wiring(
        np.array([stage.unit.pixels for stage in stages], dtype=np.int64),
        np.array(offsets, dtype=np.int64),
        np.array(edges, dtype=np.int64).reshape(-1, 14),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array([f[1] for f in feeds], dtype=np.int64),
        np.array([f[2] for f in feeds], dtype=np.int64),
    )


def depths(stages: Sequence[Stage]) -> tuple[tuple[int, ...], ...]:
    """Capacity of every edge, by stage and input [pixel].

    A window holds its buffer, a frame-wide need two frames, a plain stream what one output takes and `SLACK`.
    Where paths that fork join again, the shorter ones must hold the lag of the longest. That is the largest
    fill seen in a balanced pipeline (every stage takes one frame time) whose joins may fill without limit:
    a schedule that completes within these capacities exists, so no folding can deadlock on them.

    Only pixels, windows and edges matter: networks that differ in channels or bits share an answer.
    """
    return _depths(tuple(_skeleton(stage) for stage in stages))


def _skeleton(stage: Stage) -> Stage:
    unit = stage.unit
    kind: UnitKind = "global_pool" if unit.kind == "global_pool" else "channelwise"
    return Stage("", 0, Unit(kind, 1, 1, unit.pixels, 1, 1, 1, window=unit.window), stage.edges)


@lru_cache(maxsize=1024)
def _depths(stages: tuple[Stage, ...]) -> tuple[tuple[int, ...], ...]:
    """`depths` of stages without what does not matter."""
    from accelsim.architectures.fpga.stages import simulate

    held = [[_plain(edge, stage) for edge in stage.edges] for stage in stages]
    joining = [len(stage.edges) > 1 for stage in stages]
    if any(joining):
        unlimited = [
            [2 * e.pixels if join and e.mode == "stream" else c for e, c in zip(stage.edges, capacity)]
            for stage, join, capacity in zip(stages, joining, held)
        ]
        w = wiring(stages, unlimited)
        n = len(stages)
        fill = np.zeros(len(w.edges), dtype=np.int64)
        early = np.array([s.unit.kind != "global_pool" for s in stages])
        zero = np.zeros(n)
        simulate(
            1, w.outputs, _FRAME_CYCLES / w.outputs, zero, zero, early, zero, w.offsets, w.edges,
            w.reader_offsets, w.readers, w.reader_stages, np.zeros(n), np.zeros((1, n)), fill,
        )  # fmt: skip
        for index, join in enumerate(joining):
            if join:
                filled = fill[w.offsets[index] : w.offsets[index + 1]]
                held[index] = [
                    max(c, int(f) + SLACK) if e.mode == "stream" else c
                    for e, c, f in zip(stages[index].edges, held[index], filled)
                ]
    return tuple(map(tuple, held))


def _plain(edge: Edge, stage: Stage) -> int:
    if edge.mode == "window" and stage.unit.window is not None:
        return stage.unit.window.buffer + SLACK
    if edge.mode == "all":
        return 2 * edge.pixels
    return ceil(edge.pixels / stage.unit.pixels) + SLACK


def pixel_bits(unit: Unit) -> int:
    """Bits of one output pixel."""
    if unit.kind.startswith("dma"):
        return ceil(unit.pixels_in / unit.pixels) * unit.act_bits
    return unit.mh * unit.rounds * unit.out_bits


def with_fifos(network: Network) -> Network:
    """The network with the depth of every FIFO, and each join's bypass memory charged to its unit."""
    found = depths(network.stages)
    changed = []
    for stage, held in zip(network.stages, found):
        extra = 0
        if len(stage.edges) > 1:
            for edge, depth in zip(stage.edges, held):
                if edge.mode == "stream" and depth > _plain(edge, stage):
                    extra += depth * pixel_bits(network.stages[edge.source].unit)
        changed.append(stage if not extra else replace(stage, unit=replace(stage.unit, bypass_bits=extra)))
    return replace(network, stages=tuple(changed), depths=found)


def occupied(
    network: Network, times: Pace, interval: float, words: Sequence[int], held: int
) -> list[list[int]]:
    """Depth of each FIFO, by stage and input, that a pipeline fed at its interval fills [words].

    Two frames follow each other through FIFOs without limit, the DMA at the pace of the interval: what lies
    between two stages at most, less what the reader's window or join holds itself, in the next size class.
    With these depths every frame is at least as early as in that run. Depths to `held` words are 0: they are
    part of every stream.

    Parameters
    ----------
    network : Network
    times : Pace
    interval : float
        Cycles between frames [cycles].
    words : sequence of int
        Words of one output pixel of each stage.
    held : int
        Words that each stream has in any case [words].
    """
    found = []
    for stage, fill in zip(network.stages, waiting(network, times, interval)):
        depths = []
        for edge, pixels in zip(stage.edges, fill):
            beyond = pixels * max(words[edge.source], 1)
            if edge.mode == "all" or beyond <= held:  # whole frames lie in the memories of their reader
                depths.append(0)
            else:
                depths.append(next(d for d in classes(beyond) if d >= beyond))
        found.append(depths)
    return found


def waiting(network: Network, times: Pace, interval: float) -> list[list[int]]:
    """The most pixels that lie between two stages beside what the reader's window or join holds, by stage and
    input, when two frames follow each other through FIFOs without limit at the pace of the interval [pixel].
    """
    from accelsim.architectures.fpga.timing import run

    stages = network.stages
    entering = np.array([s.unit.kind == "dma_in" for s in stages])
    even = interval / np.array([s.unit.pixels for s in stages])
    fed = replace(times, stream=np.where(entering, np.maximum(times.stream, even), times.stream))
    fill = iter(run(stages, unlimited(stages, 2), fed, 2).fill.tolist())
    found = []
    for stage, capacity in zip(stages, network.depths):
        pixels = []
        for edge, charged in zip(stage.edges, capacity):
            own = _buffered(edge, stage)
            if len(stage.edges) > 1 and edge.mode == "stream" and charged > _plain(edge, stage):
                own = charged
            pixels.append(max(next(fill) - own, 0))
        found.append(pixels)
    return found


@dataclass(frozen=True)
class Sizes:
    """FIFOs of a folded pipeline, by stage and input.

    Attributes
    ----------
    words : tuple of tuple of int
        Depth of each FIFO in words of its writer, beside the buffer of a window [words].
    capacities : tuple of tuple of int
        Pixels that each edge holds with it, buffers included.
    """

    words: tuple[tuple[int, ...], ...]
    capacities: tuple[tuple[int, ...], ...]


def classes(most: int) -> list[int]:
    """Depths that FIFOs come in: 2 words, 32 words, then powers of two, up to the first that holds `most`
    words."""
    found = [2, 32]
    while found[-1] < most:
        found.append(2 * found[-1])
    return found


def unlimited(stages: Sequence[Stage], frames: int = 1) -> list[list[int]]:
    """Capacities that never hold a writer up: all pixels of the frames [pixel]."""
    return [[frames * e.pixels for e in s.edges] for s in stages]


def smallest(stages: Sequence[Stage], times: Pace, words: Sequence[int], frames: int = 3) -> Sizes:
    """The shallowest FIFOs that delay no frame, each in its size class.

    With FIFOs without limit the last stages finish each frame at certain cycles. One FIFO after the other,
    widest first, takes the smallest class with which they still do. Shallower FIFOs are never faster, so none
    of the result can be a class smaller.

    Parameters
    ----------
    stages : sequence of Stage
    times : Pace
    words : sequence of int
        Words of one output pixel of each stage.
    frames : int
        Frames that follow each other.
    """
    from accelsim.architectures.fpga.timing import run, with_registers

    read = {e.source for s in stages for e in s.edges}
    ends = [i for i in range(len(stages)) if i not in read]
    held = unlimited(stages, frames)
    found = [[0] * len(s.edges) for s in stages]
    goal = run(stages, held, times, frames).finish[:, ends]

    def delays() -> bool:
        try:
            told = run(stages, with_registers(stages, held, times), times, frames)
            return bool(np.any(told.finish[:, ends] > goal + 1e-6))
        except GraphError:  # a deadlock
            return True

    places = [(i, k) for i, s in enumerate(stages) for k in range(len(s.edges))]
    width = {(i, k): pixel_bits(stages[stages[i].edges[k].source].unit) for i, k in places}
    for i, k in sorted(places, key=lambda place: -width[place]):
        edge = stages[i].edges[k]
        per_pixel = max(words[edge.source], 1)
        sizes = classes(frames * edge.pixels * per_pixel)
        low, high = 0, len(sizes) - 1
        while low < high:
            middle = (low + high) // 2
            held[i][k] = _buffered(edge, stages[i]) + ceil(sizes[middle] / per_pixel)
            low, high = (middle + 1, high) if delays() else (low, middle)
        found[i][k] = sizes[low]
        held[i][k] = _buffered(edge, stages[i]) + ceil(sizes[low] / per_pixel)
    return Sizes(tuple(map(tuple, found)), tuple(map(tuple, held)))


def _buffered(edge: Edge, stage: Stage) -> int:
    """Pixels that a reader holds itself."""
    window = stage.unit.window
    return window.buffer if edge.mode == "window" and window is not None else 0
