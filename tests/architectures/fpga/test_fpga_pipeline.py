"""Whole pipelines: published builds, laws, refusals."""

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.architectures.base import Options
from accelsim.architectures.fpga import ARCHITECTURE
from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import precision
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.load import load_workload

# (PE, SIMD) of the nine matrix units of BNN-PYNQ's cnvW1A1 and cnvW1A2 (Xilinx/BNN-PYNQ,
# bnn/src/network/*/hw/config.h), and their cycles; the last layer is padded to 64 outputs.
CNV = [(16, 3), (32, 32), (16, 32), (16, 32), (4, 32), (1, 32), (1, 4), (1, 8), (4, 1)]
CNV_CYCLES = [32400, 28224, 20736, 28800, 20736, 18432, 32768, 32768, 8192]
# Measured with batch 10,000 and with one image at 300 MHz (BNN-PYNQ notebooks CNV-QNN_Cifar10*.ipynb). The
# clock was inferred.
CNV_FPS = {1: 9149.98, 2: 9150.5}
CNV_LATENCY_S = {1: 527e-6, 2: 543e-6}
# finn-examples build/vgg10-radioml: folding, 250 MHz, 236 M samples/s of 1,024-sample frames.
VGG10 = [(32, 6), (16, 96), (8, 96), (4, 96), (2, 96), (1, 96), (1, 96), (2, 32), (1, 32), (1, 8)]
TFC = [(16, 49), (8, 8), (8, 8), (10, 8)]  # finn-examples tfc-w1a1


def run(graph, board, folding=None, **options):
    program = ARCHITECTURE.lower(graph, board, Options(folding=folding, **options))
    costs = ARCHITECTURE.cost(program)
    return program, costs, ARCHITECTURE.pipeline(program, costs)


def cnv(activation_bits):
    from accelsim.workload.builders.finn import build

    parameters = {
        "inputs": [3, 32, 32],
        "convolutions": [64, 64, "pool", 128, 128, "pool", 256, 256],
        "dense": [512, 512, 64],
        "weight_bits": 1,
        "activation_bits": activation_bits,
    }
    return build("cnv", parameters, None, None)


def as_int(graph, name="int8"):
    fmt = precision(name)
    return graph.map_tensors(lambda t: t if t.precision.is_integer else replace(t, precision=fmt))


@pytest.fixture(scope="module")
def ultra96(make_board):
    return make_board(
        **{
            "fabric.lut": 70560,
            "fabric.dsp": 360,
            "fabric.bram36": 216,
            "fabric.uram": 0,
            "dataflow.clock": "300 MHz",
            "memory.bandwidth": "4.3 GB/s",
        }
    )


@pytest.mark.parametrize("activation_bits", [1, 2])
def test_cnv_at_its_published_folding(ultra96, activation_bits):
    program, costs, one = run(cnv(activation_bits), ultra96, CNV)
    matrix = [c.cycles_compute for k, c in zip(program.kernels, costs) if k.anchor.kind in ("conv", "matmul")]
    assert matrix == CNV_CYCLES
    assert program.parameters["interval_cycles"] == 32768
    batch = 10000
    _, _, many = run(cnv(activation_bits).with_batch(batch), ultra96, CNV)
    assert batch / many.latency_s == pytest.approx(CNV_FPS[activation_bits], rel=0.01)
    # one image: short of the measurement, whose host time is not in it, and far from the sum of the layers
    assert 0.8 * CNV_LATENCY_S[activation_bits] < one.latency_s < CNV_LATENCY_S[activation_bits]
    assert one.latency_s < 0.7 * sum(CNV_CYCLES) / 300e6


@pytest.mark.parametrize(("activation_bits", "luts"), [(1, 26072), (2, 40321)])
def test_cnv_logic_against_the_implemented_designs(ultra96, activation_bits, luts):
    """Post-implementation totals on the XC7Z020 (BNN-PYNQ README files), shell included."""
    program, _, _ = run(cnv(activation_bits), ultra96, CNV)
    assert program.parameters["resources"]["lut"] == pytest.approx(luts, rel=0.25)


def test_vgg10_of_the_radio_example(make_board):
    board = make_board(**{"dataflow.clock": "250 MHz"})
    program, _, timing = run(load_workload("finn-vgg10"), board, VGG10)
    assert (
        program.parameters["interval_cycles"] == 1026 + 2
    )  # the first window generator, not the 1,024 of the units
    assert 1 / timing.interval_s == pytest.approx(230.5e3, rel=0.06)


def test_small_perceptron_is_bound_by_its_dma(make_board):
    board = make_board(**{"dataflow.dma_bits": 32})
    program, costs, timing = run(load_workload("finn-tfc"), board, TFC)
    cycles = {k.name: c.cycles_compute for k, c in zip(program.kernels, costs)}
    assert [cycles[f"fc{i}"] for i in range(4)] == [64, 64, 64, 8]
    assert cycles["input.dma_in"] == 784 * 8 / 32
    assert timing.interval_s == pytest.approx(196 / 200e6)


def small(groups=1, size=12, batch=1):
    b = GraphBuilder("small", "int8")
    x = b.input("x", 1, 8, size, size)
    y = b.activation(b.batch_norm(b.conv(x, 16, 3)))
    z = b.activation(b.conv(y, 16, 3, groups=16 if groups > 1 else 1))
    z = b.pool(b.add(z, y), "max", 2)
    b.linear(b.flatten(b.global_pool(z)), 10)
    return b.build(item="image").with_batch(batch)


def test_fused_ops_share_a_stage_and_the_ends_are_dma(make_board):
    program, costs, _ = run(small(), make_board())
    names = [k.name for k in program.kernels]
    assert names[0] == "x.dma_in"
    assert names[-1] == "linear.dma_out"
    first = program.kernels[1]
    assert [op.kind for op in first.ops] == ["conv", "batch_norm", "activation"]
    assert "PE" in costs[1].mapping
    assert program.style == "pipeline"
    # only the ends touch DRAM, with just their tensors
    moved = {k.name: (c.bytes_by_level["dram"], k.bytes_compulsory) for k, c in zip(program.kernels, costs)}
    assert moved["x.dma_in"] == (8 * 144, 8 * 144)
    assert moved["linear.dma_out"] == (10, 10)
    assert sum(m for m, _ in moved.values()) == 8 * 144 + 10
    assert math.fsum(k.flops for k in program.kernels) == small().flops


def test_batches_follow_the_first_frame_and_the_interval(make_board):
    """T(b) = driver + T(1) + (b - 1) II, for one design."""
    folding = [(4, 8), (4, 8), (2, 4)]
    one = run(small(), make_board(), folding)[2]
    for batch in (2, 7, 1000):
        program, costs, timing = run(small(batch=batch), make_board(), folding)
        assert timing.interval_s == one.interval_s == max(c.latency_s for c in costs)
        assert timing.latency_s == pytest.approx(one.latency_s + (batch - 1) * one.interval_s)
        for kernel, start, finish in zip(program.kernels, timing.start_s, timing.finish_s):
            assert 10e-6 * (1 - 1e-12) <= start < finish <= timing.latency_s * (1 + 1e-12), kernel.name


nets = st.builds(
    lambda bits, groups, size, batch: as_int(small(groups, size, batch), f"int{bits}"),
    st.sampled_from([8, 4]),
    st.sampled_from([1, 16]),
    st.sampled_from([6, 12, 20]),
    st.sampled_from([1, 5]),
)
LAWS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@LAWS
@given(graph=nets)
def test_tile_is_never_below_analytic(make_board, graph):
    _, costs, tile = run(graph, make_board())
    program, least, bound = run(graph, make_board(), fidelity="analytic")
    assert tile.latency_s >= bound.latency_s
    assert tile.interval_s >= bound.interval_s
    for kernel, c, a in zip(program.kernels, costs, least):
        assert c.latency_s >= a.latency_s
        assert c.bytes_by_level["dram"] >= kernel.bytes_compulsory


@LAWS
@given(
    graph=nets,
    path=st.sampled_from(["lut", "dsp", "bram36", "uram", "bandwidth", "clock", "dma"]),
    factor=st.sampled_from([1.1, 2.0, 5.0]),
    luts=st.sampled_from([12000, 30000, 200000]),
)
def test_more_of_anything_is_never_slower(make_board, graph, path, factor, luts):
    small_board = {
        "fabric.lut": luts,
        "fabric.dsp": 100,
        "fabric.bram36": 20,
        "fabric.uram": 2,
        "memory.bandwidth": "1 GB/s",
    }
    change = {
        "bandwidth": {"memory.bandwidth": f"{factor} GB/s"},
        "clock": {"dataflow.clock": f"{200 * factor} MHz"},
        "dma": {"dataflow.dma_bits": 512},
    }.get(path, {f"fabric.{path}": round(small_board.get(f"fabric.{path}", 0) * factor)})
    before, after = run(graph, make_board(**small_board)), run(graph, make_board(**{**small_board, **change}))
    assert after[2].latency_s <= before[2].latency_s * (1 + 1e-12)


def test_resources_never_exceed_the_board(make_board):
    for luts in (12000, 40000, 200000):
        used = run(small(), make_board(**{"fabric.lut": luts}))[0].parameters["resources"]
        for name in ("lut", "dsp", "bram36", "uram"):
            assert 0 <= used[name] <= used[f"{name}_available"]


def test_intel_parts_count_their_own_blocks(make_board):
    board = make_board(
        **{"fabric.technology": "agilex", "fabric.alm": 400000, "fabric.m20k": 7000, "fabric.dsp": 4000}
    )
    used = run(small(), board)[0].parameters["resources"]
    assert {"alm", "m20k", "dsp", "ff"} <= set(used)
    assert "lut" not in used


def test_energy_is_unknown_without_coefficients(make_board):
    _, costs, _ = run(small(), make_board())
    assert math.isnan(costs[1].energy_j["mac"])
    assert costs[1].energy_j["dram"] == 0.0
    known = make_board(**{"energy.mac": {"int8": "2 pJ"}})
    conv = next(k for k in run(small(), known)[0].kernels if k.anchor.kind == "conv")
    _, costs, _ = run(small(), known)
    assert costs[1].energy_j["mac"] == pytest.approx(conv.flops / 2 * 2e-12)


def test_float_models_are_refused_with_the_formats_that_work(make_board):
    graph = small().map_tensors(lambda t: replace(t, precision=precision("fp16")))
    with pytest.raises(InfeasibleError) as caught:
        run(graph, make_board())
    outcome = caught.value.outcome
    assert outcome.reason == "precision"
    assert "fp16" in outcome.need
    assert "int4" in outcome.have


def test_unsupported_operators_and_large_weights_are_refused(make_board):
    b = GraphBuilder("big", "int8")
    b.matmul(b.input("x", 1, 64, 4096), b.input("y", 1, 4096, 4096))
    with pytest.raises(InfeasibleError) as caught:
        run(b.build(), make_board())
    assert caught.value.outcome.reason == "resources"
    assert "BRAM36" in caught.value.outcome.need
    b = GraphBuilder("top", "int8")
    b.op("topk", [b.linear(b.input("x", 1, 64), 64)], (1, 8), (1, 8), k=8)
    with pytest.raises(InfeasibleError) as caught:
        run(b.build(), make_board())
    assert caught.value.outcome.reason == "operator"
    assert "topk" in caught.value.outcome.need


def test_batches_that_memory_cannot_hold_are_refused(make_board):
    with pytest.raises(InfeasibleError) as caught:
        run(small(batch=2**21), make_board())
    assert caught.value.outcome.reason == "memory"


def test_attention_runs_as_two_products_with_a_softmax_between(make_board):
    b = GraphBuilder("attention", "int8")
    q, k, v = (b.input(n, 1, 2, 16, 8) for n in "qkv")
    b.attention(q, k, v)
    graph = b.build(item="sequence")
    program, costs, timing = run(graph, make_board())
    kernel = next(k for k in program.kernels if k.anchor.kind == "attention")
    assert kernel.parameters["stages"] == ["attention.scores", "attention.softmax", "attention.values"]
    assert kernel.flops == graph.flops
    assert timing.latency_s >= max(c.latency_s for c in costs)


def test_repeated_layers_are_stages_of_their_own(make_board):
    def net(times):
        b = GraphBuilder("stack", "int8")
        x = b.input("x", 1, 64)
        with b.repeated(times):
            x = b.activation(b.linear(x, 64, bias=False))
        b.linear(x, 10)
        return b.build()

    one, three = run(net(1), make_board()), run(net(3), make_board())
    assert len(three[0].kernels) == len(one[0].kernels) + 2
    assert math.fsum(k.flops for k in three[0].kernels) == net(3).flops
    starts = dict(zip((k.name for k in three[0].kernels), three[2].start_s))
    assert starts["linear[0]"] < starts["linear[1]"] < starts["linear[2]"] < starts["linear_1"]


def test_adjacent_blocks_that_repeat_equally_often_run_one_after_the_other(make_board):
    """Three times a, then three times b: not a, b, a, b ..."""
    b = GraphBuilder("blocks", "int8")
    x = b.input("x", 1, 64)
    for stem in ("a", "b"):
        with b.repeated(3):
            x = b.activation(b.linear(x, 64, bias=False, stem=stem))
            x = b.activation(b.linear(x, 64, bias=False, stem=stem))
    b.linear(x, 10)
    program, _, timing = run(b.build(), make_board())
    order = [k.name for k in program.kernels if k.anchor.kind == "matmul"]
    expected = [f"{stem}{i}[{copy}]" for stem in "ab" for copy in range(3) for i in ("", "_1")]
    assert order[:-1] == expected
    starts = dict(zip((k.name for k in program.kernels), timing.start_s))
    assert [starts[name] for name in expected] == sorted(starts[name] for name in expected)


def test_a_reshape_at_the_end_still_leaves_the_chip(make_board):
    b = GraphBuilder("tail", "int8")
    b.reshape(b.linear(b.input("x", 1, 64), 32), 1, 4, 8)
    program, costs, _ = run(b.build(), make_board())
    assert costs[-1].bytes_by_level["dram"] == 32
    assert program.kernels[-1].name.endswith("dma_out")


def test_precisions_and_folding_of_overlays(make_board, make_overlay):
    assert ARCHITECTURE.supports(make_board(), "int4")
    assert not ARCHITECTURE.supports(make_board(), "fp16")
    assert ARCHITECTURE.precisions(make_overlay()) == ("int8",)
    with pytest.raises(RequestError, match="no folding"):
        ARCHITECTURE.lower(small(), make_overlay(), Options(folding=[(1, 1)]))


def test_a_larger_batch_of_resnet50_keeps_its_interval(make_board):
    board = make_board(
        **{"fabric.lut": 1728000, "fabric.dsp": 12288, "fabric.bram36": 2688, "fabric.uram": 1280}
    )
    graph = as_int(load_workload("resnet50"))
    first = run(graph, board)
    again = run(graph.with_batch(8), board)
    assert again[2].interval_s <= first[2].interval_s
    assert first[0].parameters["interval_cycles"] >= first[0].parameters["interval_bound_cycles"]
