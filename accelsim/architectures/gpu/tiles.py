"""Thread-block tiles of matrix kernels, and how many fit on a streaming multiprocessor."""

from __future__ import annotations

from functools import lru_cache
from math import floor
from typing import Any

import numpy as np

TILES: tuple[tuple[int, int], ...] = (
    (256, 128), (128, 256), (256, 64), (64, 256), (128, 128), (128, 64), (64, 128), (64, 64), (128, 32),
    (32, 128), (64, 32), (32, 64), (32, 32), (128, 16), (16, 128), (64, 16), (16, 64),
)  # fmt: skip
"""Rows x columns of the output that one thread block makes: the shapes that vendor libraries ship. Narrow
ones exist in both orientations because libraries transpose a product whose m is small.
"""

SPLITS: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Parts that the reduction may be split into."""

STEP_BYTES = 128
"""Bytes of one operand row that a step of the main loop loads: one cache line, the swizzle width of the copy
engines.
"""

RESERVED_BYTES = 1024
"""Shared memory that the driver keeps per block."""

STAGES = 4
"""Steps of the main loop in flight per block, where shared memory allows."""

BLOCKS_CAP = 8
ACCUMULATOR_SHARE = 0.9
WARP_REGISTERS = 4096
"""Registers of one block beside its accumulators."""

CLUSTER_RATE = 4096
"""16-bit FLOP per SM and clock from which on thread blocks form clusters (Hopper and its successors)."""

COLUMNS = ("tile_m", "tile_n", "step_k", "stages", "blocks_per_sm")


def shared_loads(device: Any) -> float:
    """Blocks that take one load from the L2 together: pairs of a cluster by multicast, or each for itself."""
    return 2.0 if device.sm.tensor_flop_per_clock.get("fp16", 0.0) >= CLUSTER_RATE else 1.0


@lru_cache(maxsize=128)
def tile_table(device: Any, bytes_a: float, bytes_b: float) -> np.ndarray:
    """Tiles that fit a device for operands of given width.

    Parameters
    ----------
    device : GpuDevice
    bytes_a, bytes_b : float
        Storage of one element of each operand [B].

    Returns
    -------
    ndarray, shape (tiles, 5)
        `COLUMNS`: rows and columns of the tile, reduction elements per step, pipeline stages, and blocks per
        SM as limited by shared memory, registers (the accumulators are 32 bits wide), threads (one per 64
        outputs, in groups of 128) and the block limit. A tile that does not fit has zero stages.
    """
    sm = device.sm
    rows = []
    for tile_m, tile_n in TILES:
        step_k = STEP_BYTES / max(bytes_a, bytes_b)
        step = (tile_m * bytes_a + tile_n * bytes_b) * step_k
        stages = min(STAGES, floor((sm.shared_memory_bytes - RESERVED_BYTES) / step))
        if stages < 1:
            rows.append((tile_m, tile_n, step_k, 0.0, 0.0))
            continue
        threads = 128 * max(1, round(tile_m * tile_n / 64 / 128))
        blocks = min(
            floor(sm.shared_memory_bytes / (stages * step + RESERVED_BYTES)),
            floor(ACCUMULATOR_SHARE * sm.registers / (tile_m * tile_n + WARP_REGISTERS)),
            floor(sm.max_threads / min(threads, sm.max_threads)),
            sm.max_blocks,
            BLOCKS_CAP,
        )
        rows.append((tile_m, tile_n, step_k, float(stages), float(max(1, blocks))))
    return np.array(rows)
