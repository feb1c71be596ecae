"""Predictions against measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.report.plots.style import columns, drawing, empty, engineering, remark, short, styles, thinned

if TYPE_CHECKING:
    import pandas as pd

GROUPS = 8


def predicted_measured(
    frame: pd.DataFrame,
    *,
    by: str = "device",
    measured: str = "latency_s",
    predicted: str = "predicted_s",
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """Predicted over measured, the diagonal, and the band of a factor of 1.25.

    Parameters
    ----------
    frame : DataFrame
        A row per measurement, as ``accelsim validate --rows`` writes them.
    by, measured, predicted : str
        Columns.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    columns(frame, (measured, predicted), "the measurements")
    with drawing(ax, width) as axes:
        axes.set(xlabel="measured [s]", ylabel="predicted [s]")
        known = frame[(frame[measured] > 0) & (frame[predicted] > 0)]
        lost = len(frame) - len(known)
        said = f"{lost:,} rows without both numbers not shown" if lost else ""
        if known.empty:
            empty(axes, said or "no measurements")
            return axes
        import numpy as np

        shown, cut = thinned(known)
        groups = list(dict.fromkeys(known[by])) if by in known.columns else [""]
        for name, (colour, marker, _, _) in styles(groups[:GROUPS]).items():
            part = shown[shown[by] == name] if by in known.columns else shown
            axes.scatter(
                part[measured],
                part[predicted],
                color=colour,
                marker=marker,
                s=3 if len(shown) > 500 else 9,
                linewidths=0,
                alpha=0.6,
                rasterized=len(shown) > 2000,
                label=short(name) or None,
            )
        ends = np.array([known[measured].min(), known[measured].max()])
        axes.plot(ends, ends, color="0.3", linewidth=0.8)
        axes.fill_between(ends, ends / 1.25, ends * 1.25, color="0.5", alpha=0.15, linewidth=0)
        axes.set(xscale="log", yscale="log")
        engineering(axes.xaxis, "s")
        engineering(axes.yaxis, "s")
        ratio = known[predicted] / known[measured] - 1.0
        error = f"median absolute error {ratio.abs().median():.1%}, {len(known):,} rows"
        if groups != [""]:
            axes.legend(fontsize="x-small", markerscale=2)
        more = f"{len(groups) - GROUPS} more groups not shown" if len(groups) > GROUPS else ""
        remark(axes, error, cut, said, more)
        return axes


def error_by_size(
    frame: pd.DataFrame,
    *,
    by: str = "device",
    measured: str = "latency_s",
    predicted: str = "predicted_s",
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """10, 50 and 90 % quantiles of the error over the measured latency.

    Parameters
    ----------
    frame, by, measured, predicted
        See `predicted_measured`.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    columns(frame, (measured, predicted, by), "the measurements")
    with drawing(ax, width) as axes:
        known = frame[(frame[measured] > 0) & (frame[predicted] > 0)]
        axes.set(xlabel="measured [s]", ylabel="error [%]")
        if known.empty:
            empty(axes, "no rows with both numbers")
            return axes
        for name, (colour, _, _, _) in styles(list(dict.fromkeys(known[by]))[:GROUPS]).items():
            _quantiles(axes, known[known[by] == name], colour, short(name), measured, predicted)
        axes.axhline(0.0, color="0.5", linewidth=0.8)
        axes.set(xscale="log", ylim=(-60, 60))
        engineering(axes.xaxis, "s")
        axes.legend(fontsize="x-small")
        remark(axes, "10, 50, 90 % quantiles")
        return axes


def _quantiles(ax: Any, part: pd.DataFrame, colour: str, name: str, measured: str, predicted: str) -> None:
    import numpy as np

    seconds = part[measured].to_numpy(float)
    error = 100.0 * (part[predicted].to_numpy(float) / seconds - 1.0)
    edges = np.quantile(seconds, np.linspace(0, 1, 13))
    bins = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, 11)
    held = [i for i in range(12) if (bins == i).any()]
    middle = [float(np.median(seconds[bins == i])) for i in held]
    for level, size in ((0.1, 0.5), (0.5, 1.4), (0.9, 0.5)):
        line = [float(np.quantile(error[bins == i], level)) for i in held]
        ax.plot(middle, line, color=colour, linewidth=size, label=name if level == 0.5 else None)
