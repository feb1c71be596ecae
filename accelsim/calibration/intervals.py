"""Error bands from residuals, by cross-conformal prediction with normalised residuals.

Some rows are harder than others, and the model knows which: the middle and the logarithm of the spread of log
errors are linear in `accelsim.architectures.gpu.intervals.features`. A band holds the share ``level`` of
measured over predicted latency, for rows that are exchangeable with those that it comes from: its ends are
order statistics of residuals over their spread, with a middle and a spread from other shape groups than the
residual's (Lei et al. 2018, doi:10.1080/01621459.2017.1307116, section 5.2; Vovk 2015,
doi:10.1007/s10472-013-9368-4), one per side, so that bands need not be symmetric. Rows of one shape group err
alike, so they count as fewer: as the rows that would say as much if they were independent (Kish 1965, the
design effect of clusters).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import STALLS
from accelsim.architectures.gpu.intervals import KNOTS_S, LEVEL, cells_of, ends, features
from accelsim.hardware.bands import Band

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

LEAST_ROWS = 150
"""Rows that a spread by feature needs, and a band of one operator and format."""
LOWER_TAILS = (0.5, 0.4, 0.6, 0.3, 0.7)
"""Shares of what a band may miss that may lie below it: the narrowest band is taken, as errors are skewed."""
_ENOUGH = 100.0  # independent rows from which on the tails are told apart
FOLDS = 4
"""Parts of the shape groups, each of which is normalised by the others."""
PRIOR_ROWS, PRIOR_ROWS_OTHERS = 5.0, 300.0
"""Rows that say of each coefficient that it is zero, as in a band that is the same for all rows; more of them
where the rows are those of other devices, of which only what is plain carries over."""
_OUTLIER = 4.0
"""Mean errors from which on an error says no more of the spread."""


def conformal(
    log_ratio: npt.ArrayLike,
    level: float = LEVEL,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> tuple[float, float]:
    """Ends of a band of logarithms.

    Parameters
    ----------
    log_ratio : array_like
        Logarithm of measured over predicted latency of rows that nothing was fitted on.
    level : float
        Share of new rows that the band should hold.
    groups : array_like, optional
        Shape group of each row; by default each row is its own.
    weights : array_like, optional
        Of each row, as where families of devices of different row counts should count alike.

    Returns
    -------
    low, high : float
        With n rows and a the part of 1 - level on a side, the quantile (1 - a)(1 + 1 / n) of each side. Where
        that is above one, the most distant residual, moved away from the median as far as a normal
        distribution would need. Rows of a group that err alike move it further, see `effective_rows`.
    """
    r = np.asarray(log_ratio, dtype=np.float64)
    w = np.ones_like(r) if weights is None else np.asarray(weights, dtype=np.float64)
    n = float(len(r)) if groups is None else effective_rows(r, groups)
    order: npt.NDArray[np.intp] = np.argsort(r, kind="stable")
    found = []
    for share in LOWER_TAILS if n >= _ENOUGH else (0.5,):
        tails = (share * (1.0 - level), (1.0 - share) * (1.0 - level))
        low, high = (_end(r, w, order, side, tail, n) for side, tail in zip((-1, 1), tails))
        found.append((high - low, low, high))
    return min(found, key=lambda entry: entry[0])[1:]


def _end(r: Array, w: Array, order: npt.NDArray[np.intp], side: int, tail: float, n: float) -> float:
    """One end of a band: the order statistic that leaves `tail` outside of it, moved away from the median as
    Student's distribution would for n rows rather than all.
    """
    at, rows = order[::side], float(len(r))
    values, heaped = side * r[at], np.cumsum(w[at]) / w.sum()
    wanted = (1.0 - tail) * (1.0 + 1.0 / rows)
    reach = (_student(n) / _student(rows)) ** 0.5
    if wanted > 1.0:  # the most distant row is not distant enough
        reach = _normal(1.0 - tail) / _normal(max(rows, 2.0) / (max(rows, 2.0) + 1.0)) * _student(n) ** 0.5
    end = float(values[min(int(np.searchsorted(heaped, wanted - 1e-12)), len(r) - 1)])
    middle = float(np.median(values))
    return side * (middle + reach * (end - middle))


def _student(n: float) -> float:
    """By how much the variance of what is predicted from n rows is greater, to the first order in 1 / n: the
    square of Student's 95 % quantile over that of a normal distribution, and the error of the mean.
    """
    return 1.0 + 3.0 / n


def effective_rows(values: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Independent rows that would say as much as rows of groups whose values are alike: n / (1 + (m - 1) r)
    with m rows per group and the intraclass correlation r of their ranks, by analysis of variance; at least
    the number of groups. Few groups say little about r, so it is the upper end of its one-sided 95 % interval
    (Searle 1971), with the chi-squared quantile of Wilson and Hilferty 1931.
    """
    x = np.argsort(np.argsort(np.asarray(values, dtype=np.float64), kind="stable"), kind="stable") / 1.0
    _, at = np.unique(np.asarray(groups), return_inverse=True)
    size = np.bincount(at).astype(np.float64)
    n, k = float(len(x)), float(len(size))
    if k < 2 or n == k:
        return k
    means = np.bincount(at, weights=x) / size
    between = float(size @ (means - x.mean()) ** 2) / (k - 1.0)
    within = float(np.sum((x - means[at]) ** 2)) / (n - k)
    typical = (n - float(size @ size) / n) / (k - 1.0)
    spread = 2.0 / (9.0 * (k - 1.0))
    least = max(1.0 - spread + _normal(0.05) * spread**0.5, 0.1) ** 3
    between /= least
    alike = max(0.0, (between - within) / max(between + (typical - 1.0) * within, 1e-12))
    return max(k, n / (1.0 + (float(size @ size) / n - 1.0) * alike))


def _normal(share: float) -> float:
    return NormalDist().inv_cdf(share)


def cells(
    residuals: pd.DataFrame, level: float = LEVEL, widen: float = 1.0, others: bool = False
) -> dict[str, Band]:
    """Bands by cell, see `accelsim.architectures.gpu.intervals.cells_of`.

    Parameters
    ----------
    residuals : DataFrame
        See `accelsim.calibration.rows.Sample.residuals`; a column ``weight`` counts rows differently.
    level : float
    widen : float
        Factor on the logarithms of the ends.
    others : bool
        The rows are those of other devices than the bands are for: their middle is their own.
    """
    found: dict[str, Band] = {}
    for op, whole in residuals.groupby(residuals["op"].astype(str), sort=True):
        found[op] = band_of(whole, level, widen, others)
        for formats, part in whole.groupby("formats", sort=True):
            few = len(part) < LEAST_ROWS
            same = len(part) == len(whole)
            found[f"{op}/{formats}"] = found[op] if few or same else band_of(part, level, widen, others)
    return found


def band_of(residuals: pd.DataFrame, level: float, widen: float, others: bool) -> Band:
    """The band of rows of one operator, see `cells`."""
    r = residuals["log_ratio"].to_numpy(dtype=float)
    w = residuals["weight"].to_numpy(dtype=float) if "weight" in residuals.columns else np.ones_like(r)
    w = w * len(r) / w.sum()
    seconds = residuals["predicted_s"]
    span = float(seconds.min()), float(seconds.max())
    fold = _folds(residuals["group"])
    if len(r) < LEAST_ROWS or not fold.any():
        low, high = conformal(r, level, residuals["group"], w)
        return Band.of(float(np.exp(low * widen)), float(np.exp(high * widen)), level, len(r), *span)
    x = design(residuals)
    z = np.empty_like(r)
    for part in np.unique(fold):
        there = fold != part
        middle, spread = _profile(r[there], x[there], w[there], others)
        z[~there] = (r[~there] - x[~there] @ middle) / np.exp(x[~there] @ spread)
    low, high = conformal(z, level, residuals["group"], w)
    middle, spread = _profile(r, x, w, others)
    typical = float(np.median(x @ spread))
    spread[: len(KNOTS_S)] -= typical  # of which every row has one in all
    low, high = (end * widen * np.exp(typical) for end in (low, high))
    shapes = (tuple(round(float(v), 3) for v in values) for values in (middle, spread))
    return Band.of(float(np.exp(low)), float(np.exp(high)), level, len(r), *span, *shapes)


def design(residuals: pd.DataFrame) -> Array:
    """`accelsim.architectures.gpu.intervals.features` of rows of `Sample.residuals`."""
    stalls = residuals[[f"stall_{name}_s" for name in STALLS]].to_numpy(dtype=float)
    return features(residuals["predicted_s"], stalls, residuals["stack"].to_numpy(dtype=str))


def _folds(groups: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """One of `FOLDS` for each row, the same for all rows of a group; zeros if there is one group."""
    _, at = np.unique(np.asarray(groups), return_inverse=True)
    order = np.random.default_rng(0).permutation(int(at.max()) + 1)
    return (order % FOLDS).astype(np.intp)[at]


def _profile(r: Array, x: Array, w: Array, others: bool) -> tuple[Array, Array]:
    """Middle and spread by feature.

    The middle has the least absolute deviation (reweighted least squares); it is zero for other devices. The
    spread is the mean distance from it, with a logarithm that is linear in the features: the maximum of the
    likelihood of exponentially distributed distances, a concave function, by Newton's method.
    """
    believed = PRIOR_ROWS_OTHERS if others else PRIOR_ROWS
    prior = believed * np.eye(x.shape[1])
    middle: Array = np.zeros(x.shape[1])
    size = max(float(np.median(np.abs(r))), 1e-9)
    for _ in range(0 if others else 8):
        q = w * size / np.maximum(np.abs(r - x @ middle), 0.05 * size)
        middle = np.asarray(np.linalg.solve((x * q[:, None]).T @ x + prior, x.T @ (q * r)), np.float64)
    error = np.abs(r - x @ middle)
    mean = max(float(np.average(error, weights=w)), 1e-9)
    error = np.minimum(error / mean, _OUTLIER)
    spread: Array = np.zeros(x.shape[1])
    for _ in range(12):
        q = w * error * np.exp(-x @ spread)
        step = np.linalg.solve((x * q[:, None]).T @ x + prior, x.T @ (w - q) + believed * spread)
        most = float(np.abs(x @ step).max())
        spread = spread - step / max(1.0, most)
        if most < 1e-3:
            break
    spread[: len(KNOTS_S)] += np.log(mean)
    return middle, spread


def common_share(residuals: pd.DataFrame, bands: Mapping[str, Band], cluster: Any) -> float:
    """Share of the variance of log errors that rows of one run have in common.

    The mean product of the standardised errors of two rows of a cluster, over all pairs of different shape
    groups, each cluster counting alike: the intraclass correlation.

    Parameters
    ----------
    residuals : DataFrame
        See `cells`.
    bands : mapping of str to Band
        They standardise the errors: to their middle and their width.
    cluster : array_like
        Label of each row; rows of one cluster are kernels that one run could have.
    """
    import pandas as pd

    middle, sigma = spreads(residuals, bands)
    z = (residuals["log_ratio"].to_numpy() - middle) / sigma
    z = np.clip(z, -3.0, 3.0)  # a failed measurement is no correlation
    by_group = pd.DataFrame({"c": np.asarray(cluster), "g": residuals["group"].to_numpy(), "z": z})
    means = by_group.groupby(["c", "g"], sort=True)["z"].mean().reset_index().groupby("c")["z"]
    n, total = means.size().to_numpy(), means.sum().to_numpy()
    squares = means.apply(lambda values: float((values**2).sum())).to_numpy()
    pairs = n * (n - 1.0)
    known = pairs > 0
    if not known.any():
        return 0.5
    shared = float(np.mean((total[known] ** 2 - squares[known]) / pairs[known]))
    return float(np.clip(shared / max(float(np.mean(z**2)), 1e-9), 0.05, 0.95))


def spreads(residuals: pd.DataFrame, bands: Mapping[str, Band]) -> tuple[Array, Array]:
    """Mean and standard deviation of the logarithm that each row's band stands for: its middle, and its
    half-width over the normal quantile of its level.
    """
    low, high = (np.empty(len(residuals)) for _ in range(2))
    x = design(residuals)
    names = residuals["op"].astype(str) + "/" + residuals["formats"].astype(str)
    for name, rows in names.groupby(names, sort=False).indices.items():
        band = next(bands[cell] for cell in cells_of(*str(name).split("/")) if cell in bands)
        low[rows], high[rows] = ends(band, x[rows])
    return (low + high) / 2.0, (high - low) / (2.0 * _normal(0.5 + LEVEL / 2.0))


def coverage(frame: pd.DataFrame, level: float = LEVEL) -> dict[str, float]:
    """How good bands are: ``rows``, ``coverage_pct``, median ``half_width_pct`` over the prediction, mean
    ``interval_score_pct`` over the measurement.

    Parameters
    ----------
    frame : DataFrame
        ``latency_s predicted_s low_s high_s``.
    """
    measured, predicted, low, high = (
        frame[c].to_numpy(dtype=float) for c in ("latency_s", "predicted_s", "low_s", "high_s")
    )
    miss = np.maximum(low - measured, 0.0) + np.maximum(measured - high, 0.0)
    return {
        "rows": float(len(frame)),
        "coverage_pct": 100.0 * float(np.mean((low <= measured) & (measured <= high))),
        "half_width_pct": 50.0 * float(np.median((high - low) / predicted)),
        "interval_score_pct": 100.0 * float(np.mean((high - low + 2.0 / (1.0 - level) * miss) / measured)),
    }
