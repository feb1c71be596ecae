"""Precision as a technique: a graph in other formats."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from accelsim.core.precision import PRECISIONS, Precision, PrecisionPlan
from accelsim.workload.graph import Graph, Tensor


@lru_cache(maxsize=128)
def with_precision(graph: Graph, formats: PrecisionPlan) -> Graph:
    """The graph with its weights, activations and KV cache in other formats; indices, masks and constants
    keep theirs.
    """

    def changed(t: Tensor) -> Tensor:
        if t.role == "constant" or t.precision.name not in PRECISIONS:
            return t
        target: Precision = getattr(formats, t.role)
        return t if t.precision == target else replace(t, precision=target)

    return graph.map_tensors(changed)


def own_precision(graph: Graph) -> str:
    """The format that most of the graph's MAC work has in the file: that of its activations, weighted by
    FLOPs.
    """
    weight: dict[str, float] = {}
    for op in graph:
        if op.flops and op.inputs[0].precision.name in PRECISIONS:
            name = op.inputs[0].precision.name
            weight[name] = weight.get(name, 0.0) + op.flops * op.repeat
    return max(weight, key=lambda n: weight[n]) if weight else "fp32"


def nearest_supported(name: str, supported: tuple[str, ...]) -> str | None:
    """The supported format closest to another: itself, else the narrowest at least as wide, floats before
    integers; else the widest.
    """
    if name in supported:
        return name
    if not supported:
        return None
    wanted = PRECISIONS[name]
    ranked = sorted(
        supported,
        key=lambda s: (
            PRECISIONS[s].bits < wanted.bits,
            PRECISIONS[s].kind != wanted.kind,
            PRECISIONS[s].bits,
        ),
    )
    wider = [s for s in ranked if PRECISIONS[s].bits >= wanted.bits]
    return wider[0] if wider else max(supported, key=lambda s: PRECISIONS[s].bits)
