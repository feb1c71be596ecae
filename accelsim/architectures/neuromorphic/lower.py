"""The neuromorphic architecture: populations on cores, time steps, and what their events cost."""

from __future__ import annotations

import math
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from typing import Any

from accelsim.architectures.base import Interval, Kernel, KernelCost, Options, Pipeline, Program
from accelsim.architectures.neuromorphic.coding import Coding, read
from accelsim.architectures.neuromorphic.mapping import SPIKE_BYTES, Mapping, fill_s, place
from accelsim.architectures.neuromorphic.population import Population, Spiking, convert
from accelsim.architectures.neuromorphic.power import joules
from accelsim.architectures.single import OpTable
from accelsim.core.errors import RequestError
from accelsim.core.precision import PRECISIONS, Precision, PrecisionPlan
from accelsim.hardware.schema import NeuromorphicDevice
from accelsim.workload.graph import Graph

EVENT_STEPS = 64
"""Time steps that the event simulation follows; later ones repeat their mean."""

BAND = (0.5, 3.0)


@dataclass(frozen=True)
class CoreKernel(Kernel):
    """A population: only spikes that enter the chip are external.

    Attributes
    ----------
    external_bytes : float
        Spikes of one item that enter from the host [B].
    """

    external_bytes: float = 0.0

    @property
    def bytes_compulsory(self) -> float:
        return self.external_bytes


@dataclass(frozen=True, eq=False)
class SpikingProgram(Program):
    """A program with the network of populations and its mapping."""

    network: Spiking = field(kw_only=True)
    coding: Coding = field(kw_only=True)
    mapping: Mapping = field(kw_only=True)


class NeuromorphicArchitecture:
    """See `accelsim.architectures.base.Architecture`."""

    kind = "neuromorphic"
    widens = False

    def precisions(self, device: NeuromorphicDevice) -> tuple[str, ...]:
        return device.precisions

    def supports(self, device: NeuromorphicDevice, precision: str) -> bool:
        return precision in device.precisions

    def accumulators(self, device: NeuromorphicDevice, precision: Precision) -> tuple[str, ...]:
        return (PRECISIONS[precision.name].accumulate,)

    def lower(self, graph: Graph, device: NeuromorphicDevice, options: Options) -> SpikingProgram:
        """Convert a network and lay it out.

        Raises
        ------
        InfeasibleError
            ``operator``, ``precision``, ``coding`` or ``cores``.
        """
        coding = options.coding or read({}, device)
        base = graph.with_batch(1) if graph.batch > 1 else graph
        network = convert(base, coding, device)
        mapping = place(network, device, coding.steps * graph.batch)
        kernels = tuple(_kernel(network, index, coding) for index in range(len(network.populations)))
        moved = SPIKE_BYTES * (network.spikes(-1) * coding.steps + network.outputs) * graph.batch
        used = sum(mapping.cores)
        parameters = {
            "resources": {
                "cores": float(used),
                "cores_available": float(device.cores.count),
                "neurons": float(sum(p.neurons for p in network.populations)),
                "synapses": sum(p.synapses for p in network.populations),
            },
            "steps": coding.steps,
            "step_s": mapping.step_s,
            "cores": dict(zip((p.name for p in network.populations), mapping.cores)),
        }
        notes = _notes(network, coding, device, options)
        return SpikingProgram(
            graph, device, options, kernels, "pipeline", moved, notes, parameters,
            network=network, coding=coding, mapping=mapping,
        )  # fmt: skip

    def cost(self, program: SpikingProgram) -> tuple[KernelCost, ...]:
        return tuple(_cost(program, index) for index in range(len(program.kernels)))

    def pipeline(self, program: SpikingProgram, costs: tuple[KernelCost, ...]) -> Pipeline:
        return pipeline(program)

    def explain(self, program: SpikingProgram, index: int, cost: KernelCost) -> str:
        p, n = program.network.populations[index], program.mapping.cores[index]
        c = program.device.cores
        return (
            f"{program.coding.steps} steps x (ceil({p.neurons:,} neurons / {n} cores) / "
            f"{c.neurons_per_clock:g} + spikes sent + {_events(program.network, p):,.4g} synaptic events "
            f"/ {n} / {c.synapses_per_clock:g}) = {cost.cycles_compute:,.0f} cycles; a step lasts "
            f"{program.mapping.step_s * 1e6:.3g} us"
        )

    def interval(self, program: SpikingProgram, costs: tuple[KernelCost, ...], latency_s: float) -> Interval:
        """An assumed band: firing rates are rarely known and no chip was measured against this model."""
        return Interval(BAND[0] * latency_s, BAND[1] * latency_s, 0.8, "assumed: not validated on a chip")

    def predict(
        self, op: str, shapes: Map[str, Any], formats: PrecisionPlan, device: Any, options: Options
    ) -> OpTable:
        raise RequestError(
            "a chip of spiking neurons holds a whole network, not single operators", device.name
        )

    def op_band(
        self, op: str, formats: PrecisionPlan, device: Any, options: Options, table: OpTable
    ) -> tuple[Any, Any]:
        return BAND


def _kernel(network: Spiking, index: int, coding: Coding) -> CoreKernel:
    p = network.populations[index]
    sources = tuple(sorted({s.source for s in p.inputs if s.source >= 0}))
    entering = sum(network.spikes(-1) for s in p.inputs if s.source < 0)
    return CoreKernel(
        p.name, p.ops, (), (), f"cores of {p.name}", sources, 1, {},
        external_bytes=SPIKE_BYTES * entering * coding.steps,
    )  # fmt: skip


def _events(network: Spiking, p: Population) -> float:
    return sum(network.events(p, s) for s in p.inputs)


def _cost(program: SpikingProgram, index: int) -> KernelCost:
    """Of one item: all its time steps."""
    device: NeuromorphicDevice = program.device
    network, kernel = program.network, program.kernels[index]
    p, n, steps = network.populations[index], program.mapping.cores[index], program.coding.steps
    cycles = program.mapping.core_cycles[index] * steps
    if program.options.fidelity == "analytic":
        c = device.cores
        cycles = steps * (p.neurons / c.neurons_per_clock + _events(network, p) / c.synapses_per_clock) / n
    moved = kernel.bytes_compulsory
    rate = device.memory.bandwidth_bytes_per_s * device.memory.efficiency
    energy = joules(network, program.mapping, program.coding, device, index, moved)
    onchip = _events(network, p) * p.weight_bits / 8 * steps if p.weights else 0.0
    return KernelCost(
        device.cores.clock_hz,
        cycles,
        moved / rate * device.cores.clock_hz,
        0.0,
        {"dram": moved, "onchip": onchip},
        "memory" if moved / rate * device.cores.clock_hz > cycles else "compute",
        f"{n} cores, {p.neurons:,} neurons, {p.fan_in:,} synapses each",
        energy,
    )


def pipeline(program: SpikingProgram) -> Pipeline:
    """Timing of a batch: items follow one another without a gap, each for its time steps.

    Barrier: (T b + D - 1) steps, D the depth in layers, since a spike takes one step per layer. Free-running:
    a layer goes on when its own inputs are there, so the fill is the layers' own time.
    """
    network, mapping, steps = program.network, program.mapping, program.coding.steps
    batch, fidelity = program.graph.batch, program.options.fidelity
    depths = [p.depth - 1 for p in network.populations]
    if fidelity == "analytic":
        step = _least_step_s(program)
        whole = step * steps * batch
        return Pipeline(whole, step * steps, (0.0,) * len(depths), (whole,) * len(depths))
    if fidelity == "event":
        from accelsim.architectures.neuromorphic.events import follow

        step, fill = follow(program, EVENT_STEPS)
    else:
        step, fill = mapping.step_s, fill_s(program.network, program.device, program.mapping)
    lead = [fill * depth / max(network.depth - 1, 1) for depth in depths]
    start = tuple(lead)
    finish = tuple(lag + step * steps * batch for lag in lead)
    return Pipeline(max(finish), step * steps, start, finish, fidelity == "event")


def _least_step_s(program: SpikingProgram) -> float:
    """A step if all cores of the chip shared all neurons and synaptic events evenly [s]."""
    device: NeuromorphicDevice = program.device
    c, network = device.cores, program.network
    work = sum(
        p.neurons / c.neurons_per_clock + _events(network, p) / c.synapses_per_clock
        for p in network.populations
    )
    return float(max(work / c.count / c.clock_hz, device.step.tick_s))


def _notes(network: Spiking, coding: Coding, device: NeuromorphicDevice, options: Options) -> tuple[str, ...]:
    rates = "given" if options.coding is not None else "assumed"
    code = {"rate": "rate code", "ttfs": "time to first spike", "sigma_delta": "sigma-delta"}[coding.code]
    per = "share of neurons that fire" if coding.code == "ttfs" else "spikes per neuron and step"
    notes = [
        f"{code}, {coding.steps} time steps, {coding.rate:g} {per} ({rates}); energy, time and "
        "accuracy follow from it, and accuracy is unknown",
    ]
    if any(p.ops[0].kind == "pool" and p.ops[0].attribute("mode") == "max" for p in network.populations):
        notes.append("max pooling lets the neuron pass that fires most; it is costed as its synapses")
    if network.read_out:
        notes.append(f"read out by the host, not counted: {', '.join(network.read_out[:4])}")
    if options.sparsity != "dense":
        notes.append("a sparsity pattern saves nothing: absent synapses need a pruned graph")
    if not math.isclose(device.step.tick_s, 0.0):
        notes.append(f"steps follow a clock of {device.step.tick_s * 1e3:g} ms")
    return tuple(notes)


ARCHITECTURE = NeuromorphicArchitecture()
