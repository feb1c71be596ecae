"""Workload graphs: tensors, operators and the directed acyclic graph that joins them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from accelsim.core.errors import GraphError, RequestError
from accelsim.core.precision import Precision

if TYPE_CHECKING:
    import networkx as nx

    from accelsim.workload.coverage import Coverage
    from accelsim.workload.ops import LoopNest, Work

Role = Literal["weight", "activation", "kv", "constant"]
Phase = Literal["forward", "prefill", "decode"]

MAX_BATCH = 2**24


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array.

    Attributes
    ----------
    name : str
    shape : tuple of int
        All positive; ``()`` is a scalar.
    precision : Precision
    role : {"weight", "activation", "kv", "constant"}
        ``weight`` is learned and resident; ``kv`` is cached state of earlier tokens; ``constant`` is anything
        else known beforehand (indices, shapes, masks).
    density : float
        Share of non-zero elements, in (0, 1].
    batch_axis : int or None
        The axis that grows with the batch; None for what all items share.
    pattern : str
        N:M pattern that the zeros of a weight follow (``2:4``); empty when they follow none.
    """

    name: str
    shape: tuple[int, ...]
    precision: Precision
    role: Role = "activation"
    density: float = 1.0
    batch_axis: int | None = None
    pattern: str = ""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> float:
        """Dense storage [B]."""
        return self.elements * self.precision.bytes_per_element

    def with_shape(self, *shape: int) -> Tensor:
        return replace(self, shape=tuple(shape))


@dataclass(frozen=True)
class Op:
    """One operator.

    Attributes
    ----------
    name : str
        Unique in its graph.
    kind : str
        Registered operator kind (``conv``, ``matmul``, ``attention`` ...).
    inputs, outputs : tuple of Tensor
    attributes : mapping
        What the shapes do not say (stride, groups, causal ...). No attribute may depend on the batch.
    repeat : int
        How many times in a row the operator runs: identical layers are one op with a repeat.
    origin : str
        Name or type in the file that it came from; ``approximated`` says when a formula is only close.
    block : int
        Tells a repeated block from one before it that repeats equally often and ends where it begins.
    """

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    repeat: int = 1
    origin: str = ""
    approximated: str = ""
    block: int = 0

    @cached_property
    def work(self) -> Work:
        """Arithmetic and traffic of one execution, from the operator registry."""
        from accelsim.workload.ops import work_of

        return work_of(self)

    @property
    def flops(self) -> float:
        """Multiply-accumulate arithmetic of one execution, 1 MAC = 2 [FLOP]."""
        return self.work.flops

    @property
    def macs(self) -> float:
        return self.work.flops / 2

    @property
    def bytes_compulsory(self) -> float:
        """Bytes that must cross the memory interface with nothing on chip: each tensor once [B]."""
        return self.work.bytes_read + self.work.bytes_written

    @property
    def loop_nest(self) -> LoopNest | None:
        """The multiply-accumulate loop nest (the largest, when there are several)."""
        nests = self.work.nests
        return max(nests, key=lambda n: n.macs) if nests else None

    @property
    def weights(self) -> tuple[Tensor, ...]:
        return tuple(t for t in self.inputs if t.role == "weight")

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    @cached_property
    def signature(self) -> str:
        """Hash of all that determines the op's cost: kind, shapes, precisions, attributes; not its name or
        repeat.
        """

        def tensor(t: Tensor) -> str:
            return f"{t.shape}{t.precision.key}{t.role}{t.density}{t.pattern}"

        text = "|".join(
            (
                self.kind,
                ",".join(map(tensor, self.inputs)),
                ",".join(map(tensor, self.outputs)),
                repr(sorted(self.attributes.items())),
            )
        )
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class Graph:
    """A directed acyclic graph of operators; immutable once built.

    Parameters
    ----------
    name : str
    ops : iterable of Op
        In any order; edges follow from tensors: the op that outputs a tensor precedes those that read it.
    phase : {"forward", "prefill", "decode"}
    batch : int
        Items per run.
    item : str
        What one item is (``image``, ``sequence``, ``token`` ...).
    metadata : mapping, optional
        Free facts about the model that results show (parameters, task, accuracy, source).

    Raises
    ------
    GraphError
        Duplicate names, a tensor with two producers, a cycle, or a size that is not positive.
    """

    def __init__(
        self,
        name: str,
        ops: Iterable[Op],
        *,
        phase: Phase = "forward",
        batch: int = 1,
        item: str = "item",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.phase: Phase = phase
        self.batch = batch
        self.item = item
        self.metadata: dict[str, Any] = dict(metadata or {})
        self._by_name, self._producer = _index(name, ops)
        self._order = _topological(name, self._by_name, self._producer)

    # -- structure
    # ------------------------------------------------------------------------------------------------

    @property
    def ops(self) -> tuple[Op, ...]:
        """Operators in topological order."""
        return self._order

    def __iter__(self) -> Iterator[Op]:
        return iter(self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, name: str) -> Op:
        try:
            return self._by_name[name]
        except KeyError:
            from accelsim.core.errors import UnknownNameError, did_you_mean

            raise UnknownNameError(
                f"no operator '{name}' in {self.name}", hint=did_you_mean(name, self._by_name)
            ) from None

    def producer(self, tensor: str) -> Op | None:
        """The op that writes a tensor, or None for graph inputs and weights."""
        return self._producer.get(tensor)

    @cached_property
    def consumers(self) -> dict[str, tuple[Op, ...]]:
        """Tensor name to the ops that read it."""
        table: dict[str, list[Op]] = {}
        for op in self._order:
            for name in dict.fromkeys(t.name for t in op.inputs):
                table.setdefault(name, []).append(op)
        return {k: tuple(v) for k, v in table.items()}

    def predecessors(self, op: Op) -> tuple[Op, ...]:
        found = (self._producer.get(t.name) for t in op.inputs)
        return tuple({p.name: p for p in found if p is not None}.values())

    @cached_property
    def nx(self) -> nx.DiGraph[str]:
        """A ``networkx.DiGraph``: nodes are op names (attribute ``op``), edges carry ``tensor``."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph(name=self.name, phase=self.phase, batch=self.batch)
        for op in self._order:
            graph.add_node(op.name, op=op)
        for op in self._order:
            for t in op.inputs:
                source = self._producer.get(t.name)
                if source is not None:
                    graph.add_edge(source.name, op.name, tensor=t)
        return graph

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """Activations and KV that come from outside."""
        seen: dict[str, Tensor] = {}
        for op in self._order:
            for t in op.inputs:
                if t.name not in self._producer and t.role in ("activation", "kv"):
                    seen.setdefault(t.name, t)
        return tuple(seen.values())

    @cached_property
    def outputs(self) -> tuple[Tensor, ...]:
        """Tensors that no op reads."""
        return tuple(t for op in self._order for t in op.outputs if t.name not in self.consumers)

    @cached_property
    def weights(self) -> tuple[Tensor, ...]:
        """Distinct weight tensors (shared ones once); see `weight_bytes` for repeats."""
        return tuple(t for t, _ in self._weights)

    @cached_property
    def _weights(self) -> tuple[tuple[Tensor, int], ...]:
        seen: dict[str, tuple[Tensor, int]] = {}
        for op in self._order:
            for t in op.inputs:
                if t.role == "weight":
                    held = seen.get(t.name)
                    copies = op.repeat // (op.attributes.get("shared_over", 1) or 1)
                    seen[t.name] = (t, max(copies, held[1] if held else 0))
        return tuple(seen.values())

    # -- totals (whole run, repeats included)
    # -----------------------------------------------------------------------

    @cached_property
    def flops(self) -> float:
        """Multiply-accumulate arithmetic, 1 MAC = 2 [FLOP]; elementwise arithmetic is in `vector_ops`."""
        return sum(op.flops * op.repeat for op in self._order)

    @property
    def macs(self) -> float:
        return self.flops / 2

    @cached_property
    def vector_ops(self) -> float:
        return sum(op.work.vector_ops * op.repeat for op in self._order)

    @cached_property
    def bytes_compulsory(self) -> float:
        """Sum over ops of what each must read and write when run alone [B]."""
        return sum(op.bytes_compulsory * op.repeat for op in self._order)

    @cached_property
    def parameters(self) -> int:
        """Learned elements; a weight that ops share counts once, one that repeats with its layer counts each
        time.
        """
        return sum(t.elements * copies for t, copies in self._weights)

    @cached_property
    def weight_bytes(self) -> float:
        return sum(t.size_bytes * copies for t, copies in self._weights)

    @cached_property
    def kv_bytes(self) -> float:
        """Cached keys and values that must stay resident [B]."""
        seen: dict[str, float] = {}
        for op in self._order:
            for t in op.inputs:
                if t.role == "kv":
                    seen[t.name] = max(seen.get(t.name, 0.0), t.size_bytes * op.repeat)
        return sum(seen.values())

    @cached_property
    def peak_activation_bytes(self) -> float:
        """Largest sum of live activations when ops run in topological order [B]."""
        from accelsim.workload.liveness import peak_activation_bytes

        return peak_activation_bytes(self)

    @cached_property
    def hash(self) -> str:
        """Content hash: equal graphs have equal hashes, whatever process computed them."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.phase}|{self.batch}|{self.item}".encode())
        for op in self._order:
            names = ",".join(t.name for t in (*op.inputs, *op.outputs))
            block = f"/{op.block}" if op.block else ""
            digest.update(f"{op.name}|{op.signature}|{op.repeat}{block}|{names}".encode())
        return digest.hexdigest()

    def coverage(self) -> Coverage:
        """Which operators have an exact formula, with their shares of FLOPs and bytes."""
        from accelsim.workload.coverage import Coverage

        return Coverage(self)

    # -- transforms
    # --------------------------------------------------------------------------------------------------

    def map_ops(self, change: Any, **overrides: Any) -> Graph:
        """A new graph with ``change(op)`` in place of each op; keywords replace the graph's own fields."""
        fields = {
            "name": self.name,
            "phase": self.phase,
            "batch": self.batch,
            "item": self.item,
            "metadata": self.metadata,
            **overrides,
        }
        name = fields.pop("name")
        return Graph(name, (change(op) for op in self._order), **fields)

    def map_tensors(self, change: Any, **overrides: Any) -> Graph:
        """A new graph with ``change(tensor)`` in place of each tensor (called once per distinct tensor)."""
        memo: dict[Tensor, Tensor] = {}

        def mapped(t: Tensor) -> Tensor:
            if t not in memo:
                memo[t] = change(t)
            return memo[t]

        return self.map_ops(
            lambda op: replace(
                op, inputs=tuple(map(mapped, op.inputs)), outputs=tuple(map(mapped, op.outputs))
            ),
            **overrides,
        )

    def with_batch(self, batch: int) -> Graph:
        """The same model for `batch` items: every tensor's batch axis is scaled.

        Raises
        ------
        RequestError
            `batch` is not a positive integer of sensible size.
        GraphError
            The graph has no batch axis (its importer could not find one).
        """
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            hint = "sweep takes several" if isinstance(batch, list | tuple) else ""
            raise RequestError(f"batch {batch!r} is not a positive integer", hint=hint)
        if batch > MAX_BATCH:
            raise RequestError(f"batch {batch} is larger than {MAX_BATCH}")
        if batch == self.batch:
            return self
        if self.metadata.get("batch_note"):
            raise GraphError(
                self.metadata["batch_note"], self.name, "import the model with the batch that you need"
            )
        if not any(t.batch_axis is not None for t in self.inputs):
            raise GraphError("no input has a batch axis", self.name, "import it with the batch you need")
        return _batched(self, batch)

    def __repr__(self) -> str:
        from accelsim.core.units import si

        return (
            f"Graph {self.name}: {len(self)} ops, {self.phase}, batch {self.batch}, {si(self.macs, 'MAC')}, "
            f"{si(self.parameters, 'parameters')}"
        )


@lru_cache(maxsize=256)
def _batched(graph: Graph, batch: int) -> Graph:
    """See `Graph.with_batch`; kept, since sweeps ask for the same batches again and again."""
    old = graph.batch

    def scaled(t: Tensor) -> Tensor:
        if t.batch_axis is None:
            return t
        size, rest = divmod(t.shape[t.batch_axis] * batch, old)
        if rest:
            raise GraphError(f"tensor '{t.name}' {t.shape} does not divide by batch {old}", graph.name)
        return replace(t, shape=(*t.shape[: t.batch_axis], size, *t.shape[t.batch_axis + 1 :]))

    return graph.map_tensors(scaled, batch=batch)


def _index(graph: str, ops: Iterable[Op]) -> tuple[dict[str, Op], dict[str, Op]]:
    by_name: dict[str, Op] = {}
    producer: dict[str, Op] = {}
    for op in ops:
        if op.name in by_name:
            raise GraphError(f"two operators are named '{op.name}'", graph)
        by_name[op.name] = op
        if op.repeat < 1:
            raise GraphError(f"repeat {op.repeat} is not positive", f"{graph}: {op.name}")
        for t in (*op.inputs, *op.outputs):
            if any(d < 1 for d in t.shape):
                raise GraphError(
                    f"tensor '{t.name}' has shape {t.shape}; sizes must be positive", f"{graph}: {op.name}"
                )
        for t in op.outputs:
            if t.name in producer:
                raise GraphError(
                    f"tensor '{t.name}' is written by '{producer[t.name].name}' and '{op.name}'", graph
                )
            producer[t.name] = op
    if not by_name:
        raise GraphError("the graph has no operator", graph)
    return by_name, producer


def _topological(graph: str, by_name: dict[str, Op], producer: dict[str, Op]) -> tuple[Op, ...]:
    """Kahn's algorithm, stable: among ready ops the one given first comes first."""
    import heapq

    rank = {name: i for i, name in enumerate(by_name)}
    needs: dict[str, int] = {}
    after: dict[str, list[str]] = {}
    for op in by_name.values():
        sources = {producer[t.name].name for t in op.inputs if t.name in producer}
        needs[op.name] = len(sources)
        for source in sources:
            after.setdefault(source, []).append(op.name)
    ready = [rank[name] for name, n in needs.items() if n == 0]
    heapq.heapify(ready)
    names = list(by_name)
    order: list[Op] = []
    while ready:
        op = by_name[names[heapq.heappop(ready)]]
        order.append(op)
        for name in after.get(op.name, ()):
            needs[name] -= 1
            if needs[name] == 0:
                heapq.heappush(ready, rank[name])
    if len(order) < len(by_name):
        cycle = _cycle(by_name, producer, {name for name, n in needs.items() if n > 0})
        raise GraphError(f"the graph has a cycle through {', '.join(cycle[:4])}", graph)
    return tuple(order)


def _cycle(by_name: dict[str, Op], producer: dict[str, Op], stuck: set[str]) -> list[str]:
    """A cycle among ops that never became ready: each waits for another, so walking back comes round."""
    path = [next(name for name in by_name if name in stuck)]
    while True:
        sources = (producer[t.name].name for t in by_name[path[-1]].inputs if t.name in producer)
        name = next(s for s in sources if s in stuck)
        if name in path:
            return path[path.index(name) :][::-1]
        path.append(name)
