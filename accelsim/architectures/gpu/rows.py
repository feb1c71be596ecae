"""Layout of the arrays that the numba kernel reads and fills, by column number."""

from __future__ import annotations

(KIND, BATCH, M, N, K, BYTES_A, BYTES_B, BYTES_C, RATE, CLOCK, A_BYTES, B_BYTES, C_BYTES, EXTRA_BYTES, A_DISTANCE, B_DISTANCE,
 C_DISTANCE, EXTRA_DISTANCE, VECTOR_OPS, VECTOR_RATE, TABLE, SHARE) = range(22)  # fmt: skip
WIDTH = 22
"""Input columns. Sizes of the product in elements and operand bytes per element; RATE, VECTOR_RATE: FLOP (operations) per SM and clock;
CLOCK in Hz; ``*_BYTES``: compulsory external traffic of left operand, right operand, result and the rest; ``*_DISTANCE``: bytes that
pass between two uses of the same data (infinite when cold); TABLE: index of the tile table; SHARE: part of the product that runs."""

STREAM, MATRIX = 0.0, 1.0
"""KIND: a kernel bound by memory or vector arithmetic, or a tiled product."""

(OUT_BODY, OUT_FIXED, OUT_COMPUTE, OUT_DRAM_S, OUT_DRAM_BYTES, OUT_L2_BYTES, OUT_TILE, OUT_SPLIT, OUT_WAVES, OUT_SCALE, OUT_BOUND) = range(11)
OUT_WIDTH = 11
"""Output columns: overlapped compute and DRAM time, what does not overlap, compute (or on-chip) time, DRAM time [s]; traffic [B]; tile index,
split, waves; clock over nominal clock; bound (`BOUNDS`)."""

BOUNDS = ("compute", "memory", "l2", "latency")
