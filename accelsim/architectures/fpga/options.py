"""All legal foldings of a unit, with their cycles and resources, as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.architectures.fpga import cycles as cyc
from accelsim.architectures.fpga import resources as res
from accelsim.architectures.fpga.network import Unit
from accelsim.architectures.fpga.resources import ceil_div

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Memory = tuple[Any, Any, Any]
"""Copies, width [bit] and depth [words]."""

MEMORIES = 4  # weights; line buffer or bypass; stream; thresholds


@dataclass(frozen=True)
class Options:
    """Foldings of one unit; row i of each array belongs to folding i.

    Attributes
    ----------
    pe, simd : array
        Output and input parallelism.
    cycles : array
        Of one frame, the sliding window included [cycles].
    lut, dsp : array
        Logic outside multipliers and movable memories, and DSP blocks that it needs in any case.
    stream, tail, accept : array
        One output pixel: cycles that overlap with the arrival of its input, cycles that follow, and cycles in
        which the window's buffer takes in one pixel [cycles].
    multiplier_lut, multiplier_dsp : array
        The multipliers in either home; 0 DSP where they only fit LUTs.
    bram18, uram, lutram : array (n, 4)
        The memories in each home. A memory that stays in LUTs (shallow) has its LUTs in `lut` and zeros
        here.
    fixed_uram : array
        URAM that a design asks for, whatever BRAM is free.
    """

    pe: Ints
    simd: Ints
    cycles: Floats
    stream: Floats
    tail: Floats
    accept: Floats
    lut: Floats
    dsp: Floats
    multiplier_lut: Floats
    multiplier_dsp: Floats
    bram18: Floats
    uram: Floats
    lutram: Floats
    fixed_uram: Floats

    def __len__(self) -> int:
        return len(self.pe)

    @cached_property
    def columns(self) -> Floats:
        """Logic and DSP blocks, fixed and of the multipliers, as the search takes them, shape (4, n)."""
        return np.stack([self.lut, self.multiplier_lut, self.dsp, self.multiplier_dsp])

    @cached_property
    def memories(self) -> Floats:
        """The memories in each home, shape (3, n, 4)."""
        return np.stack([self.bram18, self.uram, self.lutram])

    def __getitem__(self, row: int) -> Options:
        return self.take(slice(row, row + 1))

    def take(self, rows: Any) -> Options:
        return Options(**{name: getattr(self, name)[rows] for name in self.__dataclass_fields__})


def divisors(n: int) -> list[int]:
    """Divisors in ascending order."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return small + [n // d for d in reversed(small) if d * d != n]


def _legal(unit: Unit) -> tuple[Ints, Ints]:
    """Legal (PE, SIMD) pairs: S | MW and P | MH. Before a sliding window S | C, or S = C d with d | taps and
    whole windows in parallel; a depthwise
    unit raises S over its taps only once P = C."""
    if unit.kind == "mvau":
        if unit.window is None or unit.streamed:
            simd = divisors(unit.mw)
        else:
            per_group = unit.mw // unit.window.taps
            simd = divisors(per_group) + [per_group * d for d in divisors(unit.window.taps)[1:]]
        pe = divisors(unit.mh)
        grid_p, grid_s = np.meshgrid(
            np.array(pe, dtype=np.int64), np.array(simd, dtype=np.int64), indexing="ij"
        )
        return grid_p.ravel(), grid_s.ravel()
    pe = divisors(unit.mh) if not unit.kind.startswith("dma") else [1]
    simd_list = [1] * len(pe)
    if unit.kind == "vvau":
        more = divisors(unit.mw)[1:]
        pe, simd_list = pe + [unit.mh] * len(more), simd_list + more
    return np.array(pe, dtype=np.int64), np.array(simd_list, dtype=np.int64)


@lru_cache(maxsize=4096)
def options(unit: Unit, technology: str, embedded: bool = False) -> Options:
    """All legal foldings of a unit on a technology, slowest first and cheapest first among equals."""
    pe, simd = _legal(unit)
    found = evaluate(unit, technology, pe, simd, embedded=embedded)
    return found.take(np.lexsort((found.lut + found.multiplier_lut, -found.cycles)))


def evaluate(
    unit: Unit,
    technology: str,
    pe: Ints,
    simd: Ints,
    generator_simd: Ints | None = None,
    *,
    embedded: bool = False,
) -> Options:
    """Cycles and resources of given foldings.

    Parameters
    ----------
    pe, simd : array
    generator_simd : array, optional
        SIMD of the sliding-window generator where a design sets it apart from its matrix unit's.
    embedded : bool
        Each PE has a weight memory of its own, see `accelsim.hardware.schema.Dataflow`.
    """
    n = len(pe)
    zero: Any = np.zeros(n)
    cycles = unit_cycles(unit, pe, simd, generator_simd)
    lut: Any
    mult_lut, mult_dsp, dsp = zero, zero, zero
    memories: list[Memory] = []
    thresholds: Memory = (1, zero, zero)
    intel = technology in ("arria10", "stratix10", "agilex")
    width_in, width_out = simd * unit.act_bits, pe * unit.out_bits
    if unit.kind in ("mvau", "vvau"):
        w, a = unit.weight_bits, unit.act_bits
        acc = res.accumulator_bits(unit.mw, w, a)
        kept = _kept(unit, pe, simd)
        lut = res.CONTROL_LUT + kept * res.adder_lut(pe, simd, w, a, acc)
        mult_lut = kept * res.multiplier_lut(pe, simd, w, a)
        if min(w, a) > 1:
            mult_dsp = kept * res.multiplier_dsp(pe, simd, w, a, technology, shared=unit.kind == "mvau")
        if unit.requantised:
            lut, dsp, thresholds = _requantised(unit, pe, acc, lut, embedded)
        copies = 2 if unit.dynamic else 1
        words = np.maximum(ceil_div(unit.weights * copies, pe * simd), 1)
        depth = np.where(words > 1, words, 0)  # one word is a constant: wires
        if unit.streamed:
            depth = np.full(n, res.FIFO_DEPTH)
        memories.append((pe, simd * w, depth) if embedded else (1, pe * simd * w, depth))
        if unit.kind == "vvau":
            width_in = pe * a
    elif unit.kind.startswith("dma"):
        lut = res.DMA_LUT + zero
    elif unit.kind == "row":
        lut, dsp = res.CONTROL_LUT + res.ROW_LUT_PER_LANE * pe, 4.0 * pe
        memories.append((1, pe * unit.act_bits, 2 * (unit.mh // pe)))
    else:
        width_in = pe * unit.act_bits
        lut = res.CONTROL_LUT / 3 + pe * (unit.act_bits + 1.0)
        if unit.kind == "reorder":
            memories.append((1, pe * unit.act_bits, 2 * unit.pixels * (unit.mh // pe)))
        if unit.requantised:
            lut, dsp, thresholds = _requantised(unit, pe, unit.act_bits + 2.0, lut, embedded)
    if not memories:
        memories.append((1, zero, zero))
    if unit.streamed:
        lut = lut + res.CONTROL_LUT + res.DMA_LUT
        lanes = np.gcd(simd, unit.channels)
        memories.append((1, lanes * unit.act_bits, 2 * unit.pixels_in * (unit.channels // lanes)))
    elif unit.window is not None and unit.window.taps > 1:
        lut = lut + res.CONTROL_LUT
        memories.append(_line_buffer(unit, pe, simd, embedded))
    elif unit.bypass_bits:
        memories.append((1, width_in, ceil_div(unit.bypass_bits, width_in)))
    else:
        memories.append((1, zero, zero))
    if unit.streamed:
        memories.append((1, pe * acc, np.where(unit.mw > simd, unit.pixels, 0)))
    elif embedded and unit.kind.startswith("dma"):
        memories.append((1, res.BURST_BITS, res.BURST_WORDS))
    elif embedded and unit.pixels_in > 1:
        memories.append((1, width_in, res.STREAM_WORDS))
    else:
        memories.append((1, zero, zero))
    memories.append(thresholds)
    lut = lut + res.fifo_lut(width_in) + res.width_converter_lut(width_in, width_out) / 2
    bram, ultra, distributed = np.zeros((n, MEMORIES)), np.zeros((n, MEMORIES)), np.zeros((n, MEMORIES))
    for column, (copies, width, depth) in enumerate(memories):
        in_luts = copies * res.lutram(width, depth)
        if embedded:
            movable = np.asarray(width) * np.asarray(depth) > res.HLS_LUTRAM_BITS
            blocks = res.bram18_inferred(width, depth)
        else:
            movable = np.asarray(depth) > res.LUTRAM_MAX_DEPTH
            blocks = res.m20k(width, depth) if intel else res.bram18(width, depth)
        lut = lut + np.where(movable, 0, in_luts)
        bram[:, column] = np.where(movable, copies * blocks, 0)
        ultra[:, column] = np.where(movable & (not intel), copies * res.uram(width, depth), 0)
        distributed[:, column] = np.where(movable, in_luts, 0)
    stream, tail, accept = pixel_cycles(unit, pe, simd, generator_simd)
    return Options(
        pe=pe,
        simd=simd,
        cycles=_column(cycles, n),
        stream=_column(stream, n),
        tail=_column(tail, n),
        accept=_column(accept, n),
        lut=_column(lut, n),
        dsp=_column(dsp, n),
        multiplier_lut=_column(mult_lut, n),
        multiplier_dsp=_column(mult_dsp, n),
        bram18=bram,
        uram=ultra,
        lutram=distributed,
        fixed_uram=np.zeros(n),
    )


def _kept(unit: Unit, pe: Ints, simd: Ints) -> Any:
    """Share of the multipliers and adders that synthesis keeps: in a fully unrolled unit each weight is a
    constant, and those that are zero take no logic (Duarte et al., JINST 13 P07027, 2018, arXiv:1804.06913).
    """
    constant = (pe * simd == unit.weights) & (not unit.dynamic) & (not unit.streamed)
    return np.where(constant, unit.density, 1.0)


def _column(values: Any, n: int) -> Floats:
    return np.broadcast_to(np.asarray(values, dtype=np.float64), n).copy()


def _requantised(unit: Unit, pe: Ints, acc: Any, lut: Any, embedded: bool) -> tuple[Any, Any, Memory]:
    """(logic, DSP blocks, memory) with the thresholds, or with a multiply-shift requantiser of one DSP block
    per PE where the output is wide. Embedded designs hold thresholds in arrays of their own."""
    words, none = unit.mh // pe, (1, 0.0 * pe, 0.0 * pe)
    if unit.out_bits > res.THRESHOLD_MAX_BITS:
        return lut + pe * (acc + 2.0 * unit.out_bits), 1.0 * pe, none
    if not embedded:
        return lut + res.threshold_search_lut(pe, unit.out_bits, acc, words), np.zeros(len(pe)), none
    levels = 2**unit.out_bits - 1
    return lut + res.SYNTHESIS_FACTOR * pe * levels * acc, np.zeros(len(pe)), (pe * levels, acc, words)


def _line_buffer(unit: Unit, pe: Ints, simd: Ints, embedded: bool) -> Memory:
    """The sliding window's buffer; whole windows in parallel need their rows side by side.

    Embedded designs hold ceil(kh / sh) + 1 buffers of sh rows each, as the generator of finn-hlslib does.
    """
    w = unit.window
    if w is None:
        return 1, 0.0 * pe, 0.0 * pe
    lanes = np.gcd(simd, unit.channels) if unit.kind == "mvau" else pe
    whole = (simd > unit.channels) if unit.kind == "mvau" else (simd > 1)
    folds = unit.channels // lanes
    copies, depth = (
        (-(-w.kernel_h // w.stride_h) + 1, w.stride_h * w.padded_w * folds)
        if embedded
        else (1, w.buffer * folds)
    )
    rows = max(w.kernel_h - 1, 1)
    return (
        np.where(whole, 1, copies),
        np.where(whole, rows * unit.channels * unit.act_bits, lanes * unit.act_bits),
        np.where(whole, w.padded_w, depth),
    )


def unit_cycles(unit: Unit, pe: Any, simd: Any, generator_simd: Any = None) -> Any:
    """Cycles of one frame: the slower of the sliding window and what stands behind it [cycles]."""
    window = unit.window
    if unit.kind == "mvau":
        compute = (
            cyc.mvau(unit.mw, unit.mh, unit.pixels * unit.rounds, pe, simd) + unit.pixels * unit.feedback
        )
        if window is None or unit.streamed:
            return compute
        lanes = np.gcd(simd, unit.channels) if generator_simd is None else generator_simd
        whole = np.asarray(simd) > unit.channels
        serial = cyc.sliding_window(window, unit.channels, lanes)
        return np.maximum(compute, np.where(whole, cyc.parallel_window(window), serial))
    if unit.kind == "vvau":
        compute = cyc.vvau(unit.mh, unit.mw, unit.pixels, pe, simd)
        if window is None:
            return compute
        lanes = pe if generator_simd is None else generator_simd
        serial = cyc.sliding_window(window, unit.channels, lanes, depthwise=True)
        return np.maximum(compute, np.where(np.asarray(simd) > 1, cyc.parallel_window(window), serial))
    if unit.kind == "pool":
        compute = cyc.pool(unit.mh, unit.mw, unit.pixels, pe)
        if window is None:
            return compute
        if _tiles(unit):  # rows and columns that no window needs pass as well
            return np.maximum(compute, cyc.channelwise(unit.mh, unit.pixels_in, pe))
        return np.maximum(compute, cyc.sliding_window(window, unit.channels, pe, depthwise=True))
    if unit.kind == "global_pool":
        return cyc.global_pool(unit.mh, unit.pixels_in, pe)
    if unit.kind.startswith("dma"):
        return np.zeros(len(pe)) + 1
    return cyc.channelwise(
        unit.mh, np.maximum(unit.pixels, unit.pixels_in) if unit.kind == "reorder" else unit.pixels, pe
    )


def pixel_cycles(unit: Unit, pe: Any, simd: Any, generator_simd: Any = None) -> tuple[Any, Any, Any]:
    """(stream, tail, accept) of one output pixel, as `stages.simulate` takes them [cycles].

    A matrix unit reads its input while it computes the first MH / PE fold and replays it for the others;
    everything else puts words out as they come.
    """
    folds, none = unit.mh / pe, 0.0 * pe
    window = unit.window
    if unit.kind == "mvau":
        stream = unit.mw / simd * unit.rounds
        total = stream * folds + unit.feedback
        if unit.streamed:  # nothing overlaps with the arrival of the frame
            return none, total, none
        if window is None:
            return stream, total - stream, none
        lanes = np.gcd(simd, unit.channels) if generator_simd is None else generator_simd
        serial = window.taps * unit.channels / lanes
        total = np.where(np.asarray(simd) > unit.channels, total, np.maximum(total, serial))
        return stream, total - stream, unit.channels / lanes
    if unit.kind in ("vvau", "pool"):
        total = folds * unit.mw / simd
        if window is None:
            return total, none, none
        lanes = pe if generator_simd is None else generator_simd
        if unit.kind == "vvau":
            serial = window.taps * unit.channels / lanes
            total = np.where(np.asarray(simd) > 1, total, np.maximum(total, serial))
        return total, none, unit.channels / lanes
    if unit.kind == "global_pool":
        return folds * unit.pixels_in, folds, none
    return folds, none, none


def _tiles(unit: Unit) -> bool:
    """Whether a pooling's windows do not overlap, so that it reduces the stream as it comes."""
    w = unit.window
    return w is not None and (w.kernel_h, w.kernel_w) == (w.stride_h, w.stride_w)
