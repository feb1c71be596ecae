"""Explanations cost what their passes cost, batched as tools batch them."""

from __future__ import annotations

import math

import pytest

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.explore.explain import METHODS
from accelsim.explore.slo import explained_share
from accelsim.workload import backward


def test_integrated_gradients_is_fifty_times_forward_and_backward() -> None:
    graph = ax.load_workload("resnet50")
    found = ax.explain("resnet50", "t4", "integrated_gradients", steps=50)
    assert found.flops == pytest.approx(50 * (graph.flops + backward(graph).flops), rel=1e-12)
    from accelsim.workload.autograd import together

    unit = together(graph, backward(graph))
    whole = ax.simulate(unit, "t4", batch=50)
    assert found.latency_s == pytest.approx(whole.summary["latency_s"])
    assert found.energy_j == pytest.approx(whole.summary["energy_j"])
    one = ax.simulate(unit, "t4", batch=1)
    assert found.batching_gain == pytest.approx(50 * one.summary["latency_s"] / found.latency_s)


def test_where_batching_saves() -> None:
    """Passes one at a time gain nothing; a larger internal batch is never slower per pass here, and a batch
    that does not divide the passes ends with a smaller one."""
    gains = [
        ax.explain("bert-base", "h100-sxm", steps=50, internal_batch=size).batching_gain
        for size in (1, 5, 25, 50)
    ]
    assert gains[0] == pytest.approx(1.0)
    assert gains == sorted(gains)
    assert gains[-1] > 3
    odd = ax.explain("resnet50", "t4", steps=50, internal_batch=8)
    assert [(row["batch"], row["runs"]) for row in odd.rows] == [(8, 6), (2, 1)]
    assert odd.flops == pytest.approx(ax.explain("resnet50", "t4", steps=50).flops)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "attention_rollout"])
def test_methods_cost_their_passes(method: str) -> None:
    graph = ax.load_workload("mobilenet-v1")
    found = ax.explain(graph, "t4", method, batch=2)
    per_pass = graph.flops
    if METHODS[method].gradient and method != "grad_cam":
        per_pass += backward(graph).flops
    if method == "grad_cam":
        per_pass = found.flops / 2  # a few products beyond the forward pass
        assert graph.flops < per_pass < 1.01 * graph.flops
    passes = METHODS[method].passes or (1 + math.ceil((224 - 15) / 8)) ** 2
    assert found.passes == passes
    assert found.flops == pytest.approx(2 * passes * per_pass)
    s = found.summary
    assert s["latency_s"] == pytest.approx(s["prediction_s"] + s["explanation_s"])
    assert s["slowdown"] > 1
    assert s["usd_per_million_items"] == pytest.approx(
        ax.load_hardware("t4").cost.hourly_usd / 3600 * s["latency_s"] / 2 * 1e6
    )


def test_attention_rollout_writes_the_maps_out() -> None:
    found = ax.explain("bert-base", "h100-sxm", "attention_rollout")
    scores, roll = 2 * 12 * 12 * 128 * 128 * 64, 2 * 12 * 128**3
    assert found.flops == pytest.approx(scores + roll)
    with pytest.raises(RequestError, match="resnet50 has none"):
        ax.explain("resnet50", "h100-sxm", "attention_rollout")


def test_gradients_need_a_float_format() -> None:
    """A device of integers explains by perturbation; gradients are infeasible unless they are asked for."""
    assert not ax.explain("mobilenet-v1", "edge-tpu", "saliency", precision="int8").feasible
    assert ax.explain("mobilenet-v1", "edge-tpu", "occlusion", precision="int8").feasible
    found = ax.explain("mobilenet-v1", "t4", "saliency", precision="int8")
    assert found.prediction.summary["precision"] == "int8"
    assert "gradients in fp16" in found.notes[0]


def test_an_infeasible_prediction_is_the_answer() -> None:
    found = ax.explain("llama-3.1-70b", "t4", "kernel_shap", context=128)
    assert not found.feasible
    assert found.reason == "memory"


def test_memory_limits_the_internal_batch() -> None:
    small = ax.load_hardware("t4").replace(**{"memory.capacity": "1 GB"})
    found = ax.explain("resnet50", small, steps=50)
    assert 1 <= found.internal_batch < 50
    assert "more do not fit" in found.notes[0]


def test_share_of_explained_requests() -> None:
    """Limits: all when idle, none when one explanation takes too long; in between the share that fills the
    queue; it falls with the rate and rises with the limit."""
    assert explained_share(1e-3, 0.1, 0.01, 10.0) == 1.0
    assert explained_share(1e-3, 0.1, 1.0, 0.05) == 0.0
    shares = [explained_share(1e-3, 0.1, rate, 1.0) for rate in (5, 20, 50, 200, 900)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > shares[-1]
    limits = [explained_share(1e-3, 0.1, 50, slo) for slo in (0.11, 0.2, 0.5, 2.0, 100.0)]
    assert limits == sorted(limits)
    # Without a limit to speak of, the load is what counts: rate (plain + share (explained - plain)) < 1.
    assert explained_share(1e-3, 0.1, 50, 1e9) == pytest.approx((1 / 50 - 1e-3) / (0.1 - 1e-3), rel=1e-4)
    for bad in ({"slo_s": 0.0}, {"rate_per_s": -1.0}, {"quantile": 1.0}):
        with pytest.raises(RequestError):
            explained_share(**{"plain_s": 1e-3, "explained_s": 0.1, "rate_per_s": 1.0, "slo_s": 1.0, **bad})


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"method": "shap"}, "unknown method 'shap'"),
        ({"steps": 0}, "steps 0 is not a positive integer"),
        ({"internal_batch": -1}, "internal_batch -1"),
        ({"method": "saliency", "steps": 5}, "saliency has no steps"),
    ],
)
def test_bad_requests(more: dict, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        ax.explain("resnet50", "t4", **more)
