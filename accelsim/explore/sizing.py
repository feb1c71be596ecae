"""`size_for`: the smallest or cheapest fleet that serves a rate within a latency objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import InfeasibleError
from accelsim.engine.simulate import simulate
from accelsim.explore.objectives import limits
from accelsim.explore.trial import REFUSED_S, Outcome, Trial, smallest
from accelsim.hardware.cost import CostModel, prices
from accelsim.hardware.schema import Device
from accelsim.hardware.spec import load_hardware
from accelsim.serving.arrivals import Arrivals, Poisson
from accelsim.serving.batching import Greedy
from accelsim.serving.fleet.balancers import Balancer, balancer_of
from accelsim.serving.service import DeviceService, Overheads, ServiceLaw
from accelsim.serving.station import Policy

if TYPE_CHECKING:
    import pandas as pd

BATCHES = (1, 4, 16, 64)
"""Greedy batches that are tried unless policies are given."""

OBJECTIVES = {"cost": "usd_per_hour", "replicas": "replicas", "power": "power_w"}


@dataclass(frozen=True)
class Sizing:
    """Fleets by device, precision and batching, and the one that wins.

    Attributes
    ----------
    rows : tuple of dict
        See `frame`.
    objective : str
    notes : tuple of str
    """

    rows: tuple[dict[str, Any], ...]
    objective: str
    notes: tuple[str, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per device, precision and batching: ``hardware precision batching status reason replicas
        capacity_per_s load_pct headroom_pct mean_batch``, each objective with the ends of its 95 % confidence
        interval (``p99_ms p99_ms_low p99_ms_high``) and of the device's error band (``p99_ms_band_low
        p99_ms_band_high``), ``usd_per_hour usd_per_million_requests power_w energy_per_request_j unknown``.
        """
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def winner(self) -> dict[str, Any] | None:
        """The feasible row that is best by the objective, then has fewest replicas; None if there is none."""
        key = OBJECTIVES[self.objective]
        feasible = [row for row in self.rows if row["status"] == "ok"]

        def rank(row: dict[str, Any]) -> tuple[bool, float, int]:
            return math.isnan(row[key]), 0.0 if math.isnan(row[key]) else row[key], row["replicas"]

        return min(feasible, key=rank, default=None)

    def __repr__(self) -> str:
        best = self.winner
        lines = [
            f"{len(self.rows)} candidates, {sum(r['status'] == 'ok' for r in self.rows)} meet the objective"
        ]
        if best is not None:
            price = best["usd_per_hour"]
            cost = "price unknown" if math.isnan(price) else f"{price:.4g} USD/h"
            lines.append(
                f"best by {self.objective}: {best['replicas']} x {best['hardware']}, {best['batching']}, "
                f"{cost}, headroom {best['headroom_pct']:.3g} %"
            )
        return "\n".join([*lines, *(f"note: {n}" for n in self.notes)])


def size_for(
    workload: Any = None,
    *,
    slo: Mapping[str, float],
    hardware: Any,
    rate_per_s: float | None = None,
    arrivals: Arrivals | None = None,
    precision: Any = None,
    batching: Policy | Sequence[Policy] | None = None,
    balancer: str | Balancer = "random",
    overheads: Overheads | None = None,
    objective: str = "cost",
    cost: CostModel | None = None,
    prices_from: str | Path | Mapping[str, Any] | None = None,
    sure: bool = False,
    most: int = 10_000,
    requests: int = 100_000,
    warmup: float = 0.02,
    seed: int = 0,
    **options: Any,
) -> Sizing:
    """Find the smallest fleet of each device that meets an objective.

    Parameters
    ----------
    workload : workload, optional
        As in `simulate`; none where `hardware` has service laws.
    slo : mapping of str to float
        Objectives, all to be met: ``{"p99_ms": 15, "mean_ms": 5}``; ``p50_ms p95_ms p99_9_ms``, also in ``s``
        and ``us``. A request that is refused or times out counts as one that is never answered.
    hardware : name, Device, a sequence of them, or mapping of str to ServiceLaw
        Candidates.
    rate_per_s : float, optional
        Poisson arrivals [1/s].
    arrivals : Arrivals, optional
        Other arrivals, instead of `rate_per_s`.
    precision : Precision or sequence of them, optional
        One or several to try.
    batching : Policy or sequence of Policy, optional
        Ways to batch that are tried; `Greedy` with up to 1, 4, 16 and 64 by default.
    balancer : str or Balancer
        ``random`` splits the traffic, so that one replica stands for all (exact for Poisson arrivals, by
        thinning for others) and runs on the fast engine; any other runs whole fleets on the readable one.
    overheads : Overheads, optional
        What the server adds.
    objective : {"cost", "replicas", "power"}
        What the winner has least of.
    cost : CostModel, optional
        How devices are paid for; every hour is paid, its utilisation is not used.
    prices_from : path or mapping, optional
        Dated prices, see `accelsim.hardware.cost.prices`.
    sure : bool
        The slow end of the devices' error bands must meet the objective too.
    most : int
        Replicas at most.
    requests : int
        Requests that one replica serves in a trial.
    warmup : float
        Share of them that is not counted.
    seed : int
    **options
        For `simulate`: stack, devices ...

    Returns
    -------
    Sizing

    Raises
    ------
    RequestError
        The request makes no sense. A device that cannot do it is a row with its reason.
    """
    goals = limits(slo)
    if objective not in OBJECTIVES:
        raise RequestError(f"unknown objective '{objective}'", hint=did_you_mean(objective, OBJECTIVES))
    if (rate_per_s is None) == (arrivals is None):
        raise RequestError("give either a rate or arrivals", hint="rate_per_s=5000")
    if most < 1 or requests < 100 or not 0 <= warmup < 1:
        raise RequestError(
            f"a sizing needs at least 1 replica and 100 requests, and a warm-up below 1, got {most}, "
            f"{requests} and {warmup}"
        )
    traffic = Poisson(rate_per_s) if rate_per_s is not None else arrivals
    if traffic is None or not (traffic.rate_per_s > 0 and math.isfinite(traffic.rate_per_s)):
        raise RequestError("arrivals must have a rate", hint="closed loops set none")
    chosen = balancer_of(balancer)
    if batching is None:
        policies: Sequence[Policy] = [Greedy(b) for b in BATCHES]
    else:
        policies = batching if isinstance(batching, Sequence) else [batching]
    trial = Trial(traffic, chosen, goals, overheads or Overheads(), requests, warmup, seed)
    rows = []
    for candidate in _candidates(workload, hardware, precision, options):
        pay = _price(candidate, cost, prices_from, int(options.get("devices", 1)))
        rows += [_row(candidate, policy, trial, pay, most, sure) for policy in policies]
    notes = []
    priced = [row for row in rows if row["status"] == "ok" and not math.isnan(row[OBJECTIVES[objective]])]
    if not priced and any(row["status"] == "ok" for row in rows):
        notes.append(f"nothing known of the {objective} of any fleet: the one with fewest replicas wins")
    return Sizing(tuple(rows), objective, tuple(notes))


@dataclass(frozen=True)
class _Candidate:
    """A device with a precision, or a law."""

    name: str
    precision: str
    device: Device | None
    law: Callable[[int], ServiceLaw]


def _candidates(workload: Any, hardware: Any, precision: Any, options: Any) -> Iterator[_Candidate]:
    if isinstance(hardware, Mapping):
        if workload is not None or precision is not None or options:
            raise RequestError(
                "service laws bring their own times", hint="leave the workload and options out"
            )
        for name, law in hardware.items():
            yield _Candidate(name, "", None, lambda most, law=law: law)  # type: ignore[misc]
        return
    if workload is None:
        raise RequestError("there is no workload", hint="or pass hardware={'name': law}")
    several = isinstance(hardware, Sequence) and not isinstance(hardware, str)
    precisions = precision if isinstance(precision, list | tuple) else [precision]
    for given in hardware if several else [hardware]:
        device = load_hardware(given)
        for kind in precisions:
            yield _Candidate(device.name, str(kind or ""), device, _surface(workload, device, kind, options))


def _surface(workload: Any, device: Device, precision: Any, options: Any) -> Callable[[int], ServiceLaw]:
    """Latency surfaces up to a batch; what one has simulated, the next need not."""
    known: dict[int, Any] = {}

    def of_batch(batch: int) -> Any:
        if batch not in known:
            known[batch] = simulate(workload, device, batch=batch, precision=precision, **options)
        return known[batch]

    def law(most: int) -> ServiceLaw:
        grid = [1 << k for k in range(most.bit_length()) if 1 << k < most] + [most]
        return DeviceService(of_batch, grid)

    return law


def _price(candidate: _Candidate, cost: CostModel | None, given: Any, devices: int) -> tuple[float, str]:
    """Hourly price of one replica [USD/h], and why it is unknown."""
    if candidate.device is None:
        price = float(getattr(candidate.law(1), "usd_per_hour", math.nan))
        return price, "" if price == price else "the law has no price"
    figure = replace(cost or CostModel(), utilisation=1.0).hourly(
        candidate.device, prices(candidate.device, given)
    )
    return figure.value * devices, "" if figure.value == figure.value else figure.basis


def _row(
    candidate: _Candidate, policy: Policy, trial: Trial, pay: tuple[float, str], most: int, sure: bool
) -> dict[str, Any]:
    """One row of the table."""
    names = [g.name + end for g in trial.goals for end in ("", "_low", "_high", "_band_low", "_band_high")]
    row: dict[str, Any] = {
        "hardware": candidate.name,
        "precision": candidate.precision,
        "batching": f"{type(policy).__name__} {policy.max_batch}",
        "status": "infeasible",
        "reason": "",
        "replicas": 0,
        **dict.fromkeys(
            ("capacity_per_s", "load_pct", "headroom_pct", "mean_batch", *names, "usd_per_hour",
             "usd_per_million_requests", "power_w", "energy_per_request_j"),
            math.nan,
        ),
        "unknown": "",
    }  # fmt: skip
    try:
        law = candidate.law(policy.max_batch)
        capacity = trial.capacity_per_s(law, policy)
        row["capacity_per_s"] = capacity
        timed = law.bounded("high") if sure and isinstance(law, DeviceService) else law
        count, found = smallest(timed, policy, trial, most)
    except InfeasibleError as error:
        out = error.outcome
        return {**row, "reason": f"{out.reason}: needs {out.need}, has {out.have}"}
    row |= {g.name: found.estimates[g.name].value for g in trial.goals}
    if not found.meets(trial.goals):
        worst = max(trial.goals, key=lambda g: found.estimates[g.name].value / g.limit)
        value = found.estimates[worst.name].value
        words = "requests are refused" if value > REFUSED_S / 10 else f"{value:.4g} with {count} replicas"
        return {**row, "status": "slo", "reason": f"{worst.name} above {worst.limit:g}: {words}"}
    if timed is not law:
        found = trial.run(law, policy, count)
        row |= {g.name: found.estimates[g.name].value for g in trial.goals}
    row |= _meets(law, policy, trial, found, count, capacity)
    return row | _bill(candidate, trial.rate_per_s, found, count, pay)


def _meets(
    law: ServiceLaw, policy: Policy, trial: Trial, found: Outcome, count: int, capacity: float
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "status": "ok",
        "replicas": count,
        "load_pct": 100 * trial.rate_per_s / (count * capacity),
        "headroom_pct": 100 * (count * capacity / trial.rate_per_s - 1),
        "mean_batch": found.mean_batch,
    }
    for goal in trial.goals:
        estimate = found.estimates[goal.name]
        row |= {f"{goal.name}_low": estimate.low, f"{goal.name}_high": estimate.high}
    if isinstance(law, DeviceService):
        for end in ("low", "high"):
            other = trial.run(law.bounded(end), policy, count)
            row |= {f"{g.name}_band_{end}": other.estimates[g.name].value for g in trial.goals}
    return row


def _bill(
    candidate: _Candidate, rate_per_s: float, found: Outcome, count: int, pay: tuple[float, str]
) -> dict[str, Any]:
    """Money and power of a fleet, and what is unknown of them."""
    hourly, unknown = pay
    idle = candidate.device.power.idle_w if candidate.device is not None else None
    if math.isnan(found.energy_j):
        unknown = "; ".join(filter(None, (unknown, "no energy of its executions")))
    elif idle is None:
        unknown = "; ".join(filter(None, (unknown, f"{candidate.name} has no idle power")))
    still = max(0.0, 1 - found.utilisation) * count
    return {
        "usd_per_hour": hourly * count,
        "usd_per_million_requests": hourly * count / 3600 / rate_per_s * 1e6,
        "power_w": found.energy_j * rate_per_s + (math.nan if idle is None else float(idle)) * still,
        "energy_per_request_j": found.energy_j,
        "unknown": unknown,
    }
