"""What a GPU model cannot read off a datasheet: constants of the vendor libraries' kernels on a chip.

They are data of the device: fitted on measurements (status ``measured``, the source names data set and
split), or assumed. Every one is at its best physical value (an efficiency of one) or worse, so that no kernel
beats the roofline. The formulas are in docs/models.md, section GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from accelsim.hardware.bands import Band
from accelsim.hardware.expert_kernels import MoeModel
from accelsim.hardware.link_kernels import CollectiveModel
from accelsim.hardware.power_kernels import PowerModel
from accelsim.hardware.section import Count, Fraction, Joules, Seconds, Section

Ratio = Annotated[float, Field(ge=0)]


class ProductModel(Section):
    """Kernels that tile a matrix product, and those that only move data."""

    launch_cycles: Ratio
    """From one kernel of a replayed graph to the next, with nothing to do [boost clocks]."""
    tensor_efficiency: Fraction
    dram_efficiency: Fraction
    vector_efficiency: Fraction
    """Shares of the peaks that a long kernel sustains at full clock."""
    prologue_latencies: Ratio
    """Memory latencies before the first step of a block."""
    l2_bytes_per_clock: Ratio
    """What one SM takes from the L2 per 2048 FLOP of its 16-bit tensor rate [B/clk]: hardware widens both
    together, clusters that share loads included."""
    l2_efficiency: Ratio
    """Share of the L2 bandwidth that loads reach, after blocks of a cluster share theirs; above 1 where more
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
    split_k_cycles: Ratio
    """Fixed cost of the reduction after a split product [clk]."""
    split_k_share: Ratio
    """Share of the L2 bandwidth that partial sums get."""
    overlap: Annotated[float, Field(ge=1)]
    """Exponent p with which compute and memory time add: (c^p + m^p)^(1/p); infinite is perfect overlap."""
    switched_macs: Ratio
    """Power model: energy of one 16-bit FLOP with all its data movement on chip, over that of a bare
    multiply-accumulate, at 4096 FLOP per SM and clock. Other formats take the same power at full rate."""
    dram_byte_j: Joules = Field(alias="dram_byte")
    """Power model: energy of one external byte."""
    l2_share: Ratio
    """Share of the L2 that one copy of the data can use (parts with two partitions keep two copies)."""
    unrolled_hits: Annotated[float, Field(ge=0, le=1)]
    """Share of a convolution's repeated input reads (kernel positions that overlap) that the first-level
    cache
    serves."""
    vector_latencies: Ratio
    """Memory latencies of a matrix-vector kernel, which takes a single row without tensor cores."""
    vector_bytes: Annotated[float, Field(gt=0)]
    """Bytes of one matrix row that such a kernel has in flight [B]."""
    step_overhead: Ratio
    """Cost of each step beside its longest part [clk]."""
    tile_costs: tuple[Annotated[float, Field(ge=1)], ...]
    """Duration of a step over the formula's, tile by tile in the order of `tiles.TILES`."""
    unpack_cycles: Ratio
    """Unpacking 1024 narrow weights of a step [clk]."""
    quantise_cycles: Ratio
    """Fixed cost of quantising the activations of a product, its own launch included [clk]."""
    quantise_row_cycles: Ratio
    quantise_element_cycles: Ratio
    """Quantising one row, on one SM: fixed, and per element of the row [clk]."""
    quantise_passes: Ratio
    """How often quantisation moves the activations (read wide, written narrow); 0: it is not there."""
    integer_power: Annotated[float, Field(gt=0, le=1)]
    """Power model: a product of integers over one of floats, each at the full rate of its format."""
    power_lag_s: Seconds = Field(alias="power_lag")
    """Power model: the cap holds an average over about this time, so that shorter kernels measured on their
    own run above it."""
    split_work: Ratio
    """Multiply-accumulates below which the library does not split a reduction, unless it is long."""
    least_rows: Ratio
    """Tiles have as many rows as the left operand, in powers of two, up to this many: libraries that pick a
    tile by the number of tokens alone have none that are shorter."""
    least_columns: Ratio
    """Columns of the narrowest tile."""
    swizzle: Ratio = 0.0
    """Columns of tiles that a kernel walks down together, group after group; 0: the tiles of a wave are as
    square as the grid allows."""

    @property
    def array(self) -> Any:
        """The numbers in the order of the fields, for the numba kernels."""
        return _array(self)


class AttentionModel(Section):
    """One fused attention kernel of a software stack, in the order that `attention_rows` counts."""

    efficiency: Fraction
    """Share of the tensor peak that the products reach while they run."""
    softmax: Ratio
    """Softmax of one score in exponentials of the special-function units; below 1 where the kernel makes some
    of them by polynomials."""
    hidden: Annotated[float, Field(ge=0, le=1)]
    """Share of the shorter of products and softmax that hides behind the longer."""
    step_cycles: Ratio
    """Latency of one step over a block of keys beside its work [clk]."""
    block_cycles: Ratio
    """Fixed cost of one thread block (queries, page table, first keys, output) [clk]."""
    resident: Annotated[float, Field(ge=1)]
    """Thread blocks of one SM whose latencies overlap."""
    rounding: Annotated[float, Field(ge=0, le=1)]
    """1: blocks queue in whole rounds; 0: they balance perfectly over the SMs."""
    l2_bytes_per_clock: Annotated[float, Field(gt=0)]
    """What one SM takes from the L2 [B/clk]."""
    dram_efficiency: Fraction
    l2_efficiency: Annotated[float, Field(gt=0)]
    """Shares of the bandwidths; above 1 where the listed L2 bandwidth is below what loads reach."""
    l2_share: Ratio
    """Share of the L2 that cached keys and values can use."""
    overlap: Annotated[float, Field(ge=1)]
    """Exponent p with which on-chip and memory time add: (c^p + m^p)^(1/p)."""
    sustained: Fraction
    """Clock of kernels much longer than 5 ms over the nominal one (power management)."""
    fixed_s: Seconds = Field(alias="fixed")
    """Fixed cost of the operator: appending to the cache, planning."""
    sequence_s: Seconds = Field(alias="sequence")
    """Planning per sequence, up to `sequences` of them."""
    token_s: Seconds = Field(alias="token")
    """Appending to the paged cache, per new token."""
    merge_s: Seconds = Field(alias="merge")
    """Fixed cost of merging split keys."""
    query_passes: Ratio
    key_passes: Ratio
    """How often the new queries, and the new keys and values, are moved beside the attention itself."""
    window_edge: Ratio
    """Blocks of keys that the edge of a sliding window wastes."""
    step_64: Annotated[float, Field(gt=0)]
    step_192: Annotated[float, Field(gt=0)]
    step_256: Annotated[float, Field(gt=0)]
    step_512: Annotated[float, Field(gt=0)]
    """Work of a step for heads of this width, over that of the formula fitted at 128."""
    block_64: Annotated[float, Field(gt=0)]
    block_192: Annotated[float, Field(gt=0)]
    block_256: Annotated[float, Field(gt=0)]
    block_512: Annotated[float, Field(gt=0)]
    """`block_cycles` for heads of this width, over those at 128."""
    tile: Annotated[float, Field(ge=1)]
    narrow_tile: Annotated[float, Field(ge=1)]
    smallest_tile: Annotated[float, Field(ge=1)]
    """Query rows of a thread block: the most, the most for heads up to 64 wide, the least."""
    packed: Annotated[float, Field(ge=0, le=1)]
    """1: the query heads of a key head are rows of one product."""
    step_keys: Annotated[float, Field(gt=0)]
    """Keys of one step up to a width of 128; wider heads take fewer."""
    split_fill: Ratio
    """Keys are split until thread blocks reach this multiple of the SMs; 0: never."""
    split_keys: Annotated[float, Field(gt=0)]
    """Least keys of one part."""
    most_splits: Annotated[float, Field(ge=1)]
    """Most parts of the keys of one tile."""
    sequences: Ratio
    """Sequences up to which a kernel plans the splits."""
    skips: Annotated[float, Field(ge=0, le=1)]
    """1: blocks of keys outside a sliding window are skipped; 0: they are computed and masked."""
    repack_s: Seconds = Field(default=0.0, alias="repack")
    """Fixed cost of copying queries and results so that the heads of a key head lie together, where there is
    more than one sequence and more than one key head: otherwise they do already."""
    history: Annotated[float, Field(ge=0, le=1)] = 0.0
    """1: a library counts parts over all keys of the cache, those before a sliding window included."""
    streams: Annotated[float, Field(ge=0, le=1)] = 0.0
    """1: a kernel of vector lanes: a step loads as many bytes whatever the width (`step_keys` at 128 by 256
    threads, four blocks of which fit an SM); small grids take larger blocks, parts are a step at least, and
    their number is rounded up."""
    merge_share: Annotated[float, Field(gt=0)] = 1.0
    """Share of the L2 bandwidth of loads that partial results get."""

    @property
    def array(self) -> Any:
        """The numbers in the order of the fields, for the numba kernels."""
        return _array(self)


SplitRule = Literal["never", "unit_stride", "always"]
Tiles = tuple[tuple[int, int], ...]


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
    tensor_tiles: Tiles = ()
    """Rows and columns of the implicit GEMM's tiles on the tensor cores; none given: those of products."""
    lane_tiles: Tiles = ()
    """The same on the vector units."""
    tensor_split: SplitRule
    lane_split: SplitRule
    """Which implicit GEMMs the library splits along the reduction."""
    winograd_efficiency: Fraction
    """Share of the rate of a product that the products of transformed tiles reach."""
    fused_winograd_efficiency: Fraction
    """The same where one kernel transforms and multiplies."""


class RecurrentModel(Section):
    """What one step of a recurrent layer costs one software stack beside its product and its gates: further
    launches, copies of the state, and what the host adds."""

    lstm_s: Seconds = Field(alias="lstm")
    gru_s: Seconds = Field(alias="gru")
    rnn_s: Seconds = Field(alias="rnn")


class FormatModel(Section):
    """Products of one stack in one narrow format: what differs from the device's 16-bit products."""

    tensor_efficiency: Fraction
    dram_efficiency: Fraction
    prologue_latencies: Ratio
    l2_bytes_per_clock: Ratio
    l2_efficiency: Ratio
    epilogue_cycles: Ratio
    shared_bytes_per_clock: Ratio
    step_latencies: Ratio
    step_cycles: Ratio
    step_overhead: Ratio
    split_k_cycles: Ratio
    l2_share: Ratio
    tile_costs: tuple[Annotated[float, Field(ge=1)], ...]
    unpack_cycles: Ratio
    quantise_cycles: Ratio
    quantise_row_cycles: Ratio
    quantise_element_cycles: Ratio
    quantise_passes: Ratio
    least_rows: Ratio
    least_columns: Ratio
    swizzle: Ratio = 0.0
    splits: Annotated[float, Field(ge=0, le=1)]
    """1: the reduction may be split over blocks."""

    def product(self, base: ProductModel) -> ProductModel:
        """The 16-bit products' constants with these in."""
        update = {name: getattr(self, name) for name in type(self).model_fields if name != "splits"}
        return base.model_copy(update=update)


class KernelModels(Section):
    """Kernel constants of a device: products, and attention and convolutions by software stack (``default``
    for all others; for attention `vllm`)."""

    product: ProductModel
    formats: Mapping[str, Mapping[str, FormatModel]] = Field(default_factory=dict)
    """Products in narrow formats by stack, then by format: ``fp8_e4m3``, ``fp8_e4m3-block`` (one scale per
    128 elements), ``nvfp4``, ``int8``, ``weight-int8``, ``weight-int4``; with ``-ROWS`` the kernel that a
    stack takes for up to so many rows."""
    attention: Mapping[str, Mapping[str, AttentionModel]]
    """By stack, then by kernel: ``prefill`` and ``decode``, with ``-kv8`` for caches of 8 bits and ``-fp8``
    for queries of 8 bits too. Where a stack runs some shapes on another kernel: ``-WIDTH`` for one width of
    heads, then ``-window`` or ``-full`` if only with or without a sliding window; else ``-single`` for one
    query head per key head, ``-many`` for more than 32 and ``-few`` for grids that leave three quarters of
    the SMs idle; else ``-window`` for every width. Latent attention: ``-latent`` or ``-expanded``, and with
    latents ``-single`` for one head, ``-64`` and ``-128`` from so many heads on.
    """
    conv: Mapping[str, ConvModel]
    recurrent: Mapping[str, RecurrentModel]
    collective: Mapping[str, Mapping[str, CollectiveModel]] = Field(default_factory=dict)
    """By kind of link, then by the most devices that it holds for (``up_to_8``)."""
    moe: Mapping[str, Mapping[str, MoeModel]] = Field(default_factory=dict)
    """By stack, then by weight format (`default` for all others)."""
    power: Mapping[str, PowerModel]
    """By family: ``product``, ``prefill`` and ``decode`` (attention); with ``-8`` for operands, or a cache,
    of 8 bits and fewer, ``-8-block`` with one scale per block."""
    band: Mapping[str, Band] = Field(default_factory=dict)
    """Error bands of a calibrated device by cell, see `accelsim.architectures.gpu.intervals.cells_of`."""


@lru_cache(maxsize=256)
def _array(model: Section) -> Any:
    fields = [np.atleast_1d(getattr(model, name)) for name in type(model).model_fields]
    values = np.concatenate(fields).astype(np.float64)
    values.setflags(write=False)
    return values
