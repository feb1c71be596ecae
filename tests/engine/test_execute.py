"""The event engine against hand-computed schedules."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from accelsim.architectures.base import KernelCost, Pipeline
from accelsim.engine.execute import event_pipeline, event_sequential
from accelsim.engine.timeline import busy_s


def kernel(name, lane, *after, repeat=1):
    return SimpleNamespace(name=name, lane=lane, after=after, repeat=repeat)


def cost(compute, memory=0.0, overhead=0.0):
    return KernelCost(1.0, compute, memory, overhead, {"dram": memory}, "compute")


def program(*kernels, batch=1):
    return SimpleNamespace(kernels=kernels, graph=SimpleNamespace(batch=batch))


def spans(segments):
    return {(s.op, s.lane): (s.start_s, s.end_s) for s in segments}


def test_independent_kernels_on_two_lanes_overlap():
    p = program(kernel("a", "array"), kernel("b", "vector"), kernel("c", "array", 0, 1))
    found = spans(event_sequential(p, [cost(5), cost(3), cost(2)]))
    assert found == {("a", "array"): (0, 5), ("b", "vector"): (0, 3), ("c", "array"): (5, 7)}


def test_memory_phases_share_one_dram():
    p = program(kernel("a", "array"), kernel("b", "vector"))
    found = spans(event_sequential(p, [cost(1, memory=4), cost(1, memory=4)]))
    assert found[("a", "dram")] == (0, 4)
    assert found[("b", "dram")] == (4, 8)
    assert found[("b", "vector")] == (0, 8)


def test_overhead_follows_the_overlap_and_repeats_multiply():
    p = program(kernel("a", "sm", repeat=3))
    found = spans(event_sequential(p, [cost(4, memory=2, overhead=1)]))
    assert found[("a", "sm")] == (0, 15)


def test_one_lane_serialises():
    p = program(kernel("a", "sm"), kernel("b", "sm"))
    segments = event_sequential(p, [cost(4), cost(6)])
    assert max(s.end_s for s in segments) == 10
    assert busy_s(segments)["sm"] == 10


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_pipeline_takes_first_latency_plus_intervals(batch):
    p = program(kernel("a", "s0"), kernel("b", "s1", 0), kernel("c", "s2", 1), batch=batch)
    timing = Pipeline(0.0, 5.0, (0.0, 1.0, 3.0), (0.0, 0.0, 0.0))
    _, makespan = event_pipeline(p, [cost(2), cost(5), cost(1)], timing)
    # b fills 1 after a and takes 5 per item; c ends with b.
    assert makespan == 6 + (batch - 1) * 5


def test_a_long_batch_repeats_the_steady_state():
    p = program(kernel("a", "s0"), batch=1000)
    _, makespan = event_pipeline(p, [cost(2)], Pipeline(0.0, 2.0, (0.0,), (0.0,)))
    assert makespan == 2000
