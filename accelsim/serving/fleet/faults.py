"""What goes wrong: crashes, restarts, slow nodes, links that lose or delay messages."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.fleet.checks import at_least, finite, positive, share


@dataclass(frozen=True)
class Crash:
    """A replica dies with all that it holds, and is repaired: once, or again and again at random.

    Parameters
    ----------
    replica : str, optional
        Name of a server (``l4-0``) or of a kind (``l4``); all by default.
    at_s, for_s : float, optional
        A crash at a time, repaired after a time [s].
    mttf_s, mttr_s : float, optional
        Mean time to failure and mean time to repair, both exponential [s].
    """

    replica: str | None = None
    at_s: float | None = None
    for_s: float = 60.0
    mttf_s: float | None = None
    mttr_s: float = 60.0

    def __post_init__(self) -> None:
        if (self.at_s is None) == (self.mttf_s is None):
            raise RequestError("a crash has either a time (at_s) or a mean time to failure (mttf_s)")
        if self.at_s is not None:
            finite("the time of a crash", self.at_s)
        if self.mttf_s is not None:
            positive("the mean time to failure", self.mttf_s)
        at_least("the time to repair", self.for_s)
        positive("the mean time to repair", self.mttr_s)


@dataclass(frozen=True)
class Restart:
    """A replica finishes what it has, takes nothing new, is down for a while and comes back.

    Parameters
    ----------
    at_s, down_s : float
        [s]
    replica : str, optional
        As in `Crash`.
    """

    at_s: float
    down_s: float
    replica: str | None = None

    def __post_init__(self) -> None:
        finite("the time of a restart", self.at_s)
        finite("the time that a restart takes", self.down_s)


@dataclass(frozen=True)
class Slow:
    """Executions that start in a stretch of time take longer.

    Parameters
    ----------
    factor : float
        Times as long.
    at_s, for_s : float
        [s]
    replica : str, optional
        As in `Crash`.
    """

    factor: float
    at_s: float = 0.0
    for_s: float = math.inf
    replica: str | None = None

    def __post_init__(self) -> None:
        positive("the slowness", self.factor)
        finite("the start of a slow stretch", self.at_s)
        at_least("the length of a slow stretch", self.for_s)


@dataclass(frozen=True)
class LinkLoss:
    """Messages to and from a place are lost and sent again by the transport; see `place.RETRANSMIT_NS`.

    Parameters
    ----------
    probability : float
        1 is a cut line.
    at_s, for_s : float
        [s]
    place : str, optional
        All by default.
    """

    probability: float
    at_s: float = 0.0
    for_s: float = math.inf
    place: str | None = None

    def __post_init__(self) -> None:
        share("the probability of a loss", self.probability)
        finite("the start of a lossy stretch", self.at_s)
        at_least("the length of a lossy stretch", self.for_s)
        if self.probability == 1 and math.isinf(self.for_s):
            raise RequestError(
                "a line that is cut for ever answers nothing", hint="give the cut an end: for_s"
            )


@dataclass(frozen=True)
class LinkDelay:
    """Messages to and from a place take longer.

    Parameters
    ----------
    delay_s : float
        More, one way [s].
    at_s, for_s : float
        [s]
    place : str, optional
        All by default.
    """

    delay_s: float
    at_s: float = 0.0
    for_s: float = math.inf
    place: str | None = None

    def __post_init__(self) -> None:
        finite("the network delay of a fault", self.delay_s)
        finite("the start of a slow stretch", self.at_s)
        at_least("the length of a slow stretch", self.for_s)


Fault = Crash | Restart | Slow | LinkLoss | LinkDelay
