"""Whole programs for many batches at once (numba): every kernel of every batch costed and summed.

The steps are those of `cost` and of `intervals`, in the same order, so the sums are those of single points;
the tests hold `simulate` against this file.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from accelsim.architectures.base import BOUNDS, STALLS
from accelsim.architectures.gpu import intervals as I
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.sm import cached, cost_row, misses_of

# Columns of the coefficients of a kernel: `power.Coefficients` and the bare energy of a multiply-accumulate.
HEAD_W, ACTIVE_W, MAC, DRAM_J, L2_J, VECTOR_J, MAC_J, COEFFICIENTS = range(8)

# Columns of the constants of a band.
LOW, HIGH, SHORTEST, LONGEST, WIDER, SHARE, BAND_WIDTH = range(7)

# Output, by batch: latency and the ends of its band [s]; energy by part [J]; what limits most of the time,
# index in `base.BOUNDS`, -1 for nothing; traffic [B].
OUT_LATENCY, OUT_LOW, OUT_HIGH, OUT_ACTIVE, OUT_MAC, OUT_VECTOR, OUT_DRAM_J, OUT_SRAM = range(8)
OUT_LIMIT, OUT_DRAM, OUT = range(8, 11)
PARTS = ("active", "mac", "vector", "dram", "sram")
"""Parts of the energy, in the order of the columns."""

_LOW_MOST, _HIGH_LEAST = math.log(1.0 - I.LEAST), math.log(1.0 + I.LEAST)
_ASSUMED = (math.log(I.ASSUMED[0]), math.log(I.ASSUMED[1]))
_KNOTS = np.log(I.KNOTS_S)
_SLOPE, _WIDEST = I.WIDER_PER_DOUBLING, I.WIDEST
_BOUNDS, _STALLS = len(BOUNDS), len(STALLS)


@njit(cache=True)
def six_digits(t: float) -> float:
    """A duration in s rounded to six significant digits, ``float(f"{t:.6g}")``."""
    shift = 5 - math.floor(math.log10(t))
    scale = 10.0 ** abs(shift)
    scaled = t * scale if shift >= 0 else t / scale
    whole = np.rint(scaled)
    if whole >= 1e6 or whole < 1e5:  # the logarithm was off by one, or it rounds up to the next power
        shift += -1 if whole >= 1e6 else 1
        scale = 10.0 ** abs(shift)
        scaled = t * scale if shift >= 0 else t / scale
        whole = np.rint(scaled)
    return whole / scale if shift >= 0 else whole * scale


@njit(cache=True)
def _sum_rows(lines, rows, times, serial, sums):  # type: ignore[no-untyped-def]
    """Rows that run in turn, added into `sums`."""
    sums[:] = 0.0
    for position in range(len(rows)):
        line, runs = lines[rows[position]], times[position]
        for column in range(R.OUT_SUMS):
            sums[column] += runs * line[column]
    sums[R.OUT_FIXED] += serial
    sums[R.STALL_LAUNCH] += serial


@njit(cache=True)
def _finish(sums, clock, launched_s, host_s):  # type: ignore[no-untyped-def]
    """Duration as summed, duration as a kernel's cost has it [s], and what limits: `finish.timed`."""
    body, fixed = sums[R.OUT_BODY], sums[R.OUT_FIXED]
    total = body + fixed + launched_s
    taken_s = max(total, host_s)
    sums[R.STALL_LAUNCH] += launched_s + (taken_s - total)
    code = np.argmax(sums[R.STALL_COMPUTE : R.OUT_SUMS])
    compute, dram = sums[R.OUT_COMPUTE], sums[R.OUT_DRAM_S]
    rest = (taken_s - max(compute, dram)) * clock
    return taken_s, (max(compute * clock, dram * clock) + rest) / clock, code


@njit(cache=True)
def _spend(c, flops, ops, dram, l2, taken_s, cap, parts):  # type: ignore[no-untyped-def]
    """Energy of one kernel by part: `power.Coefficients.parts`."""
    parts[0] = c[ACTIVE_W] * taken_s
    parts[1] = flops / 2.0 * c[MAC_J] * c[MAC] if flops != 0.0 else 0.0
    parts[2] = ops * c[VECTOR_J] if ops != 0.0 else 0.0
    parts[3] = dram * c[DRAM_J] if dram != 0.0 else 0.0
    parts[4] = l2 * c[L2_J] if l2 != 0.0 else 0.0
    total = parts[0] + parts[1] + parts[2] + parts[3] + parts[4]
    limit = c[HEAD_W] * taken_s
    if cap and not math.isnan(total) and total > limit:
        for part in range(5):
            parts[part] = parts[part] * limit / total


@njit(cache=True)
def _slope(slopes, t, parts):  # type: ignore[no-untyped-def]
    """A sum over `intervals.features` of a row that takes t seconds, of which `parts` are the shares."""
    where = min(max(math.log(t), _KNOTS[0]), _KNOTS[-1])
    left = 0
    while left < len(_KNOTS) - 2 and where >= _KNOTS[left + 1]:
        left += 1
    share = (where - _KNOTS[left]) / (_KNOTS[left + 1] - _KNOTS[left])
    total = (1.0 - share) * slopes[left] + share * slopes[left + 1]
    for part in range(len(parts)):
        total += parts[part] * slopes[len(_KNOTS) + part]
    return total


@njit(cache=True)
def _band(count, group, seconds, code, weight, parts, slopes, bands, eager, z, out):  # type: ignore[no-untyped-def]
    """Ends of the band of a sum, as factors: `intervals.factors` and `intervals.combine`."""
    total, moved, share = 0.0, 0.0, 0.0
    alone = 0.0
    for i in range(count):
        g, t = group[i], seconds[i]
        beyond = 0.0
        if t > bands[g, LONGEST]:
            beyond = math.log2(t / bands[g, LONGEST])
        if t < bands[g, SHORTEST]:
            beyond = max(beyond, math.log2(bands[g, SHORTEST] / t))
        wider = min(1.0 + _SLOPE * beyond, _WIDEST) * bands[g, WIDER]
        middle = _slope(slopes[g, 0], t, parts[i])
        wide = math.exp(_slope(slopes[g, 1], t, parts[i]))
        least = min((middle + bands[g, LOW] * wide) * wider, _LOW_MOST)
        most = max((middle + bands[g, HIGH] * wide) * wider, _HIGH_LEAST)
        if eager and code[i] == R.LAUNCH:
            least, most = _ASSUMED
        sigma = (most - least) / (2.0 * z)
        mean = weight[i] * math.exp((least + most) / 2.0 + sigma**2 / 2.0)
        moved += mean
        total += weight[i]
        share += bands[g, SHARE] * weight[i]
        seconds[i], code[i] = sigma, 0  # read above, and free from here on
        weight[i] = mean
    share /= total
    for i in range(count):  # a kernel with itself
        alone += weight[i] ** 2 * (math.expm1(seconds[i] ** 2) - math.expm1(share * seconds[i] ** 2))
    # All pairs, sum_ij m_i m_j (exp(share s_i s_j) - 1), as the power series of the exponential: its terms
    # are squares of sums over kernels.
    together, factor, order = 0.0, 1.0, 0
    term = math.inf
    while term > 1e-15 * together:
        order += 1
        factor *= share / order
        powers = 0.0
        for i in range(count):
            weight[i] *= seconds[i]
            powers += weight[i]
        term = factor * powers**2
        together += term
    spread = math.log1p((together + alone) / moved**2)
    centre = math.log(moved / total) - spread / 2.0
    half = z * math.sqrt(spread)
    out[OUT_LOW] = min(math.exp(centre - half), 1.0 - I.LEAST)
    out[OUT_HIGH] = max(math.exp(centre + half), 1.0 + I.LEAST)


@njit(cache=True, nogil=True)
def cost_programs(  # type: ignore[no-untyped-def]
    steps, base, slope, gather, model, twin, constants, tables, splits, device, governor,
    first, rows, times, launched, serial, owner, fused, lines_of_attention, clocks,
    repeat, work, coefficients, group, slopes, bands, eager, z, host_s, run_s, out,
):  # fmt: skip
    """Fill `out` for every batch.

    Parameters
    ----------
    steps : ndarray
        Batches above the first.
    base, slope : ndarray, shape (rows, WIDTH)
        Rows of the first batch, and what each further item of the batch adds.
    gather : ndarray, shape (rows, 3)
        Factor, first and slope of elementwise operations that come on top.
    model, twin : ndarray of int
        Constants of a row, and the row before it that differs in distances at most (-1: none).
    constants, tables, splits, device, governor
        See `sm.cost_rows`; one line of constants per model.
    first, rows, times : ndarray
        Rows of candidate i and how often they run are those from first[i] to first[i + 1].
    launched, serial, owner, fused, clocks : ndarray
        By candidate: launches and what else it takes [s]; its kernel; its attention row, or -1; clock [Hz].
    lines_of_attention : ndarray, shape (batches, attention rows, columns)
    repeat, group : ndarray
        By kernel: times that it runs, its band.
    work : ndarray, shape (4, kernels)
        First and slope of FLOP, first and slope of elementwise operations.
    coefficients : ndarray, shape (kernels, COEFFICIENTS)
    slopes, bands : ndarray
        By band: coefficients of its middle and its spread by feature, and constants.
    eager : bool
        Launches are paced by a host whose speed is assumed.
    z : float
        Standard deviations of the level of the bands.
    host_s, run_s : float
        Least time between kernels; what the host adds to a run [s].
    out : ndarray, shape (batches, OUT)
    """
    count, kernels, candidates = len(base), len(repeat), len(owner)
    r = np.empty(base.shape)
    lines = np.empty((count, R.OUT_WIDTH))
    missed = np.empty((count, 4))
    sums, best_parts = np.empty(R.OUT_SUMS), np.empty(5)
    seconds, weight = np.empty(kernels), np.empty(kernels)
    kind, code = np.empty(kernels, dtype=np.int64), np.empty(kernels, dtype=np.int64)
    spent, order = np.empty(_BOUNDS), np.empty(_BOUNDS, dtype=np.int64)
    stalls, shares = np.zeros(_STALLS), np.empty((kernels, _STALLS))
    for b in range(len(steps)):
        step = steps[b]
        for i in range(count):
            for column in range(R.WIDTH):
                r[i, column] = base[i, column] + slope[i, column] * step
            if gather[i, 0] != 0.0:
                r[i, R.VECTOR_OPS] = gather[i, 0] * (gather[i, 1] + gather[i, 2] * step) + r[i, R.VECTOR_OPS]
            c = constants[model[i]]
            misses = misses_of(r[i], cached(device, c))
            missed[i, 0], missed[i, 1], missed[i, 2], missed[i, 3] = misses
            like = twin[i]
            while like >= 0:
                if (
                    missed[like, 0] == misses[0]
                    and missed[like, 1] == misses[1]
                    and missed[like, 2] == misses[2]
                    and missed[like, 3] == misses[3]
                    and (r[like, R.A_DISTANCE] == np.inf) == (r[i, R.A_DISTANCE] == np.inf)
                ):
                    break
                like = twin[like]
            if like >= 0:
                lines[i] = lines[like]
            else:
                cost_row(r[i], misses, tables, splits, device, c, governor, lines[i])
        o = out[b]
        o[:] = 0.0
        spent[:] = 0.0
        met, shapes = 0, 0
        total_s, carry = 0.0, 0.0
        at = 0
        for k in range(kernels):
            best, limit, dram = np.inf, 0, 0.0
            flops, ops = work[0, k] + work[1, k] * step, work[2, k] + work[3, k] * step
            while at < candidates and owner[at] == k:
                if fused[at] >= 0:
                    line = lines_of_attention[b, fused[at]]
                    sums[:] = line[: R.OUT_SUMS]
                else:
                    here = slice(first[at], first[at + 1])
                    _sum_rows(lines, rows[here], times[here], serial[at], sums)
                taken_s, duration, bound = _finish(sums, clocks[at], launched[at], host_s)
                if duration < best:
                    best, limit, dram = duration, bound, sums[R.OUT_DRAM_BYTES]
                    stalls[: R.OUT_SUMS - R.STALL_COMPUTE] = sums[R.STALL_COMPUTE : R.OUT_SUMS]
                    _spend(
                        coefficients[k], flops, ops, dram, sums[R.OUT_L2_BYTES], taken_s, governor, best_parts
                    )
                at += 1
            runs = repeat[k]
            for part in range(5):
                o[OUT_ACTIVE + part] += best_parts[part] * runs
            o[OUT_DRAM] += dram * runs
            own = best * runs
            total_s, carry = _added(total_s, carry, own)
            seen = 0
            while seen < met and order[seen] != limit:
                seen += 1
            if seen == met:
                order[met] = limit
                met += 1
            spent[limit] += own
            if best > 0.0:
                t = six_digits(best)
                s = 0
                while s < shapes and not (seconds[s] == t and code[s] == limit and kind[s] == group[k]):
                    s += 1
                if s == shapes:
                    seconds[s], code[s], kind[s], weight[s] = t, limit, group[k], 0.0
                    shares[s] = stalls / t
                    shapes += 1
                weight[s] += own
        o[OUT_LATENCY] = (total_s + carry) + run_s
        o[OUT_LIMIT] = -1.0
        for i in range(met):
            if o[OUT_LIMIT] < 0.0 or spent[order[i]] > spent[int(o[OUT_LIMIT])]:
                o[OUT_LIMIT] = order[i]
        if shapes:
            _band(shapes, kind, seconds, code, weight, shares, slopes, bands, eager, z, o)
        else:
            o[OUT_LOW], o[OUT_HIGH] = I.ASSUMED
        o[OUT_LOW] *= o[OUT_LATENCY]
        o[OUT_HIGH] *= o[OUT_LATENCY]


@njit(cache=True)
def _added(total: float, carry: float, value: float) -> tuple[float, float]:
    """A sum and the rounding errors that it left out (Neumaier 1974)."""
    fresh = total + value
    if abs(total) >= abs(value):
        return fresh, carry + ((total - fresh) + value)
    return fresh, carry + ((value - fresh) + total)
