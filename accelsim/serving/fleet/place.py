"""Where replicas stand: the way from the client to an edge box, the own data centre or a cloud."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from accelsim.core.errors import RequestError
from accelsim.serving.fleet.checks import finite

RETRANSMIT_NS = 200_000_000
"""A lost message is sent again after 200 ms, then after twice as long each time (the least timeout of Linux's
TCP; doubling as in RFC 6298)."""

LONGEST_RETRANSMIT_NS = 120_000_000_000


@dataclass(frozen=True)
class Place:
    """A place and the way to it, alike in both directions.

    Parameters
    ----------
    name : str
        ``edge``, ``on premises``, a region ...
    delay_s : float
        One way [s].
    bytes_per_s : float
        Bandwidth, shared by all replicas of the place; messages follow one another [B/s].
    """

    name: str = "here"
    delay_s: float = 0.0
    bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        finite(f"the network delay of '{self.name}'", self.delay_s)
        if not self.bytes_per_s > 0:
            raise RequestError(f"the bandwidth of '{self.name}' must be positive, got {self.bytes_per_s}")


@dataclass
class Window:
    """A stretch of time in which a wire loses messages or is slower."""

    start_ns: float
    end_ns: float
    loss: float = 0.0
    extra_ns: int = 0


@dataclass
class Wire:
    """One direction of the way to a place, at work."""

    place: Place
    draw: random.Random
    windows: list[Window] = field(default_factory=list)
    lost: int = 0
    _free_ns: int = 0

    def __post_init__(self) -> None:
        self._delay_ns = round(self.place.delay_s * 1e9)
        self._at_once = self._delay_ns == 0 and math.isinf(self.place.bytes_per_s)

    def arrival_ns(self, now: int, size_bytes: float) -> int:
        """When a message that is sent now arrives."""
        if self._at_once and not self.windows:
            return now
        sent, wait = now, RETRANSMIT_NS
        while self._loses(sent):
            self.lost += 1
            sent += wait
            wait = min(2 * wait, LONGEST_RETRANSMIT_NS)
        if math.isfinite(self.place.bytes_per_s):
            sent = max(sent, self._free_ns) + round(size_bytes / self.place.bytes_per_s * 1e9)
            self._free_ns = sent
        extra = sum(w.extra_ns for w in self.windows if w.start_ns <= sent < w.end_ns)
        return sent + self._delay_ns + extra

    def _loses(self, now: int) -> bool:
        for window in self.windows:
            if window.loss and window.start_ns <= now < window.end_ns and self.draw.random() < window.loss:
                return True
        return False
