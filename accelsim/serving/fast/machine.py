"""Instances and their executions, as the kernels share them.

Every kernel keeps ``free_at`` (when each instance is free, `NEVER` while idle), ``number`` (its execution)
and ``freed`` (when it was last freed). At one instant freed instances come first, in the order of their
executions, then the timer, then arrivals, as in `accelsim.serving.station`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NEVER = np.int64(1) << 62

FREED, RANG, CAME, NOTHING = range(4)
"""What happens next: an instance is free, the timer rings, a request comes, nothing any more."""


@njit(cache=True)
def next_free(free_at, number):  # type: ignore[no-untyped-def]
    """The busy instance that is free first, -1 if all are idle."""
    best = -1
    for i in range(len(free_at)):
        if free_at[i] != NEVER and (
            best < 0
            or free_at[i] < free_at[best]
            or (free_at[i] == free_at[best] and number[i] < number[best])
        ):
            best = i
    return best


@njit(cache=True, inline="always")
def next_event(free_at, number, freed, idle, timer, arrival, coming):  # type: ignore[no-untyped-def]
    """What happens next and when; a freed instance is idle from here on."""
    busy = next_free(free_at, number) if idle < len(free_at) else -1
    then = arrival[coming] if coming < len(arrival) else NEVER
    if busy >= 0 and free_at[busy] <= timer and free_at[busy] <= then:
        freed[busy] = free_at[busy]
        free_at[busy] = NEVER
        return FREED, freed[busy]
    if timer != NEVER and timer <= then:
        return RANG, timer
    if coming < len(arrival):
        return CAME, then
    return NOTHING, NEVER


@njit(cache=True)
def answer_all(  # type: ignore[no-untyped-def]
    batch, first_ns, answer, k, finish, status, execution
):
    """The requests of execution `k` are answered, one after the other."""
    for place in range(len(batch)):
        i = batch[place]
        finish[i] = first_ns + place * answer
        status[i] = 1
        execution[i] = k


@njit(cache=True)
def lowest_idle(free_at):  # type: ignore[no-untyped-def]
    """The idle instance with the lowest number, -1 if none is."""
    for i in range(len(free_at)):
        if free_at[i] == NEVER:
            return i
    return -1


@njit(cache=True)
def start(  # type: ignore[no-untyped-def]
    now, chosen, k, size, padded, service, held, gap, factors, wake, free_at, number, freed, runs
):
    """Start execution `k` on an instance; returns its service time (`Times.of_execution`)."""
    takes, blocks = service[padded], held[padded]
    if len(factors):
        takes = np.int64(takes * factors[k] + 0.5)
        blocks = np.int64(blocks * factors[k] + 0.5)
    blocks += gap[padded]
    if freed[chosen] != now:
        takes += wake
        blocks += wake
    free_at[chosen] = now + blocks
    number[chosen] = k
    started, occupied, sizes, paid, where = runs
    started[k] = now
    occupied[k] = blocks
    sizes[k] = size
    paid[k] = padded
    where[k] = chosen
    return takes
