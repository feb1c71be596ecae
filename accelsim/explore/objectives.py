"""Latency objectives as users name them: ``{"p99_ms": 15}``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.serving import statistics

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_KEY = re.compile(r"(?:p(\d+(?:[._]\d+)?)|mean)_(s|ms|us)")


@dataclass(frozen=True)
class Limit:
    """One latency objective: a percentile (or the mean, None) and its limit."""

    name: str
    percentile: float | None
    unit_s: float
    limit: float

    def measure(self, latency_s: NDArray[np.float64]) -> statistics.Estimate:
        """What a run has, in the objective's unit."""
        found = (
            statistics.mean(latency_s)
            if self.percentile is None
            else statistics.percentile(latency_s, self.percentile)
        )
        return statistics.Estimate(found.value / self.unit_s, found.standard_error / self.unit_s)


def limits(slo: Mapping[str, float]) -> tuple[Limit, ...]:
    """Objectives as given: ``{"p99_ms": 15, "mean_ms": 5}``.

    Raises
    ------
    RequestError
        None, a name that is no percentile, or a limit that is not positive.
    """
    if not slo:
        raise RequestError("there is no objective", hint='give slo={"p99_ms": 15}')
    found = []
    for name, limit in slo.items():
        match = _KEY.fullmatch(name)
        percentile = float(match[1].replace("_", ".")) if match and match[1] else None
        if not match or (percentile is not None and not 0 < percentile < 100):
            hint = did_you_mean(name, ["mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p99_9_ms"])
            raise RequestError(f"objective '{name}' is no known percentile", hint=hint)
        if not (limit > 0 and math.isfinite(limit)):
            raise RequestError(f"the limit of '{name}' must be positive, got {limit}")
        found.append(Limit(name, percentile, _UNITS[match[2]], float(limit)))
    return tuple(found)
