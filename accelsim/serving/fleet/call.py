"""One call to a pool, as its caller sees it: attempts, timeouts, retries, hedges, the first answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from accelsim.serving.station import COMPLETED, IN_FLIGHT, TIMED_OUT, Moment, Request

if TYPE_CHECKING:
    from accelsim.serving.fleet.routing import PoolRun
    from accelsim.serving.fleet.server import Attempt


class Call:
    """A call and its attempts.

    Attributes
    ----------
    request : Request
        The fleet's request that it is for.
    status : int
        `IN_FLIGHT` until it has ended.
    reason : str
        Why it failed.
    begin_ns, end_ns : int
    attempts, hedged : int
        Sent so far; of these, hedges.
    winner : Attempt, optional
        Whose answer counts.
    """

    __slots__ = (
        "attempts", "begin_ns", "done", "end_ns", "hedged", "live", "pool", "reason", "request", "retries",
        "status", "timers", "winner",
    )  # fmt: skip

    def __init__(self, pool: PoolRun, request: Request, done: Callable[[Call], object]) -> None:
        self.pool = pool
        self.request = request
        self.done = done
        self.status = IN_FLIGHT
        self.reason = ""
        self.begin_ns = pool.now
        self.end_ns = -1
        self.attempts = self.hedged = self.retries = 0
        self.live: list[Attempt] = []
        self.timers: list[Moment] = []
        self.winner: Attempt | None = None

    def begin(self) -> None:
        """Send the first attempt."""
        timeout = self.pool.client.timeout_s
        if timeout != math.inf:
            self._after(timeout, self._give_up)
        self._send()

    def _after(self, seconds: float, call: Callable[[], object]) -> None:
        self.timers.append(self.pool.at(self.pool.now + round(seconds * 1e9), call))

    def _send(self) -> None:
        client = self.pool.client
        attempt = self.pool.attempt(self)
        self.attempts += 1
        self.live.append(attempt)
        if client.attempt_timeout_s != math.inf:
            self._after(client.attempt_timeout_s, partial(self._late, attempt))
        if client.hedge_after_s != math.inf and self.hedged < client.hedges:
            self._after(client.hedge_after_s, partial(self._hedge, attempt))
        self.pool.send(attempt)

    def _retry(self) -> None:
        if self.status == IN_FLIGHT:
            self._send()

    def _hedge(self, attempt: Attempt) -> None:
        if self.status == IN_FLIGHT and attempt in self.live and self.hedged < self.pool.client.hedges:
            self.hedged += 1
            self._send()

    def _late(self, attempt: Attempt) -> None:
        if self.status == IN_FLIGHT and attempt in self.live:
            self.pool.cancel(attempt)
            self.failed(attempt, TIMED_OUT, "attempt timeout")

    def _give_up(self) -> None:
        if self.status == IN_FLIGHT:
            self._end(TIMED_OUT, "timeout")

    def answered(self, attempt: Attempt) -> None:
        """An answer is there; the first one counts."""
        self.live.remove(attempt)
        self.winner = attempt
        self._end(COMPLETED, "")

    def failed(self, attempt: Attempt, status: int, reason: str) -> None:
        """An attempt failed: another may still run, or be sent."""
        self.live.remove(attempt)
        if self.live:
            return
        client = self.pool.client
        if self.retries >= client.retries:
            self._end(status, reason)
            return
        self.retries += 1
        pause = client.pause_s(self.retries)
        self._after(pause * self.pool.draw.random() if client.jitter else pause, self._retry)

    def abandon(self) -> None:
        """The request has ended elsewhere; nobody needs the answer."""
        if self.status == IN_FLIGHT:
            self.done = _nobody
            self._end(TIMED_OUT, "abandoned")

    def _end(self, status: int, reason: str) -> None:
        self.status, self.reason, self.end_ns = status, reason, self.pool.now
        for timer in self.timers:
            timer.cancel()
        for attempt in self.live:
            self.pool.cancel(attempt)
        self.live = []
        self.done(self)


def _nobody(call: Call) -> None:
    """Nobody waits for the call."""
