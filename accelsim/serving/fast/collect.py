"""Kernel of servers whose idle worker collects a batch: TorchServe and Ray Serve."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.serving.fast.machine import CAME, FREED, NEVER, RANG, answer_all, lowest_idle, next_event, start

NS_PER_MS = 1_000_000


@njit(cache=True)
def run(  # type: ignore[no-untyped-def]
    arrival, torch, most, wait, room, instances, service, held, gap, factors, wake, answer,
    finish, status, execution, runs,
):  # fmt: skip
    """TorchServe (`torch`: the wait counts in whole milliseconds, `room` jobs may queue) or Ray Serve."""
    free_at = np.full(instances, NEVER, np.int64)
    number = np.zeros(instances, np.int64)
    freed = np.full(instances, -1, np.int64)
    order = np.empty(len(arrival), np.int32)  # accepted requests; the batch is order[first:head]
    coming, first, head, tail, k, idle = 0, 0, 0, 0, 0, instances
    timer, left, begin = NEVER, 0, 0
    while True:
        what, now = next_event(free_at, number, freed, idle, timer, arrival, coming)
        gives_up = what == RANG
        if what == FREED:
            idle += 1
        elif what == RANG:
            timer = NEVER
        elif what == CAME:
            i = coming
            coming += 1
            if tail - head >= room:
                status[i] = 2
                finish[i] = now
                continue
            order[tail] = i
            tail += 1
        else:
            break
        while idle and (gives_up or tail > first):
            send = gives_up
            if not send:
                fresh = head == first
                if torch:
                    while True:
                        if head == first:
                            head += 1
                            left, begin = wait // NS_PER_MS, now // NS_PER_MS
                        elif head < tail:
                            head += 1
                            left -= now // NS_PER_MS - begin
                            begin = now // NS_PER_MS
                            if left <= 0:
                                send = True
                                break
                        if head - first == most:
                            send = True
                            break
                        if head == tail:
                            send = left <= 0
                            break
                    if not send:
                        timer = now + left * NS_PER_MS
                else:
                    if head == tail:
                        break
                    head = min(tail, first + most)
                    send = head - first == most or wait == 0
                    if not send and fresh:
                        timer = now + wait
            if not send:
                break
            gives_up, timer = False, NEVER
            size = head - first
            chosen = lowest_idle(free_at)
            takes = start(
                now, chosen, k, size, size, service, held, gap, factors, wake,
                free_at, number, freed, runs,
            )  # fmt: skip
            answer_all(order[first:head], now + takes, answer, k, finish, status, execution)
            first = head
            k += 1
            idle -= 1
    return k
