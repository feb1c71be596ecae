"""Fusion: which ops run as one kernel, and which tensors the group still exchanges with memory."""

from __future__ import annotations

from collections.abc import Callable
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
    between them, and both repeat
    equally often. Free ops (reshapes) vanish: their outputs are their inputs under another name.

    Parameters
    ----------
    graph : Graph
    joins : callable
        ``joins(anchor, op)``; a module-level function, since results are cached by it.
    """
    root: dict[str, str] = {}

    def renamed(t: Tensor) -> Tensor:
        name = root.get(t.name)
        return t if name is None else replace(t, name=name)

    ops: list[Op] = []
    for op in graph:
        if op.work.free:
            source = op.inputs[0].name
            for t in op.outputs:
                root[t.name] = root.get(source, source)
        elif any(t.name in root for t in op.inputs):
            ops.append(replace(op, inputs=tuple(map(renamed, op.inputs))))
        else:
            ops.append(op)

    readers: dict[str, int] = {}
    for op in ops:
        for name in {t.name for t in op.inputs}:
            readers[name] = readers.get(name, 0) + 1
    kept = {root.get(t.name, t.name) for t in graph.outputs}

    members: list[list[Op]] = []
    home: dict[str, int] = {}
    for op in ops:
        feeding = [(home[t.name], t) for t in op.inputs if t.name in home]
        target, link = max(feeding, key=lambda pair: pair[0], default=(-1, None))
        if (
            link is not None
            and readers[link.name] == 1
            and link.name not in kept
            and members[target][0].repeat == op.repeat
            and joins(members[target][0], op)
        ):
            members[target].append(op)
        else:
            target = len(members)
            members.append([op])
        for t in op.outputs:
            home[t.name] = target

    return tuple(_group(index, group, home, readers, kept) for index, group in enumerate(members))


def _group(index: int, ops: list[Op], home: dict[str, int], readers: dict[str, int], kept: set[str]) -> Group:
    inside: dict[str, int] = {}
    for op in ops:
        for name in {t.name for t in op.inputs}:
            inside[name] = inside.get(name, 0) + 1
    inputs = {t.name: t for op in ops for t in op.inputs if home.get(t.name) != index}
    outputs = {
        t.name: t
        for op in ops
        for t in op.outputs
        if t.name in kept or readers.get(t.name, 0) > inside.get(t.name, 0) or t.name not in readers
    }
    after = sorted({home[name] for name in inputs if name in home})
    return Group(tuple(ops), tuple(inputs.values()), tuple(outputs.values()), tuple(after))


def alone(anchor: Op, op: Op) -> bool:
    """Joining rule that fuses nothing."""
    return False


def epilogue(anchor: Op, op: Op) -> bool:
    """Joining rule: elementwise work rides on the matrix kernel that feeds it."""
    return anchor.work.engine == "matrix" and op.kind in EPILOGUES
