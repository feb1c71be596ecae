"""Triton's priority queue: levels, each with a queue policy and a queue of delayed requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.station import Request

ACTIONS = ("REJECT", "DELAY")


@dataclass(frozen=True)
class QueuePolicy:
    """``ModelQueuePolicy`` of a Triton model.

    Parameters
    ----------
    timeout_action : {"REJECT", "DELAY"}
        What happens to a request that has waited too long: an error, or a place behind all others.
    default_timeout_us : int
        0 is none.
    allow_timeout_override : bool
        A request may ask for a shorter timeout.
    max_queue_size : int
        Further requests are refused; 0 is no limit.
    """

    timeout_action: str = "REJECT"
    default_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_size: int = 0

    def __post_init__(self) -> None:
        if self.timeout_action not in ACTIONS:
            raise RequestError(f"unknown timeout action '{self.timeout_action}'", hint="known: REJECT, DELAY")
        if self.default_timeout_us < 0 or self.max_queue_size < 0:
            raise RequestError("timeouts and queue sizes must not be negative")

    @property
    def restricts(self) -> bool:
        """Whether it keeps the server from forming batches ahead of time."""
        return bool(self.default_timeout_us or self.allow_timeout_override or self.max_queue_size)

    def deadline_ns(self, now: int, asked_ns: int) -> int:
        """When a request that enters now times out [ns]; 0 is never."""
        timeout = self.default_timeout_us * 1000
        if self.allow_timeout_override and 0 < asked_ns < timeout:
            timeout = asked_ns
        return now + timeout if timeout else 0


class PriorityQueue:
    """Requests by level; within a level first in, first out, delayed ones last."""

    def __init__(self, policies: Sequence[QueuePolicy], default: int) -> None:
        self.policies = policies
        self.default = max(default, 1)
        self.levels: list[deque[Request]] = [deque() for _ in policies]
        self.delayed: list[deque[Request]] = [deque() for _ in policies]
        self._deadline: dict[int, int] = {}
        self._expired: list[Request] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, request: Request, now: int) -> bool:
        """Add a request; False when its level is full."""
        asked = request.priority if 0 < request.priority <= len(self.levels) else self.default
        level = asked - 1
        policy = self.policies[level]
        size = len(self.levels[level]) + len(self.delayed[level])
        if policy.max_queue_size and size >= policy.max_queue_size:
            return False
        self.levels[level].append(request)
        deadline = policy.deadline_ns(now, request.timeout_ns)
        if deadline:
            self._deadline[request.index] = deadline
        self._size += 1
        return True

    def deadline_ns(self, request: Request) -> int:
        """When a waiting request times out [ns]; 0 is never."""
        return self._deadline.get(request.index, 0)

    def pop(self) -> Request:
        """The request whose turn it is."""
        for main, late in zip(self.levels, self.delayed):
            for queue in (main, late):
                if queue:
                    request = queue.popleft()
                    self._deadline.pop(request.index, None)
                    self._size -= 1
                    return request
        raise IndexError("pop from an empty queue")

    def walk(self, now: int) -> Iterator[Request]:
        """Requests in order; timeouts are noticed when the walk comes by, not before."""
        for level, policy in enumerate(self.policies):
            main, late = self.levels[level], self.delayed[level]
            place = 0
            while place < len(main):
                request = main[place]
                if 0 < self._deadline.get(request.index, 0) < now:
                    del main[place]
                    del self._deadline[request.index]
                    if policy.timeout_action == "DELAY":
                        late.append(request)
                    else:
                        self._expired.append(request)
                        self._size -= 1
                    continue
                yield request
                place += 1
            yield from tuple(late)

    def drop_expired(self) -> list[Request]:
        """Requests that timed out since the last call."""
        gone, self._expired = self._expired, []
        return gone
