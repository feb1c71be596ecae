"""Which device is better, and is the difference larger than the error?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible
from accelsim.engine.simulate import simulate

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.engine.result import Result

SURE = 0.95
"""Probability from which one device counts as better than another."""

METRICS = {"latency_s": False, "throughput_per_s": True}
"""Metrics that have an error band, and whether more is better."""


@dataclass(frozen=True)
class Comparison:
    """Devices side by side.

    Attributes
    ----------
    frame : DataFrame
        One row per device, the best first: ``hardware``, the metric with ``low`` and ``high``, ``ratio`` to
        the best, ``probability_better`` (that it beats the best row) and ``verdict``: ``best``, ``worse``,
        ``not distinguishable`` or ``infeasible: reason``.
    metric : str
    """

    frame: pd.DataFrame
    metric: str

    @property
    def winner(self) -> str | None:
        """The device that is better than every other; None where that cannot be said."""
        rivals = self.frame["verdict"] == "not distinguishable"
        best = self.frame["verdict"] == "best"
        return None if rivals.any() or not best.any() else str(self.frame.loc[best, "hardware"].iloc[0])

    def __str__(self) -> str:
        lines = []
        for row in self.frame.to_dict("records"):
            if math.isnan(row["value"]):
                lines.append(f"{row['hardware']}: {row['verdict']}")
                continue
            band = f"{row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g})"
            share = f"{row['ratio']:.3g} of the best"
            lines.append(f"{row['hardware']}: {self.metric} {band}, {share}, {row['verdict']}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False)


def compare(
    workload: Any, hardware: Sequence[Any], *, metric: str = "latency_s", **settings: Any
) -> Comparison:
    """Compare devices on one workload, with a plain verdict.

    Each result's error is lognormal between the ends of its band, and errors of different devices are
    independent, so the probability that one beats another is that of a normal difference of logarithms.

    Parameters
    ----------
    workload : str, path or Graph
    hardware : sequence
        At least two devices.
    metric : {"latency_s", "throughput_per_s"}
        The number to compare; only these have an error band.
    **settings
        Further arguments of `simulate`.

    Returns
    -------
    Comparison

    Raises
    ------
    RequestError
        Fewer than two devices, or a metric without a band.
    """
    if isinstance(hardware, str) or len(hardware) < 2:
        raise RequestError("a comparison needs at least two devices")
    if metric not in METRICS:
        raise RequestError(f"'{metric}' has no error band", hint=f"compare {' or '.join(METRICS)}")
    return ranked([simulate(workload, device, **settings) for device in hardware], metric)


def ranked(outcomes: Sequence[Result | Infeasible], metric: str) -> Comparison:
    """Compare results of one question on several devices; see `compare`."""
    import pandas as pd

    rows = [_row(outcome, metric) for outcome in outcomes]
    feasible = [r for r in rows if not math.isnan(r["value"])]
    more = METRICS[metric]
    feasible.sort(key=lambda r: -r["value"] if more else r["value"])
    for row in feasible:
        best = feasible[0]
        row["ratio"] = row["value"] / best["value"]
        chance = probability_less(row, best)
        row["probability_better"] = 1.0 - chance if more else chance
        sure = row["probability_better"] <= 1.0 - SURE
        row["verdict"] = "best" if row is best else "worse" if sure else "not distinguishable"
    others = [r for r in rows if math.isnan(r["value"])]
    return Comparison(pd.DataFrame(feasible + others), metric)


def _row(outcome: Result | Infeasible, metric: str) -> dict[str, Any]:
    row = {name: outcome.summary.get(name) for name in ("hardware", "precision")}
    if isinstance(outcome, Infeasible):
        unknown = dict.fromkeys(("value", "low", "high", "ratio", "probability_better"), math.nan)
        return {**row, **unknown, "verdict": f"infeasible: {outcome.reason}"}
    value, band = outcome.summary[metric], outcome.intervals["latency_s"]
    low, high = band.low / outcome.summary["latency_s"], band.high / outcome.summary["latency_s"]
    if METRICS[metric]:
        low, high = 1.0 / high, 1.0 / low
    ends = {"value": value, "low": value * low, "high": value * high}
    return {**row, **ends, "level": band.level, "basis": band.basis}


def probability_less(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Probability that the truth behind `a` is less than that behind `b`.

    Each has ``low high level``: a lognormal with that central interval.
    """
    (mean_a, spread_a), (mean_b, spread_b) = _lognormal(a), _lognormal(b)
    spread = math.hypot(spread_a, spread_b)
    if spread == 0.0:
        return 0.5 if mean_a == mean_b else float(mean_a < mean_b)
    return NormalDist().cdf((mean_b - mean_a) / spread)


def _lognormal(row: Mapping[str, float]) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.5 + row["level"] / 2.0)
    low, high = math.log(row["low"]), math.log(row["high"])
    return (low + high) / 2.0, (high - low) / (2.0 * z)
