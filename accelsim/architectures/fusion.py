"""Fusion: which ops run as one kernel, and which tensors the group still exchanges with memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from accelsim.workload.graph import Graph, Op, Tensor

EPILOGUES = frozenset(
    {"activation", "elementwise", "batch_norm", "quantize", "dequantize", "cast", "multi_threshold"}
)
"""Kinds that a matrix kernel can apply to its accumulators before it writes them."""

Joins = Callable[[Op, "Op"], bool]


@dataclass(frozen=True)
class Group:
    """Ops that run as one kernel.

    Attributes
    ----------
    ops : tuple of Op
        The anchor first. Tensors that only rename memory (a reshape's output) carry the name of what they
        rename.
    inputs, outputs : tuple of Tensor
        External tensors: what the group reads from and leaves in memory.
    after : tuple of int
        Indices of the groups that produce its inputs.
    """

    ops: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    after: tuple[int, ...]

    @property
    def anchor(self) -> Op:
        return self.ops[0]

    @property
    def repeat(self) -> int:
        return self.ops[0].repeat


@lru_cache(maxsize=64)
def fuse(graph: Graph, joins: Joins) -> tuple[Group, ...]:
    """Partition a graph into groups, in dependency order.

    An op joins the group that writes one of its inputs when ``joins(anchor, op)`` allows it, the group is the
    latest of those that feed it (so the order stays a dependency order), nothing else reads the tensor
    between them, and both are of one repeated block. Free ops (reshapes) vanish: a whole tensor under another
    name gets its first name back, and a part of one (a slice of a fused product) stands for that part.

    Parameters
    ----------
    graph : Graph
    joins : callable
        ``joins(anchor, op)``; a module-level function, since results are cached by it.
    """
    ops, storage = _without_free_ops(graph)
    readers: dict[str, int] = {}
    for op in ops:
        for name in _touched(op.inputs, storage):
            readers[name] = readers.get(name, 0) + 1
    kept = set(_touched(graph.outputs, storage))

    members: list[list[Op]] = []
    home: dict[str, int] = {}
    for op in ops:
        feeding = [(home[name], name) for name in _touched(op.inputs, storage) if name in home]
        target, link = max(feeding, default=(-1, ""))
        joined = (
            bool(feeding)
            and readers[link] == 1
            and link not in kept
            and (members[target][0].repeat, members[target][0].block) == (op.repeat, op.block)
            and joins(members[target][0], op)
        )
        if not joined:
            target = len(members)
            members.append([])
        members[target].append(op)
        for t in op.outputs:
            home[t.name] = target
    return tuple(_group(index, group, home, readers, kept, storage) for index, group in enumerate(members))


Storage = Mapping[str, tuple[str, ...]]
"""Tensors that free ops made, and the written tensors whose memory they are."""


def _without_free_ops(graph: Graph) -> tuple[list[Op], Storage]:
    storage: dict[str, tuple[str, ...]] = {}
    whole: dict[str, str] = {}
    ops: list[Op] = []
    for op in graph:
        if op.work.free:
            sources = tuple(dict.fromkeys(n for t in op.inputs for n in storage.get(t.name, (t.name,))))
            for t in op.outputs:
                storage[t.name] = sources
                first = op.inputs[0]
                if len(op.inputs) == 1 and t.elements == first.elements:
                    whole[t.name] = whole.get(first.name, first.name)
        elif any(t.name in whole for t in op.inputs):
            inputs = tuple(replace(t, name=whole.get(t.name, t.name)) for t in op.inputs)
            ops.append(replace(op, inputs=inputs))
        else:
            ops.append(op)
    return ops, storage


def _touched(tensors: Iterable[Tensor], storage: Storage) -> list[str]:
    """Names of the written tensors whose memory some tensors are, each once."""
    return list(dict.fromkeys(name for t in tensors for name in storage.get(t.name, (t.name,))))


def _group(
    index: int, ops: list[Op], home: dict[str, int], readers: dict[str, int], kept: set[str], storage: Storage
) -> Group:
    inside: dict[str, int] = {}
    for op in ops:
        for name in _touched(op.inputs, storage):
            inside[name] = inside.get(name, 0) + 1

    def made_here(t: Tensor) -> bool:
        return all(home.get(name) == index for name in _touched([t], storage))

    inputs = {t.name: t for op in ops for t in op.inputs if not made_here(t)}
    outputs = {
        t.name: t
        for op in ops
        for t in op.outputs
        if t.name in kept or t.name not in readers or readers[t.name] > inside.get(t.name, 0)
    }
    after = sorted({home[n] for n in _touched(inputs.values(), storage) if n in home and home[n] != index})
    return Group(tuple(ops), tuple(inputs.values()), tuple(outputs.values()), tuple(after))


def alone(anchor: Op, op: Op) -> bool:
    """Joining rule that fuses nothing."""
    return False


def epilogue(anchor: Op, op: Op) -> bool:
    """Joining rule: elementwise work rides on the matrix kernel that feeds it."""
    return anchor.work.engine == "matrix" and op.kind in EPILOGUES
