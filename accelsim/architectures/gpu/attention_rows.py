"""Layout of the arrays that the attention kernel reads and fills, by column number."""

from __future__ import annotations

from accelsim.architectures.gpu.rows import OUT_SUMS

# Input: sequences; key heads; query heads per key head; new tokens and keys of each sequence; reduction of
# the scores and width of the values; causal 0 or 1; window, 0 for none; bytes of one key and its value;
# FLOP per SM and clock; clock [Hz].
BATCH, KV_HEADS, GROUP, QUERIES, KEYS, SCORE_WIDTH, VALUE_WIDTH, CAUSAL, WINDOW = range(9)
KEY_BYTES, RATE, CLOCK = range(9, 12)
# Compulsory external traffic of queries, cache and result; queries, and keys and values, of the new tokens
# [B].
Q_BYTES, KV_BYTES, OUT_BYTES, FRESH_Q_BYTES, FRESH_KV_BYTES = range(12, 17)
# Bytes that pass between two uses of the same data; infinite when cold.
Q_DISTANCE, KV_DISTANCE, OUT_DISTANCE = range(17, 20)
# Row of the constants.
MODEL = 20
WIDTH = 21

# Device: count; [B/s], [B/s], [B]; exponentials per SM and clock.
SMS, DRAM_RATE, L2_RATE, L2_CAPACITY, EXP_RATE = range(5)
DEVICE_WIDTH = 5

# Constants, in the order of `AttentionModel`.
EFFICIENCY, SOFTMAX, HIDDEN, STEP_CYCLES, BLOCK_CYCLES, RESIDENT, ROUNDING, PORT = range(8)
DRAM_EFFICIENCY, L2_EFFICIENCY, L2_SHARE, OVERLAP, SUSTAINED = range(8, 13)
FIXED_S, SEQUENCE_S, TOKEN_S, MERGE_S, QUERY_PASSES, KEY_PASSES, EDGE = range(13, 20)
STEP_64, STEP_192, STEP_256, STEP_512, BLOCK_64, BLOCK_192, BLOCK_256, BLOCK_512 = range(20, 28)
TILE, NARROW_TILE, SMALLEST_TILE, PACKED, STEP_KEYS = range(28, 33)
SPLIT_FILL, SPLIT_KEYS, MOST_SPLITS, SEQUENCES, SKIPS, REPACK_S, HISTORY, STREAMS, MERGE_SHARE = range(33, 42)
CONSTANTS = 42

# Output. What adds up over rows is as in `rows`, then: query rows of a tile, parts of the keys, waves.
OUT_TILE, OUT_SPLIT, OUT_WAVES = range(OUT_SUMS, OUT_SUMS + 3)
OUT_WIDTH = OUT_SUMS + 3
