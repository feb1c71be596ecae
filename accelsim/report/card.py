"""The card of a result: what a notebook or a terminal shows first."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

from accelsim.core.units import si

if TYPE_CHECKING:
    from accelsim.engine.result import Result


def lines(result: Result) -> list[tuple[str, str]]:
    """Label and text of each line of the card."""
    s, band = result.summary, result.intervals["latency_s"]
    rows = [
        (
            "latency",
            f"{si(s['latency_s'], 's')} for batch {s['batch']} ({si(band.low, 's')} to {si(band.high, 's')})",
        ),
        ("throughput", f"{s['throughput_per_s']:.4g} {s['item']}s/s"),
        ("bound by", f"{s['bound']}, {_percent(s['mac_utilisation'])} of peak MAC rate"),
        ("energy", _known(result, "energy_per_item_j", f"J/{s['item']}", f"{si(s['power_w'], 'W')} average")),
        ("memory", f"{si(s['memory_bytes'], 'B')} of {si(s['memory_capacity_bytes'], 'B')}"),
        ("cost", _known(result, "usd_per_million_items", f"USD per million {s['item']}s", "")),
        ("accuracy", _accuracy(result)),
        ("error band", f"{band.level:.0%}: {band.basis}"),
        ("evidence", f"{s['assumed_numbers']} of {s['hardware_numbers']} hardware numbers are assumed"),
    ]
    return rows + [("note", note) for note in result.notes]


def title(result: Result) -> str:
    s = result.summary
    count = f"{s['devices']} x " if s.get("devices", 1) > 1 else ""
    phase = "" if s["phase"] == "forward" else f" {s['phase']}"
    return f"{s['workload']}{phase} on {count}{s['hardware']}, {s['precision']}"


def text_card(result: Result) -> str:
    """The card for a terminal."""
    body = [f"  {label:<11}{text}" for label, text in lines(result)]
    return "\n".join([title(result), *body])


def html_card(result: Result) -> str:
    """The card for a notebook; colours follow the page's theme."""
    rows = "".join(
        f"<tr><th style='text-align:left;padding:1px 12px 1px 0;font-weight:600'>{escape(label)}</th>"
        f"<td style='text-align:left;padding:1px 0'>{escape(text)}</td></tr>"
        for label, text in lines(result)
    )
    return (
        "<div style='border:1px solid currentColor;border-radius:6px;padding:8px 12px;"
        "display:inline-block;max-width:60em'>"
        f"<div style='font-weight:700;margin-bottom:4px'>{escape(title(result))}</div>{_bars(result)}"
        f"<table style='border-collapse:collapse'>{rows}</table></div>"
    )


def _bars(result: Result) -> str:
    """One bar: where the time goes, by bound."""
    share: dict[str, float] = {}
    for bound, total_s in zip(result.ops["bound"].tolist(), result.ops["total_s"].tolist()):
        share[bound] = share.get(bound, 0.0) + total_s
    total = sum(share.values())
    if not total:
        return ""
    # Okabe-Ito colours: distinguishable with colour-vision deficiency.
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
    ordered = sorted(share.items(), key=lambda pair: -pair[1])[: len(colours)]
    bars = "".join(
        f"<span title='{escape(name)} {value / total:.0%}' style='display:inline-block;height:10px;"
        f"width:{100 * value / total:.1f}%;background:{colour}'></span>"
        for (name, value), colour in zip(ordered, colours)
    )
    names = ", ".join(f"{escape(name)} {value / total:.0%}" for name, value in ordered)
    legend = f"<div style='font-size:85%'>time by bound: {names}</div>"
    return f"<div style='line-height:0;margin:2px 0'>{bars}</div>{legend}"


def _percent(value: float) -> str:
    return "unknown share" if math.isnan(value) else f"{value:.1%}"


def _accuracy(result: Result) -> str:
    """The value or what the source gives instead, the drop, and where they come from."""
    s = result.summary
    value, drop = s["accuracy_pct"], s["accuracy_drop_pct"]
    if math.isnan(value) and math.isnan(drop):
        return f"unknown: {result.missing.get('accuracy_pct', 'no reason recorded')}"
    words = [result.missing.get("accuracy_pct", "") if math.isnan(value) else f"{value:.4g} %"]
    words.append("drop unknown" if math.isnan(drop) else f"drop {drop:.3g}")
    return f"{', '.join(words)} ({s['accuracy_metric']}; {s['accuracy_confidence']}: {s['accuracy_source']})"


def _known(result: Result, key: str, unit: str, more: str) -> str:
    value: Any = result.summary[key]
    if math.isnan(value):
        return f"unknown: {result.missing.get(key, 'no reason recorded')}"
    text = si(value, unit) if unit.startswith("J") else f"{value:.4g} {unit}"
    return f"{text}, {more}" if more else text
