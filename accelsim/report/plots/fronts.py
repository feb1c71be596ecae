"""What can be had at the same time: Pareto fronts and trade-offs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.explore.pareto import maximised, nondominated, oriented
from accelsim.report.plots.batch import band
from accelsim.report.plots.style import (
    COLOURS,
    DRAWN,
    GREY,
    columns,
    drawing,
    empty,
    label,
    remark,
    scaled,
    short,
    styles,
    thinned,
)

if TYPE_CHECKING:
    import pandas as pd

GROUPS = 8
"""Groups with colours of their own."""


def pareto(
    frame: pd.DataFrame,
    x: str = "latency_s",
    y: str = "energy_per_item_j",
    *,
    by: str = "hardware",
    maximise: Sequence[str] | None = None,
    most: int = DRAWN,
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """Points of a study in two of its numbers, the front that no other beats, and its error intervals.

    Parameters
    ----------
    frame : DataFrame
        Points of a study, infeasible ones too (``study.frame``).
    x, y : str
        Objectives.
    by : str
        Column that colours the points.
    maximise : sequence of str, optional
        Objectives of which more is better; by default by their names, as in `Study.pareto`.
    most : int
        Points that are drawn at the most; the front always is.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    columns(frame, (x, y, by, "status"), "the study")
    if x == y:
        raise RequestError("a front needs two different objectives", f"x = y = {x}")
    with drawing(ax, width) as axes:
        known = frame[(frame["status"] == "ok") & frame[x].notna() & frame[y].notna()]
        said = left_out(frame, len(known), (x, y))
        axes.set(xlabel=label(x), ylabel=label(y))
        if known.empty:
            empty(axes, "no feasible point has both numbers" + (f": {said}" if said else ""))
            return axes
        front = nondominated(oriented(known[[x, y]].to_numpy(float), (x, y), maximise))
        shown, cut = thinned(known, most, front)
        _scatter(axes, shown, x, y, by)
        _front(axes, known[front].sort_values(x), x, y, maximise)
        for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
            scaled(axis, known[name], name)
        axes.legend(fontsize="x-small")
        remark(axes, cut, said)
        return axes


def left_out(frame: pd.DataFrame, known: int, names: Sequence[str]) -> str:
    """Points that a picture cannot show, and why."""
    bad = frame[frame["status"] != "ok"]
    parts = []
    if len(bad):
        why = ""
        if "reason" in bad.columns:
            counts = bad["reason"].value_counts()
            why = " (" + ", ".join(f"{name} {count:,}" for name, count in counts.head(3).items()) + ")"
        parts.append(f"{len(bad):,} infeasible{why}")
    unknown = len(frame) - len(bad) - known
    if unknown:
        parts.append(f"{unknown:,} without {' or '.join(label(n) for n in names)}")
    return "not shown: " + ", ".join(parts) if parts else ""


def _scatter(ax: Any, shown: pd.DataFrame, x: str, y: str, by: str) -> None:
    counts = shown[by].value_counts(sort=True)
    named = list(counts.index[:GROUPS]) if len(counts) > GROUPS else list(dict.fromkeys(shown[by]))
    size = 9 if len(shown) < 500 else 3
    style = {"linewidths": 0, "alpha": 0.6, "s": size, "rasterized": len(shown) > 2000}
    for name, (colour, marker, _, _) in styles(named).items():
        part = shown[shown[by] == name]
        ax.scatter(part[x], part[y], color=colour, marker=marker, label=short(name), **style)
    rest = shown[~shown[by].isin(named)]
    if len(rest):
        ax.scatter(rest[x], rest[y], color=GREY, marker=".", label=f"{len(counts) - GROUPS} others", **style)


def _front(ax: Any, front: pd.DataFrame, x: str, y: str, maximise: Sequence[str] | None) -> None:
    """The front as steps: between two of its points the worse of both is what can be had for sure."""
    more = x in maximise if maximise is not None else maximised(x)
    ax.plot(
        front[x],
        front[y],
        color=COLOURS[6],
        linewidth=1.0,
        drawstyle="steps-pre" if more else "steps-post",
        label=f"front ({len(front)})",
        zorder=4,
    )
    if len(front) > 60:
        return
    for name, axis in ((x, "xerr"), (y, "yerr")):
        low, high = band(front, name)
        if low is not None:
            reach = [(front[name] - low).clip(lower=0), (high - front[name]).clip(lower=0)]
            ax.errorbar(
                front[x],
                front[y],
                fmt="none",
                ecolor=COLOURS[6],
                elinewidth=0.6,
                capsize=1.5,
                zorder=3,
                **{axis: reach},
            )


def tradeoff(
    frame: pd.DataFrame,
    x: str = "latency_s",
    y: str = "error",
    *,
    names: str = "plan",
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """A few named choices in two numbers, each with its name: precision plans, prunings, devices.

    Parameters
    ----------
    frame : DataFrame
        Such as ``ax.mixed_precision(...).compared``.
    x, y, names : str
        Columns.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    columns(frame, (x, y, names), "the table")
    with drawing(ax, width) as axes:
        axes.set(xlabel=label(x), ylabel=label(y))
        known = frame.dropna(subset=[x, y])
        if known.empty:
            empty(axes, f"nothing has both {label(x)} and {label(y)}")
            return axes
        front = nondominated(oriented(known[[x, y]].to_numpy(float), (x, y)))
        axes.plot(*(known[front].sort_values(x)[c] for c in (x, y)), color=GREY, linewidth=0.8, zorder=1)
        axes.scatter(known[x][front], known[y][front], color=COLOURS[0], s=18, zorder=3, label="not beaten")
        axes.scatter(
            known[x][~front], known[y][~front], color=COLOURS[1], s=18, marker="x", zorder=2, label="beaten"
        )
        for place, (a, b, name) in enumerate(zip(known[x], known[y], known[names])):
            if len(known) <= 30:
                axes.annotate(
                    short(name),
                    (a, b),
                    xytext=(4, 3 if place % 2 else -8),
                    textcoords="offset points",
                    fontsize="xx-small",
                )
        for axis, name in ((axes.xaxis, x), (axes.yaxis, y)):
            scaled(axis, known[name], name)
        axes.margins(x=0.15)
        axes.legend(fontsize="x-small")
        lost = len(frame) - len(known)
        remark(axes, f"{lost} without both numbers not shown" if lost else "")
        return axes
