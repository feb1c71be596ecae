"""Triton's sequence batcher: requests of one sequence stay together and in order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from accelsim.core.errors import ConfigError, RequestError
from accelsim.serving.batching import check_sizes
from accelsim.serving.station import ANSWER, Moment, Request, Scheduler, Station
from accelsim.serving.triton import Triton, TritonScheduler

STRATEGIES = ("direct", "oldest")


@dataclass(frozen=True)
class TritonSequence:
    """Triton with ``sequence_batching``.

    ``direct`` gives each sequence a slot of one instance until its last request is done, and runs at most one
    request of each slot at a time. ``oldest`` feeds a dynamic batcher with at most one request of each
    sequence, the oldest sequences first. The last request of a sequence is the last with its number.

    Parameters
    ----------
    max_batch : int
        ``max_batch_size``: slots of an instance.
    strategy : {"direct", "oldest"}
    max_queue_delay_us : int
        Wait for more slots (direct) or requests (oldest).
    minimum_slot_utilization : float
        Direct: share of the slots that need not wait.
    max_candidate_sequences : int
        Oldest: sequences that are looked at; others wait until one ends.
    preferred : sequence of int
        Oldest: ``preferred_batch_size``.
    instances : int
    """

    max_batch: int = 8
    strategy: str = "direct"
    max_queue_delay_us: int = 0
    minimum_slot_utilization: float = 0.0
    max_candidate_sequences: int = 0
    preferred: tuple[int, ...] = ()
    instances: int = 1

    def __post_init__(self) -> None:
        check_sizes(self.max_batch, self.instances)
        if self.strategy not in STRATEGIES:
            raise RequestError(f"unknown strategy '{self.strategy}'", hint="known: direct, oldest")
        if self.max_queue_delay_us < 0 or self.max_candidate_sequences < 0:
            raise RequestError("delays and numbers of sequences must not be negative")
        if not 0 <= self.minimum_slot_utilization <= 1:
            raise RequestError("minimum_slot_utilization must be between 0 and 1")

    @classmethod
    def from_config(cls, path: str) -> TritonSequence:
        """The policy of a model's ``config.pbtxt`` with ``sequence_batching``.

        Raises
        ------
        ConfigError
            A field that is not known, or that the server would refuse.
        """
        from accelsim.serving.triton_config import read

        policy = read(path).policy
        if not isinstance(policy, cls):
            raise ConfigError("this model has no sequence_batching", str(path), "use Triton.from_config")
        return policy

    def scheduler(self, station: Station) -> Scheduler:
        return DirectScheduler(station, self) if self.strategy == "direct" else OldestScheduler(station, self)


class DirectScheduler:
    """Sequences in slots of instances."""

    def __init__(self, station: Station, policy: TritonSequence) -> None:
        self.station = station
        self.policy = policy
        self.delay_ns = policy.max_queue_delay_us * 1000
        self.enough = policy.minimum_slot_utilization * policy.max_batch
        self.slots: list[dict[int, deque[Request]]] = [{} for _ in range(policy.instances)]
        self.place: dict[int, int] = {}
        self.backlog: dict[int, list[Request]] = {}
        self._timers: dict[int, Moment] = {}

    def arrive(self, request: Request) -> None:
        key = _key(request)
        if key not in self.place and (key in self.backlog or not self._admit(key)):
            self.backlog.setdefault(key, []).append(request)
            return
        instance = self.place[key]
        self.slots[instance][key].append(request)
        self._dispatch(instance)

    def free(self, instance: int) -> None:
        self._dispatch(instance)

    def close(self) -> None:
        """Nothing is held back for ever."""

    def _admit(self, key: int) -> bool:
        """Give a sequence a slot of the instance with most room."""
        instance = min(range(len(self.slots)), key=lambda i: len(self.slots[i]))
        if len(self.slots[instance]) >= self.policy.max_batch:
            return False
        self.slots[instance][key] = deque()
        self.place[key] = instance
        return True

    def _dispatch(self, instance: int) -> None:
        if instance not in self.station.idle:
            return
        ready = [queue for queue in self.slots[instance].values() if queue]
        if not ready:
            return
        due = min(queue[0].entered_ns for queue in ready) + self.delay_ns
        everyone = len(ready) == len(self.slots[instance])
        if self.station.now < due and not everyone and len(ready) < max(1.0, self.enough):
            if instance not in self._timers:
                self._timers[instance] = self.station.at(due, lambda: self._due(instance))
            return
        if instance in self._timers:
            self._timers.pop(instance).cancel()
        batch = [queue.popleft() for queue in ready]
        self.station.execute(batch, instance=instance)
        for request in batch:
            if request.ends:
                self._leave(instance, _key(request), request.finish_ns)

    def _due(self, instance: int) -> None:
        del self._timers[instance]
        self._dispatch(instance)

    def _leave(self, instance: int, key: int, time_ns: int) -> None:
        """Free the slot when the last answer is out, for a sequence of the backlog."""

        def leave() -> None:
            del self.slots[instance][key], self.place[key]
            if self.backlog:
                waiting = next(iter(self.backlog))
                requests = self.backlog.pop(waiting)
                self._admit(waiting)
                for request in requests:
                    self.arrive(request)

        self.station.at(time_ns, leave, ANSWER)


class OldestScheduler:
    """One request of each sequence at a time, in front of a dynamic batcher."""

    def __init__(self, station: Station, policy: TritonSequence) -> None:
        self.station = station
        self.limit = policy.max_candidate_sequences
        self.active: dict[int, deque[Request]] = {}
        self.busy: set[int] = set()
        self.backlog: dict[int, list[Request]] = {}
        inner = Triton(policy.max_batch, policy.max_queue_delay_us, policy.preferred, policy.instances)
        self.batcher = TritonScheduler(station, inner)
        station.started = self._started

    def arrive(self, request: Request) -> None:
        key = _key(request)
        if key not in self.active:
            if self.limit and len(self.active) >= self.limit:
                self.backlog.setdefault(key, []).append(request)
                return
            self.active[key] = deque()
        self.active[key].append(request)
        self._feed(key)

    def free(self, instance: int) -> None:
        self.batcher.free(instance)

    def close(self) -> None:
        """Nothing is held back for ever."""

    def _feed(self, key: int) -> None:
        if key not in self.busy and self.active[key]:
            self.busy.add(key)
            self.batcher.arrive(self.active[key].popleft())

    def _started(self, batch: list[Request]) -> None:
        for request in batch:
            self.station.at(request.finish_ns, lambda r=request: self._done(r), ANSWER)  # type: ignore[misc]

    def _done(self, request: Request) -> None:
        key = _key(request)
        self.busy.discard(key)
        if request.ends:
            del self.active[key]
            if self.backlog:
                waiting = next(iter(self.backlog))
                self.active[waiting] = deque(self.backlog.pop(waiting))
                self._feed(waiting)
        else:
            self._feed(key)


def _key(request: Request) -> int:
    """The sequence of a request; one without a sequence is a sequence of its own."""
    return request.sequence if request.sequence >= 0 else -2 - request.index
