"""Exact results of queueing theory that the engines must meet.

Sources: M/M/1, M/M/c (Erlang C) and M/G/1 (Pollaczek and Khinchine) as in Kleinrock, *Queueing Systems* 1;
Jackson, *Networks of waiting lines*, 1957; bulk service by the chain embedded at completions (Bailey 1954);
Inoue, *Queueing analysis of GPU-based inference servers with dynamic batching*, Performance Evaluation 147,
2021 (arXiv:1912.06322).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.serving import statistics
from accelsim.serving.arrivals import Poisson
from accelsim.serving.batching import Greedy, NoBatching
from accelsim.serving.fast import twin
from accelsim.serving.log import Log
from accelsim.serving.requests import Requests
from accelsim.serving.service import (
    ExponentialService,
    LinearService,
    Overheads,
    RandomService,
    ServiceLaw,
    Times,
)
from accelsim.serving.station import Policy

if TYPE_CHECKING:
    import pandas as pd

REQUESTS = 1_000_000
WARMUP = 0.02
"""Share of the first requests that are left out, while the queue fills from empty."""


def mm1(rate_per_s: float, service_s: float) -> float:
    """Mean time in an M/M/1 system [s]."""
    return 1.0 / (1.0 / service_s - rate_per_s)


def mg1(rate_per_s: float, service_s: float, cv: float) -> float:
    """Mean time in an M/G/1 system [s] (Pollaczek-Khinchine); `cv` 0 is M/D/1."""
    load = rate_per_s * service_s
    return service_s + load * service_s * (1 + cv**2) / (2 * (1 - load))


def erlang_c(offered: float, servers: int) -> float:
    """Probability of having to wait in an M/M/c system; `offered` is rate times service time."""
    term = total = 1.0
    for k in range(1, servers):
        term *= offered / k
        total += term
    last = term * offered / servers / (1 - offered / servers)
    return last / (total + last)


def mmc(rate_per_s: float, service_s: float, servers: int) -> float:
    """Mean time in an M/M/c system [s]."""
    waits = erlang_c(rate_per_s * service_s, servers)
    return service_s + waits / (servers / service_s - rate_per_s)


def bulk(rate_per_s: float, law: ServiceLaw, most: int) -> float:
    """Mean time in the system when a batch takes ``min(queue, most)`` and lasts ``s(batch)`` [s].

    Chain of the queue length left at completions: ``q' = max(q, 1) - b + Poisson(rate * s(b))`` with ``b =
    min(max(q, 1), most)``. Time averages follow from renewal reward: a cycle from a state lasts ``s(b)``, and
    ``1 / rate`` more when it starts empty, and its integral of the number in the system is ``max(q, 1) s +
    rate s^2 / 2``. Little's law gives the time.
    """
    reach = 64
    while True:
        time_s, tail = _bulk(rate_per_s, law, most, reach)
        if tail < 1e-12:
            return time_s
        reach *= 2


def _bulk(rate_per_s: float, law: ServiceLaw, most: int, reach: int) -> tuple[float, float]:
    """`bulk` with queues cut at `reach`, and the probability at the cut."""
    held = np.maximum(np.arange(reach), 1)
    batch = np.minimum(held, most)
    service = np.array([law.service_s(int(b)) for b in range(1, most + 1)])
    kernel = np.zeros((most, reach))
    for b in range(most):
        mean = rate_per_s * service[b]
        k = np.arange(reach)
        logs = k * math.log(mean) - mean - np.array([math.lgamma(i + 1.0) for i in k])
        kernel[b] = np.exp(logs)
    move = np.zeros((reach, reach))
    for q in range(reach):
        left = held[q] - batch[q]
        move[q, left:] = kernel[batch[q] - 1][: reach - left]
        move[q, -1] += max(0.0, 1.0 - move[q].sum())
    system = np.vstack([(move.T - np.eye(reach))[:-1], np.ones(reach)])
    chance = np.linalg.solve(system, np.concatenate([np.zeros(reach - 1), [1.0]]))
    s = service[batch - 1]
    number = chance @ (held * s + rate_per_s * s**2 / 2)
    length = chance @ (s + (np.arange(reach) == 0) / rate_per_s)
    return float(number / length / rate_per_s), float(abs(chance[-2:]).sum())


def inoue(rate_per_s: float, fixed_s: float, per_item_s: float) -> float:
    """Upper bound of the mean time with batches of any size and ``s(b) = fixed + per_item b`` [s]."""
    load = rate_per_s * per_item_s
    first = (per_item_s + fixed_s) / (2 * (1 - load))
    first *= 1 + 2 * rate_per_s * fixed_s + (1 - rate_per_s * fixed_s) / (1 + load)
    second = 1.5 * fixed_s / (1 - load) + per_item_s / 2 * (load + 2) / (1 - load**2)
    return min(first, second)


@dataclass(frozen=True)
class Reference:
    """A system with its exact mean time [s], or an upper bound of it."""

    name: str
    exact_s: float
    law: ServiceLaw
    policy: Policy
    rate_per_s: float
    bound: bool = False


def references() -> Iterator[Reference]:
    """Systems of one station."""
    s = 0.01
    for load in (0.5, 0.8):
        yield Reference(
            f"M/M/1, load {load}", mm1(load / s, s), ExponentialService(s), NoBatching(), load / s
        )
        yield Reference(f"M/D/1, load {load}", mg1(load / s, s, 0), LinearService(s), NoBatching(), load / s)
        law = RandomService(LinearService(s), cv=1.5)
        yield Reference(f"M/G/1, cv 1.5, load {load}", mg1(load / s, s, 1.5), law, NoBatching(), load / s)
        for servers in (3, 8):
            rate = load * servers / s
            policy = NoBatching(instances=servers)
            exact = mmc(rate, s, servers)
            yield Reference(f"M/M/{servers}, load {load}", exact, ExponentialService(s), policy, rate)
    sleep = LinearService(0.004, 0.0005)
    for most in (1, 2, 4, 8, 16, 32):
        rate = 0.7 * most / sleep.service_s(most)
        exact = bulk(rate, sleep, most)
        yield Reference(f"bulk service, B = {most}, load 0.7", exact, sleep, Greedy(most), rate)
    for rate in (250.0, 500.0, 1000.0, 1500.0):
        limit = inoue(rate, 0.004, 0.0005)
        yield Reference(f"Inoue's bound, {rate:g}/s", limit, sleep, Greedy(512), rate, bound=True)


def table(requests: int = REQUESTS, seed: int = 1) -> pd.DataFrame:
    """Every reference beside a run of the numba engine.

    Returns
    -------
    DataFrame
        ``system exact_ms simulated_ms error_pct errors``: distance in percent and in standard errors; a bound
        counts only what is above it.
    """
    import pandas as pd

    rows = []
    for r in references():
        times = Times.of(r.law, Overheads(), r.policy.max_batch, requests, seed)
        coming = Poisson(r.rate_per_s).generate(requests, seed)
        rows.append(_row(r.name, r.exact_s, _mean(twin.run_open(coming, r.policy, times)), r.bound))
    rows.append(_row("Jackson network of 3 stations", *_jackson(requests, seed), bound=False))
    return pd.DataFrame(rows)


def _mean(log: Log) -> statistics.Estimate:
    """Mean time in the system after the warm-up [s]."""
    skip = int(WARMUP * len(log.status))
    return statistics.mean((log.finish_ns - log.arrival_ns)[skip:] / 1e9)


def _row(name: str, exact_s: float, found: statistics.Estimate, bound: bool) -> dict[str, Any]:
    distance = found.value - exact_s
    if bound:
        distance = max(0.0, distance)
    return {
        "system": name,
        "exact_ms": exact_s * 1e3,
        "simulated_ms": found.value * 1e3,
        "error_pct": 100 * distance / exact_s,
        "errors": abs(distance) / found.standard_error,
    }


def _jackson(requests: int, seed: int) -> tuple[float, statistics.Estimate]:
    """A tandem with a split: station 1 feeds 2 and 3 with probabilities 0.6 and 0.4.

    The exact time is the sum over stations of visits times the time in M/M/c (product form). Each station is
    simulated on the departures of the one in front.
    """
    rate, share = 80.0, 0.6
    stations = ((0.01, 1), (0.03, 2), (0.02, 1))
    visits = (1.0, share, 1 - share)
    exact = sum(v * mmc(v * rate, *station) for v, station in zip(visits, stations))
    arrival = Poisson(rate).generate(requests, seed).arrival_s
    out = _departures(arrival, *stations[0], seed)
    to_second = np.random.default_rng([seed, 7]).random(requests) < share
    done = np.empty(requests)
    for place, chosen in ((1, to_second), (2, ~to_second)):
        index = np.flatnonzero(chosen)
        index = index[np.argsort(out[index], kind="stable")]
        done[index] = _departures(out[index], *stations[place], seed + place)
    skip = int(WARMUP * requests)
    return exact, statistics.mean((done - arrival)[skip:])


def _departures(
    arrival: NDArray[np.float64], service_s: float, servers: int, seed: int
) -> NDArray[np.float64]:
    law = ExponentialService(service_s)
    times = Times.of(law, Overheads(), 1, len(arrival), seed)
    log = twin.run_open(Requests(arrival), NoBatching(instances=servers), times)
    return log.finish_ns / 1e9
