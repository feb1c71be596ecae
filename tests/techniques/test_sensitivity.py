"""Sensitivity of real trained networks, against full integer quantisation by onnxruntime."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import accelsim as ax
from accelsim.core.errors import MissingExtraError, ModelFileError, RequestError, UnknownNameError
from accelsim.techniques.numerics import fake_quantise
from tests.techniques.networks import magika, minilm, orientation, write_encoder, write_two_layers

pytest.importorskip("onnx", reason="the extra quant is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra quant is not installed")


def fully_quantised(path: Path, layer: str, feeds: dict[str, np.ndarray]) -> float:
    """Relative output error when one layer runs as integers: QuantizeLinear and DequantizeLinear on what it
    reads, int8 weights with one scale per output channel, by onnxruntime alone.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    held = {t.name: t for t in model.graph.initializer}
    target = next(n for n in model.graph.node if n.name == layer)
    last = model.graph.node[-1]
    output = last.input[0] if last.op_type == "Softmax" else last.output[0]
    if output != last.output[0]:
        model.graph.output.append(helper.make_tensor_value_info(output, 1, None))
    if target.input[0] not in feeds and target.op_type != "Gather":
        model.graph.output.append(helper.make_tensor_value_info(target.input[0], 1, None))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    plain = ort.InferenceSession(model.SerializeToString(), options)
    wanted = plain.run([output], feeds)[0]

    table = 0 if target.op_type == "Gather" else 1
    axis = {"Conv": 0, "MatMul": 1, "Gather": 0}[target.op_type]
    w = numpy_helper.to_array(held[target.input[table]])
    others = tuple(k for k in range(w.ndim) if k != axis)
    scale = (np.abs(w).max(axis=others) / 127).astype(np.float32)
    scale[scale == 0] = 1
    shape = [-1 if k == axis else 1 for k in range(w.ndim)]
    codes = np.clip(np.rint(w / scale.reshape(shape)), -127, 127).astype(np.int8)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(codes, "q.w"),
            numpy_helper.from_array(scale, "q.s"),
            numpy_helper.from_array(np.zeros(scale.size, np.int8), "q.z"),
        ]
    )
    fresh = [helper.make_node("DequantizeLinear", ["q.w", "q.s", "q.z"], ["q.weight"], axis=axis)]
    if target.op_type != "Gather":
        name = target.input[0]
        x = feeds[name] if name in feeds else plain.run([name], feeds)[0]
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        step = (high - low) / 255 or 1.0
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(np.float32(step), "q.xs"),
                numpy_helper.from_array(np.uint8(round(-low / step)), "q.xz"),
            ]
        )
        fresh += [
            helper.make_node("QuantizeLinear", [name, "q.xs", "q.xz"], ["q.x8"]),
            helper.make_node("DequantizeLinear", ["q.x8", "q.xs", "q.xz"], ["q.x"]),
        ]
        target.input[0] = "q.x"
    target.input[table] = "q.weight"
    nodes = list(model.graph.node)
    place = next(k for k, n in enumerate(nodes) if n.name == layer)
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *fresh, *nodes[place:]])
    found = ort.InferenceSession(model.SerializeToString(), options).run([output], feeds)[0]
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def spearman(a: dict[str, float], b: dict[str, float]) -> float:
    return float(pd.Series(a).rank().corr(pd.Series(b).rank()))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "minilm.onnx")


def test_a_convolutional_network_is_ranked_as_full_quantisation_ranks_it():
    path = orientation()
    s = ax.sensitivity(path, "int8", samples=2, seed=0)
    assert len(s.frame) == 33
    x = np.random.default_rng(99).standard_normal((2, 3, 224, 224)).astype(np.float32)
    truth = {layer: fully_quantised(path, layer, {"x": x}) for layer in s.errors()}
    assert spearman(s.errors(), truth) >= 0.9
    assert set(s.ranking()[:3]) & set(sorted(truth, key=truth.get)[-5:])


def test_an_encoder_is_ranked_as_full_quantisation_ranks_it(encoder):
    s = ax.sensitivity(encoder, "int8", samples=4, seed=0)
    assert s.frame.parameters.sum() == 22_348_800 - (512 - 0) * 384 + 0 or s.frame.parameters.sum() > 22_000_000
    tokens = np.random.default_rng(99).integers(0, 30522, (4, 16))
    truth = {layer: fully_quantised(encoder, layer, {"tokens": tokens}) for layer in s.errors()}
    assert spearman(s.errors(), truth) >= 0.9
