"""Fused attention: FlashAttention tiles for prefill, keys split over the multiprocessors for decode.

One block holds a tile of query rows and walks over key blocks; per key block it makes scores, a softmax
update and a weighted sum. Query heads that share a key head are rows of one product (GQA packing). When there
are few query tiles the keys are split over blocks and a second pass merges the parts (flash decoding). Dao,
arXiv:2307.08691; Shah et al., arXiv:2407.08608.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from accelsim.architectures.gpu.tiles import shared_loads
from accelsim.hardware.kernels import AttentionModel

KEYS = 128
"""Keys of one step."""
QUERY_TILES = (128, 64, 16)
SPLITS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Geometry of one attention kernel.

    Attributes
    ----------
    units : int
        Independent problems: batch x key heads.
    rows : int
        Query rows per unit: tokens x query heads per key head.
    keys : int
        Keys per unit.
    score_width, value_width : int
        Reduction of the scores and width of the values.
    share : float
        Part of the scores that the mask leaves.
    bytes_per_element : float
    dram_bytes, key_bytes : float
        External traffic that misses the L2; keys and values of all units.
    """

    units: int
    rows: int
    keys: int
    score_width: int
    value_width: int
    share: float
    bytes_per_element: float
    dram_bytes: float
    key_bytes: float


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """Duration by part [s], L2 traffic [B] and the decision."""

    body_s: float
    fixed_s: float
    compute_s: float
    dram_s: float
    l2_bytes: float
    tile: int
    split: int
    waves: float
    bound: str


def attention_model(device: Any, stack: str) -> AttentionModel:
    """Attention constants of a software stack, or the device's default."""
    models = device.kernels.attention
    found: AttentionModel = models.get(stack, models["default"])
    return found


def attention_cost(
    shape: AttentionShape, device: Any, model: AttentionModel, rate: float, clock_hz: float
) -> AttentionCost:
    """Cost of the best tile and split of a fused attention kernel.

    Parameters
    ----------
    shape : AttentionShape
    device : GpuDevice
    model : AttentionModel
        Of the software stack.
    rate : float
        FLOP per SM and clock of the products.
    clock_hz : float
        Clock [Hz].
    """
    c = device.kernels.product
    sms = device.sm.count
    dram_rate = device.memory.bandwidth_bytes_per_s * min(device.memory.efficiency, c.dram_efficiency)
    dram_s = shape.dram_bytes / dram_rate
    shared = shared_loads(device)
    l2_rate = device.l2.bandwidth_bytes_per_s * c.l2_efficiency
    width = shape.score_width + shape.value_width
    latency = device.memory.latency_s * clock_hz
    best: AttentionCost | None = None
    for tile in QUERY_TILES:
        if tile > 16 and tile >= 2 * max(shape.rows, 16):
            continue
        issue = (
            2.0 * max(tile, 16) * KEYS * width / (rate * model.efficiency)
            + model.softmax_cycles * max(tile, 16) / 128
        )
        load = KEYS * width * shape.bytes_per_element
        step = max(issue, load / (c.l2_bytes_per_clock * shared))
        tiles = shape.units * ceil(shape.rows / tile)
        all_steps = max(1, ceil(shape.keys / KEYS))
        mean_steps = (
            min(float(all_steps), all_steps * shape.share + 0.5) if shape.share < 1 else float(all_steps)
        )
        for split in SPLITS:
            if split > 1 and (split > all_steps or tiles * split > 4 * sms):
                break
            own, longest = mean_steps / split, ceil(all_steps / split)
            blocks = tiles * split
            queue = ceil(blocks / sms)
            # Tiles under a causal mask differ in length; taken longest first they balance, but no SM ends
            # before its longest block.
            start = model.block_cycles
            if shape.share >= 1:
                total = queue * (own * step + start / 2)
            else:
                total = max(blocks * (own * step + start / 2) / sms, longest * step)
            pace = max(model.step_cycles, c.step_latencies * latency / 2)
            wait = ceil(queue / 2) * (own * pace + start)
            l2_bytes = blocks * own * load / shared
            main = max(total / clock_hz, wait / clock_hz, l2_bytes / l2_rate)
            high, low = max(main, dram_s), min(main, dram_s)
            body = high * (1.0 + (low / high) ** c.overlap) ** (1.0 / c.overlap) if high > 0 else 0.0
            merge = 0.0
            if split > 1:
                partial = 8.0 * split * shape.units * shape.rows * shape.value_width
                merge = c.split_k_s + partial / (device.l2.bandwidth_bytes_per_s * c.split_k_share)
                l2_bytes += partial
            fixed = model.fixed_s + merge + c.prologue_latencies * latency / clock_hz
            if best is None or body + fixed < best.body_s + best.fixed_s:
                bound = (
                    "memory"
                    if dram_s >= main
                    else ("l2" if l2_bytes / l2_rate >= total / clock_hz else "compute")
                )
                if bound == "compute" and wait > total:
                    bound = "latency"
                best = AttentionCost(body, fixed, main, dram_s, l2_bytes, tile, split, blocks / sms, bound)
    if best is None:
        raise ValueError("no attention tile was considered")
    return best
