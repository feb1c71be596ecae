"""How far predictions are from measurements, in percent of the measurement."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.calibration.measurements import roofline
from accelsim.core.errors import RequestError
from accelsim.hardware.schema import GpuDevice

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

SMALL_S = 20e-6
"""Measured latency below which launch and latency decide, whatever the roofline says [s]."""


def error_pct(predicted_s: npt.ArrayLike, measured_s: npt.ArrayLike) -> Array:
    """Signed error of each row, 100 (predicted - measured) / measured [%]."""
    predicted, measured = np.asarray(predicted_s, dtype=float), np.asarray(measured_s, dtype=float)
    return 100.0 * (predicted - measured) / measured


def errors(frame: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Error of predictions, per group.

    Parameters
    ----------
    frame : DataFrame
        ``predicted_s`` and ``latency_s``.
    by : sequence of str
        Columns to group by (``device``, ``backend``, ``dtype``, ``regime``); none: all rows together.

    Returns
    -------
    DataFrame
        ``rows``; ``mape_pct`` mean, ``median_ape_pct`` median and ``p90_ape_pct`` 90th percentile of the
        absolute error; ``bias_pct`` median signed error. Rows without a prediction count as ``missing`` and
        in nothing else.
    """
    import pandas as pd

    _need(frame, "predicted_s", "latency_s", *by)
    signed = error_pct(frame["predicted_s"], frame["latency_s"])
    table = pd.DataFrame({"signed": signed, "ape": np.abs(signed)}, index=frame.index)
    grouped = table.groupby([frame[c] for c in by] if by else np.zeros(len(table), dtype=int), observed=True)
    out = pd.DataFrame(
        {
            "rows": grouped["ape"].count(),
            "missing": grouped["ape"].size() - grouped["ape"].count(),
            "mape_pct": grouped["ape"].mean(),
            "median_ape_pct": grouped["ape"].median(),
            "p90_ape_pct": grouped["ape"].quantile(0.9),
            "bias_pct": grouped["signed"].median(),
        }
    )
    return out.reset_index() if by else out.reset_index(drop=True)


def regime(frame: pd.DataFrame, device: str | GpuDevice) -> npt.NDArray[np.str_]:
    """What should limit each row: ``small`` below `SMALL_S`, else the longest of the datasheet's times for
    arithmetic (``compute``), external memory (``memory``) and the link (``link``).
    """
    compute, memory, link = roofline(frame, device)
    longest = np.array(["compute", "memory", "link"])[np.argmax([compute, memory, link], axis=0)]
    return np.where(frame["latency_s"].to_numpy(dtype=float) < SMALL_S, "small", longest)


def intervals(frame: pd.DataFrame, level: float, by: Sequence[str] = ()) -> pd.DataFrame:
    """Quality of error bands, per group.

    Parameters
    ----------
    frame : DataFrame
        ``low_s``, ``high_s``, ``predicted_s`` and ``latency_s``.
    level : float
        Share of measurements that a band promises to hold, between 0 and 1.
    by : sequence of str
        Columns to group by.

    Returns
    -------
    DataFrame
        ``rows`` with a band; ``coverage_pct`` share of measurements inside (on the edge counts);
        ``half_width_pct`` median of half the band over the prediction; ``interval_score_pct`` mean of
        `interval_score_pct`, lower is better.
    """
    import pandas as pd

    _need(frame, "low_s", "high_s", "predicted_s", "latency_s", *by)
    low, high, measured = (frame[c].to_numpy(dtype=float) for c in ("low_s", "high_s", "latency_s"))
    known = np.isfinite(low) & np.isfinite(high)
    table = pd.DataFrame(
        {
            "inside": np.where(known, 100.0 * ((low <= measured) & (measured <= high)), np.nan),
            "half": 50.0 * (high - low) / frame["predicted_s"].to_numpy(dtype=float),
            "score": interval_score_pct(low, high, measured, level),
        },
        index=frame.index,
    )
    grouped = table.groupby([frame[c] for c in by] if by else np.zeros(len(table), dtype=int), observed=True)
    out = pd.DataFrame(
        {
            "rows": grouped["inside"].count(),
            "coverage_pct": grouped["inside"].mean(),
            "half_width_pct": grouped["half"].median(),
            "interval_score_pct": grouped["score"].mean(),
        }
    )
    return out.reset_index() if by else out.reset_index(drop=True)


def interval_score_pct(
    low_s: npt.ArrayLike, high_s: npt.ArrayLike, measured_s: npt.ArrayLike, level: float
) -> Array:
    """Width of each band plus 2 / (1 - level) times the distance by which it misses, in % of the measurement.

    The interval score of Gneiting and Raftery 2007, doi:10.1198/016214506000001437, equation 43, whose
    expectation the true quantiles minimise.
    """
    if not 0.0 < level < 1.0:
        raise RequestError(f"level {level} must lie between 0 and 1")
    low, high, measured = (np.asarray(a, dtype=float) for a in (low_s, high_s, measured_s))
    miss = np.maximum(low - measured, 0.0) + np.maximum(measured - high, 0.0)
    return 100.0 * (high - low + 2.0 / (1.0 - level) * miss) / measured


def noise_floor(frame: pd.DataFrame, shape: Sequence[str], between: str = "backend") -> dict[str, float]:
    """How far measurements of the same shape are from each other: no model can be expected to do better.

    Parameters
    ----------
    frame : DataFrame
        ``latency_s``, the shape columns and the column that tells measurements apart.
    shape : sequence of str
        Columns that name a shape.
    between : str
        Column whose values are compared, each pair once.

    Returns
    -------
    dict
        ``pairs`` and ``median_pct``, ``mean_pct``, ``p90_pct`` of |a - b| over the mean of a and b; NaN
        without pairs.
    """
    _need(frame, "latency_s", between, *shape)
    wide = frame.pivot_table(index=list(shape), columns=between, values="latency_s", observed=True)
    columns = [wide[c].to_numpy(dtype=float) for c in wide.columns]
    apart = [200.0 * np.abs(a - b) / (a + b) for a, b in combinations(columns, 2)]
    found = np.concatenate(apart) if apart else np.zeros(0)
    found = found[np.isfinite(found)]
    if not len(found):
        return {"pairs": 0, "median_pct": np.nan, "mean_pct": np.nan, "p90_pct": np.nan}
    return {
        "pairs": len(found),
        "median_pct": float(np.median(found)),
        "mean_pct": float(found.mean()),
        "p90_pct": float(np.quantile(found, 0.9)),
    }


def _need(frame: pd.DataFrame, *columns: str) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise RequestError(
            f"the table has no column '{missing[0]}'",
            hint=f"columns are: {', '.join(map(str, frame.columns))}",
        )
