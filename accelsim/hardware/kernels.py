"""What a GPU model cannot read off a datasheet: constants of the vendor libraries' kernels on a chip.

They are data of the device: fitted on measurements (status ``measured``, the source names data set and
split), or assumed. Every one is at its best physical value (an efficiency of one) or worse, so that no kernel
beats the roofline. The formulas are in docs/models.md, section GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from accelsim.hardware.section import Count, Fraction, Joules, Seconds, Section

Ratio = Annotated[float, Field(ge=0)]


class ProductModel(Section):
    """Kernels that tile a matrix product, and those that only move data."""

    ramp_s: Seconds = Field(alias="ramp")
    """From launch to the first useful instruction and back, beside the launch gap."""
    tensor_efficiency: Fraction
    dram_efficiency: Fraction
    vector_efficiency: Fraction
    """Shares of the peaks that a long kernel sustains at full clock."""
    prologue_latencies: Ratio
    """Memory latencies before the first step of a block."""
    l2_bytes_per_clock: Ratio
    """What one SM takes from the L2 [B/clk]."""
    l2_efficiency: Ratio
    """Share of the L2 bandwidth that loads reach, after pairs of blocks share theirs; above 1 where more
    do."""
    epilogue_cycles: Ratio
    """Fixed cost of writing a tile [clk]."""
    shared_bytes_per_clock: Ratio
    """Operand supply from shared memory to the tensor cores of one SM [B/clk]; it makes narrow tiles
    slower."""
    step_latencies: Ratio
    """Memory latencies that one block pays per pipeline of stages."""
    step_cycles: Ratio
    """Least duration of one step of one block (barriers, issue) [clk]."""
    split_k_s: Seconds = Field(alias="split_k")
    """Fixed cost of the reduction after a split product."""
    split_k_share: Ratio
    """Share of the L2 bandwidth that partial sums get."""
    overlap: Annotated[float, Field(ge=1)]
    """Exponent p with which compute and memory time add: (c^p + m^p)^(1/p); infinite is perfect overlap."""
    tensor_flop_j: Joules = Field(alias="tensor_flop")
    """Power model: energy of one 16-bit FLOP with all its data movement on chip. Other formats take the same
    power at full rate."""
    dram_byte_j: Joules = Field(alias="dram_byte")
    """Power model: energy of one external byte."""
    l2_share: Ratio
    """Share of the L2 that one copy of the data can use (parts with two partitions keep two copies)."""
    unrolled_hits: Annotated[float, Field(ge=0, le=1)]
    """Share of a convolution's repeated input reads (kernel positions that overlap) that the first-level
    cache
    serves."""

    @property
    def array(self) -> Any:
        """The numbers in the order of the fields, for the numba kernels."""
        return _array(self)


class AttentionModel(Section):
    """Fused attention kernels of one software stack."""

    softmax_cycles: Ratio
    """Cycles per 128 x 128 block of scores that do not overlap the products."""
    efficiency: Fraction
    """Share of the tensor peak that the products inside reach."""
    step_cycles: Ratio
    """Least duration of one block of 128 keys in one thread block [clk]."""
    block_cycles: Ratio
    """Fixed cost of one thread block (queries, page table, first keys, output) [clk]; two blocks of an SM
    overlap
    theirs."""
    fixed_s: Seconds = Field(alias="fixed")
    """Fixed cost of the operator: appending to the cache, planning, merging."""

    @property
    def array(self) -> Any:
        """The numbers in the order of the fields, for the numba kernels."""
        return _array(self)


class Protocol(Section):
    """One way to run a collective: t = fixed + step steps + bytes / p (steps + copies) / (efficiency rate)."""

    fixed_s: Seconds = Field(alias="fixed")
    step_s: Seconds = Field(alias="step")
    """Latency of one step: a message to a neighbour and its flag."""
    efficiency: Fraction
    """Share of the link's bandwidth that the payload gets."""
    copies: Ratio
    """Local copies, in units of one step's bytes."""


class CollectiveModel(Section):
    """Collectives of the devices that share one kind of link; each call takes the fastest protocol."""

    ring: Mapping[str, Protocol]
    """All-reduce, all-gather, reduce-scatter."""
    exchange: Mapping[str, Protocol]
    """All-to-all and send."""
    switch: Protocol | None = None
    """All-reduce of floats inside the switch, for 8 devices and more."""
    allreduce: Mapping[str, Mapping[str, Protocol]] = Field(default_factory=dict)
    """All-reduce kernels of serving frameworks, by stack; in ``one_shot`` each device reads all buffers."""


class MoeModel(Section):
    """Expert layers of one software stack and weight format; see docs/models.md, GPU."""

    fixed_s: Seconds = Field(alias="fixed")
    """All launches, routing and sorting of one layer."""
    ungated_s: Seconds = Field(default=0.0, alias="ungated")
    """More of it where experts have no gate."""
    row_bytes: Ratio
    """Traffic around the products per routed row and element of its widths [B]: copies, activation, sum."""
    tensor_efficiency: Ratio
    """Rate of the products' main loops over that of plain products."""
    dram_efficiency: Fraction
    """Share of the DRAM bandwidth that the experts' weights get."""
    step_share: Ratio
    """Latency of a step of the main loop over that of plain products."""
    pad_rows: Annotated[float, Field(ge=1)]
    """Rows that an expert's block is padded to at least."""
    spread: Annotated[float, Field(ge=0, le=1)]
    """How far the load of the heaviest rank exceeds the mean: 0 not at all, 1 as the power law has it."""
    expert_s: Seconds = Field(alias="expert")
    """Cost per expert of the rank (offsets, descriptors)."""

    @property
    def array(self) -> Any:
        """The numbers in the order of the fields, for the numba kernels."""
        return _array(self)


class ConvModel(Section):
    """Convolution kernels of one software stack: what they add to a product's constants."""

    tensor_efficiency: Fraction
    """Share of the rate of a product that implicit GEMM reaches on the tensor cores."""
    lane_efficiency: Fraction
    """The same on the vector units."""
    gather_ops: Ratio
    """Address arithmetic of a tensor-core kernel per output pixel, filter position and 128 filters
    [operations]."""
    lane_gather_ops: Ratio
    """The same of a kernel on the vector units."""
    launches: Annotated[float, Field(ge=1)]
    """Launches per implicit GEMM: libraries that take any shape at run time make a table of offsets first."""
    least_channels: Count
    """Channels that the first layer of an image network is padded to."""
    winograd_efficiency: Fraction
    """Share of the rate of a product that the products of transformed tiles reach."""
    fused_winograd_efficiency: Fraction
    """The same where one kernel transforms and multiplies."""


class KernelModels(Section):
    """Kernel constants of a device: products, and attention and convolutions by software stack (``default``
    for all others)."""

    product: ProductModel
    attention: Mapping[str, AttentionModel]
    conv: Mapping[str, ConvModel]
    collective: Mapping[str, Mapping[str, CollectiveModel]] = Field(default_factory=dict)
    """By kind of link, then by the most devices that it holds for (``up_to_8``)."""
    moe: Mapping[str, Mapping[str, MoeModel]] = Field(default_factory=dict)
    """By stack, then by weight format (`default` for all others)."""


@lru_cache(maxsize=256)
def _array(model: Section) -> Any:
    values = np.array([getattr(model, name) for name in type(model).model_fields], dtype=np.float64)
    values.setflags(write=False)
    return values
