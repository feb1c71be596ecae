"""From a graph to populations of spiking neurons and the synapses between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from accelsim.architectures.fusion import Group, fuse
from accelsim.architectures.neuromorphic.coding import Coding
from accelsim.core.outcome import InfeasibleError
from accelsim.hardware.schema import NeuromorphicDevice
from accelsim.workload.graph import Graph, Op, Tensor

_FOLDED = frozenset({"activation", "batch_norm", "quantize", "dequantize", "cast", "multi_threshold"})
_READOUT = frozenset({"softmax", "topk", "reduce", "dequantize", "cast"})
_PRODUCTS = frozenset({"conv", "matmul"})
_SUMS = frozenset({"add", "sub", "sum", "mean"})
_SPIKING = frozenset(
    {"relu", "relu6", "clip", "identity", "hardtanh", "threshold", "sign", "abs", "leaky_relu"}
)
"""Functions that an integrate-and-fire neuron has of its own."""

KINDS = ("activation", "concat", "conv", "elementwise (add)", "matmul", "pool", "reduce (mean)")


@dataclass(frozen=True)
class Synapses:
    """Connections from one population.

    Attributes
    ----------
    source : int
        Index of the population; -1 is the input.
    count : float
        Synapses that exist in all.
    """

    source: int
    count: float


@dataclass(frozen=True)
class Population:
    """Neurons of one layer.

    Attributes
    ----------
    name : str
    ops : tuple of Op
        The ops that it stands for; the first is the anchor.
    neurons : int
    fan_in : int
        Synapses of a neuron.
    inputs : tuple of Synapses
    weights : int
        Distinct weights; 0 where all synapses have the same one.
    weight_bits : int
    channels : int
        Slices that weights divide by, at the most.
    rate : float
        Spikes per neuron and step.
    depth : int
        Steps after the input that the first spikes arrive.
    """

    name: str
    ops: tuple[Op, ...]
    neurons: int
    fan_in: int
    inputs: tuple[Synapses, ...]
    weights: int
    weight_bits: int
    channels: int
    rate: float
    depth: int

    @property
    def synapses(self) -> float:
        return sum(s.count for s in self.inputs)


@dataclass(frozen=True)
class Spiking:
    """A network of populations.

    Attributes
    ----------
    populations : tuple of Population
        In dependency order.
    input_neurons : int
    input_rate : float
        Spikes per input and step.
    outputs : int
        Elements that are read out.
    read_out : tuple of str
        Ops that the host applies to the output.
    """

    populations: tuple[Population, ...]
    input_neurons: int
    input_rate: float
    outputs: int
    read_out: tuple[str, ...]

    @property
    def depth(self) -> int:
        return max(p.depth for p in self.populations)

    def spikes(self, source: int) -> float:
        """Spikes per step of a population, or of the input."""
        if source < 0:
            return self.input_neurons * self.input_rate
        return self.populations[source].neurons * self.populations[source].rate

    def events(self, population: Population, source: Synapses) -> float:
        """Synaptic events per step from one source."""
        rate = self.input_rate if source.source < 0 else self.populations[source.source].rate
        return rate * source.count


def joins(anchor: Op, op: Op) -> bool:
    """What follows a sum with one streamed input becomes part of its neurons."""
    streamed = sum(t.role in ("activation", "kv") for t in op.inputs)
    return op.kind in _FOLDED and streamed == 1 and anchor.kind in ("conv", "matmul", "pool", "elementwise")


def convert(graph: Graph, coding: Coding, device: NeuromorphicDevice) -> Spiking:
    """Populations of a batch-1 graph.

    Raises
    ------
    InfeasibleError
        ``operator``, ``precision`` or ``coding``.
    """
    if coding.graded and not device.cores.graded:
        raise InfeasibleError(
            "coding", "graded spikes (sigma_delta)", "binary spikes", "use the code rate or ttfs"
        )
    populations: list[Population] = []
    home: dict[str, int] = {t.name: -1 for t in graph.inputs}
    read_out: list[str] = []
    groups = fuse(graph, joins)
    last = {t.name for t in graph.outputs}
    for group in groups:
        if _is_readout(group, last, groups):
            read_out += [op.name for op in group.ops]
            continue
        _check(group, coding, device)
        made = _population(group, coding, home, populations)
        for copy in range(group.repeat):
            if copy:
                before = len(populations) - 1
                inputs = (Synapses(before, made.synapses),)
                made = replace(
                    made,
                    name=f"{group.anchor.name}[{copy}]",
                    inputs=inputs,
                    depth=populations[before].depth + 1,
                )
            populations.append(made)
        for op in group.ops:
            home.update({t.name: len(populations) - 1 for t in op.outputs})
    if not populations:
        raise InfeasibleError(
            "operator", "a layer of neurons", f"{graph.name} has none", f"kinds: {', '.join(KINDS)}"
        )
    unknown = {name for name, _ in coding.rates} - {p.name for p in populations} - {"input"}
    if unknown:
        raise InfeasibleError(
            "coding",
            f"a layer '{sorted(unknown)[0]}' for its firing rate",
            ", ".join(p.name for p in populations[:8]),
            "name layers of the graph, or 'input'",
        )
    entering = sum(t.elements for t in graph.inputs)
    leaving = populations[-1].neurons
    return Spiking(tuple(populations), entering, coding.per_step("input"), leaving, tuple(read_out))


def _is_readout(group: Group, last: set[str], groups: tuple[Group, ...]) -> bool:
    """Ops that only shape the answer run on the host: what they write is an output of the graph."""
    if group.anchor.kind not in _READOUT or len(group.after) == 0:
        return False
    return all(t.name in last for op in group.ops[-1:] for t in op.outputs) and group.anchor.kind != "reduce"


def _check(group: Group, coding: Coding, device: NeuromorphicDevice) -> None:
    op = group.anchor
    fits = (
        (op.kind in _PRODUCTS and op.inputs[1].role == "weight" and not op.attribute("transposed", False))
        or op.kind in ("pool", "concat", "activation", *(_FOLDED - {"multi_threshold"}))
        or (op.kind == "elementwise" and op.attribute("function") in _SUMS)
        or (op.kind == "reduce" and op.attribute("function") in ("mean", "sum"))
    )
    if not fits:
        function = op.attribute("function")
        kind = f"{op.kind} ({function})" if function else op.kind
        raise InfeasibleError(
            "operator",
            f"spiking neurons for '{kind}' ({op.name})",
            f"neurons for {', '.join(KINDS)}",
            "run this model on a GPU, a systolic device or an FPGA",
        )
    for part in group.ops:
        function = part.attribute("function")
        if part.kind == "activation" and function not in _SPIKING and not coding.graded:
            raise InfeasibleError(
                "operator",
                f"a spiking neuron for '{function}' ({part.name})",
                f"integrate-and-fire neurons: {', '.join(sorted(_SPIKING))}",
                "train the model with relu, or use the code sigma_delta where the device has graded spikes",
            )
    if op.kind in _PRODUCTS and op.inputs[1].precision.name not in device.precisions:
        raise InfeasibleError(
            "precision",
            f"{op.inputs[1].precision.name} weights ({op.name})",
            ", ".join(device.precisions),
            f"run the model in {device.precisions[0]}",
        )


def _population(
    group: Group, coding: Coding, home: dict[str, int], populations: list[Population]
) -> Population:
    op, y = group.anchor, group.anchor.outputs[0]
    streamed = [t for t in op.inputs if t.role in ("activation", "kv")]
    weights, bits, channels = 0, 8, 1
    if op.kind in _PRODUCTS:
        w = op.inputs[1]
        weights, bits = w.elements, w.precision.bits
        channels = y.shape[1] if op.kind == "conv" else w.elements // op.work.nests[0].k
        counts = [op.macs * w.density]
        streamed = streamed[:1]
    elif op.kind == "pool":
        counts = [float(y.elements * prod(op.attribute("kernel", (1,))))]
    elif op.kind == "reduce":
        counts = [float(streamed[0].elements)]
    else:
        counts = [float(min(t.elements, y.elements)) for t in streamed]
        if op.kind == "elementwise":
            counts = [float(y.elements) for _ in streamed]
    inputs = tuple(Synapses(_home(t, home), count) for t, count in zip(streamed, counts))
    depth = 1 + max((populations[s.source].depth for s in inputs if s.source >= 0), default=0)
    fan_in = max(1, round(sum(counts) / y.elements))
    return Population(
        op.name,
        tuple(replace(o, repeat=1) for o in group.ops),
        y.elements,
        fan_in,
        inputs,
        weights,
        bits,
        channels,
        coding.per_step(op.name),
        depth,
    )


def _home(t: Tensor, home: dict[str, int]) -> int:
    """Population that spikes for a tensor; views (parts of a fused product) count as the input does."""
    return home.get(t.name, -1)
