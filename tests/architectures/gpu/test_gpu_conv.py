"""Convolutions: closed forms of the rows, algorithms, laws, the fast path against graphs, measured layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.base import BOUNDS, Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.architectures.gpu import conv as C
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.conv_table import conv_rows
from accelsim.architectures.single import predict_by_graph
from accelsim.core.precision import plan
from accelsim.hardware.spec import load_hardware
from accelsim.workload.builders.layers import GraphBuilder

SHEET = Path(__file__).parents[4] / "shared" / "measurements" / "deepbench" / "DeepBench_NV_V100.xlsx"
V100 = load_hardware("v100-sxm")
STACKS = ["eager", "graph", "tensorrt"]


def table(**columns):
    base = dict.fromkeys(("batch", "stride", "groups"), 1) | {"padding": 0}
    names = ("c_in", "c_out", "kernel_h", "kernel_w", "h", "w", "batch", "stride", "padding", "groups")
    shapes = {name: np.atleast_1d(np.asarray((base | columns)[name], dtype=float)) for name in names}
    count = max(map(len, shapes.values()))
    return {name: np.broadcast_to(values, count).copy() for name, values in shapes.items()}


def rows(formats="fp16", device=V100, stack="graph", **columns):
    layers = C.layers_of(table(**columns), plan(formats), device, True, 1)
    return layers, C.kernels_of(layers, C.conv_model(device, stack), device.sm.count)


def conv_graph(shape, name="fp16"):
    b = GraphBuilder("layer", name)
    x = b.input("x", shape["batch"], shape["c_in"], shape["h"], shape["w"])
    kernel = (shape["kernel_h"], shape["kernel_w"])
    b.conv(
        x, shape["c_out"], kernel, stride=shape["stride"], padding=shape["padding"], groups=shape["groups"]
    )
    return b.build()


def test_implicit_gemm_unrolls_windows_and_pads_channels():
    layers, made = rows(c_in=3, c_out=60, kernel_h=7, kernel_w=7, h=224, w=224, batch=2, stride=2, padding=3)
    (row,) = made.rows
    assert (row[R.BATCH], row[R.M], row[R.N], row[R.K]) == (1, 2 * 112 * 112, 64, 49 * 8)
    assert row[R.A_BYTES] == 2 * 3 * 224 * 224 * 2
    assert layers.flops[0] == 2 * 2 * 112 * 112 * 60 * 3 * 49


def test_wide_loads_of_integers_pad_to_sixteen_channels():
    h100 = load_hardware("h100-sxm")
    _, made = rows("int8", h100, c_in=20, c_out=20, kernel_h=1, kernel_w=1, h=8, w=8)
    assert (made.rows[0, R.N], made.rows[0, R.K]) == (32, 32)
    _, first = rows("int8", h100, "tensorrt", c_in=3, c_out=64, kernel_h=7, kernel_w=7, h=8, w=8)
    assert first.rows[0, R.K] == 49 * 4


def test_groups_are_independent_products_and_depthwise_is_a_stream():
    _, made = rows(c_in=64, c_out=64, kernel_h=3, kernel_w=3, h=8, w=8, groups=4)
    assert (made.rows[0, R.BATCH], made.rows[0, R.N], made.rows[0, R.K]) == (4, 16, 9 * 16)
    layers, made = rows(c_in=64, c_out=64, kernel_h=3, kernel_w=3, h=8, w=8, groups=64, padding=1)
    assert made.algorithm.tolist() == [C.DEPTHWISE]
    assert made.rows[0, R.KIND] == R.STREAM
    assert made.rows[0, R.VECTOR_OPS] == layers.flops[0] / 2 == 64 * 64 * 9


def test_winograd_needs_a_quarter_of_the_arithmetic_of_full_tiles():
    layers, made = rows("fp32", c_in=32, c_out=32, kernel_h=3, kernel_w=3, h=16, w=16, padding=1)
    assert sorted(set(made.algorithm.tolist())) == [C.IMPLICIT, C.WINOGRAD, C.FUSED]
    assert C.least_flops(layers)[0] == pytest.approx(layers.flops[0] / 4)  # 16 x 9 against 36 products
    large, small = C.winograd_tiles((5.0, 5.0), (16.0, 16.0), 1.0, True)
    assert (large, small) == (64.0, 0.0)  # 2 x 2 outputs each


@pytest.mark.parametrize(
    "change", [{"stride": 2}, {"kernel_h": 1, "kernel_w": 1}, {"groups": 2}, {"kernel_w": 5, "padding": 2}]
)
def test_winograd_is_for_square_filters_of_stride_one(change):
    shape = {"c_in": 32, "c_out": 32, "kernel_h": 3, "kernel_w": 3, "h": 16, "w": 16, "padding": 1} | change
    _, made = rows("fp32", **shape)
    assert set(made.algorithm.tolist()) == {C.IMPLICIT}


def test_fp32_beats_the_fma_roofline_by_winograd_and_the_bound_knows(run):
    shape = {"batch": 16, "c_in": 256, "c_out": 256, "kernel_h": 3, "kernel_w": 3, "h": 56, "w": 56}
    graph = conv_graph(shape | {"stride": 1, "padding": 1, "groups": 1}, "fp32")
    _, (cost,) = run(graph, V100)
    _, (bound,) = run(graph, V100, fidelity="analytic")
    direct_s = graph.macs * 2 / V100.peak_flop_per_s("fp32")
    assert cost.mapping.startswith("Winograd")
    assert bound.latency_s <= cost.latency_s < direct_s
    _, (tensor,) = run(conv_graph(shape | {"stride": 1, "padding": 1, "groups": 1}, "fp16"), V100)
    assert tensor.mapping.startswith("implicit GEMM")


SHAPES = st.fixed_dictionaries(
    {
        "batch": st.sampled_from([1, 3, 16]),
        "c_in": st.sampled_from([1, 3, 16, 64, 130, 512]),
        "c_out": st.sampled_from([1, 16, 64, 200, 512]),
        "kernel_h": st.sampled_from([1, 3, 5, 7]),
        "h": st.sampled_from([7, 14, 57]),
        "stride": st.sampled_from([1, 2, 3]),
        "groups": st.just(1),
    }
).map(lambda s: s | {"kernel_w": s["kernel_h"], "w": s["h"], "padding": s["kernel_h"] // 2})


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    name=st.sampled_from(["fp32", "fp16"]),
    stack=st.sampled_from(["eager", "graph", "tensorrt"]),
)
def test_no_convolution_beats_the_bound_of_its_algorithms(shape, name, stack):
    program = ARCHITECTURE.lower(
        conv_graph(shape, name), V100, Options(stack=stack, cold=True, governor=False)
    )
    roof = ARCHITECTURE.lower(
        conv_graph(shape, name), V100, Options(stack=stack, cold=True, fidelity="analytic")
    )
    (cost,), (bound,) = ARCHITECTURE.cost(program), ARCHITECTURE.cost(roof)
    assert cost.latency_s >= bound.latency_s * (1 - 1e-9)
    assert cost.bytes_by_level["dram"] >= program.kernels[0].bytes_compulsory * (1 - 1e-9)


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    name=st.sampled_from(["fp32", "fp16"]),
    stack=st.sampled_from(STACKS),
    device=st.sampled_from(["v100-sxm", "h100-sxm"]),
    cold=st.booleans(),
)
def test_the_fast_path_equals_the_graph(shapes, name, stack, device, cold):
    columns = {k: np.array([s[k] for s in shapes], dtype=float) for k in table(**shapes[0])}
    gpu = load_hardware(device)
    latency, bound, dram, *_ = conv_rows(columns, plan(name), gpu, stack, cold)
    slow = predict_by_graph(ARCHITECTURE, "conv2d", columns, plan(name), gpu, Options(stack=stack, cold=cold))
    assert latency == pytest.approx(slow.latency_s, rel=1e-9)
    assert dram == pytest.approx(slow.dram_bytes, rel=1e-6, abs=1.0)
    assert [BOUNDS[code] for code in bound] == list(slow.bound)


def test_depthwise_and_grouped_rows_equal_the_graph():
    shapes = table(
        c_in=[64, 64, 256],
        c_out=[64, 64, 256],
        kernel_h=3,
        kernel_w=3,
        h=28,
        w=28,
        padding=1,
        groups=[64, 4, 2],
    )
    latency, *_ = conv_rows(shapes, plan("fp16"), V100, "graph", False)
    slow = predict_by_graph(ARCHITECTURE, "conv2d", shapes, plan("fp16"), V100, Options())
    assert latency == pytest.approx(slow.latency_s, rel=1e-9)


def test_planar_activations_are_transposed_on_the_way(run):
    graph = conv_graph({"batch": 8, "c_in": 64, "c_out": 64, "kernel_h": 3, "kernel_w": 3, "h": 56, "w": 56,
                        "stride": 1, "padding": 1, "groups": 1})  # fmt: skip
    (eager,), (fused,) = run(graph, V100, stack="eager", cold=True)[1], run(graph, V100, cold=True)[1]
    assert eager.bytes_by_level["dram"] > 1.5 * fused.bytes_by_level["dram"]


def test_tensorrt_folds_batch_norms_into_the_weights(toy, run):
    b = GraphBuilder("folded", "fp16")
    b.batch_norm(b.conv(b.input("x", 8, 64, 56, 56), 64, 3))
    graph = b.build()
    plain = GraphBuilder("plain", "fp16")
    plain.conv(plain.input("x", 8, 64, 56, 56), 64, 3)
    (graphed,), (folded,) = run(graph, toy)[1], run(graph, toy, stack="tensorrt")[1]
    assert graphed.energy_j["vector"] > folded.energy_j["vector"] == 0
    assert folded.latency_s < graphed.latency_s
    assert folded.latency_s == pytest.approx(
        run(plain.build(), toy, stack="tensorrt")[1][0].latency_s, rel=0.02
    )


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 19), ("fp16", 13)])
def test_held_out_layers_of_deepbench(precision, limit):
    if not SHEET.is_file():
        pytest.skip("needs the DeepBench sheet in a folder 'shared' beside the repository")
    pytest.importorskip("openpyxl")
    from accelsim.calibration import splits
    from accelsim.validate import deepbench

    frame = deepbench.load(SHEET)
    frame = frame[(frame.op == "conv2d") & (frame.precision == precision)]
    frame = frame[splits.held_out(frame)]
    names = ("batch", "c_in", "c_out", "kernel_h", "kernel_w", "h", "w", "stride", "padding")
    shapes = {c: frame[c].to_numpy(float) for c in names} | {"groups": np.ones(len(frame))}
    latency, *_ = conv_rows(shapes, plan(precision), V100, "graph", False)
    assert len(frame) > 40
    assert 100 * np.abs(latency / frame.latency_s.to_numpy() - 1).mean() < limit


LAYERS = table(
    c_in=[3, 3, 64, 256, 512, 32, 960],
    c_out=[64, 32, 64, 64, 512, 256, 960],
    kernel_h=[7, 3, 3, 1, 3, 5, 3],
    kernel_w=[7, 3, 3, 1, 3, 5, 3],
    h=[224, 224, 56, 56, 7, 28, 14],
    w=[224, 224, 56, 56, 7, 28, 14],
    stride=[2, 2, 1, 1, 1, 1, 1],
    padding=[3, 1, 1, 0, 1, 2, 1],
    groups=[1, 1, 1, 1, 1, 1, 960],
    batch=[32, 32, 32, 32, 32, 32, 32],
)


def layer_times(device, formats, stack="graph"):
    return conv_rows(LAYERS, plan(formats), load_hardware(device), stack, True).latency_s


@pytest.mark.parametrize(
    "device", ["t4", "rtx-2080-ti", "a10", "a100-sxm", "rtx-3090", "l4", "h100-sxm", "b200"]
)
@pytest.mark.parametrize("stack", ["graph", "tensorrt"])
def test_narrow_integers_are_no_slower_than_halves(device, stack):
    """Address arithmetic does not know the format of the data, so a first layer gains from bytes too."""
    assert (layer_times(device, "int8", stack) <= 1.03 * layer_times(device, "fp16", stack)).all()


@pytest.mark.parametrize(
    ("weak", "strong"),
    [
        ("l4", "l40s"),
        ("a2", "a10"),
        ("a10", "a40"),
        ("a30", "a100-sxm"),
        ("t4", "rtx-2080-ti"),
        ("v100-pcie", "v100-sxm"),
        ("a100-sxm", "h100-sxm"),
        ("mi210", "mi300x"),
    ],
)
def test_no_convolution_is_slower_on_a_card_with_more_of_everything(weak, strong):
    for formats in ("fp32", "fp16"):
        assert (layer_times(strong, formats) <= 1.03 * layer_times(weak, formats)).all()


def test_a_grid_that_leaves_the_device_idle_takes_other_kernels():
    """One image of 7 x 7 and 64 filters is one block of 128 x 64 on 80 SMs, for all of its long reduction."""
    shape = table(c_in=2048, c_out=64, kernel_h=3, kernel_w=3, h=7, w=7, stride=2, padding=1)
    alone = conv_rows(shape, plan("fp32"), V100, "graph", False).latency_s[0]
    block_s = 2 * 128 * 64 * 9 * 2048 / (V100.sm.vector_flop_per_clock["fp32"] * V100.sm.clock_hz)
    assert alone < 0.25 * block_s


@pytest.mark.parametrize("device", ["rtx-3090", "rtx-4090", "l4", "a100-sxm", "h100-sxm", "mi300x"])
@pytest.mark.parametrize("stack", ["graph", "tensorrt"])
def test_tf32_allows_tensor_cores_and_does_not_force_them(device, stack):
    """A library may still take Winograd or multiply-adds of the lanes, the faster ones on a GeForce."""
    assert (layer_times(device, "tf32", stack) <= layer_times(device, "fp32", stack) * (1 + 1e-12)).all()
