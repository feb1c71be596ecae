"""What an autoscaler sees, and the protocol that all of them follow."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from accelsim.core.errors import RequestError


@dataclass(frozen=True, slots=True)
class Sample:
    """A pool since the autoscaler last looked.

    Attributes
    ----------
    time_s : float
        Now [s].
    span_s : float
        Time since the last sample [s].
    concurrency : float
        Mean number of requests in the pool, waiting ones included.
    arrivals : int
        Requests that came.
    utilisation : float
        Busy share of the instances of ready replicas.
    ready : int
        Replicas that take requests now.
    replicas : int
        These and the ones that start, without those that leave.
    """

    time_s: float
    span_s: float
    concurrency: float
    arrivals: int
    utilisation: float
    ready: int
    replicas: int


class Scaler(Protocol):
    """An autoscaler at work."""

    def decide(self, sample: Sample) -> int:
        """Replicas that there should be."""
        ...


class Autoscaler(Protocol):
    """A way of scaling, as users name it."""

    @property
    def least(self) -> int: ...

    @property
    def most(self) -> int: ...

    @property
    def interval_s(self) -> float:
        """Between looks [s]."""
        ...

    def scaler(self) -> Scaler: ...


def check_bounds(least: int, most: int, *, zero: bool) -> None:
    """Refuse limits that cannot hold."""
    lowest = 0 if zero else 1
    if least < lowest:
        raise RequestError(f"the least number of replicas must be at least {lowest}, got {least}")
    if most < max(1, least):
        raise RequestError(f"the most replicas must be at least {max(1, least)}, got {most}")


class Window:
    """Samples of the last so many seconds."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self.samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> None:
        self.samples.append(sample)
        while self.samples[0].time_s <= sample.time_s - self.length_s * (1 + 1e-12):
            self.samples.popleft()

    def concurrency(self, length_s: float) -> float:
        """Mean over the last `length_s`, or over what there is [requests]."""
        now = self.samples[-1].time_s
        seen = [s for s in self.samples if s.time_s > now - length_s * (1 - 1e-12)]
        return sum(s.concurrency * s.span_s for s in seen) / sum(s.span_s for s in seen)
