"""What ran where and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.report.plots.style import COLOURS, HATCHES, drawing, empty, engineering, remark, short

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.core.outcome import Infeasible
    from accelsim.engine.result import Result

DRAWN = 4000
"""Segments that are drawn apart at the most."""

LANES = 40
"""Lanes that are drawn at the most: the busiest."""


def timeline(
    result: Result | Infeasible, *, names: bool = True, ax: Any = None, width: str | float = "page"
) -> Any:
    """A row per lane, a bar per stretch that it is busy, coloured by what bounds the kernel.

    Parameters
    ----------
    result : Result
    names : bool
        Write the names of the longest kernels on their bars.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    table: pd.DataFrame | None = result.timeline if result.feasible else None  # type: ignore[union-attr]
    lanes = list(dict.fromkeys(table["lane"])) if table is not None else []
    with drawing(ax, width, 0.9 + 0.22 * min(max(len(lanes), 3), LANES)) as axes:
        if table is None:
            empty(axes, str(result))
            return axes
        if table.empty:
            empty(axes, "nothing ran")
            return axes
        busy = (table["end_s"] - table["start_s"]).groupby(table["lane"]).sum()
        kept = set(busy.nlargest(LANES).index)
        shown = [lane for lane in lanes if lane in kept]
        bounds = dict(zip(result.ops["op"], result.ops["bound"]))  # type: ignore[union-attr]
        said = _draw(axes, table, shown, bounds, names)
        axes.set_yticks(range(len(shown)), [short(lane) for lane in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel("time")
        engineering(axes.xaxis, "s")
        lost = len(lanes) - len(shown)
        remark(axes, f"{lost} less busy lanes not shown" if lost else "", said)
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.06), ncols=6, borderaxespad=0.0)
        return axes


def _draw(ax: Any, table: pd.DataFrame, lanes: list[str], bounds: dict[str, str], names: bool) -> str:
    """Bars by lane and bound; returns what to say of what was drawn together."""
    whole = table["end_s"].max() - table["start_s"].min()
    place = {lane: i for i, lane in enumerate(lanes)}
    held = table[table["lane"].isin(place)]
    kinds = [bounds.get(op, kind) for op, kind in zip(held["op"], held["kind"])]
    colours = {kind: i for i, kind in enumerate(dict.fromkeys(kinds))}
    stretches: dict[tuple[str, str], list[tuple[float, float]]] = {}
    grain = whole / DRAWN if len(held) > DRAWN else 0.0
    for lane, kind, start, end in zip(held["lane"], kinds, held["start_s"], held["end_s"]):
        bars = stretches.setdefault((lane, kind), [])
        if bars and grain and end - start < grain and start - sum(bars[-1]) < grain:
            bars[-1] = (bars[-1][0], end - bars[-1][0])
        else:
            bars.append((start, end - start))
    for (lane, kind), bars in stretches.items():
        ax.broken_barh(
            bars,
            (place[lane] - 0.38, 0.76),
            facecolors=COLOURS[colours[kind] % 8],
            hatch=HATCHES[(colours[kind] + colours[kind] // 8) % 8],
            edgecolor="white",
            linewidth=0.15,
        )
    for kind, i in colours.items():
        ax.barh(
            0, 0, facecolor=COLOURS[i % 8], hatch=HATCHES[(i + i // 8) % 8], edgecolor="white", label=kind
        )
    ax.set_xlim(0.0, table["end_s"].max())
    if names:
        _names(ax, held, place, whole)
    return f"stretches below {grain:.2g} s are drawn together" if grain else ""


def _names(ax: Any, held: pd.DataFrame, place: dict[str, int], whole: float) -> None:
    long = held[(held["end_s"] - held["start_s"]) > 0.06 * whole]
    for op, lane, start, end in zip(long["op"], long["lane"], long["start_s"], long["end_s"]):
        room = int(90 * (end - start) / whole)
        ax.text(
            (start + end) / 2,
            place[lane],
            short(op, max(room, 5)),
            ha="center",
            va="center",
            fontsize="xx-small",
            color="white",
            clip_on=True,
            bbox={"facecolor": "0.25", "alpha": 0.6, "linewidth": 0, "pad": 0.8},
        )
