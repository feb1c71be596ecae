"""From folded stages to times: what each costs per pixel, the first frame through the pipeline, and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelsim.architectures.fpga import cycles as cyc
from accelsim.architectures.fpga.fifo import depths
from accelsim.architectures.fpga.network import Stage, Unit
from accelsim.architectures.fpga.options import Floats, Options, unit_cycles
from accelsim.core.errors import GraphError
from accelsim.hardware.schema import FpgaDevice

PIPELINE_CYCLES = 4.0  # assumed: registers between a unit's input and its output, beside the adder tree
ROW_CYCLES = 20.0  # assumed: exponent, divider and square root of a softmax or norm

_MODES = {"stream": 0, "window": 1, "all": 2}  # as in `stages`


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


def per_pixel(unit: Unit, row: Options) -> tuple[float, float, float, bool, float]:
    """(stream, tail, latency, early, accept) of one output pixel, as `stages.simulate` takes them [cycles].

    A matrix unit reads its input while it computes the first MH / PE fold and replays it for the others; everything else puts words out as they come.
    """
    pe, simd = int(row.pe[0]), int(row.simd[0])
    folds = unit.mh / pe
    accept = 0.0
    if unit.kind == "mvau":
        stream = unit.mw / simd * unit.rounds
        total = stream * folds
        if unit.window is not None:
            lanes = int(np.gcd(simd, unit.channels))
            accept = unit.channels / lanes
            if simd <= unit.channels:
                total = max(total, unit.window.taps * unit.channels / lanes)
        return stream, total - stream, PIPELINE_CYCLES + float(np.ceil(np.log2(simd))), False, accept
    if unit.kind in ("vvau", "pool"):
        total = folds * unit.mw / simd
        if unit.window is not None:
            accept = folds
            if unit.kind == "vvau" and simd == 1:
                total = max(total, unit.window.taps * folds)
        return total, 0.0, PIPELINE_CYCLES, True, accept
    if unit.kind == "global_pool":
        return folds * unit.pixels_in, folds, PIPELINE_CYCLES, False, 0.0
    if unit.kind == "row":
        return folds, 0.0, 2.0 * folds + ROW_CYCLES, False, 0.0
    return folds, 0.0, PIPELINE_CYCLES / 2, True, 0.0


def analytic_cycles(unit: Unit, row: Options) -> float:
    """Cycles of one frame with no fill and an unlimited window generator: a lower bound [cycles]."""
    bare = replace(unit, window=None)
    return float(np.asarray(unit_cycles(bare, row.pe, row.simd)).ravel()[0])


@dataclass(frozen=True)
class Frame:
    """One frame through an empty pipeline.

    Attributes
    ----------
    start, finish : array
        Of each stage, since the first word was asked for [cycles].
    """

    start: Floats
    finish: Floats


def first_frame(
    stages: Sequence[Stage], rows: Sequence[Options], ports: Sequence[Port | None], latency_cycles: float
) -> Frame:
    """Simulate the first frame.

    Parameters
    ----------
    stages, rows : sequence
        With their foldings.
    ports : sequence
        The DMA of each DMA stage, else None.
    latency_cycles : float
        Time from asking DRAM to the first word [cycles].

    Raises
    ------
    GraphError
        A FIFO is too small and the pipeline deadlocks.
    """
    from accelsim.architectures.fpga.stages import simulate

    n = len(stages)
    timing = []
    for stage, row, dma in zip(stages, rows, ports):
        if dma is None:
            timing.append(per_pixel(stage.unit, row))
        else:
            wait = latency_cycles if stage.unit.kind == "dma_in" else 0.0
            timing.append((dma.cycles / stage.unit.pixels, 0.0, wait, True, 0.0))
    stream, tail, latency, early, accept = (np.array(column) for column in zip(*timing))
    outputs = np.array([stage.unit.pixels for stage in stages], dtype=np.int64)
    held = depths(tuple(stages))
    edges, offsets, feeds = [], [0], []
    for index, stage in enumerate(stages):
        for edge, depth in zip(stage.edges, held[index]):
            w = stage.unit.window
            geometry = (1,) * 8 if w is None or edge.mode != "window" else (
                w.height, w.width, (w.kernel_h - 1) * w.dilation_h, (w.kernel_w - 1) * w.dilation_w, w.stride_h, w.stride_w,
                w.pad_h, w.pad_w,
            )  # fmt: skip
            columns = 1 if w is None else w.out_w
            edges.append(
                (edge.source, _MODES[edge.mode], edge.pixels, depth, *geometry, columns, stage.unit.pixels)
            )
            feeds.append((edge.source, len(edges) - 1, index))
        offsets.append(len(edges))
    feeds.sort()
    counts = np.bincount([f[0] for f in feeds], minlength=n) if feeds else np.zeros(n, dtype=np.int64)
    start, finish = np.zeros(n), np.zeros(n)
    stuck = simulate(
        outputs,
        stream.astype(float),
        tail.astype(float),
        latency.astype(float),
        early.astype(bool),
        accept.astype(float),
        np.array(offsets, dtype=np.int64),
        np.array(edges, dtype=np.int64).reshape(-1, 14),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.array([f[1] for f in feeds], dtype=np.int64),
        np.array([f[2] for f in feeds], dtype=np.int64),
        start,
        finish,
    )
    if stuck >= 0:
        raise GraphError("the pipeline deadlocks: a FIFO before this stage is too small", stages[stuck].name)
    return Frame(start, finish)
