"""Pruning: laws of the smaller graphs, what devices make of zeros, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import GraphError, ModelFileError, RequestError
from accelsim.techniques.arrays import Arrays
from accelsim.techniques.axes import axis_of, cut, expand, length, tie
from accelsim.techniques.pruning import prune
from accelsim.techniques.sparsity import (
    best_format,
    crossover,
    magnitude_mask,
    pattern_mask,
    storage_bytes,
    storage_table,
)
from accelsim.workload.builders.layers import GraphBuilder
from tests.strategies import graphs

NETWORKS = (
    "resnet18", "resnet50", "mobilenet-v2", "mobilenet-v3", "efficientnet-b0", "densenet121", "inception-v3",
    "unet", "yolov8n", "stable-diffusion-unet", "bert-base", "vit-b-16", "gpt2", "t5-small", "mixtral-8x7b",
    "llama-3.1-8b", "dlrm-v2", "finn-cnv", "gpt-oss-20b", "whisper-base", "deepseek-v3",
)  # fmt: skip


def consistent(graph):
    """Every formula takes its shapes, and a tensor has one shape wherever it appears."""
    shapes = {}
    for op in graph:
        assert op.work.bytes_read >= 0
        for t in (*op.inputs, *op.outputs):
            assert shapes.setdefault(t.name, t.shape) == t.shape
    return True


def never_grows(after, before):
    return (
        after.flops <= before.flops
        and after.parameters <= before.parameters
        and after.bytes_compulsory <= before.bytes_compulsory
        and after.vector_ops <= before.vector_ops
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_channel_pruning_gives_a_valid_smaller_graph_with_the_same_inputs_and_outputs(name):
    graph = ax.load_workload(name)
    small = prune(graph, "channel", 0.5)
    assert consistent(small)
    assert never_grows(small, graph)
    assert small.flops < graph.flops
    assert [t.shape for t in small.inputs if t.role == "activation"] == [
        t.shape for t in graph.inputs if t.role == "activation"
    ]
    assert [t.shape for t in small.outputs if "kv_write" not in t.name] == [
        t.shape for t in graph.outputs if "kv_write" not in t.name
    ]
    assert prune(graph, "channel", 0) is graph


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(("resnet18", "mobilenet-v2", "yolov8n", "bert-base", "densenet121", "finn-cnv")),
    st.floats(0, 0.6),
    st.sampled_from((1, 8)),
)
def test_more_pruning_is_never_more_work(name, amount, align):
    graph = ax.load_workload(name)
    less = prune(graph, "channel", amount, align=align)
    more = prune(graph, "channel", min(0.65, amount + 0.05), align=align)
    assert consistent(less)
    assert never_grows(less, graph)
    assert more.flops <= less.flops


@settings(max_examples=40, deadline=None)
@given(
    graphs, st.sampled_from(("channel", "ffn", "heads", "layers", "unstructured", "2:4")), st.floats(0, 0.7)
)
def test_no_method_makes_any_random_graph_larger(graph, method, amount):
    try:
        small = prune(graph, method, amount)
    except GraphError:  # nothing to prune, or nothing would be left
        return
    assert consistent(small)
    assert never_grows(small, graph)
    assert small.with_batch(3).flops == 3 * small.flops


@pytest.mark.parametrize("amount", [0.25, 0.5, 0.75])
def test_inner_convolutions_keep_the_square_of_the_share(amount):
    graph = ax.load_workload("resnet50")
    small = prune(graph, "channel", amount)
    for op in graph:
        if op.kind == "conv" and op.name != "conv1.conv" and op.inputs[0].shape[1] > 3:
            assert small[op.name].flops / op.flops == pytest.approx((1 - amount) ** 2, rel=1e-9)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet-v3", "bert-base", "mixtral-8x7b", "finn-cnv"])
def test_pruning_and_batching_commute(name):
    graph = ax.load_workload(name)
    one, other = prune(graph.with_batch(4), "channel", 0.5), prune(graph, "channel", 0.5).with_batch(4)
    assert one.hash == other.hash


def test_residual_sums_depthwise_filters_and_flattened_layers_follow():
    b = GraphBuilder("net")
    x = b.conv(b.input("x", 1, 3, 8, 8), 16, 3)
    y = b.batch_norm(b.conv(x, 16, 3, groups=16, stem="dw"))
    z = b.concat(b.add(x, y), b.conv(x, 8, 1, stem="side"))
    b.linear(b.flatten(z), 10)
    small = prune(b.build(), "channel", {"conv": 0.5, "side": 0.25})
    assert small["conv"].outputs[0].shape == (1, 8, 8, 8)
    assert small["dw"].attributes["groups"] == 8
    assert small["bn"].inputs[1].shape == (8,)
    assert small["concat"].outputs[0].shape == (1, 14, 8, 8)
    assert small["linear"].inputs[1].shape == (14 * 64, 10)


def test_grouped_convolutions_lose_as_many_channels_in_every_group():
    b = GraphBuilder("net")
    x = b.conv(b.input("x", 1, 3, 8, 8), 32, 1)
    b.conv(b.conv(x, 32, 3, groups=4, stem="grouped"), 10, 1, stem="head")
    weights = {
        "conv.weight": np.random.default_rng(0).normal(size=(32, 3, 1, 1)),
        "grouped.weight": np.ones((32, 8, 3, 3)),
    }
    small = prune(b.build(), "channel", 0.4, weights=weights)
    w = small["grouped"].inputs[1]
    assert w.shape[0] % 4 == 0
    assert w.shape[1] * 4 == small["grouped"].inputs[0].shape[1]
    kept = small.metadata["pruning"].kept["conv"]
    assert {sum(8 * g <= i < 8 * g + 8 for i in kept) for g in range(4)} == {len(kept) // 4}


def test_grouped_query_attention_loses_key_heads_with_their_queries_and_cache():
    graph = ax.load_workload("llama-3.1-8b", phase="decode", context=256)
    small = prune(graph, "heads", 0.5)
    attention = next(op for op in small if op.kind == "attention")
    assert attention.inputs[0].shape[1] == 16
    assert attention.inputs[1].shape[1] == 4
    assert small.kv_bytes == graph.kv_bytes / 2
    assert next(op for op in small if op.kind == "kv_write").outputs[0].shape[1] == 4
    width = prune(graph, "ffn", 0.5)
    assert width.kv_bytes == graph.kv_bytes
    assert next(op for op in width if "gate_up" in op.name).outputs[0].shape[-1] == 14336


def test_heads_of_an_exported_attention_follow_their_views():
    torch = pytest.importorskip("torch")

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(64, 192), torch.nn.Linear(64, 64)
            self.q, self.k, self.v, self.o = (torch.nn.Linear(64, 64) for _ in range(4))

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(x).reshape(b, t, 3, 4, 16).permute(2, 0, 3, 1, 4).unbind(0)
            y = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
            x = x + self.out(y.transpose(1, 2).reshape(b, t, 64))
            q, k, v = (f(x).view(b, t, 4, 16).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            return self.o(y.transpose(1, 2).reshape(b, t, 64))

    graph = ax.load_workload(Block().eval(), inputs=[(2, 10, 64)])
    small = prune(graph, "channel", 0.5)
    assert consistent(small)
    assert small.flops == graph.flops / 2
    assert prune(graph, "heads", 0.25).metadata["pruning"].detail.startswith("1 channels or heads of 1")


def test_expert_widths_shrink_and_the_router_does_not():
    graph = ax.load_workload("mixtral-8x7b", phase="decode", context=64)
    small = prune(graph, "ffn", 0.5)
    w = next(op for op in small if op.kind == "grouped_matmul").inputs[1]
    assert w.shape == (8, 4096, 14336)
    assert next(op for op in small if "router" in op.name).outputs[0].shape[-1] == 8


def test_a_stacked_lstm_shrinks_between_its_layers():
    b = GraphBuilder("rnn")
    x = b.input("x", 5, 1, 20, batch_axis=1)
    for i, h in enumerate((32, 32)):
        w = [b.weight(f"w{i}", 4 * h, x.shape[-1]), b.weight(f"u{i}", 4 * h, h)]
        x = b.op("lstm", [x, *w], (5, 1, h), stem=f"lstm{i}", batch_axis=1, hidden=h, directions=1)
    b.linear(x, 7)
    small = prune(b.build(), "channel", 0.5)
    assert small["lstm0"].attributes["hidden"] == 16
    assert small["lstm1"].inputs[1].shape == (64, 16)
    assert small["linear"].inputs[1].shape == (16, 7)


def test_layers_drop_from_runs_and_residual_blocks():
    bert = ax.load_workload("bert-base")
    half = prune(bert, "layers", 0.5)
    inside = [op for op in half if op.name.startswith("layers")]
    assert {op.repeat for op in inside} == {6}
    resnet = ax.load_workload("resnet50")
    small = prune(resnet, "layers", 0.25)
    assert small.metadata["pruning"].detail == "3 of 12 layers dropped"
    assert consistent(small)
    assert never_grows(small, resnet)
    assert [t.shape for t in small.outputs] == [t.shape for t in resnet.outputs]


# -- zeros
# ----------------------------------------------------------------------------------------------------------


def test_storage_and_crossovers_are_the_closed_forms():
    shape = (64, 1024)
    assert storage_bytes(shape, 0.5, 16, "dense") == 64 * 1024 * 2
    assert storage_bytes(shape, 0.5, 16, "bitmap") == 64 * 1024 * (8 + 1) / 8
    assert storage_bytes(shape, 0.1, 16, "csr") == pytest.approx((6553.6 * (16 + 10) + 32 * 65) / 8)
    assert crossover(shape, 16, "bitmap") == pytest.approx(1 - 1 / 16)
    at = crossover(shape, 16, "csr")
    assert storage_bytes(shape, at, 16, "csr") == pytest.approx(storage_bytes(shape, at, 16, "dense"))
    assert best_format(shape, 1.0, 16) == "dense"
    assert best_format(shape, 0.5, 16) == "bitmap"
    assert best_format(shape, 0.01, 16) == "csr"
    with pytest.raises(RequestError, match="bitmap"):
        storage_bytes(shape, 0.5, 16, "bitmaps")


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 0.99), st.integers(0, 2**16))
def test_a_magnitude_mask_keeps_the_largest(amount, seed):
    values = np.random.default_rng(seed).normal(size=(7, 11))
    mask = magnitude_mask(values, amount)
    assert (~mask).sum() == round(amount * values.size)
    if mask.any() and not mask.all():
        assert abs(values[mask]).min() >= abs(values[~mask]).max()


@pytest.mark.parametrize(("pattern", "axis"), [("2:4", 1), ("1:4", 0), ("4:8", 1)])
def test_a_pattern_mask_keeps_n_of_every_m(pattern, axis):
    keep, block = map(int, pattern.split(":"))
    values = np.random.default_rng(1).normal(size=(16, 32))
    mask = np.moveaxis(pattern_mask(values, pattern, axis), axis, -1).reshape(-1, block)
    assert (mask.sum(axis=1) == keep).all()
    magnitudes = np.moveaxis(abs(values), axis, -1).reshape(-1, block)
    lost = np.where(mask, 0, magnitudes).max(axis=1)
    assert (np.where(mask, magnitudes, np.inf).min(axis=1) >= lost).all()


def test_global_magnitude_takes_more_from_tensors_of_small_weights():
    b = GraphBuilder("net")
    b.linear(b.linear(b.input("x", 1, 32), 32, bias=False, stem="a"), 32, bias=False, stem="b")
    rng = np.random.default_rng(0)
    weights = {"a.weight": rng.normal(size=(32, 32)), "b.weight": 3 * rng.normal(size=(32, 32))}
    small = prune(b.build(), "unstructured", 0.5, weights=weights)
    a, other = small["a"].inputs[1], small["b"].inputs[1]
    assert a.density < 0.5 < other.density
    assert a.density + other.density == pytest.approx(1.0, abs=1e-3)
    done = small.metadata["pruning"]
    assert done.kept_norm > 0.5
    assert "2 of 2" in done.basis
    flat = prune(b.build(), "unstructured", 0.5)
    assert {t.density for t in flat.weights} == {0.5}
    assert "statistical" in flat.metadata["pruning"].basis


def test_channels_with_the_largest_norm_stay():
    b = GraphBuilder("net")
    b.conv(b.conv(b.input("x", 1, 3, 8, 8), 8, 3), 4, 1, stem="head")
    w = np.ones((8, 3, 3, 3)) * np.array([5, 1, 4, 2, 8, 7, 3, 6])[:, None, None, None]
    small = prune(b.build(), "channel", 0.5, weights={"conv.weight": w})
    assert small.metadata["pruning"].kept == {"conv": (0, 4, 5, 7)}


def test_two_of_four_takes_nine_sixteenths_of_its_storage_and_runs_on_sparse_tensor_cores_only():
    graph = ax.load_workload("bert-large", context=384)
    sparse = prune(graph, "2:4")
    rows = storage_table(sparse)
    assert {r["pattern"] for r in rows} == {"2:4"}
    assert all(r["nm_bytes"] == pytest.approx(0.5625 * r["dense_bytes"]) for r in rows)
    for device, gains in (("a100-sxm", True), ("t4", False), ("tpu-v4", False)):
        dense, fast = (
            ax.simulate(g, device, batch=16, precision="bf16" if device == "tpu-v4" else "fp16")
            for g in (graph, sparse)
        )
        assert (fast.summary["latency_s"] < dense.summary["latency_s"]) == gains
        assert (fast.summary["memory_bytes"] < dense.summary["memory_bytes"]) == gains
        assert any("run as dense" in n for n in fast.notes) != gains
        assert any("2:4" in n for n in fast.notes)


def test_the_gain_of_two_of_four_never_passes_twice_and_equals_the_assumed_pattern():
    graph = ax.load_workload("bert-base")
    dense, marked, assumed = (
        ax.simulate(g, "a100-sxm", batch=32, precision="fp16", sparsity=s).summary["latency_s"]
        for g, s in ((graph, "dense"), (prune(graph, "2:4"), "dense"), (graph, "2:4"))
    )
    assert marked == pytest.approx(assumed)
    assert 1 <= dense / marked <= 2


def test_results_of_a_pruned_graph_say_so():
    small = ax.simulate(prune("resnet18", "channel", 0.5), "t4")
    assert small.summary["pruning"] == "channel 50%"
    assert any(n.startswith("pruned by 'channel'") and "statistical" in n for n in small.notes)
    assert "pruning" not in ax.simulate("resnet18", "t4").summary


def test_unstructured_zeros_pay_on_zero_skipping_arrays_and_nowhere_else():
    graph = ax.load_workload("alexnet")
    sparse = prune(graph, "unstructured", 0.8)
    for device in ("a100-sxm", "tpu-v4i"):
        dense, same = (ax.simulate(g, device, batch=4, precision="bf16") for g in (graph, sparse))
        assert same.summary["latency_s"] == dense.summary["latency_s"]
        assert any("gain nothing" in n for n in same.notes)
    device = ax.load_hardware("systolic-128x128")
    skipping = device.model_copy(update={"array": device.array.model_copy(update={"skips_zeros": True})})
    dense, fast = (ax.simulate(g, skipping, batch=4, precision="int8") for g in (graph, sparse))
    assert fast.summary["latency_s"] < dense.summary["latency_s"]
    assert any("does not run their products" in n for n in fast.notes)


def test_channel_pruning_shortens_the_folds_of_a_dataflow_design():
    graph = ax.load_workload("finn-cnv")
    dense, small = (ax.simulate(g, "zcu104-finn") for g in (graph, prune(graph, "channel", 0.5, align=16)))
    assert dense.feasible
    assert small.feasible
    assert small.summary["throughput_per_s"] > 1.2 * dense.summary["throughput_per_s"]


def test_zeros_take_no_logic_in_fully_unrolled_units_and_no_cycles_away():
    graph = ax.load_workload("jet-tagging")
    sparse = prune(graph, "unstructured", 0.75)

    def built(workload, folding):
        return ax.simulate(workload, "agilex7-hls4ml", folding=folding).summary

    unrolled = [(op.inputs[1].shape[1], op.inputs[1].shape[0]) for op in graph if op.kind == "matmul"]
    dense, light = built(graph, unrolled), built(sparse, unrolled)
    assert light["resource_alm"] < 0.6 * dense["resource_alm"]
    assert light["resource_dsp"] < dense["resource_dsp"]
    assert light["latency_s"] == dense["latency_s"]
    fits = [ax.simulate(g, "zcu104-finn", folding=unrolled).feasible for g in (graph, sparse)]
    assert fits == [False, True]
    folded = [(1, 1)] * len(unrolled)
    assert built(graph, folded)["resource_alm"] == built(sparse, folded)["resource_alm"]
    assert "fully unrolled" in " ".join(ax.simulate(sparse, "zcu104-finn").notes)
    assert "gain nothing" in " ".join(ax.simulate(prune("resnet18", "unstructured", 0.5), "zcu104-dpu").notes)


def test_weights_of_model_files_match_a_builders_tensors_by_name():
    rng = np.random.default_rng(0)
    weights = {"conv1.weight": rng.normal(size=(64, 3, 7, 7)), "fc.weight": rng.normal(size=(1000, 512))}
    done = prune("resnet18", "channel", 0.5, weights=weights).metadata["pruning"]
    assert done.basis.startswith("magnitudes of 2 of")
    other = prune("resnet18", "channel", 0.5, weights={"encoder": np.ones(3)}).metadata["pruning"]
    assert other.basis.startswith("statistical: none of the weights")


# -- bad input
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [1, 1.0, -0.1, True, float("nan"), {"conv*": 2}])
def test_amounts_outside_the_half_open_interval_are_refused(amount):
    with pytest.raises(RequestError, match="not in \\[0, 1\\)"):
        prune("resnet18", "channel", amount)


def test_bad_requests_say_what_and_where():
    with pytest.raises(RequestError, match="channel"):
        prune("resnet18", "chanel")
    with pytest.raises(GraphError, match=r"all \d+ channels"):
        prune("resnet18", "channel", 0.999)
    with pytest.raises(GraphError, match="would remove all"):
        prune("bert-base", "layers", 0.99)
    with pytest.raises(GraphError, match="does not divide the 3 inputs"):
        prune("resnet50", "2:4", {"conv1": 0.5})
    with pytest.raises(GraphError, match="divides no layer"):
        prune("resnet50", "3:7")
    with pytest.raises(RequestError, match="N < M"):
        prune("resnet50", "4:2")
    with pytest.raises(GraphError, match="no operator is called"):
        prune("resnet50", "channel", {"layer9*": 0.5})
    with pytest.raises(GraphError, match="nothing to prune"):
        prune("gemm", "channel", 0.5)
    with pytest.raises(RequestError, match="unknown pruning method"):
        prune("resnet18", 5)
    with pytest.raises(RequestError, match="neither arrays"):
        prune("resnet18", "channel", 0.5, weights=3)
    with pytest.raises(ModelFileError, match=r"\.onnx or \.safetensors"):
        prune("resnet18", "channel", 0.5, weights=__file__)


def test_weights_with_nan_or_another_shape_are_refused():
    b = GraphBuilder("net")
    b.conv(b.conv(b.input("x", 1, 3, 8, 8), 8, 3), 4, 1, stem="head")
    bad = np.ones((8, 3, 3, 3))
    bad[0, 0, 0, 0] = np.nan
    with pytest.raises(GraphError, match="NaN"):
        prune(b.build(), "channel", 0.5, weights={"conv.weight": bad})
    with pytest.raises(GraphError, match="shape"):
        prune(b.build(), "channel", 0.5, weights={"conv.weight": np.ones((8, 3, 5, 5))})


def test_weights_come_from_onnx_and_safetensors_files(tmp_path):
    onnx = pytest.importorskip("onnx")
    numpy_helper = pytest.importorskip("onnx.numpy_helper")
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(size=(16, 3, 3, 3)), rng.normal(size=(4, 16, 1, 1))
    helper = onnx.helper
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w1"], ["h"], pads=[1, 1, 1, 1]),
                helper.make_node("Relu", ["h"], ["r"]),
                helper.make_node("Conv", ["r", "w2"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("y", 1, [1, 4, 8, 8])],
            [numpy_helper.from_array(a.astype(np.float32), n) for a, n in ((w1, "w1"), (w2, "w2"))],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    path = tmp_path / "net.onnx"
    onnx.save(model, str(path))
    small = prune(path, "channel", 0.5, weights=path)
    best = sorted(np.argsort(-abs(w1).sum(axis=(1, 2, 3)))[:8].tolist())
    assert list(next(iter(small.metadata["pruning"].kept.values()))) == best
    safetensors = pytest.importorskip("safetensors.numpy")
    safetensors.save_file({"w1": w1.astype(np.float32)}, str(tmp_path / "w.safetensors"))
    assert Arrays(tmp_path / "w.safetensors").held["w1"].shape == (16, 3, 3, 3)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelFileError, match="broken"):
        Arrays(tmp_path / "broken.safetensors")


# -- axes
# ----------------------------------------------------------------------------------------------------------


def test_ties_split_and_scale_sizes():
    whole, parts = axis_of(12), (*axis_of(4), *axis_of(8))
    tie(whole, parts)
    assert [s.size for s, _ in expand(whole)] == [4, 8]
    flat, channels = axis_of(60), axis_of(20)
    tie(flat, tuple((s, 3 * m) for s, m in channels))
    assert [(s.size, m) for s, m in expand(flat)] == [(20, 3)]
    left, right = cut(whole, 6)
    assert (length(left), length(right)) == (6, 6)
    assert [s.size for s, _ in expand(parts)] == [4, 2, 6]
