"""What each technique brings on each device, and what it costs in accuracy, energy and money: one table."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.architectures import architecture_of
from accelsim.core.accessors import Accessible
from accelsim.core.errors import AccelsimError, RequestError
from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PRECISIONS
from accelsim.engine.costs import Costs, cost
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.hardware.cost import CostModel
from accelsim.hardware.cost import prices as prices_of
from accelsim.hardware.schema import Device
from accelsim.hardware.spec import load_hardware
from accelsim.techniques.accuracy import Accuracy, accuracy, as_trained, holds
from accelsim.techniques.precision import nearest_supported, own_precision
from accelsim.techniques.pruning import prune
from accelsim.techniques.robustness import cited, robustness_of
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

STUDENTS: Mapping[str, str] = {
    "bert-base": "distilbert",
    "resnet50": "mobilenet-v2",
    "llama-3.1-70b": "llama-3.1-8b",
}
"""Teacher to the student that the table shows."""

BATCHES = (8, 32)
CELLS = ("speedup", "latency_s", "energy_per_item_j", "memory_bytes", "accuracy_pct", "accuracy_drop_pct",
         "cost_per_million_items_usd")  # fmt: skip
"""Columns that hold a number, or NaN with a reason in the column of the same name plus ``_basis``."""


_COUNTED = (
    "exact by construction: weights, KV cache and peak activations are counted; what a runtime allocates "
    "beside them is not in it"
)


@dataclass(frozen=True)
class Choice:
    """One technique at one level.

    Attributes
    ----------
    technique, level : str
    settings : mapping
        Arguments of `simulate`.
    graph : callable, optional
        Makes the graph from the model's; by default it is the model's.
    known : Accuracy, optional
        Accuracy where the technique says more than the run: quantisation-aware training runs like
        post-training quantisation.
    """

    technique: str
    level: str
    settings: Mapping[str, Any]
    graph: Callable[[Graph], Graph] | None = None
    known: Accuracy | None = None


@dataclass(frozen=True)
class Tradeoff(Accessible):
    """The table of `tradeoff`.

    Attributes
    ----------
    rows : tuple of dict
        One per device and choice; the first choice of a device, ``baseline``, is what the others compare
        with.
    model : str
    cost_model : CostModel
    """

    rows: tuple[dict[str, Any], ...]
    model: str
    cost_model: CostModel

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as a table."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def __repr__(self) -> str:
        devices = len(dict.fromkeys(row["hardware"] for row in self.rows))
        return f"Tradeoff of {self.model}: {len(self.rows)} rows on {devices} devices"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.frame.to_html(max_rows=40, notebook=True)}"


def tradeoff(
    model: Any,
    hardware: Any,
    *,
    batch: int = 1,
    cost_model: CostModel | None = None,
    prices: str | Path | Mapping[str, Any] | None = None,
    phase: str | None = None,
    context: int | None = None,
    robustness: Iterable[Mapping[str, Any]] = (),
) -> Tradeoff:
    """Techniques by levels by devices: speed-up, energy, memory, accuracy and cost of each.

    Parameters
    ----------
    model : str or Path or Graph
        See `load_workload`; phase and context too.
    hardware : name, Device or list of them
    batch : int
        Of every row but those of the technique ``batch``.
    cost_model : CostModel, optional
        By default a purchase, since edge devices have no rent; what cannot be bought is rented, and its cells
        say so.
    prices : path or mapping, optional
        See `accelsim.hardware.cost.prices`.
    robustness : list of mappings
        Cited accuracies under attack: ``technique level value_pct attack source`` of this model. None ships,
        so without them the column says ``unknown``: compression changes the attack surface, either way.

    Returns
    -------
    Tradeoff
        Every cell is a number with its basis, or NaN with the reason; ``_low`` and ``_high`` are its band
        where there is one. A published accuracy stands also where the device cannot run the choice. The
        speed-up is the ratio of items per second to the device's baseline: the model in its own format or
        the nearest that the device has, in 16 bits where it has them.

    Raises
    ------
    AccelsimError
        A name is wrong, or the list of devices is empty.
    """
    single = isinstance(hardware, str | Path | Device)
    devices = [load_hardware(h) for h in ([hardware] if single else hardware)]
    if not devices:
        raise RequestError("the list for 'hardware' is empty")
    graph = load_workload(model, phase=phase, context=context)
    robust = cited(robustness)
    rows: list[dict[str, Any]] = []
    graphs = _Graphs(graph)
    for device in devices:
        choices = [_baseline(graph, device), *_choices(graph, device)]
        paid = cost_model or _payable(device, prices)
        rows += _of_device(graphs, device, choices, batch, paid, prices)
    shown = cost_model or CostModel(mode="purchase")
    return Tradeoff(tuple(row | robustness_of(row, robust) for row in rows), graph.name, shown)


def _payable(device: Device, given: str | Path | Mapping[str, Any] | None) -> CostModel:
    """A purchase where the device has a price, else its rent."""
    known = prices_of(device, given)
    return CostModel(mode="rent" if "purchase" not in known and "rent" in known else "purchase")


# -- what is tried
# ----------------------------------------------------------------------------------------------------


def _baseline(graph: Graph, device: Any) -> Choice:
    own = own_precision(graph)
    supported = architecture_of(device.kind).precisions(device)
    halves = [name for name in ("fp16", "bf16") if name in supported]
    if own == "fp32" and halves:
        return Choice("baseline", halves[0], {"precision": halves[0]})
    chosen = nearest_supported(own, supported) or own
    return Choice("baseline", chosen, {} if chosen == own else {"precision": chosen})


def _choices(graph: Graph, device: Any) -> Iterator[Choice]:
    """Every technique that has a meaning for the model; the device may still refuse it."""
    base = dict(_baseline(graph, device).settings)
    own = own_precision(graph)
    wide = base.get("precision", own)
    kinds = (("ptq", "ptq-or-qat"), ("qat",))
    for technique, *others in kinds:
        known = _first(graph, own, "int8", *((kind, "W8A8") for kind in (technique, *others)))
        yield Choice(technique, "int8", {"precision": "int8"}, known=known)
    yield Choice("ptq", "fp8", {"precision": "fp8_e4m3"})
    for bits in (4, 2, 1):
        level = f"W{bits}A{bits}"
        known = _first(graph, own, f"int{bits}", ("qat", level))
        yield Choice("qat" if bits > 1 else "binarised", level, {"precision": f"int{bits}"}, known=known)
    supported = architecture_of(device.kind).precisions(device)
    half = next((name for name in (wide, "fp16", "bf16") if _is_half(name, supported)), "fp16")
    for bits in (8, 4):
        plan = {"weight": f"int{bits}", "activation": half}
        yield Choice("weight-only", f"W{bits}A16", {"precision": plan})
    yield Choice("n:m", "2:4", {**base, "sparsity": "2:4"})
    for share in (0.3, 0.5):
        yield Choice("channel", f"{share:.0%}", base, _pruned("channel", share))
    yield Choice("unstructured", "90%", base, _pruned("unstructured", 0.9))
    student = STUDENTS.get(graph.name)
    if student is not None:
        taught = accuracy(student, "distillation", "student")
        phase = None if graph.phase == "forward" else graph.phase
        made = lambda _: load_workload(student, phase=phase)  # noqa: E731
        measured = taught if taught.confidence != "unknown" else None
        yield Choice("distillation", student, base, made, measured)
    for size in BATCHES:
        yield Choice("batch", str(size), {**base, "batch": size})


def _is_half(name: str, supported: Iterable[str]) -> bool:
    return PRECISIONS[name].bits >= 16 and name in supported


def _first(graph: Graph, own: str, wide: str, *published: tuple[str, str]) -> Accuracy:
    """The first published accuracy of these techniques and levels; else the model's own, where the format
    holds all its values."""
    tried = [accuracy(graph.name, technique, level) for technique, level in published]
    known = next((a for a in tried if a.confidence != "unknown"), tried[0])
    return as_trained(graph.name, own) if known.confidence == "unknown" and holds(own, wide) else known


def _pruned(method: str, share: float) -> Callable[[Graph], Graph]:
    return lambda graph: prune(graph, method, share)


# -- rows
# ----------------------------------------------------------------------------------------------------


class _Graphs:
    """A model and what techniques make of it, once for all devices."""

    def __init__(self, model: Graph) -> None:
        self.model = model
        self._made: dict[str, Graph] = {}

    def of(self, choice: Choice) -> Graph:
        """The graph of a choice."""
        if choice.graph is None:
            return self.model
        key = f"{choice.technique} {choice.level}"
        if key not in self._made:
            self._made[key] = choice.graph(self.model)
        return self._made[key]


def _of_device(
    graphs: _Graphs,
    device: Any,
    choices: Iterable[Choice],
    batch: int,
    paid: CostModel,
    prices: str | Path | Mapping[str, Any] | None,
) -> Iterator[dict[str, Any]]:
    runs: dict[str, Result | Infeasible | AccelsimError] = {}
    base: Result | None = None
    for choice in choices:
        key = repr((choice.settings, choice.level if choice.graph else ""))
        if key not in runs:
            runs[key] = _run(graphs, device, choice, batch)
        found = runs[key]
        row = {"workload": graphs.model.name, "hardware": device.name, "technique": choice.technique}
        row["level"] = choice.level
        if isinstance(found, Result):
            base = found if choice.technique == "baseline" else base
            costs = cost(found, paid, prices_from=prices, hardware=device)
            yield row | _numbers(found, base, _known(graphs, choice, found), costs)
        else:
            reason = str(found) if isinstance(found, AccelsimError) else _why(found)
            known = _known(graphs, choice, None) if isinstance(found, Infeasible) else None
            yield row | {"batch": batch, "status": "infeasible"} | _unknown(reason, known)


_KEPT: OrderedDict[tuple[str, str, str], Result | Infeasible | AccelsimError] = OrderedDict()
_MOST_KEPT = 1024


def _run(graphs: _Graphs, device: Any, choice: Choice, batch: int) -> Result | Infeasible | AccelsimError:
    """A run, or why there is none: a graph that a technique cannot change is an answer here.

    Runs are kept, since equal graphs, devices and settings give equal numbers.
    """
    made = f"{choice.technique} {choice.level}" if choice.graph else ""
    key = (graphs.model.hash, device.hash, repr((made, batch, sorted(choice.settings.items()))))
    if key in _KEPT:
        _KEPT.move_to_end(key)
        return _KEPT[key]
    found: Result | Infeasible | AccelsimError
    try:
        found = simulate(graphs.of(choice), device, **{"batch": batch, **choice.settings})
    except AccelsimError as error:
        found = error
    _KEPT[key] = found
    if len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    return found


def _why(found: Infeasible) -> str:
    return f"{found.reason}: needs {found.need}, has {found.have}"


def _unknown(reason: str, known: Accuracy | None) -> dict[str, Any]:
    """Cells of a choice that does not run; its accuracy is none of the device's business."""
    cells = dict.fromkeys(CELLS, nan)
    found: dict[str, Any] = {**cells, **{f"{name}_basis": reason for name in CELLS}}
    if known is None or known.confidence == "unknown":
        return found
    return found | _accuracy(known, f"{_said(known)}; the device does not run it")


def _known(graphs: _Graphs, choice: Choice, found: Result | None) -> Accuracy | None:
    """Accuracy of a choice: what its technique says, else a source that pruned as much, else that of the run,
    which is None where there is none. Floats of a pruned model may be wider than these."""
    if choice.known is not None:
        return choice.known
    name = graphs.model.name
    if choice.technique == "channel":
        return accuracy(name, "channel", 1.0 - graphs.of(choice).metadata["pruning"].flops_share)
    if choice.technique == "unstructured":
        return accuracy(name, "unstructured", float(choice.level.rstrip("%")) / 100)
    if choice.technique == "n:m":
        return accuracy(name, "n:m", choice.level)
    if found is None:
        return accuracy(name) if choice.technique in ("baseline", "batch") else None
    s = found.summary
    reason = found.missing.get("accuracy_pct") or found.missing.get("accuracy_drop_pct", "")
    mine = Accuracy(
        s["accuracy_pct"], s["accuracy_drop_pct"], s["accuracy_metric"], s["accuracy_source"],
        s["accuracy_confidence"], reason,
    )  # fmt: skip
    return _beside(mine, accuracy(name)) if choice.technique == "distillation" else mine


def _beside(student: Accuracy, teacher: Accuracy) -> Accuracy:
    """A student not measured as one: its own accuracy, and what it lacks where one source has both."""
    if isnan(student.value_pct):
        return student
    same = (student.metric, student.source) == (teacher.metric, teacher.source)
    drop = teacher.value_pct - student.value_pct if same else nan
    reason = "" if same else "the sources of student and teacher differ, so their accuracies do not compare"
    return replace(student, drop_pct=drop, reason=reason)


def _said(known: Accuracy) -> str:
    return f"{known.metric}; {known.confidence}: {known.source}" if known.source else known.reason


def _accuracy(known: Accuracy, said: str) -> dict[str, Any]:
    low, high, spread = known.band
    return {
        "accuracy_pct": known.value_pct,
        "accuracy_low_pct": low,
        "accuracy_high_pct": high,
        "accuracy_pct_basis": known.reason if isnan(known.value_pct) else f"{said}; {spread}",
        "accuracy_drop_pct": known.drop_pct,
        "accuracy_drop_pct_basis": known.reason if isnan(known.drop_pct) else said,
    }


def _numbers(found: Result, base: Result | None, known: Accuracy | None, costs: Costs) -> dict[str, Any]:
    s, band = found.summary, found.intervals["latency_s"]
    known = known or Accuracy(nan, nan, "", "", "unknown", "no accuracy is known")
    energy = found.intervals.get("energy_per_item_j")
    price = costs.summary["cost_per_million_items_usd"]
    low, high = band.low / s["latency_s"], band.high / s["latency_s"]
    paid = costs.basis["cost_per_million_items_usd"]
    row: dict[str, Any] = {
        "batch": s["batch"],
        "status": "ok",
        "precision": s["precision"],
        **_speedup(found, base),
        "latency_s": s["latency_s"],
        "latency_low_s": band.low,
        "latency_high_s": band.high,
        "latency_s_basis": f"{band.level:.0%}: {band.basis}",
        "energy_per_item_j": s["energy_per_item_j"],
        "energy_low_j": energy.low if energy else nan,
        "energy_high_j": energy.high if energy else nan,
        "energy_per_item_j_basis": found.missing.get(
            "energy_per_item_j", energy.basis if energy else "counted actions; no band is at hand"
        ),
        "memory_bytes": s["memory_bytes"],
        "memory_low_bytes": s["memory_bytes"],
        "memory_high_bytes": s["memory_bytes"],
        "memory_bytes_basis": _COUNTED,
        **_accuracy(known, _said(known)),
        "cost_per_million_items_usd": price,
        "cost_low_usd": price * low,
        "cost_high_usd": price * high,
        "cost_per_million_items_usd_basis": paid if isnan(price) else f"{paid}; band of the latency alone",
        "notes": "; ".join(n for n in found.notes if "pruned" in n or "sparse" in n or "dense" in n),
    }
    return row


def _speedup(found: Result, base: Result | None) -> dict[str, Any]:
    """Ratio of throughputs with its band: the ends of both latency bands against each other, as if the errors
    had nothing in common, so the true band is narrower.
    """
    if base is None:
        reason = "the baseline does not run on this device"
        return {"speedup": nan, "speedup_low": nan, "speedup_high": nan, "speedup_basis": reason}
    ratio = found.summary["throughput_per_s"] / base.summary["throughput_per_s"]
    if found is base:
        return {
            "speedup": 1.0,
            "speedup_low": 1.0,
            "speedup_high": 1.0,
            "speedup_basis": "the baseline itself",
        }
    mine, theirs = found.intervals["latency_s"], base.intervals["latency_s"]
    slack = [
        (theirs.low / base.summary["latency_s"]) / (mine.high / found.summary["latency_s"]),
        (theirs.high / base.summary["latency_s"]) / (mine.low / found.summary["latency_s"]),
    ]
    basis = f"items per second over {base.summary['precision']} at batch {base.summary['batch']}; both bands"
    return {
        "speedup": ratio, "speedup_low": ratio * slack[0], "speedup_high": ratio * slack[1],
        "speedup_basis": basis,
    }  # fmt: skip
