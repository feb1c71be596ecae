"""A model behind its scheduler on a simpy clock: the readable engine's building block.

A `Station` owns instances and a `Scheduler`; a policy (`Triton`, `TorchServe` ...) makes the scheduler.
Fleets put balancers in front of stations, ensembles chain them. The clock counts whole nanoseconds.
At one instant, answers come first, then freed instances, then timers, then arrivals; the numba twin
keeps the same order.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import simpy

from accelsim.core.errors import RequestError
from accelsim.serving.limiter import RateLimit, RateLimiter

ANSWER, FREE, TIMER, ARRIVAL = range(4)
"""Order of events at one instant."""

IN_FLIGHT, COMPLETED, REJECTED, TIMED_OUT = range(4)
"""Status of a request."""


@dataclass(slots=True)
class Request:
    """One request and what became of it.

    Attributes
    ----------
    index : int
        Place in the order of arrival.
    arrival_ns : int
        When it entered the server.
    priority, timeout_ns, sequence, model, prompt_tokens, output_tokens : int
        What it asks for; see `Requests`. A sequence of -1 is none.
    ends : bool
        It is the last of its sequence.
    status : int
        `IN_FLIGHT`, `COMPLETED`, `REJECTED` or `TIMED_OUT`.
    entered_ns : int
        When it entered the station that it is at.
    start_ns, finish_ns : int
        Start of its execution and its answer (or refusal); -1 before.
    execution : int
        Number of the station's execution that it was in; -1 if none.
    """

    index: int
    arrival_ns: int
    priority: int = 0
    timeout_ns: int = 0
    sequence: int = -1
    model: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    ends: bool = True
    status: int = IN_FLIGHT
    entered_ns: int = 0
    start_ns: int = -1
    finish_ns: int = -1
    execution: int = -1


class Scheduler(Protocol):
    """Decides which requests run together and when."""

    def arrive(self, request: Request) -> None:
        """A request enters."""
        ...

    def free(self, instance: int) -> None:
        """An instance has become idle (the station has put it among the idle)."""
        ...

    def close(self) -> None:
        """No further request will come."""
        ...


class Policy(Protocol):
    """A way of batching, as users name it."""

    @property
    def max_batch(self) -> int: ...

    @property
    def instances(self) -> int: ...

    def scheduler(self, station: Station) -> Scheduler:
        """The policy at work on a station."""
        ...


class Clockwork(Protocol):
    """How long executions take, as a station asks; `Times` is one."""

    @property
    def wake_ns(self) -> int: ...

    @property
    def answer_ns(self) -> int: ...

    def of_execution(self, index: int, batch: int) -> tuple[int, int]: ...


class Moment(simpy.Event):
    """Something that happens at a set time, in a set place among what happens at that time."""

    def __init__(self, env: simpy.Environment, delay_ns: int, order: int, call: Callable[[], object]) -> None:
        self.env = env
        self.callbacks = [self._happen]
        self._value = None
        self._ok = True
        self._call = call
        self._cancelled = False
        env.schedule(self, order, delay_ns)

    def _happen(self, _: simpy.Event) -> None:
        if not self._cancelled:
            self._call()

    def cancel(self) -> None:
        """Make nothing happen."""
        self._cancelled = True


@dataclass(slots=True)
class Execution:
    """One batch on one instance."""

    instance: int
    start_ns: int
    service_ns: int
    held_ns: int
    size: int
    padded: int


class Station:
    """One model's scheduler and instances.

    Parameters
    ----------
    env : simpy.Environment
        With an integer clock [ns].
    policy : Policy
    times : Times, or what stands for it
    answered : callable, optional
        Called with each request when its answer or refusal is out.
    """

    def __init__(
        self,
        env: simpy.Environment,
        policy: Policy,
        times: Clockwork,
        answered: Callable[[Request], object] | None = None,
    ) -> None:
        if policy.instances < 1:
            raise RequestError(f"a station needs at least one instance, got {policy.instances}")
        self.env = env
        self.times = times
        self.limiter: RateLimiter | None = None
        self.limit = RateLimit()
        self._idle = list(range(policy.instances))
        self.executions: list[Execution] = []
        self.preserve_ordering = False
        self.started: Callable[[list[Request]], object] | None = None
        self.closed = False
        self._freed_ns = [-1] * policy.instances
        self._last_ns = 0
        self._answered = answered
        self.scheduler = policy.scheduler(self)

    @property
    def now(self) -> int:
        """The clock [ns]."""
        return int(self.env.now)

    @property
    def idle(self) -> list[int]:
        """Instances that could start now, by number."""
        if self.limiter is not None and not self.limiter.has_room(self.limit):
            return []
        return self._idle

    def submit(self, request: Request) -> None:
        """A request enters the station now."""
        request.entered_ns = self.now
        self.scheduler.arrive(request)

    def close(self) -> None:
        """No further request will come."""
        self.closed = True
        self.scheduler.close()

    # -- what schedulers call

    def at(self, time_ns: int, call: Callable[[], object], order: int = TIMER) -> Moment:
        """Call something at a time."""
        return Moment(self.env, time_ns - self.now, order, call)

    def execute(self, batch: Sequence[Request], padded: int = 0, instance: int | None = None) -> None:
        """Run a batch on an idle instance (the lowest number by default), at the cost of `padded` items."""
        chosen = self._idle[0] if instance is None else instance
        self._idle.remove(chosen)
        if self.limiter is not None:
            self.limiter.take(self)
        number, size = len(self.executions), len(batch)
        service, held = self.times.of_execution(number, padded or size)
        now = self.now
        if self._freed_ns[chosen] != now:
            service, held = service + self.times.wake_ns, held + self.times.wake_ns
        self.executions.append(Execution(chosen, now, service, held, size, padded or size))
        for place, request in enumerate(batch):
            request.start_ns = now
            request.finish_ns = now + service + place * self.times.answer_ns
            request.execution = number
            request.status = COMPLETED
            if self.preserve_ordering:
                request.finish_ns = self._last_ns = max(self._last_ns, request.finish_ns)
            if self._answered is not None:
                self.at(request.finish_ns, partial(self._answered, request), ANSWER)
        self.at(now + held, lambda: self._free(chosen), FREE)
        if self.started is not None:
            self.started(list(batch))

    def refuse(self, request: Request, status: int = REJECTED) -> None:
        """Answer a request with an error, now."""
        request.status = status
        request.finish_ns = self.now
        if self._answered is not None:
            self._answered(request)

    def _free(self, instance: int) -> None:
        insort(self._idle, instance)
        self._freed_ns[instance] = self.now
        if self.limiter is not None:
            self.limiter.give_back(self)
        else:
            self.scheduler.free(instance)


def environment() -> simpy.Environment:
    """A simpy environment that counts whole nanoseconds."""
    return simpy.Environment(initial_time=0)


def requests_of(arrays: Any) -> list[Request]:
    """`Requests` one by one."""
    n = len(arrays)

    def column(values: Any, default: int) -> list[int]:
        return [default] * n if values is None else [int(v) for v in values]

    from accelsim.serving.requests import to_ns

    timeouts = None if arrays.timeout_s is None else to_ns(arrays.timeout_s)
    return [
        Request(i, *fields)
        for i, fields in enumerate(
            zip(
                column(arrays.arrival_ns, 0),
                column(arrays.priority, 0),
                column(timeouts, 0),
                column(arrays.sequence, -1),
                column(arrays.model, 0),
                column(arrays.prompt_tokens, 0),
                column(arrays.output_tokens, 0),
                _ends(arrays.sequence, n),
            )
        )
    ]


def _ends(sequence: Any, n: int) -> list[bool]:
    """Whether each request is the last of its sequence."""
    if sequence is None:
        return [True] * n
    last = {int(key): place for place, key in enumerate(sequence)}
    return [int(key) < 0 or last[int(key)] == place for place, key in enumerate(sequence)]
