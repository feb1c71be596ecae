"""Software stacks are data: what each fuses, launches and adds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures.fusion import fuse
from accelsim.architectures.gpu import host
from accelsim.architectures.gpu.host import host_bound_s, joins_of, launch_gap_s
from accelsim.core.errors import RequestError
from accelsim.hardware import stacks as data
from accelsim.hardware.stacks import stack_evidence, stack_of, stacks
from accelsim.workload.builders.layers import GraphBuilder


def block():
    """A product with a bias, an activation, a residual sum and a norm."""
    b = GraphBuilder("block", "fp16")
    x = b.input("x", 8, 64)
    y = b.op("matmul", [x, b.weight("w", 64, 64)], (8, 64))
    y = b.op("elementwise", [y, b.weight("bias", 64)], (8, 64), function="add")
    y = b.activation(y, "gelu")
    b.layer_norm(b.add(x, y))
    return b.build()


def kernels(stack):
    return [len(g.ops) for g in fuse(block(), host.joining_rule(stack))]


def test_each_stack_fuses_what_its_file_says():
    assert kernels("eager") == [1, 1, 1, 1, 1]
    assert kernels("graph") == [4, 1]  # product, bias, activation, sum; the norm
    assert kernels("vllm") == kernels("sglang") == [2, 3]  # the bias rides; activation, sum and norm are one
    assert kernels("trtllm") == kernels("tensorrt") == [4, 1]


@settings(max_examples=20, deadline=None)
@given(st.sets(st.sampled_from(["epilogues", "bias", "chains", "norms"])))
def test_more_fusion_never_means_more_kernels(fuses):
    graph = block()
    some = len(fuse(graph, joins_of(tuple(sorted(fuses)))))
    assert len(fuse(graph, joins_of(("epilogues", "bias", "chains", "norms")))) <= some <= len(graph.ops)
    assert joins_of(tuple(sorted(fuses))) is joins_of(tuple(sorted(fuses)))


def test_every_number_of_a_stack_has_a_source():
    found = stack_evidence()
    for name in stacks():
        for field in ("more_launch", "host_operators", "host_per_step"):
            assert found[f"{name}.{field}"].source
    fitted = {k for k, q in found.items() if q.status == "measured"}
    assert {k.split(".")[0] for k in fitted} == {"vllm", "trtllm", "sglang"}
    assert all("training rows" in found[k].source for k in fitted)
    assert {q.status for k, q in found.items() if k not in fitted} == {"assumed"}


def test_launch_and_host_follow_the_stack(toy, monkeypatch):
    assert launch_gap_s(toy, "eager") == pytest.approx(2e-6)
    assert launch_gap_s(toy, "vllm") == pytest.approx(1e-6)
    assert host_bound_s(toy, "eager") == pytest.approx(20e-6)
    assert host_bound_s(toy, "graph") == 0
    before = ax.simulate(block(), toy, stack="vllm")
    own_s = stack_of("vllm").host_per_step_s
    slow = stack_of("vllm").model_copy(update={"more_launch_s": 3e-6, "host_per_step_s": 1e-3})
    monkeypatch.setattr(data, "stacks", lambda: {**stacks(), "vllm": slow})
    for fidelity in ("tile", "event"):
        after = ax.simulate(block(), toy, stack="vllm", fidelity=fidelity)
        more = after.summary["latency_s"] - before.summary["latency_s"]
        assert more == pytest.approx(1e-3 - own_s + 3e-6 * len(before.ops), rel=1e-6)
        assert after.timeline.end_s.max() == pytest.approx(after.summary["latency_s"])
        assert any("1 ms" in note for note in after.notes)
    assert (after.ops.stall_launch_s.to_numpy() - before.ops.stall_launch_s.to_numpy()).min() > 2.9e-6


def test_a_result_names_its_stack(toy):
    for stack in stacks():
        result = ax.simulate(block(), toy, stack=stack)
        assert result.summary["stack"] == stack
        assert any(note.startswith(f"stack {stack}: ") for note in result.notes)
    assert "stack" not in ax.simulate("resnet50", "tpu-v4").summary


def test_unknown_stacks_are_refused_with_a_hint(toy):
    with pytest.raises(RequestError, match="vlm"):
        stack_of("vlm")
    with pytest.raises(RequestError, match="vlm"):
        ax.simulate(block(), toy, stack="vlm")
