"""The FPGA architecture: a pipeline where the board has a ``dataflow`` section, else its overlay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelsim.architectures.base import Interval, KernelCost, Options, Pipeline, Program
from accelsim.architectures.fpga import dataflow, overlay
from accelsim.architectures.fpga.dataflow import PipelineProgram
from accelsim.architectures.single import OpTable, predict_by_graph
from accelsim.core.errors import RequestError
from accelsim.core.precision import PRECISIONS, Precision, PrecisionPlan
from accelsim.hardware.schema import FpgaDevice
from accelsim.workload.graph import Graph


class FpgaArchitecture:
    """See `accelsim.architectures.base.Architecture`."""

    kind = "fpga"
    widens = False

    def precisions(self, device: FpgaDevice) -> tuple[str, ...]:
        return device.precisions

    def supports(self, device: FpgaDevice, precision: str) -> bool:
        return precision in device.precisions

    def accumulators(self, device: Any, precision: Precision) -> tuple[str, ...]:
        return (PRECISIONS[precision.name].accumulate,)

    def lower(self, graph: Graph, device: FpgaDevice, options: Options) -> Program:
        """Build the pipeline, or the overlay's program.

        Raises
        ------
        InfeasibleError
            ``precision``, ``operator``, ``resources`` or ``memory``.
        RequestError
            A folding for an overlay, one of another network, or one that is not legal.
        """
        if device.dataflow is not None:
            return dataflow.lower(graph, device, options)
        if options.folding is not None:
            raise RequestError("an overlay has no folding", device.name)
        return overlay.lower(graph, device, options)

    def cost(self, program: Program) -> tuple[KernelCost, ...]:
        if isinstance(program, PipelineProgram):
            return dataflow.cost(program)
        return overlay.cost(program)

    def pipeline(self, program: Program, costs: tuple[KernelCost, ...]) -> Pipeline:
        """Timing of a pipeline program.

        Raises
        ------
        RequestError
            The program runs its layers in turn.
        """
        if isinstance(program, PipelineProgram):
            return dataflow.pipeline(program, costs)
        raise RequestError("an overlay runs its layers in turn", program.device.name)

    def explain(self, program: Program, index: int, cost: KernelCost) -> str:
        if isinstance(program, PipelineProgram):
            return dataflow.explain(program, index)
        return overlay.explain(program, cost)

    def predict(
        self, op: str, shapes: Mapping[str, Any], formats: PrecisionPlan, device: Any, options: Options
    ) -> OpTable:
        if device.dataflow is not None:
            raise RequestError(
                "a pipeline is built for a whole network, not for single operators", device.name
            )
        return predict_by_graph(self, op, shapes, formats, device, options)

    def op_band(
        self, op: str, formats: PrecisionPlan, device: Any, options: Options, table: OpTable
    ) -> tuple[Any, Any]:
        return 0.6, 1.8

    def interval(self, program: Program, costs: tuple[KernelCost, ...], latency_s: float) -> Interval:
        if isinstance(program, PipelineProgram):
            return dataflow.interval(program, latency_s)
        return overlay.interval(program, latency_s)


ARCHITECTURE = FpgaArchitecture()
