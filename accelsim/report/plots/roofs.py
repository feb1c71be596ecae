"""The hierarchical roofline: what each memory level and each precision allows, and where kernels stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.core.precision import plan
from accelsim.core.units import si
from accelsim.report.plots.style import (
    COLOURS,
    GREY,
    MARKERS,
    columns,
    drawing,
    empty,
    engineering,
    remark,
    thinned,
)

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.core.outcome import Infeasible
    from accelsim.engine.result import Result

LEVELS = ("dram", "l2", "sram", "onchip")
NAMES = {"dram": "external memory", "l2": "L2", "sram": "on-chip memory", "onchip": "on-chip memory"}


def device_of(result: Result, device: Any = None) -> Any:
    """The device that a result ran on.

    Raises
    ------
    RequestError
        The result was loaded from a file and the catalog's device of that name is another one.
    """
    from accelsim.core.errors import AccelsimError
    from accelsim.hardware.spec import load_hardware

    if device is not None:
        return load_hardware(device)
    if result.programs:
        return result.programs[0].device
    name = str(result.summary["hardware"])
    try:
        found = load_hardware(name)
    except AccelsimError:
        found = None
    if found is None or found.hash != result.stamp.hardware_hash:
        raise RequestError(
            f"the device '{name}' of this loaded result is not in the catalog as it was", hint="pass device="
        )
    return found


def bandwidths(device: Any) -> dict[str, float]:
    """Peak bandwidth of each memory level [B/s]."""
    found = {"dram": float(device.memory.bandwidth_bytes_per_s)}
    if device.kind == "gpu":
        found["l2"] = float(device.l2.bandwidth_bytes_per_s)
    if device.kind == "systolic" and device.sram.bandwidth_bytes_per_s is not None:
        found["sram"] = float(device.sram.bandwidth_bytes_per_s)
    return found


def peaks(device: Any) -> dict[float, str]:
    """Peak arithmetic [FLOP/s] and the precisions that have it."""
    from accelsim.architectures import architecture_of

    found: dict[float, list[str]] = {}
    for name in architecture_of(device.kind).precisions(device):
        rate = float(device.peak_flop_per_s(name))
        if rate > 0:
            found.setdefault(rate, []).append(name)
    return {rate: ", ".join(names) for rate, names in sorted(found.items())}


def points(result: Result, level: str, measured: pd.DataFrame | None = None) -> pd.DataFrame:
    """Kernels under the roof of a level: ``op total_s flop_per_byte flop_per_s``, and ``measured_flop_per_s``
    where measurements (``op latency_s`` of one execution) are given.
    """
    ops = result.ops
    held = ops[(ops["flops"] > 0) & (ops["total_s"] > 0)]
    moved = held[f"{level}_bytes"] if f"{level}_bytes" in held.columns else held["dram_bytes"] * float("nan")
    table = held[["op", "total_s"]].copy()
    table["flop_per_byte"] = (held["flops"] / moved.where(moved > 0)).to_numpy()
    table["flop_per_s"] = (held["flops"] / held["total_s"]).to_numpy()
    if measured is not None:
        columns(measured, ("op", "latency_s"), "the measurements")
        seconds = measured.groupby("op")["latency_s"].median().reindex(held["op"]).to_numpy()
        once = held["flops"] * held["latency_s"] / held["total_s"]
        table["measured_flop_per_s"] = once.to_numpy() / seconds
    return table


def roofline(
    result: Result | Infeasible,
    *,
    level: str | None = None,
    measured: pd.DataFrame | None = None,
    device: Any = None,
    ax: Any = None,
    width: str | float = "column",
) -> Any:
    """Roofs of every memory level and precision of the device, and the kernels of a result under them.

    Parameters
    ----------
    result : Result
    level : str, optional
        Memory level whose traffic places the kernels: ``dram`` (default), ``l2``, ``sram`` or ``onchip``;
        ``all`` draws each kernel once per level that has a
        roof.
    measured : DataFrame, optional
        Measured kernels, ``op latency_s`` (of one execution) [s]; drawn as open markers.
    device : str, Path or Device, optional
        For a loaded result whose device is not in the catalog.
    ax : Axes, optional
    width : {"column", "page"} or float
        Of a new picture [in].

    Returns
    -------
    Axes
    """
    with drawing(ax, width) as axes:
        if not result.feasible:
            empty(axes, str(result))
            return axes
        held: Any = result
        unit = device_of(held, device)
        roofs = bandwidths(unit)
        present = [name for name in LEVELS if f"{name}_bytes" in held.ops.columns]
        if level not in (None, "all", *present):
            raise RequestError(
                f"no traffic of a level '{level}' in this result", hint=f"known: {', '.join(present)}, all"
            )
        shown = [name for name in present if name in roofs] if level == "all" else [level or "dram"]
        tables = {name: points(held, name, measured) for name in shown}
        span = _span(tables, unit, _whole_point(held, shown[0]))
        own = plan(held.summary["precision"]).activation.name
        _roofs(axes, unit, own, span)
        said = [
            _kernels(axes, table, i, name, len(shown) > 1) for i, (name, table) in enumerate(tables.items())
        ]
        _whole(axes, held, shown[0])
        axes.set(xscale="log", yscale="log", xlim=span)
        engineering(axes.xaxis, "")
        engineering(axes.yaxis, "")
        where = " and ".join(NAMES[name] for name in shown)
        axes.set(xlabel=f"intensity at {where} [FLOP/B]", ylabel="arithmetic rate [FLOP/s]")
        without = int((held.ops["flops"] <= 0).sum())
        remark(axes, f"{without} kernels without multiply-accumulates not shown" if without else "", *said)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", handletextpad=0.3)
        return axes


def _span(tables: dict[str, pd.DataFrame], device: Any, whole: tuple[float, float]) -> tuple[float, float]:
    """Intensities to show: the kernels, and the ridges of the roofs."""
    rates, top = bandwidths(device).values(), max(peaks(device), default=1.0)
    seen = [v for table in tables.values() for v in table["flop_per_byte"].dropna()]
    seen += [whole[0]] if whole[0] > 0 else []
    low, high = min([*seen, 1.0]), max([*seen, *(2 * top / rate for rate in rates)])
    return low / 2.0, high * 2.0


def _roofs(ax: Any, device: Any, own: str, span: tuple[float, float]) -> None:
    import numpy as np

    tops = peaks(device)
    mine = float(device.peak_flop_per_s(own)) or max(tops, default=1.0)
    x = np.geomspace(*span, 200)
    for i, (name, rate) in enumerate(bandwidths(device).items()):
        ax.plot(x, np.minimum(rate * x, mine), color=COLOURS[6], linestyle=("-", "--")[i % 2], linewidth=1.2)
        above = i > 0  # the slower level's name stands below its line, the faster one's above
        start = span[0] * (mine / rate / span[0]) ** (0.55 if above else 0.25)
        ax.annotate(
            f"{NAMES[name]} {si(rate, 'B/s', 3)}",
            (start, rate * start),
            ha="right" if above else "left",
            va="bottom" if above else "top",
            fontsize="x-small",
            xytext=(-3, 0) if above else (4, -1),
            textcoords="offset points",
            color=COLOURS[6],
        )
    labelled = math.inf
    for rate, names in reversed(tops.items()):
        bold = own in names.split(", ")
        if not bold:
            ridge = rate / max(bandwidths(device).values())
            ax.hlines(rate, ridge, span[1], color=GREY, linewidth=0.6, linestyle=":")
            if 1 / 1.6 < rate / labelled < 1.6 or 1 / 1.6 < rate / mine < 1.6:
                continue  # its name would cover another
        labelled = rate
        ax.annotate(
            f"{names} {si(rate, 'FLOP/s', 3)}",
            (span[1], rate),
            ha="right",
            xytext=(-2, 2),
            textcoords="offset points",
            fontsize="x-small",
            color=COLOURS[6] if bold else GREY,
        )


def _whole_point(result: Result, level: str) -> tuple[float, float]:
    """Intensity [FLOP/B] and rate [FLOP/s] of the run on one device; zero where it moves nothing."""
    s = result.summary
    moved = float(result.ops[f"{level}_bytes"].sum()) if f"{level}_bytes" in result.ops.columns else 0.0
    if not (s["flops"] > 0 and moved > 0):
        return 0.0, 0.0
    rate = s["flops"] * s["throughput_per_s"] / s["batch"] / s.get("devices", 1)
    return float(result.ops["flops"].sum()) / moved, rate


def _whole(ax: Any, result: Result, level: str) -> None:
    """The run as a whole, in steady state."""
    intensity, rate = _whole_point(result, level)
    if rate > 0:
        ax.scatter(
            intensity,
            rate,
            marker="*",
            s=70,
            color=COLOURS[4],
            zorder=5,
            edgecolors="black",
            linewidths=0.4,
            label="whole run",
        )


def _kernels(ax: Any, table: pd.DataFrame, index: int, level: str, many: bool) -> str:
    import numpy as np

    known = table.dropna(subset=["flop_per_byte", "flop_per_s"])
    known, said = thinned(known)
    if len(known):
        share = known["total_s"] / table["total_s"].sum()
        ax.scatter(
            known["flop_per_byte"],
            known["flop_per_s"],
            s=6 + 150 * np.sqrt(share.to_numpy()) * 0.5,
            color=COLOURS[index],
            marker=MARKERS[index],
            alpha=0.65,
            linewidths=0,
            zorder=3,
            label=f"kernels, {NAMES[level]}" if many else "kernels (area: time)",
            rasterized=len(known) > 2000,
        )
    if "measured_flop_per_s" in known.columns and known["measured_flop_per_s"].notna().any():
        ax.scatter(
            known["flop_per_byte"],
            known["measured_flop_per_s"],
            s=14,
            facecolors="none",
            edgecolors=COLOURS[1],
            marker="s",
            linewidths=0.8,
            zorder=4,
            label="measured" if index == 0 else None,
        )
    lost = len(table) - len(table.dropna(subset=["flop_per_byte"]))
    return "; ".join(
        text for text in (said, f"{lost} that move nothing at this level not shown" if lost else "") if text
    )
