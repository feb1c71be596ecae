"""The sections of the HTML report; every text that comes from outside is escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from accelsim.core.units import column_unit, si
from accelsim.engine.costs import cost
from accelsim.explore.compare import METRICS, SURE, Comparison, ranked
from accelsim.hardware.cost import CostModel
from accelsim.report.page.evidence import Candidate
from accelsim.report.plots.style import SI_UNITS, label

if TYPE_CHECKING:
    import pandas as pd

MONEY = {
    "hourly_usd": "USD/h",
    "cost_per_million_items_usd": "USD/million items",
    "energy_per_item_j": "J/item",
    "operating_kgco2e_per_million_items": "kg CO2e/million items",
    "embodied_kgco2e": "kg CO2e embodied",
}
"""Numbers of `accelsim.engine.costs.cost` that a report shows, with their heads."""

INFEASIBLE = 60
"""Lines of the table of infeasible points."""


def number(name: str, value: Any) -> str:
    """A value of a column as text, with its unit where that takes a prefix, else as its header names it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "unknown"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(str(value))
    unit = column_unit(name)[1]
    if unit in SI_UNITS:
        return escape(si(float(value), unit))
    return f"{value:,}" if isinstance(value, int) else _four(float(value))


def _four(value: float) -> str:
    """Four digits; whole ones from a thousand on."""
    if 1e3 <= abs(value) < 1e9:
        return f"{float(f'{value:.4g}'):,.0f}"
    return f"{value:.4g}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""

    def cell(tag: str, text: str, place: int) -> str:
        return f"<{tag} class=n>{text}</{tag}>" if place in right else f"<{tag}>{text}</{tag}>"

    head = "".join(cell("th", text, i) for i, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", text, i) for i, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def verdict(found: Sequence[Candidate], objective: str, where: str | None) -> str:
    """Which device is best by the first objective, and whether the difference is larger than the error."""
    best = [c for c in found if c.row]
    within = f" among points with <code>{escape(where)}</code>" if where else ""
    if not best:
        return f"<div class=verdict><p>No device has a feasible point{within}.</p></div>"
    lines = [
        f"<p><b>{escape(best[0].hardware)}</b> has the best {escape(label(objective))}{within}: "
        f"{number(objective, best[0].row[objective])}{_bare(objective)} at {_point(best[0].row)}.</p>"
    ]
    sure = objective in METRICS and all(c.result is not None for c in best[:8])
    compared: Comparison | None = None
    if sure and len(best) > 1:
        compared = ranked([c.result for c in best[:8] if c.result is not None], objective)
        if compared.winner:
            lines.append(
                f"<p>It beats every other device here with a probability of at least {SURE:.0%}.</p>"
            )
        else:
            near = compared.frame.loc[compared.frame["verdict"] == "not distinguishable", "hardware"]
            lines.append(
                f"<p class=warn>The difference to {escape(', '.join(map(str, near)))} is within the error "
                "bands: the two cannot be told apart.</p>"
            )
    elif objective not in METRICS:
        lines.append(
            f"<p class=soft>{escape(label(objective))} has no error band, so how sure this order is is not "
            "known.</p>"
        )
    elif len(best) > 1:
        lines.append(
            "<p class=soft>Not every best point could be simulated again here, so there are no "
            "probabilities; see the cards.</p>"
        )
    return f"<div class=verdict>{''.join(lines)}</div>{_ranking(best, objective, compared)}"


def _bare(name: str) -> str:
    """The unit of a column whose numbers are written without it."""
    unit = column_unit(name)[1]
    return "" if unit in ("", "1", *SI_UNITS) else f" {escape(unit)}"


def _ranking(best: Sequence[Candidate], objective: str, compared: Comparison | None) -> str:
    told = {} if compared is None else {row["hardware"]: row for row in compared.frame.to_dict("records")}
    rows = []
    for c in best:
        row = told.get(c.hardware)
        value = c.row[objective]
        ends, beats, said = "", "", ""
        if row is not None:
            ends = f"{number(objective, row['low'])} to {number(objective, row['high'])}"
            beats = "" if row["verdict"] == "best" else f"{row['probability_better']:.0%}"
            said = escape(str(row["verdict"]))
        first = best[0].row[objective]
        ratio = f"{value / first:.3g}" if first else ""
        rows.append([escape(c.hardware), _point(c.row), number(objective, value), ends, ratio, beats, said])
    heads = ["device", "best point", escape(label(objective)), "error band", "to the best",
             "probability to beat it", "verdict"]  # fmt: skip
    return table(heads, rows, right=(2, 4, 5))


def _point(row: Mapping[str, Any]) -> str:
    parts = [f"batch {int(row['batch']):,}" if row.get("batch") == row.get("batch") else ""]
    parts += [escape(str(row[n])) for n in ("precision", "stack") if isinstance(row.get(n), str) and row[n]]
    if row.get("devices", 1) == row.get("devices", 1) and row.get("devices", 1) > 1:
        parts.append(f"{int(row['devices'])} devices")
    if isinstance(row.get("context"), int | float) and row["context"] == row["context"]:
        parts.append(f"context {int(row['context']):,}")
    changes = [f"{n} {row[n]}" for n in row if "." in n and row[n] == row[n]]
    return ", ".join([escape(str(row["workload"])), *filter(None, parts), *map(escape, changes)])


def candidates(found: Sequence[Candidate]) -> str:
    """The devices that competed."""
    rows = []
    for c in found:
        d = c.device
        facts = (
            [
                escape(d.title),
                escape(d.kind),
                escape(si(d.memory.capacity_bytes, "B")),
                escape(si(d.memory.bandwidth_bytes_per_s, "B/s")),
                "unknown" if d.power.tdp_w is None else escape(si(d.power.tdp_w, "W")),
                "unknown" if d.cost.hourly_usd is None else f"{d.cost.hourly_usd:.2f}",
                f"{len(d.assumed)} of {len(d.numbers)}",
            ]
            if d is not None
            else ["<span class=soft>not in this catalog</span>", "", "", "", "", "", ""]
        )
        rows.append([escape(c.hardware), *facts, f"{c.feasible:,} of {c.points:,}"])
    heads = ["device", "what it is", "kind", "memory", "bandwidth", "power limit", "USD per hour",
             "numbers assumed", "feasible points"]  # fmt: skip
    return table(heads, rows, right=(3, 4, 5, 6, 7, 8))


def cards(found: Sequence[Candidate], names: Sequence[str]) -> str:
    """A card per device: its best point, how sure it is, what is assumed, what is unknown."""
    return f"<div class=cards>{''.join(_card(c, names) for c in found if c.row)}</div>"


def _card(c: Candidate, names: Sequence[str]) -> str:
    rows = [[escape(label(n)), number(n, c.row.get(n))] for n in names if n in c.row]
    body = [
        f"<h3>{escape(c.hardware)}</h3><p class=soft>{_point(c.row)}</p>",
        table(["best point", ""], rows, right=(1,)),
    ]
    if c.result is not None:
        band = c.result.intervals["latency_s"]
        body.append(
            f"<p><b>Validation</b>: {band.level:.0%} of real latencies should lie between "
            f"{escape(si(band.low, 's'))} and {escape(si(band.high, 's'))}. Basis: {escape(band.basis)}.</p>"
        )
        body += [f"<p class=soft>{escape(note)}</p>" for note in c.result.notes]
        if c.result.missing:
            told = [[escape(n), escape(why)] for n, why in c.result.missing.items()]
            body.append(_folded(f"{len(told)} numbers are unknown", table(["number", "why"], told)))
        s = c.result.stamp
        body.append(
            f"<p class=soft>stamp <code>{escape(s.hardware_hash[:10])} {escape(s.workload_hash[:10])} "
            f"{escape(s.parameters_hash[:10])}</code></p>"
        )
    elif c.unknown:
        body.append(
            f"<p class=warn><b>Validation</b>: unknown here, since the point could not be simulated again "
            f"({escape(c.unknown)}).</p>"
        )
    if c.device is not None:
        body.append(_assumed(c.device))
    return f"<article class=card>{''.join(body)}</article>"


def _assumed(device: Any) -> str:
    rows = [
        [_breakable(path), escape(str(q.value)), escape(q.source)]
        for path, q in device.numbers.items()
        if q.status == "assumed"
    ]
    kernels = [q for path, q in device.quantities.items() if path.startswith("kernels.")]
    guessed = sum(q.status == "assumed" for q in kernels)
    more = f"; of {len(kernels)} constants of kernel models {guessed} are assumed" if kernels else ""
    said = f"{len(rows)} of {len(device.numbers)} hardware numbers are assumed{more}"
    if not rows:
        return f"<p>{said}.</p>"
    return _folded(said, table(["number", "value", "source"], rows), opened=True)


def _breakable(path: str) -> str:
    """A dotted path that may break at its dots and underscores."""
    return escape(path).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _folded(head: str, body: str, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{escape(head)}</summary>{body}</details>"


def money(found: Sequence[Candidate]) -> str:
    """What the best points cost and emit under the default cost model, and on what basis."""
    rows, said = [], []
    for c in found:
        if c.result is None:
            if c.row:
                said.append([escape(c.hardware), "", escape(c.unknown)])
            continue
        priced = cost(c.result, hardware=c.device)
        rows.append([escape(c.hardware), _point(c.row), *(_plain(priced.summary[n]) for n in MONEY)])
        said += [[escape(c.hardware), escape(head), escape(priced.basis[n])] for n, head in MONEY.items()]
    if not rows:
        return "<p>No device of this study could be simulated again, so nothing has a cost.</p>"
    model = CostModel()
    terms = (
        f"<p>Rented; power of the site over that of its devices {model.pue:g}, electricity of the grid "
        f"'{model.grid}', both assumed: <code>r.cost(ax.CostModel(...))</code> answers for others.</p>"
    )
    heads = ["device", "best point", *map(escape, MONEY.values())]
    basis = table(["device", "number", "basis"], said)
    return terms + table(heads, rows, right=range(2, len(heads))) + _folded("Basis of each number", basis)


def _plain(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3g}"


def infeasible(frame: pd.DataFrame) -> str:
    """What cannot run, and why, by device and reason."""
    bad = frame[frame["status"] != "ok"]
    if bad.empty:
        return "<p>Every point is feasible.</p>"
    rows = []
    for (device, reason), part in bad.groupby(["hardware", "reason"], sort=False):
        first = part.iloc[0]
        need, have, hint = (escape(str(first.get(n, ""))) for n in ("need", "have", "hint"))
        rows.append([escape(str(device)), escape(str(reason)), f"{len(part):,}", need, have, hint])
    rows.sort(key=lambda row: -int(row[2].replace(",", "")))
    cut = f"<p class=soft>{len(rows) - INFEASIBLE} more not shown.</p>" if len(rows) > INFEASIBLE else ""
    heads = ["device", "reason", "points", "needs, for example", "has", "what would help"]
    return table(heads, rows[:INFEASIBLE], right=(2,)) + cut


def reproduce(study: Any, document: str, digest: str, versions: tuple[str, str]) -> str:
    """How to get these numbers again."""
    parts = []
    if document:
        parts.append(
            "<p>The study, as it was kept with its rows:</p>"
            f"<pre>{escape(document.rstrip())}</pre>"
            "<pre>accelsim sweep study.yaml --store study.db\naccelsim report study.db -o study.html</pre>"
        )
    else:
        parts.append(f"<pre>{escape(script(study))}</pre>")
    parts.append(
        f"<p>accelsim {escape(versions[0])}, model version {escape(versions[1])}, {len(study):,} points, "
        f"table <code>{digest}</code>. Equal versions, files and settings give equal numbers; "
        "the stamps of the best points are on the cards.</p>"
    )
    return "".join(parts)


def script(study: Any) -> str:
    """Python that repeats a study; axes of many values are cut, and that is said."""
    lines = ["import accelsim as ax", "", "study = ax.sweep("]
    axes = [a for a in study.axes if a in study.frame.columns] or [
        a for a in ("workload", "hardware", "batch", "precision") if a in study.frame.columns
    ]
    fixed = [a for a in ("workload", "hardware", "batch", "precision") if a not in axes]
    dotted = []
    for name in [*fixed, *axes]:
        if name not in study.frame.columns:
            continue
        values = study.frame[name].dropna().unique().tolist()
        shown = values[0] if len(values) == 1 else values[:40]
        note = f"  # and {len(values) - 40} more" if len(values) > 40 else ""
        if "." in name:
            dotted.append(f"{name!r}: {shown!r}")
        else:
            lines.append(f"    {name}={shown!r},{note}")
    if dotted:
        lines.append(f"    **{{{', '.join(dotted)}}},")
    return "\n".join([*lines, ")", 'study.report("study.html")'])
