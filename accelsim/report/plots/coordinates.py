"""Many numbers of many points at once: parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.report.plots.fronts import left_out
from accelsim.report.plots.style import columns, drawing, empty, label, remark, short, thinned

if TYPE_CHECKING:
    import pandas as pd

LINES = 2000
"""Points that are drawn at the most."""


def parallel(
    frame: pd.DataFrame,
    names: Sequence[str] = ("hardware", "batch", "precision", "latency_s", "energy_per_item_j"),
    *,
    colour: str | None = None,
    ax: Any = None,
    width: str | float = "page",
) -> Any:
    """A line per point through an axis per column, coloured by the last.

    Parameters
    ----------
    frame : DataFrame
        Points of a study, infeasible ones too (``study.frame``).
    names : sequence of str
        Columns: numbers (logarithmic where they span more than a decade) or texts.
    colour : str, optional
        Column that colours the lines; the last by default.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    if len(names) < 2:
        raise RequestError("parallel coordinates need at least two columns")
    by = colour if colour is not None else names[-1]
    columns(frame, (*names, by, "status"), "the study")
    with drawing(ax, width) as axes:
        held = frame[frame["status"] == "ok"].dropna(subset=[*dict.fromkeys([*names, by])])
        said = left_out(frame, len(held), names)
        if held.empty:
            empty(axes, "no feasible point has all of these numbers" + (f": {said}" if said else ""))
            return axes
        shown, cut = thinned(held, LINES)
        _lines(axes, shown, list(names), by)
        remark(axes, cut, said)
        return axes


def scale(column: pd.Series[Any]) -> tuple[Any, list[tuple[float, str]]]:
    """Places of a column's values from 0 to 1, and ticks for it."""
    import numpy as np

    from accelsim.core.units import si

    if column.dtype.kind not in "fiu":
        values = list(dict.fromkeys(column.astype(str)))
        places = {v: 0.5 if len(values) == 1 else i / (len(values) - 1) for i, v in enumerate(values)}
        step = max(1, len(values) // 12)
        return column.astype(str).map(places).to_numpy(float), [(places[v], v) for v in values[::step]]
    numbers = column.to_numpy(float)
    low, high = float(numbers.min()), float(numbers.max())
    if high == low:
        return np.full(len(numbers), 0.5), [(0.5, si(low, "", 3))]
    if low > 0 and high > 10 * low:
        ticks = np.geomspace(low, high, 5)
        return np.log(numbers / low) / np.log(high / low), [
            (i / 4, si(float(t), "", 3)) for i, t in enumerate(ticks)
        ]
    ticks = np.linspace(low, high, 5)
    return (numbers - low) / (high - low), [(i / 4, si(float(t), "", 3)) for i, t in enumerate(ticks)]


def _lines(ax: Any, shown: pd.DataFrame, names: list[str], by: str) -> None:
    import matplotlib
    import numpy as np
    from matplotlib.collections import LineCollection

    places = np.stack([scale(shown[name])[0] for name in names], axis=1)
    at = np.arange(len(names))
    lines = np.stack([np.broadcast_to(at, places.shape), places], axis=2)
    tint = matplotlib.colormaps["cividis"](scale(shown[by])[0] * 0.9)
    order = np.argsort(-scale(shown[by])[0])
    thin = min(1.0, 0.25 + 60 / len(shown))
    ax.add_collection(
        LineCollection(
            list(lines[order]), colors=tint[order], linewidths=0.8, alpha=thin, rasterized=len(shown) > 500
        )
    )
    for i, name in enumerate(names):
        ax.axvline(i, color="0.3", linewidth=0.7)
        for place, text in scale(shown[name])[1]:
            ax.annotate(
                short(text, 16).strip(),
                (i, place),
                xytext=(2, 0),
                textcoords="offset points",
                fontsize="xx-small",
                va="center",
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.4},
            )
    ax.set(xlim=(-0.1, len(names) - 0.6), ylim=(-0.05, 1.05), yticks=[])
    ax.set_xticks(at, [label(name).replace(" [", "\n[") for name in names], fontsize="x-small")
    for side in ax.spines.values():
        side.set_visible(False)
    ax.tick_params(length=0)
