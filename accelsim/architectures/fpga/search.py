"""Folding search on flat arrays (numba)."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def pack(lut, multiplier_lut, dsp, multiplier_dsp, bram, uram, lutram, have, used):  # type: ignore[no-untyped-def]
    """Place multipliers and memories; True when everything fits.

    Multipliers go to DSP blocks in the order of LUTs saved per block, wherever one still fits. Memories start
    in BRAM. If that is too small, those that free most BRAM per URAM move there; if that is not enough, a
    quarter, a half or all of them (those with most BRAM per LUT) go to LUTs first. A greedy fill in the order
    of gain never gains less with more room, so a larger budget never makes a fit fail.

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
    n = len(lut)
    gain = np.empty(n)
    for i in range(n):
        gain[i] = multiplier_lut[i] / multiplier_dsp[i] if multiplier_dsp[i] > 0 else -1.0
    for i in np.argsort(-gain, kind="mergesort"):
        if gain[i] < 0 or used_dsp + multiplier_dsp[i] > have[1]:
            used_lut += multiplier_lut[i]
        else:
            used_dsp += multiplier_dsp[i]
    used[0], used[1], used[2], used[3] = used_lut, used_dsp, bram.sum(), 0.0
    if used_lut > have[0] or used_dsp > have[1]:
        return False
    if used[2] <= have[2]:
        return True

    m = len(bram)
    per_lut, per_uram = np.empty(m), np.empty(m)
    for j in range(m):
        per_lut[j] = bram[j] / lutram[j] if lutram[j] > 0 else -1.0
        per_uram[j] = bram[j] / uram[j] if uram[j] > 0 else -1.0
    to_lut = np.argsort(-per_lut, kind="mergesort")
    to_uram = np.argsort(-per_uram, kind="mergesort")
    for quarters in (0, 1, 2, 4):
        inside = np.ones(m, dtype=np.bool_)
        used[0], used[2], used[3] = used_lut, bram.sum(), 0.0
        for j in to_lut[: m * quarters // 4]:
            if per_lut[j] > 0:
                inside[j] = False
                used[0] += lutram[j]
                used[2] -= bram[j]
        for j in to_uram:
            if used[2] <= have[2]:
                break
            if inside[j] and per_uram[j] > 0 and used[3] + uram[j] <= have[3]:
                used[3] += uram[j]
                used[2] -= bram[j]
        if used[0] <= have[0] and used[2] <= have[2]:
            return True
    return False


@njit(cache=True)
def place(lut, multiplier_lut, dsp, multiplier_dsp, bram, uram, lutram, have, dies, used):  # type: ignore[no-untyped-def]
    """`pack`, and whether the stages also fit equal dies, in order, each filled as far as it goes.

    Filling the first die to its end leaves least for the others, so if this fails every order-preserving
    placement does.

    Parameters
    ----------
    lut, multiplier_lut, dsp, multiplier_dsp, bram, uram, lutram, have, used
        As in `pack`; the memories of a stage stand together.
    dies : int
    """
    if not pack(lut, multiplier_lut, dsp, multiplier_dsp, bram, uram, lutram, have, used):
        return False
    if dies == 1:
        return True
    n = len(lut)
    each = len(bram) // n
    share, taken = have / dies, np.empty(4)
    low = 0
    for _ in range(dies):
        good, bad = low, n + 1  # the die holds the stages before `good`, and cannot hold those before `bad`
        while bad - good > 1:
            middle = n if bad == n + 1 else (good + bad) // 2
            m = slice(low * each, middle * each)
            if pack(
                lut[low:middle], multiplier_lut[low:middle], dsp[low:middle], multiplier_dsp[low:middle],
                bram[m], uram[m], lutram[m], share, taken,
            ):  # fmt: skip
                good = middle
            else:
                bad = middle
        low = good
        if low == n:
            return True
    return False


@njit(cache=True)
def placed(rows, columns, memories, have, dies, used):  # type: ignore[no-untyped-def]
    """`place` of the foldings in these rows of the tables.

    Parameters
    ----------
    rows : int64 (stages,)
    columns : float64 (4, foldings)
        lut, multiplier lut, dsp, multiplier dsp.
    memories : float64 (3, foldings, memories per stage)
        bram, uram, lutram.
    have, dies, used
        As in `place`.
    """
    stages, per_stage = len(rows), memories.shape[2]
    logic, held = np.empty((4, stages)), np.empty((3, stages * per_stage))
    for s in range(stages):
        for c in range(4):
            logic[c, s] = columns[c, rows[s]]
        for h in range(3):
            for m in range(per_stage):
                held[h, s * per_stage + m] = memories[h, rows[s], m]
    return place(logic[0], logic[1], logic[2], logic[3], held[0], held[1], held[2], have, dies, used)


@njit(cache=True)
def chain(cycles, stream, tail, accept, cost):  # type: ignore[no-untyped-def]
    """Rows from fast to slow: the cheapest folding of all, then again and again the cheapest one that is
    faster and no later in any part of its timing (the first such row among equals).

    Parameters
    ----------
    cycles, stream, tail, accept, cost : float64 (foldings,)
    """
    n = len(cost)
    found = np.empty(n, dtype=np.int64)
    row = 0
    for i in range(n):
        if cost[i] < cost[row]:
            row = i
    length = 0
    while row >= 0:
        found[length] = row
        length += 1
        after = -1
        for i in range(n):
            if (
                cycles[i] < cycles[row]
                and stream[i] <= stream[row] + 1e-9
                and tail[i] <= tail[row] + 1e-9
                and accept[i] <= accept[row] + 1e-9
                and (after < 0 or cost[i] < cost[after])
            ):
                after = i
        row = after
    return found[:length][::-1].copy()


@njit(cache=True)
def fine_chain(cycles, stream, tail, accept, cost):  # type: ignore[no-untyped-def]
    """Rows from fast to slow: the fastest folding of all, then again and again the dearest one that is
    cheaper and no earlier in any part of its timing.

    Parameters
    ----------
    cycles, stream, tail, accept, cost : float64 (foldings,)
    """
    n = len(cost)
    found = np.empty(n, dtype=np.int64)
    row = 0
    for i in range(n):
        if cycles[i] < cycles[row] or (cycles[i] == cycles[row] and cost[i] < cost[row]):
            row = i
    length = 0
    while row >= 0:
        found[length] = row
        length += 1
        after = -1
        for i in range(n):
            if (
                cycles[i] > cycles[row]
                and stream[i] >= stream[row] - 1e-9
                and tail[i] >= tail[row] - 1e-9
                and accept[i] >= accept[row] - 1e-9
                and cost[i] < cost[row]
                and (after < 0 or cost[i] > cost[after])
            ):
                after = i
        row = after
    return found[:length].copy()


@njit(cache=True)
def chains(cycles, stream, tail, accept, cost):  # type: ignore[no-untyped-def]
    """`chain` at each price vector, then `fine_chain` at each: (rows, starts), one chain behind the other.

    Parameters
    ----------
    cycles, stream, tail, accept : float64 (foldings,)
    cost : float64 (prices, foldings)
    """
    prices, n = cost.shape
    rows = np.empty(2 * prices * n, dtype=np.int64)
    starts = np.zeros(2 * prices + 1, dtype=np.int64)
    for c in range(2 * prices):
        if c < prices:
            found = chain(cycles, stream, tail, accept, cost[c])
        else:
            found = fine_chain(cycles, stream, tail, accept, cost[c - prices])
        starts[c + 1] = starts[c] + len(found)
        rows[starts[c] : starts[c + 1]] = found
    return rows[: starts[2 * prices]].copy(), starts


@njit(cache=True)
def bound(offsets, cycles, cost, prices, targets, have):  # type: ignore[no-untyped-def]
    """First target that no price vector rules out; -1 when all are.

    The least cost falls with the target, so a target above one that is possible is possible too: bisection.

    Parameters
    ----------
    offsets : int64 (stages + 1,)
        Foldings of stage s are rows offsets[s] to offsets[s + 1], by ascending cycles.
    cycles : float64 (foldings,)
    cost : float64 (prices, foldings)
        The least cost of a folding up to this one.
    prices : float64 (prices, 4)
    targets : float64 (targets,)
        Ascending.
    have : float64 (4,)
    """
    stages = len(offsets) - 1
    worth = np.zeros(len(prices))
    for p in range(len(prices)):
        for r in range(4):
            worth[p] += prices[p, r] * have[r]
    total = np.empty(len(prices))
    low, high = 0, len(targets)
    while low < high:
        middle = (low + high) // 2
        total[:] = 0.0
        for s in range(stages):
            met = np.searchsorted(cycles[offsets[s] : offsets[s + 1]], targets[middle], side="right")
            row = offsets[s] + max(met - 1, 0)
            for p in range(len(prices)):
                total[p] += cost[p, row]
        possible = True
        for p in range(len(prices)):
            if total[p] > worth[p] * (1 + 1e-12):
                possible = False
                break
        if possible:
            high = middle
        else:
            low = middle + 1
    return low if low < len(targets) else -1


@njit(cache=True)
def search(starts, links, cycles, columns, memories, cost, prices, low, floor, have, dies, chosen, used, met):  # type: ignore[no-untyped-def]
    """For each chain the first target whose foldings fit: each stage takes its slowest that meets it.

    Targets are the cycles of the chain's foldings from `low` on. One whose foldings cost more at the
    chain's own prices than the whole budget is worth cannot fit and is not packed.

    Parameters
    ----------
    starts : int64 (stages, chains + 1), links : int64 (rows of chains,)
        Foldings of chain c of stage s are ``links[starts[s, c] : starts[s, c + 1]]``, fast to slow; chains c
        and c + len(prices) stand at price vector c.
    cycles : float64 (foldings,), cost : float64 (prices, foldings), prices : float64 (prices, 4)
    columns, memories
        As in `placed`.
    low, floor : float
        No smaller target is possible, and none is worth trying.
    have : float64 (4,)
    dies : int
        See `place`.
    chosen : int64 (chains, stages), used : float64 (chains, 4), met : bool (chains,)
        Written.
    """
    stages = len(starts)
    at = np.empty(stages, dtype=np.int64)
    for c in range(starts.shape[1] - 1):
        p = c % len(prices)
        worth = 0.0
        for r in range(4):
            worth += prices[p, r] * have[r]
        target = floor
        for s in range(stages):
            at[s] = starts[s, c]
            target = max(target, cycles[links[at[s]]])
        if target < low:  # then the first folding of any stage that takes no less
            target = np.inf
            for s in range(stages):
                for i in range(starts[s, c], starts[s, c + 1]):
                    if cycles[links[i]] >= low:
                        target = min(target, cycles[links[i]])
                        break
        while target < np.inf:
            following, total, logic = np.inf, 0.0, 0.0
            for s in range(stages):
                while at[s] + 1 < starts[s, c + 1] and cycles[links[at[s] + 1]] <= target:
                    at[s] += 1
                if at[s] + 1 < starts[s, c + 1]:
                    following = min(following, cycles[links[at[s] + 1]])
                row = links[at[s]]
                chosen[c, s] = row
                total += cost[p, row]
                logic += columns[0, row]
            target = following
            if logic > have[0] or total > worth * (1 + 1e-9):
                continue
            if placed(chosen[c], columns, memories, have, dies, used[c]):
                met[c] = True
                break


@njit(cache=True)
def score(choices, cycles, columns, memories, have, dies, interval, fits):  # type: ignore[no-untyped-def]
    """Interval and fit of whole designs; sums settle most of them, `pack` the rest.

    Parameters
    ----------
    choices : int64 (designs, stages)
        Rows of the tables below.
    cycles : float64 (foldings,), columns : float64 (4, foldings), memories : float64 (3, foldings, memories)
        As in `search`.
    have : float64 (4,)
    dies : int
        See `place`.
    interval : float64 (designs,), fits : bool (designs,)
        Written.
    """
    stages, per_stage = choices.shape[1], memories.shape[2]
    used = np.empty(4)
    for i in range(len(choices)):
        slowest, logic, products, blocks, memory = 0.0, 0.0, 0.0, 0.0, 0.0
        for s in range(stages):
            row = choices[i, s]
            slowest = max(slowest, cycles[row])
            logic += columns[0, row]
            products += columns[1, row]
            blocks += columns[2, row]
            for m in range(per_stage):
                memory += memories[0, row, m]
        interval[i] = slowest
        if logic > have[0] or blocks > have[1]:
            fits[i] = False
            continue
        if dies == 1 and logic + products <= have[0] and memory <= have[2]:
            fits[i] = True
            continue
        fits[i] = placed(choices[i], columns, memories, have, dies, used)


@njit(cache=True)
def exact(offsets, cycles, columns, memories, targets, have, dies, limit, chosen):  # type: ignore[no-untyped-def]
    """First target that some combination of foldings meets and fits, by trying them all.

    Combinations are tried depth first, slowest folding of each stage first; a branch ends where the logic and
    DSP blocks that its stages need in any case exceed the budget.

    Parameters
    ----------
    offsets : int64 (stages + 1,)
        As in `bound`.
    cycles, columns, memories
        As in `search`.
    targets : float64 (targets,)
        Ascending.
    dies : int
        See `place`.
    limit : int
        Combinations that may be tried.
    chosen : int64 (stages,)
        Written.

    Returns
    -------
    int
        Index of the target; -1 when none is met, -2 when the limit came first.
    """
    stages = len(offsets) - 1
    last = offsets[:stages].copy()  # slowest folding of each stage that meets the target
    row = np.empty(stages, dtype=np.int64)
    logic, blocks = np.zeros(stages + 1), np.zeros(stages + 1)
    rest_logic, rest_blocks = np.zeros(stages + 1), np.zeros(stages + 1)
    used = np.empty(4)
    tried = 0
    for k in range(len(targets)):
        for s in range(stages):
            while last[s] + 1 < offsets[s + 1] and cycles[last[s] + 1] <= targets[k]:
                last[s] += 1
        for s in range(stages - 1, -1, -1):
            least_logic, least_blocks = columns[0, offsets[s]], columns[2, offsets[s]]
            for r in range(offsets[s] + 1, last[s] + 1):
                least_logic = min(least_logic, columns[0, r])
                least_blocks = min(least_blocks, columns[2, r])
            rest_logic[s] = rest_logic[s + 1] + least_logic
            rest_blocks[s] = rest_blocks[s + 1] + least_blocks
        depth = 0
        row[0] = last[0] + 1
        while depth >= 0:
            row[depth] -= 1
            if row[depth] < offsets[depth]:
                depth -= 1
                continue
            tried += 1
            if tried > limit:
                return -2
            logic[depth + 1] = logic[depth] + columns[0, row[depth]]
            blocks[depth + 1] = blocks[depth] + columns[2, row[depth]]
            if logic[depth + 1] + rest_logic[depth + 1] > have[0]:
                continue
            if blocks[depth + 1] + rest_blocks[depth + 1] > have[1]:
                continue
            if depth + 1 < stages:
                depth += 1
                row[depth] = last[depth] + 1
                continue
            if placed(row, columns, memories, have, dies, used):
                chosen[:] = row
                return k
    return -1
