"""Robust regression with a prior: few parameters, a residual function without derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SHARP = 0.02  # residuals below this count by their square, those above by their size
_STEP = 0.02  # of differences and of the finest search
_LEAST_SCALE = 0.02


@dataclass(frozen=True)
class Problem:
    """Least sum of robust losses of residuals plus the squared distance from a prior.

    Attributes
    ----------
    residual : callable
        Parameters to residuals.
    start, low, high : ndarray
        Prior mean, where the search starts, and limits.
    prior_sd : ndarray
        Standard deviation of the prior.
    weight : ndarray
        Of each residual.
    """

    residual: Callable[[Array], Array]
    start: Array
    low: Array
    high: Array
    prior_sd: Array
    weight: Array


@dataclass(frozen=True)
class _Loss:
    """The residuals' part of the objective, for residuals with a Laplace scale and outliers beyond `reach`.

    Welsch's redescending form of a smoothed absolute value: loss = reach (1 - exp(-(sqrt(r^2 + s^2) - s) /
    reach)) / scale.
    """

    scale: float
    reach: float
    weight: Array

    def value(self, r: Array) -> float:
        size = np.sqrt(r**2 + _SHARP**2) - _SHARP
        return float(self.weight @ (self.reach * -np.expm1(-size / self.reach))) / self.scale

    def curvature(self, r: Array) -> Array:
        """Weights with which a sum of squares has the gradient of the loss at `r`."""
        root = np.sqrt(r**2 + _SHARP**2)
        return np.asarray(self.weight * np.exp(-(root - _SHARP) / self.reach) / (root * self.scale))


def minimise(problem: Problem, rounds: int = 12, fine: bool = True) -> Array:
    """Levenberg-Marquardt steps on reweighted residuals (Holland and Welsch 1977,
    doi:10.1080/03610927708827533), then with `fine` a pattern search along each parameter, which edges do not
    mislead.

    The answer is a function of the problem alone.
    """
    p = problem
    x = np.clip(p.start, p.low, p.high)
    r = p.residual(x)
    damping = 1e-2
    loss = _loss(p, r)
    for _ in range(rounds):
        loss = _loss(p, r)
        here = loss.value(r) + _prior(p, x)
        slope = _slope(p, x, r)
        w = loss.curvature(r)
        gradient = slope.T @ (w * r) + (x - p.start) / p.prior_sd**2
        hessian = (slope.T * w) @ slope + np.diag(1.0 / p.prior_sd**2)
        gained = 0.0
        while damping < 1e4:
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), -gradient)
            trial = np.clip(x + np.clip(step, -0.5, 0.5), p.low, p.high)
            r_trial = p.residual(trial)
            there = loss.value(r_trial) + _prior(p, trial)
            if there < here:
                gained = here - there
                x, r, damping = trial, r_trial, damping / 5.0
                break
            damping *= 5.0
        if gained < 1e-4 * abs(here):
            break
        damping = max(damping, 1e-4)
    return _pattern(p, x, r, loss) if fine else x


def robust(r: Array) -> float:
    """Mean absolute residual, outliers beyond a factor of about 1.6 counting as that."""
    reach = 0.5
    return float(np.mean(-reach * np.expm1(-np.abs(r) / reach)))


def _pattern(p: Problem, x: Array, r: Array, loss: _Loss) -> Array:
    best = loss.value(r) + _prior(p, x)
    step = 0.16
    while step > _STEP:
        improved = False
        for i in range(len(x)):
            for sign in (1.0, -1.0):
                trial = x.copy()
                trial[i] = np.clip(x[i] + sign * step, p.low[i], p.high[i])
                if trial[i] == x[i]:
                    continue
                there = loss.value(p.residual(trial)) + _prior(p, trial)
                if there < best - 1e-6 * abs(best):
                    best, x, improved = there, trial, True
                    break
        if not improved:
            step /= 2.0
    return x


def _loss(p: Problem, r: Array) -> _Loss:
    scale = max(float(np.median(np.abs(r))), _LEAST_SCALE)
    return _Loss(scale, 6.0 * scale, p.weight)


def _prior(p: Problem, x: Array) -> float:
    return 0.5 * float(np.sum(((x - p.start) / p.prior_sd) ** 2))


def _slope(p: Problem, x: Array, r: Array) -> Array:
    found = np.zeros((len(r), len(x)))
    for i in range(len(x)):
        step = _STEP if x[i] + _STEP <= p.high[i] else -_STEP
        moved = x.copy()
        moved[i] += step
        found[:, i] = (p.residual(moved) - r) / step
    return found
