"""What callers do when an answer is late or an error comes back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.fleet.checks import at_least, positive


@dataclass(frozen=True)
class Client:
    """Timeouts, retries and hedging of each call to a pool.

    Parameters
    ----------
    timeout_s : float
        After which a call is given up, retries included [s].
    attempt_timeout_s : float
        After which one attempt counts as failed [s].
    retries : int
        Further attempts after failed ones.
    backoff_s : float
        Pause before the first retry, doubled before each further one [s].
    longest_backoff_s : float
        [s]
    jitter : bool
        Pauses are drawn between 0 and the above.
    hedge_after_s : float
        An attempt unanswered for so long gets company on another replica; the first answer counts, the other
        attempt is cancelled [s].
    hedges : int
        Such attempts of a call at most.
    """

    timeout_s: float = math.inf
    attempt_timeout_s: float = math.inf
    retries: int = 0
    backoff_s: float = 0.025
    longest_backoff_s: float = 10.0
    jitter: bool = True
    hedge_after_s: float = math.inf
    hedges: int = 1

    def __post_init__(self) -> None:
        positive("the timeout", self.timeout_s)
        positive("the timeout of an attempt", self.attempt_timeout_s)
        if self.retries < 0 or self.hedges < 0:
            raise RequestError("the numbers of retries and hedges must not be negative")
        at_least("the backoff", self.backoff_s)
        at_least("the longest backoff", self.longest_backoff_s)
        at_least("the delay of a hedge", self.hedge_after_s)

    def pause_s(self, retry: int) -> float:
        """Longest pause before a retry, counted from 1 [s]."""
        return min(self.backoff_s * 2.0 ** min(retry - 1, 60), self.longest_backoff_s)
