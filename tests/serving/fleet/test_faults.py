"""Faults and what callers do about them; senseless fleets are refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

import accelsim as ax
from accelsim.serving import (
    Client,
    Crash,
    Deterministic,
    Fleet,
    Greedy,
    Knative,
    LatencyLimit,
    LinkDelay,
    LinkLoss,
    NoBatching,
    Place,
    Pool,
    PowerOfChoices,
    QueueLimit,
    Replica,
    Requests,
    SampledService,
    Shift,
    Slow,
    TokenBucket,
    serve_fleet,
)
from accelsim.serving.station import COMPLETED, REJECTED, TIMED_OUT


def _alone(**more) -> Replica:
    return Replica(ax.LinearService(0.01), batching=NoBatching(), name="r", **more)


def test_availability_is_mttf_over_mttf_plus_mttr() -> None:
    fleet = Fleet(Pool(_alone()), faults=(Crash(mttf_s=8.0, mttr_s=2.0),))
    r = serve_fleet(fleet, arrivals=Deterministic(1), requests=20_000)
    up = r.replicas.loc[0, "available_pct"] / 100
    cycles = (r.events["event"] == "crash").sum()
    # Error of a ratio of two exponential means: A (1 - A) sqrt(2 / cycles).
    assert abs(up - 0.8) < 4 * 0.8 * 0.2 * np.sqrt(2 / cycles)
    # Arrivals see time averages: those that meet a dead replica, or die with it, are refused.
    lost = 1 - (1 - 0.01 / 8) * 0.8
    assert r.summary["rejected_pct"] / 100 == pytest.approx(lost, abs=4 * 0.8 * 0.2 * np.sqrt(2 / cycles))
    assert set(r.reasons) <= {"no replica", "crash"}


def test_a_crash_takes_what_is_inside_and_retries_save_it() -> None:
    crash = (Crash("r-0", at_s=1.005, for_s=1.0),)
    pool = Pool(_alone(count=2))
    traffic = Requests(np.array([1.0, 1.001, 1.002, 1.003]))
    bare = serve_fleet(Fleet(pool, faults=crash), arrivals=traffic)
    assert bare.log.status.tolist() == [REJECTED, COMPLETED, REJECTED, COMPLETED]
    assert bare.reasons == {"crash": 2}
    client = Client(retries=1, backoff_s=0.001, jitter=False)
    saved = serve_fleet(Fleet(pool, client, crash), arrivals=traffic)
    assert saved.log.status.tolist() == [COMPLETED] * 4
    # The lost two come again at 1.006 to the other replica, behind the two that it has.
    assert np.sort(saved.log.finish_ns) == pytest.approx(np.array([1.011, 1.021, 1.031, 1.041]) * 1e9)


def test_backoff_doubles() -> None:
    client = Client(retries=3, backoff_s=0.1, jitter=False)
    fleet = Fleet(Pool(_alone()), client, (Crash(at_s=0.0, for_s=1e6),))
    r = serve_fleet(fleet, arrivals=Requests(np.array([1.0])))
    assert r.attempts.sent_ns.tolist() == [1_000_000_000, 1_100_000_000, 1_300_000_000, 1_700_000_000]
    assert r.log.status.tolist() == [REJECTED]


def test_a_balancer_that_has_not_noticed_sends_to_the_dead() -> None:
    fleet = Fleet(Pool(_alone(count=2), detect_s=0.5), faults=(Crash("r-0", at_s=1.0, for_s=5.0),))
    r = serve_fleet(fleet, arrivals=Deterministic(20), requests=80)
    refused = r.log.arrival_ns[r.log.status == REJECTED] / 1e9
    assert refused.min() >= 1.0
    assert refused.max() < 1.5
    assert len(refused) == pytest.approx(5, abs=1)


def test_a_slow_node_is_slow_for_as_long_as_the_fault_lasts() -> None:
    fleet = Fleet(Pool(_alone()), faults=(Slow(3.0, 1.0, 1.0),))
    r = serve_fleet(fleet, arrivals=Deterministic(10), requests=30)
    begin = r.log.arrival_ns / 1e9
    slow = (begin >= 1.0) & (begin < 2.0)
    assert r.latency_s == pytest.approx(np.where(slow, 0.03, 0.01))


def test_a_cut_line_delays_by_the_retransmission() -> None:
    fleet = Fleet(Pool(_alone()), faults=(LinkLoss(1.0, 1.0, 0.25),))
    r = serve_fleet(fleet, arrivals=Requests(np.array([0.5, 1.0, 1.1])))
    # Sent at 1.0: again at 1.2 (lost) and, twice as long after, at 1.6. Sent at 1.1: again at 1.3.
    assert r.latency_s == pytest.approx([0.01, 0.61, 0.21])
    late = Fleet(Pool(_alone()), faults=(LinkDelay(0.05, 1.0, 0.25),))
    r = serve_fleet(late, arrivals=Requests(np.array([0.5, 1.0])))
    assert r.latency_s == pytest.approx([0.01, 0.11])


def test_hedges_cut_the_tail() -> None:
    rng = np.random.default_rng(1)
    heavy = SampledService(np.clip(0.002 * (1 + rng.pareto(1.8, 20_000)), 0, 0.5))
    pool = Pool(Replica(heavy, batching=NoBatching(), count=10), balancer="least_outstanding")
    traffic = ax.Poisson(400).generate(15_000)
    plain = serve_fleet(pool, arrivals=traffic)
    after = plain.summary["latency_p95_s"]
    hedged = serve_fleet(Fleet(pool, Client(hedge_after_s=after)), arrivals=traffic)
    assert hedged.summary["latency_p99_s"] < 0.6 * plain.summary["latency_p99_s"]
    share = hedged.stages.loc[0, "hedges"] / 15_000
    assert share == pytest.approx(0.05, abs=0.015)
    assert (hedged.log.status == COMPLETED).all()


def test_a_cancelled_loser_costs_nothing_when_it_still_waits() -> None:
    # Both replicas are busy for 10 ms; the hedge of the third request goes to the other replica at once.
    pool = Pool(_alone(count=2))
    fleet = Fleet(pool, Client(hedge_after_s=0.004))
    r = serve_fleet(fleet, arrivals=Requests(np.array([0.0, 0.0, 0.002])))
    assert (r.log.status == COMPLETED).all()
    # Six attempts at most, but the losers that had not started never run.
    assert sum(len(s.size) for s in r.servers) < len(r.attempts.sent_ns)


def test_timeouts_end_calls() -> None:
    fleet = Fleet(Pool(_alone()), Client(timeout_s=0.025))
    r = serve_fleet(fleet, arrivals=Requests(np.zeros(5)))
    assert r.log.status.tolist() == [COMPLETED, COMPLETED, TIMED_OUT, TIMED_OUT, TIMED_OUT]
    assert (r.log.finish_ns[2:] == 25_000_000).all()
    # The third had started; the fourth and fifth are dropped from the queue.
    assert len(r.servers[0].size) == 3


def test_admission_bounds_the_queue() -> None:
    pool = Pool(_alone(), admission=QueueLimit(4))
    r = serve_fleet(pool, arrivals=ax.Poisson(200), requests=5000)
    assert r.latency_s.max() <= 0.04 + 1e-9
    # M/D/1/4 loses at least what exceeds the capacity.
    assert r.summary["rejected_pct"] >= 48
    waits = serve_fleet(Pool(_alone(), admission=LatencyLimit(0.02)), arrivals=ax.Poisson(200), requests=5000)
    assert waits.latency_s.max() <= 0.02 + 0.01 + 1e-9
    bucket = serve_fleet(
        Pool(_alone(), admission=TokenBucket(50, 5)), arrivals=ax.Poisson(200), requests=5000
    )
    span = bucket.log.arrival_ns[-1] / 1e9
    assert (bucket.log.status == COMPLETED).sum() == pytest.approx(50 * span + 5, abs=2)


def _law(**more) -> Replica:
    return Replica(ax.LinearService(0.01), **more)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pool(_law(count=0)), "zero replicas"),
        (lambda: Pool(()), "zero replicas"),
        (lambda: _law(count=-1), "must not be negative"),
        (lambda: Place("edge", -0.1), "network delay of 'edge'"),
        (lambda: Place("edge", 0.1, 0), "bandwidth of 'edge'"),
        (lambda: Pool(_law(), split={"1": 0.7}), "must sum to 1, its shares sum to 0.7"),
        (lambda: Pool(_law(), split={"2": 1.0}), "has version '2'"),
        (lambda: Shift(1.0, {"1": 1.5, "2": -0.5}), "must not be negative"),
        (lambda: Pool(_law(), balancer="least_outstandin"), "did you mean least_outstanding"),
        (
            lambda: Fleet((Pool(_law(), "a", after=("b",)), Pool(_law(), "b", after=("a",)))),
            "cycle through a, b",
        ),
        (lambda: Fleet((Pool(_law(), "a"), Pool(_law(), "b", after=("aa",)))), "did you mean a"),
        (lambda: Fleet((Pool(_law()), Pool(_law()))), "two pools"),
        (lambda: Fleet(()), "at least one pool"),
        (lambda: Fleet(Pool(_law()), faults=(Crash("gpu", at_s=1),)), "no replica"),
        (lambda: Fleet(Pool(_law()), faults=(LinkLoss(0.1, place="moon"),)), "which is none"),
        (lambda: LinkLoss(1.0), "cut for ever"),
        (lambda: LinkLoss(1.2), "between 0 and 1"),
        (lambda: Crash(), "either"),
        (lambda: Crash(at_s=1, mttf_s=1), "either"),
        (lambda: Slow(0), "positive"),
        (lambda: Client(timeout_s=0), "positive"),
        (lambda: Client(retries=-1), "negative"),
        (lambda: QueueLimit(0), "at least one"),
        (lambda: PowerOfChoices(0), "at least one choice"),
        (lambda: Replica("resnet50"), "needs hardware"),
        (lambda: serve_fleet(_law(), arrivals=ax.Poisson(1), requests=0), "at least one"),
        (lambda: serve_fleet(Pool(_law(), model=3), arrivals=ax.Poisson(1), requests=5), "model 0"),
        (lambda: Pool(_law(), concurrency=0), "at least one"),
        (lambda: Pool(_law(count=3), autoscaler=Knative(most=2)), "keeps 0 to 2"),
    ],
)
def test_senseless_fleets_are_refused(make, words: str) -> None:
    with pytest.raises(ax.AccelsimError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_unstable_fleet_is_said_with_the_capacity() -> None:
    r = serve_fleet(_alone(count=2), arrivals=ax.Poisson(400), requests=2000)
    assert r.summary["status"] == "unstable"
    assert any("capacity 200/s" in note for note in r.notes)


def test_a_model_that_does_not_fit_is_infeasible() -> None:
    big = Replica("llama-3.1-70b", "l4", batching=Greedy(1), options={"precision": "fp16"})
    r = serve_fleet(big, arrivals=ax.Poisson(1), requests=10)
    assert not r.feasible
    assert r.reason == "memory"


def test_mixed_hardware_has_its_own_laws_prices_and_energy() -> None:
    kinds = (
        Replica("resnet50", "h100-sxm", batching=Greedy(8), usd_per_hour=3.0),
        Replica("resnet50", "l4", batching=Greedy(8), usd_per_hour=0.8),
    )
    r = serve_fleet(Pool(kinds, balancer="weighted"), arrivals=ax.Poisson(1000), requests=3000)
    table = r.replicas.set_index("replica")
    assert table.loc["h100-sxm-0", "completed"] > 2 * table.loc["l4-0", "completed"]
    assert r.summary["usd"] == pytest.approx(3.8 * r.end_ns / 3.6e12)
    energy = r.summary["energy_per_request_j"] * 3000
    assert r.summary["latency_p99_low_s"] <= r.summary["latency_p99_s"] <= r.summary["latency_p99_high_s"]
    series = r.series()
    step = series["time_s"].iloc[1] - series["time_s"].iloc[0]
    assert (series["power_w"] * step).sum() == pytest.approx(energy, rel=0.02)
