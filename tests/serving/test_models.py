"""Several models and data flows on one server."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.serving import (
    ClosedLoop,
    Deterministic,
    Ensemble,
    Greedy,
    NoBatching,
    RateLimit,
    Requests,
    Stage,
    StaticBatch,
    Stream,
    Superposition,
    curve,
)


def test_parallel_stages_end_with_the_slowest() -> None:
    flow = Ensemble(
        Stage("in", ax.LinearService(0.001), NoBatching()),
        Stage("left", ax.LinearService(0.003), NoBatching(), ("in",)),
        Stage("right", ax.LinearService(0.005), NoBatching(), ("in",)),
        Stage("out", ax.LinearService(0.002), NoBatching(), ("left", "right")),
    )
    r = ax.serve(flow, arrivals=Deterministic(20), requests=40)
    assert r.latency_s == pytest.approx(np.full(40, 0.008), abs=1e-9)
    assert [s.name for s in r.stations] == ["in", "left", "right", "out"]


def test_a_refusing_stage_refuses_the_request() -> None:
    flow = Ensemble(
        Stage("first", ax.LinearService(0.001), NoBatching()),
        Stage("second", ax.LinearService(0.1), ax.TorchServe(1, 0, 1, job_queue_size=1), ("first",)),
    )
    r = ax.serve(flow, arrivals=ax.Poisson(100), requests=200)
    done = (r.requests["status"] == "completed").sum()
    refused = (r.requests["status"] == "rejected").sum()
    assert done + refused == 200
    assert refused > 100


def test_static_stages_flush_at_the_end() -> None:
    flow = Ensemble(
        Stage("a", ax.LinearService(0.001), StaticBatch(4)),
        Stage("b", ax.LinearService(0.001), StaticBatch(8), ("a",)),
    )
    r = ax.serve(flow, arrivals=ax.Poisson(100), requests=30)
    assert r.summary["in_flight"] == 0
    assert (r.requests["status"] == "completed").all()


def test_models_by_name_are_independent_queues() -> None:
    traffic = Superposition(Stream(ax.Poisson(300), model=0), Stream(ax.Poisson(100), model=1))
    laws = {"small": ax.LinearService(0.002), "large": ax.LinearService(0.008)}
    both = ax.serve(laws, arrivals=traffic, batching={"small": Greedy(4)}, requests=4000)
    coming = traffic.generate(4000)
    alone = ax.serve(laws["large"], arrivals=coming.take(coming.model == 1), batching=Greedy(8))
    mine = both.log.finish_ns[coming.model == 1]
    assert np.array_equal(mine, alone.log.finish_ns)
    assert [s.max_batch for s in both.stations] == [4, 8]


@pytest.mark.parametrize(
    "call",
    [
        lambda law: ax.serve({}, arrivals=ax.Poisson(1), requests=1),
        lambda law: ax.serve({"a": law}, arrivals=ax.Poisson(1), batching={"b": Greedy()}, requests=1),
        lambda law: ax.serve(law, arrivals=ax.Poisson(1), batching={"b": Greedy()}, requests=1),
        lambda law: ax.serve({"a": law, "b": law}, arrivals=ClosedLoop(1), requests=1),
        lambda law: ax.serve(law, arrivals=ClosedLoop(1), requests=1, engine="numba"),
        lambda law: ax.serve({"a": law}, arrivals=Superposition(Stream(ax.Poisson(1), model=3)), requests=1),
        lambda law: Ensemble(),
        lambda law: Ensemble(Stage("a", law, Greedy(), ("z",))),
        lambda law: Ensemble(Stage("a", law, Greedy()), Stage("a", law, Greedy())),
    ],
)
def test_senseless_models_are_refused(call) -> None:
    with pytest.raises(ax.AccelsimError):
        call(ax.LinearService(0.01))


def test_latency_rises_with_the_rate() -> None:
    rows = curve(
        ax.LinearService(0.004, 0.0005),
        rates_per_s=[100, 400, 700, 900],
        batching=Greedy(8),
        requests=20_000,
    )
    assert rows["latency_p99_s"].is_monotonic_increasing


def test_a_shared_resource_lets_one_model_run_at_a_time() -> None:
    limit = RateLimit({"lock": 1})
    policy = ax.Triton(1, instances=2, rate_limit=limit)
    laws = {"a": ax.LinearService(0.004), "b": ax.LinearService(0.004)}
    traffic = Superposition(Stream(ax.Poisson(60), model=0), Stream(ax.Poisson(60), model=1))
    r = ax.serve(laws, arrivals=traffic, batching=policy, requests=3000)
    table = r.executions.sort_values("start_s")
    assert (
        table["start_s"].to_numpy()[1:] >= (table["start_s"] + table["held_s"]).to_numpy()[:-1] - 1e-12
    ).all()
    assert (r.requests["status"] == "completed").all()
    free = ax.serve(laws, arrivals=traffic, batching=policy, requests=3000, resources={"lock": 4})
    assert free.summary["latency_mean_s"] < r.summary["latency_mean_s"]


def test_rate_limits_weigh_models_by_priority() -> None:
    laws = {"often": ax.LinearService(0.004), "seldom": ax.LinearService(0.004)}
    policies = {
        "often": ax.Triton(1, rate_limit=RateLimit({"lock": 1}, priority=1)),
        "seldom": ax.Triton(1, rate_limit=RateLimit({"lock": 1}, priority=2)),
    }
    traffic = Superposition(Stream(ax.Poisson(250), model=0), Stream(ax.Poisson(250), model=1))
    r = ax.serve(laws, arrivals=traffic, batching=policies, requests=1000)
    first = r.executions.sort_values("start_s").head(400)["station"].value_counts()
    assert first["often"] / first["seldom"] == pytest.approx(2, rel=0.1)


def test_a_need_above_the_total_is_refused() -> None:
    policy = ax.Triton(1, rate_limit=RateLimit({"lock": 3}))
    with pytest.raises(ax.AccelsimError, match="needs 3 of resource 'lock', there are 2"):
        ax.serve(
            ax.LinearService(1), arrivals=ax.Poisson(1), batching=policy, requests=1, resources={"lock": 2}
        )


def test_tensorflow_models_share_threads_in_turn() -> None:
    laws = {"a": ax.LinearService(0.004), "b": ax.LinearService(0.004)}
    everything = Requests(np.zeros(60), model=np.arange(60) % 2)
    policy = ax.TensorFlowServing(4, 0, 100, threads=1)
    r = ax.serve(laws, arrivals=everything, batching=policy)
    table = r.executions.sort_values("start_s")
    ends = (table["start_s"] + table["held_s"]).to_numpy()
    assert (table["start_s"].to_numpy()[1:] >= ends[:-1] - 1e-12).all()
    assert (table["station"].to_numpy()[1:] != table["station"].to_numpy()[:-1]).all()
    with pytest.raises(ax.AccelsimError, match="share its threads"):
        ax.serve(laws, arrivals=everything, batching={"a": policy, "b": ax.TensorFlowServing(4, threads=2)})


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 1000), st.sampled_from(["greedy", "triton", "static"]))
def test_a_cap_keeps_requests_in_front_of_their_stage(cap: int, seed: int, kind: str) -> None:
    """At most `cap` requests inside each stage, at any time; all are answered, in their order."""
    batching = {"greedy": Greedy(4), "triton": ax.Triton(4), "static": StaticBatch(3)}[kind]
    stages = [Stage("a", ax.LinearService(0.002, 0.0002), batching)]
    stages.append(Stage("b", ax.LinearService(0.003, 0.0005), batching, ("a",)))
    arrivals = ax.Poisson(900).generate(80, seed)
    r = ax.serve(Ensemble(*stages, max_inflight=cap), arrivals=arrivals)
    assert (r.log.status == 1).all()
    assert (np.diff(r.log.finish_ns) >= 0).all()
    for station in r.stations:
        assert station.log.size.max() <= cap
        times = np.concatenate([station.log.arrival_ns, station.log.finish_ns])
        order = np.lexsort((np.repeat([1, 0], len(arrivals)), times))
        assert np.repeat([1, -1], len(arrivals))[order].cumsum().max() <= cap


def test_a_cap_above_all_requests_changes_nothing() -> None:
    stage = Stage("a", ax.LinearService(0.002, 0.0002), ax.Triton(8, max_queue_delay_us=500))
    free, capped = (
        ax.serve(Ensemble(stage, max_inflight=cap), arrivals=ax.Poisson(1500), requests=500)
        for cap in (0, 500)
    )
    assert (free.log.finish_ns == capped.log.finish_ns).all()
