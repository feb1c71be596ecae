"""The surface against the device model it is filled from, memory, and `serve` for language models."""

import math

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError
from accelsim.hardware.spec import load_hardware
from accelsim.serving import ClosedLoop, Speculative
from accelsim.serving.llm.machine import Formats, Machine, Split
from accelsim.serving.llm.memory import memory_of
from accelsim.serving.llm.shape import shape_of
from accelsim.serving.llm.surface import surface
from accelsim.serving.llm.work import StepWork


def work_of(model="llama-3.1-8b", device="h100-sxm", split=None, formats=None, stack="vllm"):
    return StepWork(
        shape_of(model), Machine(load_hardware(device), stack), formats or Formats(), split or Split()
    )


@pytest.fixture(scope="module")
def work():
    return work_of()


@pytest.fixture(scope="module")
def table(work):
    return surface(work, 8192, 256)


def point(value):
    return np.array([float(value)])


@pytest.mark.parametrize(("decoding", "context"), [(1, 100), (7, 900), (33, 1500), (100, 3333), (250, 700)])
def test_decode_steps_interpolate_within_two_percent(work, table, decoding, context):
    direct = (
        work.tokens(point(decoding)).seconds
        + work.sampled(point(decoding)).seconds
        + work.decode(point(decoding), point(context)).seconds
    )
    assert table.step_s(decoding, context) == pytest.approx(direct[0], rel=0.02)


@pytest.mark.parametrize(
    ("chunks", "each", "past"),
    [(1, 300, 0), (1, 5000, 0), (3, 900, 700), (12, 333, 0), (2, 2048, 3000)],
)
def test_prompt_steps_interpolate_within_two_percent(work, table, chunks, each, past):
    direct = (
        work.tokens(point(chunks * each)).seconds
        + work.sampled(point(chunks)).seconds
        + work.prefill(point(chunks), point(each), point(past)).seconds
    )
    found = table.step_s(chunks=chunks, new_tokens=chunks * each, past=past)
    assert found == pytest.approx(direct[0], rel=0.02)


def test_a_step_is_no_faster_than_its_weights(work, table):
    """Decoding one sequence reads every weight once."""
    least = work.weight_bytes() / work.machine.device.memory.bandwidth_bytes_per_s
    assert 0.9 * least < table.step_s(1, 512) < 2.5 * least


def test_weights_are_those_of_the_graph(work):
    graph = ax.load_workload("llama-3.1-8b", phase="decode", context=16)
    assert work.weight_bytes() == pytest.approx(graph.weight_bytes, rel=0.01)
    assert work.kv_bytes_per_token() == 32 * 2 * 8 * 128 * 2


def test_tensor_parallel_divides_weights_and_adds_collectives(work):
    two = work_of(split=Split(tensor=2))
    assert two.weight_bytes() == pytest.approx(work.weight_bytes() / 2, rel=0.01)
    assert two.kv_bytes_per_token() == work.kv_bytes_per_token() / 2
    one, half = work.tokens(point(4096)).seconds[0], two.tokens(point(4096)).seconds[0]
    assert 0.5 * one < half < 0.9 * one


def test_equal_requests_share_a_surface(work, table):
    assert surface(work, 8192, 256) is table


def test_cache_takes_what_weights_leave(work):
    m = memory_of(work, utilisation=0.9, block_size=16, max_tokens=8192, max_sequences=256, reserve=3e9)
    assert m.blocks == int((m.usable - m.weights - m.activations) // (m.token * 16))
    assert pytest.approx(m.usable) == 0.9 * 80e9 - 3e9


LOOP = {"prompt_tokens": 256, "output_tokens": 32}


def serve(model="llama-3.1-8b", device="h100-sxm", **options):
    given = {
        "arrivals": ClosedLoop(users=16, **LOOP),
        "batching": ax.ContinuousBatching("vllm", max_num_seqs=16, max_num_batched_tokens=2048),
        "requests": 64,
        **options,
    }
    return ax.serve(model, device, **given)


def test_serve_reports_tokens_latency_energy_and_cost():
    r = serve(slo={"ttft_s": 10.0, "tpot_s": 10.0})
    s = r.summary
    assert s["completed"] == 64
    assert r.run.tokens == 64 * 32
    assert s["output_tokens_per_s"] == pytest.approx(s["requests_per_s"] * 32)
    assert s["e2e_mean_s"] == pytest.approx(s["ttft_mean_s"] + 31 * s["tpot_mean_s"], rel=1e-6)
    assert s["goodput_per_s"] == pytest.approx(s["requests_per_s"])
    assert s["slo_attainment_pct"] == pytest.approx(100)
    assert 0.01 < s["energy_per_token_j"] < 10
    assert s["usd_per_million_tokens"] > 0


def test_engines_agree_through_the_front_door():
    a, b = serve(engine="simpy"), serve(engine="numba")
    assert (a.run.finish_ns == b.run.finish_ns).all()
    assert a.summary == pytest.approx(b.summary, nan_ok=True)


def test_data_parallel_ranks_share_the_users():
    one, two = serve(), serve(parallel={"data": 2}, arrivals=ClosedLoop(users=32, **LOOP))
    assert two.summary["devices"] == 2
    assert two.summary["output_tokens_per_s"] == pytest.approx(
        2 * one.summary["output_tokens_per_s"], rel=0.01
    )


def test_overload_is_noted():
    r = serve(arrivals=ax.Poisson(5000.0, **LOOP), requests=400)
    assert any("unstable" in n for n in r.notes)


def test_a_model_that_does_not_fit_says_what_it_needs():
    r = serve("llama-3.1-70b", "h100-sxm")
    assert not r.feasible
    assert "GB" in r.need
    assert "GB" in r.have


def test_a_prompt_beyond_the_cache_says_so():
    r = serve("llama-3.1-8b", "a10", arrivals=ClosedLoop(users=1, prompt_tokens=100_000, output_tokens=8))
    assert not r.feasible
    assert "100008 tokens" in r.need


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: ax.ContinuousBatching("vllm", max_num_seqs=0), "max_num_seqs"),
        (lambda: ax.ContinuousBatching("vlm"), "vllm"),
        (lambda: Speculative(0, 0.5), "draft"),
        (lambda: serve(arrivals=ax.Poisson(1.0)), "lengths"),
        (lambda: serve(parallel={"tensr": 2}), "tensor"),
        (lambda: serve(slo={"latency": 1.0}), "ttft_s"),
        (lambda: serve("resnet50"), "language model"),
    ],
)
def test_bad_input_is_named(wrong, words):
    with pytest.raises(AccelsimError) as error:
        wrong()
    assert words in str(error.value)


def test_longer_contexts_and_larger_batches_take_longer(table):
    steps = [table.step_s(d, c) for d, c in ((8, 512), (8, 4096), (128, 4096))]
    assert steps == sorted(steps)
    assert not any(math.isnan(s) for s in steps)


def test_norms_that_quantise_save_a_part_of_what_full_fusion_saves():
    """Products behind norms are about three quarters of a dense layer's; the rest keeps its quantisation."""
    separate, norms, fused = (
        work_of("llama-3.1-70b", "b200", Split(2), Formats("nvfp4", "nvfp4", **more), "trtllm")
        .tokens(point(64))
        .seconds[0]
        for more in ({}, {"fused_norms": True}, {"fused": True})
    )
    assert fused < norms < separate
