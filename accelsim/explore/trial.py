"""Trying fleets of a number of replicas, and finding the smallest that meets its objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError
from accelsim.explore.objectives import Limit
from accelsim.serving import engine as simpy_engine
from accelsim.serving import statistics
from accelsim.serving.arrivals import Arrivals, Poisson
from accelsim.serving.fast import twin
from accelsim.serving.fleet.balancers import Balancer, RandomBalancer
from accelsim.serving.fleet.outcome import FleetResult
from accelsim.serving.fleet.replica import Replica
from accelsim.serving.fleet.serve import serve_fleet
from accelsim.serving.fleet.spec import Pool
from accelsim.serving.log import Log
from accelsim.serving.requests import Requests
from accelsim.serving.service import Overheads, ServiceLaw, Times
from accelsim.serving.station import COMPLETED, Policy

QUIET = 0.01
"""Below this share of its capacity a replica serves lone requests: more replicas do not help."""

BALANCED_REQUESTS = 20_000
"""Requests of a trial with a balancer that looks at queues: those run on the readable engine."""

REFUSED_S = 1e9
"""Latency of requests that were not answered."""


@dataclass(frozen=True)
class Outcome:
    """What one trial gave."""

    latency_s: NDArray[np.float64]
    estimates: dict[str, statistics.Estimate]
    mean_batch: float
    utilisation: float
    energy_j: float

    def meets(self, goals: Sequence[Limit]) -> bool:
        return all(self.estimates[g.name].value <= g.limit for g in goals)


@dataclass(frozen=True)
class Trial:
    """How fleets are tried."""

    traffic: Arrivals
    balancer: Balancer
    goals: tuple[Limit, ...]
    overheads: Overheads
    requests: int
    warmup: float
    seed: int

    @property
    def rate_per_s(self) -> float:
        return self.traffic.rate_per_s

    def capacity_per_s(self, law: ServiceLaw, policy: Policy) -> float:
        """Of one replica [1/s]."""
        times = Times.of(law, self.overheads, policy.max_batch)
        return times.capacity_per_s(policy.max_batch, policy.instances)

    def run(self, law: ServiceLaw, policy: Policy, replicas: int) -> Outcome:
        """A fleet of so many replicas under the traffic."""
        if isinstance(self.balancer, RandomBalancer):
            return self._one(law, policy, self._thinned(replicas))
        pool = Pool(
            (Replica(law, batching=policy, count=replicas, overheads=self.overheads),), balancer=self.balancer
        )
        whole = min(BALANCED_REQUESTS, self.requests * replicas)
        found = serve_fleet(pool, arrivals=self.traffic, requests=whole, seed=self.seed)
        if not isinstance(found, FleetResult):
            raise RequestError(f"the fleet cannot run: {found}")
        sizes = np.concatenate([s.size for s in found.servers])
        energy = sum(float(s.energy_j.sum()) if s.energy_j is not None else math.nan for s in found.servers)
        answered = max(1, int(np.count_nonzero(found.log.status == COMPLETED)))
        return self._outcome(
            found.log, 0.0, float(sizes.mean()), found.summary["utilisation"], energy / answered
        )

    def _thinned(self, replicas: int) -> Requests:
        """What one of so many replicas gets when each request goes to any of them alike."""
        if isinstance(self.traffic, Poisson):
            share = replace(self.traffic, rate_per_s=self.rate_per_s / replicas)
            return share.generate(self.requests, self.seed)
        whole = self.traffic.generate(min(self.requests * replicas, 4_000_000), self.seed)
        mine = np.random.default_rng([self.seed, 7]).random(len(whole)) < 1.0 / replicas
        return whole.take(np.flatnonzero(mine))

    def _one(self, law: ServiceLaw, policy: Policy, coming: Requests) -> Outcome:
        times = Times.of(law, self.overheads, policy.max_batch, len(coming), self.seed)
        run = twin.run_open if twin.covers(policy) else simpy_engine.run_open
        log = run(coming, policy, times)
        energy = math.nan
        if hasattr(law, "energy_j"):
            table = np.array([0.0, *(law.energy_j(b) for b in range(1, policy.max_batch + 1))])
            energy = float(table[log.padded].sum()) / max(1, int(np.count_nonzero(log.status == COMPLETED)))
        end = max(1, int(log.finish_ns.max()))
        return self._outcome(
            log,
            self.overheads.input_output_s,
            float(log.size.mean()) if len(log.size) else math.nan,
            float(log.held_ns.sum()) / (policy.instances * end),
            energy,
        )

    def _outcome(
        self, log: Log, extra_s: float, mean_batch: float, utilisation: float, energy_j: float
    ) -> Outcome:
        skip = int(len(log.status) * self.warmup)
        taken = (log.finish_ns[skip:] - log.arrival_ns[skip:]) / 1e9 + extra_s
        latency = np.where(log.status[skip:] == COMPLETED, taken, REFUSED_S)
        estimates = {g.name: g.measure(latency) for g in self.goals}
        return Outcome(latency, estimates, mean_batch, utilisation, energy_j)


def smallest(law: ServiceLaw, policy: Policy, trial: Trial, most: int) -> tuple[int, Outcome]:
    """The smallest number of replicas that meets the goals by bisection, else the best that was seen."""
    capacity = trial.capacity_per_s(law, policy)
    low = math.floor(trial.rate_per_s / capacity)
    best: tuple[float, int, Outcome] | None = None
    count = low + 1
    while True:
        count = min(count, max(most, low + 1))
        found = trial.run(law, policy, count)
        if found.meets(trial.goals):
            break
        miss = max(found.estimates[g.name].value / g.limit for g in trial.goals)
        if best is None or miss < best[0]:
            best = (miss, count, found)
        low = count
        if count >= most or trial.rate_per_s / count < QUIET * capacity:
            return best[1], best[2]
        count *= 2
    high = count
    while high - low > 1:
        middle = (low + high) // 2
        tried = trial.run(law, policy, middle)
        if tried.meets(trial.goals):
            high, found = middle, tried
        else:
            low = middle
    return high, found
