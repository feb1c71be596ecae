"""What an answer hangs on: parameters of a study, numbers of a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.report.plots.style import COLOURS, columns, drawing, empty, remark, short

if TYPE_CHECKING:
    import pandas as pd

BARS = 20
SMALLEST = 0.005
"""Elasticity from which a number counts as having influence."""


def effects(table: pd.DataFrame, *, ax: Any = None, width: str | float = "column") -> Any:
    """Share of a metric's spread that each parameter of a study explains.

    Parameters
    ----------
    table : DataFrame
        Of `accelsim.main_effects`.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    columns(table, ("parameter", "share", "factor"), "the table of main effects")
    with drawing(ax, width) as axes:
        held = table.dropna(subset=["share"]).head(BARS)
        if held.empty:
            empty(axes, "no parameter of the study has two values")
            return axes
        places = range(len(held))[::-1]
        axes.barh(places, 100.0 * held["share"], color=COLOURS[0], height=0.7)
        for place, share, factor in zip(places, held["share"], held["factor"]):
            axes.annotate(
                f"× {factor:.3g}",
                (100.0 * share, place),
                xytext=(3, 0),
                va="center",
                textcoords="offset points",
                fontsize="x-small",
            )
        axes.set_yticks(places, [short(name) for name in held["parameter"]])
        axes.set(xlabel="share of the spread [%]", xlim=(0, 115))
        remark(axes, "×: largest over smallest mean")
        return axes


def tornado(table: pd.DataFrame, *, ax: Any = None, width: str | float = "column") -> Any:
    """Relative change of an answer per relative change of each number behind a device.

    Parameters
    ----------
    table : DataFrame
        Of `accelsim.elasticities`; numbers that are assumed are hatched.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    columns(table, ("parameter", "elasticity", "status"), "the table of elasticities")
    with drawing(ax, width, 3.2) as axes:
        known = table.dropna(subset=["elasticity"])
        known = known[known["elasticity"].abs() > SMALLEST]
        if known.empty:
            empty(axes, "no number of the device changes the answer")
            return axes
        held = known.loc[known["elasticity"].abs().sort_values(ascending=False).index].head(BARS)
        places = range(len(held))[::-1]
        for assumed, name in ((False, "cited or measured"), (True, "assumed")):
            rows = [
                (p, e)
                for p, e, s in zip(places, held["elasticity"], held["status"])
                if (s == "assumed") == assumed
            ]
            if rows:
                axes.barh(
                    [p for p, _ in rows],
                    [e for _, e in rows],
                    height=0.7,
                    color=COLOURS[1 if assumed else 0],
                    hatch="////" if assumed else "",
                    edgecolor="white",
                    linewidth=0.2,
                    label=name,
                )
        axes.axvline(0.0, color="0.3", linewidth=0.7)
        axes.set_yticks(places, [short(name, 30) for name in held["parameter"]], fontsize="x-small")
        axes.set_xlabel("% change of the answer per % change")
        axes.legend(loc="best", fontsize="x-small")
        zero = len(table) - len(held)
        remark(axes, f"{zero} without influence, or smaller, not shown" if zero else "")
        return axes
