"""An ONNX network whose layers can be given other weights and other inputs, run by onnxruntime.

The file's graph is changed once: the weights of every layer become inputs with a default, and before the
data input of every layer stands a Where that lets an array take the place of what arrives. One session then
answers every question: what reaches a layer, and what comes out when some layers are quantised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import MissingExtraError, ModelFileError, RequestError, did_you_mean
from accelsim.techniques.numerics import check_finite

Array = npt.NDArray[Any]

# Node type: positions of data and weights, and the axis of output channels.
_LAYERS: dict[str, tuple[int, tuple[int, ...], int]] = {
    "Conv": (0, (1,), 0),
    "ConvTranspose": (0, (1,), 1),
    "Gemm": (0, (1,), -1),
    "MatMul": (0, (1,), -1),
    "Gather": (1, (0,), 0),
    "LSTM": (0, (1, 2), 1),
    "GRU": (0, (1, 2), 1),
    "RNN": (0, (1, 2), 1),
}
_MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

# Final nodes that squash differences: outputs are compared before them.
_SQUASHING = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Hardmax", "ArgMax"})

THREADS = 1
"""Of onnxruntime: the order of its sums, so the last digits, must not depend on the machine's cores."""

LEAST_IR = 4
"""Before this version of the format every initializer had to be an input."""

LEAST_OPSET = 9
"""The first operator set with Where."""

_FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}


@dataclass(frozen=True)
class Layer:
    """A node with weights.

    Attributes
    ----------
    name : str
        The node's name, or its output where it has none.
    kind : str
        Type of the node.
    weights : tuple of str
        Names of its weight tensors in the file.
    arrays : tuple of array
        Their contents.
    axis : int
        Axis of output channels.
    data : str
        Tensor that it reads; empty where that is not a number to quantise (indices of a table).
    output : str
    slot : str
        Prefix of the names of its inputs in the changed graph.
    """

    name: str
    kind: str
    weights: tuple[str, ...]
    arrays: tuple[Array, ...]
    axis: int
    data: str
    output: str
    slot: str

    @property
    def parameters(self) -> int:
        return sum(a.size for a in self.arrays)


class Network:
    """A model file, ready to run with changed layers.

    Parameters
    ----------
    model : onnx.ModelProto
        May be changed.
    where : str
        The file, for errors.
    activations : bool
        Whether inputs of layers can be replaced; runs are faster when not.

    Raises
    ------
    MissingExtraError
        onnxruntime is not installed.
    ModelFileError
        onnxruntime cannot run the file, or it has no layer with weights.
    RequestError
        Weights are NaN or infinite; names the tensor.
    """

    def __init__(self, model: Any, where: str, *, activations: bool = True) -> None:
        self.where = where
        runtime = _runtime()
        model = _modern(model, where)
        self.inputs = _open_inputs(model)
        self.layers = _layers(model, where)
        if not self.layers:
            raise ModelFileError("no layer has weights", where)
        for layer in self.layers:
            for name, array in zip(layer.weights, layer.arrays):
                check_finite(array, f"{where}: {name}")
        self.outputs, self.squashed = _outputs(model, where)
        self.activations = activations
        _open(model, self.layers, self.outputs, activations)
        self._session = _session(model, where)
        self._path = runtime.RunOptions()
        self._path.only_execute_path_to_fetches = True
        self._path.log_severity_level = 4
        self.version = str(runtime.__version__)

    def run(
        self,
        feeds: Mapping[str, Array],
        weights: Mapping[str, Sequence[Array]] | None = None,
        data: Mapping[str, Array] | None = None,
        fetch: Sequence[str] | None = None,
    ) -> list[Array]:
        """Outputs (or the tensors of `fetch`) with the weights and data inputs of some layers replaced.

        Parameters
        ----------
        feeds : mapping
            The network's inputs.
        weights : mapping
            Arrays by name of layer.
        data : mapping
            Array that a layer reads instead of what arrives, by name of layer.
        """
        given = dict(feeds)
        slots = {layer.name: layer for layer in self.layers}
        for name, arrays in (weights or {}).items():
            layer = slots[name]
            given.update(
                {
                    f"{layer.slot}.weight{k}": np.asarray(a, dtype=layer.arrays[k].dtype)
                    for k, a in enumerate(arrays)
                }
            )
        for name, array in (data or {}).items():
            given[f"{slots[name].slot}.replace"] = np.array(True)
            given[f"{slots[name].slot}.data"] = array
        names = list(fetch or self.outputs)
        made = [name for name in names if name not in feeds]
        try:
            found = dict(zip(made, self._session.run(made, given, self._path))) if made else {}
        except _failures() as error:
            raise ModelFileError(f"onnxruntime cannot run it: {_first_line(error)}", self.where) from None
        return [np.asarray(found[name] if name in found else feeds[name]) for name in names]

    def check_feeds(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """Given inputs by name, as arrays of the right type.

        Raises
        ------
        RequestError
            A name is unknown or missing, or a shape does not fit.
        """
        unknown = sorted(set(feeds) - set(self.inputs))
        if unknown:
            raise RequestError(
                f"the model has no input '{unknown[0]}'", self.where, did_you_mean(unknown[0], self.inputs)
            )
        missing = sorted(set(self.inputs) - set(feeds))
        if missing:
            raise RequestError(f"input '{missing[0]}' is not given", self.where)
        arrays = {}
        for name, value in feeds.items():
            dtype, shape = self.inputs[name]
            array = np.asarray(value, dtype=dtype)
            fits = len(array.shape) == len(shape) and all(
                isinstance(want, str) or want == have for want, have in zip(shape, array.shape)
            )
            if not fits:
                raise RequestError(f"input '{name}' has shape {array.shape}, expected {shape}", self.where)
            arrays[name] = array
        return arrays


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "quant", "running a network layer by layer") from None
    return onnxruntime


def _failures() -> tuple[type[Exception], ...]:
    """What onnxruntime raises on a model or an input that it cannot take."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented")
    return (*(getattr(state, name) for name in names), state.RuntimeException)


def _session(model: Any, where: str) -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = THREADS
    try:
        raw = model.SerializeToString()
    except ValueError:
        raise ModelFileError("the model is larger than 2 GB", where) from None
    try:
        return runtime.InferenceSession(raw, options, providers=["CPUExecutionProvider"])
    except _failures() as error:
        raise ModelFileError(f"onnxruntime cannot load it: {_first_line(error)}", where) from None


def _modern(model: Any, where: str) -> Any:
    """The model in an operator set that has Where."""
    from onnx import version_converter

    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), LEAST_OPSET)
    if version >= LEAST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, LEAST_OPSET)
    except (RuntimeError, ValueError) as error:
        raise ModelFileError(f"operator set {version} is too old: {_first_line(error)}", where) from None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def _open_inputs(model: Any) -> dict[str, tuple[Any, tuple[int | str, ...]]]:
    """Type and shape of every input that has to be fed; open axes are names."""
    from onnx import helper

    held = {t.name for t in model.graph.initializer}
    found = {}
    for entry in model.graph.input:
        if entry.name not in held:
            tensor = entry.type.tensor_type
            shape = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param or f"{entry.name}.{k}"
                for k, d in enumerate(tensor.shape.dim)
            )
            found[entry.name] = (helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)
    return found


def _layers(model: Any, where: str) -> tuple[Layer, ...]:
    from onnx import numpy_helper

    constants = _constants(model, where)
    found: list[Layer] = []
    names: set[str] = set()
    for node in model.graph.node:
        entry = _LAYERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if entry is None:
            continue
        place, positions, axis = entry
        wanted = [node.input[p] for p in positions if p < len(node.input)]
        if node.op_type == "MatMul" and wanted[0] not in constants and node.input[0] in constants:
            place, positions, wanted, axis = 1, (0,), [node.input[0]], 0
        if not wanted or any(w not in constants for w in wanted) or node.input[place] in constants:
            continue
        arrays = tuple(numpy_helper.to_array(constants[w]) for w in wanted)
        if any(a.dtype.kind != "f" or a.ndim < 2 for a in arrays):
            continue
        if node.op_type == "Gemm":
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            axis = 0 if turned else 1
        name = node.name if node.name and node.name not in names else node.output[0]
        names.add(name)
        data = "" if node.op_type == "Gather" else node.input[place]
        slot = f"accelsim.{len(found)}"
        found.append(Layer(name, node.op_type, tuple(wanted), arrays, axis, data, node.output[0], slot))
    return tuple(found)


def _constants(model: Any, where: str) -> dict[str, Any]:
    """Initializers, constants, and weights that are computed from them alone (transposed, dequantised)."""
    from onnx import helper, numpy_helper

    known = {t.name: t for t in model.graph.initializer}
    computed: dict[str, Any] = {}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            known[node.output[0]] = node.attribute[0].t
        elif node.input and all(n in known or n in computed for n in node.input if n):
            computed.update(dict.fromkeys(node.output, node))
    wanted = [
        node.input[p]
        for node in model.graph.node
        if node.op_type in _LAYERS
        for p in _LAYERS[node.op_type][1]
        if p < len(node.input) and node.input[p] in computed
    ]
    if wanted:
        nodes = list(dict.fromkeys(id(n) for n in computed.values()))
        kept = [n for n in model.graph.node if id(n) in nodes or n.op_type == "Constant"]
        outputs = [helper.make_tensor_value_info(n, 1, None) for n in dict.fromkeys(wanted)]
        graph = helper.make_graph(kept, "weights", [], outputs, model.graph.initializer)
        version = max(model.ir_version, LEAST_IR)
        small = helper.make_model(graph, opset_imports=model.opset_import, ir_version=version)
        arrays = _session(small, where).run(None, {})
        for out, array in zip(outputs, arrays):
            known[out.name] = numpy_helper.from_array(array, out.name)
    return known


def _outputs(model: Any, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tensors to compare, and those outputs that are compared before a squashing node."""
    producer = {out: node for node in model.graph.node for out in node.output}
    found, squashed = [], []
    for entry in model.graph.output:
        name = entry.name
        node = producer.get(name)
        while node is not None and node.op_type in (*_SQUASHING, "Identity"):
            if node.op_type in _SQUASHING:
                squashed.append(entry.name)
            name = node.input[0]
            node = producer.get(name)
        if name != entry.name or entry.type.tensor_type.elem_type in _FLOATS:
            found.append(name)
    if not found:
        raise ModelFileError("no output is a floating-point tensor", where)
    return tuple(dict.fromkeys(found)), tuple(dict.fromkeys(squashed))


def _open(model: Any, layers: tuple[Layer, ...], outputs: Sequence[str], activations: bool) -> None:
    """Make weights and data inputs of layers replaceable, and what is compared an output."""
    from onnx import helper, numpy_helper

    graph = model.graph
    held = {layer.output: layer for layer in layers}
    nodes: list[Any] = []
    for node in graph.node:
        layer = held.get(node.output[0]) if node.output else None
        if layer is not None:
            for k, (name, array) in enumerate(zip(layer.weights, layer.arrays)):
                slot = f"{layer.slot}.weight{k}"
                tensor = numpy_helper.from_array(np.ascontiguousarray(array), slot)
                graph.initializer.append(tensor)
                graph.input.append(helper.make_tensor_value_info(slot, tensor.data_type, array.shape))
                for p, old in enumerate(node.input):
                    if old == name and p in (*_LAYERS[node.op_type][1], 0):
                        node.input[p] = slot
            if activations and layer.data:
                kind = helper.np_dtype_to_tensor_dtype(layer.arrays[0].dtype)
                flag, value = f"{layer.slot}.replace", f"{layer.slot}.data"
                graph.initializer.append(numpy_helper.from_array(np.array(False), flag))
                graph.initializer.append(numpy_helper.from_array(np.zeros((), layer.arrays[0].dtype), value))
                graph.input.append(helper.make_tensor_value_info(flag, 9, []))
                graph.input.append(helper.make_tensor_value_info(value, kind, None))
                read = f"{layer.slot}.read"
                nodes.append(helper.make_node("Where", [flag, value, layer.data], [read]))
                for p, old in enumerate(node.input):
                    if old == layer.data:
                        node.input[p] = read
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [t for t in graph.initializer if t.name in used or any(_subgraphs(n) for n in nodes)]
    gone = {t.name for t in graph.initializer} - {t.name for t in kept}
    inputs = [i for i in graph.input if i.name not in gone]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    graph.input.extend(inputs)
    known = {o.name for o in graph.output} | {i.name for i in graph.input}
    wanted = [*outputs, *(layer.data for layer in layers if layer.data and activations)]
    for name in dict.fromkeys(n for n in wanted if n not in known):
        kind = helper.np_dtype_to_tensor_dtype(layers[0].arrays[0].dtype)
        graph.output.append(helper.make_tensor_value_info(name, kind, None))
    model.ir_version = max(model.ir_version, LEAST_IR)


def _subgraphs(node: Any) -> bool:
    return any(a.HasField("g") or len(a.graphs) for a in node.attribute)


def open_model(path: str | Path) -> tuple[Any, str]:
    """Read an ONNX file with its weights.

    Raises
    ------
    MissingExtraError, ModelFileError
    """
    try:
        from onnx.external_data_helper import load_external_data_for_model
    except ImportError:
        raise MissingExtraError("onnx", "quant", "reading an ONNX file") from None
    from accelsim.workload.onnx import read_model

    model, where, folder = read_model(path)
    try:
        load_external_data_for_model(model, str(folder))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"its external data cannot be read: {_first_line(error)}", where) from None
    return model, where
