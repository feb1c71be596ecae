"""NVIDIA Triton's dynamic batcher, as its scheduler, rate limiter and instance queue work together.

One batcher thread per model moves requests from the queue into a *payload*; payloads wait in the instance
queue until an instance takes them. A waiting payload may grow. Three published habits decide latency when a
queue delay is set and the instance is busy:

* an arrival wakes the batcher only if as many requests are queued as the next preferred size lacks, so a
  waiting payload stops growing after its first addition;
* an instance that takes a payload wakes the batcher, which starts a new one;
* when a payload is taken while another waits behind it whose oldest request is older than the queue delay,
  the two are merged if they fit in the maximum batch; **if they do not, the one behind is nevertheless marked
  as executing**, so that the batcher leaves it as it is and starts a third. Two payloads then wait at all
  times, and each request waits one execution longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from accelsim.core.errors import ConfigError, RequestError
from accelsim.serving.batching import GreedyScheduler, check_sizes
from accelsim.serving.limiter import RateLimit
from accelsim.serving.priority import PriorityQueue, QueuePolicy
from accelsim.serving.station import TIMED_OUT, Moment, Request, Scheduler, Station

IDLE_WAIT_NS = 500_000_000
"""The batcher looks at the queue this often when nothing wakes it."""

NS_PER_US = 1000


@dataclass(frozen=True)
class Triton:
    """Triton Inference Server, one model.

    Parameters
    ----------
    max_batch : int
        ``max_batch_size``.
    max_queue_delay_us : int
        ``max_queue_delay_microseconds``.
    preferred : sequence of int
        ``preferred_batch_size``; the maximum batch by default.
    instances : int
        ``instance_group`` count.
    dynamic : bool
        Whether there is a ``dynamic_batching`` section; without, requests run one at a time.
    preserve_ordering : bool
        Answers leave in the order of arrival.
    priority_levels, default_priority : int
        ``priority_levels`` (0: none) and ``default_priority_level``.
    queue_policy : QueuePolicy
        ``default_queue_policy``.
    level_policies : mapping of int to QueuePolicy
        ``priority_queue_policy``, by level.
    rate_limit : RateLimit, optional
        ``rate_limiter`` of the instance group.
    """

    max_batch: int = 8
    max_queue_delay_us: int = 0
    preferred: tuple[int, ...] = ()
    instances: int = 1
    dynamic: bool = True
    preserve_ordering: bool = False
    priority_levels: int = 0
    default_priority: int = 0
    queue_policy: QueuePolicy = field(default_factory=QueuePolicy)
    level_policies: Mapping[int, QueuePolicy] = field(default_factory=dict)
    rate_limit: RateLimit | None = None

    def __post_init__(self) -> None:
        check_sizes(self.max_batch, self.instances)
        object.__setattr__(self, "preferred", tuple(sorted(set(self.preferred))))
        if self.max_queue_delay_us < 0:
            raise RequestError(f"the queue delay must not be negative, got {self.max_queue_delay_us} us")
        for size in self.preferred:
            if not 1 <= size <= self.max_batch:
                raise RequestError(
                    f"preferred batch size {size} is not between 1 and the maximum batch {self.max_batch}",
                    hint="Triton refuses to load such a model",
                )
        levels = self.priority_levels
        if levels < 0 or (levels and not 1 <= self.default_priority <= levels):
            raise RequestError(
                f"default priority level {self.default_priority} is not between 1 and {levels}",
                hint="Triton needs default_priority_level when priority_levels is set",
            )
        for level in self.level_policies:
            if not 1 <= level <= levels:
                raise RequestError(f"queue policy of level {level}, but there are {levels} priority levels")

    @classmethod
    def from_config(cls, path: str) -> Triton:
        """The policy of a model's ``config.pbtxt``.

        Raises
        ------
        ConfigError
            A field that is not known, or that the server would refuse.
        """
        from accelsim.serving.triton_config import read

        policy = read(path).policy
        if not isinstance(policy, cls):
            raise ConfigError("this model has sequence_batching", str(path), "use TritonSequence.from_config")
        return policy

    @property
    def sizes(self) -> tuple[int, ...]:
        """Preferred sizes in force."""
        return self.preferred or (self.max_batch,)

    @property
    def policies(self) -> tuple[QueuePolicy, ...]:
        """Queue policy of each level, the highest first."""
        return tuple(
            self.level_policies.get(level, self.queue_policy)
            for level in range(1, max(1, self.priority_levels) + 1)
        )

    @property
    def prefetches(self) -> bool:
        """Whether batches are formed before an instance is idle: only with plain queues."""
        return self.priority_levels == 0 and not any(p.restricts for p in self.policies)

    def scheduler(self, station: Station) -> Scheduler:
        station.preserve_ordering = self.preserve_ordering and self.dynamic
        return TritonScheduler(station, self) if self.dynamic else GreedyScheduler(station, 1)


@dataclass(slots=True, eq=False)
class Payload:
    """A batch under construction or waiting for an instance.

    Attributes
    ----------
    requests : list of Request
    saturated : bool
        It will not grow any more.
    taken : bool
        An instance has it, or it counts as if one had.
    queued : bool
        It is in the instance queue.
    """

    requests: list[Request] = field(default_factory=list)
    saturated: bool = False
    taken: bool = False
    queued: bool = False


class TritonScheduler:
    """The batcher thread and the instance queue of one model."""

    def __init__(self, station: Station, policy: Triton) -> None:
        self.station = station
        self.policy = policy
        self.queue = PriorityQueue(policy.policies, policy.default_priority)
        self.waiting: deque[Payload] = deque()
        self.current = Payload()
        self.delay_ns = policy.max_queue_delay_us * NS_PER_US
        self.sizes = policy.sizes
        self.next_preferred = 0
        self.slots = 2 * policy.instances
        self.prefetches = policy.prefetches
        self._running = False
        self._needs_slot = False
        self._slept_ns = 0
        self._timer: Moment | None = None

    # -- what happens from outside

    def arrive(self, request: Request) -> None:
        if not self.queue.push(request, self.station.now):
            self.station.refuse(request)
            return
        current = self.current
        if self._slot() and (current.saturated or current.taken or len(self.queue) >= self.next_preferred):
            self._notify()
        elif self._timer is None and not self._needs_slot:
            # Nobody woke the batcher, which sleeps half a second at a time while the queue is empty.
            turns = (self.station.now - self._slept_ns) // IDLE_WAIT_NS + 1
            self._sleep_until(self._slept_ns + turns * IDLE_WAIT_NS)

    def free(self, instance: int) -> None:
        if self.waiting:
            self._take()
        else:
            self._notify()

    def close(self) -> None:
        """Nothing is held back for ever."""

    # -- the batcher thread

    def _slot(self) -> bool:
        if self.prefetches:
            return len(self.waiting) < self.slots
        return len(self.station.idle) > len(self.waiting)

    def _notify(self) -> None:
        if not self._running and (not self._needs_slot or self._slot()):
            self._run()

    def _wake(self) -> None:
        self._timer = None
        self._run()

    def _sleep_until(self, time_ns: int) -> None:
        self._timer = self.station.at(time_ns, self._wake)

    def _run(self) -> None:
        self._running = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._step():
            pass
        self._running = False

    def _step(self) -> bool:
        """One turn of the batcher's loop; False when it goes to sleep."""
        self._needs_slot = False
        if self.current.saturated or self.current.taken:
            self.current, self.next_preferred = Payload(), 0
        if not len(self.queue):
            self._slept_ns = self.station.now
            return False
        if not self._slot():
            self._needs_slot = True
            return False
        take, wait_us = self._dynamic_batch()
        for request in self.queue.drop_expired():
            self.station.refuse(request, TIMED_OUT)
        if wait_us > 0:
            self._sleep_until(self.station.now + wait_us * NS_PER_US)
            return False
        if take:
            payload = self.current
            payload.requests += [self.queue.pop() for _ in range(take)]
            if not payload.queued:
                payload.queued = True
                self.waiting.append(payload)
                if self.station.idle:
                    self._take()
        return True

    def _dynamic_batch(self) -> tuple[int, int]:
        """How many queued requests to add to the payload now, or how long to wait [us]."""
        now, payload, largest = self.station.now, self.current, self.sizes[-1]
        size, pending, best, full = len(payload.requests), 0, 0, False
        oldest = closest = 0
        walk = self.queue.walk(now)
        for request in walk:
            if size + pending:
                if size + pending + 1 > largest and best == 0:
                    best, payload.saturated = pending, True
                if size + pending + 1 > self.policy.max_batch:
                    full = True
                    break
            pending += 1
            oldest = request.entered_ns if pending == 1 else min(oldest, request.entered_ns)
            deadline = self.queue.deadline_ns(request)
            closest = min(closest or deadline, deadline) if deadline else closest
            if size + pending in self.sizes:
                best = pending
        age = now - oldest
        exceeded = self.delay_ns != 0 and age >= self.delay_ns
        if best and not exceeded:
            payload.saturated = payload.saturated or self.delay_ns == 0
            return best, 0
        if pending == 0:
            return 0, 0
        if full or size + pending >= largest:
            payload.saturated = True
            return pending, 0
        if exceeded or self.delay_ns == 0:
            return pending, 0
        above = next((s for s in self.sizes if s > size + pending), self.sizes[0])
        self.next_preferred = above - size
        if size and not payload.saturated and size not in self.sizes:
            return pending, 0
        wait = self.delay_ns - age
        if closest:
            wait = min(closest - now, wait) if now <= closest else NS_PER_US
        us = wait // NS_PER_US
        return (pending, 0) if us == 0 else (0, us)

    # -- the instance queue

    def _take(self) -> None:
        """An idle instance takes the payload in front, and what may be merged with it."""
        taken = self.waiting.popleft()
        taken.taken = True
        if self.delay_ns and self.policy.max_batch > 1:
            while self.waiting:
                behind = self.waiting[0]
                if self.station.now - min(r.entered_ns for r in behind.requests) <= self.delay_ns:
                    break
                behind.taken = True
                if len(taken.requests) + len(behind.requests) > self.policy.max_batch:
                    break
                taken.requests += behind.requests
                self.waiting.popleft()
        self.station.execute(taken.requests)
        self._notify()
