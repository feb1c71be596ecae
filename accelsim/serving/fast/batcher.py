"""Kernel of Triton's dynamic batcher: `accelsim.serving.triton` on arrays.

Requests wait in linked lists, one per priority level and one for its delayed requests; a payload takes a
part of a list over as its own. Payloads are numbered in order of creation, and those that wait for an
instance are always consecutive.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.serving.fast.machine import CAME, FREED, NEVER, RANG, lowest_idle, next_event, start

IDLE_WAIT_NS = 500_000_000
NS_PER_US = 1000


@njit(cache=True)
def walk(  # type: ignore[no-untyped-def]
    now, room_most, room_largest, size, sizes, first, last, follow, deadline, delays, counts, entered,
    status, finish, out,
):  # fmt: skip
    """The dynamic batch that the queue offers to a payload of `size` (`TritonScheduler._dynamic_batch`).

    ``out`` becomes: pending, best, whether the batch is full, saturated, oldest entry, closest deadline,
    requests dropped.
    """
    pending = best = full = saturated = oldest = closest = dropped = 0
    levels = len(delays)
    for line in range(2 * levels):  # level 0, its delayed ones, level 1, ...
        level = line // 2
        before, i = -1, first[line]
        while i >= 0:
            after = follow[i]
            if line % 2 == 0 and len(deadline) and 0 < deadline[i] < now:
                if before < 0:
                    first[line] = after
                else:
                    follow[before] = after
                if last[line] == i:
                    last[line] = before
                follow[i] = -1
                deadline[i] = 0
                if delays[level]:
                    if last[line + 1] < 0:
                        first[line + 1] = i
                    else:
                        follow[last[line + 1]] = i
                    last[line + 1] = i
                else:
                    status[i] = 3
                    finish[i] = now
                    dropped += 1
                    counts[level] -= 1
                i = after
                continue
            if size + pending:
                if size + pending + 1 > room_largest and best == 0:
                    best, saturated = pending, 1
                if size + pending + 1 > room_most:
                    full = 1
                    break
            pending += 1
            oldest = entered[i] if pending == 1 else min(oldest, entered[i])
            if len(deadline) and deadline[i] and (closest == 0 or deadline[i] < closest):
                closest = deadline[i]
            for s in sizes:
                if size + pending == s:
                    best = pending
            before, i = i, after
        if full:
            break
    out[0], out[1], out[2], out[3], out[4], out[5], out[6] = (
        pending, best, full, saturated, oldest, closest, dropped,
    )  # fmt: skip


@njit(cache=True)
def run(  # type: ignore[no-untyped-def]
    arrival, level_of, asked, most, sizes, delay, prefetches, preserve, timeouts, overrides, delays, rooms,
    instances, service, held, gap, factors, wake, answer, finish, status, execution, runs,
):  # fmt: skip
    """Serve; see `TritonScheduler` for every rule."""
    free_at = np.full(instances, NEVER, np.int64)
    number = np.zeros(instances, np.int64)
    freed = np.full(instances, -1, np.int64)
    n, levels = len(arrival), len(timeouts)
    follow = np.full(n, -1, np.int32)
    deadline = np.zeros(n if timeouts.any() else 0, np.int64)
    first = np.full(2 * levels, -1, np.int64)
    last = np.full(2 * levels, -1, np.int64)
    counts = np.zeros(levels, np.int64)
    ring = 2 * instances + 4
    heads, tails = np.full(ring, -1, np.int64), np.full(ring, -1, np.int64)
    amount, eldest = np.zeros(ring, np.int64), np.zeros(ring, np.int64)
    taken = np.zeros(ring, np.int64)
    out = np.zeros(7, np.int64)
    # Payloads front..current wait; of these, the current one only if it is queued.
    front, current, queued, saturated = 0, 0, 0, 0
    coming, k, idle, size_all, next_preferred = 0, 0, instances, 0, 0
    needs_slot, slept, timer, final = False, 0, NEVER, 0
    largest = sizes[-1]
    while True:
        what, now = next_event(free_at, number, freed, idle, timer, arrival, coming)
        notified = True
        if what == FREED:
            idle += 1
        elif what == RANG:
            timer = NEVER
        elif what == CAME:
            i = coming
            coming += 1
            level = level_of[i] if len(level_of) else 0
            if rooms[level] and counts[level] >= rooms[level]:
                status[i] = 2
                finish[i] = now
                continue
            line = 2 * level
            if last[line] < 0:
                first[line] = i
            else:
                follow[last[line]] = i
            last[line] = i
            counts[level] += 1
            size_all += 1
            if timeouts[level]:
                limit = timeouts[level]
                if overrides[level] and len(asked) and 0 < asked[i] < limit:
                    limit = asked[i]
                deadline[i] = now + limit
            waiting = current - front + queued
            slot = waiting < 2 * instances if prefetches else idle > waiting
            notified = slot and (saturated == 1 or taken[current % ring] == 1 or size_all >= next_preferred)
            if not notified and timer == NEVER and not needs_slot:
                timer = slept + ((now - slept) // IDLE_WAIT_NS + 1) * IDLE_WAIT_NS
        else:
            break
        running = False
        while True:
            while idle and current - front + queued > 0:
                # An idle instance takes the payload in front, and what may be merged with it.
                p = front % ring
                taken[p] = 1
                front += 1
                if delay and most > 1:
                    while current - front + queued > 0:
                        q = front % ring
                        if now - eldest[q] <= delay:
                            break
                        taken[q] = 1
                        if amount[p] + amount[q] > most:
                            break
                        follow[tails[p]] = heads[q]
                        tails[p] = tails[q]
                        amount[p] += amount[q]
                        front += 1
                size = amount[p]
                chosen = lowest_idle(free_at)
                takes = start(
                    now, chosen, k, size, size, service, held, gap, factors, wake,
                    free_at, number, freed, runs,
                )  # fmt: skip
                i = heads[p]
                for place in range(size):
                    done = now + takes + place * answer
                    if preserve:
                        done = final = max(final, done)
                    finish[i] = done
                    status[i] = 1
                    execution[i] = k
                    i = follow[i]
                k += 1
                idle -= 1
                notified = True
            if not running:
                waiting = current - front + queued
                slot = waiting < 2 * instances if prefetches else idle > waiting
                if not notified or (needs_slot and not slot):
                    break
                running = True
                timer = NEVER
            # One turn of the batcher's loop.
            needs_slot = False
            c = current % ring
            if saturated or taken[c]:
                current += 1
                c = current % ring
                heads[c] = tails[c] = -1
                amount[c] = taken[c] = 0
                queued = saturated = next_preferred = 0
            if size_all == 0:
                slept = now
                break
            waiting = current - front + queued
            if not (waiting < 2 * instances if prefetches else idle > waiting):
                needs_slot = True
                break
            size = amount[c]
            walk(
                now, most, largest, size, sizes, first, last, follow, deadline, delays, counts, arrival,
                status, finish, out,
            )  # fmt: skip
            pending, best, closest = out[0], out[1], out[5]
            size_all -= out[6]
            saturated = saturated or out[3]
            age = now - out[4]
            exceeded = delay != 0 and age >= delay
            add, wait = pending, 0
            if best and not exceeded:
                saturated = 1 if delay == 0 else saturated
                add = best
            elif pending == 0:
                add = 0
            elif out[2] or size + pending >= largest:
                saturated = 1
            elif not exceeded and delay != 0:
                above = sizes[0]
                for s in sizes:
                    if s > size + pending:
                        above = s
                        break
                next_preferred = above - size
                fits = False
                for s in sizes:
                    fits = fits or s == size
                if not (size and not saturated and not fits):
                    wait = delay - age
                    if closest:
                        wait = min(closest - now, wait) if now <= closest else NS_PER_US
                    wait = wait // NS_PER_US
            if wait > 0:
                timer = now + wait * NS_PER_US
                break
            for _ in range(add):
                line = 0
                while first[line] < 0:
                    line += 1
                i = first[line]
                first[line] = follow[i]
                if first[line] < 0:
                    last[line] = -1
                follow[i] = -1
                counts[line // 2] -= 1
                size_all -= 1
                if amount[c] == 0:
                    heads[c] = i
                    eldest[c] = arrival[i]
                else:
                    follow[tails[c]] = i
                    eldest[c] = min(eldest[c], arrival[i])
                tails[c] = i
                amount[c] += 1
            if add:
                queued = 1
    return k
