"""ONNX control flow: branches, and loops whose trip count the file says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import UnsupportedOpError
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.onnx_node import BOOL, INT64, Node, Value, format_of

if TYPE_CHECKING:
    from accelsim.workload.onnx_walk import Walker

_Control = Callable[["Walker", Node, Mapping[str, Value]], list[Value]]


def branch(walker: Walker, node: Node, values: Mapping[str, Value]) -> list[Value]:
    """If: the branch that the condition picks when it is known, else the more expensive one, flagged."""
    condition = node.data(0)
    if condition is not None:
        taken = node.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        return _outputs(taken, walker.run(taken, values))
    found: list[tuple[tuple[float, float], list[Op], list[Value]]] = []
    for name in ("then_branch", "else_branch"):
        graph = node.attr(name)
        ops, results = _apart(walker, graph, values)
        cost = sum(op.flops * op.repeat for op in ops), sum(op.bytes_compulsory * op.repeat for op in ops)
        found.append((cost, ops, results))
    _, ops, results = max(found, key=lambda item: item[0])
    why = f"the more expensive branch of '{node.name}'"
    walker.ops += [replace(op, approximated=op.approximated or why) for op in ops]
    return results


def loop(walker: Walker, node: Node, values: Mapping[str, Value]) -> list[Value]:
    """Loop: the body's ops repeated; its shapes are those of the first trip."""
    trips = node.data(0)
    condition = node.data(1)
    if trips is None or (node.has(1) and (condition is None or not bool(condition.reshape(-1)[0]))):
        raise UnsupportedOpError("Loop runs a number of times that depends on the data", node.name)
    count = int(trips.reshape(-1)[0])
    if count < 1:
        raise UnsupportedOpError(f"Loop runs {count} times", node.name)
    body = node.attr("body")
    inner = dict(values)
    names = [i.name for i in body.input]
    inner[names[0]] = Value(Tensor(names[0], (), format_of(INT64), "constant"), INT64)
    inner[names[1]] = Value(Tensor(names[1], (), format_of(BOOL), "constant"), BOOL)
    carried = [v for v in node.inputs[2:] if v is not None]
    for name, value in zip(names[2:], carried):
        inner[name] = _state(walker, node, name, value)
    return _repeat(walker, node, body, inner, count, len(carried), first=1)


def scan(walker: Walker, node: Node, values: Mapping[str, Value]) -> list[Value]:
    """Scan: the body's ops repeated over the slices of the scanned inputs."""
    body = node.attr("body")
    scanned = node.attr("num_scan_inputs", 0)
    given = [v for v in node.inputs if v is not None]
    states, inputs = given[: len(given) - scanned], given[len(given) - scanned :]
    axes = list(node.attr("scan_input_axes", [0] * scanned))
    if not inputs or len(body.input) != len(given):
        raise UnsupportedOpError("Scan with a sequence length per item is not supported", node.name)
    count = inputs[0].tensor.shape[axes[0]]
    inner = dict(values)
    names = [i.name for i in body.input]
    for name, value in zip(names, states):
        inner[name] = _state(walker, node, name, value)
    for name, value, axis in zip(names[len(states) :], inputs, axes):
        t = value.tensor
        axis %= len(t.shape)
        step = Tensor(name, t.shape[:axis] + t.shape[axis + 1 :], t.precision)
        attributes = {"axes": (axis,), "removed": (axis,)}
        walker.emit(
            Op(walker.unique(f"{node.name}.{name}"), "slice", (t,), (step,), attributes, count, "Scan")
        )
        inner[name] = Value(step, value.dtype)
    return _repeat(walker, node, body, inner, count, len(states), first=0)


CONTROL: dict[str, _Control] = {"If": branch, "Loop": loop, "Scan": scan}


def _state(walker: Walker, node: Node, name: str, value: Value) -> Value:
    """A carried value changes with every trip, so a known one is copied into an activation."""
    if not value.known:
        return value
    t = replace(value.tensor, name=walker.unique(f"{node.name}.{name}"), role="activation")
    walker.emit(Op(t.name, "copy", (value.tensor,), (t,), {}, 1, node.type))
    return Value(t, value.dtype)


def _repeat(
    walker: Walker, node: Node, body: Any, inner: dict[str, Value], count: int, states: int, first: int
) -> list[Value]:
    """Body ops with a repeat; final states, then the stacked outputs of every trip."""
    ops, results = _apart(walker, body, inner)
    names = [i.name for i in body.input]
    start = 2 if first else 0  # a loop's body begins with the trip number and the condition
    before = [inner[n].tensor.shape for n in names[start : start + states]]
    after = [v.tensor.shape for v in results[first : first + states]]
    why = (
        ""
        if before == after
        else f"the state of '{node.name}' changes its shape; the first trip counts for all"
    )
    for op in ops:
        held = {**op.attributes, "shared_over": count * op.attributes.get("shared_over", 1)}
        walker.ops.append(
            replace(op, repeat=op.repeat * count, attributes=held, approximated=op.approximated or why)
        )
    found = list(results[first : first + states])
    for i, value in enumerate(results[first + states :]):
        t = value.tensor
        name = walker.unique(f"{node.name}.stack{i}")
        stacked = Tensor(name, (count, *t.shape), t.precision)
        walker.emit(Op(name, "copy", (t,), (stacked,), {"inserted": (0,)}, 1, node.type))
        found.append(Value(stacked, value.dtype))
    return found


def _apart(walker: Walker, graph: Any, values: Mapping[str, Value]) -> tuple[list[Op], list[Value]]:
    """Import a subgraph without keeping its ops."""
    held, walker.ops = walker.ops, []
    try:
        found = walker.run(graph, values)
        return walker.ops, _outputs(graph, found)
    finally:
        walker.ops = held


def _outputs(graph: Any, found: Mapping[str, Value]) -> list[Value]:
    return [found[o.name] for o in graph.output]
