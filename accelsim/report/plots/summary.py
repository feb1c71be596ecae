"""The picture of a run: one result in three views, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.report.card import title
from accelsim.report.plots.breakdown import layers
from accelsim.report.plots.lanes import timeline
from accelsim.report.plots.roofs import roofline
from accelsim.report.plots.style import (
    COLOURS,
    GREY,
    check_target,
    drawing,
    empty,
    engineering,
    figure,
    paper_style,
    save,
    short,
)

if TYPE_CHECKING:
    from accelsim.core.outcome import Infeasible
    from accelsim.engine.result import Result

BARS = 30


def runs(outcomes: Sequence[Result | Infeasible], *, ax: Any = None, width: str | float = "column") -> Any:
    """Latency of several runs with error bands; infeasible ones say why.

    Parameters
    ----------
    outcomes : sequence of Result or Infeasible
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    if not outcomes:
        raise RequestError("there is no run to draw")
    shown = list(outcomes)[:BARS]
    with drawing(ax, width, 0.8 + 0.2 * len(shown)) as axes:
        places = range(len(shown))[::-1]
        ends = [o.summary["latency_high_s"] for o in shown if o.feasible]
        for place, outcome in zip(places, shown):
            s = outcome.summary
            if outcome.feasible:
                reach = [[s["latency_s"] - s["latency_low_s"]], [s["latency_high_s"] - s["latency_s"]]]
                axes.errorbar(s["latency_s"], place, xerr=reach, fmt="o", color=COLOURS[0], capsize=2)
            else:
                axes.text(
                    0.02,
                    place,
                    f"infeasible: {s['reason']}",
                    color=GREY,
                    va="center",
                    fontsize="x-small",
                    transform=axes.get_yaxis_transform(),
                )
        names = [
            " ".join(str(o.summary.get(n, "")) for n in ("workload", "hardware", "precision"))
            + f" b{o.summary.get('batch', '')}"
            for o in shown
        ]
        axes.set_yticks(places, [short(name, 40) for name in names], fontsize="x-small")
        axes.set_ylim(-0.7, len(shown) - 0.3)
        axes.set_xlabel("latency of a batch, with its error band")
        if ends and max(ends) > 10 * min(o.summary["latency_low_s"] for o in shown if o.feasible):
            axes.set_xscale("log")
        engineering(axes.xaxis, "s")
        return axes


def overview(outcome: Result | Infeasible) -> Any:
    """Roofline, kernels and timeline of one run on a page; returns the figure."""
    if not outcome.feasible:
        with drawing(None, "page") as axes:
            empty(axes, str(outcome))
            return axes.figure
    lanes = outcome.timeline["lane"].nunique()  # type: ignore[union-attr]
    last = 1.1 + 0.2 * min(lanes, 20)
    picture = figure("page", 3.4 + last)
    with paper_style():
        grid = picture.add_gridspec(2, 2, height_ratios=[3.4, last])
        roofline(outcome, ax=picture.add_subplot(grid[0, 0]))
        layers(outcome, top=12, ax=picture.add_subplot(grid[0, 1]))
        timeline(outcome, ax=picture.add_subplot(grid[1, :]))
        picture.suptitle(title(outcome), fontsize="large")  # type: ignore[arg-type]
    return picture


def draw_runs(outcomes: Sequence[Result | Infeasible], path: str | Path) -> Path:
    """Write the picture of a run (``accelsim run ... --plot out.png``): one in three views, several side by
    side.

    Raises
    ------
    ConfigError
        The folder does not exist.
    RequestError
        The ending is none of .png, .pdf, .svg, .pgf.
    """
    check_target(Path(path))
    held = overview(outcomes[0]) if len(outcomes) == 1 else runs(outcomes, width="page")
    return save(held, path)
