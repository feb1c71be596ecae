"""Cost of many kernels at once on the streaming multiprocessors: tiles, waves, split-K, L2 and DRAM (numba).

One row is one kernel (columns `R_*`). Every formula is in docs/models.md, "GPU"; the tests hold a slow twin against this file.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from accelsim.architectures.gpu.rows import (
    A_BYTES, A_DISTANCE, B_BYTES, B_DISTANCE, BATCH, BYTES_A, BYTES_B, BYTES_C, C_BYTES, C_DISTANCE, CLOCK, EXTRA_BYTES,
    EXTRA_DISTANCE, K, KIND, M, N, OUT_BODY, OUT_BOUND, OUT_COMPUTE, OUT_DRAM_BYTES, OUT_DRAM_S, OUT_FIXED, OUT_L2_BYTES, OUT_SCALE,
    OUT_SPLIT, OUT_TILE, OUT_WAVES, RATE, SHARE, STREAM, TABLE, VECTOR_OPS, VECTOR_RATE,
)  # fmt: skip

_COMPUTE, _MEMORY, _L2, _LATENCY = 0.0, 1.0, 2.0, 3.0


@njit(cache=True)
def resident(capacity: float, distance: float) -> float:
    """Share of a tensor still in the L2 after `distance` other bytes: one up to 0.8 of the capacity, none from 1.2 on."""
    if distance <= 0.0:
        return 1.0
    return min(1.0, max(0.0, (capacity / distance - 0.8333) / 0.4167))


@njit(cache=True)
def joined(a: float, b: float, p: float) -> float:
    """Duration of two activities that overlap imperfectly: (a^p + b^p)^(1/p), never below the longer."""
    high, low = max(a, b), min(a, b)
    if high <= 0.0:
        return 0.0
    return high * (1.0 + (low / high) ** p) ** (1.0 / p)


@njit(cache=True)
def clock_scale(power: float) -> float:
    """Clock over nominal clock when the dynamic power at nominal clock is `power` times what the cap leaves.

    Power goes with f V^2, and V with f, down to the voltage floor at 3/4 of the clock; below it power goes with f.
    """
    if power <= 1.0:
        return 1.0
    scale = power ** (-1.0 / 3.0)
    if scale >= 0.75:
        return scale
    return 0.75 / (power * 0.75**3)


@njit(cache=True)
def cost_rows(rows, tables, splits, device, c, governor, out):  # type: ignore[no-untyped-def]
    """Fill `out` (columns `OUT_*`) for every row; see `rows.py` for the layouts of `rows`, `device` and `out`."""
    sms, bandwidth, dram_latency, l2_capacity, l2_bandwidth, l2_latency, headroom_w = (
        device[0], device[1], device[2], device[3], device[4], device[5], device[6],
    )  # fmt: skip
    dram_rate = bandwidth * min(device[7], c[2])
    capacity = l2_capacity * c[16]
    for i in range(rows.shape[0]):
        r = rows[i]
        clock = r[CLOCK]
        miss_a = 1.0 - resident(capacity, r[A_DISTANCE])
        miss_b = 1.0 - resident(capacity, r[B_DISTANCE])
        miss_c = 1.0 - resident(capacity, r[C_DISTANCE])
        miss_x = 1.0 - resident(capacity, r[EXTRA_DISTANCE])
        touched = r[A_BYTES] + r[B_BYTES] + r[C_BYTES] + r[EXTRA_BYTES]
        first = r[A_BYTES] * miss_a + r[B_BYTES] * miss_b + r[C_BYTES] * miss_c + r[EXTRA_BYTES] * miss_x
        vector_s = r[VECTOR_OPS] / (r[VECTOR_RATE] * c[3] * sms * clock)
        if r[KIND] == STREAM:
            latency = dram_latency * min(1.0, miss_a + miss_b) + l2_latency * max(0.0, 1.0 - miss_a - miss_b)
            dram_s = first / dram_rate
            l2_s = touched / (l2_bandwidth * min(1.0, c[6]))
            compute_s = max(l2_s, vector_s)
            out[i, OUT_BODY] = joined(compute_s, dram_s, c[13])
            out[i, OUT_COMPUTE] = compute_s
            out[i, OUT_DRAM_S] = dram_s
            out[i, OUT_DRAM_BYTES] = first
            out[i, OUT_L2_BYTES] = touched
            out[i, OUT_FIXED] = latency * (1.0 + c[4])
            out[i, OUT_SCALE] = 1.0
            out[i, OUT_TILE] = -1.0
            out[i, OUT_SPLIT] = 1.0
            out[i, OUT_WAVES] = 0.0
            out[i, OUT_BOUND] = _MEMORY if dram_s >= compute_s else (_COMPUTE if vector_s >= l2_s else _L2)
            continue
        batch, m, n, k = r[BATCH], r[M], r[N], r[K]
        dense_a, dense_b = batch * m * k * r[BYTES_A], batch * n * k * r[BYTES_B]
        reuse_a = min(1.0, r[A_BYTES] / dense_a) if dense_a > 0.0 else 1.0
        reuse_b = min(1.0, r[B_BYTES] / dense_b) if dense_b > 0.0 else 1.0
        latency = l2_latency + (dram_latency - l2_latency) * max(miss_a, miss_b)
        latency_cycles = latency * clock
        spill = 1.0 - resident(capacity, r[A_BYTES] + r[B_BYTES])
        best = np.inf
        for t in range(tables.shape[1]):
            tile_m, tile_n, step_k, stages, fit = (
                tables[int(r[TABLE]), t, 0], tables[int(r[TABLE]), t, 1], tables[int(r[TABLE]), t, 2], tables[int(r[TABLE]), t, 3],
                tables[int(r[TABLE]), t, 4],
            )  # fmt: skip
            if stages < 1.0 or tile_m >= 4.0 * max(m, 16.0) or tile_n >= 4.0 * max(n, 16.0):
                continue
            step_bytes = (tile_m * r[BYTES_A] + tile_n * r[BYTES_B]) * step_k
            issue = 2.0 * tile_m * tile_n * step_k / (r[RATE] * c[1])
            supply = step_k * tile_m * tile_n * (r[BYTES_A] / min(tile_n, 128.0) + r[BYTES_B] / min(tile_m, 64.0)) / c[8]
            step = max(issue, supply, step_bytes / c[5])
            step_latency = max(c[10], c[9] * latency_cycles / stages)
            epilogue = c[7] + tile_m * tile_n * r[BYTES_C] / c[5]
            grid_m, grid_n = math.ceil(m / tile_m), math.ceil(n / tile_n)
            tiles = batch * grid_m * grid_n
            steps = math.ceil(k / step_k)
            for s in range(splits.shape[0]):
                split = splits[s]
                if split > 1.0 and (steps < 4.0 * split or tiles > 2.0 * sms):
                    break
                blocks = tiles * split
                queue = math.ceil(blocks / sms)
                together = min(fit, queue)
                rounds = math.ceil(queue / together)
                own = math.ceil(steps / split)
                l2_bytes = blocks * own * step_bytes * r[SHARE]
                l2_s = l2_bytes / (l2_bandwidth * c[6])
                issue_s = queue * own * step / clock
                wait_s = rounds * own * step_latency / clock
                main = max(issue_s * r[SHARE], l2_s, wait_s * r[SHARE]) + (rounds - 1.0) * epilogue / clock
                # A wave covers a patch of tiles as square as the grid allows; each patch reads its rows of A and columns of B once.
                patch = min(tiles, sms * together / split) if split > 1.0 else min(tiles, sms * together)
                patch = max(1.0, patch)
                wide_m = min(grid_m, max(1.0, math.sqrt(patch * tile_n / tile_m)))
                wide_n = min(grid_n, max(1.0, patch / wide_m))
                wide_m = min(grid_m, max(1.0, patch / wide_n))
                reread = tiles / (wide_m * wide_n) * (wide_m * tile_m * r[BYTES_A] * reuse_a + wide_n * tile_n * r[BYTES_B] * reuse_b) * k
                dram_bytes = first + spill * max(0.0, reread - r[A_BYTES] - r[B_BYTES])
                dram_s = dram_bytes / dram_rate
                body = joined(main, dram_s, c[13])
                reduction_s = 0.0
                if split > 1.0:
                    partial = split * batch * m * n * 8.0
                    l2_bytes += partial
                    reduction_s = c[11] + partial / (l2_bandwidth * c[12])
                fixed = reduction_s + (c[4] * latency_cycles + epilogue) / clock + vector_s
                if body + fixed < best:
                    best = body + fixed
                    out[i, OUT_BODY] = body
                    out[i, OUT_COMPUTE] = main
                    out[i, OUT_DRAM_S] = dram_s
                    out[i, OUT_DRAM_BYTES] = dram_bytes
                    out[i, OUT_L2_BYTES] = l2_bytes + r[C_BYTES]
                    out[i, OUT_FIXED] = fixed
                    out[i, OUT_TILE] = t
                    out[i, OUT_SPLIT] = split
                    out[i, OUT_WAVES] = blocks / (sms * together)
                    if dram_s >= main:
                        out[i, OUT_BOUND] = _MEMORY
                    elif l2_s >= issue_s and l2_s >= wait_s:
                        out[i, OUT_BOUND] = _L2
                    elif wait_s > issue_s:
                        out[i, OUT_BOUND] = _LATENCY
                    else:
                        out[i, OUT_BOUND] = _COMPUTE
        out[i, OUT_SCALE] = 1.0
        if governor and headroom_w > 0.0:
            flops = 2.0 * batch * m * n * k * r[SHARE]
            full_rate = r[RATE] * sms * clock
            used_w = (flops / best / full_rate * device[8] * clock * sms * c[14]) + out[i, OUT_DRAM_BYTES] / best * c[15]
            scale = clock_scale(used_w / headroom_w)
            out[i, OUT_SCALE] = scale
            if scale < 1.0:
                out[i, OUT_COMPUTE] /= scale
                out[i, OUT_BODY] = joined(out[i, OUT_COMPUTE], out[i, OUT_DRAM_S], c[13])
