"""Pictures for papers (matplotlib), one function per chart; each returns its Axes and takes ``ax=``."""

from __future__ import annotations

from accelsim.report.plots.batch import batch_curve, batch_curves, heatmap
from accelsim.report.plots.breakdown import layers
from accelsim.report.plots.coordinates import parallel
from accelsim.report.plots.fronts import pareto, tradeoff
from accelsim.report.plots.influence import effects, tornado
from accelsim.report.plots.inside import array_map, fifos
from accelsim.report.plots.lanes import timeline
from accelsim.report.plots.measured import error_by_size, predicted_measured
from accelsim.report.plots.roofs import roofline
from accelsim.report.plots.serving import latency, queue
from accelsim.report.plots.style import figure, paper_style, png, save
from accelsim.report.plots.summary import draw_runs, overview, runs

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
    "paper_style",
    "parallel",
    "pareto",
    "png",
    "predicted_measured",
    "queue",
    "roofline",
    "runs",
    "save",
    "timeline",
    "tornado",
    "tradeoff",
]
