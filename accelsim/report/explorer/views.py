"""The pictures of a choice: roofline, kernels, timeline, batching curve, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.core.frames import records
from accelsim.core.outcome import Infeasible
from accelsim.core.precision import plan
from accelsim.core.units import si
from accelsim.explore.pareto import nondominated, oriented
from accelsim.report.explorer.answers import Answers, device_of
from accelsim.report.explorer.choice import Choice
from accelsim.report.explorer.svg import COLOURS, DASHES, Axis, Chart, short

if TYPE_CHECKING:
    from accelsim.engine.result import Result

BARS = 11
"""Kernels of the breakdown; the others are summed in words."""

SEGMENTS = 800
"""Segments of a timeline that are drawn; the shortest are left out, and the title says so."""

METRICS: Mapping[str, tuple[str, str]] = {
    "throughput_per_s": ("throughput [items/s]", "/s"),
    "latency_s": ("latency of the batch", "s"),
    "energy_per_item_j": ("energy per item", "J"),
    "usd_per_million_items": ("cost per million items", "USD"),
    "power_w": ("power", "W"),
    "memory_bytes": ("memory", "B"),
}
"""Column, its words and its unit."""

GREY = "#888888"


def colour_of(choice: Choice, device: str) -> str:
    """A device keeps its colour over all pictures."""
    return COLOURS[choice.hardware.index(device) % len(COLOURS)]


def bound_colours(bounds: Sequence[str]) -> dict[str, str]:
    """Colours of what bounds kernels, the same for the same word in every picture of a run."""
    fixed = {
        "compute": COLOURS[0], "dram": COLOURS[1], "memory": COLOURS[1], "launch": COLOURS[3],
        "l2": COLOURS[4], "vector": COLOURS[2], "link": COLOURS[5], "latency": COLOURS[2],
    }  # fmt: skip
    more = (c for c in COLOURS * 4 if c not in {fixed[b] for b in bounds if b in fixed})
    return {b: fixed.get(b) or next(more) for b in dict.fromkeys(bounds)}


def refused(title: str, outcome: Infeasible) -> Chart:
    """An empty picture that says why."""
    chart = Chart(title)
    chart.say(f"infeasible ({outcome.reason}): needs {outcome.need}, has {outcome.have}; {outcome.hint}")
    return chart


# -- one device
# ----------------------------------------------------------------------------------------------------------


def roofline(answers: Answers, choice: Choice) -> Chart:
    """Roofs of the devices (memory bandwidth, and peak rate of the precision that runs), the whole run on
    each, and the kernels of the one in focus.
    """
    title = f"Roofline: kernels on {choice.focus}"
    result = answers.run(choice, choice.focus)
    kernels = [] if isinstance(result, Infeasible) else _placed(result)
    whole = _whole(answers, choice)
    xs = [k["x"] for k in kernels] + [p[1] for p in whole]
    ys = [k["y"] for k in kernels] + [p[2] for p in whole]
    if not xs:
        return refused(title, result) if isinstance(result, Infeasible) else Chart(title)
    roofs = {d: _roof(answers, choice, d) for d in choice.hardware}
    tops = [peak for peak, _ in roofs.values() if math.isfinite(peak) and peak > 0]
    x = Axis.over("arithmetic intensity [FLOP per byte of external memory]", [*xs, 1.0], log=True)
    chart = Chart(
        title, x, Axis.over("FLOP/s", [*ys, *tops], log=True, unit="FLOP/s"), left=84, keys=_devices(choice)
    )
    for i, (device, (peak, bandwidth)) in enumerate(roofs.items()):
        if math.isfinite(peak) and peak > 0:
            _draw_roof(chart, peak, bandwidth, colour_of(choice, device), DASHES[i])
    total = sum(k["total_s"] for k in kernels) or 1.0
    for k in kernels:
        share = k["total_s"] / total
        words = f"{k['op']}: {si(k['total_s'], 's', 3)}, {share:.1%} of the kernels' time, {k['bound']}"
        size = 2.5 + 9.0 * math.sqrt(share)
        colour = colour_of(choice, choice.focus)
        chart.point(k["x"], k["y"], colour, words, size=size, pick=f"op:{k['op']}", faint=True)
    for device, intensity, rate in whole:
        words = f"{device}, whole run: {si(rate, 'FLOP/s', 3)} at {intensity:.3g} FLOP/B"
        shape = choice.hardware.index(device)
        pick = f"run:{device}:{choice.batch}"
        chart.point(intensity, rate, colour_of(choice, device), words, shape=shape, size=6, pick=pick)
    return chart


def _draw_roof(chart: Chart, peak: float, bandwidth: float, colour: str, dash: str) -> None:
    axis = chart.x
    if axis is None:
        return
    ridge = peak / bandwidth
    bend = min(max(ridge, axis.low), axis.high)
    points = [axis.low, bend, axis.high]
    chart.line(points, [min(peak, bandwidth * p) for p in points], colour, dash=dash)


def _placed(result: Result) -> list[dict[str, Any]]:
    """Kernels with arithmetic and traffic, with their place under the roof."""
    return [
        {**row, "x": row["flops"] / row["dram_bytes"], "y": row["flops"] / row["total_s"]}
        for row in records(result.ops[["op", "total_s", "flops", "dram_bytes", "bound"]])
        if row["flops"] > 0 and row["dram_bytes"] > 0 and row["total_s"] > 0
    ]


def _whole(answers: Answers, choice: Choice) -> list[tuple[str, float, float]]:
    found = []
    for device in choice.hardware:
        s = answers.known(choice, device)
        if s is not None and s["status"] == "ok" and s["dram_bytes"] > 0 and s["flops"] > 0:
            found.append((device, s["flops"] / s["dram_bytes"], s["flops"] / s["latency_s"]))
    return found


def _roof(answers: Answers, choice: Choice, device: str) -> tuple[float, float]:
    """Peak rate of what runs, and bandwidth, of all devices that work together."""
    row = answers.known(choice, device)
    if row is None or row["status"] != "ok":
        return math.nan, math.nan
    held = device_of(device)
    peak = float(held.peak_flop_per_s(plan(row["precision"]).activation.name))
    return choice.devices * peak, choice.devices * float(held.memory.bandwidth_bytes_per_s)


def breakdown(answers: Answers, choice: Choice) -> Chart:
    """The kernels that take the time, coloured by what bounds them."""
    title = f"Where the time goes on {choice.focus}"
    result = answers.run(choice, choice.focus)
    if isinstance(result, Infeasible):
        return refused(title, result)
    rows = sorted(records(result.ops[["op", "kind", "total_s", "bound"]]), key=lambda r: -r["total_s"])
    total = sum(r["total_s"] for r in rows) or 1.0
    shown, rest = rows[:BARS], rows[BARS:]
    longest = max((r["total_s"] for r in shown), default=0.0)
    x = Axis("time of all executions", 0.0, 1.08 * longest or 1.0, unit="s")
    colours = bound_colours([r["bound"] for r in rows])
    chart = Chart(title, x, left=132, keys=_bounds(colours, {r["bound"] for r in shown}))
    step = (chart.bottom - chart.top) / (BARS + 1)
    for i, r in enumerate(shown):
        y = chart.top + step * i
        share = f"{r['total_s'] / total:.1%}"
        words = f"{r['op']}: {si(r['total_s'], 's', 3)}, {share}, {r['kind']}, bound by {r['bound']}"
        chart.box(0.0, r["total_s"], y + 2, step - 4, colours[r["bound"]], words, f"op:{r['op']}")
        chart.words(chart.left - 5, y + step / 2 + 4, short(r["op"], 20), anchor="end")
    if rest:
        seconds = sum(r["total_s"] for r in rest)
        y = chart.top + step * (len(shown) + 0.5) + 4
        words = f"{len(rest)} others: {si(seconds, 's', 3)}, {seconds / total:.1%} of the time"
        chart.words(chart.left + 6, y, words)
    return chart


def timeline(answers: Answers, choice: Choice) -> Chart:
    """What runs where and when, a row per lane."""
    title = f"Timeline on {choice.focus}"
    result = answers.run(choice, choice.focus)
    if isinstance(result, Infeasible):
        return refused(title, result)
    table = result.timeline
    if len(table) > SEGMENTS:
        kept = (table["end_s"] - table["start_s"]).nlargest(SEGMENTS).index
        title += f" (the {SEGMENTS} longest of {len(table)} segments)"
        table = table.loc[kept]
    lanes = list(dict.fromkeys(table["lane"].tolist()))
    end = float(table["end_s"].max()) if len(table) else 1.0
    bounds = dict(zip(result.ops["op"].tolist(), result.ops["bound"].tolist()))
    colours = bound_colours(list(bounds.values()))
    x = Axis("time", 0.0, end or 1.0, unit="s")
    chart = Chart(title, x, left=92, keys=_bounds(colours, set(bounds.values())))
    step = min(70.0, (chart.bottom - chart.top) / max(1, len(lanes)))
    for i, lane in enumerate(lanes):
        y = chart.top + step * i
        chart.words(chart.left - 5, y + step / 2 + 3, short(lane, 14), anchor="end")
        held = table[table["lane"] == lane]
        columns = zip(held["op"].tolist(), held["start_s"].tolist(), held["end_s"].tolist())
        for op, start, stop in columns:
            words = f"{op}: {si(start, 's', 3)} to {si(stop, 's', 3)}"
            pick = f"op:{op}" if op in bounds else ""
            colour = colours[bounds[op]] if op in bounds else GREY
            chart.box(start, stop, y + 2, step - 4, colour, words, pick)
    return chart


def _bounds(colours: Mapping[str, str], used: set[str]) -> list[tuple[str, str, str]]:
    return [(f"bound by {bound}", colour, "") for bound, colour in colours.items() if bound in used][:6]


# -- devices side by side
# ----------------------------------------------------------------------------------------------------------


def batching(answers: Answers, choice: Choice, metric: str) -> Chart:
    """A metric over the batch with its error band where it has one."""
    words, unit = METRICS[metric]
    curves = {d: [r for r in answers.curve(choice, d) if _known(r, metric)] for d in choice.hardware}
    values = [v for rows in curves.values() for r in rows for v in (r[metric], *_ends(r, metric))]
    title = f"Batching: {words.split(' [')[0]}"
    if not values:
        return _none_known(title, answers, choice, metric)
    batches = [r["batch"] for rows in curves.values() for r in rows]
    x = Axis("batch", min(batches) / 1.2, max(max(batches) * 1.2, 2.0), log=True)
    chart = Chart(title, x, Axis.over(words, values, log=True, unit=unit), left=76, keys=_devices(choice))
    for i, (device, rows) in enumerate(curves.items()):
        if not rows:
            continue
        colour = colour_of(choice, device)
        at = [r["batch"] for r in rows]
        ends = [_ends(r, metric) for r in rows]
        chart.band(at, [e[0] for e in ends], [e[1] for e in ends], colour)
        chart.line(at, [r[metric] for r in rows], colour, dash=DASHES[i])
        for r in rows:
            told = f"{device}, batch {r['batch']}: {si(r[metric], unit, 3)}"
            chart.point(
                r["batch"], r[metric], colour, told, shape=i, pick=f"run:{device}:{r['batch']}", size=4
            )
    chart.upright(choice.batch, f"batch {choice.batch}")
    return chart


def pareto(answers: Answers, choice: Choice, metric: str) -> Chart:
    """Latency against a metric for every batch of the curves, with the front that nothing beats."""
    words, unit = METRICS[metric]
    rows = [(d, r) for d in choice.hardware for r in answers.curve(choice, d) if _known(r, metric)]
    title = f"Pareto: latency and {words.split(' [')[0]}"
    if not rows:
        return _none_known(title, answers, choice, metric)
    latencies = [v for _, r in rows for v in (r["latency_s"], r["latency_low_s"], r["latency_high_s"])]
    y = Axis.over(words, [r[metric] for _, r in rows], log=True, unit=unit)
    x = Axis.over("latency of the batch, with its error band", latencies, log=True, unit="s")
    chart = Chart(title, x, y, left=76, keys=_devices(choice))
    names = ("latency_s", metric)
    costs = oriented(np.array([[r["latency_s"], r[metric]] for _, r in rows]), names)
    front = nondominated(costs)
    edge = sorted((r["latency_s"], r[metric]) for (_, r), kept in zip(rows, front) if kept)
    chart.line([e[0] for e in edge], [e[1] for e in edge], "currentColor", width=1.0)
    for (device, r), kept in zip(rows, front):
        colour = colour_of(choice, device)
        chart.line([r["latency_low_s"], r["latency_high_s"]], [r[metric]] * 2, colour, width=0.8)
        told = f"{device}, batch {r['batch']}: {si(r['latency_s'], 's', 3)}, {si(r[metric], unit, 3)}"
        told += ", on the front" if kept else ""
        size = 6.5 if r["batch"] == choice.batch else 4.0
        chart.point(
            r["latency_s"],
            r[metric],
            colour,
            told,
            shape=choice.hardware.index(device),
            size=size,
            pick=f"run:{device}:{r['batch']}",
            faint=not kept,
        )
    return chart


def _known(row: Mapping[str, Any], metric: str) -> bool:
    value = row.get(metric, math.nan)
    return math.isfinite(value) and value > 0


def _ends(row: Mapping[str, Any], metric: str) -> tuple[float, float]:
    """The error band of latency and of what follows from it alone; no other number has one."""
    if metric == "latency_s":
        return row["latency_low_s"], row["latency_high_s"]
    if metric == "throughput_per_s":
        scale = row["throughput_per_s"] * row["latency_s"]
        return scale / row["latency_high_s"], scale / row["latency_low_s"]
    return row[metric], row[metric]


def _none_known(title: str, answers: Answers, choice: Choice, metric: str) -> Chart:
    outcome = answers.run(choice, choice.focus)
    if isinstance(outcome, Infeasible):
        return refused(title, outcome)
    chart = Chart(title)
    chart.say(outcome.missing.get(metric) or f"{metric} is not known for these devices")
    return chart


def _devices(choice: Choice) -> list[tuple[str, str, str]]:
    return [(d, colour_of(choice, d), DASHES[i]) for i, d in enumerate(choice.hardware)]
