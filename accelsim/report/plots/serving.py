"""A server over time, and the latency that its users see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.report.plots.style import COLOURS, drawing, empty, engineering, remark, twin_legend

if TYPE_CHECKING:
    from accelsim.core.outcome import Infeasible
    from accelsim.serving.outcome import ServeResult

QUANTILES = (0.5, 0.9, 0.99)


def queue(
    served: ServeResult | Infeasible,
    *,
    step_s: float | None = None,
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """Requests in the server over time, and how busy its instances are.

    Parameters
    ----------
    served : ServeResult
    step_s : float, optional
        Window [s]; a hundredth of the run by default.
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
        That of the requests.
    """
    with drawing(ax, width) as axes:
        if not served.feasible:
            empty(axes, str(served))
            return axes
        if not len(served.log.status):  # type: ignore[union-attr]
            empty(axes, "no requests")
            return axes
        table = served.series(step_s)  # type: ignore[union-attr]
        axes.fill_between(table["time_s"], table["in_system"], color=COLOURS[0], alpha=0.25, linewidth=0)
        axes.plot(table["time_s"], table["in_system"], color=COLOURS[0], label="requests in the server")
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        other.plot(
            table["time_s"],
            100.0 * table["utilisation"],
            color=COLOURS[1],
            linestyle="--",
            linewidth=0.8,
            label="utilisation",
        )
        other.set(ylim=(0, 105), ylabel="utilisation [%]")
        axes.set(xlabel="time", ylabel="requests in the server", ylim=(0, None))
        axes.margins(x=0)
        engineering(axes.xaxis, "s")
        twin_legend(axes, other)
        if not served.stable:  # type: ignore[union-attr]
            axes.text(
                0.02,
                0.95,
                "unstable: the queue grows without end",
                transform=axes.transAxes,
                va="top",
                fontsize="x-small",
                color=COLOURS[1],
            )
        return axes


def latency(served: ServeResult | Infeasible, *, ax: Any = None, width: str | float = "column") -> Any:
    """Share of the requests that take longer, over the time that they take.

    Parameters
    ----------
    served : ServeResult
    ax, width
        See `roofline`.

    Returns
    -------
    Axes
    """
    import numpy as np

    with drawing(ax, width) as axes:
        if not served.feasible:
            empty(axes, str(served))
            return axes
        seconds = np.sort(served.latency_s)  # type: ignore[union-attr]
        if not len(seconds):
            empty(axes, "no request was completed")
            return axes
        ranks = np.unique(np.geomspace(1, len(seconds), min(len(seconds), 2000)).astype(int))
        axes.plot(seconds[len(seconds) - ranks], ranks / len(seconds), color=COLOURS[0])
        for q in QUANTILES:
            at = float(np.quantile(seconds, q))
            axes.axvline(at, color="0.6", linewidth=0.6, linestyle=":")
            axes.annotate(
                f"p{100 * q:g}", (at, 1.0), xytext=(1, 2), textcoords="offset points", fontsize="xx-small"
            )
        limit = served.summary.get("slo_s")
        if limit is not None:
            axes.axvline(limit, color=COLOURS[1], linewidth=1.0, label="limit")
            axes.legend()
        axes.set(yscale="log", xlabel="latency", ylabel="share that takes longer")
        if seconds[0] > 0 and seconds[-1] > 10 * seconds[0]:
            axes.set_xscale("log")
        engineering(axes.xaxis, "s")
        remark(axes, f"{len(seconds):,} requests")
        return axes
