"""A training step: its parts, its memory, and what does not fit."""

from __future__ import annotations

import pytest

import accelsim as ax
from accelsim.workload import backward, training_step


def test_a_step_is_forward_backward_and_update() -> None:
    graph = ax.load_workload("resnet50")
    step = ax.train(graph, "a100-sxm", batch=32)
    assert step.summary["flops"] == pytest.approx(32 * (graph.flops + backward(graph, "weights").flops))
    forward = ax.simulate(graph, "a100-sxm", batch=32)
    assert step.summary["latency_s"] > 2 * forward.summary["latency_s"]
    assert step.summary["energy_j"] > 2 * forward.summary["energy_j"]


def test_memory_holds_states_gradients_and_saved_activations() -> None:
    graph = ax.load_workload("bert-base")
    at = {
        o: ax.train(graph, "h100-sxm", optimiser=o).summary["memory_bytes"]
        for o in ("sgd", "momentum", "adam")
    }
    weight_bytes = 2 * graph.parameters
    assert at["momentum"] - at["sgd"] == pytest.approx(weight_bytes, rel=0.3)
    assert at["sgd"] >= 2 * weight_bytes
    one, many = (ax.train(graph, "h100-sxm", batch=b).summary["memory_bytes"] for b in (8, 64))
    saved = backward(graph, "weights").metadata["saved_bytes"]
    assert many - one == pytest.approx(56 * saved, rel=0.01)


def test_repeated_layers_count_every_time() -> None:
    """The graph of one layer that repeats 32 times would fit; the activations of all 32 do not."""
    graph = ax.load_workload("llama-3.1-8b", phase="prefill", context=2048)
    assert ax.simulate(training_step(graph), "h100-sxm", batch=4).feasible
    found = ax.train(graph, "h100-sxm", batch=4)
    assert (found.feasible, found.reason) == (False, "memory")
    assert "saved activations" in found.need


def test_optimisers_cost_what_they_move() -> None:
    times = [
        ax.train("bert-base", "h100-sxm", optimiser=o).summary["latency_s"]
        for o in ("sgd", "momentum", "adam")
    ]
    assert times == sorted(times)


def test_mixed_precision_keeps_sixteen_bytes_a_parameter_under_adam() -> None:
    """A 16-bit copy and its gradients, and in fp32 the weights and two moments (2 + 2 + 3 x 4 bytes)."""
    graph = ax.load_workload("bert-base")
    at = {
        s: ax.train(graph, "h100-sxm", precision="bf16", states=s).summary["memory_bytes"]
        for s in (None, "fp32")
    }
    assert at["fp32"] - at[None] == pytest.approx((16 - 8) * graph.parameters, rel=1e-6)


def test_wider_states_move_more() -> None:
    narrow, wide = (ax.train("resnet50", "h100-sxm", precision="fp16", states=s) for s in ("fp16", "fp32"))
    assert wide.summary["latency_s"] > narrow.summary["latency_s"]
    assert wide.summary["flops"] == narrow.summary["flops"]


def test_batch_norms_read_their_input_once_more_for_the_statistics() -> None:
    graph = ax.load_workload("resnet50")
    step = training_step(graph)
    norms = [op for op in graph if op.kind == "batch_norm"]
    passes = [op for op in step if op.origin == "statistics of a batch"]
    assert [op.inputs[0].name for op in passes] == [op.inputs[0].name for op in norms]
    read = sum(op.work.bytes_read for op in passes)
    assert read == sum(op.inputs[0].size_bytes for op in norms)
    assert not any(
        op.origin == "statistics of a batch" for op in training_step(ax.load_workload("bert-base"))
    )
