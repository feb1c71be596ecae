"""What a batch buys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.report.plots.style import (
    COLOURS,
    columns,
    drawing,
    empty,
    engineering,
    label,
    remark,
    scaled,
    short,
    styles,
    twin_legend,
)

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.explore.batching import BatchCurve

LINES = 12
"""Curves that are drawn at the most."""


def batch_curve(curve: BatchCurve, *, ax: Any = None, width: str | float = "column") -> Any:
    """Throughput with its error band over the batch, latency on a second axis, and the knee.

    Parameters
    ----------
    curve : BatchCurve
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
        That of the throughput.
    """
    frame = curve.frame
    with drawing(ax, width) as axes:
        held = frame[frame["status"] == "ok"]
        last = frame[frame["status"] != "ok"]
        why = f"batch {last['batch'].iloc[0]} is infeasible ({last['reason'].iloc[0]})" if len(last) else ""
        if held.empty:
            empty(axes, why)
            return axes
        axes.fill_between(
            held["batch"],
            held["throughput_low_per_s"],
            held["throughput_high_per_s"],
            color=COLOURS[0],
            alpha=0.2,
            linewidth=0,
        )
        axes.plot(held["batch"], held["throughput_per_s"], color=COLOURS[0], marker="o", label="throughput")
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        other.plot(
            held["batch"], held["latency_s"], color=COLOURS[1], marker="s", linestyle="--", label="latency"
        )
        other.set(yscale="log", ylabel="latency of a batch [s]")
        engineering(other.yaxis, "s")
        knee = curve.knee()
        if knee is not None:
            axes.axvline(knee, color="0.6", linewidth=0.8, linestyle=":")
            axes.annotate(
                f"knee {knee}",
                (knee, axes.get_ylim()[1]),
                xytext=(-2, -8),
                textcoords="offset points",
                ha="right",
                fontsize="x-small",
            )
        axes.set(xlabel="batch", ylabel="throughput [1/s]", ylim=(0, None))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        engineering(axes.yaxis, "")
        twin_legend(axes, other)
        if why:
            axes.text(1.0, 0.02, short(why, 60), transform=axes.transAxes, ha="right", fontsize="xx-small")
        return axes


def batch_curves(
    frame: pd.DataFrame, *, value: str = "throughput_per_s", ax: Any = None, width: str | float = "page"
) -> Any:
    """A number of a study over the batch, one line per device and precision, with error bands.

    Parameters
    ----------
    frame : DataFrame
        Points of a study (``study.feasible`` or ``study.where(...)``).
    value : str
        Column; latency and throughput have bands. Where several points share device, precision and batch, the
        best is drawn and that is said.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    columns(frame, ("batch", "hardware", "precision", value), "the study")
    with drawing(ax, width) as axes:
        held = frame[(frame["status"] == "ok") & frame[value].notna()]
        if held.empty:
            empty(axes, f"no feasible point has a {label(value)}")
            return axes
        held, said = best(held, ["hardware", "precision", "batch"], value)
        groups = [(key, part.sort_values("batch")) for key, part in held.groupby(["hardware", "precision"])]
        for key, (colour, marker, dash, _) in styles([k for k, _ in groups[:LINES]]).items():
            part = dict(groups)[key]
            axes.plot(
                part["batch"],
                part[value],
                color=colour,
                marker=marker,
                linestyle=dash,
                label=short(" ".join(map(str, key)), 28),
            )
            low, high = band(part, value)
            if low is not None:
                axes.fill_between(part["batch"], low, high, color=colour, alpha=0.12, linewidth=0)
        axes.set(xlabel="batch", ylabel=label(value))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        scaled(axes.yaxis, held[value], value)
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        lost = len(groups) - LINES
        remark(axes, said, f"{lost} more curves not drawn" if lost > 0 else "")
        return axes


def best(frame: pd.DataFrame, keys: list[str], value: str) -> tuple[pd.DataFrame, str]:
    """One row per key: the best by a column, and what to say where others were left out."""
    from accelsim.explore.pareto import maximised

    ordered = frame.sort_values(value, ascending=not maximised(value), kind="stable")
    kept = ordered.drop_duplicates(keys)
    lost = len(frame) - len(kept)
    return kept, f"best of {len(frame):,} points" if lost else ""


def band(frame: pd.DataFrame, value: str) -> tuple[Any, Any]:
    """Ends of the error band of a column; None where it has none."""
    if not {"latency_s", "latency_low_s", "latency_high_s"} <= set(frame.columns):
        return None, None
    if value == "latency_s":
        return frame["latency_low_s"], frame["latency_high_s"]
    if value == "throughput_per_s":
        ratio = frame["latency_s"] * frame["throughput_per_s"]
        return ratio / frame["latency_high_s"], ratio / frame["latency_low_s"]
    return None, None


def heatmap(
    frame: pd.DataFrame,
    *,
    x: str = "batch",
    y: str = "precision",
    value: str = "throughput_per_s",
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """A number of a study over two of its parameters; infeasible cells are hatched.

    Parameters
    ----------
    frame : DataFrame
        Points of a study, infeasible ones too (``study.frame``).
    x, y, value : str
        Columns. Where several points share a cell, the best is shown and that is said.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    import numpy as np

    columns(frame, (x, y, value, "status"), "the study")
    if x == y:
        raise RequestError("a map needs two different parameters", f"x = y = {x}")
    with drawing(ax, width) as axes:
        if frame.empty:
            empty(axes, "no points")
            return axes
        xs, ys = (_ordered(frame[name]) for name in (x, y))
        known = frame[(frame["status"] == "ok") & frame[value].notna()]
        kept, said = best(known, [x, y], value)
        grid = kept.pivot(index=y, columns=x, values=value).reindex(index=ys, columns=xs).to_numpy(float)
        bad = frame[frame["status"] != "ok"].drop_duplicates([x, y])
        spots = {(ys.index(b), xs.index(a)) for a, b in zip(bad[x], bad[y])}
        _map(axes, grid, spots, value)
        axes.set_xticks(np.arange(len(xs)), [short(v, 14) for v in xs], rotation=45 if len(xs) > 8 else 0)
        axes.set_yticks(np.arange(len(ys)), [short(v, 18) for v in ys])
        axes.set(xlabel=label(x), ylabel=label(y))
        lost = sum(np.isnan(grid[spot]) for spot in spots)
        remark(axes, said, f"hatched: infeasible ({lost})" if lost else "")
        return axes


def _ordered(column: pd.Series[Any]) -> list[Any]:
    """Values of a parameter: numbers ascending, names as they come."""
    values = list(column.dropna().unique())
    return sorted(values) if all(isinstance(v, int | float) for v in values) else values


def _map(ax: Any, grid: Any, infeasible: set[tuple[int, int]], value: str) -> None:
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    finite = grid[np.isfinite(grid) & (grid > 0)]
    wide = len(finite) > 1 and finite.max() / finite.min() > 20
    picture = ax.imshow(
        np.where(np.isfinite(grid), grid, np.nan),
        aspect="auto",
        cmap="cividis",
        norm=LogNorm() if wide else None,
    )
    for row, column in infeasible:
        if np.isnan(grid[row, column]):
            ax.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor="0.6", lw=0)
            )
    if len(finite):
        bar = ax.figure.colorbar(picture, ax=ax, pad=0.02)
        bar.set_label(label(value))
        engineering(bar.ax.yaxis, "")
        if grid.shape[1] <= 2.4 * ax.figure.get_size_inches()[0] and grid.shape[0] <= 12:
            _numbers(ax, grid, picture)
    else:
        ax.text(
            0.5,
            0.5,
            "no feasible point has this number",
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize="small",
        )


def _numbers(ax: Any, grid: Any, picture: Any) -> None:
    import numpy as np

    from accelsim.core.units import si

    for (row, column), number in np.ndenumerate(grid):
        if np.isfinite(number):
            dark = picture.norm(number) < 0.55
            ax.text(
                column,
                row,
                si(float(number), "", 3).replace(" ", ""),
                ha="center",
                va="center",
                fontsize="xx-small",
                color="white" if dark else "black",
            )
