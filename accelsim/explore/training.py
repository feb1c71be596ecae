"""What a training step costs on a device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PRECISIONS, PrecisionPlan, plan
from accelsim.core.units import si
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.techniques.precision import own_precision
from accelsim.workload.autograd import reverse_of, training_step
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload


def train(
    workload: Any,
    hardware: Any,
    *,
    batch: int = 1,
    optimiser: str = "adam",
    precision: Any = None,
    states: str | None = None,
    phase: str | None = None,
    context: int | None = None,
    **settings: Any,
) -> Result | Infeasible:
    """Forward pass, backward pass and update of the weights of one batch.

    Memory is checked with all copies of repeated layers: weights and optimiser states, gradients, and the
    activations that the backward pass reads.

    Parameters
    ----------
    workload, hardware, batch, precision, phase, context, **settings
        Of `simulate`.
    optimiser : {"sgd", "momentum", "adam"}
    states : str, optional
        Format of the optimiser's states and of the weights that it updates, such as ``fp32`` for training in
        mixed precision, where the passes read a narrower copy of them. By default the weights' own format,
        without a copy.

    Returns
    -------
    Result or Infeasible
        ``latency_s`` is the step, ``throughput_per_s`` items trained per second.
    """
    graph = load_workload(workload, phase=phase, context=context)
    step = training_step(graph, optimiser)
    asked = plan(own_precision(graph) if precision is None else precision) if states else precision
    if isinstance(asked, PrecisionPlan) and states:
        asked = replace(asked, layers=(*asked.layers, ("*.update", plan(states))))
    result = simulate(step, hardware, batch=batch, precision=asked, **settings)
    if isinstance(result, Infeasible):
        return result
    formats = plan(str(result.summary["precision"]))
    gradients = graph.parameters * formats.weight.bytes_per_element
    kept = graph.parameters * step.weight_bytes / graph.weight_bytes
    weights = kept * (plan(states).weight if states else formats.weight).bytes_per_element
    weights += gradients if states else 0.0  # the copy that the passes read is as wide as their gradients
    saved = _saved(graph, formats.activation.bytes_per_element) * batch
    need, have = weights + gradients + saved, float(result.summary["memory_capacity_bytes"])
    devices = int(result.summary.get("devices", 1))
    if need > have * devices:
        parts = (
            f"weights and states {si(weights, 'B')}, gradients {si(gradients, 'B')}, "
            f"saved activations {si(saved, 'B')}"
        )
        return Infeasible(
            "memory",
            f"{si(need, 'B')} ({parts})",
            f"{si(have, 'B')} per device",
            "use a smaller batch, a simpler optimiser or more devices",
            result.request,
        )
    result.summary["memory_bytes"] = max(float(result.summary["memory_bytes"]), need / devices)
    return result


def _saved(graph: Graph, width_bytes: float) -> float:
    """Activations of one item that a backward pass reads, in a format [B]."""
    reverse = reverse_of(graph, "weights").graph
    own = next((t.precision for op in graph for t in op.inputs if t.precision.name in PRECISIONS), None)
    stored = float(reverse.metadata["saved_bytes"]) / graph.batch
    return stored if own is None else stored / own.bytes_per_element * width_bytes
