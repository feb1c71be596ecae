"""ONNX import: real files against an independent count, batch laws, control flow, quantisation, bad input."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.errors import (
    AccelsimError,
    GraphError,
    MissingExtraError,
    ModelFileError,
    RequestError,
    UnsupportedOpError,
)
from accelsim.core.precision import precision
from accelsim.workload.batching import compare_batches, mark_batch, unresolved
from accelsim.workload.graph import Graph, Op, Tensor
from accelsim.workload.load import load_workload

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from accelsim.workload.onnx import from_onnx  # noqa: E402

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
LIGHT = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / "light").glob("*.onnx"))
FP16 = precision("fp16")


def model(nodes: list[Any], inputs: dict[str, Any], outputs: list[str], **weights: Any) -> Any:
    """A model; inputs are shapes or (type, shape), weights are shapes or integer lists (constants)."""
    held = []
    for name, value in weights.items():
        if isinstance(value, list):
            held.append(helper.make_tensor(name, INT64, [len(value)], value))
        else:
            held.append(TensorProto(name=name, data_type=FLOAT, dims=value))  # sizes only: data is never read
    given_in = [
        helper.make_tensor_value_info(
            n, *(v if isinstance(v[0], int) and isinstance(v[-1], list) else (FLOAT, v))
        )
        for n, v in inputs.items()
    ]
    given_out = [helper.make_tensor_value_info(n, FLOAT, None) for n in outputs]
    graph = helper.make_graph(nodes, "net", given_in, given_out, held)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    )


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs.split(), outputs.split(), name=outputs.split()[0], **attributes)


def bytes_and_shapes(graph: Graph) -> list[Any]:
    return [
        (op.kind, op.bytes_compulsory, op.flops, *(t.shape for t in (*op.inputs, *op.outputs)))
        for op in graph
    ]


# -- real files ---------------------------------------------------------------------------------------------


def slow_macs(path: Path) -> int:
    """MACs of convolutions and Gemms by the shapes that onnx infers; weights are ConstantOfShape nodes."""
    proto = onnx.load(path)
    sizes = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    shape = {
        n.output[0]: tuple(sizes[n.input[0]]) for n in proto.graph.node if n.op_type == "ConstantOfShape"
    }
    shape |= {t.name: tuple(t.dims) for t in proto.graph.initializer if t.name not in shape}
    for info in onnx.shape_inference.infer_shapes(proto).graph.value_info:
        shape.setdefault(info.name, tuple(d.dim_value for d in info.type.tensor_type.shape.dim))
    for out in proto.graph.output:
        shape.setdefault(out.name, tuple(d.dim_value for d in out.type.tensor_type.shape.dim))
    total = 0
    for n in proto.graph.node:
        if n.op_type == "Conv":
            total += prod(shape[n.output[0]]) * prod(shape[n.input[1]][1:])
        elif n.op_type == "Gemm":
            weight = shape[n.input[1]]
            transposed = any(a.name == "transB" and a.i for a in n.attribute)
            total += prod(shape[n.output[0]]) * weight[1 if transposed else 0]
    return total


@pytest.mark.parametrize("path", LIGHT, ids=lambda p: p.stem)
def test_zoo_models_are_covered_counted_and_scale(path: Path) -> None:
    graph = from_onnx(path)
    assert graph.coverage().flops_covered_pct == pytest.approx(100)
    assert graph.coverage().unsupported == []
    assert graph.macs == slow_macs(path)
    eight = graph.with_batch(8)
    assert eight.flops == 8 * graph.flops
    assert eight.parameters == graph.parameters
    assert eight.outputs[0].shape[0] == 8


def test_zoo_has_nine_models() -> None:
    assert len(LIGHT) == 9


# MACs as published with the architectures; parameters as in the papers' tables, biases included.
@pytest.mark.parametrize(
    ("name", "gmac", "parameters"),
    [
        ("light_resnet50", 4.089, 25_557_032),
        ("light_vgg19", 19.632, 143_667_240),
        ("light_squeezenet", 0.349, 1_235_496),
    ],
)
def test_zoo_models_match_published_sizes(name: str, gmac: float, parameters: int) -> None:
    graph = from_onnx(next(p for p in LIGHT if p.stem == name))
    assert graph.macs / 1e9 == pytest.approx(gmac, rel=1e-3)
    assert graph.parameters == parameters


def qonnx_files(pattern: str) -> list[Path]:
    qonnx = pytest.importorskip("qonnx", reason="the package qonnx is not installed")
    return sorted((Path(qonnx.__path__[0]) / "data" / "onnx").glob(pattern))


def test_espcn_imports_quantised_and_float() -> None:
    files = qonnx_files("bsd300x3-espcn/**/*.onnx")
    assert len(files) == 4
    for path in files:
        graph = from_onnx(path)
        assert graph.coverage().unsupported == []
        assert graph.with_batch(8).flops == 8 * graph.flops
    quantised, plain = (
        from_onnx(next(p for p in files if p.parts[-2:] == ("nn_resize", name)))
        for name in ("quant_model.onnx", "float_model.onnx")
    )
    assert quantised.macs == plain.macs == 1_041_235_968
    assert {op.inputs[1].precision.name for op in quantised if op.kind == "conv"} <= {"int4", "int8"}
    assert all(t.precision.name == "fp32" for op in plain for t in op.inputs)
    assert quantised.weight_bytes < plain.weight_bytes / 3


# -- batch --------------------------------------------------------------------------------------------------


def cnn(batch: Any = "batch") -> Any:
    """Convolution, pooling and a flatten whose target is computed from the input's shape."""
    return model(
        [
            node("Conv", "x w1 b1", "c1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", "c1", "r1"),
            node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
            node("Shape", "r1", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Concat", "n rest", "target", axis=0),
            node("Reshape", "p1 target", "flat"),
            node("Gemm", "flat w2 b2", "y", transB=1),
        ],
        {"x": [batch, 3, 8, 8]},
        ["y"],
        w1=(16, 3, 3, 3),
        b1=(16,),
        w2=(10, 256),
        b2=(10,),
        zero=[0],
        rest=[-1],
    )


def vision_transformer(batch: Any = "batch") -> Any:
    """Patches, a class token expanded to the batch, one attention head pair, a reshape that merges tokens."""
    return model(
        [
            node("Conv", "x wp", "p", kernel_shape=[4, 4], strides=[4, 4]),
            node("Reshape", "p tokens", "f"),
            node("Transpose", "f", "t", perm=[0, 2, 1]),
            node("Shape", "t", "s"),
            node("Gather", "s zero", "n", axis=0),
            node("Concat", "n ones", "wide", axis=0),
            node("Expand", "cls wide", "c"),
            node("Concat", "c t", "z", axis=1),
            node("Add", "z pos", "e"),
            node("LayerNormalization", "e g h", "l", axis=-1),
            node("MatMul", "l wq", "q"),
            node("Reshape", "q heads", "qh"),
            node("Transpose", "qh", "qt", perm=[0, 2, 1, 3]),
            node("Transpose", "qh", "kt", perm=[0, 2, 3, 1]),
            node("MatMul", "qt kt", "a"),
            node("Softmax", "a", "am", axis=-1),
            node("MatMul", "am qt", "o"),
            node("Transpose", "o", "ot", perm=[0, 2, 1, 3]),
            node("Reshape", "ot merged", "om"),
            node("Einsum", "om wo", "y", equation="nd,de->ne"),
        ],
        {"x": [batch, 3, 16, 16]},
        ["y"],
        wp=(32, 3, 4, 4),
        cls=(1, 1, 32),
        pos=(1, 17, 32),
        g=(32,),
        h=(32,),
        wq=(32, 32),
        wo=(32, 8),
        tokens=[0, 32, -1],
        zero=[0],
        ones=[1, 32],
        heads=[0, 17, 2, 16],
        merged=[-1, 32],
    )


def recurrent(batch: Any = "batch") -> Any:
    return model(
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("LSTM", "t w r b", "y h", hidden_size=12, direction="bidirectional"),
            node("ReduceMean", "y", "m", axes=[0], keepdims=0),
        ],
        {"x": [batch, 6, 5]},
        ["m", "h"],
        w=(2, 48, 5),
        r=(2, 48, 12),
        b=(2, 96),
    )


@pytest.mark.parametrize("net", [cnn, vision_transformer, recurrent])
def test_scaling_equals_importing_at_that_batch(net: Any) -> None:
    one, four = from_onnx(net()), from_onnx(net(), dims={"batch": 4})
    assert (one.batch, four.batch) == (1, 4)
    assert one.coverage().unsupported == []
    scaled = one.with_batch(4)
    assert scaled.flops == four.flops == 4 * one.flops
    assert bytes_and_shapes(scaled) == bytes_and_shapes(four)
    assert bytes_and_shapes(four.with_batch(1)) == bytes_and_shapes(one)
    assert scaled.hash == four.hash


@pytest.mark.parametrize("net", [cnn, vision_transformer, recurrent])
@pytest.mark.parametrize("batch", [1, 3])
def test_rules_find_the_axes_that_comparing_finds(net: Any, batch: int) -> None:
    graph = from_onnx(net(), dims={"batch": batch})
    bare = graph.map_tensors(lambda t: Tensor(t.name, t.shape, t.precision, t.role))
    marked = mark_batch(bare.ops, graph.inputs)
    assert unresolved(marked) == ""
    assert [o.outputs for o in marked] == [o.outputs for o in graph]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_reshape_follows_the_batch(data: st.DataObject) -> None:
    """Merging neighbouring axes puts the batch into the merged axis; splitting them again brings it back."""
    shape = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=5))
    axis = data.draw(st.integers(0, len(shape) - 1))
    cuts = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    groups: list[list[int]] = []
    for i, cut in enumerate(cuts):
        if cut or not groups:
            groups.append([])
        groups[-1].append(i)
    merged = tuple(prod(shape[i] for i in g) for g in groups)
    x = Tensor("x", tuple(shape), FP16, batch_axis=axis)
    y, z = Tensor("y", merged, FP16), Tensor("z", tuple(shape), FP16)
    ops = mark_batch([Op("m", "reshape", (x,), (y,)), Op("s", "reshape", (y,), (z,))], [x])
    assert ops[0].outputs[0].batch_axis == next(k for k, g in enumerate(groups) if axis in g)
    leading = groups[ops[0].outputs[0].batch_axis or 0][0]
    assert ops[1].outputs[0].batch_axis is not None or leading != axis


def test_comparing_refuses_a_tensor_that_grows_twice() -> None:
    def square(n: int) -> list[Op]:
        x = Tensor("x", (n, 8), FP16)
        return [Op("gram", "matmul", (x, x), (Tensor("y", (n, n), FP16),), {"transpose_b": True})]

    with pytest.raises(GraphError, match="grows from"):
        compare_batches(square(2), square(4))


def test_a_batch_that_attends_to_itself_cannot_be_scaled_but_runs() -> None:
    net = model([node("Transpose", "x", "t", perm=[1, 0]), node("MatMul", "x t", "y")], {"x": [4, 8]}, ["y"])
    graph = from_onnx(net)
    assert graph.flops == 2 * 4 * 8 * 4
    assert "batch" in graph.metadata["batch_note"]
    with pytest.raises(GraphError, match="batch"):
        graph.with_batch(8)


def test_fixed_batch_is_the_graphs_batch() -> None:
    graph = from_onnx(cnn(2))
    assert graph.batch == 2
    assert graph.with_batch(1).hash == from_onnx(cnn()).hash
    assert from_onnx(cnn(2), dims={"batch": 6}).hash == from_onnx(cnn(), dims={"batch": 6}).hash


@pytest.mark.parametrize("name", ["N", "batch_size", "unk__12", None])
def test_batch_is_recognised_by_name(name: str | None) -> None:
    assert from_onnx(cnn(name)).hash == from_onnx(cnn()).hash
    assert from_onnx(cnn(name), dims={"batch": 3}).batch == 3


# -- operators -----------------------------------------------------------------------------------------------


def test_gemm_einsum_and_matmul_agree_with_the_closed_form() -> None:
    nets = (
        model([node("Gemm", "x w", "y", transB=1)], {"x": ["N", 24]}, ["y"], w=(40, 24)),
        model([node("MatMul", "x w", "y")], {"x": ["N", 24]}, ["y"], w=(24, 40)),
        model([node("Einsum", "x w", "y", equation="bi,oi->bo")], {"x": ["N", 24]}, ["y"], w=(40, 24)),
    )
    for net in nets:
        graph = from_onnx(net, dims={"N": 5})
        assert graph.macs == 5 * 24 * 40
        assert graph.parameters == 24 * 40
        assert graph.outputs[0].shape == (5, 40)


def test_einsum_with_permuted_operands_is_a_batched_product() -> None:
    net = model(
        [node("Einsum", "q k", "s", equation="bthd,bshd->bhts")],
        {"q": ["N", 7, 3, 16], "k": ["N", 9, 3, 16]},
        ["s"],
    )
    graph = from_onnx(net, dims={"N": 2})
    assert graph.macs == 2 * 3 * 7 * 9 * 16
    assert graph.outputs[0].shape == (2, 3, 7, 9)
    assert graph.with_batch(4).flops == 2 * graph.flops


def test_lstm_counts_both_products_of_every_step() -> None:
    graph = from_onnx(recurrent(), dims={"batch": 3})
    t, b, i, h, directions = 6, 3, 5, 12, 2
    assert graph.macs == directions * t * b * 4 * h * (i + h)
    assert graph.parameters == directions * (4 * h * (i + h) + 8 * h)


def test_attention_of_opset_23() -> None:
    net = model(
        [node("Attention", "q k v", "y", q_num_heads=4, kv_num_heads=2)],
        {"q": ["N", 10, 64], "k": ["N", 12, 32], "v": ["N", 12, 32]},
        ["y"],
    )
    net.opset_import[0].version = 23
    graph = from_onnx(net)
    assert graph.macs == 2 * 4 * 10 * 12 * 16
    assert graph.outputs[0].shape == (1, 10, 64)


def test_weights_are_float_initializers_and_statistics_are_constants() -> None:
    net = model(
        [node("BatchNormalization", "x g b m v", "y")],
        {"x": ["N", 8, 4, 4]},
        ["y"],
        g=(8,),
        b=(8,),
        m=(8,),
        v=(8,),
    )
    graph = from_onnx(net)
    assert graph.parameters == 16
    assert [t.role for t in graph["y"].inputs] == ["activation", "weight", "weight", "constant", "constant"]


def test_a_reshaped_weight_stays_one_weight() -> None:
    net = model(
        [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t", "h"), node("MatMul", "h w", "y")],
        {"x": ["N", 24]},
        ["y"],
        w=(40, 24),
    )
    graph = from_onnx(net)
    assert [op.kind for op in graph] == ["matmul", "matmul"]
    assert graph.parameters == 40 * 24


def test_quantised_weights_and_activations_carry_their_bits() -> None:
    weights = TensorProto(name="w", data_type=TensorProto.INT8, dims=(16, 3, 3, 3))
    held = [
        weights,
        helper.make_tensor("s", FLOAT, [], [0.1]),
        helper.make_tensor("z", TensorProto.INT8, [], [0]),
    ]
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w s z", "wd"),
        node("Conv", "d wd", "y", kernel_shape=[3, 3]),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        held,
    )
    found = from_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert [op.kind for op in found] == ["quantize", "conv"]
    assert [t.precision.name for t in found["y"].inputs] == ["int8", "int8"]
    assert found.parameters == 16 * 27
    assert found.weight_bytes == 16 * 27


@pytest.mark.parametrize(
    ("bits", "name"), [(1, "int1"), (2, "int2"), (3, "int4"), (4, "int4"), (7, "int8"), (8, "int8")]
)
def test_qonnx_quantisers_set_the_precision(bits: int, name: str) -> None:
    scalar = [helper.make_tensor(n, FLOAT, [], [v]) for n, v in (("s", 0.1), ("z", 0.0), ("b", float(bits)))]
    weights = TensorProto(name="w", data_type=FLOAT, dims=(24, 40))
    quant = "qonnx.custom_op.general"
    nodes = [
        helper.make_node("Quant", ["x", "s", "z", "b"], ["q"], "q", domain=quant, signed=1, narrow=0),
        helper.make_node("Quant", ["w", "s", "z", "b"], ["wq"], "wq", domain=quant, signed=1, narrow=1),
        node("MatMul", "q wq", "y"),
    ]
    graph = helper.make_graph(
        nodes,
        "quant",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 24])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [*scalar, weights],
    )
    found = from_onnx(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(quant, 1)])
    )
    assert [op.kind for op in found] == ["quantize", "matmul"]
    assert {t.precision.name for t in found["y"].inputs} == {name}
    assert found.weight_bytes == 24 * 40 * precision(name).bits / 8


# -- control flow --------------------------------------------------------------------------------------------


def value(name: str, dtype: int = FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def test_if_takes_the_more_expensive_branch_and_says_so() -> None:
    small = helper.make_graph([node("Relu", "x", "a")], "small", [], [value("a")])
    large = helper.make_graph([node("MatMul", "x w", "b")], "large", [], [value("b")])
    branch = helper.make_node("If", ["c"], ["y"], "choice", then_branch=small, else_branch=large)
    net = model([branch], {"c": (TensorProto.BOOL, []), "x": ["N", 24]}, ["y"], w=(24, 24))
    graph = from_onnx(net)
    assert graph.macs == 24 * 24
    assert "choice" in graph["b"].approximated
    assert graph.coverage().flops_covered_pct == 0


def test_loop_repeats_its_body() -> None:
    body = helper.make_graph(
        [node("MatMul", "h w", "h2"), node("Identity", "k", "k2")],
        "body",
        [value("i", INT64, []), value("k", TensorProto.BOOL, []), value("h")],
        [value("k2", TensorProto.BOOL, []), value("h2")],
    )
    net = model(
        [helper.make_node("Loop", ["trips", "", "x"], ["y"], "loop", body=body), node("Relu", "y", "z")],
        {"x": ["N", 24]},
        ["z"],
        trips=[5],
        w=(24, 24),
    )
    graph = from_onnx(net)
    assert graph["h2"].repeat == 5
    assert graph.macs == 5 * 24 * 24
    assert graph.parameters == 24 * 24  # the same weight every time
    assert graph.with_batch(3).macs == 3 * graph.macs


def test_scan_steps_over_the_sequence() -> None:
    body = helper.make_graph(
        [node("MatMul", "step w", "p"), node("Add", "p h", "h2"), node("Identity", "h2", "out")],
        "body",
        [value("h"), value("step")],
        [value("h2"), value("out")],
    )
    net = model(
        [helper.make_node("Scan", ["h0", "x"], ["last", "all"], "scan", body=body, num_scan_inputs=1)],
        {"h0": ["N", 8], "x": [6, "N", 8]},
        ["last", "all"],
        w=(8, 8),
    )
    graph = from_onnx(net, dims={"N": 2})
    assert graph.macs == 6 * 2 * 8 * 8
    assert (6, 2, 8) in [t.shape for op in graph for t in op.outputs]


def test_a_loop_without_a_trip_count_is_refused() -> None:
    body = helper.make_graph(
        [node("Relu", "h", "h2"), node("Identity", "k", "k2")],
        "body",
        [value("i", INT64, []), value("k", TensorProto.BOOL, []), value("h")],
        [value("k2", TensorProto.BOOL, []), value("h2")],
    )
    net = model(
        [helper.make_node("Loop", ["m", "", "x"], ["y"], "loop", body=body)],
        {"m": (INT64, []), "x": ["N", 8]},
        ["y"],
    )
    one_line(UnsupportedOpError, lambda: from_onnx(net), "loop", "depends on the data")


# -- bad input -----------------------------------------------------------------------------------------------


def one_line(kind: type[AccelsimError], call: Any, *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    assert caught.value.__cause__ is None


def test_unreadable_files(tmp_path: Path) -> None:
    raw = cnn().SerializeToString()
    for name, content in (("empty", b""), ("text", b"not a model at all"), ("cut", raw[: len(raw) // 2])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        one_line(ModelFileError, lambda path=path: from_onnx(path), path.name)
        one_line(ModelFileError, lambda path=path: load_workload(path), path.name)
    one_line(ModelFileError, lambda: from_onnx(tmp_path), "folder")
    one_line(ModelFileError, lambda: from_onnx(tmp_path / "none.onnx"), "none.onnx")


def test_load_workload_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(cnn().SerializeToString())
    graph = load_workload(path, dims={"batch": 2})
    assert (graph.name, graph.batch) == ("net", 2)


def test_external_weights_need_not_be_there(tmp_path: Path) -> None:
    net = cnn()
    for tensor in net.graph.initializer:
        if tensor.data_type == FLOAT:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="weights.bin")
    path = tmp_path / "net.onnx"
    path.write_bytes(net.SerializeToString())
    assert from_onnx(path).hash == from_onnx(cnn()).hash


def test_open_dimensions_are_named() -> None:
    net = model([node("MatMul", "x w", "y")], {"x": ["N", "tokens", 24]}, ["y"], w=(24, 8))
    one_line(ModelFileError, lambda: from_onnx(net), "'tokens'", "'x'", "--dim tokens=SIZE")
    assert from_onnx(net, dims={"tokens": 7}).macs == 7 * 24 * 8
    unnamed = model([node("Relu", "x", "y")], {"x": ["N", None]}, ["y"])
    one_line(ModelFileError, lambda: from_onnx(unnamed), "--dim x.1=SIZE")
    assert from_onnx(unnamed, dims={"x.1": 3}).outputs[0].shape == (1, 3)


@pytest.mark.parametrize("dims", [{"token": 3}, {"N": 0}, {"N": -1}, {"N": 2.5}, {"N": True}])
def test_bad_dims(dims: dict[str, Any]) -> None:
    one_line(RequestError, lambda: from_onnx(cnn("N"), dims=dims), next(iter(dims)))


@pytest.mark.parametrize("size", [0, -3])
def test_sizes_must_be_positive(size: int) -> None:
    one_line(ModelFileError, lambda: from_onnx(cnn(size)), f"size {size}", "'x'")


def test_a_cycle_is_named() -> None:
    net = model([node("Add", "x b", "a"), node("Relu", "a", "b")], {"x": ["N", 8]}, ["b"])
    one_line(GraphError, lambda: from_onnx(net), "cycle", "a")


def test_a_missing_producer_is_named() -> None:
    one_line(
        GraphError, lambda: from_onnx(model([node("Relu", "lost", "y")], {"x": ["N", 8]}, ["y"])), "lost"
    )


def test_shapes_that_do_not_fit() -> None:
    net = model([node("MatMul", "x w", "y")], {"x": ["N", 24]}, ["y"], w=(25, 8))
    one_line(GraphError, lambda: from_onnx(net), "MatMul")


def test_unknown_operators() -> None:
    strange = helper.make_node("Strange", ["x"], ["y"], "odd", domain="own")
    net = model([strange, node("Relu", "y", "z")], {"x": ["N", 8]}, ["z"])
    one_line(UnsupportedOpError, lambda: from_onnx(net), "odd", "Strange", "own")
    net.graph.value_info.append(value("y", FLOAT, ["N", 8]))
    graph = from_onnx(net)
    assert graph["odd"].kind == "generic"
    assert "Strange" in graph["odd"].approximated
    assert graph.with_batch(4)["odd"].outputs[0].shape == (4, 8)


def test_shapes_from_data_are_refused() -> None:
    net = model([node("NonZero", "x", "i"), node("Cast", "i", "y", to=FLOAT)], {"x": ["N", 8]}, ["y"])
    one_line(UnsupportedOpError, lambda: from_onnx(net), "NonZero", "depends on the data")


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    one_line(MissingExtraError, lambda: from_onnx("net.onnx"), "accelsim-dse[onnx]")
