"""Folding search on flat arrays (numba)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def pack(lut, multiplier_lut, dsp, multiplier_dsp, bram, uram, lutram, have, used):
    """Place multipliers and memories; True when everything fits.

    Multipliers go to DSP blocks in the order of LUTs saved per block, as long as they fit. Memories start in BRAM; what does not fit moves to URAM
    in the order of BRAM freed per URAM, then to LUTs. Both orders are prefixes, so a larger budget never makes a fit fail.

    Parameters
    ----------
    lut, multiplier_lut, dsp, multiplier_dsp : float64 (stages,)
    bram, uram, lutram : float64 (memories,)
    have : float64 (4,)
        LUT, DSP, BRAM, URAM.
    used : float64 (4,)
        Written.
    """
    used_lut = lut.sum()
    used_dsp = dsp.sum()
    used_bram = bram.sum()
    used_uram = 0.0
    n = len(lut)

    gain = np.empty(n)
    for i in range(n):
        gain[i] = multiplier_lut[i] / multiplier_dsp[i] if multiplier_dsp[i] > 0 else -1.0
    full = False
    for i in np.argsort(-gain, kind="mergesort"):
        if gain[i] < 0 or full or used_dsp + multiplier_dsp[i] > have[1]:
            used_lut += multiplier_lut[i]
            full = full or gain[i] >= 0
        else:
            used_dsp += multiplier_dsp[i]

    if used_bram > have[2]:
        m = len(bram)
        moved = np.zeros(m, dtype=np.bool_)
        ratio = np.empty(m)
        for j in range(m):
            ratio[j] = bram[j] / uram[j] if uram[j] > 0 else -1.0
        for j in np.argsort(-ratio, kind="mergesort"):
            if used_bram <= have[2] or ratio[j] <= 0 or used_uram + uram[j] > have[3]:
                break
            used_uram += uram[j]
            used_bram -= bram[j]
            moved[j] = True
        if used_bram > have[2]:
            for j in range(m):
                ratio[j] = bram[j] / lutram[j] if lutram[j] > 0 and not moved[j] else -1.0
            for j in np.argsort(-ratio, kind="mergesort"):
                if used_bram <= have[2] or ratio[j] <= 0:
                    break
                used_lut += lutram[j]
                used_bram -= bram[j]

    used[0], used[1], used[2], used[3] = used_lut, used_dsp, used_bram, used_uram
    return used_lut <= have[0] and used_dsp <= have[1] and used_bram <= have[2] and used_uram <= have[3]


@njit(cache=True)
def search(offsets, cycles, best, cost, prices, columns, memories, targets, have, chosen, used):
    """First target (in ascending order) that some price vector's cheapest foldings meet within the budget.

    Parameters
    ----------
    offsets : int64 (stages + 1,)
        Foldings of stage s are rows offsets[s] to offsets[s + 1], by ascending cycles.
    cycles : float64 (foldings,)
    best : int64 (prices, foldings)
        Row of the cheapest folding up to this one, by price vector.
    cost : float64 (prices, foldings)
        Its cost.
    prices : float64 (prices, 4)
    columns : float64 (4, foldings)
        lut, multiplier lut, dsp, multiplier dsp.
    memories : float64 (3, foldings, memories per stage)
        bram, uram, lutram.
    targets : float64 (targets,)
    have : float64 (4,)
    chosen : int64 (stages,), used : float64 (4,)
        Written.

    Returns
    -------
    (int, int, int)
        Index of the target, of the price vector, and of the first target that no price vector rules out (a lower bound); -1 where there is none.
    """
    stages = len(offsets) - 1
    kinds = len(prices)
    per_stage = memories.shape[2]
    pointer = offsets[:stages].copy()
    lut, mult, dsp, mult_dsp = np.empty(stages), np.empty(stages), np.empty(stages), np.empty(stages)
    bram, uram, lutram = (
        np.empty(stages * per_stage),
        np.empty(stages * per_stage),
        np.empty(stages * per_stage),
    )
    bound = -1
    for k in range(len(targets)):
        for s in range(stages):
            while pointer[s] + 1 < offsets[s + 1] and cycles[pointer[s] + 1] <= targets[k]:
                pointer[s] += 1
        possible = True
        for p in range(kinds):
            total = 0.0
            for s in range(stages):
                total += cost[p, pointer[s]]
            worth = (
                prices[p, 0] * have[0]
                + prices[p, 1] * have[1]
                + prices[p, 2] * have[2]
                + prices[p, 3] * have[3]
            )
            if total > worth * (1 + 1e-12):
                possible = False
                break
        if not possible:
            continue
        if bound < 0:
            bound = k
        for p in range(kinds):
            for s in range(stages):
                row = best[p, pointer[s]]
                chosen[s] = row
                lut[s], mult[s], dsp[s], mult_dsp[s] = (
                    columns[0, row],
                    columns[1, row],
                    columns[2, row],
                    columns[3, row],
                )
                for m in range(per_stage):
                    bram[s * per_stage + m] = memories[0, row, m]
                    uram[s * per_stage + m] = memories[1, row, m]
                    lutram[s * per_stage + m] = memories[2, row, m]
            if pack(lut, mult, dsp, mult_dsp, bram, uram, lutram, have, used):
                return k, p, bound
    return -1, -1, bound
