"""The readable engine: a worker on a simpy clock, fed by arrivals or by users who wait for answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.serving.llm.policy import Host, Rules
from accelsim.serving.llm.prefix import Prefixes
from accelsim.serving.llm.scheduler import Sequence, State, Step
from accelsim.serving.llm.worker import Pace, Tables, Worker
from accelsim.serving.station import ARRIVAL, Moment, environment

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """What an engine hands back, by request and in total.

    Attributes
    ----------
    arrival_ns, first_ns, finish_ns : array of int64
    steps, busy_ns, preemptions, tokens : int
        `tokens` are those that users got.
    kv_peak : int
        Most blocks in use at once.
    kv_ns : float
        Blocks in use, summed over time.
    energy_j : float
        Dynamic energy of one device.
    gaps : array of int64
        Gaps between tokens of a sequence by bins of 2 %.
    hits : array of int64
        Tokens of each prompt that the prefix cache held when the request was admitted.
    engine : str
    """

    arrival_ns: Ints
    first_ns: Ints
    finish_ns: Ints
    steps: int
    busy_ns: int
    preemptions: int
    tokens: int
    kv_peak: int
    kv_ns: float
    energy_j: float
    gaps: Ints
    hits: Ints
    engine: str


class Feed:
    """Requests on their way to an engine.

    Parameters
    ----------
    arrival_ns, prompt, output, prefixes, users, think_ns
        As in `run`.
    enter : callable
        Called with each sequence when it arrives.
    """

    def __init__(
        self,
        arrival_ns: Ints,
        prompt: Ints,
        output: Ints,
        prefixes: Prefixes | None,
        users: int,
        think_ns: Ints | None,
        enter: Callable[[Sequence], object],
    ) -> None:
        self.env = environment()
        self.arrival_ns = arrival_ns.copy()
        self.sequences: list[Sequence] = []
        self._prompt, self._output, self._prefixes = prompt, output, prefixes
        self._users, self._think_ns, self._enter = users, think_ns, enter
        self._known = min(users, len(prompt)) if users else len(prompt)
        self._coming = iter(sorted(arrival_ns[: self._known].tolist()))
        self._follow()

    def _follow(self) -> None:
        time = next(self._coming, None)
        if time is not None:
            Moment(self.env, time - self.env.now, ARRIVAL, self._arrive_and_follow)

    def _arrive_and_follow(self) -> None:
        self._arrive()
        self._follow()

    def _arrive(self) -> None:
        number = len(self.sequences)
        self.arrival_ns[number] = self.env.now
        keys = () if self._prefixes is None else self._prefixes.of(number)
        s = Sequence(number, int(self._prompt[number]), int(self._output[number]), keys)
        self.sequences.append(s)
        self._enter(s)

    def answered(self) -> None:
        """A user of a closed loop has the answer, and will ask again."""
        if self._users and self._known < len(self._prompt):
            think = 0 if self._think_ns is None else int(self._think_ns[self._known])
            self._known += 1
            Moment(self.env, think, ARRIVAL, self._arrive)

    def column(self, name: str) -> Ints:
        """A field of all sequences."""
        return np.array([getattr(s, name) for s in self.sequences], dtype=np.int64)


def run(
    arrival_ns: Ints,
    prompt: Ints,
    output: Ints,
    rules: Rules,
    host: Host,
    tables_s: Tables,
    tables_j: Tables | None = None,
    *,
    users: int = 0,
    think_ns: Ints | None = None,
    prefixes: Prefixes | None = None,
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
    prefixes : Prefixes, optional
        What prompts share.
    watch : callable, optional
        Called with time, state and step before each step.
    """
    shared = prefixes if rules.grain else None
    feed = Feed(arrival_ns, prompt, output, shared, users, think_ns, lambda s: worker.enter(s))
    pace = Pace(rules, host, tables_s, tables_j)
    worker = Worker(feed.env, pace, lambda s: feed.answered(), watch)
    feed.env.run()
    return Run(
        feed.arrival_ns,
        feed.column("first_ns"),
        feed.column("finish_ns"),
        worker.steps,
        worker.busy_ns,
        worker.preemptions,
        worker.tokens,
        worker.kv_peak,
        worker.kv_ns,
        worker.energy_j,
        worker.gaps,
        np.maximum(feed.column("hits"), 0),
        "simpy",
    )
