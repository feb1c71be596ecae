"""Structured pruning: channels, attention heads and feed-forward widths go, and the graph gets smaller.

The sizes of a graph are tied first (`ties`); each free size then loses a share of its elements, everywhere
at once. Which elements go is decided by the L1 norm of the weights that make them (Li et al., ICLR 2017,
arXiv:1608.08710), where weights are given; the counts do not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import GraphError, RequestError
from accelsim.techniques.axes import Axis, Size, expand
from accelsim.techniques.ties import Ties
from accelsim.workload.graph import Graph, Op, Tensor

if TYPE_CHECKING:
    from accelsim.techniques.arrays import Arrays

Amount = Callable[[tuple[str, ...]], float]
"""Share to remove from a size that some operators make."""


@dataclass(frozen=True)
class Shrunk:
    """A smaller graph.

    Attributes
    ----------
    graph : Graph
    removed, total, sizes : int
        Elements that went, of those that could have gone, and how many sizes shrank.
    kept : mapping
        First operator of each size that shrank to the indices of the elements kept; empty without weights.
    norm : float or None
        Share of the L1 norm of the scored weights that is left; None without weights.
    matched : int
        Weight tensors of the graph that decided.
    """

    graph: Graph
    removed: int
    total: int
    sizes: int
    kept: Mapping[str, tuple[int, ...]]
    norm: float | None
    matched: int


WHAT: dict[str, Callable[[Size, set[str]], bool]] = {
    "channel": lambda size, kinds: not size.stream,
    "heads": lambda size, kinds: size.head,
    "ffn": lambda size, kinds: not (size.stream or size.head or kinds - {"matmul", "grouped_matmul"}),
}
"""Sizes that each method shrinks. Hidden states keep their width: every layer norm runs over it."""


def shrink(graph: Graph, method: str, amount: Amount, align: int, arrays: Arrays | None) -> Shrunk:
    """Remove a share of every free size.

    Raises
    ------
    GraphError
        Nothing would be left of a size, or the graph has no size of that kind.
    """
    ties = Ties(graph)
    free = {
        id(size): size
        for name in ties.made_by
        for axis in ties.axes[name]
        for size, _ in expand(axis)
        if size.owners
        and not size.fixed
        and size.size > 1
        and WHAT[method](size, {graph[name].kind for name in size.owners})
    }
    if not free:
        raise GraphError(f"nothing to prune by '{method}'", graph.name, _HINTS[method])
    scores = _scores(ties, graph, free, arrays) if arrays is not None else {}
    left: dict[int, int] = {}
    kept: dict[str, tuple[int, ...]] = {}
    for key, size in free.items():
        count = _count(size, amount(size.owners), align)
        if count == size.size:
            continue
        left[key] = count
        if key in scores:
            kept[size.owners[0]] = _best(scores[key], count, size.step)
    removed = sum(free[key].size - count for key, count in left.items())
    total = sum(float(sum(s)) for s in scores.values())
    held = sum(
        float(sum(s[i] for i in kept[free[key].owners[0]])) if key in left else float(sum(s))
        for key, s in scores.items()
    )
    return Shrunk(
        _rebuilt(graph, ties, left) if left else graph,
        removed,
        sum(size.size for size in free.values()),
        len(left),
        kept,
        held / total if total else None,
        len(_matching(ties, graph, arrays)) if arrays is not None else 0,
    )


_HINTS = {
    "channel": "its channels reach an input, an output or an operator that pruning cannot follow",
    "heads": "it has no attention whose heads its own projections make",
    "ffn": "it has no free width between two products",
}


def _count(size: Size, amount: float, align: int) -> int:
    """Elements that stay: (1 - amount) of them to the nearest multiple of the groups, aligned upwards."""
    count = size.size - round(amount * size.size / size.step) * size.step
    if count < 1:
        raise GraphError(
            f"pruning {amount:.0%} would remove all {size.size} channels",
            size.owners[0],
            "use a smaller amount, or name the layers that may shrink",
        )
    if align > 1 and count < size.size:
        count = min(size.size, -(-count // align) * align)
        count = size.size if count % size.step else count
    return count


# -- which elements
# ----------------------------------------------------------------------------------------------------------


def _matching(ties: Ties, graph: Graph, arrays: Arrays) -> dict[str, Tensor]:
    return {t.name: t for t in graph.weights if t.name in ties.made_by and arrays.of(t) is not None}


def _scores(ties: Ties, graph: Graph, free: Mapping[int, Size], arrays: Arrays) -> dict[int, Any]:
    """L1 norm of the weights of each element, each tensor relative to its mean, for sizes all of whose makers
    are known.
    """
    import numpy as np

    found: dict[int, Any] = {}
    for t in _matching(ties, graph, arrays).values():
        values = np.abs(arrays.require(t))
        for position in ties.made_by[t.name]:
            others = tuple(i for i in range(values.ndim) if i != position)
            norm = values.sum(axis=others, dtype=np.float64)
            norm = norm / max(float(norm.mean()), 1e-30)
            at = 0
            for size, inner in expand(ties.axes[t.name][position]):
                part = norm[at : at + size.size * inner].reshape(size.size, inner).sum(axis=1)
                at += size.size * inner
                if id(size) in free:
                    found[id(size)] = found.get(id(size), 0.0) + part
    return found


def _best(scores: Any, count: int, step: int) -> tuple[int, ...]:
    """Indices of the largest scores, as many in each group."""
    import numpy as np

    blocks = np.asarray(scores).reshape(step, -1)
    best = np.argsort(-blocks, axis=1, kind="stable")[:, : count // step]
    return tuple(sorted(int(i) for i in (best + np.arange(step)[:, None] * blocks.shape[1]).ravel()))


# -- the smaller graph
# ----------------------------------------------------------------------------------------------------------


def _rebuilt(graph: Graph, ties: Ties, left: Mapping[int, int]) -> Graph:
    def length(axis: Axis) -> int:
        return sum(left.get(id(size), size.size) * inner for size, inner in expand(axis))

    def smaller(t: Tensor) -> Tensor:
        return replace(t, shape=tuple(length(axis) for axis in ties.axes[t.name]))

    def changed(op: Op) -> Op:
        inputs, outputs = tuple(map(smaller, op.inputs)), tuple(map(smaller, op.outputs))
        attributes = dict(op.attributes)
        groups = int(op.attribute("groups", 1))
        if op.kind == "conv" and groups > 1:
            x, w = inputs[0], inputs[1]
            if groups == op.inputs[0].shape[1]:
                attributes["groups"] = x.shape[1]
            elif not op.attribute("transposed", False):
                w = w.with_shape(w.shape[0], x.shape[1] // groups, *w.shape[2:])
            inputs = (x, w, *inputs[2:])
        if op.kind in ("lstm", "gru") and "hidden" in attributes:
            attributes["hidden"] = inputs[2].shape[1]
        return replace(op, inputs=inputs, outputs=outputs, attributes=attributes)

    result = graph.map_ops(changed)
    _validate(result, graph)
    return result


def _validate(result: Graph, graph: Graph) -> None:
    """Every formula takes its new shapes, tensors agree wherever they appear, and no op has grown."""
    shapes: dict[str, tuple[int, ...]] = {}
    for op, old in zip(result, graph):
        for t in (*op.inputs, *op.outputs):
            if shapes.setdefault(t.name, t.shape) != t.shape:
                raise GraphError(f"tensor '{t.name}' would have two shapes", op.name)
        if op.flops > old.flops * (1 + 1e-12):
            raise RequestError(f"pruning would make '{op.name}' larger")
