"""Pictures for papers (matplotlib), one function per chart; each returns its Axes and takes ``ax=``."""

from __future__ import annotations

from accelsim.report.plots.batch import batch_curve, batch_curves, heatmap
from accelsim.report.plots.effects import effects, tornado
from accelsim.report.plots.inside import array_map, fifos
from accelsim.report.plots.layers import layers
from accelsim.report.plots.measured import error_by_size, predicted_measured
from accelsim.report.plots.overview import draw_runs, overview, runs
from accelsim.report.plots.parallel import parallel
from accelsim.report.plots.pareto import pareto, tradeoff
from accelsim.report.plots.roofline import roofline
from accelsim.report.plots.serving import latency, queue
from accelsim.report.plots.style import figure, png, save, style
from accelsim.report.plots.timeline import timeline

__all__ = [
    "array_map",
    "batch_curve",
    "batch_curves",
    "draw_runs",
    "effects",
    "error_by_size",
    "fifos",
    "figure",
    "heatmap",
    "latency",
    "layers",
    "overview",
    "parallel",
    "pareto",
    "png",
    "predicted_measured",
    "queue",
    "roofline",
    "runs",
    "save",
    "style",
    "timeline",
    "tornado",
    "tradeoff",
]
