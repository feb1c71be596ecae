"""Prefill and decode on devices of their own: a prompt is computed in one pool, its cache travels to another.

A request goes to the prefill worker with the least outstanding work, its cache crosses the link, and the
decode worker with the fewest sequences takes it; the client's first token comes from there.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError
from accelsim.serving.llm.engine import Book, Run, Tables, cost
from accelsim.serving.llm.policy import Host, Rules
from accelsim.serving.llm.scheduler import Sequence, State, Step, scheduler_of

_DONE, _ARRIVE, _ASK = range(3)  # order of events at one time


@dataclass(frozen=True)
class Pool:
    """Equal workers.

    Attributes
    ----------
    workers : int
    rules : Rules
    host : Host
    tables_s : tuple of arrays
        Of their `Surface`.
    """

    workers: int
    rules: Rules
    host: Host
    tables_s: Tables

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise RequestError(f"a pool needs at least one worker, got {self.workers}")


@dataclass(frozen=True)
class Transfer:
    """How a cache travels.

    Attributes
    ----------
    latency_s : float
        Before the first byte [s].
    token_s : float
        Per token [s].
    """

    latency_s: float
    token_s: float

    def taken_ns(self, tokens: int) -> int:
        """Time for the cache of a prompt [ns]."""
        return int((self.latency_s + self.token_s * tokens) * 1e9 + 0.5)


class _Worker:
    """A worker of a pool: its queue, its running step."""

    def __init__(self, pool: Pool, book: Book) -> None:
        self.pool, self.book = pool, book
        self.state = State(pool.rules)
        self.scheduler = scheduler_of(pool.rules)
        self.step: Step | None = None
        self.tokens = 0
        self.steps = self.busy = self.peak = 0
        self.kv_ns = 0.0

    @property
    def load(self) -> int:
        """Tokens of prompts that wait or run."""
        return self.tokens

    @property
    def sequences(self) -> int:
        return len(self.state.waiting) + len(self.state.running)

    def begin(self, clock: int) -> int:
        """Start a step if there is one; when it ends [ns], or -1."""
        step = self.scheduler.plan(self.state)
        if not step.work:
            return -1
        self.step = step
        seconds, _ = cost(step, self.pool.rules, self.pool.host, self.pool.tables_s, None)
        taken = int(seconds * 1e9 + 0.5)
        used = self.pool.rules.blocks - self.state.free
        self.steps, self.busy = self.steps + 1, self.busy + taken
        self.kv_ns += float(used) * taken
        self.peak = max(self.peak, used)
        return clock + taken


def run(
    arrival_ns: npt.NDArray[np.int64],
    prompt: npt.NDArray[np.int64],
    output: npt.NDArray[np.int64],
    prefill: Pool,
    decode: Pool,
    transfer: Transfer,
    *,
    users: int = 0,
) -> Run:
    """Serve requests on two pools; parameters as `accelsim.serving.llm.engine.run`.

    Steps, busy time and cache of the result are those of the decode workers.
    """
    n = len(prompt)
    arrival = arrival_ns.copy()
    early, late = Book(n), Book(n)
    sources = [_Worker(prefill, early) for _ in range(prefill.workers)]
    sinks = [_Worker(decode, late) for _ in range(decode.workers)]
    asked = min(users, n) if users else n
    events: list[tuple[int, int, int, Any]] = [
        (int(t), _ASK, i, None) for i, t in enumerate(arrival_ns[:asked])
    ]
    heapq.heapify(events)
    order = n

    def wake(worker: _Worker, clock: int) -> None:
        nonlocal order
        if worker.step is None:
            end = worker.begin(clock)
            if end >= 0:
                order += 1
                heapq.heappush(events, (end, _DONE, order, worker))

    while events:
        clock, kind, number, worker = heapq.heappop(events)
        if kind == _ASK:
            arrival[number] = clock
            worker = min(sources, key=lambda w: w.load)
            worker.state.waiting.append(Sequence(number, int(prompt[number]), 1))
            worker.tokens += int(prompt[number])
        elif kind == _ARRIVE:
            worker = min(sinks, key=lambda w: w.sequences)
            size = int(prompt[number])
            s = Sequence(number, size, int(output[number]), done=size, emitted=1, last_ns=clock)
            worker.state.waiting.append(s)
            late.tokens += 1
            if decode.rules.stream <= 1 or s.output == 1:
                late.first[number] = clock
            if s.output == 1:
                late.finish[number] = clock
                worker.state.waiting.pop()
                asked = _ask(events, clock, users, asked, n)
        else:
            step, worker.step = worker.step, None
            ended = worker.book.settle(worker.state, step, clock)
            if worker.book is late:
                for _ in range(ended):
                    asked = _ask(events, clock, users, asked, n)
            else:
                for s, _ in step.work:
                    if s.emitted:
                        worker.tokens -= s.prompt
                        there = clock + transfer.taken_ns(s.prompt)
                        heapq.heappush(events, (there, _ARRIVE, s.number, None))
        wake(worker, clock)
    return Run(
        arrival,
        late.first,
        late.finish,
        sum(w.steps for w in sinks),
        sum(w.busy for w in sinks),
        sum(w.state.preemptions for w in sinks),
        late.tokens,
        max(w.peak for w in sinks),
        sum(w.kv_ns for w in sinks),
        float("nan"),
        late.gaps,
        "plain",
    )


def _ask(events: list[tuple[int, int, int, Any]], clock: int, users: int, asked: int, n: int) -> int:
    """The user whose answer is complete asks again."""
    if not users or asked >= n:
        return asked
    heapq.heappush(events, (clock, _ASK, asked, None))
    return asked + 1
