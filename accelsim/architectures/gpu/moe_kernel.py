"""Loads of experts, and the two grouped products of an expert layer, for many rows at once (numba).

The tests hold a slow twin against this file; docs/models.md, section GPU, has the formulas.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.grid import block_step, divided, spread, waves
from accelsim.architectures.gpu.sm import clock_scale, joined, resident

# Columns of the device array, see `moe.device_numbers`.
SMS, CLOCK, RATE, DRAM_RATE, DRAM_LATENCY, L2_RATE, L2_LATENCY, L2_CAPACITY, SHARED_LOADS, HEADROOM = range(
    10
)
HALF, LEAST_VOLTS = range(10, 12)
# Constants of plain products that carry over.
TENSOR, PROLOGUE, PORT, EPILOGUE, SHARED, LATENCIES, STEP, FLOP_J, BYTE_J, OVERHEAD = range(12, 22)
TILE_COSTS = 22  # the first of them

# Columns of a row.
KEY, HIDDEN, WIDTH, GATED, EXPERTS, ROUTED, BYTES_A, BYTES_B, BYTES_C = range(9)
ROW = 9

# Columns of the constants, in the order of `MoeModel`.
FIXED, UNGATED, SORT, ROW_BYTES, OTHERS, EFFICIENCY, DRAM, STEP_SHARE, PAD, CAP, JOIN, EXPERT, FOREIGN = (
    range(13)
)

SORT_ROWS = 256.0
"""Routed rows at which half of the cost of sorting them is there."""

# Output: what adds up over kernels, as in `rows`; then tile and waves of the last product.
OUT_S, OUT_FIXED, OUT_COMPUTE, OUT_DRAM_S, OUT_DRAM_BYTES, OUT_L2_BYTES = range(6)
OUT_TILE, OUT_WAVES = range(R.OUT_SUMS, R.OUT_SUMS + 2)
OUT = R.OUT_SUMS + 2

CLASSES = 24
"""Most different loads that the experts of a rank are sorted into."""

DRAWS = 12
"""Assignments of experts to ranks over which the heaviest rank is averaged."""

_MULTIPLIER, _INCREMENT, _MODULUS = 1664525, 1013904223, 4294967296  # Numerical Recipes' generator


@njit(cache=True)
def power_law_loads(tokens, experts, topk, exponent):  # type: ignore[no-untyped-def]
    """Rows of each expert, largest first: the quantiles of a power law, scaled to tokens * topk rows.

    The law is x^-exponent between 1 and 0.8 tokens, or between 0.01 and 2 where there are fewer rows than
    experts, as the measured tables were made. No expert has more rows than there are tokens; what is cut goes
    to the others.
    """
    total = tokens * topk
    low, high = (1.0, max(0.8 * tokens, 1.0001)) if total > experts else (0.01, 2.0)
    loads = np.empty(experts)
    power = 1.0 - exponent
    for i in range(experts):
        u = 1.0 - (i + 0.5) / experts
        if abs(power) < 1e-9:
            loads[i] = low * (high / low) ** u
        else:
            loads[i] = ((high**power - low**power) * u + low**power) ** (1.0 / power)
    loads *= total / loads.sum()
    for _ in range(8):
        capped, free = 0.0, 0.0
        for x in loads:
            if x >= tokens:
                capped += tokens
            else:
                free += x
        scale = (total - capped) / free if free > 0.0 else 1.0
        done = True
        for i in range(experts):
            loads[i] = float(tokens) if loads[i] >= tokens else loads[i] * scale
            if loads[i] > tokens:
                loads[i] = float(tokens)
                done = False
        if done:
            break
    # Whole numbers with the right sum: round up from the fraction that gives it.
    least, most = 0.0, 1.0
    for _ in range(40):
        shift = 0.5 * (least + most)
        held = 0.0
        for x in loads:
            held += min(np.floor(x + shift), float(tokens))
        if held > total:
            most = shift
        else:
            least = shift
    for i in range(experts):
        loads[i] = min(np.floor(loads[i] + least), float(tokens))
    return loads


@njit(cache=True)
def _heaviest(loads, ranks):  # type: ignore[no-untyped-def]
    """Loads on the rank that has the most rows, largest first, averaged over assignments."""
    experts = len(loads)
    each = experts // ranks
    mean = np.zeros(each)
    order = np.arange(experts)
    state = 12345
    for _ in range(DRAWS):
        for i in range(experts - 1, 0, -1):
            state = (_MULTIPLIER * state + _INCREMENT) % _MODULUS
            j = int(state * (i + 1) // _MODULUS)
            order[i], order[j] = order[j], order[i]
        best, at = -1.0, 0
        for r in range(ranks):
            held = 0.0
            for i in range(r * each, (r + 1) * each):
                held += loads[order[i]]
            if held > best:
                best, at = held, r
        mine = np.sort(loads[order[at * each : (at + 1) * each]])[::-1]
        mean += mine / DRAWS
    return mean


@njit(cache=True)
def load_classes(key, out):  # type: ignore[no-untyped-def]
    """Fill `out`, shape (CLASSES, 2), with (rows of an expert, experts that have them) of the timed rank.

    Parameters
    ----------
    key : ndarray
        Tokens, experts, topk, expert ranks, exponent of the power law (0: as even as whole rows allow),
        whether the tokens that visit the rank make all their choices there: then each of them is `topk` rows,
        on as many experts as its own choices would visit.
    """
    out[:] = 0.0
    tokens, experts, topk, ranks, exponent = int(key[0]), int(key[1]), int(key[2]), int(key[3]), key[4]
    each = experts // ranks
    if exponent <= 0.0 or tokens == 1:  # one token visits other ranks before one twice
        rows = math.ceil(tokens * topk / ranks)
        visited = min(each, rows)
        if key[5] > 0.0:
            rows = min(tokens, rows) * topk
        least = rows // visited
        more = rows - least * visited
        out[0, 0], out[0, 1] = least + 1.0, more
        out[1, 0], out[1, 1] = least, visited - more
        return
    loads = power_law_loads(tokens, experts, topk, exponent)
    repeated = 1.0
    if ranks > 1:
        loads = _heaviest(loads, ranks)
        if key[5] > 0.0:  # a row is a token's, as long as there are tokens
            repeated = min(float(tokens), loads.sum()) * topk / loads.sum()
    groups = min(CLASSES, each)
    heavy = groups // 2
    start = 0
    for c in range(groups):
        # The heavy experts keep a class of their own, the light ones share the rest.
        stop = c + 1
        if c >= heavy:
            stop = heavy + (each - heavy) * (c + 1 - heavy) // (groups - heavy)
        held, active = 0.0, 0.0
        for i in range(start, stop):
            held += loads[i]
            active += min(1.0, loads[i])
        if active > 0.0:
            out[c, 0], out[c, 1] = max(1.0, held / active) * repeated, active
        start = stop


@njit(cache=True)
def all_classes(keys):  # type: ignore[no-untyped-def]
    """`load_classes` of every key."""
    out = np.zeros((len(keys), CLASSES, 2))
    for i in range(len(keys)):
        load_classes(keys[i], out[i])
    return out


@njit(cache=True)
def grouped_product(classes, repeated, n, k, bytes_a, bytes_b, bytes_c, missed, table, d, c, out):  # type: ignore[no-untyped-def]
    """Rows of several experts times a weight matrix each: the best tile, as `sm._product` without split-K.

    Adds to `out`; `missed` are the bytes that come from DRAM, `repeated` is what all loads are multiplied by.
    """
    rows, active, most = 0.0, 0.0, 0.0
    for load, count in classes:
        rows += load * repeated * count
        active += count
        if count > 0.0:
            most = max(most, load * repeated)
    latency = d[DRAM_LATENCY] * d[CLOCK]
    dram_s = missed / (d[DRAM_RATE] * c[DRAM])
    best, best_main, best_fixed, best_l2 = np.inf, 0.0, 0.0, 0.0
    step_parts, limits, even, again = (0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0), (0.0, 0.0)
    busy_s, written_s = 0.0, 0.0
    rate = d[RATE] * min(1.0, d[TENSOR] * c[EFFICIENCY])
    for t in range(table.shape[0]):
        tile_m, tile_n, step_k, stages, fit, _ = table[t]
        if stages < 1.0 or tile_n >= 4.0 * max(n, 16.0):
            continue
        if tile_m > c[CAP] or tile_n > c[CAP]:
            continue
        if tile_m < c[PAD] or (tile_m > c[PAD] and tile_m >= 4.0 * max(most, 16.0)):
            continue
        tiles_m = 0.0
        for load, count in classes:
            tiles_m += count * math.ceil(load * repeated / tile_m)
        blocks = tiles_m * math.ceil(n / tile_n)
        steps = math.ceil(k / step_k)
        queue, together, rounds = waves(blocks, d[SMS], fit)
        issue, supply, step_bytes = block_step(tile_m, tile_n, step_k, bytes_a, bytes_b, rate, d[SHARED], 1.0)
        step = max(issue, supply, step_bytes / d[PORT]) * d[TILE_COSTS + t] + d[OVERHEAD]
        wait = max(d[STEP], d[LATENCIES] * latency / stages) * d[TILE_COSTS + t] * c[STEP_SHARE]
        epilogue = tile_m * tile_n * (d[EPILOGUE] / 16384.0 + bytes_c / d[PORT])
        l2_bytes = blocks * steps * step_bytes / d[SHARED_LOADS]
        issue_s, l2_s, wait_s = (
            queue * steps * step / d[CLOCK],
            l2_bytes / d[L2_RATE],
            rounds * steps * wait / d[CLOCK],
        )
        main = max(issue_s, l2_s, wait_s)
        main += (rounds - 1.0) * epilogue / d[CLOCK]
        fixed = (d[PROLOGUE] * latency + epilogue) / d[CLOCK]
        total = joined(main, dram_s, c[JOIN]) + fixed
        if total < best:
            best, best_main, best_fixed, best_l2 = total, main, fixed, l2_bytes
            out[OUT_TILE], out[OUT_WAVES] = t, blocks / (d[SMS] * together)
            factor = d[TILE_COSTS + t]
            step_parts = (issue * factor, supply * factor, step_bytes / d[PORT] * factor, 0.0, d[OVERHEAD])
            busy_s, limits = issue_s, (l2_s, wait_s, 0.0)
            even = (blocks / (d[SMS] * queue), max(1.0, blocks / (d[SMS] * together)) / rounds)
            written_s = tile_m * tile_n * bytes_c / d[PORT] / d[CLOCK]
            started_s = epilogue / d[CLOCK] - written_s
            again = ((rounds - 1.0) * started_s, (rounds - 1.0) * written_s)
    if d[HEADROOM] > 0.0:
        busy = 2.0 * rows * n * k / best / (d[RATE] * d[SMS] * d[CLOCK])
        power = busy * d[HALF] * d[SMS] * d[CLOCK] * d[FLOP_J] + missed / best * d[BYTE_J]
        best_main /= clock_scale(power / d[HEADROOM], d[LEAST_VOLTS])
    body = joined(best_main, dram_s, c[JOIN])
    on_chip, dram_part = divided(body, best_main, dram_s)
    spread(out, on_chip, step_parts, busy_s, limits, even, again)
    out[R.STALL_DRAM] += dram_part
    out[R.STALL_L2] += written_s
    out[R.STALL_LATENCY] += best_fixed - written_s
    out[OUT_S] += body
    out[OUT_FIXED] += best_fixed
    out[OUT_COMPUTE] += best_main
    out[OUT_DRAM_S] += dram_s
    out[OUT_DRAM_BYTES] += missed
    out[OUT_L2_BYTES] += best_l2


@njit(cache=True)
def moe_layers(rows, classes, table, d, c, copies, out):  # type: ignore[no-untyped-def]
    """Fill `out` for every layer: both products, and the traffic around them.

    Parameters
    ----------
    rows : ndarray, shape (layers, ROW)
    classes : ndarray, shape (keys, CLASSES, 2)
        See `load_classes`; the KEY column picks one.
    table : ndarray
        Tiles, see `tiles.tile_table`.
    d, c : ndarray
        Device and `MoeModel`.
    copies : float
        Layers that run in turn, so weights return after the weights of all; infinite when cold.
    out : ndarray, shape (layers, OUT)
    """
    for i in range(len(rows)):
        r = rows[i]
        out[i] = 0.0
        mine = classes[int(r[KEY])]
        held, active = 0.0, 0.0
        for load, count in mine:
            held += load * count
            active += count
        hidden, width = r[HIDDEN], r[WIDTH]
        up = width * (1.0 + r[GATED])
        weights = active * (up + width) * hidden * r[BYTES_B]
        repeated = 1.0 + c[FOREIGN] * max(0.0, r[ROUTED] / held - 1.0)
        handled = held + c[OTHERS] * max(0.0, r[ROUTED] - held)
        around = handled * (hidden + width) * c[ROW_BYTES]
        missing = 1.0 - resident(d[L2_CAPACITY], weights * copies)
        moved = held + min(1.0, c[OTHERS]) * max(0.0, r[ROUTED] - held)
        activations = moved * (hidden + up + width) * r[BYTES_C]
        far = 1.0 - resident(d[L2_CAPACITY], activations + weights)
        first = active * up * hidden * r[BYTES_B] * missing
        second = active * width * hidden * r[BYTES_B] * missing
        first += held * hidden * r[BYTES_A] * far
        second += held * width * r[BYTES_A] * far
        grouped_product(
            mine, repeated, up, hidden, r[BYTES_A], r[BYTES_B], r[BYTES_C], first, table, d, c, out[i]
        )
        grouped_product(
            mine, repeated, hidden, width, r[BYTES_A], r[BYTES_B], r[BYTES_C], second, table, d, c, out[i]
        )
        around_s = around / (d[DRAM_RATE] * c[DRAM]) * far + around / d[L2_RATE] * (1.0 - far)
        out[i, OUT_S] += around_s
        out[i, R.STALL_DRAM] += around / (d[DRAM_RATE] * c[DRAM]) * far
        out[i, R.STALL_L2] += around / d[L2_RATE] * (1.0 - far)
        out[i, OUT_DRAM_S] += around / (d[DRAM_RATE] * c[DRAM]) * far
        out[i, OUT_DRAM_BYTES] += around * far
        out[i, OUT_L2_BYTES] += around
        started_s = c[FIXED] + c[EXPERT] * r[EXPERTS] + c[UNGATED] * (1.0 - r[GATED])
        out[i, OUT_FIXED] += started_s
        out[i, OUT_FIXED] += c[SORT] * r[ROUTED] / (r[ROUTED] + SORT_ROWS)
        out[i, R.STALL_LAUNCH] += started_s + c[SORT] * r[ROUTED] / (r[ROUTED] + SORT_ROWS)
