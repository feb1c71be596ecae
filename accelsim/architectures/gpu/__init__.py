"""GPUs: kernels become thread blocks on streaming multiprocessors; see docs/models.md, "GPU"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelsim.architectures.base import BatchCosts, Interval, KernelCost, Options, Program
from accelsim.architectures.gpu import intervals, rates
from accelsim.architectures.gpu.lower import lower
from accelsim.architectures.gpu.table import predict
from accelsim.architectures.single import OpTable
from accelsim.core.precision import PRECISIONS, Precision, PrecisionPlan
from accelsim.hardware.schema import GpuDevice
from accelsim.workload.graph import Graph


class GpuArchitecture:
    """Devices of kind ``gpu``."""

    kind = "gpu"
    widens = True

    def supports(self, device: GpuDevice, precision: str) -> bool:
        return rates.supports(device, precision)

    def precisions(self, device: GpuDevice) -> tuple[str, ...]:
        return rates.precisions(device)

    def accumulators(self, device: Any, precision: Precision) -> tuple[str, ...]:
        return (PRECISIONS[precision.name].accumulate,)

    def lower(self, graph: Graph, device: GpuDevice, options: Options) -> Program:
        return lower(graph, device, options)

    def cost(self, program: Program) -> tuple[KernelCost, ...]:
        from accelsim.architectures.gpu.cost import cost

        return cost(program)

    def cost_batches(
        self, sized: Callable[[int], Graph], device: Any, options: Options, batches: Sequence[int]
    ) -> BatchCosts | None:
        from accelsim.architectures.gpu.many import cost_batches

        return cost_batches(sized, device, options, batches)

    def explain(self, program: Program, index: int, cost: KernelCost) -> str:
        from accelsim.architectures.gpu.cost import explain

        return explain(program, index, cost)

    def predict(
        self, op: str, shapes: Mapping[str, Any], formats: PrecisionPlan, device: Any, options: Options
    ) -> OpTable:
        return predict(self, op, shapes, formats, device, options)

    def op_band(
        self, op: str, formats: PrecisionPlan, device: Any, options: Options, table: OpTable
    ) -> tuple[Any, Any]:
        name = intervals.format_of(op, formats)
        return intervals.factors(op, name, device, options, table.latency_s, table.bound, table.stalls_s)

    def interval(self, program: Program, costs: tuple[KernelCost, ...], latency_s: float) -> Interval:
        """Error band of a latency: those of its kernels, combined."""
        return intervals.interval(program, costs, latency_s)


ARCHITECTURE = GpuArchitecture()
