"""From graphs to kernels and costs: fusion by stack, precisions, memory, locality, energy, laws on whole
programs.
"""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.base import Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.architectures.gpu.tiles import TILES, tile_table
from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import precision
from accelsim.engine.simulate import simulate
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Op, Tensor

FP16 = precision("fp16")


def total(program, costs):
    return sum(c.latency_s * k.repeat for k, c in zip(program.kernels, costs))


def block(channels=64, size=14, default="fp16"):
    """conv, norm, relu, conv, norm, residual add, relu."""
    b = GraphBuilder("block", default)
    x = b.input("x", 1, channels, size, size)
    y = b.activation(b.batch_norm(b.conv(x, channels, 3)), "relu")
    y = b.batch_norm(b.conv(y, channels, 3))
    b.activation(b.add(y, x), "relu")
    return b.build(item="image")


def gemm(m, n, k, default="fp16"):
    b = GraphBuilder("gemm", default)
    b.linear(b.input("x", m, k), n, bias=False)
    return b.build()


def test_eager_launches_every_op_and_graph_fuses_epilogues(toy, run):
    eager, eager_costs = run(block(), toy, stack="eager")
    fused, fused_costs = run(block(), toy, stack="graph")
    assert len(eager.kernels) == 7
    assert [k.anchor.kind for k in fused.kernels] == ["conv", "conv"]
    assert all(c.latency_s >= 20e-6 * (1 - 1e-9) for c in eager_costs)
    assert all(c.bound == "launch" for c in eager_costs)
    assert total(fused, fused_costs) < total(eager, eager_costs)
    assert fused.kernels[1].after == (0,)


def test_tensorrt_chains_elementwise_and_norms(toy, run):
    b = GraphBuilder("chain", "fp16")
    x = b.input("x", 64, 256)
    y = b.activation(b.elementwise("mul", x, x), "silu")
    b.layer_norm(b.add(y, x))
    graph = b.build()
    assert len(run(graph, toy, stack="tensorrt")[0].kernels) < len(run(graph, toy, stack="graph")[0].kernels)


def test_free_ops_vanish(toy, run):
    b = GraphBuilder("free", "fp16")
    x = b.reshape(b.activation(b.input("x", 4, 16), "relu"), 16, 4)
    b.softmax(x)
    program, _ = run(b.build(), toy)
    assert [k.anchor.kind for k in program.kernels] == ["activation", "softmax"]


def test_unknown_stack_names_the_known_ones(toy):
    with pytest.raises(RequestError, match="graph"):
        ARCHITECTURE.lower(block(), toy, Options(stack="grph"))


def test_unsupported_precision_is_infeasible_and_names_a_wider_one(toy):
    with pytest.raises(InfeasibleError) as caught:
        ARCHITECTURE.lower(block(default="int4"), toy, Options())
    assert caught.value.outcome.reason == "precision"
    assert "int4" in caught.value.outcome.need
    assert "int8" in caught.value.outcome.hint
    assert ARCHITECTURE.precisions(toy) == ("fp32", "fp16", "int8")
    assert not ARCHITECTURE.supports(toy, "int4")


def test_weight_only_quantisation_computes_at_the_activation_rate(toy, run):
    def product(weight):
        x = Tensor("x", (1, 8192), FP16, batch_axis=0)
        w = Tensor("w", (8192, 8192), precision(weight), "weight")
        return Graph("g", [Op("mm", "matmul", (x, w), (Tensor("y", (1, 8192), FP16, batch_axis=0),))])

    wide, narrow = (run(product(p), toy, cold=True)[1][0] for p in ("fp16", "int4"))
    assert narrow.bytes_by_level["dram"] == pytest.approx(wide.bytes_by_level["dram"] / 4, rel=0.01)
    assert narrow.latency_s < wide.latency_s
    analytic, _ = run(product("int4"), toy, fidelity="analytic"), None
    assert analytic[1][0].cycles_compute / 1e9 == pytest.approx(2 * 8192**2 / 200e12)


def test_too_much_memory_is_infeasible_with_numbers(toy):
    outcome = simulate(gemm(16, 65536, 65536), toy)
    assert outcome.reason == "memory"
    assert "weights 8.59 GB" in outcome.need
    assert outcome.have == "8 GB per device"


def test_independent_operators_are_costed_alike(toy):
    ops = []
    for i in range(20):
        x = Tensor(f"x{i}", (16, 16384), FP16)
        w = Tensor(f"w{i}", (16384, 16384), FP16, "weight")
        ops.append(Op(f"op{i}", "matmul", (x, w), (Tensor(f"y{i}", (16, 16384), FP16),)))
    program = ARCHITECTURE.lower(Graph("operators", ops), toy, Options())
    assert len({c.latency_s for c in ARCHITECTURE.cost(program)}) == 1


def test_warm_caches_serve_fresh_activations(toy, run):
    cold, cold_costs = run(block(), toy, cold=True)
    _, warm_costs = run(block(), toy)
    assert sum(c.bytes_by_level["dram"] for c in warm_costs) < sum(
        c.bytes_by_level["dram"] for c in cold_costs
    )
    for kernel, c in zip(cold.kernels, cold_costs):
        assert c.bytes_by_level["dram"] >= kernel.bytes_compulsory * (1 - 1e-12)
    assert any("warm" in note for note in run(block(), toy)[0].notes)


def test_reading_a_tensor_keeps_it_in_the_cache(toy, run):
    """Of two readers after a kernel that swept the 40 MB cache, the first fetches the tensor and the second
    finds it there.
    """
    b = GraphBuilder("readers", "fp16")
    y = b.activation(b.input("x", 4, 1024, 1024))
    b.activation(b.input("swept", 16, 1024, 1024))
    b.activation(y)
    b.activation(y)
    _, (_, _, first, second) = run(b.build(), toy, stack="eager")
    assert first.bytes_by_level["dram"] == pytest.approx(2 * 4 * 2**20)
    assert second.bytes_by_level["dram"] == 0


def test_weights_that_fit_the_cache_return_for_a_lone_operator(toy, run):
    small, large = gemm(1, 1024, 1024), gemm(1, 8192, 8192)
    assert run(small, toy)[1][0].bytes_by_level["dram"] == 0
    assert run(large, toy)[1][0].bytes_by_level["dram"] >= 2 * 8192**2


def test_depthwise_convolution_runs_on_the_vector_lanes(toy, run):
    b = GraphBuilder("dw", "fp16")
    b.conv(b.input("x", 1, 512, 56, 56), 512, 3, groups=512)
    graph = b.build()
    _, (cost,) = run(graph, toy, cold=True)
    assert cost.mapping == "depthwise, stream"
    assert cost.bound in ("memory", "l2", "compute")
    assert cost.latency_s >= graph.bytes_compulsory / 1e12


def test_first_convolution_pays_for_padded_channels(toy, run):
    def conv(channels):
        b = GraphBuilder("stem", "fp16")
        b.conv(b.input("x", 32, channels, 224, 224), 64, 7, stride=2)
        return b.build()

    three, eight = (run(conv(c), toy)[1][0].cycles_compute for c in (3, 8))
    assert three == pytest.approx(eight, rel=0.02)


def test_sparse_weights_speed_up_but_not_beyond_the_device_factor(toy, run):
    dense, sparse = (run(gemm(4096, 4096, 4096), toy, sparsity=s)[1][0].latency_s for s in ("dense", "2:4"))
    assert dense / 2 <= sparse < dense


def test_recurrent_layers_run_step_by_step(toy, run):
    def lstm(steps):
        x = Tensor("x", (steps, 1, 256), FP16, batch_axis=1)
        w = [Tensor(n, (1024, 256), FP16, "weight") for n in ("w_ih", "w_hh")]
        y = Tensor("y", (steps, 1, 256), FP16, batch_axis=1)
        return Graph("lstm", [Op("lstm", "lstm", (x, *w), (y,), {"hidden": 256})])

    short, long = (run(lstm(t), toy)[1][0].latency_s for t in (10, 110))
    step = (long - short) / 100
    assert 1e-6 < step < 20e-6
    assert long > 100 * step


def test_attention_prefill_is_compute_and_decode_is_memory(toy, run):
    def attention(tokens, keys, role, heads=32, shared=8):
        b = GraphBuilder("a", "fp16")
        q = b.input("q", 4, heads, tokens, 128)
        k, v = (b.input(n, 4, shared, keys, 128, role=role) for n in "kv")
        b.attention(q, k, v, causal=True)
        return b.build()

    _, (prefill,) = run(attention(2048, 2048, "activation"), toy, stack="trtllm")
    assert prefill.bound == "compute"
    _, (decode,) = run(attention(1, 16384, "kv"), toy)
    assert decode.bound == "memory"
    cache = 2 * 4 * 8 * 16384 * 128 * 2
    assert cache / 1e12 <= decode.latency_s <= 1.6 * cache / 1e12
    full = GraphBuilder("full", "fp16")
    q, k, v = (full.input(n, 4, 32, 2048, 128) for n in "qkv")
    full.attention(q, k, v)
    _, (dense,) = run(full.build(), toy, stack="trtllm")
    assert 0.45 < prefill.latency_s / dense.latency_s < 0.75  # a causal mask leaves half the work


def test_split_keys_fill_the_machine(toy, run):
    b = GraphBuilder("a", "fp16")
    q = b.input("q", 1, 8, 1, 128)
    k, v = (b.input(n, 1, 1, 131072, 128, role="kv") for n in "kv")
    b.attention(q, k, v)
    _, (cost,) = run(b.build(), toy)
    assert int(cost.mapping.split()[-3]) > 1


def test_collectives_take_the_link(toy, run):
    x, y = (Tensor(n, (1024, 4096), FP16, batch_axis=0) for n in "xy")
    op = Op("ar", "all_reduce", (x,), (y,), {"devices": 4})
    program, (cost,) = run(Graph("g", [op]), toy)
    assert program.kernels[0].lane == "link"
    # Eight MiB over four devices: the ring of large messages wins, at six steps of a quarter each.
    ring = toy.kernels.collective["other"]["up_to_8"].ring["simple"]
    part = 1024 * 4096 * 2 / 4
    moved_s = part * (6 + ring.copies) / (ring.efficiency * 100e9)
    assert cost.latency_s == pytest.approx(ring.fixed_s + 6 * ring.step_s + moved_s)
    assert cost.bound == "link"


def test_energy_sums_its_parts_and_is_nan_without_coefficients(toy, run):
    graph = gemm(512, 512, 512)
    _, (cost,) = run(graph, toy, cold=True)
    model = toy.kernels.power["product"]
    assert cost.energy_j["mac"] == pytest.approx(512**3 * 0.5e-12 * model.mac)
    assert cost.energy_j["dram"] == pytest.approx(cost.bytes_by_level["dram"] * 30e-12 * model.dram)
    assert set(cost.energy_j) == {"active", "mac", "vector", "dram", "sram"}
    _, (quantised,) = run(gemm(512, 512, 512, "int8"), toy)
    assert math.isnan(quantised.energy_j["mac"])


def test_cycles_add_up_to_the_latency(toy, run):
    program, costs = run(block(), toy)
    for index, c in enumerate(costs):
        assert c.cycles_overhead >= 0
        assert c.latency_s == pytest.approx(
            (max(c.cycles_compute, c.cycles_memory) + c.cycles_overhead) / c.clock_hz
        )
        assert "us" in ARCHITECTURE.explain(program, index, c)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.sampled_from([3, 8, 48, 256]),
    size=st.sampled_from([7, 28, 112]),
    batch=st.sampled_from([1, 3, 16]),
    default=st.sampled_from(["fp16", "int8", "fp32"]),
    stack=st.sampled_from(["eager", "graph", "tensorrt"]),
)
def test_tile_is_never_below_analytic(toy, channels, size, batch, default, stack):
    graph = block(channels, size, default).with_batch(batch)
    options = {"stack": stack, "cold": True, "governor": False}
    tile = ARCHITECTURE.lower(graph, toy, Options(**options))
    bound = ARCHITECTURE.cost(ARCHITECTURE.lower(graph, toy, Options(fidelity="analytic", **options)))
    for kernel, c, b in zip(tile.kernels, ARCHITECTURE.cost(tile), bound):
        assert c.latency_s >= b.latency_s * (1 - 1e-12), kernel.name
        peak = toy.peak_flop_per_s(default)
        roofline_s = max(kernel.flops / peak, kernel.bytes_compulsory / 1e12)
        if default == "fp32" and kernel.anchor.kind == "conv":  # Winograd needs a quarter of the arithmetic
            assert roofline_s / 4 * (1 - 1e-12) <= b.latency_s <= roofline_s * (1 + 1e-12)
        else:
            assert b.latency_s == pytest.approx(roofline_s)


def test_tiles_fit_shared_memory_registers_and_threads(toy):
    table = tile_table(toy, 2.0, 2.0)
    for (tile_m, tile_n), (_, _, step, stages, blocks, _) in zip(TILES, table):
        assert stages * blocks * (tile_m + tile_n) * 2 * step <= toy.sm.shared_memory_bytes
        assert blocks == 1 or blocks * tile_m * tile_n <= toy.sm.registers
    assert table[TILES.index((64, 64)), 4] > table[TILES.index((256, 128)), 4]


def test_importing_the_architecture_does_not_import_numba():
    code = "import accelsim.architectures.gpu, sys; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
