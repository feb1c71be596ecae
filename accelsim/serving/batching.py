"""The simple ways of batching: none, greedy, static."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.station import Request, Station


def check_sizes(max_batch: int, instances: int) -> None:
    """Refuse a maximum batch or a number of instances below one."""
    if max_batch < 1:
        raise RequestError(f"the maximum batch must be at least 1, got {max_batch}")
    if instances < 1:
        raise RequestError(f"there must be at least one instance, got {instances}")


@dataclass(frozen=True)
class Greedy:
    """An idle instance takes what waits, up to the maximum batch.

    Parameters
    ----------
    max_batch : int
    instances : int
    """

    max_batch: int = 8
    instances: int = 1

    def __post_init__(self) -> None:
        check_sizes(self.max_batch, self.instances)

    def scheduler(self, station: Station) -> GreedyScheduler:
        return GreedyScheduler(station, self.max_batch)


@dataclass(frozen=True)
class NoBatching(Greedy):
    """One request at a time on each instance, first come first served.

    Parameters
    ----------
    max_batch : int
        1.
    instances : int
    """

    max_batch: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_batch != 1:
            raise RequestError(f"without batching the maximum batch is 1, got {self.max_batch}")


class GreedyScheduler:
    """Takes ``min(waiting, max_batch)`` whenever an instance is idle."""

    def __init__(self, station: Station, max_batch: int) -> None:
        self.station = station
        self.max_batch = max_batch
        self.queue: deque[Request] = deque()

    def arrive(self, request: Request) -> None:
        self.queue.append(request)
        if self.station.idle:
            self._take()

    def free(self, instance: int) -> None:
        if self.queue:
            self._take()

    def _take(self) -> None:
        size = min(len(self.queue), self.max_batch)
        self.station.execute([self.queue.popleft() for _ in range(size)])

    def close(self) -> None:
        """Nothing is held back."""


@dataclass(frozen=True)
class StaticBatch:
    """Only full batches run; what is left when arrivals end runs as it is.

    Parameters
    ----------
    batch : int
    instances : int
    """

    batch: int
    instances: int = 1

    def __post_init__(self) -> None:
        check_sizes(self.batch, self.instances)

    @property
    def max_batch(self) -> int:
        return self.batch

    def scheduler(self, station: Station) -> StaticScheduler:
        return StaticScheduler(station, self.batch)


class StaticScheduler:
    """Waits until a whole batch is there."""

    def __init__(self, station: Station, batch: int) -> None:
        self.station = station
        self.batch = batch
        self.queue: deque[Request] = deque()
        self.closed = False

    def arrive(self, request: Request) -> None:
        self.queue.append(request)
        self._dispatch()

    def free(self, instance: int) -> None:
        self._dispatch()

    def close(self) -> None:
        self.closed = True
        self._dispatch()

    def _dispatch(self) -> None:
        while self.station.idle and self.queue and (len(self.queue) >= self.batch or self.closed):
            size = min(len(self.queue), self.batch)
            self.station.execute([self.queue.popleft() for _ in range(size)])
