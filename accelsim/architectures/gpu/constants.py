"""What a GPU model cannot read off a datasheet, as data: one set of constants per family of chips."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class GpuConstants:
    """Constants of the kernel model. All are at their best physical value (an efficiency of one) or worse, so
    that no kernel beats the roofline.

    Attributes
    ----------
    ramp_s : float
        From launch to the first useful instruction and back, beside the launch gap of the device file [s].
    tensor_efficiency, dram_efficiency, vector_efficiency : float
        Share of the peak that a long kernel sustains at full clock, in (0, 1].
    prologue_latencies : float
        Memory latencies before the first step of a block.
    l2_bytes_per_clock : float
        What one SM takes from the L2 [B/clk].
    l2_efficiency : float
        Traffic that thread blocks ask of the L2 over its measured bandwidth; above 1 where clusters share
        loads.
    epilogue_cycles : float
        Fixed cost of writing a tile [clk].
    shared_bytes_per_clock : float
        Operand supply from shared memory to the tensor cores of one SM [B/clk]; it makes narrow tiles slower.
    step_latencies : float
        Memory latencies that one block pays per pipeline of `STAGES` steps.
    step_cycles : float
        Least duration of one step of one block (barriers, issue) [clk].
    split_k_s : float
        Fixed cost of the reduction after a split product [s].
    split_k_share : float
        Share of the L2 bandwidth that partial sums get.
    overlap : float
        Exponent p with which compute and memory time add: (c^p + m^p)^(1/p); infinite is perfect overlap.
    tensor_flop_j : float
        Power model: energy of one 16-bit FLOP with all its data movement on chip [J]. Other formats take the
        same power at full rate.
    dram_byte_j : float
        Power model: energy of one external byte [J].
    l2_share : float
        Share of the L2 that one copy of the data can use (parts with two partitions keep two copies).
    softmax_cycles : float
        Cycles per 128 x 128 block of attention scores that do not overlap the products.
    attention_efficiency : float
        Share of the tensor peak that the products inside fused attention reach, in (0, 1].
    attention_step_cycles : float
        Least duration of one block of 128 keys in one thread block [clk].
    attention_block_cycles : float
        Fixed cost of one thread block of attention (queries, page table, first keys, output) [clk]; two blocks
        of an SM overlap theirs.
    attention_s : float
        Fixed cost of an attention operator: appending to the cache, planning, merging [s].
    status, basis : str
        ``fitted`` or ``assumed``, and on what.
    """

    ramp_s: float
    tensor_efficiency: float
    dram_efficiency: float
    vector_efficiency: float
    prologue_latencies: float
    l2_bytes_per_clock: float
    l2_efficiency: float
    epilogue_cycles: float
    shared_bytes_per_clock: float
    step_latencies: float
    step_cycles: float
    split_k_s: float
    split_k_share: float
    overlap: float
    tensor_flop_j: float
    dram_byte_j: float
    l2_share: float
    softmax_cycles: float
    attention_efficiency: float
    attention_step_cycles: float
    attention_block_cycles: float
    attention_s: float
    status: str = "assumed"
    basis: str = ""

    @property
    def array(self) -> np.ndarray:
        """The numbers in the order of the fields, for the numba kernels."""
        return _array(self)


@lru_cache(maxsize=64)
def _array(constants: GpuConstants) -> np.ndarray:
    values = np.array([v for v in astuple(constants) if not isinstance(v, str)], dtype=np.float64)
    values.setflags(write=False)
    return values


NAMES: tuple[str, ...] = tuple(f.name for f in fields(GpuConstants) if f.name not in ("status", "basis"))

GENERIC = GpuConstants(
    ramp_s=1.0e-6,
    tensor_efficiency=0.9,
    dram_efficiency=0.85,
    vector_efficiency=0.6,
    prologue_latencies=1.0,
    l2_bytes_per_clock=64.0,
    l2_efficiency=1.0,
    epilogue_cycles=1500.0,
    shared_bytes_per_clock=128.0,
    step_latencies=1.2,
    step_cycles=130.0,
    split_k_s=2.3e-6,
    split_k_share=1.0,
    overlap=4.0,
    tensor_flop_j=1.2e-12,
    dram_byte_j=60e-12,
    l2_share=0.8,
    softmax_cycles=500.0,
    attention_efficiency=0.7,
    attention_step_cycles=1000.0,
    attention_block_cycles=5000.0,
    attention_s=4e-6,
    basis="assumed: near the fitted values of the families that have measurements",
)

FAMILIES: dict[str, GpuConstants] = {}


def constants_for(device: Any) -> GpuConstants:
    """Constants of a device, by its family; GDDR parts of a family that was fitted on HBM parts take those of
    the nearest GDDR family.
    """
    family = device.family
    if family == "ampere" and not device.memory.type.upper().startswith("HBM"):
        family = "ada"
    found = FAMILIES.get(family)
    if found is not None:
        return found
    return replace(GENERIC, basis=f"{GENERIC.basis}; no measurement of family {device.family}")
