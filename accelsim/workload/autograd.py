"""Reverse-mode graphs: the operators that compute gradients of any forward graph, and a training step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from accelsim.core.errors import RequestError, UnsupportedOpError, did_you_mean
from accelsim.core.precision import PRECISIONS
from accelsim.workload import gradients_parallel  # noqa: F401  (registers its rules)
from accelsim.workload.gradients import RULES, STOPS, Gradients
from accelsim.workload.graph import Graph, Op, Tensor

WRT = ("inputs", "weights", "both")

OPTIMISERS = {"sgd": (0, 2), "momentum": (1, 4), "adam": (2, 12)}
"""States per weight, and vector operations per weight of one update (the square root counts 1 here)."""


@dataclass(frozen=True, eq=False)
class Reverse:
    """A backward pass.

    Attributes
    ----------
    graph : Graph
    gradients : mapping
        Gradient of each tensor that was asked for, by the tensor's name.
    """

    graph: Graph
    gradients: Mapping[str, Tensor]


def backward(graph: Graph, wrt: str | Iterable[str] = "inputs") -> Graph:
    """The backward pass of a graph, as a graph of its own.

    Saved activations, weights and the gradients of the outputs are its inputs. Repeated layers stay repeated;
    gradients of a tensor with several readers are summed. Quantisers pass gradients through.

    Parameters
    ----------
    graph : Graph
        A forward pass of any batch.
    wrt : {"inputs", "weights", "both"} or names of tensors
        What gradients are wanted of. Of a model that reads indices, "inputs" are what it looks up with them.

    Returns
    -------
    Graph

    Raises
    ------
    UnsupportedOpError
        An operator on the way has no backward rule; it is named.
    RequestError
        Nothing to differentiate by, or no such tensor.
    """
    return reverse_of(graph, wrt).graph


def reverse_of(graph: Graph, wrt: str | Iterable[str] = "inputs") -> Reverse:
    """`backward` with the gradient of each tensor that was asked for."""
    sources = _sources(graph, wrt)
    needed = _reached(graph, sources)
    made: dict[str, list[Tensor]] = {
        t.name: [replace(t, name=f"{t.name}.grad_out", role="activation")]
        for t in graph.outputs
        if t.name in needed
    }
    ops: list[Op] = []
    for op in reversed(graph.ops):
        wanted = tuple(t.name in needed and t.role != "constant" for t in op.inputs)
        if op.kind in STOPS or not any(wanted) or not any(t.name in made for t in op.outputs):
            continue
        found = Gradients(op, tuple(_summed(made, t, ops, op) for t in op.outputs), wanted)
        rule = RULES.get(op.kind)
        if rule is None:
            raise UnsupportedOpError(
                f"operator '{op.name}' ({op.kind}) has no backward rule",
                graph.name,
                f"there are rules for {', '.join(sorted(RULES))}",
            )
        rule(found)
        ops += found.ops
        for index, gradient in found.found.items():
            made.setdefault(op.inputs[index].name, []).append(gradient)
    gradients = {}
    for name in sources:
        if name in made:
            reader = graph.consumers[name][0]
            held = next(t for t in reader.inputs if t.name == name)
            total = _summed(made, held, ops, reader)
            if total is not None:
                gradients[name] = total
    if not ops:
        raise RequestError(
            f"no output of {graph.name} depends on what gradients are wanted of",
            hint="name tensors that its operators read",
        )
    reads = {t.name for op in ops for t in op.inputs}
    saved = {
        t.name: t.size_bytes * op.repeat
        for op in graph
        for t in (*op.inputs, *op.outputs)
        if t.name in reads and t.role == "activation"
    }
    reverse = Graph(
        f"{graph.name} backward",
        ops,
        phase=graph.phase,
        batch=graph.batch,
        item=graph.item,
        metadata={"wrt": wrt if isinstance(wrt, str) else tuple(wrt), "saved_bytes": sum(saved.values())},
    )
    return Reverse(reverse, gradients)


def together(graph: Graph, reverse: Graph) -> Graph:
    """Forward and backward pass as one graph, so that saved activations stay live between them."""
    return Graph(
        f"{graph.name} forward and backward",
        (*graph.ops, *reverse.ops),
        phase=graph.phase,
        batch=graph.batch,
        item=graph.item,
        metadata=dict(reverse.metadata),
    )


def training_step(graph: Graph, optimiser: str = "adam") -> Graph:
    """Forward pass, backward pass and update of the weights as one graph.

    Batch norms take the statistics of their batch: they read their input once more before they scale it. The
    optimiser's states lie beside the weights, in their format unless a precision plan names
    ``*.update``.

    Parameters
    ----------
    graph : Graph
    optimiser : {"sgd", "momentum", "adam"}

    Returns
    -------
    Graph

    Raises
    ------
    RequestError
        An unknown optimiser, or no weight to train.
    """
    if optimiser not in OPTIMISERS:
        raise RequestError(f"unknown optimiser '{optimiser}'", hint=did_you_mean(optimiser, OPTIMISERS))
    if not graph.weights:
        raise RequestError(f"{graph.name} has no weight to train")
    reverse = reverse_of(graph, "weights")
    states, per_element = OPTIMISERS[optimiser]
    updates = []
    for name, gradient in reverse.gradients.items():
        readers = graph.consumers[name]
        weight = next(t for t in readers[0].inputs if t.name == name)
        copies = max(op.repeat // (op.attribute("shared_over", 1) or 1) for op in readers)
        held = (weight, *(replace(weight, name=f"{name}.state{i}") for i in range(states)))
        after = tuple(replace(t, name=f"{t.name}.new", role="activation") for t in held)
        attributes = {"per_element": per_element, "of": optimiser}
        inputs = (weight, gradient, *held[1:])
        updates.append(Op(f"{name}.update", "gradient", inputs, after, attributes, copies, optimiser))
    return Graph(
        f"{graph.name} training step",
        (*_with_statistics(graph), *reverse.graph.ops, *updates),
        phase=graph.phase,
        batch=graph.batch,
        item=graph.item,
        metadata={**reverse.graph.metadata, "optimiser": optimiser},
    )


def _with_statistics(graph: Graph) -> Iterator[Op]:
    """The forward ops, with a pass over the input of each batch norm that sums it and its squares."""
    for op in graph:
        if op.kind == "batch_norm":
            x = op.inputs[0]
            axes = tuple(i for i in range(len(x.shape)) if i != 1)
            name = f"{op.name}.statistics"
            sums = replace(
                x, name=name, shape=(x.shape[1],), batch_axis=None, role="activation", density=1.0, pattern=""
            )
            attributes = {"function": "mean", "axes": axes}
            yield Op(
                name, "reduce", (x,), (sums,), attributes, op.repeat, "statistics of a batch", "", op.block
            )
        yield op


def _sources(graph: Graph, wrt: str | Iterable[str]) -> tuple[str, ...]:
    """Names of the tensors that gradients are wanted of."""
    if isinstance(wrt, str):
        if wrt not in WRT:
            raise RequestError(f"gradients of '{wrt}'", hint=did_you_mean(wrt, WRT))
        found = [] if wrt == "weights" else _inputs(graph)
        if wrt != "inputs":
            found += [t.name for t in graph.weights]
        if not found:
            raise RequestError(f"{graph.name} has no {wrt} to differentiate by")
        return tuple(dict.fromkeys(found))
    names = tuple(wrt)
    known = graph.consumers
    for name in names:
        if name not in known:
            raise RequestError(f"no operator of {graph.name} reads '{name}'", hint=did_you_mean(name, known))
    return names


def _inputs(graph: Graph) -> list[str]:
    """Inputs with values, and what indices look up."""
    found = []
    for t in graph.inputs:
        readers = graph.consumers[t.name]
        looked_up = [op for op in readers if op.kind == "gather" and op.inputs[-1].name == t.name]
        if looked_up:
            found += [op.outputs[0].name for op in looked_up]
        elif t.role == "activation" and t.precision.name in PRECISIONS:
            found.append(t.name)
    return found


def _reached(graph: Graph, sources: Iterable[str]) -> set[str]:
    """Tensors that depend on the sources."""
    found = set(sources)
    for op in graph:
        if op.kind not in STOPS and any(t.name in found for t in op.inputs):
            passed = op.outputs[:1] if op.kind == "topk" else op.outputs  # its indices have no gradient
            found |= {t.name for t in passed}
    return found


def _summed(made: dict[str, list[Tensor]], t: Tensor, ops: list[Op], op: Op) -> Tensor | None:
    """Gradient of a tensor: the sum over its readers."""
    parts = made.get(t.name)
    if parts is None:
        return None
    if len(parts) > 1:
        total = replace(parts[0], name=f"{t.name}.grad_sum")
        repeat = max(op.repeat, *(p.repeat for p in ops if any(o in parts for o in p.outputs)))
        ops.append(
            Op(
                total.name,
                "elementwise",
                tuple(parts),
                (total,),
                {"function": "add"},
                repeat,
                "sum of gradients",
                block=op.block,
            )
        )
        made[t.name] = [total]
    return made[t.name][0]
