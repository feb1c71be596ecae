"""Layout of the arrays that the numba kernel reads and fills, by column number."""

from __future__ import annotations

# Input. KIND is STREAM or MATRIX. Sizes of the product in elements, operand widths in bytes per element; RATE
# and VECTOR_RATE in FLOP (operations) per SM and clock, CLOCK in Hz.
KIND, BATCH, M, N, K, BYTES_A, BYTES_B, BYTES_C, RATE, CLOCK = range(10)
# Compulsory external traffic of the left operand, the right operand, the result and the rest [B].
A_BYTES, B_BYTES, C_BYTES, EXTRA_BYTES = range(10, 14)
# Bytes that pass between two uses of the same data; infinite when cold.
A_DISTANCE, B_DISTANCE, C_DISTANCE, EXTRA_DISTANCE = range(14, 18)
# Elementwise operations, index of the tile table, part of the product that runs, 1 for integers, 1 for a
# kernel of a run that goes on.
VECTOR_OPS, VECTOR_RATE, TABLE, SHARE, INTEGER, STEADY = range(18, 24)
WIDTH = 24

STREAM, MATRIX, UNSPLIT = 0.0, 1.0, 2.0
"""KIND: a kernel bound by memory or vector arithmetic, a tiled product, or one that never splits its
reduction."""

# Output that adds up over rows: overlapped compute and DRAM time, what does not overlap, compute (or on-chip)
# time, DRAM time [s]; traffic [B].
OUT_BODY, OUT_FIXED, OUT_COMPUTE, OUT_DRAM_S, OUT_DRAM_BYTES, OUT_L2_BYTES = range(6)
# What body and fixed part are spent on, in the order of `base.STALLS`; the seven sum to the two [s].
STALL_COMPUTE, STALL_SHARED, STALL_L2, STALL_DRAM, STALL_LATENCY, STALL_TAIL, STALL_LAUNCH = range(6, 13)
OUT_SUMS = 13
# Index of the tile (-1 for streams), split of the reduction, waves, clock over nominal clock.
OUT_TILE, OUT_SPLIT, OUT_WAVES, OUT_SCALE = range(OUT_SUMS, OUT_SUMS + 4)
OUT_WIDTH = OUT_SUMS + 4

# What limits a kernel, index in `base.BOUNDS`.
COMPUTE, SHARED, L2, MEMORY, LATENCY, TAIL, LAUNCH, LINK = range(8)
