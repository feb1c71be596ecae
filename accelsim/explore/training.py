"""What a training step costs on a device."""

from __future__ import annotations

from typing import Any

from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PRECISIONS, plan
from accelsim.core.units import si
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.workload.backward import reverse_of, training_step
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload


def train(
    workload: Any,
    hardware: Any,
    *,
    batch: int = 1,
    optimiser: str = "adam",
    precision: Any = None,
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

    Returns
    -------
    Result or Infeasible
        ``latency_s`` is the step, ``throughput_per_s`` items trained per second.
    """
    graph = load_workload(workload, phase=phase, context=context)
    step = training_step(graph, optimiser)
    result = simulate(step, hardware, batch=batch, precision=precision, **settings)
    if isinstance(result, Infeasible):
        return result
    formats = plan(str(result.summary["precision"]))
    states = step.weight_bytes / graph.weight_bytes
    weights = graph.parameters * formats.weight.bytes_per_element
    saved = _saved(graph, formats.activation.bytes_per_element) * batch
    need, have = weights * (states + 1) + saved, float(result.summary["memory_capacity_bytes"])
    devices = int(result.summary.get("devices", 1))
    if need > have * devices:
        parts = (
            f"weights and states {si(weights * states, 'B')}, gradients {si(weights, 'B')}, "
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
