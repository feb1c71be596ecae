"""Walk an ONNX graph with concrete input shapes: every shape becomes a number, what is known folds, the rest
becomes ops.

Shapes come from the operator schemas of the `onnx` package, node by node, with the contents of small known
tensors; shape arithmetic is evaluated with its reference implementation. Weights are never read, only their
sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from accelsim.core.errors import GraphError, UnsupportedOpError
from accelsim.workload import onnx_attention, onnx_ops  # noqa: F401  (fill the table)
from accelsim.workload.graph import Op, Role, Tensor
from accelsim.workload.onnx_control import CONTROL
from accelsim.workload.onnx_node import FLOATS, INT64, NODES, SHAPES, Node, Shape, Value, format_of
from accelsim.workload.onnx_quant import QONNX, QUANTISERS, quantiser_format

# Tensors of more elements are never materialised, and of floating point (weights, mostly) far fewer.
SMALL = 4096
SMALL_FLOAT = 64

# Operators that read a quantised tensor directly when a DequantizeLinear stands before them.
_MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)

# Nodes that pick or repeat parts of a weight run; everything else on weights is computed once, beforehand.
_PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Expand", "Tile"})

# What the reference implementation raises on contents that an operator does not accept.
_EVALUATION = (
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
)

_Types = list[tuple[int, Shape | None]]


class Walker:
    """Turns the nodes of one model, for one set of input sizes, into ops.

    Parameters
    ----------
    model : onnx.ModelProto
    where : str
        The file, for errors.
    folder : Path or None
        Where external data lies.
    sizes : mapping
        Named dimensions, for shapes that the file declares.
    """

    def __init__(self, model: Any, where: str, folder: Path | None, sizes: Mapping[str, int]) -> None:
        self.where = where
        self.folder = folder
        self.sizes = sizes
        self.opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in model.opset_import}
        self.imports = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        self.ir_version = model.ir_version
        self.ops: list[Op] = []
        self._names: set[str] = set()
        self._quantised: dict[str, Value] = {}

    # -- graphs ----------------------------------------------------------------------------------------------

    def run(self, graph: Any, outer: Mapping[str, Value]) -> dict[str, Value]:
        """Import a graph or subgraph; returns every value by name."""
        values = dict(outer)
        for tensor in graph.initializer:
            values[tensor.name] = self._initializer(tensor)
        for sparse in graph.sparse_initializer:
            values[sparse.values.name] = self._sparse(sparse)
        declared = {v.name: v.type for v in (*graph.value_info, *graph.output)}
        nodes = self._needed(graph, values)
        readers: dict[str, list[str]] = {name.name: ["output"] for name in graph.output}
        for node in nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node.op_type)
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                for name in _captured(node):
                    readers.setdefault(name, []).append("subgraph")
        initial = {t.name for t in graph.initializer}
        for node in nodes:
            self._visit(node, values, readers, declared, initial)
        return values

    def _needed(self, graph: Any, values: Mapping[str, Value]) -> list[Any]:
        """Nodes that the outputs need, in topological order (the file's own, where it is one)."""
        producer: dict[str, int] = {}
        for i, node in enumerate(graph.node):
            for name in filter(None, node.output):
                if name in producer:
                    raise GraphError(f"'{name}' is written more than once", self._at(node))
                producer[name] = i
        reads = [[n for n in (*node.input, *_captured(node)) if n] for node in graph.node]
        needed: set[int] = set()
        waiting = [o.name for o in graph.output]
        while waiting:
            name = waiting.pop()
            i = producer.get(name, -1)
            if i < 0 and name not in values:
                raise GraphError(f"nothing produces '{name}'", self.where)
            if i >= 0 and i not in needed:
                needed.add(i)
                waiting += reads[i]
        after = {i: [producer[n] for n in reads[i] if n in producer] for i in sorted(needed)}
        if any(before >= i for i, earlier in after.items() for before in earlier):
            try:
                return [graph.node[i] for i in TopologicalSorter(after).static_order()]
            except CycleError as error:
                names = [graph.node[i].name or graph.node[i].op_type for i in error.args[1][:4]]
                raise GraphError(f"the graph has a cycle through {', '.join(names)}", self.where) from None
        return [graph.node[i] for i in after]

    def _initializer(self, tensor: Any) -> Value:
        shape = tuple(tensor.dims)
        if any(d < 0 for d in shape):
            raise GraphError(f"initializer '{tensor.name}' has shape {shape}", self.where)
        learned = tensor.data_type in FLOATS and bool(shape)
        t = Tensor(
            tensor.name, shape, format_of(tensor.data_type, self.where), "weight" if learned else "constant"
        )
        return Value(t, tensor.data_type, self._contents(tensor))

    def _contents(self, tensor: Any) -> Any:
        """Data of a small tensor, also from an external file beside the model."""
        if not _small(tensor.data_type, tensor.dims):
            return None
        try:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                if self.folder is None:
                    return None
                from onnx.external_data_helper import load_external_data_for_tensor

                held = onnx.TensorProto()
                held.CopyFrom(tensor)
                load_external_data_for_tensor(held, str(self.folder))
                return numpy_helper.to_array(held)
            return numpy_helper.to_array(tensor)
        except (ValueError, TypeError, OSError, onnx.checker.ValidationError):
            return None  # sizes suffice unless a shape needs the contents, which then says so

    def _sparse(self, sparse: Any) -> Value:
        dtype = sparse.values.data_type
        shape = tuple(sparse.dims)
        density = max(prod(sparse.values.dims), 1) / prod(shape)
        return Value(
            Tensor(sparse.values.name, shape, format_of(dtype, self.where), "weight", density), dtype
        )

    # -- nodes -----------------------------------------------------------------------------------------------

    def _visit(
        self,
        proto: Any,
        values: dict[str, Value],
        readers: Mapping[str, list[str]],
        declared: Mapping[str, Any],
        initial: set[str],
    ) -> None:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        inputs = tuple(values[n] if n else None for n in proto.input)
        if proto.op_type in _MATRIX:
            inputs = tuple(
                self._quantised.get(n, v) if v is not None else None for n, v in zip(proto.input, inputs)
            )
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        name = self.unique(proto.name or f"{proto.op_type}_{len(self.ops)}")
        node = Node(
            name,
            proto.op_type,
            domain,
            self.opsets.get(domain, 1),
            attributes,
            inputs,
            (None,) * len(proto.output),
        )
        if not domain and proto.op_type in CONTROL:
            found = CONTROL[proto.op_type](self, node, values)
            values.update((n, v) for n, v in zip(proto.output, found) if n)
            return
        if domain == "" and proto.op_type in ("Shape", "Size", "Constant"):
            values[proto.output[0]] = self._contents_of(node, proto.output[0])
            return
        types = self._types(proto, node, declared)
        contents = self._evaluate(proto, node, types)
        outputs: list[Tensor | None] = []
        for i, out in enumerate(proto.output):
            dtype, shape = types[i] if i < len(types) else (1, None)
            if contents is not None:
                shape = contents[i].shape if i < len(contents) else shape
            wanted = bool(out) and out in readers
            if wanted and shape is None:
                raise UnsupportedOpError(*self._unknown(node, proto))
            if not wanted or shape is None:
                outputs.append(None)
                continue
            made = Tensor(out, shape, format_of(dtype, name))
            outputs.append(made if made.elements else None)
            if not made.elements:  # an empty slice: nothing to compute
                empty = np.zeros(shape, helper.tensor_dtype_to_np_dtype(dtype))
                values[out] = Value(replace(made, role="constant"), dtype, empty)
        node = replace(node, outputs=tuple(outputs))
        if not node.written:
            return
        if self._fold(proto, node, types, contents, values, initial):
            return
        ops = self._mapped(node)
        for op in ops:
            self.emit(op if op.name == name else replace(op, name=self.unique(op.name)))
        written = {t.name: t for op in ops for t in op.outputs}
        for i, t in enumerate(node.outputs):
            if t is not None:
                values[t.name] = Value(written.get(t.name, t), types[i][0])
        self._pass_quantised(proto, node, values, readers)

    def emit(self, op: Op) -> None:
        """Keep an op; one that its formula refuses is counted as memory traffic, and flagged."""
        try:
            _ = op.work
        except (GraphError, UnsupportedOpError) as error:
            op = replace(op, kind="generic", attributes={}, approximated=f"{op.kind}: {error.what}")
        self.ops.append(op)

    def unique(self, name: str) -> str:
        """A fresh op name."""
        found, count = name, 1
        while found in self._names:
            found, count = f"{name}_{count}", count + 1
        self._names.add(found)
        return found

    def _at(self, proto: Any) -> str:
        return f"{self.where}: {proto.name or proto.op_type}"

    def _unknown(self, node: Node, proto: Any) -> tuple[str, str, str]:
        domain = node.domain or "ai.onnx"
        if (node.domain, node.type) in NODES or defs.has(node.type, node.domain):
            what = f"the output shape of {node.type} depends on the data"
        else:
            what = f"operator {node.type} of domain '{domain}' is unknown and its output shape too"
        return (
            what,
            self._at(proto),
            "give the file its shapes (value_info), or cut the graph before this node",
        )

    def _mapped(self, node: Node) -> list[Op]:
        mapper = NODES.get((node.domain, node.type))
        if mapper is None:
            why = f"no formula for {node.type} of domain '{node.domain or 'ai.onnx'}'"
            return [node.op("generic", node.tensors(), node.written, approximated=why)]
        return mapper(node)

    # -- shapes ----------------------------------------------------------------------------------------------

    def _types(self, proto: Any, node: Node, declared: Mapping[str, Any]) -> _Types:
        """Element type and shape of each output: by our rule, by the schema, as the file declares them."""
        rule = SHAPES.get((node.domain, node.type))
        if rule is not None:
            return list(rule(node))
        found = self._inferred(proto, node)
        types: _Types = []
        for out in proto.output:
            dtype, shape = self._concrete(found.get(out))
            if shape is None:
                declared_dtype, shape = self._concrete(declared.get(out))
                dtype = dtype or declared_dtype
            if shape is None and node.type in _RANDOM and node.has(0):
                shape = node.x.shape
            types.append((dtype or (node.value(0).dtype if node.has(0) else 1), shape))
        return types

    def _inferred(self, proto: Any, node: Node) -> dict[str, Any]:
        version = self.opsets.get(node.domain)
        if version is None or not defs.has(node.type, node.domain):
            return {}
        try:
            schema = defs.get_schema(node.type, version, node.domain)
        except defs.SchemaError:
            return {}
        given = [(n, v) for n, v in zip(proto.input, node.inputs) if v is not None]
        kinds = {n: helper.make_tensor_type_proto(v.dtype, v.tensor.shape) for n, v in given}
        data = {n: numpy_helper.from_array(v.data) for n, v in given if v.data is not None}
        try:
            return dict(
                shape_inference.infer_node_outputs(
                    schema, proto, kinds, data, opset_imports=self.imports, ir_version=self.ir_version
                )
            )
        except (shape_inference.InferenceError, RuntimeError) as error:
            why = " ".join(str(error).split())
            why = why.rsplit("] ", 1)[-1] if "] " in why else why
            raise GraphError(f"shapes do not fit {node.type}: {why[:160]}", self._at(proto)) from None

    def _concrete(self, kind: Any) -> tuple[int, Shape | None]:
        """Element type and shape of a TypeProto; None when a dimension is open."""
        if kind is None or not kind.HasField("tensor_type"):
            return 0, None
        tensor = kind.tensor_type
        if not tensor.HasField("shape"):
            return tensor.elem_type, None
        shape = []
        for d in tensor.shape.dim:
            size = d.dim_value if d.HasField("dim_value") else self.sizes.get(d.dim_param, -1)
            if size < 0:
                return tensor.elem_type, None
            shape.append(size)
        return tensor.elem_type, tuple(shape)

    # -- folding ---------------------------------------------------------------------------------------------

    def _contents_of(self, node: Node, out: str) -> Value:
        """Nodes whose output is known whatever the data: Shape, Size, Constant."""
        if node.type == "Constant":
            found = next(
                (node.attr(k) for k in node.attributes if k.startswith("value") or k == "sparse_value"), None
            )
            if isinstance(found, onnx.TensorProto):
                value = self._initializer(found)
                role: Role = (
                    "weight" if value.tensor.role == "weight" and value.tensor.elements > 1 else "constant"
                )
                return replace(value, tensor=replace(value.tensor, name=out, role=role))
            if isinstance(found, onnx.SparseTensorProto):
                value = self._sparse(found)
                return replace(value, tensor=replace(value.tensor, name=out))
            if isinstance(found, bytes) or (
                isinstance(found, list) and found and isinstance(found[0], bytes)
            ):
                raise UnsupportedOpError("tensors of text cannot be simulated", node.name)
            floats = "value_float" in node.attributes or "value_floats" in node.attributes
            data = np.asarray(found, dtype=np.float32 if floats else np.int64)
        elif node.type == "Size":
            data = np.asarray(node.x.elements, dtype=np.int64)
        else:
            rank = len(node.x.shape)
            start, end = node.attr("start", 0), node.attr("end", rank)
            data = np.asarray(node.x.shape[start:end], dtype=np.int64)
        dtype = 1 if data.dtype == np.float32 else INT64
        return Value(Tensor(out, data.shape, format_of(dtype), "constant"), dtype, data)

    def _evaluate(self, proto: Any, node: Node, types: _Types) -> list[Any] | None:
        """Contents of the outputs when all inputs are small and known."""
        if node.domain or node.type in _RANDOM or not node.inputs:
            return None
        if any(v is not None and v.data is None for v in node.inputs):
            return None
        if any(shape is not None and not _small(dtype, shape) for dtype, shape in types):
            return None
        from onnx.reference import ReferenceEvaluator

        feeds = {n: v.data for n, v in zip(proto.input, node.inputs) if v is not None}
        try:
            found = ReferenceEvaluator(proto, opsets=self.opsets).run(None, feeds)
        except _EVALUATION:
            return None
        arrays = [np.asarray(a) for a in found]
        return arrays if all(a.size <= SMALL for a in arrays) else None

    def _fold(
        self,
        proto: Any,
        node: Node,
        types: _Types,
        contents: list[Any] | None,
        values: dict[str, Value],
        initial: set[str],
    ) -> bool:
        """Keep outputs that are known before the run; False when the node has to run."""
        given = [v for v in node.inputs if v is not None]
        if any(not v.known for v in given) or node.type in _RANDOM:
            return False
        weights = [v.tensor for v in given if v.tensor.role == "weight"]
        quantiser = node.domain in QONNX and node.type in QUANTISERS
        if quantiser or node.type in ("QuantizeLinear", "DequantizeLinear"):
            weights = [node.x] if node.x.shape else []  # the scales are not weights
        elif node.type == "ConstantOfShape" and proto.input[0] in initial and types[0][0] in FLOATS:
            weights = list(node.written)  # stands for a weight, where the file itself holds the shape
        elif weights and node.type in _PICKS:
            return False
        for i, t in enumerate(node.outputs):
            if t is None:
                continue
            precision = quantiser_format(node) if quantiser else t.precision
            if node.type == "DequantizeLinear":
                precision = node.x.precision
            whole = len(weights) == 1 and weights[0].elements == t.elements
            role: Role = "weight" if weights else "constant"
            tensor = Tensor(weights[0].name if whole else t.name, t.shape, precision, role)
            data = contents[i] if contents is not None and i < len(contents) else None
            values[t.name] = Value(tensor, types[i][0], data)
        return True

    def _pass_quantised(
        self, proto: Any, node: Node, values: dict[str, Value], readers: Mapping[str, list[str]]
    ) -> None:
        """Matrix operators read the quantised tensor; a DequantizeLinear for them alone does not run."""
        if node.type != "DequantizeLinear":
            return
        out = proto.output[0]
        self._quantised[out] = Value(node.x, node.value(1).dtype)
        if all(reader in _MATRIX for reader in readers[out]):
            self.ops.pop()


def _small(dtype: int, shape: Iterable[int]) -> bool:
    return prod(shape) <= (SMALL_FLOAT if dtype in FLOATS else SMALL)


def _captured(proto: Any) -> list[str]:
    """Names that the subgraphs of a node read from outside."""
    found: list[str] = []
    for attribute in proto.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
            inside = {t.name for t in graph.initializer} | {i.name for i in graph.input}
            inside.update(name for node in graph.node for name in node.output)
            reads = [name for node in graph.node for name in (*node.input, *_captured(node))]
            reads += [o.name for o in graph.output]
            found += [name for name in reads if name and name not in inside]
    return list(dict.fromkeys(found))
