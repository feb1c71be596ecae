"""What every architecture has in common: kernels, their cost, and the protocol between a model and the
engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from accelsim.workload.graph import Graph, Op, Tensor

if TYPE_CHECKING:
    from accelsim.architectures.single import OpTable
    from accelsim.core.precision import Precision, PrecisionPlan

Fidelity = Literal["analytic", "tile", "event"]
Style = Literal["sequential", "pipeline"]

STALLS = ("compute", "shared", "l2", "dram", "latency", "tail", "launch", "link")
"""What the time of a kernel can be spent on: arithmetic, operands from shared memory, the L2, external
memory, latencies, processors without work in the last wave, launches and the host, a link.
"""

BOUNDS = ("compute", "shared", "l2", "memory", "latency", "tail", "launch", "link")
"""What limits a kernel whose time is divided: the largest of its stalls, in their order."""


@dataclass(frozen=True)
class Options:
    """How to run, beside the graph and the device.

    Attributes
    ----------
    fidelity : {"analytic", "tile", "event"}
    stack : str
        Software stack: ``eager`` (one kernel per operator, host-bound launches), ``graph`` (replayed graph,
        epilogues fused), ``tensorrt`` (graph, and every fusion that the architecture knows), or a serving
        engine, see `accelsim.hardware.stacks`. Only GPUs tell them apart.
    sparsity : str
        ``dense``, or a pattern such as ``2:4`` that weights are assumed to carry.
    cold : bool
        Nothing is on chip when a kernel starts.
    governor : bool
        Power capping is modelled.
    folding : Any
        How a streaming pipeline is folded, see `accelsim.architectures.fpga.designs.apply`; None lets the
        search decide.
    coding : Any
        How a network becomes spikes, see `accelsim.architectures.neuromorphic.coding.read`; None takes the
        device's.
    """

    fidelity: Fidelity = "tile"
    stack: str = "graph"
    sparsity: str = "dense"
    cold: bool = False
    governor: bool = True
    folding: Any = None
    coding: Any = None


@dataclass(frozen=True)
class Kernel:
    """A unit of work that a device runs at once: one op, or a group of ops fused into one.

    Attributes
    ----------
    name : str
        Name of the anchor op.
    ops : tuple of Op
        The fused ops; the first is the anchor.
    inputs, outputs : tuple of Tensor
        External tensors of the group.
    lane : str
        Resource that it occupies (``sm``, ``array``, ``vector``, ``dma``, ``link``, a stage).
    after : tuple of int
        Indices of the kernels that must finish before it starts.
    repeat : int
        Times that it runs, one after the other.
    parameters : mapping
        What the architecture decided (tile, mapping, folding).
    """

    name: str
    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    lane: str
    after: tuple[int, ...] = ()
    repeat: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def anchor(self) -> Op:
        return self.ops[0]

    @property
    def flops(self) -> float:
        """MAC arithmetic of one execution [FLOP]."""
        return sum(op.flops for op in self.ops)

    @property
    def bytes_compulsory(self) -> float:
        """External traffic of one execution with nothing on chip [B]."""
        return group_bytes(self.ops, self.inputs, self.outputs)


@dataclass(frozen=True, eq=False)
class Program:
    """What an architecture's ``lower`` returns.

    Attributes
    ----------
    kernels : tuple of Kernel
        In dependency order.
    style : {"sequential", "pipeline"}
        Sequential programs run kernel after kernel; a pipeline's kernels are stages that run at the same
        time.
    memory_bytes : float
        What must be resident in external memory: weights, KV cache and peak activations [B].
    notes : tuple of str
        Assumptions and approximations that a Result must show.
    host_s : float
        What the host adds to a run beside the kernels [s].
    """

    graph: Graph
    device: Any
    options: Options
    kernels: tuple[Kernel, ...]
    style: Style
    memory_bytes: float
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    host_s: float = field(default=0.0, kw_only=True)


@dataclass(frozen=True)
class KernelCost:
    """Cost of one execution of a kernel.

    Attributes
    ----------
    clock_hz : float
        Clock that the cycles count [Hz].
    cycles_compute, cycles_memory, cycles_overhead : float
        Compute and memory overlap; overhead (launch, fill, drain, dispatch) does not.
    bytes_by_level : mapping
        Traffic by memory level [B]; ``dram`` is always there.
    bound : str
        What limits it: ``compute memory latency launch link`` ...
    mapping : str
        The decision in words (``128x128x32 tiles, 2 waves, split-k 1``).
    energy_j : mapping
        Dynamic energy by component [J]; NaN where a coefficient is missing.
    exact_s : float or None
        Overrides the cycle sum where a simulation gave the duration [s].
    stalls_s : mapping
        What the duration is spent on, by name in `STALLS` [s]; sums to `latency_s`. Empty where a model has
        no such breakdown.
    """

    clock_hz: float
    cycles_compute: float
    cycles_memory: float
    cycles_overhead: float
    bytes_by_level: Mapping[str, float]
    bound: str
    mapping: str = ""
    energy_j: Mapping[str, float] = field(default_factory=dict)
    exact_s: float | None = None
    stalls_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def latency_s(self) -> float:
        """Duration of one execution [s]."""
        if self.exact_s is not None:
            return self.exact_s
        return (max(self.cycles_compute, self.cycles_memory) + self.cycles_overhead) / self.clock_hz


@dataclass(frozen=True)
class Interval:
    """An error band.

    Attributes
    ----------
    low, high : float
        Same unit as the value that it belongs to.
    level : float
        Share of real measurements that should fall inside.
    basis : str
        What the band rests on (data set and split), or that it is assumed.
    """

    low: float
    high: float
    level: float
    basis: str


@dataclass(frozen=True)
class Pipeline:
    """How a pipeline program runs a batch.

    Attributes
    ----------
    latency_s : float
        First input to last output of the whole batch [s].
    interval_s : float
        Time between items in steady state [s].
    start_s, finish_s : tuple of float
        Of each stage [s].
    simulated : bool
        The times come from a discrete-event simulation of the architecture's own; the engine adds none.
    """

    latency_s: float
    interval_s: float
    start_s: tuple[float, ...]
    finish_s: tuple[float, ...]
    simulated: bool = False


@dataclass(frozen=True)
class BatchCosts:
    """One graph on one device for many batches: arrays of one element per batch.

    Attributes
    ----------
    latency_s, low_s, high_s : ndarray
        Latency and its error band [s].
    energy_j : mapping of str to ndarray
        Dynamic energy by part [J].
    bound : ndarray of str
    flops, dram_bytes : ndarray
    memory_bytes, weight_bytes, kv_bytes, activation_bytes : ndarray
        What must be resident, and the parts of it [B].
    resources : mapping
        Resources of the device that every batch takes.
    """

    latency_s: Any
    low_s: Any
    high_s: Any
    energy_j: Mapping[str, Any]
    bound: Any
    flops: Any
    dram_bytes: Any
    memory_bytes: Any
    weight_bytes: Any
    kv_bytes: Any
    activation_bytes: Any
    resources: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable
class CostsBatches(Protocol):
    """An architecture that costs many batches of a graph at once."""

    def cost_batches(
        self, sized: Callable[[int], Graph], device: Any, options: Options, batches: Sequence[int]
    ) -> BatchCosts | None:
        """The sums over kernels that the engine would make from `lower` and `cost` of each batch.

        Parameters
        ----------
        sized : callable
            The graph of a batch.
        batches : sequence of int
            Ascending, each once.

        Returns
        -------
        BatchCosts or None
            None where a graph needs what is not covered: the engine then asks for one point at a time.

        Raises
        ------
        InfeasibleError
            The device cannot run the graph, whatever the batch.
        """


class Architecture(Protocol):
    """What the engine asks of an architecture. Each folder exposes one instance as ``ARCHITECTURE``."""

    kind: str

    widens: bool
    """Products of unequal formats run in the wider one; otherwise each width has products of its own."""

    def supports(self, device: Any, precision: str) -> bool:
        """Whether a device computes in a precision."""

    def accumulators(self, device: Any, precision: Precision) -> tuple[str, ...]:
        """Formats that a device can sum products of a precision in."""

    def precisions(self, device: Any) -> tuple[str, ...]:
        """Precisions that a device computes in."""

    def lower(self, graph: Graph, device: Any, options: Options) -> Program:
        """Decide how a graph runs. Raises `InfeasibleError` when it cannot."""

    def cost(self, program: Program) -> tuple[KernelCost, ...]:
        """Cost of each kernel at the program's fidelity; ``event`` uses the costs of ``tile``."""

    def pipeline(self, program: Program, costs: tuple[KernelCost, ...]) -> Pipeline:
        """Timing of a pipeline program; sequential architectures need not implement it."""

    def explain(self, program: Program, index: int, cost: KernelCost) -> str:
        """The formula behind a kernel's cost, with its numbers in, on one line."""

    def interval(self, program: Program, costs: tuple[KernelCost, ...], latency_s: float) -> Interval:
        """Error band of the latency of a program whose kernels cost `costs`."""

    def predict(
        self,
        op: str,
        shapes: Mapping[str, Any],
        formats: PrecisionPlan,
        device: Any,
        options: Options,
    ) -> OpTable:
        """Predict many rows of one operator of the operator table, back to back as benchmarks run them."""

    def op_band(
        self, op: str, formats: PrecisionPlan, device: Any, options: Options, table: OpTable
    ) -> tuple[Any, Any]:
        """Error band of each row, as factors on its latency."""


def group_bytes(ops: tuple[Op, ...], inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> float:
    """Compulsory traffic of a fused group [B].

    The anchor moves what its formula says (a gather reads only its rows), less the outputs that stay inside
    the group; the other ops add the external tensors that they bring.
    """
    anchor = ops[0]
    if len(ops) == 1:
        return anchor.bytes_compulsory
    external = {t.name: t.size_bytes for t in (*inputs, *outputs)}
    total = anchor.bytes_compulsory - sum(t.size_bytes for t in anchor.outputs if t.name not in external)
    counted = {t.name for t in (*anchor.inputs, *anchor.outputs)}
    return total + sum(size for name, size in external.items() if name not in counted)
