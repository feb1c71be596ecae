"""How many requests a device can explain beside its predictions, from queueing theory."""

from __future__ import annotations

import math

from accelsim.core.errors import RequestError


def explained_share(
    plain_s: float, explained_s: float, rate_per_s: float, slo_s: float, quantile: float = 0.99
) -> float:
    """Largest share of requests that may ask for an explanation while explained answers keep a limit.

    Requests arrive at random (Poisson) and wait for one device. A share f of them takes `explained_s`, the
    others `plain_s`. The mean wait is that of an M/G/1 queue, W = rate E[S^2] / (2 (1 - rho)) (Pollaczek and
    Khinchine); the tail of the wait is taken as exponential, P(wait > t) = rho exp(-rho t / W), which is
    exact for exponential service and asymptotically right for bounded service.

    Parameters
    ----------
    plain_s, explained_s : float
        Service of a prediction, and of a prediction with its explanation [s].
    rate_per_s : float
        Arrivals [1/s].
    slo_s : float
        Limit of an explained answer [s].
    quantile : float
        Share of explained answers that must keep it.

    Returns
    -------
    float
        In [0, 1]; 0 where even one explanation alone takes too long.

    Raises
    ------
    RequestError
        A limit, rate or quantile that makes no sense.
    """
    if not slo_s > 0 or not rate_per_s > 0:
        raise RequestError(f"a limit of {slo_s!r} s at {rate_per_s!r} requests per second")
    if not 0 < quantile < 1:
        raise RequestError(f"quantile {quantile!r} is not in (0, 1)")

    def answer_s(share: float) -> float:
        load = rate_per_s * ((1 - share) * plain_s + share * explained_s)
        if load >= 1:
            return math.inf
        second = (1 - share) * plain_s**2 + share * explained_s**2
        wait = rate_per_s * second / (2 * (1 - load))
        tail = math.log(load / (1 - quantile))
        return explained_s + max(0.0, wait / load * tail)

    if answer_s(0.0) > slo_s:
        return 0.0
    if answer_s(1.0) <= slo_s:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):  # the wait rises with the share
        middle = (low + high) / 2
        if answer_s(middle) <= slo_s:
            low = middle
        else:
            high = middle
    return low
