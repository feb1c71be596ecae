"""The readable engine: one loop, a scheduler per style, a pool of cache blocks.

A step takes what the surface says for its mix of tokens, plus the host. Times are whole nanoseconds.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.serving.llm.policy import Host, Rules
from accelsim.serving.llm.scheduler import Sequence, State, Step, scheduler_of
from accelsim.serving.llm.steptime import BINS, accepted, gap_bin, padded, with_host
from accelsim.serving.llm.surface import lookup

Tables = tuple[Any, Any, Any, Any]


@dataclass(frozen=True)
class Run:
    """What an engine hands back, by request and in total.

    Attributes
    ----------
    arrival_ns, first_ns, finish_ns : array of int64
    steps, busy_ns, preemptions, tokens : int
        `tokens` are those that users got.
    kv_peak : int
        Most blocks held at once.
    kv_ns : float
        Blocks held, summed over time.
    energy_j : float
        Dynamic energy of one device.
    gaps : array of int64
        Gaps between tokens of a sequence by bins of 2 %.
    engine : str
    """

    arrival_ns: npt.NDArray[np.int64]
    first_ns: npt.NDArray[np.int64]
    finish_ns: npt.NDArray[np.int64]
    steps: int
    busy_ns: int
    preemptions: int
    tokens: int
    kv_peak: int
    kv_ns: float
    energy_j: float
    gaps: npt.NDArray[np.int64]
    engine: str


class Book:
    """What happened to each request.

    Parameters
    ----------
    n : int
        Requests.
    """

    def __init__(self, n: int) -> None:
        self.first, self.finish = np.full(n, -1), np.full(n, -1)
        self.gaps = np.zeros(BINS, dtype=np.int64)
        self.tokens = 0

    def settle(self, state: State, step: Step, clock: int) -> int:
        """Hand out the tokens of a step that ended at `clock`; how many sequences ended with it."""
        rules, ended = state.rules, 0
        for s, tokens in step.work:
            if s.decoding:
                got = 1 + accepted(s.number, s.emitted, tokens - 1, rules.acceptance)
                got = min(got, s.output - s.emitted)
                s.done += got
            else:
                s.done += tokens
                got = 1 if s.remaining == 0 else 0
            if not got:
                continue
            if s.emitted:
                self.gaps[gap_bin(clock - s.last_ns)] += 1
                self.gaps[0] += got - 1
            s.last_ns = clock
            s.emitted += got
            self.tokens += got
            if self.first[s.number] < 0 and s.emitted >= min(rules.stream, s.output):
                self.first[s.number] = clock
            if s.emitted >= s.output:
                self.finish[s.number] = clock
                state.release(s)
                ended += 1
        if ended:
            state.running = [s for s in state.running if s.emitted < s.output]
        return ended


def run(
    arrival_ns: npt.NDArray[np.int64],
    prompt: npt.NDArray[np.int64],
    output: npt.NDArray[np.int64],
    rules: Rules,
    host: Host,
    tables_s: Tables,
    tables_j: Tables | None = None,
    *,
    users: int = 0,
    think_ns: npt.NDArray[np.int64] | None = None,
    watch: Callable[[int, State, Step], None] | None = None,
) -> Run:
    """Serve requests in order.

    Parameters
    ----------
    arrival_ns : array
        Arrival times, not decreasing; of a closed loop those of the first `users` requests count.
    prompt, output : array
        Tokens of each request.
    rules : Rules
    host : Host
    tables_s, tables_j : tuple of arrays
        Of a `Surface`; without the latter energy is not counted.
    users : int
        Above 0: a closed loop in which each answer brings the next request.
    think_ns : array, optional
        Time from an answer to the request that follows it, by request.
    watch : callable, optional
        Called with time, state and step before each step.
    """
    n = len(prompt)
    arrival, book = arrival_ns.copy(), Book(n)
    state = State(rules)
    scheduler = scheduler_of(rules)
    coming = sorted(arrival_ns[: min(users, n) if users else n].tolist())
    known, clock = len(coming), 0
    begun = steps = busy = peak = 0
    kv_ns = energy = 0.0
    position, unseen = 0, rules.poll
    while True:
        while unseen >= rules.poll and position < len(coming) and coming[position] <= clock:
            arrival[begun] = coming[position]
            state.waiting.append(Sequence(begun, int(prompt[begun]), int(output[begun])))
            begun += 1
            position += 1
        unseen = 0 if unseen >= rules.poll else unseen
        step = scheduler.plan(state)
        if not step.work:
            if position >= len(coming):
                break
            clock, unseen = max(clock, coming[position]), rules.poll
            continue
        unseen += 1 if all(s.decoding for s, _ in step.work) else rules.poll
        if watch is not None:
            watch(clock, state, step)
        seconds, joules = cost(step, rules, host, tables_s, tables_j)
        taken = int(seconds * 1e9 + 0.5)
        clock += taken
        busy += taken
        steps += 1
        energy += joules
        used = rules.blocks - state.free
        kv_ns += float(used) * taken
        peak = max(peak, used)
        for _ in range(book.settle(state, step, clock)):
            if users and known < n:
                think = 0 if think_ns is None else int(think_ns[known])
                bisect.insort(coming, clock + think, lo=position)
                known += 1
    totals = steps, busy, state.preemptions, book.tokens, peak, kv_ns, energy
    return Run(arrival, book.first, book.finish, *totals, book.gaps, "plain")


def cost(
    step: Step, rules: Rules, host: Host, tables_s: Tables, tables_j: Tables | None
) -> tuple[float, float]:
    """Time [s] and energy [J] of a step."""
    decoding = chunks = new = sampled = context = past = drafted = 0
    for s, tokens in step.work:
        if s.decoding:
            decoding += 1
            drafted += tokens
            context += s.done + 1
            sampled += tokens
        else:
            chunks += 1
            new += tokens
            past += s.done
            sampled += tokens == s.remaining
    total = drafted + new
    if rules.padded and chunks == 0:
        total = padded(total, len(tables_s[0]) - 1)
    mean = context / decoding if decoding else 0.0
    before = past / chunks if chunks else 0.0
    rows = min(sampled, len(tables_s[1]) - 1)

    def at(tables: Tables) -> float:
        return lookup(*tables, total, rows, decoding, mean, chunks, new, before)

    seconds = with_host(host, at(tables_s), decoding + chunks, chunks > 0)
    seconds += step.moved * rules.swap_s
    if drafted > decoding:
        seconds += rules.drafts * rules.draft_s
    return seconds, 0.0 if tables_j is None else at(tables_j)
