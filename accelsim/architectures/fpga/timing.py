"""From folded stages to times: what each costs per pixel, the first frame through the pipeline, and its
interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from accelsim.architectures.fpga import cycles as cyc
from accelsim.architectures.fpga.fifo import wiring
from accelsim.architectures.fpga.network import Network, Stage, Unit
from accelsim.architectures.fpga.options import Floats, Ints, Options, unit_cycles
from accelsim.core.errors import GraphError
from accelsim.hardware.schema import FpgaDevice

PIPELINE_CYCLES = 4.0  # assumed: registers between a unit's input and its output, beside the adder tree
ROW_CYCLES = 20.0  # assumed: exponent, divider and square root of a softmax or norm


@dataclass(frozen=True)
class Port:
    """What moves a frame between DRAM and a pipeline.

    Attributes
    ----------
    frame_bytes : float
        Whole bytes of one frame [B].
    width : int
        Stream width [bit].
    beats : float
        Transfers of one frame [cycles].
    memory_cycles : float
        Time that DRAM takes for them at its streaming rate [cycles].
    """

    frame_bytes: float
    width: int
    beats: float
    memory_cycles: float

    @property
    def cycles(self) -> float:
        return max(self.beats, self.memory_cycles)


def port(unit: Unit, device: FpgaDevice, clock_hz: float, widest: int) -> Port:
    """DMA of one DMA stage."""
    bits = unit.pixels_in * unit.act_bits
    frame_bytes = -(-bits // cyc.BYTE)
    rate = device.memory.bandwidth_bytes_per_s * device.memory.efficiency / clock_hz
    return Port(
        float(frame_bytes),
        cyc.dma_width(bits, widest),
        float(cyc.dma_beats(bits, widest)),
        frame_bytes / rate,
    )


def depth_cycles(unit: Unit, stream: float) -> float:
    """Pipeline depth of a unit: its registers, and an adder tree or a row that is held back [cycles].

    The tree counts at its full width whatever the folding, so a wider folding never answers later.
    """
    if unit.kind == "mvau":
        return PIPELINE_CYCLES + ceil(log2(unit.mw))
    if unit.kind == "row":
        return PIPELINE_CYCLES + 2.0 * stream + ROW_CYCLES
    return PIPELINE_CYCLES


def analytic_cycles(unit: Unit, row: Options) -> float:
    """Cycles of one frame with no fill and an unlimited window generator: a lower bound [cycles]."""
    bare = replace(unit, window=None)
    return float(np.asarray(unit_cycles(bare, row.pe, row.simd)).ravel()[0])


@dataclass(frozen=True)
class Run:
    """Frames through an empty pipeline, one behind the other.

    Attributes
    ----------
    start : array (stages,)
        When a stage starts, since the first word was asked for [cycles].
    finish : array (frames, stages)
        When the last pixel of each frame leaves a stage [cycles].
    fill : array (edges,)
        The most pixels that an edge held.
    """

    start: Floats
    finish: Floats
    fill: Ints


@dataclass(frozen=True)
class Pace:
    """What a stage takes for a pixel, as `stages.simulate` and `event.simulate` read it [cycles]."""

    stream: Floats
    tail: Floats
    latency: Floats
    early: NDArray[np.bool_]
    accept: Floats


def pace(network: Network, rows: Options, ports: Sequence[Port | None], latency_cycles: float) -> Pace:
    """Times of each stage per pixel.

    Parameters
    ----------
    network, rows
        The stages and their foldings.
    ports : sequence
        The DMA of each DMA stage, else None.
    latency_cycles : float
        Time from asking DRAM to the first word [cycles].
    """
    stream, tail, accept = rows.stream.copy(), rows.tail.copy(), rows.accept.copy()
    latency, early = np.empty(len(rows)), np.ones(len(rows), dtype=np.bool_)
    for i, (stage, dma) in enumerate(zip(network.stages, ports)):
        unit = stage.unit
        if dma is None:
            latency[i] = depth_cycles(unit, float(stream[i]))
            early[i] = unit.kind not in ("mvau", "global_pool", "row")
        else:
            stream[i], tail[i], accept[i] = dma.cycles / unit.pixels, 0.0, 0.0
            latency[i] = latency_cycles if unit.kind == "dma_in" else 0.0
    return Pace(stream, tail, latency, early, accept)


def run(stages: Sequence[Stage], capacities: Sequence[Sequence[int]], times: Pace, frames: int = 1) -> Run:
    """Simulate frames with FIFOs of `capacities` pixels, by stage and input.

    Raises
    ------
    GraphError
        A FIFO is too small and the pipeline deadlocks.
    """
    from accelsim.architectures.fpga.stages import simulate

    w, n = wiring(stages, capacities), len(stages)
    start, finish, fill = np.zeros(n), np.zeros((frames, n)), np.zeros(len(w.edges), dtype=np.int64)
    stuck = simulate(
        frames, w.outputs, times.stream, times.tail, times.latency, times.early, times.accept, w.offsets,
        w.edges, w.reader_offsets, w.readers, w.reader_stages, start, finish, fill,
    )  # fmt: skip
    if stuck >= 0:
        raise deadlock(stages[stuck])
    return Run(start, finish, fill)


def words(unit: Unit, pe: int) -> int:
    """Words of one output pixel on a unit's stream."""
    return max(unit.mh * unit.rounds // pe, 1)


def with_registers(
    stages: Sequence[Stage], depths: Sequence[Sequence[int]], times: Pace
) -> tuple[tuple[int, ...], ...]:
    """FIFO depths and the pixels under way in the pipeline registers of the stage that writes them [pixel].

    A unit of depth L cycles that starts a pixel every t cycles holds ceil(L / t) of them; without these
    places a FIFO of a few words would let a pixel pass per round trip.
    """
    each = np.maximum(times.stream + times.tail, 1e-9)
    underway = np.ceil(times.latency / each).astype(np.int64)
    return tuple(
        tuple(min(depth + int(underway[e.source]), depth + e.pixels) for e, depth in zip(s.edges, held))
        for s, held in zip(stages, depths)
    )


def deadlock(stage: Stage) -> GraphError:
    """The error of a stage that waits for ever."""
    return GraphError("the pipeline deadlocks: a FIFO before this stage is too small", stage.name)
