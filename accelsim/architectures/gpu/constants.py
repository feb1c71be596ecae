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
        Share of the L2 bandwidth that loads reach, after pairs of blocks share theirs; above 1 where more
        share.
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
        Fixed cost of one thread block of attention (queries, page table, first keys, output) [clk]; two
        blocks of an SM overlap theirs.
    attention_s : float
        Fixed cost of an attention operator: appending to the cache, planning, merging [s].
    unrolled_hits : float
        Share of a convolution's repeated input reads (kernel positions that overlap) that the first-level
        cache serves, in [0, 1].
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
    unrolled_hits: float = 0.6
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
    ramp_s=1.319e-06,
    tensor_efficiency=0.8185,
    dram_efficiency=0.824,
    vector_efficiency=0.6,
    prologue_latencies=1.049,
    l2_bytes_per_clock=45.96,
    l2_efficiency=0.9392,
    epilogue_cycles=1464.0,
    shared_bytes_per_clock=200.5,
    step_latencies=0.7767,
    step_cycles=124.4,
    split_k_s=2.667e-06,
    split_k_share=0.8091,
    overlap=3.247,
    tensor_flop_j=5.676e-13,
    dram_byte_j=5.625e-11,
    l2_share=0.7514,
    softmax_cycles=600.0,
    attention_efficiency=0.57,
    attention_step_cycles=1000.0,
    attention_block_cycles=10000.0,
    attention_s=2e-06,
    status="assumed",
    basis=(
        "assumed to be like the families that have measurements: products fitted jointly on training rows of "
        "H100, A100, B200, L40S and RTX PRO 6000"
    ),
)


def _basis(device: str, attention: str) -> str:
    return (
        f"fitted on the {device} bf16 products of aiconfigurator_core 0.12.0, median of its backends, "
        f"rows with sha256('n|k') mod 5 != 0; {attention}"
    )


FAMILIES: dict[str, GpuConstants] = {
    "hopper": GpuConstants(
        ramp_s=1.282e-06,
        tensor_efficiency=1.0,
        dram_efficiency=0.8547,
        vector_efficiency=0.6,
        prologue_latencies=0.9353,
        l2_bytes_per_clock=51.27,
        l2_efficiency=1.099,
        epilogue_cycles=3615.0,
        shared_bytes_per_clock=195.2,
        step_latencies=1.188,
        step_cycles=148.8,
        split_k_s=2.614e-06,
        split_k_share=0.6246,
        overlap=3.941,
        tensor_flop_j=9.523e-13,
        dram_byte_j=5.483e-11,
        l2_share=0.6557,
        softmax_cycles=334.0,
        attention_efficiency=0.611,
        attention_step_cycles=655.0,
        attention_block_cycles=14000.0,
        attention_s=0.0,
        status="fitted",
        basis=_basis("H100 SXM", "attention on vLLM rows with sha256(heads|kv heads|head dim) mod 5 != 0"),
    ),
    "ampere": GpuConstants(
        ramp_s=1.831e-06,
        tensor_efficiency=1.0,
        dram_efficiency=0.7505,
        vector_efficiency=0.6,
        prologue_latencies=1.088,
        l2_bytes_per_clock=25.67,
        l2_efficiency=1.004,
        epilogue_cycles=2247.0,
        shared_bytes_per_clock=198.7,
        step_latencies=1.013,
        step_cycles=137.5,
        split_k_s=2.251e-06,
        split_k_share=0.9399,
        overlap=4.023,
        tensor_flop_j=1.784e-12,
        dram_byte_j=5.791e-11,
        l2_share=0.495,
        softmax_cycles=51.5,
        attention_efficiency=0.516,
        attention_step_cycles=122.0,
        attention_block_cycles=6290.0,
        attention_s=5.95e-06,
        status="fitted",
        basis=_basis("A100 SXM", "attention on vLLM rows with sha256(heads|kv heads|head dim) mod 5 != 0"),
    ),
    "blackwell": GpuConstants(
        ramp_s=6.825e-07,
        tensor_efficiency=1.0,
        dram_efficiency=1.0,
        vector_efficiency=0.6,
        prologue_latencies=0.956,
        l2_bytes_per_clock=79.21,
        l2_efficiency=0.9954,
        epilogue_cycles=739.9,
        shared_bytes_per_clock=192.0,
        step_latencies=0.9517,
        step_cycles=139.9,
        split_k_s=3.084e-06,
        split_k_share=0.6036,
        overlap=2.727,
        tensor_flop_j=6.317e-13,
        dram_byte_j=5.716e-11,
        l2_share=0.5987,
        softmax_cycles=1100.0,
        attention_efficiency=0.469,
        attention_step_cycles=127.0,
        attention_block_cycles=6370.0,
        attention_s=2.51e-06,
        status="fitted",
        basis=_basis("B200", "attention on vLLM rows with sha256(heads|kv heads|head dim) mod 5 != 0"),
    ),
    "ada": GpuConstants(
        ramp_s=9.379e-07,
        tensor_efficiency=0.9582,
        dram_efficiency=0.7975,
        vector_efficiency=0.6,
        prologue_latencies=0.4083,
        l2_bytes_per_clock=14.54,
        l2_efficiency=0.6909,
        epilogue_cycles=1797.0,
        shared_bytes_per_clock=372.6,
        step_latencies=1.47,
        step_cycles=9.528,
        split_k_s=1.992e-06,
        split_k_share=1.999,
        overlap=2.855,
        tensor_flop_j=2.483e-12,
        dram_byte_j=3e-10,
        l2_share=1.005,
        softmax_cycles=2000.0,
        attention_efficiency=0.603,
        attention_step_cycles=0.0,
        attention_block_cycles=14000.0,
        attention_s=0.0,
        status="fitted",
        basis=_basis("L40S", "attention on vLLM rows with sha256(heads|kv heads|head dim) mod 5 != 0"),
    ),
    "blackwell-rtx": GpuConstants(
        ramp_s=7.172e-07,
        tensor_efficiency=0.8609,
        dram_efficiency=0.8235,
        vector_efficiency=0.6,
        prologue_latencies=0.9418,
        l2_bytes_per_clock=18.82,
        l2_efficiency=0.8528,
        epilogue_cycles=2260.0,
        shared_bytes_per_clock=194.0,
        step_latencies=0.9888,
        step_cycles=134.8,
        split_k_s=1.837e-06,
        split_k_share=1.254,
        overlap=4.259,
        tensor_flop_j=1.036e-12,
        dram_byte_j=5.748e-11,
        l2_share=0.9417,
        softmax_cycles=2000.0,
        attention_efficiency=0.588,
        attention_step_cycles=239.0,
        attention_block_cycles=18400.0,
        attention_s=0.0,
        status="fitted",
        basis=_basis(
            "RTX PRO 6000 server", "attention on vLLM rows with sha256(heads|kv heads|head dim) mod 5 != 0"
        ),
    ),
}
"""By family. Products: least mean |log error| on 4,000 training rows of one device per family (CMA-ES), and a
weak pull towards physical values (not on the L40S, which fits less well with it).
"""


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
