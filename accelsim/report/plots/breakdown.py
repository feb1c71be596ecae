"""Where the time, energy or traffic goes, kernel by kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.architectures.base import STALLS
from accelsim.core.errors import RequestError
from accelsim.report.plots.style import (
    columns,
    drawing,
    empty,
    engineering,
    label,
    remark,
    short,
    styles,
)

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.core.outcome import Infeasible
    from accelsim.engine.result import Result

_UNITS = {"_s": "s", "_j": "J", "bytes": "B", "flops": "FLOP"}


def layers(
    result: Result | Infeasible,
    *,
    value: str = "total_s",
    by: str = "op",
    split: str | None = None,
    top: int = 15,
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """Bars of the kernels that take the most, stacked by what bounds them.

    Parameters
    ----------
    result : Result
    value : str
        Column of ``result.ops``: ``total_s``, ``energy_j``, ``dram_bytes``, ``flops`` ...
    by : {"op", "kind", "lane"}
        One bar per kernel, per kind of operator or per lane.
    split : str, optional
        ``stalls`` divides time by what it is spent on (where the model says), ``bound`` colours by bound; the
        finest that the result has by default.
    top : int
        Bars; what the rest adds up to is said.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    if top < 1:
        raise RequestError(f"top {top} is not a positive number")
    with drawing(ax, width, 3.2) as axes:
        if not result.feasible:
            empty(axes, str(result))
            return axes
        ops: pd.DataFrame = result.ops  # type: ignore[union-attr]
        columns(ops, (value, by), "the kernels")
        table = _parts(ops, value, by, split)
        totals = table.sum(axis=1).sort_values(ascending=False)
        if not len(totals) or not totals.sum() > 0:
            why = result.missing.get(value, "") if ops[value].isna().any() else ""  # type: ignore[union-attr]
            empty(axes, f"no kernel has any {label(value)}" + (f": {why}" if why else ""))
            return axes
        order = list(totals.index[:top])
        shown = table.loc[order]
        rest = totals.iloc[top:]
        others = f"{len(rest)} smaller ones, {rest.sum() / totals.sum():.0%}, not shown" if len(rest) else ""
        _bars(axes, shown.loc[:, shown.sum() > 0], totals.sum())
        axes.set_xlabel(label(value))
        engineering(axes.xaxis, next((u for end, u in _UNITS.items() if value.endswith(end)), ""))
        unknown = int(ops[value].isna().sum())
        remark(axes, others, f"{unknown} kernels of unknown {label(value)} not shown" if unknown else "")
        return axes


def _parts(ops: pd.DataFrame, value: str, by: str, split: str | None) -> pd.DataFrame:
    """A row per bar, a column per part."""
    import pandas as pd

    names = [f"stall_{name}_s" for name in STALLS]
    stalled = value == "total_s" and set(names) <= set(ops.columns) and not ops[names].isna().any(axis=None)
    if split not in (None, "stalls", "bound"):
        raise RequestError(f"unknown split '{split}'", hint="stalls or bound")
    if split == "stalls" and not stalled:
        raise RequestError("the time of these kernels is not divided", hint="use split='bound'")
    held = ops[ops[value].notna()]
    if stalled and split != "bound":
        scale = (held["total_s"] / held["latency_s"].where(held["latency_s"] > 0)).fillna(0.0)
        parts = held[names].mul(scale, axis=0)
        parts.columns = pd.Index(STALLS)
        return parts.groupby(held[by], sort=False).sum()
    return held.pivot_table(
        index=by, columns="bound", values=value, aggfunc="sum", fill_value=0.0, sort=False
    )


def _bars(ax: Any, shown: pd.DataFrame, whole: float) -> None:
    import numpy as np

    names = [short(name) for name in shown.index]
    places = np.arange(len(names))[::-1]
    left = np.zeros(len(names))
    for part, (colour, _, _, hatch) in styles(list(shown.columns)).items():
        size = shown[part].to_numpy(float)
        ax.barh(
            places,
            size,
            left=left,
            height=0.75,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.2,
            label=str(part),
        )
        left += size
    for place, total in zip(places, left):
        ax.annotate(
            f"{total / whole:.1%}",
            (total, place),
            xytext=(2, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
        )
    ax.set_yticks(places, names, fontsize="x-small")
    ax.set_xlim(0, left.max() * 1.15)
    ax.legend(loc="lower right", fontsize="x-small")
