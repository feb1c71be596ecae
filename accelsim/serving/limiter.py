"""Triton's rate limiter: instances run only while the resources that they name are free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accelsim.core.errors import RequestError

if TYPE_CHECKING:
    from accelsim.serving.station import Station


@dataclass(frozen=True)
class RateLimit:
    """``rate_limiter`` of an instance group.

    Parameters
    ----------
    resources : mapping of str to int
        What an instance holds while it runs.
    priority : int
        Models with priority 2 get half the chances of those with priority 1.
    """

    resources: Mapping[str, int] = field(default_factory=dict)
    priority: int = 1

    def __post_init__(self) -> None:
        if self.priority < 1:
            raise RequestError(f"the priority of a rate limit must be at least 1, got {self.priority}")
        for name, count in self.resources.items():
            if count < 1:
                raise RequestError(f"an instance needs at least 1 of resource '{name}', got {count}")


class RateLimiter:
    """The resources of one server.

    Parameters
    ----------
    totals : mapping of str to int
        What there is (``--rate-limit-resource``). Of a resource that is left out there is as much as the
        instance that needs most of it asks for, as in Triton.
    """

    def __init__(self, totals: Mapping[str, int] | None = None) -> None:
        self.totals = dict(totals or {})
        self.left: dict[str, int] = dict(self.totals)
        self.stations: list[Station] = []

    def join(self, station: Station, limit: RateLimit) -> None:
        """A station whose instances need resources.

        Raises
        ------
        RequestError
            There will never be enough for one of its instances.
        """
        for name, count in limit.resources.items():
            total = self.totals.get(name)
            if total is not None and count > total:
                raise RequestError(f"an instance needs {count} of resource '{name}', there are {total}")
            if total is None:
                self.left[name] = max(self.left.get(name, 0), count)
        self.stations.append(station)
        station.limiter, station.limit = self, limit

    def has_room(self, limit: RateLimit) -> bool:
        """Whether one more instance may run."""
        return all(self.left[name] >= count for name, count in limit.resources.items())

    def take(self, station: Station) -> None:
        """An instance starts."""
        for name, count in station.limit.resources.items():
            self.left[name] -= count

    def give_back(self, station: Station) -> None:
        """An instance is done: others may start."""
        for name, count in station.limit.resources.items():
            self.left[name] += count
        for other in self._order():
            for instance in tuple(other.idle):
                if instance in other.idle:
                    other.scheduler.free(instance)

    def _order(self) -> list[Station]:
        """The model with fewest runs for its priority goes first."""
        return sorted(self.stations, key=lambda s: len(s.executions) * s.limit.priority)


class SharedThreads(RateLimiter):
    """Threads that several models share, offered to their queues in turn.

    Parameters
    ----------
    threads : int
    """

    def __init__(self, threads: int) -> None:
        super().__init__({"threads": threads})
        self._last: Station | None = None

    def take(self, station: Station) -> None:
        super().take(station)
        self._last = station

    def _order(self) -> list[Station]:
        """Round robin: the queue after the one that was served last goes first."""
        turn = self.stations.index(self._last) + 1 if self._last is not None else 0
        return self.stations[turn:] + self.stations[:turn]
