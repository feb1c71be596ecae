"""One engine on a simpy clock: sequences come in, steps follow each other while there is work.

A step takes what the surface says for its mix of tokens, plus the host. Times are whole nanoseconds. At one
instant steps end first, then requests arrive, then the next step is planned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from accelsim.serving.llm.policy import Host, Rules
from accelsim.serving.llm.scheduler import Sequence, State, Step, scheduler_of
from accelsim.serving.llm.steptime import BINS, accepted, gap_bin, padded, with_host
from accelsim.serving.llm.surface import lookup
from accelsim.serving.station import ARRIVAL, FREE, Moment

Tables = tuple[Any, Any, Any, Any]

PLAN = ARRIVAL + 1
"""Place of planning among what happens at one instant."""


@dataclass(frozen=True)
class Pace:
    """How fast an engine computes.

    Attributes
    ----------
    rules : Rules
    host : Host
    tables_s, tables_j : tuple of arrays
        Of a `Surface`; without the latter energy is not counted.
    """

    rules: Rules
    host: Host
    tables_s: Tables
    tables_j: Tables | None = None


class Worker:
    """An engine.

    Parameters
    ----------
    env : simpy.Environment
        With an integer clock [ns].
    pace : Pace
    ended : callable, optional
        Called with each sequence that has all its tokens.
    watch : callable, optional
        Called with time, state and step before each step.

    Attributes
    ----------
    unseen : list of Sequence
        Requests that the engine has not looked at.
    slow : float
        Steps that begin take so many times as long.
    steps, busy_ns, tokens, kv_peak : int
    kv_ns, energy_j : float
    gaps : array
        See `Run`.
    """

    def __init__(
        self,
        env: simpy.Environment,
        pace: Pace,
        ended: Callable[[Sequence], object] | None = None,
        watch: Callable[[int, State, Step], None] | None = None,
    ) -> None:
        self.env, self.pace = env, pace
        self.state = State(pace.rules)
        self.scheduler = scheduler_of(pace.rules)
        self.step: Step | None = None
        self.slow = 1.0
        self.steps = self.busy_ns = self.tokens = self.kv_peak = 0
        self.kv_ns = self.energy_j = 0.0
        self.gaps = np.zeros(BINS, dtype=np.int64)
        self._ended, self._watch = ended, watch
        self._planned = False
        self.unseen: list[Sequence] = []
        self._since = pace.rules.poll  # steps since the engine looked for new requests

    @property
    def sequences(self) -> int:
        """Sequences that wait or run."""
        return len(self.unseen) + len(self.state.waiting) + len(self.state.running)

    @property
    def preemptions(self) -> int:
        """Sequences that lost their cache."""
        return self.state.preemptions

    def enter(self, s: Sequence) -> None:
        """A sequence enters now."""
        self.unseen.append(s)
        self._wake()

    def _wake(self) -> None:
        if self.step is None and not self._planned:
            self._planned = True
            Moment(self.env, 0, PLAN, self._begin)

    def _begin(self) -> None:
        self._planned = False
        if self._since >= self.pace.rules.poll:
            self._look()
        step = self.scheduler.plan(self.state)
        if not step.work and self.unseen:
            self._look()
            step = self.scheduler.plan(self.state)
        if not step.work:
            self._since = self.pace.rules.poll
            return
        self._since += 1 if all(s.decoding for s, _ in step.work) else self.pace.rules.poll
        if self._watch is not None:
            self._watch(self.env.now, self.state, step)
        seconds, joules = cost(step, self.pace)
        taken = int(seconds * self.slow * 1e9 + 0.5)
        used = self.pace.rules.blocks - self.state.free
        self.kv_ns += float(used) * taken
        self.kv_peak = max(self.kv_peak, used)
        self.steps += 1
        self.busy_ns += taken
        self.energy_j += joules
        self.step = step
        self.begun(step, taken, joules)
        Moment(self.env, taken, FREE, self._end)

    def _look(self) -> None:
        """New requests join those that wait."""
        self.state.waiting.extend(self.unseen)
        self.unseen.clear()
        self._since = 0

    def begun(self, step: Step, taken_ns: int, joules: float) -> None:
        """A step begins: for those that keep a log of them."""

    def _end(self) -> None:
        """Hand out the tokens of the step."""
        step, self.step = self.step, None
        done = [s for s, tokens in step.work if self._settle(s, tokens)] if step is not None else []
        if done:
            self.state.running = [s for s in self.state.running if s.finish_ns < 0]
        if self._ended is not None:
            for s in done:
                self._ended(s)
        self._wake()

    def _settle(self, s: Sequence, tokens: int) -> bool:
        """Count what a sequence has computed; whether it has ended."""
        rules, clock = self.pace.rules, int(self.env.now)
        if s.decoding:
            got = 1 + accepted(s.number, s.emitted, tokens - 1, rules.acceptance)
            got = min(got, s.output - s.emitted)
            s.done += got
        else:
            s.done += tokens
            got = 1 if s.remaining == 0 else 0
        self.scheduler.settled(self.state, s)
        if not got:
            return False
        if s.emitted:
            self.gaps[gap_bin(clock - s.last_ns)] += 1
            self.gaps[0] += got - 1
        s.last_ns = clock
        s.emitted += got
        self.tokens += got
        if s.first_ns < 0 and s.emitted >= min(rules.stream, s.output):
            s.first_ns = clock
        if s.emitted < s.output:
            return False
        s.finish_ns = clock
        self.state.release(s)
        return True


def cost(step: Step, pace: Pace) -> tuple[float, float]:
    """Time [s] and energy [J] of a step."""
    rules, host = pace.rules, pace.host
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
        total = padded(total, len(pace.tables_s[0]) - 1)
    mean = context / decoding if decoding else 0.0
    before = past / chunks if chunks else 0.0
    rows = min(sampled, len(pace.tables_s[1]) - 1)

    def at(tables: Tables) -> float:
        return lookup(*tables, total, rows, decoding, mean, chunks, new, before)

    seconds = with_host(host, at(pace.tables_s), decoding + chunks, chunks > 0)
    seconds += step.moved * rules.swap_s
    if drafted > decoding:
        seconds += rules.drafts * rules.draft_s
    return seconds, 0.0 if pace.tables_j is None else at(pace.tables_j)
