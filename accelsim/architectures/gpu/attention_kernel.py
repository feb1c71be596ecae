"""Cost of many attention kernels at once (numba); the formulas are those of docs/models.md, section GPU.

One row is one kernel; the tests hold a slow twin against this file.
"""

from __future__ import annotations

import math

from numba import njit

from accelsim.architectures.gpu import attention_rows as A
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.grid import divided
from accelsim.architectures.gpu.sm import joined, resident


@njit(cache=True)
def steps_of_tiles(tiles, tokens, first, keys, window, causal, block, edge):  # type: ignore[no-untyped-def]
    """Mean and largest number of key blocks that the query tiles of one problem visit.

    Parameters
    ----------
    tiles, tokens : float
        Query tiles, and tokens of each.
    first : float
        Keys before the first new token.
    keys, window : float
        Keys in all; sliding window, 0 for none.
    causal : bool
    block : float
        Keys of one step.
    edge : float
        Part of a block that the start of a window wastes.
    """
    span = max(tokens, 1.0)  # a tile sees the keys of its last token
    if not causal:
        reach = keys
        if window > 0.0:
            reach = min(keys, span + window + edge * block)
        steps = math.ceil(reach / block)
        return steps, steps
    limit = keys
    if window > 0.0:
        limit = min(keys, window + span - 1.0)
    lead = first + span
    rising = 0.0
    if limit >= lead:
        rising = min(tiles, math.floor((limit - lead) / max(tokens, 1e-9)) + 1.0)
    total = rising * lead + tokens * rising * (rising - 1.0) / 2.0 + (tiles - rising) * limit
    # Ends of tiles fall inside blocks of keys, and so do the starts of a window.
    waste = max(0.0, block - tokens) / 2.0
    if window > 0.0 and keys > limit:
        waste += edge * block
        limit = min(keys, limit + edge * block)
    longest = math.ceil(limit / block)
    mean = (total / tiles + waste) / block
    if tiles <= 1.0:
        mean = longest
    return min(max(mean, 1.0), longest), longest


@njit(cache=True)
def at_width(p, column, wide):  # type: ignore[no-untyped-def]
    """Factor for a width of scores plus values: fitted at heads of 64, 192, 256 and 512, 1 at 128, linear
    between and level outside.
    """
    width = wide / 2.0
    if width <= 128.0:
        return p[column] + (1.0 - p[column]) * max(0.0, width - 64.0) / 64.0
    if width <= 192.0:
        return 1.0 + (p[column + 1] - 1.0) * (width - 128.0) / 64.0
    if width <= 256.0:
        return p[column + 1] + (p[column + 2] - p[column + 1]) * (width - 192.0) / 64.0
    return p[column + 2] + (p[column + 3] - p[column + 2]) * min(1.0, (width - 256.0) / 256.0)


@njit(cache=True)
def cost_attention(rows, d, c, out):  # type: ignore[no-untyped-def]
    """Fill `out` for every row.

    Parameters
    ----------
    rows : ndarray, shape (kernels, A.WIDTH)
    d : ndarray
        Device, see `attention.attention_device`.
    c : ndarray, shape (models, fields)
        Constants, see `AttentionModel.array`; the row's MODEL column picks one.
    out : ndarray, shape (kernels, A.OUT_WIDTH)
    """
    sms = d[A.SMS]
    for i in range(rows.shape[0]):
        r = rows[i]
        p = c[int(r[A.MODEL])]
        clock, group = r[A.CLOCK], r[A.GROUP]
        wide = r[A.SCORE_WIDTH] + r[A.VALUE_WIDTH]
        causal = r[A.CAUSAL] > 0.0
        # The grid: tiles of query rows; the heads of a key head are rows of one product when packed.
        units, rows_each, per_token = r[A.BATCH] * r[A.KV_HEADS], r[A.QUERIES], 1.0
        if p[A.PACKED] > 0.0:
            rows_each *= group
            per_token = group
        else:
            units *= group
        largest = p[A.NARROW_TILE] if wide <= 128.0 else p[A.TILE]
        tile = min(largest, max(p[A.SMALLEST_TILE], 2.0 ** math.ceil(math.log2(rows_each))))
        tiles = math.ceil(rows_each / tile)
        # A step loads a fixed number of bytes, so wide heads take fewer keys.
        narrow = min(1.0, max(64.0, 2.0 ** math.floor(math.log2(32768.0 / wide))) / 128.0)
        slots, grid = p[A.RESIDENT], units * tiles
        if p[A.STREAMS] > 0.0:
            # Four blocks of 256 threads fill an SM, or one of 1024; lanes take powers of two of a key.
            share = 2.0 ** math.floor(math.log2(min(4.0, math.ceil(4.0 * sms / grid))))
            padded = 2.0 ** math.ceil(math.log2(wide))
            narrow = share * 256.0 / padded * (1.0 if padded == wide else 0.5)
            slots = 4.0 / share
        block = p[A.STEP_KEYS] * narrow
        window = r[A.WINDOW] * p[A.SKIPS]
        mean, longest = steps_of_tiles(
            tiles,
            tile / per_token,
            r[A.KEYS] - r[A.QUERIES],
            r[A.KEYS],
            window,
            causal,
            block,
            p[A.EDGE],
        )
        split = 1.0
        if p[A.SPLIT_FILL] > 0.0:
            counted = r[A.KEYS] if p[A.HISTORY] > 0.0 else longest * block
            split = min(math.floor(p[A.SPLIT_FILL] * sms / grid), math.floor(counted / p[A.SPLIT_KEYS]))
            if p[A.STREAMS] > 0.0:
                if p[A.HISTORY] == 0.0 and window > 0.0:
                    counted = window
                counted = math.floor(min(counted, r[A.KEYS]) / block) + 1.0
                split = min(math.ceil(p[A.SPLIT_FILL] * sms / grid), counted)
            split = max(1.0, min(split, p[A.MOST_SPLITS]))
        blocks = grid * split
        own = max(1.0, mean / split)
        last = max(1.0, longest / split)
        # One step: two products and a softmax that partly hides behind them; keys and values from the L2.
        tensor = 2.0 * tile * block * wide / (r[A.RATE] * p[A.EFFICIENCY])
        softmax = p[A.SOFTMAX] * tile * block / d[A.EXP_RATE]
        bytes_step = block * r[A.KEY_BYTES]
        port = bytes_step / p[A.PORT]
        work = max(tensor, softmax) + (1.0 - p[A.HIDDEN]) * min(tensor, softmax)
        peak = 2.0 * tile * block * wide / r[A.RATE]
        slower = at_width(p, A.STEP_64, wide)
        work = max(work * slower, peak, port)
        pace = work + p[A.STEP_CYCLES]
        if p[A.STREAMS] > 0.0:  # eight loads of a lane are in flight: fewer keys than a load each take less
            pace = work + p[A.STEP_CYCLES] * slower * min(1.0, 8.0 * r[A.KEYS] / block)
        start = p[A.BLOCK_CYCLES] * at_width(p, A.BLOCK_64, wide)
        queue = blocks / sms
        whole = p[A.ROUNDING] * math.ceil(queue) + (1.0 - p[A.ROUNDING]) * max(1.0, queue)
        busy = whole * own * work
        rounds = queue / slots
        rounds = p[A.ROUNDING] * math.ceil(rounds) + (1.0 - p[A.ROUNDING]) * max(1.0, rounds)
        wait = max(rounds * (own * pace + start), last * pace + start)
        busy = max(busy, last * work)
        l2_bytes = blocks * own * bytes_step
        l2_rate = d[A.L2_RATE] * p[A.L2_EFFICIENCY]
        l2_s = l2_bytes / l2_rate
        main = max(busy / clock, wait / clock, l2_s)
        # Kernels longer than the power management's response run at its sustained clock.
        main *= 1.0 + (1.0 / p[A.SUSTAINED] - 1.0) * main / (main + 5e-3)
        # External memory.
        capacity = d[A.L2_CAPACITY] * p[A.L2_SHARE]
        miss_q = 1.0 - resident(capacity, r[A.Q_DISTANCE])
        miss_kv = 1.0 - resident(capacity, r[A.KV_DISTANCE])
        miss_out = 1.0 - resident(capacity, r[A.OUT_DISTANCE])
        dram_bytes = r[A.Q_BYTES] * miss_q + r[A.KV_BYTES] * miss_kv + r[A.OUT_BYTES] * miss_out
        dram_rate = d[A.DRAM_RATE] * p[A.DRAM_EFFICIENCY]
        dram_s = dram_bytes / dram_rate
        body = joined(main, dram_s, p[A.OVERLAP])
        # New keys and values are appended to the cache, and queries rearranged, by kernels of their own.
        fresh = r[A.FRESH_Q_BYTES] * p[A.QUERY_PASSES] + r[A.FRESH_KV_BYTES] * p[A.KEY_PASSES]
        fixed = p[A.FIXED_S] + fresh * (miss_q / dram_rate + (1.0 - miss_q) / l2_rate)
        fixed += r[A.BATCH] * p[A.TOKEN_S] * r[A.QUERIES]
        if r[A.BATCH] <= p[A.SEQUENCES]:
            fixed += p[A.SEQUENCE_S] * r[A.BATCH]
        merged_s = 0.0
        if p[A.PACKED] > 0.0 and group > 1.0 and r[A.BATCH] > 1.0 and r[A.KV_HEADS] > 1.0:
            fixed += p[A.REPACK_S]
        if split > 1.0:
            partial = 8.0 * split * r[A.BATCH] * r[A.KV_HEADS] * group * r[A.QUERIES] * r[A.VALUE_WIDTH]
            l2_bytes += partial
            merged_s = partial / (l2_rate * p[A.MERGE_SHARE])
            fixed += p[A.MERGE_S] + merged_s
        out[i, R.OUT_BODY] = body
        out[i, R.OUT_FIXED] = fixed
        out[i, R.OUT_COMPUTE] = main
        out[i, R.OUT_DRAM_S] = dram_s
        out[i, R.OUT_DRAM_BYTES] = dram_bytes
        out[i, R.OUT_L2_BYTES] = l2_bytes
        out[i, A.OUT_TILE] = tile
        out[i, A.OUT_SPLIT] = split
        out[i, A.OUT_WAVES] = queue
        o = out[i]
        o[R.STALL_COMPUTE : R.OUT_SUMS] = 0.0
        on_chip, o[R.STALL_DRAM] = divided(body, main, dram_s)
        resource = R.STALL_L2 if port >= work else R.STALL_COMPUTE
        if l2_s * clock >= max(busy, wait):
            o[R.STALL_L2] += on_chip
        elif wait > busy:  # steps and their latencies, with blocks spread evenly; the rest is the last wave
            each = own * pace + start
            even = min(wait, max(1.0, queue / slots) * each)
            o[resource] += on_chip * even / wait * own * work / each
            o[R.STALL_LATENCY] += on_chip * even / wait * (1.0 - own * work / each)
            o[R.STALL_TAIL] += on_chip * (1.0 - even / wait)
        else:
            even = min(busy, queue * own * work)
            o[resource] += on_chip * even / busy
            o[R.STALL_TAIL] += on_chip * (1.0 - even / busy)
        # The small kernels around: what they move, merging, and their launches.
        o[R.STALL_DRAM] += fresh * miss_q / dram_rate
        o[R.STALL_L2] += fresh * (1.0 - miss_q) / l2_rate + merged_s
        merge_s = p[A.MERGE_S] if split > 1.0 else 0.0
        o[R.STALL_LATENCY] += merge_s
        moved_s = fresh * (miss_q / dram_rate + (1.0 - miss_q) / l2_rate) + merged_s
        o[R.STALL_LAUNCH] += fixed - moved_s - merge_s
