"""Whether a request is let in: refused at the door instead of served too late."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from accelsim.core.errors import RequestError
from accelsim.serving.fleet.checks import positive


class Load(Protocol):
    """What admission knows of a pool."""

    @property
    def outstanding(self) -> int:
        """Requests let in and not yet answered."""
        ...

    @property
    def capacity_per_s(self) -> float:
        """Of the replicas that are ready [1/s]."""
        ...


Gate = Callable[[Load, int], bool]
"""Whether a request may enter a pool at a time [ns]."""


class Admission(Protocol):
    """A way of admitting, as users name it."""

    def gate(self) -> Gate:
        """The admission at work on one pool."""
        ...


@dataclass(frozen=True)
class QueueLimit:
    """At most so many requests in the pool, waiting or running.

    Parameters
    ----------
    most : int
    """

    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise RequestError(f"a pool must take at least one request, got {self.most}")

    def gate(self) -> Gate:
        return lambda load, now: load.outstanding < self.most


@dataclass(frozen=True)
class LatencyLimit:
    """While the expected wait, requests in the pool over capacity of its ready replicas, is within a limit.

    Parameters
    ----------
    wait_s : float
        [s]
    """

    wait_s: float

    def __post_init__(self) -> None:
        positive("the latency limit", self.wait_s)

    def gate(self) -> Gate:
        return lambda load, now: load.outstanding <= self.wait_s * load.capacity_per_s


@dataclass(frozen=True)
class TokenBucket:
    """A sustained rate, and bursts above it.

    Parameters
    ----------
    rate_per_s : float
        [1/s]
    burst : int
        Requests that may come at once.
    """

    rate_per_s: float
    burst: int = 1

    def __post_init__(self) -> None:
        positive("the rate", self.rate_per_s)
        if self.burst < 1:
            raise RequestError(f"a burst must be at least one request, got {self.burst}")

    def gate(self) -> Gate:
        tokens, last = float(self.burst), 0

        def admits(load: Load, now: int) -> bool:
            nonlocal tokens, last
            tokens = min(float(self.burst), tokens + (now - last) * self.rate_per_s / 1e9)
            last = now
            if tokens < 1.0:
                return False
            tokens -= 1.0
            return True

        return admits
