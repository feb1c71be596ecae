"""Error bands from residuals, by split-conformal prediction.

A band holds the share ``level`` of measured over predicted latency, for rows that are exchangeable with
those that it comes from: its ends are order statistics with the finite-sample correction (Vovk, Gammerman and
Shafer 2005, doi:10.1007/b106715; Lei et al. 2018, doi:10.1080/01621459.2017.1307116), one per side, so that
bands need not be symmetric. Rows of one shape group err alike, so they count as fewer: as the rows that would
say as much if they were independent (Kish 1965, the design effect of clusters).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu.intervals import ANY, LEVEL, cells_of, limit_of, step_of
from accelsim.hardware.bands import Band

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

LEAST_ROWS = 150
"""Rows that a cell needs; with fewer, its rows take the next more general one."""
LOWER_TAILS = (0.5, 0.4, 0.6, 0.3, 0.7)
"""Shares of what a band may miss that may lie below it: the narrowest band is taken, as errors are skewed."""
_ENOUGH = 100.0  # independent rows from which on the tails are told apart
LEAST_GAIN = 0.03
"""A cell is kept where its own band has an interval score that is better by this share."""


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
        With n independent rows, see `effective_rows`, and a the part of 1 - level on a side, the quantile
        (1 - a)(1 + 1 / n) of each side. Where that is above one, the most distant residual, moved away from
        the median as far as a normal distribution would need.
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
    """One end of a band: the order statistic that leaves `tail` outside of it."""
    at = order[::side]
    values, heaped = side * r[at], np.cumsum(w[at]) / w.sum()
    wanted = (1.0 - tail) * (1.0 + 1.0 / n)
    if wanted <= 1.0:
        return side * float(values[min(int(np.searchsorted(heaped, wanted - 1e-12)), len(r) - 1)])
    # A spread that is itself estimated from n values is wider by about sqrt(1 + 2 / n) (Student).
    n = max(n, 2.0)
    reach = _normal(1.0 - tail) / _normal(n / (n + 1.0)) * (1.0 + 2.0 / n) ** 0.5
    middle = float(np.median(values))
    return side * (middle + reach * (float(values[-1]) - middle))


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


def interval_score(log_ratio: Array, low: float | Array, high: float | Array, level: float = LEVEL) -> Array:
    """Width plus 2 / (1 - level) times the distance by which a band misses (Gneiting and Raftery 2007,
    equation 43), of logarithms.
    """
    miss = np.maximum(low - log_ratio, 0.0) + np.maximum(log_ratio - high, 0.0)
    return np.asarray(high - low + 2.0 / (1.0 - level) * miss)


def cells(
    residuals: pd.DataFrame, level: float = LEVEL, least_gain: float = LEAST_GAIN, widen: float = 1.0
) -> dict[str, tuple[Band, float]]:
    """Bands by cell, from the most general to the most specific that pay.

    Parameters
    ----------
    residuals : DataFrame
        See `accelsim.calibration.rows.Sample.residuals`; a column ``weight`` counts rows differently.
    level : float
    least_gain : float
        See `LEAST_GAIN`.
    widen : float
        Factor on the logarithms of all bands.

    Returns
    -------
    dict
        Cell to its band and to what it gains: the interval score that it saves, summed over its rows.
    """
    kept: dict[str, tuple[Band, float]] = {}
    for name, rows, parent in _tree(residuals):
        part = residuals.iloc[rows]
        depth = name.count("/")
        if depth > 1 and len(part) < LEAST_ROWS:
            continue
        weight = part["weight"].to_numpy() if "weight" in part.columns else None
        r = part["log_ratio"].to_numpy()
        low, high = conformal(r, level, part["group"], weight)
        gain = np.inf
        if parent is not None:
            held = next(kept[p][0] for p in parent if p in kept)
            wide = np.log(held.low) / widen, np.log(held.high) / widen
            if depth == 1:  # says that there are rows of these formats, even if too few for a band
                low, high = (low, high) if len(part) >= LEAST_ROWS else wide
            else:
                before = interval_score(r, wide[0], wide[1], level)
                after = interval_score(r, low, high, level)
                w = np.ones_like(r) if weight is None else weight
                gain = float(w @ (before - after))
                if gain < least_gain * float(w @ before):
                    continue
        seconds = part["predicted_s"]
        ends = float(np.exp(low * widen)), float(np.exp(high * widen))
        band = Band.of(*ends, level, len(part), float(seconds.min()), float(seconds.max()))
        kept[name] = (band, gain)
    return kept


def _tree(residuals: pd.DataFrame) -> list[tuple[str, npt.NDArray[np.intp], tuple[str, ...] | None]]:
    """Cells with their rows and the more general cells, nearest first; general cells come first."""
    size, limit = step_of(residuals["predicted_s"]), limit_of(residuals["bound"])
    leaves: dict[tuple[str, str, int, int], list[int]] = {}
    keys = zip(residuals["op"].astype(str), residuals["formats"], size.tolist(), limit.tolist())
    for position, key in enumerate(keys):
        leaves.setdefault(key, []).append(position)
    rows: dict[str, list[int]] = {}
    above: dict[str, tuple[str, ...] | None] = {}
    for leaf, positions in leaves.items():
        chain = cells_of(*leaf)
        for depth, name in enumerate(chain):
            rows.setdefault(name, []).extend(positions)
            above[name] = chain[depth + 1 :] or None
    order = sorted((n for n in rows if not n.endswith(f"/{ANY}")), key=lambda n: (n.count("/"), n))
    return [(name, np.array(sorted(rows[name])), above[name]) for name in order]


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
    size, limit = step_of(residuals["predicted_s"]), limit_of(residuals["bound"])
    rows = list(zip(residuals["op"].astype(str), residuals["formats"], size.tolist(), limit.tolist()))
    found = {}
    for key in set(rows):
        band = next(bands[c] for c in cells_of(*key) if c in bands)
        low, high = np.log(band.low), np.log(band.high)
        found[key] = ((low + high) / 2.0, (high - low) / (2.0 * _normal(0.5 + band.level / 2.0)))
    middle, sigma = np.array([found[key] for key in rows]).T
    return middle, sigma


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
