"""GPUs: kernels become thread blocks on streaming multiprocessors; see docs/models.md, "GPU"."""

from __future__ import annotations

from accelsim.architectures.base import Interval, KernelCost, Options, Program
from accelsim.architectures.gpu import rates
from accelsim.architectures.gpu.lower import lower
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

    def interval(self, program: Program, latency_s: float) -> Interval:
        """Error band of a latency: narrower for families whose constants were fitted on measured products."""
        evidence = program.device.quantities["kernels.product.ramp"]
        if evidence.status == "measured":
            basis = f"assumed for whole networks; products alone {evidence.source}"
            return Interval(0.8 * latency_s, 1.35 * latency_s, 0.8, basis)
        basis = f"assumed: kernel constants are {evidence.source}"
        return Interval(0.6 * latency_s, 1.8 * latency_s, 0.8, basis)


ARCHITECTURE = GpuArchitecture()
