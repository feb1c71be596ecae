"""Sensitivity of real trained networks, against full integer quantisation by onnxruntime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import accelsim as ax
from accelsim.core.errors import MissingExtraError, ModelFileError, RequestError, UnknownNameError
from accelsim.techniques.numerics import fake_quantise
from accelsim.techniques.safetensors import floating_tensors
from tests.techniques.networks import (
    VOCABULARY,
    magika,
    minilm,
    orientation,
    write_encoder,
    write_two_layers,
)

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
    options.intra_op_num_threads = 1
    # Fused integer kernels saturate sums of 16 bits on some processors; the formats do not.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
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
    return write_encoder(tmp_path_factory.mktemp("encoder") / "minilm.onnx", layers=2)


def test_a_convolutional_network_is_ranked_as_full_quantisation_ranks_it():
    path = orientation()
    every_third = [f"Conv.{i}" for i in range(0, 32, 3)] + ["MatMul.0"]
    x = np.random.default_rng(7).standard_normal((2, 3, 224, 224)).astype(np.float32)
    s = ax.sensitivity(path, "int8", inputs={"x": x}, layers=every_third)
    truth = {layer: fully_quantised(path, layer, {"x": x}) for layer in every_third}
    assert spearman(s.errors(), truth) >= 0.95
    assert s.ranking()[0] == max(truth, key=truth.get)
    assert all(s.errors()[n] == pytest.approx(truth[n], rel=0.35) for n in every_third)


def test_an_encoder_is_ranked_as_full_quantisation_ranks_it(encoder):
    tokens = np.random.default_rng(7).integers(0, VOCABULARY, (8, 16))
    s = ax.sensitivity(encoder, "int8", inputs={"tokens": tokens})
    assert len(s.frame) == 13
    truth = {layer: fully_quantised(encoder, layer, {"tokens": tokens}) for layer in s.errors()}
    assert spearman(s.errors(), truth) >= 0.95
    assert s.ranking()[0] == max(truth, key=truth.get)
    noise = {row["layer"]: -row["sqnr_db"] for row in s.rows}
    assert spearman(noise, truth) < 0.9, "the noise of weights alone ranks worse"


@pytest.mark.slow
def test_whole_networks_are_ranked_alike_on_other_inputs(tmp_path):
    rng = np.random.default_rng(99)
    sentences = {"tokens": rng.integers(0, VOCABULARY, (32, 16))}
    images = {"x": rng.standard_normal((6, 3, 224, 224)).astype(np.float32)}
    encoder = write_encoder(tmp_path / "minilm.onnx")
    for path, feeds, samples in ((encoder, sentences, 32), (orientation(), images, 6)):
        s = ax.sensitivity(path, "int8", samples=samples, seed=0)
        truth = {layer: fully_quantised(path, layer, feeds) for layer in s.errors()}
        assert spearman(s.errors(), truth) >= 0.85


def test_errors_of_a_linear_network_are_closed_forms(tmp_path):
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 48), (48, 32)))
    x = rng.standard_normal((500, 64)).astype(np.float32)
    path = write_two_layers(tmp_path / "two.onnx", first=a, second=b)
    s = ax.sensitivity(path, ["weight=int4", "fp8"], inputs={"x": x})
    y = x @ a @ b

    def relative(changed):
        return np.linalg.norm(changed - y) / np.linalg.norm(y)

    a4, b4 = (fake_quantise(w, "int4", axis=1) for w in (a, b))
    errors = s.errors("weight=int4")
    assert errors["first"] == pytest.approx(relative(x @ a4 @ b), rel=1e-3)
    assert errors["second"] == pytest.approx(relative(x @ a @ b4), rel=1e-3)
    assert s.error("weight=int4") == pytest.approx(relative(x @ a4 @ b4), rel=1e-3)
    a8, b8, x8 = fake_quantise(a, "fp8", axis=1), fake_quantise(b, "fp8", axis=1), fake_quantise(x, "fp8")
    h8 = fake_quantise(x8 @ a8, "fp8")
    assert s.errors("fp8")["first"] == pytest.approx(relative(x8 @ a8 @ b), rel=1e-3)
    assert s.error("fp8") == pytest.approx(relative(h8 @ b8), rel=0.02)
    mixed = s.error({"first": "weight=int4", "second": "fp8"})
    assert mixed == pytest.approx(relative(fake_quantise(x @ a4, "fp8") @ b8), rel=0.02)


def test_sensitivity_repeats_and_says_how_it_was_measured(encoder):
    first, second = (ax.sensitivity(encoder, ["int8", "weight=mxfp4"], samples=2, seed=5) for _ in range(2))
    assert first.frame.equals(second.frame)
    assert first.provenance == second.provenance
    assert any(f"uniform integers below {VOCABULARY}" in note and "seed 5" in note for note in first.notes)
    assert any("one layer quantised at a time" in note for note in first.notes)
    assert any("zero point per tensor" in note for note in first.notes)
    assert first.formats == ("int8", "weight=mxfp4,activation=fp32")
    int8, mxfp4 = (first.errors(f) for f in ("int8", "weight=mxfp4"))
    assert sum(mxfp4.values()) > sum(int8.values())
    assert "13 layers" in repr(first)


def test_layers_that_are_named_are_measured_alone():
    path = magika()
    s = ax.sensitivity(path, "int8", samples=1)
    assert sorted(s.frame.kind) == ["Conv", "MatMul", "MatMul"]
    assert s.frame.parameters.sum() == 257 * 64 + 512 * 256 * 5 + 512 * 214
    dense = next(n for n in s.ranking() if "Dense_1" in n)
    alone = ax.sensitivity(path, "int8", samples=1, layers=[dense])
    assert alone.errors() == {dense: s.errors()[dense]}
    with pytest.raises(UnknownNameError, match="no layer 'Dense_1'"):
        ax.sensitivity(path, "int8", samples=1, layers=["Dense_1"])


def test_safetensors_give_noise_of_weights_and_say_that_nothing_ran():
    s = ax.sensitivity(minilm(), ["int8", "weight=int4"], granularity="channel")
    int8 = s.frame[s.frame.precision == "int8"]
    assert int8.parameters.sum() == 22_713_216 - 6 * 4992 - 768 - 384
    assert s.frame.output_error.isna().all()
    assert any("weights only" in note for note in s.notes)
    assert any("left out" in note for note in s.notes)
    assert 36 < int8.sqnr_db.median() < 44
    gap = int8.sqnr_db.median() - s.frame[s.frame.precision != "int8"].sqnr_db.median()
    assert gap == pytest.approx(20 * np.log10(127 / 7), abs=1.0), "each bit is worth 6 dB"
    with pytest.raises(RequestError, match="needs a network that runs"):
        s.error("int8")


def test_safetensors_reader_equals_the_package(tmp_path):
    torch_free = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    held = {"a.weight": rng.standard_normal((7, 5)).astype(np.float32), "b": rng.standard_normal(3)}
    held["h"] = held["a.weight"].astype(np.float16)
    held["ids"] = np.arange(4)
    path = tmp_path / "t.safetensors"
    torch_free.save_file(held, path)
    found = dict(floating_tensors(path))
    assert set(found) == {"a.weight", "b", "h"}
    assert all(np.array_equal(found[k], held[k].astype(np.float32)) for k in found)


def broken(tmp_path: Path, value: float) -> Path:
    a = np.ones((4, 4), np.float32)
    a[1, 2] = value
    return write_two_layers(tmp_path / "two.onnx", first=np.eye(4, dtype=np.float32), second=a)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_weights_that_are_no_numbers_are_named(tmp_path, value, word):
    with pytest.raises(RequestError, match=rf"two\.onnx: B: 1 of 16 values are {word}"):
        ax.sensitivity(broken(tmp_path, value))
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "w.safetensors"
    safetensors.save_file({"fc.weight": np.full((2, 2), value, np.float32)}, path)
    with pytest.raises(RequestError, match=rf"fc\.weight: 4 of 4 values are {word}"):
        ax.sensitivity(path)


def test_wrong_files_and_requests_are_one_line(tmp_path):
    good = broken(tmp_path, 1.0)
    for name, contents, text in [
        ("a.safetensors", b"", "empty"),
        ("b.safetensors", b"x" * 100, "not a safetensors file"),
        ("c.onnx", b"hello", "not an ONNX file"),
        ("d.bin", b"hello", "expected an .onnx or a .safetensors file"),
    ]:
        path = tmp_path / name
        path.write_bytes(contents)
        with pytest.raises(ModelFileError, match=text):
            ax.sensitivity(path)
    with pytest.raises(ModelFileError, match="no such file"):
        ax.sensitivity(tmp_path / "none.onnx")
    with pytest.raises(ModelFileError, match="folder"):
        ax.sensitivity(tmp_path)
    with pytest.raises(UnknownNameError, match="'int7'; did you mean int"):
        ax.sensitivity(good, "int7")
    with pytest.raises(RequestError, match="role 'wieght'; did you mean weight"):
        ax.sensitivity(good, "wieght=int4")
    with pytest.raises(RequestError, match="samples 0"):
        ax.sensitivity(good, samples=0)
    with pytest.raises(RequestError, match="granularity 'row'"):
        ax.sensitivity(good, granularity="row")
    with pytest.raises(RequestError, match="the model has no input 'y'"):
        ax.sensitivity(good, inputs={"y": np.ones((1, 4))})
    with pytest.raises(RequestError, match=r"input 'x' has shape \(1, 5\)"):
        ax.sensitivity(good, inputs={"x": np.ones((1, 5))})
    with pytest.raises(RequestError, match="fp8_e4m3 was not measured"):
        ax.sensitivity(good, "int8").ranking("fp8")


def test_a_missing_package_names_its_extra(tmp_path, monkeypatch):
    path = broken(tmp_path, 1.0)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime'; install it with: pip install .*\[quant\]"):
        ax.sensitivity(path)
