"""PyTorch modules as workload graphs."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from accelsim.core.errors import (
    GraphError,
    MissingExtraError,
    ModelFileError,
    RequestError,
    UnsupportedOpError,
)
from accelsim.core.precision import Precision, precision
from accelsim.workload.batching import compare_batches, mark_batch, unresolved
from accelsim.workload.graph import Graph, Op, Role, Tensor
from accelsim.workload.torch_movement import CREATORS, VIEWS
from accelsim.workload.torch_ops import ATEN, Call

_FORMATS = {
    "float32": "fp32", "float64": "fp64", "float16": "fp16", "bfloat16": "bf16", "int8": "int8",
    "uint8": "int8", "int16": "int16", "int32": "int32", "int64": "int64", "bool": "bool",
    "float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2", "complex64": "fp64",
}  # fmt: skip

# What tracing a module raises when its code, or its inputs, cannot be traced.
_TRACING = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    AssertionError,
)


def from_torch(module: Any, *example_inputs: Any, name: str | None = None) -> Graph:
    """Trace a PyTorch module; nothing is computed, so a module on the ``meta`` device (without weights)
    serves as well.

    Parameters
    ----------
    module : torch.nn.Module
        Traced in evaluation mode; its own mode is restored.
    *example_inputs : torch.Tensor or tuple
        One per argument of ``forward``: a tensor, a shape ``(1, 3, 224, 224)``, or a shape with its type
        ``((1, 128), "int64")``. Axis 0 of the first is the batch.
    name : str, optional
        Name of the graph; the module's class when None.

    Returns
    -------
    Graph
        At the batch of the example inputs. Ops carry the path of their module: ``layer4.2.conv3``.

    Raises
    ------
    ModelFileError
        ``torch.export`` cannot trace the module with these inputs.
    UnsupportedOpError
        An output shape that depends on the data.
    MissingExtraError
        The package `torch` is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "torch", "reading a PyTorch module") from None
    where = type(module).__name__
    if not isinstance(module, torch.nn.Module):
        raise RequestError(f"expected a torch.nn.Module, got {where}")
    inputs = [_example(module, given, where) for given in example_inputs]
    if not inputs:
        raise RequestError(
            "example inputs are missing", where, "give a tensor or a shape per argument of forward"
        )
    batch = next((t.shape[0] for t in inputs if t.dim()), None)

    def traced(times: int) -> tuple[list[Op], list[Tensor]]:
        grown = [_grow(t, batch, times) for t in inputs]
        return _Tracer(module, where, batch).run(_export(module, grown, where))

    ops, tensors = traced(1)
    if not ops:
        raise GraphError("the module has no operator that depends on an input", where)
    note = "no input has an axis that could be the batch"
    if batch is not None:
        note = ""
        try:
            ops = compare_batches(ops, traced(2)[0])
        except (GraphError, UnsupportedOpError, ModelFileError):
            ops = mark_batch(ops, tensors)
            note = unresolved(ops)
    facts = {
        "format": "torch",
        "source": f"{type(module).__module__}.{where}",
        **({"batch_note": note} if note else {}),
    }
    return Graph(name or where, ops, batch=batch or 1, metadata=facts)


def _example(module: Any, given: Any, where: str) -> Any:
    """The example as a tensor on the module's device; a shape gets the type of the module's weights."""
    import torch

    if isinstance(given, torch.Tensor):
        return given
    first = next(module.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    dtype = first.dtype if first is not None and first.is_floating_point() else torch.float32
    shape = given
    if isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], int):
        shape, kind = given
        dtype = getattr(torch, kind, None) if isinstance(kind, str) else kind
        if not isinstance(dtype, torch.dtype):
            raise RequestError(
                f"unknown type {kind!r} of an example input", where, 'write it like ((1, 128), "int64")'
            )
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise RequestError(f"{given!r} is neither a tensor nor a shape of positive sizes", where)
    return torch.zeros(tuple(shape), dtype=dtype, device=device)


def _grow(t: Any, batch: int | None, times: int) -> Any:
    if times == 1 or not t.dim() or t.shape[0] != batch:
        return t
    return t.new_zeros((t.shape[0] * times, *t.shape[1:]))


def _export(module: Any, inputs: list[Any], where: str) -> Any:
    """``torch.export`` in evaluation mode, without the fast path that hides a transformer layer."""
    import torch

    training = {m: m.training for m in module.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, tuple(inputs), strict=False)
    except _TRACING as error:
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelFileError(f"torch.export cannot trace the module: {why.strip()[:200]}", where) from None
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for m, mode in training.items():
            m.training = mode


class _Tracer:
    """Walks an exported program, node by node."""

    def __init__(self, module: Any, where: str, batch: int | None) -> None:
        self.where = where
        self.batch = batch
        self.ops: list[Op] = []
        self.inputs: list[Tensor] = []
        self._names: set[str] = set()
        self._holders = _shared_names(module)

    def run(self, program: Any) -> tuple[list[Op], list[Tensor]]:
        signature = program.graph_signature
        learned = dict(signature.inputs_to_parameters)
        held = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        env: dict[Any, Any] = {}
        for node in program.graph.nodes:
            if node.op != "placeholder":
                continue
            value = node.meta.get("val")
            if not hasattr(value, "dtype"):
                env[node] = value
                continue
            role: Role = (
                "weight" if node.name in learned else "constant" if node.name in held else "activation"
            )
            name = {**learned, **held}.get(node.name, node.name)
            t = self._tensor(self._holders.get(name, name), value, role)
            if role == "activation":
                t = replace(t, batch_axis=0 if t.shape and t.shape[0] == self.batch else None)
                self.inputs.append(t)
            env[node] = t
        self._walk(program.graph_module, env)
        return self.ops, self.inputs

    def _walk(self, owner: Any, env: dict[Any, Any]) -> Any:
        """Nodes of one graph; returns what its output node holds."""
        live = _live(owner.graph)
        for node in owner.graph.nodes:
            if node.op == "get_attr":
                found = getattr(owner, node.target, None)
                env[node] = self._tensor(node.target, found, "constant") if hasattr(found, "dtype") else found
            elif node.op == "output":
                return _resolved(node.args[0], env)
            elif node.op == "call_function" and node in live:
                env[node] = self._call(node, env)
        return None

    def _call(self, node: Any, env: dict[Any, Any]) -> Any:
        args = _resolved(node.args, env)
        if node.target is operator.getitem:
            return args[0][args[1]]
        kind = str(getattr(node.target, "_opname", getattr(node.target, "__name__", node.target)))
        if kind in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            inner = next(i for i, a in enumerate(args) if hasattr(a, "graph"))
            graph = args[inner]
            places = [n for n in graph.graph.nodes if n.op == "placeholder"]
            return self._walk(graph, dict(zip(places, args[inner + 1 :])))
        value = node.meta.get("val")
        values = value if isinstance(value, list | tuple) else [value]
        if not any(hasattr(v, "dtype") for v in values):
            return value
        mutates = kind.endswith("_") and not kind.endswith("__")
        name = self._name(node, kind.rstrip("_") if mutates else kind)
        outputs = tuple(
            self._tensor(name if i == 0 else f"{name}:{i}", v, "activation")
            for i, v in enumerate(values)
            if hasattr(v, "dtype")
        )
        call = Call(name, kind.rstrip("_") if mutates else kind, _named_arguments(node, args, env), outputs)
        results = self._known(call) or self._emitted(call, str(node.target))
        if mutates and results and node.args and not isinstance(node.args[0], list | tuple):
            env[node.args[0]] = results[0]
        return results if isinstance(value, list | tuple) else results[0]

    def _known(self, call: Call) -> tuple[Tensor, ...] | None:
        """Results known before the run: views of weights, and what follows from constants alone."""
        given = call.tensors
        if call.type not in CREATORS and any(t.role not in ("weight", "constant") for t in given):
            return None
        weights = [t for t in given if t.role == "weight"] if call.type not in CREATORS else []
        if not weights:
            return tuple(replace(t, role="constant") for t in call.outputs)
        y = call.outputs[0]
        if call.type in VIEWS and len(given) == 1 and y.elements == weights[0].elements:
            return (replace(y, name=weights[0].name, role="weight"),)
        return None

    def _emitted(self, call: Call, target: str) -> tuple[Tensor, ...]:
        mapper = ATEN.get(call.type)
        missing = replace(
            call.op("generic", call.tensors, call.outputs), approximated=f"no formula for {target}"
        )
        for op in mapper(call) if mapper else [missing]:
            name = op.name if op.name == call.name else self._unique(op.name)
            op = replace(op, name=name)
            try:
                _ = op.work
            except (GraphError, UnsupportedOpError) as error:
                op = replace(op, kind="generic", attributes={}, approximated=f"{op.kind}: {error.what}")
            self.ops.append(op)
        return call.outputs

    def _tensor(self, name: str, value: Any, role: Role) -> Tensor:
        shape = []
        for size in value.shape:
            if not isinstance(size, int):
                raise UnsupportedOpError(
                    f"the shape {tuple(value.shape)} of '{name}' depends on the data", self.where
                )
            shape.append(size)
        return Tensor(name, tuple(shape), _format(value.dtype, self.where), role)

    def _name(self, node: Any, kind: str) -> str:
        """Path of the calling module, and the call's name where a module makes several."""
        path, owner = "", ""
        for path_and_type in (node.meta.get("nn_module_stack") or {}).values():
            path, owner = path_and_type[0], str(path_and_type[1])
        if path and owner.startswith("torch.nn.modules.") and "activation.MultiheadAttention" not in owner:
            alone = "transformer" not in owner and ("rnn" not in owner or kind in ("lstm", "gru"))
            return self._unique(path if alone else f"{path}.{kind}")
        return self._unique(f"{path}.{kind}" if path else kind)

    def _unique(self, stem: str) -> str:
        name, count = stem, 1
        while name in self._names:
            name, count = f"{stem}_{count}", count + 1
        self._names.add(name)
        return name


def _shared_names(module: Any) -> dict[str, str]:
    """Each name of a parameter to the first name of the same parameter (tied weights)."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(p), name) for name, p in module.named_parameters(remove_duplicate=False)
    }


def _live(graph: Any) -> set[Any]:
    """Nodes that the outputs, or a write in place, need."""
    stack = [
        n for n in graph.nodes if n.op == "output" or str(getattr(n.target, "_opname", "")).endswith("_")
    ]
    live: set[Any] = set()
    while stack:
        node = stack.pop()
        if node not in live:
            live.add(node)
            stack += node.all_input_nodes
    return live


def _resolved(value: Any, env: Mapping[Any, Any]) -> Any:
    """Arguments with graph nodes replaced by what they hold."""
    if isinstance(value, list | tuple):
        return [_resolved(v, env) for v in value]
    if isinstance(value, dict):
        return {k: _resolved(v, env) for k, v in value.items()}
    return env.get(value, value) if type(value).__name__ == "Node" else value


def _named_arguments(node: Any, args: list[Any], env: Mapping[Any, Any]) -> dict[str, Any]:
    """Arguments by their name in the operator's schema, defaults included."""
    keywords = _resolved(dict(node.kwargs), env)
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {**{str(i): a for i, a in enumerate(args)}, **keywords}
    found = {}
    for i, argument in enumerate(schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        found[argument.name] = args[i] if i < len(args) else keywords.get(argument.name, default)
    return found


def _format(dtype: Any, where: str) -> Precision:
    name = str(dtype).removeprefix("torch.")
    if name not in _FORMATS:
        raise UnsupportedOpError(f"tensors of type {name} cannot be simulated", where)
    return precision(_FORMATS[name], storage=True)
