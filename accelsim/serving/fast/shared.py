"""Kernel of TensorFlow Serving's batch scheduler."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.serving.fast.machine import CAME, FREED, NEVER, RANG, answer_all, lowest_idle, next_event, start


@njit(cache=True)
def run(  # type: ignore[no-untyped-def]
    arrival, most, timeout, room, pad, instances, service, held, gap, factors, wake, answer,
    finish, status, execution, runs,
):  # fmt: skip
    """Batches of `most`, the last open; `room` of them may wait; `pad` is the size that each size costs."""
    free_at = np.full(instances, NEVER, np.int64)
    number = np.zeros(instances, np.int64)
    freed = np.full(instances, -1, np.int64)
    order = np.empty(len(arrival), np.int32)  # accepted requests; waiting ones are order[head:tail]
    coming, head, tail, k, idle = 0, 0, 0, 0, instances
    timer = NEVER
    while True:
        what, now = next_event(free_at, number, freed, idle, timer, arrival, coming)
        if what == FREED:
            idle += 1
        elif what == RANG:
            timer = NEVER
        elif what == CAME:
            i = coming
            coming += 1
            # All batches but the open one are full, so their number follows from the number of tasks.
            if (tail - head) % most == 0 and (tail - head) // most >= room:
                status[i] = 2
                finish[i] = now
                continue
            order[tail] = i
            tail += 1
        else:
            break
        while idle and tail > head:
            due = arrival[order[head]] + timeout
            if tail - head < most and now < due:
                if timer == NEVER:
                    timer = due
                break
            timer = NEVER
            size = min(most, tail - head)
            chosen = lowest_idle(free_at)
            takes = start(
                now, chosen, k, size, pad[size], service, held, gap, factors, wake,
                free_at, number, freed, runs,
            )  # fmt: skip
            answer_all(order[head : head + size], now + takes, answer, k, finish, status, execution)
            head += size
            k += 1
            idle -= 1
    return k
