"""Training steps and bills: passes of attacks, gradients per sample, memory."""

from __future__ import annotations

import pytest

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.engine import local_step, training_bill
from accelsim.techniques.security import attack_passes, per_sample
from accelsim.workload import backward, training_step


def test_a_step_is_its_graph():
    graph = training_step(ax.load_workload("resnet18"), "sgd")
    by_hand = ax.simulate(graph, "jetson-orin", batch=4, precision="fp16").summary
    step = local_step("resnet18", "jetson-orin", batch=4, precision="fp16")
    assert (step.latency_s, step.energy_j) == (by_hand["latency_s"], by_hand["energy_j"])
    # three times the arithmetic of the forward pass, but for the input's gradient
    forward = ax.load_workload("resnet18").flops
    assert 2.9 * forward < graph.flops <= 3 * forward


def test_adversarial_training_runs_its_attack_before_each_update():
    options = {"samples": 1000, "batch": 10, "precision": "fp16"}
    plain = training_bill("resnet18", "h100-sxm", **options)
    hard = training_bill("resnet18", "h100-sxm", attack_steps=7, **options)
    graph = ax.load_workload("resnet18")
    both = backward(graph, "inputs")
    assert attack_passes(7) == 8
    assert hard.parts["updates"] == plain.parts["updates"]
    assert hard.steps == 100
    # arithmetic of the attack: k (forward + gradients of inputs)
    assert 1.9 * graph.flops < graph.flops + both.flops < 2.1 * graph.flops
    assert 1 < hard.summary["multiplier"] <= attack_passes(7)
    assert hard.summary["usd"] / plain.summary["usd"] == pytest.approx(hard.summary["multiplier"])


def test_private_training_pays_for_the_gradient_of_every_sample():
    graph, device = ax.load_workload("resnet18"), ax.load_hardware("h100-sxm")
    found = training_bill("resnet18", device, samples=640, batch=64, private=True, precision="fp16")
    rate = device.memory.bandwidth_bytes_per_s * device.memory.efficiency
    assert found.parts["per-sample gradients"][0] == pytest.approx(10 * 3 * 4 * graph.parameters * 64 / rate)
    assert per_sample(100, 8)["memory_bytes"] == 3200
    assert not training_bill("resnet18", device, samples=1, batch=2048, private=True).feasible


def test_a_step_that_does_not_fit_is_infeasible():
    assert not local_step("llama-3.1-8b", "t4").feasible


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0}, "samples 0"),
        ({"samples": 1, "attack_steps": -1}, "attack_steps -1"),
        ({"samples": 1, "optimiser": "lion"}, "unknown optimiser"),
    ],
)
def test_bad_input_is_refused(options, words):
    with pytest.raises(RequestError, match=words):
        training_bill("resnet18", "t4", **options)
