"""Charts of the HTML report as plotly draws them: plain data, so that a report needs plotly.js only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from accelsim.core.frames import records
from accelsim.core.units import si
from accelsim.explore.pareto import maximised
from accelsim.report.plots.batch import band, best
from accelsim.report.plots.fronts import GROUPS
from accelsim.report.plots.style import COLOURS, label

if TYPE_CHECKING:
    import pandas as pd

PALETTE = tuple("ink" if colour == "#000000" else colour for colour in COLOURS)
"""The page's script puts in the ink of the reader's theme, and lighter colours on dark paper."""
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

Figure = dict[str, Any]


def text(value: Any) -> str:
    """A value as hover text: plotly reads a little HTML, so it is escaped."""
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else si(value, "", 4).strip()
    return escape(str(value))


def hover(row: dict[str, Any], names: Sequence[str]) -> str:
    head = " ".join(text(row[n]) for n in ("workload", "hardware") if n in row)
    return "<br>".join([f"<b>{head}</b>", *(f"{escape(label(n))}: {text(row[n])}" for n in names)])


def pareto(shown: pd.DataFrame, front: Any, x: str, y: str, names: Sequence[str]) -> Figure:
    """Points by device, the front as steps with its error intervals; ``customdata`` is the row's place."""
    data: list[Any] = []
    counts = shown["hardware"].value_counts()
    named = list(counts.index[:GROUPS])
    for i, name in enumerate([*named, None]):
        part = shown[shown["hardware"] == name] if name is not None else shown[~shown["hardware"].isin(named)]
        if not len(part):
            continue
        grey = name is None
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escape(str(name)) if not grey else "other devices",
                "x": part[x].tolist(),
                "y": part[y].tolist(),
                "customdata": part.index.tolist(),
                "text": [hover(row, names) for row in records(part)],
                "hoverinfo": "text",
                "marker": {
                    "color": "#888888" if grey else PALETTE[i],
                    "symbol": "circle" if grey else SYMBOLS[i],
                    "size": 7 if len(shown) < 1500 else 4,
                    "opacity": 0.65,
                },
            }
        )
    best_rows = shown[front].sort_values(x)
    line: Figure = {
        "type": "scatter",
        "mode": "lines",
        "name": f"front ({len(best_rows)})",
        "x": best_rows[x].tolist(),
        "y": best_rows[y].tolist(),
        "line": {"shape": "vh" if maximised(x) else "hv", "width": 1.5, "color": "ink"},
        "hoverinfo": "skip",
    }
    if len(best_rows) <= 60:
        for name, key in ((x, "error_x"), (y, "error_y")):
            low, high = band(best_rows, name)
            if low is not None:
                line[key] = {
                    "type": "data",
                    "symmetric": False,
                    "array": (high - best_rows[name]).clip(lower=0).tolist(),
                    "arrayminus": (best_rows[name] - low).clip(lower=0).tolist(),
                    "thickness": 1,
                    "width": 3,
                    "color": "ink",
                }
    data.append(line)
    layout = {
        "xaxis": axis(shown[x], x),
        "yaxis": axis(shown[y], y),
        "dragmode": "select",
        "legend": {"orientation": "h", "y": -0.2},
    }
    return {"data": data, "layout": layout}


def axis(values: pd.Series[Any], name: str) -> dict[str, Any]:
    """An axis with SI prefixes, logarithmic where the values span more than a decade."""
    positive = values[values > 0]
    log = len(positive) == len(values) and len(positive) and positive.max() > 10 * positive.min()
    held: dict[str, Any] = {"title": {"text": escape(label(name))}, "exponentformat": "SI"}
    return {**held, "type": "log", "dtick": "D2"} if log else held


def parallel(shown: pd.DataFrame, names: Sequence[str]) -> Figure:
    """An axis per column; ranges dragged on the axes select rows."""
    import numpy as np

    dimensions: list[Figure] = []
    for name in names:
        column = shown[name]
        held: Figure = {"label": escape(label(name)), "name": name}
        if column.dtype.kind not in "fiu":
            values = list(dict.fromkeys(column.astype(str)))
            held["values"] = column.astype(str).map({v: i for i, v in enumerate(values)}).tolist()
            held["tickvals"], held["ticktext"] = list(range(len(values))), [escape(v)[:18] for v in values]
        elif column.min() > 0 and column.max() > 10 * column.min():
            low, high = float(np.log10(column.min())), float(np.log10(column.max()))
            held["values"] = np.log10(column.to_numpy(float)).round(5).tolist()
            held["tickvals"] = np.linspace(low, high, 5).round(5).tolist()
            held["ticktext"] = [si(10**t, "", 3).strip() for t in held["tickvals"]]
        else:
            held["values"] = column.tolist()
        dimensions.append(held)
    trace = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {"color": dimensions[-1]["values"], "colorscale": "Cividis"},
    }
    return {"data": [trace], "layout": {"margin": {"l": 70, "r": 60, "t": 60, "b": 20}}}


def batch(frame: pd.DataFrame, value: str) -> Figure:
    """A number over the batch by device and precision, with error bands; the best of equal points."""
    held, _ = best(frame[frame[value].notna()], ["hardware", "precision", "batch"], value)
    groups = sorted(held.groupby(["hardware", "precision"]), key=lambda pair: str(pair[0]))
    data: list[Any] = []
    for i, (key, group) in enumerate(groups[:12]):
        part = group.sort_values("batch")
        colour = PALETTE[i % 8]
        low, high = band(part, value)
        ends: Figure = {}
        if low is not None:
            ends["error_y"] = {
                "type": "data",
                "symmetric": False,
                "array": (high - part[value]).tolist(),
                "arrayminus": (part[value] - low).tolist(),
                "thickness": 0.8,
                "width": 2,
            }
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": escape(" ".join(map(str, key))),
                "x": part["batch"].tolist(),
                "y": part[value].tolist(),
                "line": {"color": colour, "dash": DASHES[i % 6]},
                "marker": {"symbol": SYMBOLS[i % 8], "size": 6},
                **ends,
            }
        )
    layout = {
        "xaxis": {"type": "log", "title": {"text": "batch"}, "dtick": math.log10(2)},
        "yaxis": axis(held[value], value),
        "legend": {"orientation": "h", "y": -0.2},
    }
    return {"data": data, "layout": layout}
