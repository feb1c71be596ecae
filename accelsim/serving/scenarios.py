"""The four scenarios of MLPerf Inference, as arrivals (inference rules, "Scenarios")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from accelsim.core.errors import RequestError
from accelsim.serving.arrivals import ClosedLoop, Poisson
from accelsim.serving.requests import Requests


class SingleStream(ClosedLoop):
    """One query of one sample at a time, the next when the answer is there."""

    def __init__(self) -> None:
        super().__init__(users=1)


class MultiStream(ClosedLoop):
    """One query of several samples at a time, the next when its last sample is there.

    Parameters
    ----------
    samples : int
        Samples of a query.
    """

    def __init__(self, samples: int = 8) -> None:
        super().__init__(users=1, samples=samples)


class Server(Poisson):
    """Queries of one sample at Poisson times.

    Parameters
    ----------
    rate_per_s : float
        [1/s]
    prompt_tokens, output_tokens, prefix_tokens, prefix_groups
        See `Poisson`.
    """


@dataclass(frozen=True)
class Offline:
    """All samples are there at the start."""

    @property
    def rate_per_s(self) -> float:
        """All at once."""
        return float("inf")

    def generate(self, n: int, seed: int = 0) -> Requests:
        """`n` requests at time 0."""
        if n < 1:
            raise RequestError(f"cannot generate {n} requests", hint="ask for at least one")
        return Requests(np.zeros(n))
