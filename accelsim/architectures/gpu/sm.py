"""Cost of many kernels at once on the streaming multiprocessors: tiles, waves, split-K, L2 and DRAM (numba).

One row is one kernel; `rows.py` names the columns. The formulas are those of docs/models.md, section GPU, and
the tests hold a slow twin against this file.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.grid import block_step, divided, spread, waves
from accelsim.architectures.gpu.tiles import ALWAYS_SPLIT, TILES

# Columns of the device array.
_SMS, _DRAM_RATE, _DRAM_LATENCY, _L2_CAPACITY, _L2_RATE, _L2_LATENCY = range(6)
_HEADROOM, _DRAM_SHARE, _HALF, _CLUSTER, _PORT_SCALE, _SWITCHED_J, _THRESHOLD = range(6, 13)

# Columns of the constants array, in the order of `ProductModel`.
_TENSOR, _DRAM, _VECTOR, _PROLOGUE, _PORT, _FABRIC, _EPILOGUE, _SHARED = range(1, 9)
_STEP_LATENCIES, _STEP_CYCLES, _SPLIT, _SPLIT_SHARE, _OVERLAP, _MACS, _BYTE_J, _CACHE = range(9, 17)
_HITS, _VECTOR_LATENCIES, _VECTOR_BYTES, _OVERHEAD, _TILE = range(17, 22)
_UNPACK, _QUANTISE, _QUANTISE_ROW, _ELEMENT, _PASSES, _INTEGER, _LAG, _WORK = range(
    _TILE + len(TILES), _TILE + len(TILES) + 8
)
_ROWS, _COLUMNS, _SWIZZLE = range(_WORK + 1, _WORK + 4)


@njit(cache=True)
def resident(capacity: float, distance: float) -> float:
    """Share of a tensor still in the L2 after `distance` bytes: all to 0.8 of the capacity, none from 1.2."""
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
def clock_scale(power: float, threshold: float) -> float:
    """Clock over nominal when the dynamic power at nominal clock is `power` times what the cap leaves.

    Power goes with f V^2, and V rises linearly with f from `threshold`: the root of f V(f)^2 = 1 / power by
    Newton's method, from above, where the function is convex.
    """
    if power <= 1.0:
        return 1.0
    scale = 1.0
    for _ in range(12):
        volts = threshold + (1.0 - threshold) * scale
        slope = volts * volts + 2.0 * scale * volts * (1.0 - threshold)
        scale -= (scale * volts * volts - 1.0 / power) / slope
    return scale


@njit(cache=True)
def _stream(r, d, c, misses, out):  # type: ignore[no-untyped-def]
    """A kernel that moves data: DRAM, L2 or the vector lanes, whichever is slowest, after one latency."""
    miss_a, miss_b, miss_c, miss_x = misses
    touched = r[R.A_BYTES] + r[R.B_BYTES] + r[R.C_BYTES] + r[R.EXTRA_BYTES]
    first = r[R.A_BYTES] * miss_a + r[R.B_BYTES] * miss_b + r[R.C_BYTES] * miss_c + r[R.EXTRA_BYTES] * miss_x
    vector_s = r[R.VECTOR_OPS] / (r[R.VECTOR_RATE] * c[_VECTOR] * d[_SMS] * r[R.CLOCK])
    l2_s = touched / (d[_L2_RATE] * min(1.0, c[_FABRIC]))
    dram_s = first / (d[_DRAM_RATE] * min(d[_DRAM_SHARE], c[_DRAM]))
    compute_s = max(l2_s, vector_s)
    latency = d[_L2_LATENCY] + (d[_DRAM_LATENCY] - d[_L2_LATENCY]) * max(miss_a, miss_b)
    out[R.OUT_BODY] = joined(compute_s, dram_s, c[_OVERLAP])
    out[R.OUT_FIXED] = latency * (1.0 + c[_PROLOGUE])
    out[R.OUT_COMPUTE] = compute_s
    out[R.OUT_DRAM_S] = dram_s
    out[R.OUT_DRAM_BYTES] = first
    out[R.OUT_L2_BYTES] = touched
    out[R.OUT_TILE] = -1.0
    out[R.OUT_SPLIT] = 1.0
    out[R.OUT_WAVES] = 0.0
    out[R.OUT_SCALE] = 1.0
    on_chip, out[R.STALL_DRAM] = divided(out[R.OUT_BODY], compute_s, dram_s)
    out[R.STALL_COMPUTE if vector_s >= l2_s else R.STALL_L2] = on_chip
    out[R.STALL_LATENCY] = out[R.OUT_FIXED]


@njit(cache=True)
def _product(r, table, splits, d, c, misses, governor, out):  # type: ignore[no-untyped-def]
    """A tiled product: the best tile and split of the reduction."""
    miss_a, miss_b, miss_c, miss_x = misses
    sms, clock = d[_SMS], r[R.CLOCK]
    batch, m, n, k = r[R.BATCH], r[R.M], r[R.N], r[R.K]
    width_a, width_b, share = r[R.BYTES_A], r[R.BYTES_B], r[R.SHARE]
    a_bytes, b_bytes = r[R.A_BYTES], r[R.B_BYTES]
    capacity = d[_L2_CAPACITY] * c[_CACHE]
    dram_rate = d[_DRAM_RATE] * min(d[_DRAM_SHARE], c[_DRAM])
    first = a_bytes * miss_a + b_bytes * miss_b + r[R.C_BYTES] * miss_c + r[R.EXTRA_BYTES] * miss_x
    vector_s = r[R.VECTOR_OPS] / (r[R.VECTOR_RATE] * c[_VECTOR] * sms * clock)
    latency = d[_L2_LATENCY] + (d[_DRAM_LATENCY] - d[_L2_LATENCY]) * max(miss_a, miss_b)
    latency_cycles = latency * clock
    # A convolution's left operand is smaller than its unrolled matrix: what it re-reads shrinks alike.
    reuse_a = min(1.0, a_bytes / (batch * m * k * width_a))
    reuse_b = min(1.0, b_bytes / (batch * n * k * width_b))
    best = np.inf
    step_parts, limits, even, again = (0.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0), (0.0, 0.0)
    busy_s, once = 0.0, (0.0, 0.0, 0.0)
    rate = r[R.RATE] * c[_TENSOR]
    port = c[_PORT] * d[_PORT_SCALE]
    unpack = c[_UNPACK] / 1024.0 if width_b < width_a else 0.0
    l2_rate = d[_L2_RATE] * c[_FABRIC]
    if min(m, n) <= 1.0 and r[R.KIND] == R.MATRIX and reuse_a > 0.999:  # not the windows of a convolution
        best = _vector_product(r, d, c, latency, first, dram_rate, l2_rate, vector_s, out)
    from_l2 = 1.0 - c[_HITS] * (1.0 - reuse_a)
    least_rows = min(c[_ROWS], 2.0 ** math.ceil(math.log2(m)))
    whole = r[R.KIND] == R.UNSPLIT or (batch * m * n * k < c[_WORK] and k <= ALWAYS_SPLIT)
    for t in range(table.shape[0]):
        tile_m, tile_n, step_k, stages, fit, priced = table[t]
        if stages < 1.0 or tile_m >= 4.0 * max(m, 16.0) or tile_m < least_rows:
            continue
        if tile_n >= max(4.0 * max(n, 16.0), 2.0 * c[_COLUMNS]) or tile_n < c[_COLUMNS]:
            continue
        tile_cost = c[_TILE + t] if priced > 0.0 else 1.0
        issue, supply, step_bytes = block_step(
            tile_m, tile_n, step_k, width_a, width_b, rate, c[_SHARED], from_l2
        )
        step = max(issue, supply, step_bytes / port) * tile_cost
        step += c[_OVERHEAD] + unpack * tile_n * step_k
        step_latency = max(c[_STEP_CYCLES], c[_STEP_LATENCIES] * latency_cycles / stages) * tile_cost
        epilogue = tile_m * tile_n * (c[_EPILOGUE] / 16384.0 + r[R.BYTES_C] / port)
        grid_m, grid_n = math.ceil(m / tile_m), math.ceil(n / tile_n)
        tiles = batch * grid_m * grid_n
        steps = math.ceil(2.0 * k / step_k) / 2.0  # the last one may be half
        for split in splits:
            if split > 1.0 and (whole or steps < 2.0 * split or tiles > 2.0 * sms):
                break
            blocks = tiles * split
            queue, together, rounds = waves(blocks, sms, fit)
            own = math.ceil(2.0 * steps / split) / 2.0
            l2_bytes = blocks * own * step_bytes * share / d[_CLUSTER]
            l2_s = (l2_bytes + r[R.C_BYTES]) / l2_rate
            issue_s = queue * own * step * share / clock
            wait_s = rounds * own * step_latency * share / clock
            # Elementwise work of a block hides behind the main loops of others, but for the last round.
            main = max(issue_s, l2_s, wait_s, vector_s) + (rounds - 1.0) * epilogue / clock
            merge_s = 0.0
            if split > 1.0:
                partial = split * batch * m * n * 8.0  # 32-bit sums, written and read
                l2_bytes += partial
                merge_s = c[_SPLIT] / clock + partial / (d[_L2_RATE] * c[_SPLIT_SHARE])
            fixed = merge_s + (c[_PROLOGUE] * latency_cycles + epilogue) / clock + vector_s / rounds
            if max(main, first / dram_rate) + fixed >= best:
                continue
            # A wave covers a patch of tiles as square as the grid allows, or a few columns of tiles where the
            # kernel walks down those first; blocks of a patch share loads.
            patch = max(1.0, min(tiles, sms * together / split))
            square = math.sqrt(patch * tile_n / tile_m)
            if c[_SWIZZLE] > 0.0:
                square = patch / min(grid_n, c[_SWIZZLE])
            wide_m = min(grid_m, max(1.0, square))
            wide_n = min(grid_n, max(1.0, patch / wide_m))
            wide_m = min(grid_m, max(1.0, patch / wide_n))
            side_m = wide_m * tile_m * k * width_a * reuse_a
            side_n = wide_n * tile_n * k * width_b * reuse_b
            # Patches sweep along one side of the grid. The operand of that side stays if a patch fits the L2;
            # the other one returns once per sweep unless all of it fits beside the patch.
            near = 1.0 - resident(capacity, side_m + side_n)
            again_a = a_bytes * (grid_n / wide_n - 1.0)
            again_b = b_bytes * (grid_m / wide_m - 1.0)
            along_n = again_a * near + again_b * (1.0 - resident(capacity, b_bytes + side_m))
            along_m = again_b * near + again_a * (1.0 - resident(capacity, a_bytes + side_n))
            dram_bytes = first + (along_m if c[_SWIZZLE] > 0.0 else min(along_n, along_m))
            dram_s = dram_bytes / dram_rate
            body = joined(main, dram_s, c[_OVERLAP])
            if body + fixed < best:
                best = body + fixed
                out[R.OUT_BODY] = body
                out[R.OUT_FIXED] = fixed
                out[R.OUT_COMPUTE] = main
                out[R.OUT_DRAM_S] = dram_s
                out[R.OUT_DRAM_BYTES] = dram_bytes
                out[R.OUT_L2_BYTES] = l2_bytes + r[R.C_BYTES]
                out[R.OUT_TILE] = t
                out[R.OUT_SPLIT] = split
                out[R.OUT_WAVES] = blocks / (sms * together)
                unpacking, load = unpack * tile_n * step_k, step_bytes / port * tile_cost
                step_parts = (issue * tile_cost, supply * tile_cost, load, unpacking, c[_OVERHEAD])
                busy_s, limits = issue_s, (l2_s, wait_s, vector_s)
                even = (blocks / (sms * queue), max(1.0, blocks / (sms * together)) / rounds)
                written_s = tile_m * tile_n * r[R.BYTES_C] / port / clock
                started_s = epilogue / clock - written_s
                again = ((rounds - 1.0) * started_s, (rounds - 1.0) * written_s)
                partial_s = merge_s - c[_SPLIT] / clock if split > 1.0 else 0.0
                once = (vector_s / rounds, written_s + partial_s, fixed)
    out[R.OUT_SCALE] = 1.0
    if governor and d[_HEADROOM] > 0.0:
        _govern(r, d, c, out)
    on_chip, out[R.STALL_DRAM] = divided(out[R.OUT_BODY], out[R.OUT_COMPUTE], out[R.OUT_DRAM_S])
    if out[R.OUT_TILE] < 0.0:  # a matrix-vector kernel
        out[R.STALL_L2], once = on_chip, (vector_s, 0.0, out[R.OUT_FIXED])
    else:
        spread(out, on_chip, step_parts, busy_s, limits, even, again)
    out[R.STALL_COMPUTE] += once[0]
    out[R.STALL_L2] += once[1]
    out[R.STALL_LATENCY] += once[2] - once[0] - once[1]


@njit(cache=True)
def _vector_product(r, d, c, latency, first, dram_rate, l2_rate, vector_s, out):  # type: ignore[no-untyped-def]
    """A matrix-vector kernel: groups of threads read the rows of the matrix once, without tiles."""
    touched = r[R.A_BYTES] + r[R.B_BYTES] + r[R.C_BYTES]
    main = touched / l2_rate
    dram_s = first / dram_rate
    row_bytes = r[R.K] * max(r[R.BYTES_A], r[R.BYTES_B])
    out[R.OUT_BODY] = joined(main, dram_s, c[_OVERLAP])
    chain = c[_VECTOR_LATENCIES] + max(0.0, row_bytes / c[_VECTOR_BYTES] - 1.0)
    out[R.OUT_FIXED] = latency * chain + vector_s
    out[R.OUT_COMPUTE] = main
    out[R.OUT_DRAM_S] = dram_s
    out[R.OUT_DRAM_BYTES] = first
    out[R.OUT_L2_BYTES] = touched
    out[R.OUT_TILE] = -1.0
    out[R.OUT_SPLIT] = 1.0
    out[R.OUT_WAVES] = 0.0
    return out[R.OUT_BODY] + out[R.OUT_FIXED]


@njit(cache=True)
def _quantise(r, d, c, out):  # type: ignore[no-untyped-def]
    """Scales and narrow values of 16-bit activations, by a kernel of its own before the product."""
    capacity = d[_L2_CAPACITY] * c[_CACHE]
    dram_rate = d[_DRAM_RATE] * min(d[_DRAM_SHARE], c[_DRAM])
    rows = r[R.BATCH] * r[R.M]
    touched = rows * r[R.K] * (2.0 + r[R.BYTES_A])
    missed = touched * (1.0 - resident(capacity, touched + r[R.B_BYTES] + r[R.C_BYTES]))
    if r[R.A_DISTANCE] == np.inf:
        missed = touched
    row_s = (c[_QUANTISE_ROW] + r[R.K] * c[_ELEMENT]) / r[R.CLOCK]
    l2_s = touched * c[_PASSES] / (d[_L2_RATE] * c[_FABRIC])
    lanes_s = max(1.0, rows / d[_SMS]) * row_s
    main = max(l2_s, lanes_s)
    dram_s = missed * c[_PASSES] / dram_rate
    body = joined(main, dram_s, c[_OVERLAP])
    on_chip, dram = divided(body, main, dram_s)
    out[R.STALL_L2 if l2_s >= lanes_s else R.STALL_COMPUTE] += on_chip
    out[R.STALL_DRAM] += dram
    out[R.STALL_LAUNCH] += c[_QUANTISE] / r[R.CLOCK]
    out[R.OUT_BODY] += body
    out[R.OUT_FIXED] += c[_QUANTISE] / r[R.CLOCK]
    out[R.OUT_COMPUTE] += main
    out[R.OUT_DRAM_S] += dram_s
    out[R.OUT_DRAM_BYTES] += missed * c[_PASSES]
    out[R.OUT_L2_BYTES] += touched * c[_PASSES]


@njit(cache=True)
def _govern(r, d, c, out):  # type: ignore[no-untyped-def]
    """Lower the clock until the power fits the cap; DRAM keeps its speed."""
    total = out[R.OUT_BODY] + out[R.OUT_FIXED]
    flops = 2.0 * r[R.BATCH] * r[R.M] * r[R.N] * r[R.K] * r[R.SHARE]
    busy = flops / total / (r[R.RATE] * d[_SMS] * r[R.CLOCK])
    tensor_w = busy * d[_HALF] * d[_SMS] * r[R.CLOCK] * c[_MACS] * d[_SWITCHED_J]
    if r[R.INTEGER] > 0.0:
        tensor_w *= c[_INTEGER]
    power_w = tensor_w + out[R.OUT_DRAM_BYTES] / total * c[_BYTE_J]
    scale = clock_scale(power_w / d[_HEADROOM], d[_THRESHOLD])
    if r[R.STEADY] == 0.0:
        scale += (1.0 - scale) * c[_LAG] / (total + c[_LAG])
    out[R.OUT_SCALE] = scale
    if scale < 1.0:
        out[R.OUT_COMPUTE] /= scale
        out[R.OUT_BODY] = joined(out[R.OUT_COMPUTE], out[R.OUT_DRAM_S], c[_OVERLAP])


@njit(cache=True)
def cached(d, c):  # type: ignore[no-untyped-def]
    """Capacity of the L2 that a kernel's data can use [B]."""
    return d[_L2_CAPACITY] * c[_CACHE]


@njit(cache=True)
def misses_of(r, capacity):  # type: ignore[no-untyped-def]
    """Share of each operand of a row that is no longer in an L2 of a capacity [B]."""
    return (
        1.0 - resident(capacity, r[R.A_DISTANCE]),
        1.0 - resident(capacity, r[R.B_DISTANCE]),
        1.0 - resident(capacity, r[R.C_DISTANCE]),
        1.0 - resident(capacity, r[R.EXTRA_DISTANCE]),
    )


@njit(cache=True)
def cost_row(r, misses, tables, splits, d, c, governor, out):  # type: ignore[no-untyped-def]
    """Fill `out` for one row; see `cost_rows`."""
    out[R.STALL_COMPUTE : R.OUT_SUMS] = 0.0
    if r[R.KIND] == R.STREAM:
        _stream(r, d, c, misses, out)
    else:
        _product(r, tables[int(r[R.TABLE])], splits, d, c, misses, governor, out)
        if c[_QUANTISE] > 0.0 or c[_PASSES] > 0.0:
            _quantise(r, d, c, out)


@njit(cache=True)
def cost_rows(rows, tables, splits, d, c, governor, out):  # type: ignore[no-untyped-def]
    """Fill `out` for every row.

    Parameters
    ----------
    rows : ndarray, shape (kernels, WIDTH)
    tables : ndarray, shape (operand widths, tiles, 5)
        See `tiles.tile_table`; the row's TABLE column picks one.
    splits : ndarray
        Parts that a reduction may be split into, ascending.
    d : ndarray
        Device, see `cost.device_array`.
    c : ndarray
        Constants, see `ProductModel.array`.
    governor : bool
        Model the power cap.
    out : ndarray, shape (kernels, OUT_WIDTH)
    """
    capacity = cached(d, c)
    for i in range(rows.shape[0]):
        cost_row(rows[i], misses_of(rows[i], capacity), tables, splits, d, c, governor, out[i])
