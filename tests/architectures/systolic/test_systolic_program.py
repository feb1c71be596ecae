"""Whole programs on a systolic device: lowering, cost by hand, feasibility, laws of the fidelities."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures import architecture_of
from accelsim.architectures.base import Options
from accelsim.architectures.systolic.cost import occupancy
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import precision
from accelsim.engine.simulate import simulate
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Op, Tensor

ARRAY = architecture_of("systolic")


def run(graph, device, fidelity="tile", cold=True, **more):
    program = ARRAY.lower(graph, device, Options(fidelity=fidelity, cold=cold, **more))
    return program, ARRAY.cost(program)


def latency(program, costs):
    return sum(c.latency_s * k.repeat for k, c in zip(program.kernels, costs))


def block(batch=1, channels=64, size=28, fmt="bf16") -> Graph:
    """A bottleneck with a shortcut, pooling, flattening and a classifier."""
    b = GraphBuilder("block", fmt)
    x = b.input("x", 1, channels, size, size)
    y = b.activation(b.batch_norm(b.conv(x, channels, 3)))
    y = b.batch_norm(b.conv(y, 2 * channels, 1))
    s = b.batch_norm(b.conv(x, 2 * channels, 1, stem="shortcut"))
    y = b.activation(b.add(y, s))
    y = b.flatten(b.global_pool(y))
    b.softmax(b.linear(y, 100))
    return b.build(item="image").with_batch(batch)


def one_matmul(m, n, k, fmt="bf16"):
    b = GraphBuilder("product", fmt)
    b.linear(b.input("x", m, k), n, bias=False)
    return b.build()


def test_lanes_fusion_and_dependencies(make_device):
    program, _ = run(block(), make_device())
    kinds = [[op.kind for op in kernel.ops] for kernel in program.kernels]
    assert [kernel.lane for kernel in program.kernels] == ["array"] * 3 + ["vector", "array", "vector"]
    assert kinds[0] == ["conv", "batch_norm", "activation"]
    assert sorted(map(len, kinds[1:3])) == [
        2,
        4,
    ]  # one of the two convolutions takes the addition and the last ReLU
    assert kinds[3:] == [["pool"], ["matmul"], ["softmax"]]
    # The reshape is gone and the classifier waits for the pooling.
    assert program.kernels[4].after == (3,)
    assert all(before < index for index, kernel in enumerate(program.kernels) for before in kernel.after)
    assert program.style == "sequential"


def test_product_by_hand(make_device):
    """512 x 256 x 384 on 128 x 128: 3 x 2 folds of 512 beats, one load of 128 and one drain of 254."""
    _, (cost,) = run(one_matmul(512, 256, 384), make_device())
    assert cost.cycles_compute == 128 + 6 * 512 + 254
    moved = 2 * (512 * 384 + 384 * 256 + 512 * 256)
    assert cost.bytes_by_level["dram"] == moved
    assert cost.cycles_memory == pytest.approx(moved / 80e9 * 1e9)
    assert cost.latency_s == pytest.approx(max(128 + 6 * 512 + 254, moved / 80) * 1e-9 + 1.5e-6)
    macs = 512 * 256 * 384
    assert cost.energy_j["mac"] == pytest.approx(macs * 0.5e-12)
    assert cost.energy_j["dram"] == pytest.approx(moved * 30e-12)
    assert cost.energy_j["vector"] == 0
    # Activations once per column fold, weights once, results once; five of six partial sums written and read
    # in fp32.
    ports = 2 * (512 * 384 * 2 + 384 * 256 + 512 * 256)
    partial = 512 * 256 * 4 * 4
    assert cost.bytes_by_level["sram"] == pytest.approx(moved + ports + partial)


def test_analytic_is_the_roofline(make_device):
    device = make_device()
    _, (cost,) = run(one_matmul(512, 256, 384), device, "analytic")
    moved = 2 * (512 * 384 + 384 * 256 + 512 * 256)
    assert cost.latency_s == pytest.approx(
        max(2 * 512 * 256 * 384 / device.peak_flop_per_s("bf16"), moved / 100e9)
    )


def test_narrow_formats_run_at_their_rate(make_device):
    device = make_device(**{"memory.bandwidth": "100 TB/s"})
    wide = run(one_matmul(4096, 1024, 1024), device)[1][0].cycles_compute
    narrow = run(one_matmul(4096, 1024, 1024, "int8"), device)[1][0].cycles_compute
    assert wide / narrow == pytest.approx(2, rel=0.02)


def test_mixed_operands_run_at_the_wider_rate(make_device):
    int8 = precision("int8")
    graph = one_matmul(4096, 1024, 1024).map_tensors(
        lambda t: replace(t, precision=int8) if t.role == "weight" else t
    )
    mixed = run(graph, make_device())[1][0]
    assert mixed.cycles_compute == run(one_matmul(4096, 1024, 1024), make_device())[1][0].cycles_compute
    assert mixed.bytes_by_level["dram"] == 2 * 4096 * 1024 * 2 + 1024 * 1024


def test_missing_precision_is_infeasible(make_device):
    with pytest.raises(InfeasibleError) as caught:
        run(block(fmt="fp16"), make_device())
    outcome = caught.value.outcome
    assert outcome.reason == "precision"
    assert "fp16" in outcome.need
    assert outcome.have == "bf16, int8"
    assert "bf16" in outcome.hint


def test_too_large_is_infeasible(make_device):
    outcome = simulate(one_matmul(1, 2**17, 2**17), make_device())
    assert (outcome.reason, outcome.have) == ("memory", "17.18 GB per device")
    assert "weights 34.36 GB" in outcome.need
    assert "narrower" in outcome.hint


def collective(devices=4):
    x = Tensor("x", (1024, 1024), precision("bf16"), batch_axis=0)
    op = Op("sum", "all_reduce", (x,), (replace(x, name="y"),), {"devices": devices})
    return Graph("sum", [op])


def test_collectives_use_the_link(make_device):
    """Ring all-reduce over 4: 2 * 3/4 of 2 MiB at 50 GB/s, six latencies of 1 us, dispatch, DRAM latency."""
    program, (cost,) = run(collective(), make_device())
    assert program.kernels[0].lane == "link"
    assert cost.bound == "link"
    assert cost.latency_s == pytest.approx(1.5 * 2**21 / 50e9 + 6e-6 + 1.5e-6)


def test_collective_without_a_link_is_infeasible(make_device):
    device = make_device().model_copy(update={"link": None})
    with pytest.raises(InfeasibleError, match="link"):
        run(collective(), device)


def test_depthwise_convolution_is_honestly_slow(make_device):
    b = GraphBuilder("depthwise", "bf16")
    b.conv(b.input("x", 1, 112, 40, 25), 112, 3, groups=112)
    slow = {"memory.bandwidth": "100 TB/s", "dispatch": "0 s", "vector.ops_per_clock": 16}
    device = make_device(**slow)
    program, (cost,) = run(b.build(), device)
    used = program.kernels[0].flops / (cost.cycles_compute / 1e9) / device.peak_flop_per_s("bf16")
    assert used == pytest.approx(14 * 9 / 128**2, rel=0.05)
    assert "14 side by side" in cost.mapping


def test_depthwise_convolution_moves_to_the_vector_unit_where_that_is_faster(make_device):
    b = GraphBuilder("depthwise", "bf16")
    b.conv(b.input("x", 1, 112, 40, 25), 112, 3, groups=112, bias=False)
    program, (cost,) = run(b.build(), make_device(**{"memory.bandwidth": "100 TB/s"}))
    macs = program.kernels[0].flops / 2
    assert cost.cycles_compute == pytest.approx(macs / (1024 / 2))
    assert cost.bound == "vector"


def test_weight_only_formats_save_traffic_and_run_at_the_rate_of_the_activations(make_device):
    int4 = precision("int4")
    graph = one_matmul(512, 1024, 1024).map_tensors(
        lambda t: replace(t, precision=int4) if t.role == "weight" else t
    )
    (wide,), (narrow,) = run(one_matmul(512, 1024, 1024), make_device())[1], run(graph, make_device())[1]
    assert narrow.cycles_compute == wide.cycles_compute
    saved = wide.bytes_by_level["dram"] - narrow.bytes_by_level["dram"]
    assert saved == pytest.approx(1024 * 1024 * 1.5)


def test_activations_stay_on_chip_between_kernels(make_device):
    graph = block(batch=4)
    program, warm = run(graph, make_device(), cold=False)
    # What is left is the input, the weights and the result, which leaves at the end.
    least = graph.weight_bytes + sum(t.size_bytes for t in (*graph.inputs, *graph.outputs))
    moved = sum(c.bytes_by_level["dram"] for c in warm)
    assert moved == pytest.approx(least, rel=0.3)
    assert any("stay on chip" in note for note in program.notes)
    _, small = run(graph, make_device(**{"sram.capacity": "16 KiB"}), cold=False)
    assert sum(c.bytes_by_level["dram"] for c in small) > 3 * moved


def test_kept_weights_are_not_read_again(make_device):
    graph = block()
    device = make_device(**{"sram.keeps_weights": True})
    moved = [
        sum(c.bytes_by_level["dram"] for c in run(graph, d, cold=False)[1]) for d in (make_device(), device)
    ]
    products = sum(t.size_bytes for t in graph.weights)
    assert moved[0] - moved[1] == pytest.approx(products, rel=0.01)


def test_a_product_of_activations_may_swap_its_operands(make_device):
    """Decode: one query against 2048 keys. Held keys load for 128 cycles a fold; held queries stream them."""
    b = GraphBuilder("decode", "bf16")
    q = b.input("q", 1, 1, 1, 64)
    k, v = (b.input(n, 1, 1, 2048, 64) for n in "kv")
    b.attention(q, k, v)
    graph = b.build()
    fast = {"memory.bandwidth": "100 TB/s", "array.cols": 16}
    fixed, either = (
        run(graph, make_device(**fast, **{"array.swaps_operands": swap}))[1][0].cycles_compute
        for swap in (False, True)
    )
    assert either < fixed


def test_sparse_weights_run_faster_and_move_less(make_device):
    graph = one_matmul(4096, 1024, 1024, "int8")
    sparse = make_device(**{"array.sparse_speedup": 2.0})
    (dense,) = run(graph, sparse)[1]
    _, (half,) = run(graph, sparse, sparsity="2:4")
    assert dense.cycles_compute / half.cycles_compute == pytest.approx(2, rel=0.05)
    saved = dense.bytes_by_level["dram"] - half.bytes_by_level["dram"]
    assert saved == pytest.approx(1024 * 1024 * (1 - 0.5 * (1 + 2 / 8)))
    plain, (same,) = run(graph, make_device(), sparsity="2:4")
    assert same.cycles_compute == run(graph, make_device())[1][0].cycles_compute
    assert any("no sparse mode" in note for note in plain.notes)


def test_zero_weights_can_be_skipped(make_device):
    graph = one_matmul(4096, 1024, 1024).map_tensors(
        lambda t: replace(t, density=0.25) if t.role == "weight" else t
    )
    plain = run(graph, make_device())[1][0]
    skipping = run(graph, make_device(**{"array.skips_zeros": True}))[1][0]
    assert skipping.cycles_compute / plain.cycles_compute == pytest.approx(0.25, rel=0.1)
    assert skipping.energy_j["mac"] == pytest.approx(0.25 * plain.energy_j["mac"])


def test_too_little_on_chip_memory_is_infeasible(make_device):
    with pytest.raises(InfeasibleError) as caught:
        run(block(), make_device(**{"sram.capacity": "8 B"}))
    outcome = caught.value.outcome
    assert (outcome.reason, outcome.need, outcome.have) == ("sram", "12 B for one tile", "8 B")


def attention(tokens, causal=False, heads=8):
    b = GraphBuilder("attention", "bf16")
    q, k, v = (b.input(name, 1, heads, tokens, 64) for name in "qkv")
    b.attention(q, k, v, causal=causal)
    return b.build()


def test_attention_is_two_products_and_a_softmax_on_the_vector_unit(make_device):
    slow = make_device(**{"vector.ops_per_clock": 64})
    program, (cost,) = run(attention(512), slow)
    op = program.kernels[0].anchor
    assert cost.bound == "vector"
    assert cost.cycles_compute == pytest.approx(op.work.vector_ops / 64)
    fast = make_device(**{"vector.ops_per_clock": 1e6})
    _, (quick,) = run(attention(512), fast)
    # q k^T: 8 heads of 64 x 512 weights in 4 column folds; p v: 8 heads of 512 x 64 in 4 row folds; 512 beats
    # each.
    assert quick.cycles_compute == pytest.approx(2 * 8 * 4 * 512, rel=0.05)
    assert quick.bytes_by_level["dram"] == program.kernels[0].bytes_compulsory


def test_recurrent_steps_follow_each_other(make_device):
    def lstm(steps):
        x = Tensor("x", (steps, 1, 128), precision("bf16"), batch_axis=1)
        w = [Tensor(n, (4 * 128, 128), precision("bf16"), "weight") for n in ("w_ih", "w_hh")]
        y = Tensor("y", (steps, 1, 128), precision("bf16"), batch_axis=1)
        return Graph("lstm", [Op("lstm", "lstm", (x, *w), (y,), {"hidden": 128, "directions": 1})])

    fast = make_device(**{"memory.bandwidth": "100 TB/s"})
    ten, twenty = (run(lstm(s), fast)[1][0] for s in (10, 20))
    # A step: four column folds whose loads of 128 rows bound them, one beat and one drain.
    step = 128 * 4 + 1 + 254 + lstm(1)["lstm"].work.vector_ops / 1024
    assert twenty.cycles_compute - ten.cycles_compute == pytest.approx(10 * step, rel=0.01)


def test_energy_without_coefficients_is_unknown(make_device):
    device = make_device()
    bare = device.model_copy(update={"energy": type(device.energy)()})
    program, costs = run(block(), bare)
    assert all(math.isnan(c.energy_j["dram"]) for c in costs)
    assert costs[3].energy_j["mac"] == 0  # a pooling multiplies nothing
    assert any("no energy coefficient" in note for note in program.notes)


def test_supports_and_interval(make_device):
    device = make_device()
    assert ARRAY.precisions(device) == ("bf16", "int8")
    assert ARRAY.supports(device, "int8")
    assert not ARRAY.supports(device, "fp32")
    band = ARRAY.interval(*run(block(), device), 1e-3)
    assert band.low < 1e-3 < band.high
    assert "assumed" in band.basis


networks = st.builds(
    lambda build, batch, channels, size: build(batch, channels, size),
    st.sampled_from(
        [
            lambda batch, channels, size: block(batch, channels, size),
            lambda batch, channels, size: attention(size * batch, causal=True),
            lambda batch, channels, size: one_matmul(batch * size, 37 * channels, 11 * size),
        ]
    ),
    st.integers(1, 20),
    st.integers(1, 200),
    st.integers(3, 60),
)
devices = st.fixed_dictionaries(
    {
        "array.rows": st.integers(1, 300),
        "array.cols": st.integers(1, 300),
        "array.count": st.integers(1, 5),
        "array.dataflow": st.sampled_from(["ws", "os", "is", "rs"]),
        "array.double_buffered": st.booleans(),
        "memory.bandwidth": st.sampled_from(["1 GB/s", "100 GB/s", "5 TB/s"]),
        "sram.capacity": st.sampled_from(["8 KiB", "256 KiB", "16 MiB"]),
        "vector.ops_per_clock": st.sampled_from([8, 512]),
    }
)


@settings(max_examples=60, deadline=None)
@given(networks, devices)
def test_laws(make_device, graph, changes):
    device = make_device(**changes)
    program, tiled = run(graph, device)
    _, bound = run(graph, device, "analytic")
    _, event = run(graph, device, "event")
    assert [c.latency_s for c in event] == [c.latency_s for c in tiled]
    for index, (kernel, t, a) in enumerate(zip(program.kernels, tiled, bound)):
        assert t.latency_s >= a.latency_s * (1 - 1e-12)
        assert t.bytes_by_level["dram"] >= kernel.bytes_compulsory
        assert a.bytes_by_level["dram"] == kernel.bytes_compulsory
        assert t.bytes_by_level["sram"] >= t.bytes_by_level["dram"]
        assert all(part >= 0 for part in t.energy_j.values())
        assert f"{t.cycles_overhead:.4g} cycles" in ARRAY.explain(program, index, t)


@settings(max_examples=60, deadline=None)
@given(
    networks,
    devices,
    st.sampled_from(
        [
            {"memory.bandwidth": "6 TB/s"},
            {"array.clock": "2 GHz"},
            {"sram.capacity": "64 MiB"},
            {"array.count": 6},
            {"vector.ops_per_clock": 4096},
            {"memory.efficiency": 1.0},
            {"memory.capacity": "64 GiB"},
        ]
    ),
)
def test_more_is_never_slower(make_device, graph, changes, more):
    base, better = make_device(**changes), make_device(**{**changes, **more})
    for slow, fast in zip(run(graph, base)[1], run(graph, better)[1]):
        assert fast.latency_s <= slow.latency_s * (1 + 1e-12)


@settings(max_examples=40, deadline=None)
@given(networks, devices, st.booleans())
def test_a_warm_device_is_never_slower_and_never_beats_its_bound(make_device, graph, changes, keeps):
    device = make_device(**changes, **{"sram.keeps_weights": keeps})
    cold, warm = (run(graph, device, cold=c) for c in (True, False))
    assert latency(*warm) <= latency(*cold) * (1 + 1e-12)
    bound = run(graph, device, "analytic", cold=False)
    assert latency(*warm) >= latency(*bound) * (1 - 1e-12)


def test_occupancy_accounts_for_every_cycle(make_device):
    """Table 3 of the TPU v1 paper: late tiles shift in exposed, early ones behind the tile before."""
    device = make_device(**{"array.rows": 256, "array.cols": 256, "dispatch": "0 s", "memory.latency": "0 s"})
    for bandwidth, late in (("1 GB/s", True), ("100 TB/s", False)):
        program, costs = run(one_matmul(200, 1024, 1024), device.replace(**{"memory.bandwidth": bandwidth}))
        cycles = {part: float(v[0]) for part, v in occupancy(program).items()}
        assert sum(cycles.values()) == pytest.approx(costs[0].latency_s * costs[0].clock_hz)
        assert cycles["active"] == 16 * 200
        assert cycles["drain"] == 256 + 256 - 2
        assert cycles["shift"] == (16 * 256 if late else 256 + 15 * (256 - 200))
        assert (cycles["stall"] > 0) == late
        assert cycles["other"] == pytest.approx(0)
