"""From a graph to the stages of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelsim.architectures.fpga.makers import MAKERS, Context
from accelsim.architectures.fpga.network import Edge, Network, Part, Stage, Stream, Unit
from accelsim.architectures.fusion import EPILOGUES, Group, fuse
from accelsim.core.outcome import InfeasibleError
from accelsim.workload.graph import Graph, Op, Tensor


def joins(anchor: Op, op: Op) -> bool:
    """Pointwise work with one streamed input becomes the threshold part of the stage that feeds it."""
    return op.kind in EPILOGUES and sum(t.role in ("activation", "kv") for t in op.inputs) == 1


def build(graph: Graph) -> Network:
    """Stages of a batch-1 graph.

    Raises
    ------
    InfeasibleError
        An operator has no streaming unit.
    """
    groups = fuse(graph, joins)
    return _Builder(graph, groups).network()


class _Builder:
    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.graph = graph
        self.groups = tuple(groups)
        self.stages: list[Stage] = []
        self.streams: dict[str, Stream] = {}
        self.parts: list[Part] = []
        self.approximated: list[str] = []

    def network(self) -> Network:
        position = 0
        while position < len(self.groups):
            first = self.groups[position].anchor
            repeat, end = first.repeat, position + 1
            while (
                repeat > 1
                and end < len(self.groups)
                and (self.groups[end].anchor.repeat, self.groups[end].anchor.block) == (repeat, first.block)
            ):
                end += 1
            self._block(range(position, end), repeat)
            position = end
        for t in self.graph.outputs:
            stream = self.streams.get(self._written(t))
            if stream is not None:
                self._dma(t, stream)
        return Network(tuple(self.stages), tuple(self.parts), tuple(self.approximated))

    def _written(self, t: Tensor) -> str:
        """Name of the tensor behind reshapes."""
        name, producer = t.name, self.graph.producer(t.name)
        while producer is not None and producer.work.free:
            name = producer.inputs[0].name
            producer = self.graph.producer(name)
        return name

    def _block(self, members: range, repeat: int) -> None:
        """Groups that repeat together are laid out one copy after the other; what leaves a copy enters the
        next one."""
        inside = {t.name for i in members for op in self.groups[i].ops for t in op.outputs}
        entering = [
            t
            for i in members
            for t in self.groups[i].inputs
            if t.name not in inside and t.role == "activation"
        ]
        leaving = [t for i in members for t in self.groups[i].outputs]
        outside = (
            {t.name: self.source(t, max(t.elements // t.shape[-1], 1)) for t in entering}
            if repeat > 1
            else {}
        )
        for copy in range(repeat):
            for index in members:
                self._group(index, f"[{copy}]" if repeat > 1 else "")
            if copy + 1 < repeat:
                for t in {t.name: t for t in entering}.values():
                    heir = next((u for u in reversed(leaving) if u.shape == t.shape), None)
                    if heir is not None and heir.name in self.streams:
                        self.streams[t.name] = self.streams[heir.name]
        self.streams.update(outside)

    def _group(self, index: int, suffix: str) -> None:
        group = self.groups[index]
        op = group.anchor
        maker = MAKERS.get(op.kind)
        if maker is None:
            raise InfeasibleError(
                "operator",
                f"a streaming unit for '{op.kind}' ({op.name})",
                f"units for {', '.join(sorted(MAKERS))}",
                "run this model on an overlay, a GPU or a systolic device",
            )
        if op.approximated:
            self.approximated.append(f"{op.name}: {op.approximated}")
        final = group.ops[-1].outputs[0]
        requantised = any(o.kind in EPILOGUES and o.kind not in ("cast", "dequantize") for o in group.ops[1:])
        name = op.name + suffix
        self.parts.append(Part(name, tuple(replace(o, repeat=1) for o in group.ops)))
        context = Context(
            self.stages,
            self.streams,
            self.approximated,
            self.source,
            len(self.parts) - 1,
            name,
            final.precision.bits,
            requantised,
        )
        maker(op, context)
        last = len(self.stages) - 1
        out = self.stages[last].unit
        for member in group.ops:
            for t in member.outputs:
                channels = max(t.elements // max(out.pixels, 1), 1)
                self.streams[t.name] = Stream(last, out.pixels, channels, final.precision.bits)

    def source(self, t: Tensor, pixels: int) -> Stream:
        """The stream of a tensor; a graph input gets its DMA stage when it is first read."""
        if t.name not in self.streams:
            stage = len(self.stages)
            unit = Unit(
                "dma_in", 1, 1, pixels, 1, t.precision.bits, t.precision.bits, weights=0, pixels_in=t.elements
            )
            name = f"{t.name}.dma_in"
            self.stages.append(Stage(name, len(self.parts), unit, ()))
            self.parts.append(Part(name, tensor=t))
            self.streams[t.name] = Stream(stage, pixels, max(t.elements // pixels, 1), t.precision.bits)
        return self.streams[t.name]

    def _dma(self, t: Tensor, stream: Stream) -> None:
        unit = Unit(
            "dma_out", 1, 1, stream.pixels, 1, t.precision.bits, t.precision.bits, pixels_in=t.elements
        )
        edge = Edge(stream.stage, "stream", stream.pixels)
        name = f"{t.name}.dma_out"
        self.stages.append(Stage(name, len(self.parts), unit, (edge,)))
        self.parts.append(Part(name, tensor=t, inward=False))
