"""Systolic arrays: matrix units with a fixed dataflow, software-managed memory and a vector unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelsim.architectures.base import BatchCosts, Interval, KernelCost, Options, Program
from accelsim.architectures.single import OpTable, predict_by_graph
from accelsim.architectures.systolic.lower import lower
from accelsim.core.precision import PRECISIONS, STORAGE, Precision, PrecisionPlan
from accelsim.hardware.schema import SystolicDevice
from accelsim.workload.graph import Graph

LOW, HIGH = 0.6, 1.8
"""Ends of the assumed error band, as factors on a latency."""


class SystolicArchitecture:
    """Devices of kind ``systolic``; see docs/models.md, "Systolic arrays"."""

    kind = "systolic"
    widens = True

    def supports(self, device: SystolicDevice, precision: str) -> bool:
        return precision in device.array.macs_per_pe

    def precisions(self, device: SystolicDevice) -> tuple[str, ...]:
        return tuple(device.array.macs_per_pe)

    def accumulators(self, device: SystolicDevice, precision: Precision) -> tuple[str, ...]:
        """What the array has; an array that names none is built for the format that a plan asks for."""
        own = device.array.accumulator
        if own is not None:
            return (own,)
        every = {**PRECISIONS, **STORAGE}.values()
        return tuple(
            p.name for p in every if p.is_integer == precision.is_integer and p.bits >= precision.bits
        )

    def lower(self, graph: Graph, device: SystolicDevice, options: Options) -> Program:
        return lower(graph, device, options)

    def cost(self, program: Program) -> tuple[KernelCost, ...]:
        from accelsim.architectures.systolic.cost import cost

        return cost(program)

    def cost_batches(
        self, sized: Callable[[int], Graph], device: Any, options: Options, batches: Sequence[int]
    ) -> BatchCosts | None:
        from accelsim.architectures.systolic.many import cost_batches

        return cost_batches(sized, device, options, batches, (LOW, HIGH))

    def explain(self, program: Program, index: int, cost: KernelCost) -> str:
        from accelsim.architectures.systolic.cost import explain

        return explain(program, index, cost)

    def interval(self, program: Program, costs: tuple[KernelCost, ...], latency_s: float) -> Interval:
        """An assumed band: no measurement of a systolic device has been held against this model yet."""
        basis = "assumed: not validated for this device yet"
        return Interval(LOW * latency_s, HIGH * latency_s, 0.8, basis)

    def predict(
        self, op: str, shapes: Mapping[str, Any], formats: PrecisionPlan, device: Any, options: Options
    ) -> OpTable:
        return predict_by_graph(self, op, shapes, formats, device, options)

    def op_band(
        self, op: str, formats: PrecisionPlan, device: Any, options: Options, table: OpTable
    ) -> tuple[Any, Any]:
        return LOW, HIGH


ARCHITECTURE = SystolicArchitecture()
