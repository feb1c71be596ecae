"""Precision as a technique: a graph in other formats."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.precision import PRECISIONS, Precision, PrecisionPlan
from accelsim.workload.graph import Graph, Op, Tensor


@lru_cache(maxsize=128)
def with_precision(graph: Graph, formats: PrecisionPlan) -> Graph:
    """The graph with its weights, activations and KV cache in other formats; indices, masks and constants
    keep theirs.

    With plans by layer, each op sees its tensors in the formats of its own plan: what one layer writes in
    int8 the next may read as fp16. An op that no pattern names and that is no product with weights takes the
    plan of the op that made its first input, so what is fused into a layer keeps its formats.

    Raises
    ------
    RequestError
        A pattern matches no op.
    """
    if not formats.layers:
        return graph.map_tensors(lambda t: _changed(t, formats))
    _check_patterns(graph, formats)
    base = replace(formats, layers=())
    named = {op.name: held for op in graph if (held := formats.of_layer(op.name)) is not None}
    owner = owners(graph, named)

    def by_layer(op: Op) -> Op:
        held = named.get(owner[op.name], base)
        return replace(
            op,
            inputs=tuple(_changed(t, held) for t in op.inputs),
            outputs=tuple(_changed(t, held) for t in op.outputs),
        )

    return graph.map_ops(by_layer)


def owners(graph: Graph, named: Iterable[str]) -> dict[str, str]:
    """The op whose plan each op takes: itself where it is named or a product with weights, else the owner of
    what made its first input.
    """
    alone = set(named)
    found: dict[str, str] = {}
    for op in graph:
        follows = None
        if op.name not in alone and not (op.weights and op.flops):
            follows = next(iter(graph.predecessors(op)), None)
        found[op.name] = op.name if follows is None else found[follows.name]
    return found


def _changed(t: Tensor, formats: PrecisionPlan) -> Tensor:
    if t.role == "constant" or t.precision.name not in PRECISIONS:
        return t
    target: Precision = getattr(formats, t.role)
    if formats.accumulator is not None:
        target = replace(target, accumulate=formats.accumulator.name)
    return t if t.precision == target else replace(t, precision=target)


def _check_patterns(graph: Graph, formats: PrecisionPlan) -> None:
    names = [op.name for op in graph]
    for pattern, _ in formats.layers:
        if pattern not in names and not any(fnmatchcase(name, pattern) for name in names):
            raise RequestError(
                f"no layer of {graph.name} matches '{pattern}'", hint=did_you_mean(pattern, names)
            )


@lru_cache(maxsize=128)
def widened(graph: Graph) -> tuple[str, ...]:
    """Notes on products of unequal formats: the narrow operand is widened before the units multiply."""
    pairs: dict[tuple[str, str, str], None] = {}
    for op in graph:
        if not op.flops:
            continue
        left, right = op.inputs[0], op.inputs[1] if len(op.inputs) > 1 else op.inputs[0]
        narrow, wide = sorted((left, right), key=lambda t: (t.precision.bits, not t.precision.is_integer))
        if narrow.precision.name != wide.precision.name and narrow.role in ("weight", "kv"):
            pairs[(narrow.role, narrow.precision.name, wide.precision.name)] = None
    what = {"weight": "weights", "kv": "cached keys and values"}
    return tuple(
        f"{narrow} {what[role]} are widened to {wide} before products: they save bytes, not arithmetic"
        for role, narrow, wide in pairs
    )


@lru_cache(maxsize=64)
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
