"""Which replica gets the next request."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.serving.fleet.checks import at_least, positive


class Target(Protocol):
    """What a balancer knows of a replica."""

    @property
    def number(self) -> int:
        """Unique in the fleet."""
        ...

    @property
    def outstanding(self) -> int:
        """Requests sent to it and not yet answered."""
        ...

    @property
    def weight(self) -> float: ...

    @property
    def delay_ns(self) -> int:
        """One way [ns]."""
        ...

    @property
    def latency_ns(self) -> float:
        """Smoothed latency of its answers, 0 before the first [ns]."""
        ...

    def hits(self, request: int) -> int:
        """Tokens of a request's prompt that its prefix cache holds."""
        ...


Picker = Callable[[Sequence[Target], int], int]
"""Index of the chosen one for a request by its number; there is at least one."""


class Balancer(Protocol):
    """A way of balancing, as users name it."""

    def picker(self, draw: random.Random) -> Picker:
        """The balancer at work on one pool."""
        ...


def _outstanding(target: Target) -> float:
    return target.outstanding


def _least(
    targets: Sequence[Target], score: Callable[[Target], float], draw: random.Random, among: Sequence[int]
) -> int:
    """The lowest score, ties at random."""
    best, tied = math.inf, [among[0]]
    for index in among:
        value = score(targets[index])
        if value < best:
            best, tied = value, [index]
        elif value == best and index != tied[0]:
            tied.append(index)
    return tied[0] if len(tied) == 1 else tied[int(draw.random() * len(tied))]


def _some(n: int, choices: int, draw: random.Random) -> Sequence[int]:
    if choices >= n:
        return range(n)
    if choices == 1:
        return (int(draw.random() * n),)
    return draw.sample(range(n), choices)


@dataclass(frozen=True)
class RoundRobin:
    """One after the other."""

    def picker(self, draw: random.Random) -> Picker:
        last = -1

        def pick(targets: Sequence[Target], request: int) -> int:
            # By number, so that replicas that come and go do not disturb the turn of the others.
            nonlocal last
            chosen = next((i for i, t in enumerate(targets) if t.number > last), 0)
            last = targets[chosen].number
            return chosen

        return pick


@dataclass(frozen=True)
class RandomBalancer:
    """Any, alike."""

    def picker(self, draw: random.Random) -> Picker:
        return lambda targets, request: int(draw.random() * len(targets))


@dataclass(frozen=True)
class LeastOutstanding:
    """The one with the fewest requests; ties at random (join the shortest queue)."""

    def picker(self, draw: random.Random) -> Picker:
        return lambda targets, request: _least(targets, _outstanding, draw, range(len(targets)))


@dataclass(frozen=True)
class PowerOfChoices:
    """The one with the fewest requests among a few taken at random (Mitzenmacher, TPDS 2001,
    doi:10.1109/71.963420).

    Parameters
    ----------
    choices : int
        1 is random, all is `LeastOutstanding`.
    """

    choices: int = 2

    def __post_init__(self) -> None:
        if self.choices < 1:
            raise RequestError(f"the balancer needs at least one choice, got {self.choices}")

    def picker(self, draw: random.Random) -> Picker:
        return lambda targets, request: _least(
            targets, _outstanding, draw, _some(len(targets), self.choices, draw)
        )


@dataclass(frozen=True)
class LatencyAware:
    """The lowest smoothed latency times (requests there + 1), among a few taken at random.

    Parameters
    ----------
    choices : int
        Replicas that are compared.
    decay_s : float
        Time constant of the exponentially weighted mean [s].
    """

    choices: int = 2
    decay_s: float = 10.0

    def __post_init__(self) -> None:
        if self.choices < 1:
            raise RequestError(f"the balancer needs at least one choice, got {self.choices}")
        positive("the decay", self.decay_s)

    def picker(self, draw: random.Random) -> Picker:
        def score(target: Target) -> float:
            return target.latency_ns * (target.outstanding + 1)

        return lambda targets, request: _least(targets, score, draw, _some(len(targets), self.choices, draw))


@dataclass(frozen=True)
class Weighted:
    """In turn, each as often as its weight says (smooth weighted round robin, as nginx does)."""

    def picker(self, draw: random.Random) -> Picker:
        credit: dict[int, float] = {}

        def pick(targets: Sequence[Target], request: int) -> int:
            total = 0.0
            for target in targets:
                total += target.weight
                credit[target.number] = credit.get(target.number, 0.0) + target.weight
            chosen = max(range(len(targets)), key=lambda i: credit[targets[i].number])
            credit[targets[chosen].number] -= total
            return chosen

        return pick


@dataclass(frozen=True)
class Nearest:
    """The shortest network delay, until a replica there has too many requests: then the next place.

    Parameters
    ----------
    spill : int
        Requests at each replica of a place from which on the next place takes over; when all places are full,
        the fewest requests decide.
    """

    spill: int = 16

    def __post_init__(self) -> None:
        if self.spill < 1:
            raise RequestError(f"a place must take at least one request, got {self.spill}")

    def picker(self, draw: random.Random) -> Picker:
        def pick(targets: Sequence[Target], request: int) -> int:
            room = [i for i, t in enumerate(targets) if t.outstanding < self.spill]
            if not room:
                return _least(targets, _outstanding, draw, range(len(targets)))
            near = min(targets[i].delay_ns for i in room)
            return _least(targets, _outstanding, draw, [i for i in room if targets[i].delay_ns == near])

        return pick


@dataclass(frozen=True)
class PrefixAware:
    """The longest beginning of the prompt in the prefix cache, ties by the fewest requests.

    While loads are apart the fewest requests alone decide. SGLang's router does so with a guess of what the
    caches hold (recalled); here it knows.

    Parameters
    ----------
    imbalance : int
        Requests that the fullest replica may have more than the emptiest.
    """

    imbalance: int = 32

    def __post_init__(self) -> None:
        at_least("the imbalance of a balancer", self.imbalance)

    def picker(self, draw: random.Random) -> Picker:
        def pick(targets: Sequence[Target], request: int) -> int:
            among: Sequence[int] = range(len(targets))
            loads = [t.outstanding for t in targets]
            if max(loads) - min(loads) <= self.imbalance:
                found = [t.hits(request) for t in targets]
                among = [i for i in among if found[i] == max(found)]
            return _least(targets, _outstanding, draw, among)

        return pick


BALANCERS: dict[str, Callable[[], Balancer]] = {
    "round_robin": RoundRobin,
    "random": RandomBalancer,
    "least_outstanding": LeastOutstanding,
    "power_of_two": PowerOfChoices,
    "latency_aware": LatencyAware,
    "weighted": Weighted,
    "nearest": Nearest,
    "prefix_aware": PrefixAware,
}


def balancer_of(given: str | Balancer) -> Balancer:
    """A balancer by its name, or as it is.

    Raises
    ------
    RequestError
        No balancer has the name.
    """
    if not isinstance(given, str):
        return given
    if given not in BALANCERS:
        raise RequestError(f"unknown balancer '{given}'", hint=did_you_mean(given, BALANCERS))
    return BALANCERS[given]()
