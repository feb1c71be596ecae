"""The picture of a trade-off: speed-up against accuracy lost, one panel per device."""

from __future__ import annotations

from math import ceil, isnan
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import MissingExtraError, RequestError

if TYPE_CHECKING:
    from accelsim.explore.tradeoff import Tradeoff

# Okabe-Ito colours: distinguishable with colour-vision deficiency.
_COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def plot(table: Tradeoff) -> Any:
    """Speed-up with its band over the drop in accuracy; choices of unknown accuracy stand at the right.

    Returns
    -------
    matplotlib.figure.Figure
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "the picture of a trade-off") from None
    rows = [row for row in table.rows if not isnan(row["speedup"])]
    if not rows:
        raise RequestError("no choice runs on any of the devices")
    devices = list(dict.fromkeys(row["hardware"] for row in rows))
    colour = dict(zip(dict.fromkeys(row["technique"] for row in rows), _COLOURS * 3))
    columns = min(3, len(devices))
    lines = ceil(len(devices) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.6 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    drops = [row["accuracy_drop_pct"] for row in rows if not isnan(row["accuracy_drop_pct"])]
    right = max([1.0, *drops]) * 1.2
    for panel, device in zip(panels, devices):
        for row in (row for row in rows if row["hardware"] == device):
            drop = row["accuracy_drop_pct"]
            place = right if isnan(drop) else drop
            ends = [row["speedup"] - row["speedup_low"], row["speedup_high"] - row["speedup"]]
            shade = colour[row["technique"]]
            marker = "x" if isnan(drop) else "o"
            span = [[ends[0]], [ends[1]]]
            panel.errorbar(place, row["speedup"], yerr=span, color=shade, marker=marker, lw=0.7)
            panel.annotate(f"{row['technique']} {row['level']}", (place, row["speedup"]), fontsize=6)
        panel.axhline(1.0, color="#888888", lw=0.5)
        panel.axvline(0.93 * right, color="#bbbbbb", lw=0.5, ls=":")
        panel.set_title(device)
        panel.set_xlabel("accuracy lost (points, % of perplexity; right: unknown)")
        panel.set_ylabel("speed-up")
        panel.set_yscale("log")
    for panel in panels[len(devices) :]:
        panel.set_visible(False)
    figure.suptitle(table.model)
    return figure
