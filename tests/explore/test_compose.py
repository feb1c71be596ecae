"""Composed inferences: parts add up, passes and screens count as they should, transfers follow from bytes."""

from __future__ import annotations

import math
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.engine import confidential_query
from accelsim.hardware.protection import multiplier_of, protection_evidence, seal_of
from accelsim.techniques import Confidential, Encrypted, OutputNoise, Screen, Smoothing, Vote
from accelsim.techniques.security import Traffic, sealed_s, traffic

MEASURES = {
    "screen": Screen(rejects=0.25),
    "detector": Screen("mobilenet-v2"),
    "smoothing": Smoothing(10, together=4),
    "vote": Vote(["resnet18"]),
    "noise": OutputNoise(),
    "mpc": Encrypted("mpc"),
    "confidential": Confidential(),
}


@cache
def composed(names, device):
    return ax.compose("resnet18", device, [MEASURES[n] for n in sorted(names)], precision="int8")


@settings(max_examples=15)
@given(st.sets(st.sampled_from(sorted(MEASURES))), st.sampled_from(["jetson-orin", "zcu104-dpu"]))
def test_parts_add_up_and_a_measure_never_makes_it_faster(names, device):
    found = composed(frozenset(names), device)
    row = found.summary
    assert found.latency_s == pytest.approx(sum(p.latency_s for p in found.parts))
    assert row["energy_per_item_j"] == pytest.approx(sum(p.energy_j for p in found.parts))
    assert row["latency_low_s"] <= row["latency_s"] <= row["latency_high_s"]
    assert row["robustness"] == "unknown"
    for name in names:
        without = composed(frozenset(names - {name}), device)
        assert without.latency_s <= found.latency_s * (1 + 1e-9)


def test_without_measures_it_is_the_model_itself():
    found = ax.compose("resnet50", "h100-sxm", batch=4, precision="fp16")
    alone = ax.simulate("resnet50", "h100-sxm", batch=4, precision="fp16").summary
    for name in ("latency_s", "throughput_per_s", "energy_per_item_j"):
        assert found.summary[name] == pytest.approx(alone[name])
    assert found.overhead == 0


def test_quantised_screened_and_confidential_on_an_edge_fpga_is_one_call():
    found = ax.compose("mobilenet-v2", "zcu104-dpu", [Screen(), Confidential()], precision="int8")
    assert [p.name for p in found.parts] == ["input validation", "model", "encrypted transfers"]
    assert found.summary["usd_per_million_items"] > 0


def test_explained_quantised_and_confidential_on_an_edge_fpga_is_one_call():
    found = ax.compose(
        "resnet18",
        "zcu104-dpu",
        Confidential(),
        explain_with={"method": "kernel_shap", "steps": 20},
        precision="int8",
    )
    alone = ax.explain("resnet18", "zcu104-dpu", "kernel_shap", steps=20, precision="int8")
    assert [p.name for p in found.parts] == ["model", "explanation", "encrypted transfers"]
    assert found.part("explanation").latency_s == pytest.approx(alone.latency_s)
    assert found.part("explanation").energy_j == pytest.approx(alone.energy_j)
    seal = seal_of(ax.load_hardware("zcu104-dpu"))
    # image and answer of the model, the map of the explanation; it runs once for the model and in its batches
    size = (2 * 3 * 224 * 224 + 1000) * 2
    runs = 1 + sum(row["runs"] for row in alone.rows)
    by_hand = size * (1 / 0.8e9 - 1 / 4e9) + 3 * seal.copy_s + runs * seal.launch_s
    assert found.part("encrypted transfers").latency_s == pytest.approx(by_hand)


@pytest.mark.parametrize("device", ["jetson-orin", "zcu104-dpu", "edge-tpu", "loihi"])
def test_one_model_explained_and_private_on_four_kinds_of_device(device):
    found = ax.compose(
        "keyword-spotting",
        device,
        [Screen(), Confidential(), OutputNoise()],
        explain_with={"method": "kernel_shap", "steps": 16},
        precision="int8",
    )
    assert found.summary["energy_per_item_j"] == pytest.approx(sum(p.energy_j for p in found.parts))
    assert found.part("explanation").energy_j > found.part("model").energy_j
    checks = found.part("input validation")
    assert ("on the host" in checks.basis) == (device == "loihi")
    assert checks.latency_s > 0


def test_gradients_need_a_format_that_the_device_has():
    found = ax.compose("resnet18", "zcu104-dpu", explain_with="saliency", precision="int8")
    assert (found.feasible, found.reason) == (False, "precision")


def test_smoothing_runs_its_passes_in_batches():
    found = ax.compose("resnet18", "jetson-orin", Smoothing(10, together=4), precision="fp16")
    four, two = (ax.simulate("resnet18", "jetson-orin", batch=b, precision="fp16").summary for b in (4, 2))
    assert found.latency_s == pytest.approx(2 * four["latency_s"] + two["latency_s"])
    assert found.part("model").runs == 3


def test_what_a_screen_refuses_takes_no_more_time_or_energy():
    whole, half = (
        ax.compose("resnet50", "jetson-orin", Screen("mobilenet-v2", rejects=r)) for r in (0.0, 0.5)
    )
    assert half.latency_s == whole.latency_s
    assert half.part("model").energy_j == pytest.approx(0.5 * whole.part("model").energy_j)
    assert half.part("detector").energy_j == whole.part("detector").energy_j
    assert half.summary["throughput_per_s"] > whole.summary["throughput_per_s"]


def test_encrypted_transfers_follow_from_bytes_copies_and_submissions():
    seal = seal_of(ax.load_hardware("h100-sxm"))
    graph = ax.load_workload("resnet50")
    moved = traffic(graph, 8, "graph", 1, 100)
    image, answer = 3 * 224 * 224 * 2, 1000 * 2
    assert moved == Traffic(8 * (image + answer), 2, 1)
    by_hand = 8 * (image + answer) * (1 / 4e9 - 1 / 50e9) + 2 * 20e-6 + 5e-6
    assert sealed_s(moved, seal) == pytest.approx(by_hand)
    found = ax.compose("resnet50", "h100-sxm", Confidential(), batch=8, precision="fp16")
    assert found.part("encrypted transfers").latency_s == pytest.approx(by_hand)
    assert traffic(graph, 8, "eager", 1, 100).launches == 100


@given(st.floats(0, 1e9), st.integers(1, 50), st.integers(1, 500), st.sampled_from(["h100-sxm", "edge-tpu"]))
def test_more_traffic_never_costs_less(size, copies, launches, device):
    seal = seal_of(ax.load_hardware(device))
    least = sealed_s(Traffic(size, copies, launches), seal)
    assert 0 < least <= sealed_s(Traffic(2 * size, copies + 1, launches + 1), seal)


def test_confidential_queries_cost_under_seven_percent_and_less_with_length():
    shares = [
        confidential_query("llama-3.1-8b", "h100-sxm", prompt=n, output=n) for n in (64, 256, 1024, 4096)
    ]
    overheads = [row["overhead_pct"] for row in shares]
    assert overheads == sorted(overheads, reverse=True)
    assert all(row["overhead_high_pct"] < 7 for row in shares)
    longer = [
        confidential_query("llama-3.1-8b", "h100-sxm", prompt=n, output=16)["overhead_pct"]
        for n in (128, 1024, 8192)
    ]
    assert longer == sorted(longer, reverse=True)


def test_passes_on_noise_that_the_device_makes_cross_once():
    one, ten = (
        ax.compose("resnet18", "jetson-orin", [Smoothing(n, together=1), Confidential()]) for n in (1, 10)
    )
    seal = seal_of(ax.load_hardware("jetson-orin"))
    more = ten.part("encrypted transfers").latency_s - one.part("encrypted transfers").latency_s
    assert more == pytest.approx(9 * seal.launch_s)


def test_a_query_is_made_of_its_passes():
    one = confidential_query("llama-3.1-8b", "h100-sxm", prompt=100, output=1)
    whole = ax.compose("llama-3.1-8b", "h100-sxm", Confidential(), phase="prefill", context=100, stack="vllm")
    assert one["added_s"] == pytest.approx(whole.part("encrypted transfers").latency_s)
    assert one["overhead_pct"] == pytest.approx(100 * whole.overhead)


def test_every_number_of_the_protection_file_says_that_it_is_assumed():
    assert {q.status for q in protection_evidence().values()} == {"assumed"}
    held = multiplier_of("homomorphic")
    assert held.low < held.typical < held.high


def test_encryption_multiplies_everything_and_keeps_its_range():
    found = ax.compose("resnet18", "h100-sxm", Encrypted("mpc"))
    alone = found.part("model").latency_s
    part = found.part("two-party computation")
    assert found.latency_s == pytest.approx(1e3 * alone)
    assert (part.low_s, part.high_s) == pytest.approx((99 * alone, 9999 * alone))


def test_what_does_not_fit_is_infeasible():
    found = ax.compose("llama-3.1-70b", "edge-tpu", Confidential(), phase="decode", context=10)
    assert (found.feasible, found.reason) == (False, "memory")
    assert found.summary["hardware"] == "edge-tpu"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ax.compose("resnet18", "t4", ["confidential"]), "no measure"),
        (lambda: ax.compose("resnet18", "t4", [Confidential(), Confidential()]), "twice"),
        (lambda: Screen(rejects=1.0), "rejects 1.0"),
        (lambda: Smoothing(0), "passes 0"),
        (lambda: Vote("resnet18"), "list of further models"),
        (lambda: Encrypted("rot13"), "unknown scheme 'rot13'"),
        (lambda: confidential_query("llama-3.1-8b", "h100-sxm", prompt=0, output=1), "prompt 0"),
        (lambda: ax.compose("resnet18", "t4").part("moat"), "no part 'moat'"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(RequestError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_energy_of_the_transfers_is_static_power_and_encryption():
    found = ax.compose("resnet18", "jetson-orin", Confidential(), precision="int8")
    part, s = found.part("encrypted transfers"), found.plain.summary
    seal = seal_of(ax.load_hardware("jetson-orin"))
    size = traffic(ax.load_workload("resnet18"), 1, "graph", 1, 1).size_bytes
    assert part.energy_j == pytest.approx(part.latency_s * s["power_static_w"] + size * seal.byte_j)
    assert math.isfinite(part.energy_j)
