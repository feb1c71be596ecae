"""What compression costs in accuracy, as published: a lookup by model family, technique and level.

Nothing is invented: a pair that no row measures is unknown, with a reason. Rows of one source may be
interpolated along bits per weight or along the share pruned, and the answer says so. Perplexities of
different repositories do not compare, so every drop counts against the baseline of its own source.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import isnan, nan, sqrt
from typing import Any

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.paths import data_folder
from accelsim.core.precision import PRECISIONS, PrecisionPlan
from accelsim.workload.graph import Graph

TECHNIQUES = (
    "none", "ptq", "qat", "ptq-or-qat", "weight-only", "mixed", "unstructured", "block", "n:m", "channel",
    "distillation",
)  # fmt: skip
_RELATIVES = {
    "llama-3.1-8b": "llama-3-8b",
    "llama-3.1-70b": "llama-3-70b",
    "finn-cnv-w2a2": "finn-cnv",
}
"""Models whose family goes by another name: the same architecture, trained again."""
_PTQ = ("ptq", "ptq-or-qat", "qat")
_SIGNIFICAND = {"fp32": 24, "tf32": 11, "fp16": 11, "bf16": 8, "fp8_e4m3": 4, "fp8_e5m2": 3}
"""Bits of a float's significand: it holds every whole number of so many bits."""

_IMAGES = {"ImageNet-1k": 50_000, "ILSVRC2012": 50_000, "CIFAR10": 10_000, "MNIST": 10_000}
"""Items of the test sets on which a top-1 accuracy is a share."""

BAND_LEVEL = 0.9
_Z = 1.6448536269514722  # of a normal distribution, 5 % above it
_METHODS = {"channel": "channel", "unstructured": "unstructured"}


@dataclass(frozen=True, slots=True)
class Row:
    """One published measurement; percentages in percent, NaN where the source gives none."""

    family: str
    model: str
    dataset: str
    method: str
    technique: str
    level: str
    number: float
    metric: str
    baseline: float
    value: float
    source: str
    status: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy of a model as it runs.

    Attributes
    ----------
    value_pct : float
        [%]; NaN for perplexities and where nothing is known.
    drop_pct : float
        Against the baseline of the same source: points of a percentage, or the relative rise of a
        perplexity [%]; NaN where unknown. Negative: better than the baseline.
    metric : str
        What was measured, on what.
    source, confidence : str
        ``measured``, ``baseline recalled``, ``sources differ``, ``interpolated`` or ``unknown``, with the
        model that was measured where it is a relative.
    reason : str
        Why a number is missing; empty where none is.
    """

    value_pct: float
    drop_pct: float
    metric: str
    source: str
    confidence: str
    reason: str = ""

    @property
    def summary(self) -> dict[str, Any]:
        """The columns of a result."""
        return {
            "accuracy_pct": self.value_pct,
            "accuracy_drop_pct": self.drop_pct,
            "accuracy_metric": self.metric,
            "accuracy_source": self.source,
            "accuracy_confidence": self.confidence,
        }

    @property
    def band(self) -> tuple[float, float, str]:
        """(low, high, basis): the 90 % band of a share of a test set, p ± 1.645 √(p (1 − p) / n) [%]: what
        another sample of as many items could say; NaN where the value is no such share."""
        name = self.metric.removeprefix("top-1 %, ")
        items = _IMAGES.get(name) if self.metric.startswith("top-1 %") else None
        if items is None or not 0 <= self.value_pct <= 100 or self.confidence.startswith("interpolated"):
            return nan, nan, "a published number, whose spread is not published"
        share = self.value_pct / 100
        half = 100 * _Z * sqrt(share * (1 - share) / items)
        return self.value_pct - half, self.value_pct + half, f"{BAND_LEVEL:.0%}: sampling of {items:,} items"

    @property
    def missing(self) -> dict[str, str]:
        """Why numbers among them are NaN."""
        pairs = (("accuracy_pct", self.value_pct), ("accuracy_drop_pct", self.drop_pct))
        return {name: self.reason for name, value in pairs if isnan(value)}


@cache
def table() -> tuple[Row, ...]:
    """The shipped measurements."""
    path = data_folder("validation") / "accuracy.csv"
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    numbers = ("number", "baseline", "value")
    rows: list[dict[str, Any]] = [
        {k: (float(v) if v else nan) if k in numbers else v for k, v in line.items()}
        for line in csv.DictReader(lines)
    ]
    return tuple(Row(**row) for row in rows)


def accuracy(model: str, technique: str = "none", level: str | float | None = None) -> Accuracy:
    """Accuracy of a model family after a technique, or as it is.

    Parameters
    ----------
    model : str
        Name of a workload, or a family of the table.
    technique : str
        One of `TECHNIQUES`.
    level : str or float, optional
        ``"W8A8"``, ``"W4A16"``, ``"2:4"``; or a number: bits per weight, or the share pruned, 0 to 1.

    Returns
    -------
    Accuracy
        What was published, with its source and confidence; NaN with a reason where nothing was.

    Raises
    ------
    RequestError
        Unknown technique.
    """
    if technique not in TECHNIQUES:
        raise RequestError(f"unknown technique '{technique}'", hint=did_you_mean(technique, TECHNIQUES))
    family = _RELATIVES.get(model, model)
    known = [row for row in table() if row.family == family]
    if not known:
        return _unknown(f"no published accuracy of {model} is in the table")
    if technique == "none":
        return _baseline(model, known)
    rows = [row for row in known if row.technique == technique]
    if not rows:
        return _unknown(f"no published accuracy of {model} after {technique} is in the table")
    if isinstance(level, str):
        exact = next((row for row in rows if row.level == level or row.level.startswith(f"{level} ")), None)
        if exact is not None:
            return _of(exact, model)
        have = ", ".join(dict.fromkeys(row.level for row in rows))
        return _unknown(f"no published accuracy of {model} after {technique} at {level}; known: {have}")
    if level is None:
        return _of(rows[0], model)
    return _at(rows, model, technique, float(level))


def _at(rows: list[Row], model: str, technique: str, number: float) -> Accuracy:
    """Exact, or on the line between two rows of one source, method and baseline."""
    for row in rows:
        if abs(row.number - number) < 1e-9:
            return _of(row, model)
    series: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if not isnan(row.number):
            key = (row.model, row.source, row.method, row.dataset, row.baseline)
            series.setdefault(key, []).append(row)
    for held in series.values():
        ordered = sorted(held, key=lambda row: row.number)
        for low, high in pairwise(ordered):
            if low.number < number < high.number:
                weight = (number - low.number) / (high.number - low.number)
                ends = [_of(row, model) for row in (low, high)]
                value, drop = (
                    a + weight * (b - a)
                    for a, b in ((ends[0].value_pct, ends[1].value_pct), (ends[0].drop_pct, ends[1].drop_pct))
                )
                basis = f"interpolated between {low.level} and {high.level}"
                return Accuracy(value, drop, ends[0].metric, low.source, basis, ends[0].reason)
    span = [row.number for row in rows if not isnan(row.number)]
    reach = f"; known from {min(span):g} to {max(span):g}" if span else ""
    return _unknown(f"no published accuracy of {model} after {technique} at {number:g}{reach}")


def _of(row: Row, model: str) -> Accuracy:
    confidence = "measured" if row.status == "verified" else row.status
    if _RELATIVES.get(model, model) != model:
        confidence += f" on {row.model}"
    metric = f"{row.metric}, {row.dataset}"
    if row.metric == "perplexity":
        drop = 100.0 * (row.value / row.baseline - 1.0)
        reason = f"the source measures perplexity: {row.value:g} instead of {row.baseline:g}"
        return Accuracy(nan, drop, metric, row.source, confidence, reason)
    reason = "the source has no baseline" if isnan(row.baseline) else ""
    return Accuracy(row.value, row.baseline - row.value, metric, row.source, confidence, reason)


def _baseline(model: str, rows: list[Row]) -> Accuracy:
    """The model as it was trained: the first baseline of its family."""
    for row in rows:
        if row.metric != "perplexity" and not isnan(row.baseline):
            confidence = "measured" if row.status == "verified" else row.status
            if _RELATIVES.get(model, model) != model:
                confidence += f" on {row.model}"
            return Accuracy(row.baseline, 0.0, f"{row.metric}, {row.dataset}", row.source, confidence)
    return _unknown(f"no source gives a baseline of {model}")


def _unknown(reason: str) -> Accuracy:
    return Accuracy(nan, nan, "", "", "unknown", reason)


def of_run(graph: Graph, own: str, formats: PrecisionPlan, sparsity: str) -> Accuracy:
    """Accuracy of a graph as it is asked to run.

    Parameters
    ----------
    graph : Graph
    own : str
        Format of the model itself.
    formats : PrecisionPlan
        Formats that it runs in.
    sparsity : str
        ``dense`` or an N:M pattern.
    """
    changes = _changes(graph, own, formats, sparsity)
    name = graph.name
    if not changes:
        if formats.weight.name != own or formats.activation.name != own:
            return as_trained(name, own)
        native = _native(name, own)
        return native if native is not None else accuracy(name)
    if len(changes) > 1:
        words = " with ".join(f"{technique} at {level}" for technique, level in changes)
        return _unknown(f"no published accuracy of {name} after {words} together")
    technique, level = changes[0]
    if technique != "ptq":
        return accuracy(name, technique, level)
    tried = [accuracy(name, kind, level) for kind in _PTQ]
    return next((a for a in tried if a.confidence != "unknown"), tried[0])


def as_trained(name: str, own: str) -> Accuracy:
    """Accuracy of a model of whole numbers in a format that holds all of them: that of its own format."""
    known = _native(name, own) or accuracy(name)
    if known.confidence == "unknown":
        return known
    return replace(known, confidence=f"{known.confidence}; the format holds every {own}")


def holds(own: str, wide: str) -> bool:
    """Whether a format has every value of an integer format, so that a model in it loses nothing."""
    narrow, held = PRECISIONS[own], PRECISIONS[wide]
    if not narrow.is_integer:
        return False
    return narrow.bits <= (held.bits if held.is_integer else _SIGNIFICAND.get(wide, 0))


def _native(name: str, own: str) -> Accuracy | None:
    """A model that was trained in its narrow format: its only row is that level, and has no drop."""
    bits = PRECISIONS[own].bits
    if bits > 4:
        return None
    rows = [r for r in table() if r.family == _RELATIVES.get(name, name) and r.technique == "qat"]
    level = next((r for r in rows if r.level.endswith(f"A{bits}")), None)
    return None if level is None else _of(level, name)


def _changes(graph: Graph, own: str, formats: PrecisionPlan, sparsity: str) -> list[tuple[str, str | float]]:
    """Technique and level of each change to the model."""
    changes: list[tuple[str, str | float]] = []
    weight, activation = formats.weight, formats.activation
    if formats.layers:
        changes.append(("mixed", f"layers in {formats.name}"))
    elif not all(kind.name == own or holds(own, kind.name) for kind in (weight, activation)):
        level = _level(weight.name, activation.name)
        narrow = weight.bits < activation.bits
        changes.append(("weight-only" if narrow else "ptq", level))
    if sparsity != "dense":
        changes.append(("n:m", sparsity))
    pruning = graph.metadata.get("pruning")
    if pruning is not None:
        technique = _METHODS.get(pruning.method, "n:m" if ":" in pruning.method else "channel")
        level_of = {"channel": 1.0 - pruning.flops_share, "unstructured": pruning.amount}
        changes.append((technique, level_of.get(technique, pruning.method)))
    return changes


def _level(weight: str, activation: str) -> str:
    """``W8A8`` for integers; floats say their names, since 8-bit integers and floats differ."""
    a, w = PRECISIONS[activation], PRECISIONS[weight]
    if w.is_integer and (a.is_integer or a.bits >= 16):
        return f"W{w.bits}A{a.bits}" if a.bits <= 16 else f"W{w.bits}A16"
    return weight if weight == activation else f"{weight} weights, {activation} activations"
