"""GPUs: kernels become thread blocks on streaming multiprocessors; see docs/models.md, "GPU"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelsim.architectures.base import Interval, KernelCost, Options, Program
from accelsim.architectures.gpu import rates
from accelsim.architectures.gpu.lower import lower
from accelsim.architectures.gpu.table import predict
from accelsim.architectures.single import OpTable
from accelsim.core.precision import PrecisionPlan
from accelsim.hardware.schema import GpuDevice
from accelsim.workload.graph import Graph


class GpuArchitecture:
    """Devices of kind ``gpu``."""

    kind = "gpu"

    def supports(self, device: GpuDevice, precision: str) -> bool:
        return rates.supports(device, precision)

    def precisions(self, device: GpuDevice) -> tuple[str, ...]:
        return rates.precisions(device)

    def lower(self, graph: Graph, device: GpuDevice, options: Options) -> Program:
        return lower(graph, device, options)

    def cost(self, program: Program) -> tuple[KernelCost, ...]:
        from accelsim.architectures.gpu.cost import cost

        return cost(program)

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
        return 0.8, 1.35

    def interval(self, program: Program, latency_s: float) -> Interval:
        """Error band of a latency: narrower for families whose constants were fitted on measured products."""
        evidence = program.device.quantities["kernels.product.ramp"]
        if evidence.status == "measured":
            basis = f"assumed for whole networks; products alone {evidence.source}"
            return Interval(0.8 * latency_s, 1.35 * latency_s, 0.8, basis)
        basis = f"assumed: kernel constants are {evidence.source}"
        return Interval(0.6 * latency_s, 1.8 * latency_s, 0.8, basis)


ARCHITECTURE = GpuArchitecture()
