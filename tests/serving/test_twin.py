"""Both engines give the same numbers, request by request, and both obey the conservation laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.serving import Deterministic, Gamma, Greedy, Offline, RandomService, StaticBatch, engine
from accelsim.serving.fast import twin
from accelsim.serving.log import Log
from accelsim.serving.priority import QueuePolicy
from accelsim.serving.requests import Requests
from accelsim.serving.service import Times
from accelsim.serving.station import COMPLETED, IN_FLIGHT

COLUMNS = [
    "arrival_ns",
    "finish_ns",
    "status",
    "execution",
    "start_ns",
    "held_ns",
    "size",
    "padded",
    "instance",
]


@st.composite
def queue_policies(draw: st.DrawFn) -> QueuePolicy:
    return QueuePolicy(
        draw(st.sampled_from(["REJECT", "DELAY"])),
        draw(st.sampled_from([0, 0, 3000, 12000, 40000])),
        draw(st.booleans()),
        draw(st.sampled_from([0, 0, 1, 5, 30])),
    )


@st.composite
def tritons(draw: st.DrawFn) -> ax.Triton:
    most = draw(st.integers(1, 12))
    levels = draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
    return ax.Triton(
        most,
        draw(st.sampled_from([0, 1, 700, 1000, 5000, 20000])),
        tuple(draw(st.lists(st.integers(1, most), max_size=3))),
        draw(st.integers(1, 3)),
        dynamic=draw(st.sampled_from([True, True, True, False])),
        preserve_ordering=draw(st.booleans()),
        priority_levels=levels,
        default_priority=draw(st.integers(1, levels)) if levels else 0,
        queue_policy=draw(queue_policies()),
        level_policies=draw(st.dictionaries(st.integers(1, levels), queue_policies())) if levels else {},
    )


@st.composite
def others(draw: st.DrawFn):
    most, instances = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["greedy", "static", "torch", "ray", "tensorflow"]))
    if kind == "greedy":
        return Greedy(most, instances)
    if kind == "static":
        return StaticBatch(most, instances)
    if kind == "torch":
        return ax.TorchServe(
            most, draw(st.integers(0, 20)), instances, draw(st.sampled_from([1, 10, 10_000]))
        )
    if kind == "ray":
        return ax.RayServe(most, draw(st.sampled_from([0.0, 0.002, 0.02])), instances)
    sizes = tuple(sorted({*draw(st.lists(st.integers(1, most), max_size=2)), most}))
    return ax.TensorFlowServing(
        most,
        draw(st.sampled_from([0, 1000, 8000])),
        draw(st.integers(1, 6)),
        instances,
        draw(st.sampled_from([(), sizes])),
    )


@st.composite
def traffic(draw: st.DrawFn) -> Requests:
    n = draw(st.integers(1, 250))
    rate = draw(st.sampled_from([50.0, 300.0, 900.0, 3000.0]))
    kind = draw(st.sampled_from(["poisson", "bursty", "even", "at once"]))
    seed = draw(st.integers(0, 1 << 30))
    rng = np.random.default_rng(seed)
    arrivals = {
        "poisson": ax.Poisson(rate),
        "bursty": Gamma(rate, cv=3),
        "even": Deterministic(round(rate)),
        "at once": Offline(),
    }[kind]
    base = arrivals.generate(n, seed)
    return Requests(
        base.arrival_s, priority=rng.integers(0, 4, n), timeout_s=rng.choice([0.0, 0.002, 0.02], n)
    )


@st.composite
def clocks(draw: st.DrawFn) -> Times:
    law = ax.LinearService(draw(st.sampled_from([0.001, 0.004])), draw(st.sampled_from([0.0, 0.0005, 0.001])))
    overheads = ax.Overheads(*(draw(st.sampled_from([0.0, 1e-4, 3e-4])) for _ in range(5)))
    chosen = RandomService(law, cv=0.7) if draw(st.booleans()) else law
    return Times.of(chosen, overheads, 12, 250, seed=draw(st.integers(0, 99)))


def _equal(a: Log, b: Log) -> None:
    for name in COLUMNS:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


def _laws(log: Log, requests: Requests, policy) -> None:
    counts = np.bincount(log.status, minlength=4)
    assert counts.sum() == len(requests)
    assert counts[IN_FLIGHT] == 0  # every request ends
    assert counts[COMPLETED] == log.size.sum()
    assert log.size.max(initial=0) <= policy.max_batch
    assert (log.padded >= log.size).all()
    assert (log.finish_ns >= log.arrival_ns).all()
    done = log.status == COMPLETED
    assert np.array_equal(np.bincount(log.execution[done], minlength=len(log.size)), log.size)
    # An instance runs one batch at a time.
    for instance in np.unique(log.instance):
        mine = log.instance == instance
        assert (log.start_ns[mine][1:] >= (log.start_ns + log.held_ns)[mine][:-1]).all()


@settings(max_examples=120, deadline=None)
@given(tritons(), traffic(), clocks())
def test_triton_is_the_same_on_both_engines(policy: ax.Triton, requests: Requests, times: Times) -> None:
    a, b = engine.run_open(requests, policy, times), twin.run_open(requests, policy, times)
    _equal(a, b)
    _laws(a, requests, policy)
    lone = policy.priority_levels <= 1 and not policy.level_policies
    if lone and policy.queue_policy.timeout_action == "REJECT":
        started = a.execution[a.status == COMPLETED]
        assert (np.diff(started) >= 0).all()  # first in, first out
    if policy.preserve_ordering and policy.dynamic and policy.prefetches:
        assert (np.diff(a.finish_ns) >= 0).all()


@settings(max_examples=120, deadline=None)
@given(others(), traffic(), clocks())
def test_other_policies_are_the_same_on_both_engines(policy, requests: Requests, times: Times) -> None:
    a, b = engine.run_open(requests, policy, times), twin.run_open(requests, policy, times)
    _equal(a, b)
    _laws(a, requests, policy)
    assert (np.diff(a.execution[a.status == COMPLETED]) >= 0).all()


def test_a_delay_of_zero_caps_torchserve_at_two() -> None:
    r = ax.serve(
        ax.LinearService(0.004, 0.0005),
        arrivals=Offline(),
        batching=ax.TorchServe(8, 0, 1, 10_000),
        requests=100,
    )
    assert set(r.executions["size"][1:-1]) == {2}


def test_tensorflow_pays_for_the_padded_size() -> None:
    policy = ax.TensorFlowServing(8, 0, 1000, 1, (4, 8))
    r = ax.serve(ax.LinearService(0.004, 0.0005), arrivals=Offline(), batching=policy, requests=11)
    assert r.executions["size"].tolist() == [1, 8, 2]
    assert r.executions["padded"].tolist() == [4, 8, 4]


def test_triton_without_delay_is_greedy() -> None:
    """A waiting payload grows until it is taken: bulk service of ``min(queue, max_batch)``."""
    common = {"arrivals": ax.Poisson(750), "requests": 20_000, "seed": 4}
    law = ax.LinearService(0.004, 0.0005)
    a = ax.serve(law, batching=ax.Triton(8), **common)
    b = ax.serve(law, batching=Greedy(8), **common)
    assert np.array_equal(a.log.finish_ns, b.log.finish_ns)


def test_a_busy_instance_makes_a_queue_delay_cost_an_execution() -> None:
    common = {"arrivals": ax.Poisson(500), "requests": 20_000, "seed": 4}
    law = ax.LinearService(0.004, 0.0005)
    none = ax.serve(law, batching=ax.Triton(8), **common)
    some = ax.serve(law, batching=ax.Triton(8, max_queue_delay_us=1000), **common)
    assert some.summary["mean_batch"] == pytest.approx(none.summary["mean_batch"], rel=0.02)
    assert some.summary["latency_mean_s"] > 1.3 * none.summary["latency_mean_s"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ax.Triton(8, preferred=(16,)),
        lambda: ax.Triton(8, max_queue_delay_us=-1),
        lambda: ax.Triton(8, priority_levels=2),
        lambda: ax.Triton(8, instances=0),
        lambda: ax.Triton(8, level_policies={1: QueuePolicy()}),
        lambda: QueuePolicy("DROP"),
        lambda: ax.TensorFlowServing(8, allowed_sizes=(4, 6)),
        lambda: ax.TensorFlowServing(8, max_enqueued_batches=0),
        lambda: ax.TorchServe(8, -1),
        lambda: ax.TorchServe(8, job_queue_size=0),
        lambda: ax.RayServe(wait_s=-1),
    ],
)
def test_what_a_server_refuses_is_refused(make) -> None:
    with pytest.raises(ax.AccelsimError):
        make()
