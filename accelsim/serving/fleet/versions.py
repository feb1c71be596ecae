"""Versions of a model: traffic splits (A/B, canary) and live swaps."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.fleet.checks import finite
from accelsim.serving.fleet.replica import Replica


def check_split(split: Mapping[str, float]) -> None:
    """Refuse shares that are negative or do not sum to 1."""
    if any(not share >= 0 for share in split.values()):
        raise RequestError(f"shares of a traffic split must not be negative, got {dict(split)}")
    total = math.fsum(split.values())
    if abs(total - 1) > 1e-9:
        raise RequestError(f"the traffic split must sum to 1, its shares sum to {total:g}")


def draw_version(split: Mapping[str, float], draw: random.Random) -> str:
    """A version with the probability of its share."""
    at = draw.random()
    for version, share in split.items():
        at -= share
        if at < 0:
            return version
    return next(reversed(list(split)))


@dataclass(frozen=True)
class Shift:
    """Another traffic split from a time on: a step of a canary.

    Parameters
    ----------
    at_s : float
        [s]
    split : mapping of str to float
        Share by version.
    pool : str, optional
        Needed where there are several.
    """

    at_s: float
    split: Mapping[str, float]
    pool: str | None = None

    def __post_init__(self) -> None:
        finite("the time of a shift", self.at_s)
        check_split(self.split)


@dataclass(frozen=True)
class Swap:
    """A live swap: new replicas start beside the old; when all are ready, traffic goes to them, and the old
    ones finish what they have and leave.

    Parameters
    ----------
    at_s : float
        [s]
    replica : Replica
        Of the new version.
    pool : str, optional
        Needed where there are several.
    """

    at_s: float
    replica: Replica
    pool: str | None = None

    def __post_init__(self) -> None:
        finite("the time of a swap", self.at_s)
        if self.replica.count < 1:
            raise RequestError("a swap needs at least one new replica")


Change = Shift | Swap
