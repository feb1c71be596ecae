"""Kernels of greedy and static batching."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.serving.fast.machine import CAME, FREED, NEVER, lowest_idle, next_event, start


@njit(cache=True)
def run(  # type: ignore[no-untyped-def]
    arrival,
    least,
    most,
    instances,
    service,
    held,
    gap,
    factors,
    wake,
    answer,
    finish,
    status,
    execution,
    runs,
):
    """Batches of `least` to `most`: greedy with 1, static with `most`; the rest at the end runs as it is."""
    free_at = np.full(instances, NEVER, np.int64)
    number = np.zeros(instances, np.int64)
    freed = np.full(instances, -1, np.int64)
    n, coming, head, k, idle = len(arrival), 0, 0, 0, instances
    while True:
        what, now = next_event(free_at, number, freed, idle, NEVER, arrival, coming)
        if what == FREED:
            idle += 1
        elif what == CAME:
            coming += 1
        else:
            break
        while idle and coming > head and (coming - head >= least or coming == n):
            size = min(coming - head, most)
            chosen = lowest_idle(free_at)
            takes = start(
                now, chosen, k, size, size, service, held, gap, factors, wake,
                free_at, number, freed, runs,
            )  # fmt: skip
            for place in range(size):
                finish[head + place] = now + takes + place * answer
                status[head + place] = 1
                execution[head + place] = k
            head += size
            k += 1
            idle -= 1
    return k
