"""Kernel of TensorFlow Serving's batch scheduler."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.serving.fast.machine import NEVER, lowest_idle, next_free, start


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
    n, coming, head, tail, k, idle = len(arrival), 0, 0, 0, 0, instances
    timer = NEVER
    while True:
        busy = next_free(free_at, number) if idle < instances else -1
        then = arrival[coming] if coming < n else NEVER
        if busy >= 0 and free_at[busy] <= timer and free_at[busy] <= then:
            now = free_at[busy]
            free_at[busy] = NEVER
            freed[busy] = now
            idle += 1
        elif timer != NEVER and timer <= then:
            now, timer = timer, NEVER
        elif coming < n:
            now = then
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
                now,
                chosen,
                k,
                size,
                pad[size],
                service,
                held,
                gap,
                factors,
                wake,
                free_at,
                number,
                freed,
                runs,
            )
            for place in range(size):
                i = order[head + place]
                finish[i] = now + takes + place * answer
                status[i] = 1
                execution[i] = k
            head += size
            k += 1
            idle -= 1
    return k
