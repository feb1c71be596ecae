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

ALWAYS_SPLIT = 8192.0
"""Reductions longer than this are split however small the product is."""

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

THRESHOLD = 0.4
"""Voltage at which transistors cease to switch over that at the clock of the power model: about 0.4 V of 1 V
(assumed).
"""

PORT_RATE, LEAST_RATE = 2048, 1024
SWITCHING_SLOPE = 0.63

COLUMNS = ("tile_m", "tile_n", "step_k", "stages", "blocks_per_sm", "priced")


def half_rate(device: Any) -> float:
    """16-bit FLOP per SM and clock, by which the paths that feed the tensor cores are sized."""
    sm = device.sm
    return float(sm.tensor_flop_per_clock.get("fp16") or sm.vector_flop_per_clock.get("fp16", 0.0))


def port_scale(device: Any) -> float:
    """What `l2_bytes_per_clock` is multiplied by: the 16-bit tensor rate over 2048 FLOP per SM and clock, and
    no less than the first tensor cores had.
    """
    return max(half_rate(device), LEAST_RATE) / PORT_RATE


def shared_loads(device: Any) -> float:
    """Blocks that take one load from the L2 together: a cluster by multicast, two and more as the tensor rate
    grows, or each for itself.
    """
    rate = device.sm.tensor_flop_per_clock.get("fp16", 0.0)
    return float(rate) / PORT_RATE if rate >= CLUSTER_RATE else 1.0


def switched_j(device: Any) -> float:
    """Energy that `switched_macs` multiplies [J/FLOP]: a bare multiply-accumulate of 16 bits, less for larger
    matrix instructions, whose operands travel less (exponent fitted over five families).
    """
    energy, rate = device.energy.mac_j, half_rate(device)
    mac = energy.get("fp16") or energy.get("bf16") or 0.0
    volts, _ = voltage(device)
    return float(mac) * (max(rate, 1.0) / CLUSTER_RATE) ** -SWITCHING_SLOPE * volts**2


def voltage(device: Any) -> tuple[float, float]:
    """Voltage at the tensor clock over that at `voltage_clock`, and `THRESHOLD` over the former.

    Siblings of one process share the curve of voltage over absolute clock, so that a card which boosts less
    needs less energy per operation even at its own boost clock.
    """
    sm = device.sm
    ratio = 1.0 if sm.voltage_clock_hz is None else sm.tensor_clock_hz / sm.voltage_clock_hz
    volts = THRESHOLD + (1.0 - THRESHOLD) * ratio
    return volts, THRESHOLD / volts


@lru_cache(maxsize=128)
def tile_table(
    device: Any,
    bytes_a: float,
    bytes_b: float,
    step_bytes: float = STEP_BYTES,
    allowed: tuple[tuple[int, int], ...] = TILES,
    priced: bool = True,
) -> np.ndarray:
    """Tiles that fit a device for operands of given width.

    Parameters
    ----------
    device : GpuDevice
    bytes_a, bytes_b : float
        Storage of one element of each operand [B].
    step_bytes : float
        Bytes of one operand row that a step loads [B].
    allowed : tuple
        Tiles that the library has.
    priced : bool
        The tiles cost what `tile_costs` of plain products says. False: one cycle of work is one cycle.

    Returns
    -------
    ndarray, shape (tiles, 6)
        `COLUMNS`: rows and columns of the tile, reduction elements per step, pipeline stages, and blocks per
        SM as limited by shared memory, registers (the accumulators are 32 bits wide), threads (one per 64
        outputs, in groups of 128) and the block limit; `priced`. A tile that does not fit has zero stages.
    """
    sm = device.sm
    rows = []
    for tile_m, tile_n in TILES:
        step_k = step_bytes / max(bytes_a, bytes_b)
        step = (tile_m * bytes_a + tile_n * bytes_b) * step_k
        stages = min(STAGES, floor((sm.shared_memory_bytes - RESERVED_BYTES) / step))
        if stages < 1 or (tile_m, tile_n) not in allowed:
            rows.append((tile_m, tile_n, step_k, 0.0, 0.0, 0.0))
            continue
        threads = 128 * max(1, round(tile_m * tile_n / 64 / 128))
        blocks = min(
            floor(sm.shared_memory_bytes / (stages * step + RESERVED_BYTES)),
            floor(ACCUMULATOR_SHARE * sm.registers / (tile_m * tile_n + WARP_REGISTERS)),
            floor(sm.max_threads / min(threads, sm.max_threads)),
            sm.max_blocks,
            BLOCKS_CAP,
        )
        rows.append((tile_m, tile_n, step_k, float(stages), float(max(1, blocks)), float(priced)))
    return np.array(rows)
