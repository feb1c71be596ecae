"""What was asked for: names, files and options resolved before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from accelsim.architectures import architecture_of
from accelsim.architectures.base import Architecture, Options
from accelsim.architectures.neuromorphic.coding import coding_for
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import PrecisionPlan, plan
from accelsim.core.units import si
from accelsim.hardware.schema import Device
from accelsim.hardware.spec import load_hardware
from accelsim.hardware.stacks import stacks
from accelsim.techniques.accuracy import Accuracy, of_run
from accelsim.techniques.parallel import Parallel
from accelsim.techniques.precision import nearest_supported, own_precision, with_precision
from accelsim.techniques.pruning import notes as pruning_notes
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

FIDELITIES = ("analytic", "tile", "event")


@dataclass(frozen=True, eq=False)
class Request:
    """A question to the engine, but for the batch.

    Attributes
    ----------
    device, graph, options, split, architecture
    formats : PrecisionPlan
    as_it_is : bool
        The graph keeps the formats of its file.
    fields : mapping
        What every row of results repeats; ``batch`` is None here.
    notes : tuple of str
    """

    device: Any
    graph: Graph
    options: Options
    split: Parallel
    architecture: Architecture
    formats: PrecisionPlan
    as_it_is: bool
    fields: Mapping[str, Any]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        workload: Any,
        hardware: str | Path | Device,
        *,
        precision: str | Mapping[str, Any] | PrecisionPlan | None = None,
        stack: str = "graph",
        devices: int = 1,
        parallel: Mapping[str, int] | None = None,
        phase: str | None = None,
        context: int | None = None,
        fidelity: str = "tile",
        sparsity: str = "dense",
        dims: Mapping[str, int] | None = None,
        cold: bool = False,
        governor: bool = True,
        folding: Any = None,
        coding: Mapping[str, Any] | None = None,
    ) -> Request:
        """From the arguments of `simulate`."""
        device: Any = load_hardware(hardware)
        graph = load_workload(workload, dims=dims, phase=phase, context=context)
        options = replace(
            _options(fidelity, stack, sparsity, cold, governor), folding=_folding(folding, device)
        )
        options = replace(options, coding=coding_for(coding, device))
        split = Parallel.of(devices, parallel)
        architecture = architecture_of(device.kind)
        notes: list[str] = []
        fields: dict[str, Any] = {
            "workload": graph.name,
            "hardware": device.name,
            "batch": None,
            "precision": "",
            "phase": graph.phase,
        }
        if device.kind == "gpu":
            fields["stack"] = stack
        if split.devices > 1:
            fields["devices"] = split.devices
        if "pruning" in graph.metadata:
            fields["pruning"] = graph.metadata["pruning"].label
        asked = (
            precision
            if precision is not None
            else _default_precision(graph, architecture.precisions(device), device, notes)
        )
        formats = plan(asked)
        fields["precision"] = formats.name
        if context is not None:
            fields["context"] = context
        notes.extend(pruning_notes(graph, device))
        as_it_is = precision is None and _runs_as_it_is(graph, architecture, device)
        return cls(device, graph, options, split, architecture, formats, as_it_is, fields, tuple(notes))

    @property
    def accuracy(self) -> Accuracy:
        """What is known of the accuracy of such a run, whatever the batch."""
        return _accuracy(self.graph, self.formats, self.options.sparsity)

    def named(self, batch: Any) -> dict[str, Any]:
        """The fields of a row for a batch."""
        return {**self.fields, "batch": batch}

    def sized(self, batch: Any) -> Graph:
        """The graph that one replica runs for a batch.

        Raises
        ------
        RequestError, GraphError
            See `Graph.with_batch`.
        """
        sized = self.graph.with_batch(-(-batch // self.split.data) if isinstance(batch, int) else batch)
        return sized if self.as_it_is else with_precision(sized, self.formats)

    def check_accumulators(self) -> None:
        """A plan that names the format of sums needs a device that has it."""
        for held in (self.formats, *(p for _, p in self.formats.layers)):
            have = self.architecture.accumulators(self.device, held.activation)
            if held.accumulator is not None and held.accumulator.name not in have:
                raise InfeasibleError(
                    "accumulator",
                    f"sums of {held.activation.name} products in {held.accumulator.name}",
                    ", ".join(have),
                    "leave the accumulator out of the plan",
                )


@lru_cache(maxsize=64)
def _accuracy(graph: Graph, formats: PrecisionPlan, sparsity: str) -> Accuracy:
    return of_run(graph, own_precision(graph), formats, sparsity)


def check_memory(
    device: Any, need: float, weight_bytes: float, kv_bytes: float, activation_bytes: float
) -> None:
    """Weights, KV cache and activations must fit the external memory of a device.

    Raises
    ------
    InfeasibleError
    """
    have = device.memory.capacity_bytes
    if need <= have:
        return
    parts = {
        "weights": (weight_bytes, "use a narrower precision or more devices"),
        "KV cache": (kv_bytes, "use a smaller batch, a shorter context or more devices"),
        "activations": (activation_bytes, "use a smaller batch"),
    }
    detail = ", ".join(f"{name} {si(size, 'B')}" for name, (size, _) in parts.items() if size)
    _, hint = max(parts.values())
    raise InfeasibleError("memory", f"{si(need, 'B')} ({detail})", f"{si(have, 'B')} per device", hint)


def _folding(source: Any, device: Any) -> Any:
    if source is None:
        return None
    if device.kind != "fpga":
        raise RequestError("only streaming pipelines have a folding", device.name)
    from accelsim.architectures.fpga.designs import read

    return read(source)


def _options(fidelity: str, stack: str, sparsity: str, cold: bool, governor: bool) -> Options:
    if fidelity not in FIDELITIES:
        raise RequestError(f"unknown fidelity '{fidelity}'", hint=did_you_mean(fidelity, FIDELITIES))
    if stack not in stacks():
        raise RequestError(f"unknown stack '{stack}'", hint=did_you_mean(stack, stacks()))
    if sparsity not in ("dense", "2:4"):
        raise RequestError(f"unknown sparsity '{sparsity}'", hint=did_you_mean(sparsity, ("dense", "2:4")))
    return Options(fidelity, stack, sparsity, cold, governor)  # type: ignore[arg-type]


def _runs_as_it_is(graph: Graph, architecture: Architecture, device: Any) -> bool:
    """Whether a device takes a quantised model with the formats of its file, which may differ by layer."""
    products = [t.precision for op in graph if op.flops for t in op.inputs[:2]]
    return bool(products) and all(p.is_integer and architecture.supports(device, p.name) for p in products)


def _default_precision(graph: Graph, supported: tuple[str, ...], device: Device, notes: list[str]) -> str:
    own = own_precision(graph)
    chosen = nearest_supported(own, supported) or own
    if chosen != own:
        notes.append(f"precision was not given: {device.name} lacks the model's {own}, so this is {chosen}")
    return chosen
