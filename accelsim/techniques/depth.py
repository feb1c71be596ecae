"""Layer dropping: a model with fewer of its repeated layers or residual blocks.

LayerDrop (Fan et al., ICLR 2020, arXiv:1909.11556) keeps every n-th layer; the layers that stay here are
spaced evenly, the first one among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from accelsim.core.errors import GraphError
from accelsim.workload.graph import Graph, Op, Tensor


def drop_layers(graph: Graph, amount: float) -> tuple[Graph, int, int]:
    """Remove a share of the layers.

    Layers that the graph holds as one repeated run lose repeats. A graph without runs loses residual blocks:
    those whose sum is one tensor plus what ops made of that tensor alone.

    Returns
    -------
    (Graph, int, int)
        The smaller graph, layers dropped, and layers that there were.

    Raises
    ------
    GraphError
        There are no such layers, or none of a run would be left.
    """
    runs = [(repeat, tuple(ops)) for repeat, ops in groupby(graph, key=lambda op: op.repeat)]
    layers = sum(repeat for repeat, _ in runs if repeat > 1)
    return _shorter(graph, runs, amount, layers) if layers else _without_blocks(graph, amount)


def _shorter(
    graph: Graph, runs: Sequence[tuple[int, tuple[Op, ...]]], amount: float, layers: int
) -> tuple[Graph, int, int]:
    left: dict[str, int] = {}
    dropped = 0
    for repeat, ops in runs:
        if repeat == 1:
            continue
        goes = round(amount * repeat)
        if goes >= repeat:
            raise GraphError(f"dropping {amount:.0%} would remove all {repeat} layers", ops[0].name)
        dropped += goes
        left.update({op.name: repeat - goes for op in ops})
    if not dropped:
        return graph, 0, layers
    return graph.map_ops(lambda op: replace(op, repeat=left.get(op.name, op.repeat))), dropped, layers


def _without_blocks(graph: Graph, amount: float) -> tuple[Graph, int, int]:
    blocks = [(op, found) for op in graph if (found := _block(graph, op)) is not None]
    if not blocks:
        raise GraphError("there are no repeated layers or residual blocks to drop", graph.name)
    goes = round(amount * len(blocks))
    if not goes:
        return graph, 0, len(blocks)
    # Spread evenly, from the end on: the i-th of g removed blocks of n is n - 1 - floor(i n / g).
    chosen = [blocks[len(blocks) - 1 - i * len(blocks) // goes] for i in range(goes)]
    gone = {name for op, (_, inside) in chosen for name in (op.name, *inside)}
    became = {op.outputs[0].name: skip for op, (skip, _) in chosen}

    def source(t: Tensor) -> Tensor:
        while t.name in became:
            t = became[t.name]
        return t

    ops = [replace(op, inputs=tuple(map(source, op.inputs))) for op in graph.ops if op.name not in gone]
    smaller = Graph(
        graph.name, ops, phase=graph.phase, batch=graph.batch, item=graph.item, metadata=graph.metadata
    )
    return smaller, goes, len(blocks)


def _block(graph: Graph, add: Op) -> tuple[Tensor, frozenset[str]] | None:
    """The skipped tensor of a residual sum and the ops of its other branch, which nothing else reads."""
    if add.kind != "elementwise" or add.attribute("function") not in ("add", "sum") or len(add.inputs) != 2:
        return None
    if len({t.shape for t in (*add.inputs, *add.outputs)}) > 1:
        return None
    for skip, branch in (add.inputs, add.inputs[::-1]):
        inside: set[str] = set()
        waiting = [branch]
        while waiting:
            t = waiting.pop()
            if t.name == skip.name or t.role != "activation":
                continue
            op = graph.producer(t.name)
            if op is None:
                break
            if op.name not in inside:
                inside.add(op.name)
                waiting.extend(op.inputs)
        else:
            if inside and _closed(graph, skip, add, inside):
                return skip, frozenset(inside)
    return None


def _closed(graph: Graph, skip: Tensor, add: Op, inside: set[str]) -> bool:
    """Whether only the branch itself and its sum read what the branch makes, and the skipped tensor is not
    part of it.
    """
    allowed = inside | {add.name}
    made = [t.name for name in inside for t in graph[name].outputs]
    return skip.name not in made and all(
        op.name in allowed for name in made for op in graph.consumers.get(name, ())
    )
