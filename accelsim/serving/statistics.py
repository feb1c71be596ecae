"""Means and percentiles of a run, with confidence intervals by batch means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BATCHES = 32
"""Stretches that a run is cut into; their scatter gives the error (method of batch means)."""

T_95 = 2.0395
"""Student's t with 31 degrees of freedom, two-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error.

    Attributes
    ----------
    value : float
        From all observations.
    standard_error : float
        From the scatter of the stretches; NaN when there are too few observations.
    """

    value: float
    standard_error: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % confidence interval."""
        return self.value - T_95 * self.standard_error

    @property
    def high(self) -> float:
        """Upper end of the 95 % confidence interval."""
        return self.value + T_95 * self.standard_error


def mean(values: Floats) -> Estimate:
    """Mean of a correlated series."""
    if not values.size:
        return Estimate(math.nan, math.nan)
    stretches = _stretches(values, 1)
    error = math.nan if stretches is None else float(stretches.mean(axis=1).std(ddof=1)) / math.sqrt(BATCHES)
    return Estimate(float(values.mean()), error)


def percentile(values: Floats, q: float) -> Estimate:
    """Percentile `q` (0 to 100) of a correlated series.

    A stretch must be long enough to have the percentile inside: at least ``10 / (1 - q)`` observations.
    """
    return percentiles(values, (q,))[0]


def percentiles(values: Floats, qs: Sequence[float]) -> list[Estimate]:
    """Several percentiles at once, see `percentile`."""
    if not values.size:
        return [Estimate(math.nan, math.nan)] * len(qs)
    found = np.percentile(values, qs)
    length = values.size // BATCHES
    enough = [length >= max(2, math.ceil(10.0 / max(1e-9, 1.0 - q / 100.0))) for q in qs]
    errors = np.full(len(qs), math.nan)
    stretches = _stretches(values, 2)
    if stretches is not None and any(enough):
        errors = np.percentile(stretches, qs, axis=1).std(axis=1, ddof=1) / math.sqrt(BATCHES)
    return [Estimate(float(v), float(e) if ok else math.nan) for v, e, ok in zip(found, errors, enough)]


def _stretches(values: Floats, least: int) -> Floats | None:
    length = values.size // BATCHES
    if length < max(least, 2):
        return None
    return values[: length * BATCHES].reshape(BATCHES, length)
