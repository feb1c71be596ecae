"""Resources of streaming units: LUT, flip-flops, DSP blocks, BRAM and URAM, as closed forms of their folding.

Every number is an estimate before synthesis. LUT and memory formulas are those of FINN's estimators (Blott et
al., TRETS 2018, doi:10.1145/3242897); what FINN does not estimate is a stated structural assumption. All
functions take arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from accelsim.hardware.schema import Fabric

STAGE = "estimate"
"""At which point of the tool flow the resource numbers stand: before synthesis."""

CONTROL_LUT = 300.0  # FINN: constant of every unit, fitted to synthesis results
SYNTHESIS_FACTOR = 1.1  # FINN: overhead of the datapath, fitted likewise
THRESHOLD_MAX_BITS = (
    4  # wider outputs would need 2^bits - 1 comparators; a multiply-shift requantiser is smaller (assumed)
)
LUTRAM_MAX_DEPTH = 128  # FINN: shallower memories are distributed RAM
FF_PER_LUT = 1.5  # assumed; the published BNN-PYNQ pipelines have 1.4 and 1.6
DMA_LUT = 1500.0  # assumed: an AXI data mover with its FIFOs
ROW_LUT_PER_LANE = 900.0  # assumed: exponent table, divider and accumulator of one softmax or norm lane
ALM_PER_LUT = 0.65  # assumed: an ALM holds two small functions and two adder bits
FIFO_LUT_DEPTH = 256  # FINN: deeper FIFOs are block RAM
FIFO_DEPTH = 32  # words of the small FIFO between two stages
HLS_LUTRAM_BITS = 1024  # Vivado HLS: an array of its own to this size becomes distributed RAM
STREAM_WORDS = 128  # assumed: depth that embedded designs give the streams between their layers
BURST_BITS, BURST_WORDS = 64, 512  # assumed: burst buffer of an HLS memory interface


def ceil_div(a: Any, b: Any) -> Any:
    return -(-a // b)


def bram18(width: Any, depth: Any) -> Any:
    """18-Kbit block RAMs of a memory `width` bits wide and `depth` words deep, in the aspect ratio that the
    width selects."""
    width, depth = np.asarray(width), np.asarray(depth)
    wide = np.where(
        (width <= 18) | (depth > 512),
        ceil_div(depth, 1024) * ceil_div(width, 18),
        ceil_div(depth, 512) * ceil_div(width, 36),
    )
    return np.select(
        [width <= 0, width == 1, width == 2, width <= 4, width <= 9],
        [
            0 * depth,
            ceil_div(depth, 16384),
            ceil_div(depth, 8192),
            ceil_div(depth, 4096) * ceil_div(width, 4),
            ceil_div(depth, 2048) * ceil_div(width, 9),
        ],
        wide,
    )


def bram18_inferred(width: Any, depth: Any) -> Any:
    """18-Kbit block RAMs that synthesis infers from an array: the depth rounded up to a power of two in one
    primitive (cascaded beyond 16,384 words), side by side to the width. Simple dual port, so 36 bits wide to
    512 words.
    """
    width, depth = np.asarray(width), np.asarray(depth)
    rounded = 2.0 ** np.ceil(np.log2(np.maximum(depth, 1)))
    lanes = np.select([rounded <= d for d in (512, 1024, 2048, 4096, 8192)], [36, 18, 9, 4, 2], 1)
    return np.where(width * depth > 0, ceil_div(width, lanes) * np.maximum(rounded / 16384, 1), 0)


def uram(width: Any, depth: Any) -> Any:
    """288-Kbit UltraRAMs: 72 bits wide, 4096 words deep."""
    return ceil_div(width, 72) * ceil_div(depth, 4096)


def m20k(width: Any, depth: Any) -> Any:
    """20-Kbit blocks of Intel parts in the best of their shapes 512x40, 1024x20 and 2048x10."""
    shapes = [ceil_div(width, w) * ceil_div(depth, d) for w, d in ((40, 512), (20, 1024), (10, 2048))]
    return np.minimum.reduce([np.asarray(s) for s in shapes])


def lutram(width: Any, depth: Any) -> Any:
    """LUTs of a distributed memory, 64 bits each."""
    return width * ceil_div(depth, 64)


def fifo_lut(width: Any, depth: int = FIFO_DEPTH) -> Any:
    """LUTs of a small stream FIFO: 2 ceil(log2 d) + ceil(d / 32) ceil(w / 2)."""
    return 2 * int(np.ceil(np.log2(max(depth, 2)))) + ceil_div(depth, 32) * ceil_div(width, 2)


def place_fifo(width: int, depth: int, held: int, room: dict[str, float], *, intel: bool) -> bool:
    """Take a FIFO of `depth` words out of `room` (``lut bram18 uram``), where its stream has `held` words.

    To 256 words it lies in LUTs; deeper ones in block RAM, else in URAM, else in LUTs. False when it finds no
    room.
    """
    ways = {"bram18": float(m20k(width, depth) if intel else bram18(width, depth))}
    if not intel:
        ways["uram"] = float(uram(width, depth))
    logic = float(fifo_lut(width, depth) - fifo_lut(width, held))
    ways = {"lut": logic, **ways} if depth <= FIFO_LUT_DEPTH else {**ways, "lut": logic}
    for home, amount in ways.items():
        if amount <= room[home]:
            room[home] -= amount
            return True
    return False


def width_converter_lut(width_in: Any, width_out: Any) -> Any:
    """LUTs between streams of two widths: a shift register of the wider one and a counter. Equal widths need
    none."""
    wider = np.maximum(width_in, width_out)
    ratio = np.maximum(wider // np.maximum(np.minimum(width_in, width_out), 1), 2)
    return np.where(np.equal(width_in, width_out), 0, wider + 2 * np.ceil(np.log2(ratio)))


def accumulator_bits(reduction: Any, weight_bits: int, act_bits: int) -> Any:
    """Bits that a sum of `reduction` products needs: ceil(a + log2(1 + 2^-a) + 1), a = log2(MW) + W + A - 1 -
    signed.

    Colbert, Pappalardo and Petri-Koenig, ICCV 2023 (doi:10.1109/ICCV51070.2023.01554). Inputs count as
    unsigned (after a ReLU).
    """
    alpha = np.log2(np.maximum(reduction, 1)) + weight_bits + act_bits - 1
    return np.ceil(alpha + np.log2(1.0 + 2.0**-alpha) + 1)


def multiplier_lut(pe: Any, simd: Any, weight_bits: int, act_bits: int) -> Any:
    """LUTs of PE x SIMD multipliers: S (2 ceil((W + A) / 6) - 1)(W + A) for each PE, with the synthesis
    factor."""
    total = weight_bits + act_bits
    return SYNTHESIS_FACTOR * pe * simd * (2 * ceil_div(total, 6) - 1) * total


def adder_lut(pe: Any, simd: Any, weight_bits: int, act_bits: int, acc_bits: Any) -> Any:
    """LUTs of PE adder trees and accumulators: (W + A)(2 S - 1) + acc for each PE, with the synthesis
    factor."""
    return SYNTHESIS_FACTOR * pe * ((weight_bits + act_bits) * (2 * simd - 1) + acc_bits)


def threshold_search_lut(pe: Any, out_bits: int, acc_bits: Any, words: Any) -> Any:
    """LUTs of thresholds in a pipelined binary search: B comparators for each PE, and level b holds 2^b T
    words in distributed memory (the RTL unit of FINN's library)."""
    held = sum(ceil_div(2**level * words, 64) for level in range(out_bits))
    return SYNTHESIS_FACTOR * pe * acc_bits * (out_bits + held)


def multiplier_dsp(
    pe: Any, simd: Any, weight_bits: int, act_bits: int, technology: str, *, shared: bool = True
) -> Any:
    """DSP blocks of PE x SIMD multipliers.

    DSP48 (7 series, UltraScale): with operands to 4 bits one block multiplies an activation by four weights,
    to 8 bits by two; DSP58 (Versal) sums three 8-bit products; wider operands take ceil((W + A) / 48) each.
    Intel: two products per block, four 9x9 on Agilex.

    Parameters
    ----------
    shared : bool
        One activation meets the weights of several PEs; not so in a depthwise unit, which packs nothing on a
        DSP48.
    """
    widest = max(weight_bits, act_bits)
    if technology in ("arria10", "stratix10"):
        return ceil_div(pe * simd, 2) if widest <= 18 else pe * simd * 2
    if technology == "agilex":
        return ceil_div(pe * simd, 4) if widest <= 9 else ceil_div(pe * simd, 2)
    if widest > 8:
        return pe * simd * ceil_div(weight_bits + act_bits, 48)
    if technology == "versal":
        return pe * ceil_div(simd, 3)
    if not shared:
        return pe * simd
    return ceil_div(pe, 4 if widest <= 4 else 2) * simd


@dataclass(frozen=True, slots=True)
class Budget:
    """What a design may take.

    Attributes
    ----------
    lut, dsp, bram18, uram, ff : float
        Intel parts count their ALM as ``1 / ALM_PER_LUT`` LUTs and their M20K as memory blocks.
    intel : bool
    dies : int
        Equal dies (super logic regions) that the part consists of.
    """

    lut: float
    ff: float
    dsp: float
    bram18: float
    uram: float
    intel: bool
    dies: int = 1

    @classmethod
    def of(cls, fabric: Fabric) -> Budget:
        """Budget of a fabric: the usable share of its logic, all of its memories and DSP blocks."""
        if fabric.alm is not None:
            blocks = float(fabric.m20k or 0)
            logic = fabric.alm * fabric.usable / ALM_PER_LUT
            return cls(logic, fabric.ff, fabric.dsp, blocks, 0.0, True, fabric.slr)
        blocks = 2.0 * (fabric.bram36 or 0)
        logic = (fabric.lut or 0) * fabric.usable
        return cls(logic, fabric.ff, fabric.dsp, blocks, float(fabric.uram), False, fabric.slr)

    def sharing(self, share: float) -> Budget:
        """The same with a share of the logic."""
        return replace(self, lut=self.lut * share)

    def die(self) -> Budget:
        """One of the dies."""
        n = self.dies
        return Budget(self.lut / n, self.ff / n, self.dsp / n, self.bram18 / n, self.uram / n, self.intel)

    def named(self) -> dict[str, float]:
        """In the vendor's own units."""
        return named(self.lut, self.ff, self.dsp, self.bram18, self.uram, self.intel)


def named(lut: float, ff: float, dsp: float, blocks: float, urams: float, intel: bool) -> dict[str, float]:
    """Resource numbers by the names that their vendor uses; ALM are not LUT6, and M20K are not BRAM36."""
    if intel:
        return {"alm": lut * ALM_PER_LUT, "ff": ff, "dsp": dsp, "m20k": blocks}
    return {"lut": lut, "ff": ff, "dsp": dsp, "bram36": blocks / 2, "uram": urams}
