"""Autoscalers step as their formulas say, worked by hand, and fleets follow them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import accelsim as ax
from accelsim.serving import (
    HPA,
    Deterministic,
    Knative,
    NoBatching,
    Pool,
    Replica,
    Requests,
    TargetTracking,
    serve_fleet,
)
from accelsim.serving.fleet.autoscaler import Sample


def _steps(policy, rows, replicas=1, span=None):
    """Decisions on (concurrency, arrivals, utilisation), each followed at once."""
    scaler, out = policy.scaler(), []
    span = span or policy.interval_s
    for i, (concurrency, arrivals, utilisation) in enumerate(rows):
        now = (i + 1) * span
        replicas = scaler.decide(Sample(now, span, concurrency, arrivals, utilisation, replicas, replicas))
        out.append(replicas)
    return out


def _concurrencies(values):
    return [(c, 0, 0.0) for c in values]


def test_knative_averages_over_the_stable_window() -> None:
    # Target 10 requests at 100 %: 60 s hold 30 samples of 2 s. Means: 5, 5, then (2*5 + k*25) / (2 + k).
    policy = Knative(target=10, utilisation=1.0, panic_threshold=10, grace_s=0)
    got = _steps(policy, _concurrencies([5, 5, 25, 25, 25]))
    assert got == [1, 1, 2, 2, 2]  # means 5, 5, 11.7, 15, 17


def test_knative_panics_at_twice_what_is_ready_and_only_grows() -> None:
    # The panic window holds 3 samples of 2 s; 10 requests fill one replica.
    policy = Knative(target=10, utilisation=1.0)
    got = _steps(policy, _concurrencies([10] * 5 + [70, 70, 70] + [0] * 12))
    # Panic means after the jump: 30, 50, 70 -> 3 (>= 2 x 1 ready), 5, 7; then it never shrinks for 60 s.
    assert got[:8] == [1, 1, 1, 1, 1, 3, 5, 7]
    assert set(got[8:]) == {7}


def test_knative_leaves_panic_after_a_stable_window_and_halves_at_most() -> None:
    policy = Knative(target=10, utilisation=1.0)
    got = _steps(policy, _concurrencies([10, 100, 100, 100] + [0] * 60))
    last = max(i for i, n in enumerate(got) if n == max(got))
    # Panic from 4 s, when 55 requests want 6 replicas of 1, to 64 s; 70 want 7 of 6, which is no panic.
    assert max(got) == 10
    assert (last + 1) * 2 == 62
    shrinking = got[last:]
    for before, after in pairwise(shrinking):
        assert after >= before // 2


def test_knative_goes_to_zero_after_the_window_and_the_grace_period() -> None:
    policy = Knative(target=10, utilisation=1.0)
    got = _steps(policy, _concurrencies([5] * 5 + [0] * 50))
    # The last request leaves the window 60 s after 10 s; 30 s later the replica goes, at 100 s (step 50).
    assert got.index(0) == 49


def test_hpa_multiplies_by_the_ratio_within_its_tolerance() -> None:
    policy = HPA("utilisation", 0.5, down_window_s=0, most=50)
    got = _steps(policy, [(0, 0, u) for u in (0.54, 0.56, 1.0, 0.5, 0.2)], replicas=10)
    # 1.08: stays; 1.12: ceil(11.2) = 12; 2.0: 24; 1.0: stays; 0.4: ceil(9.6) = 10.
    assert got == [10, 12, 24, 24, 10]


def test_hpa_grows_by_four_or_doubles() -> None:
    policy = HPA("concurrency", 1.0, most=100)
    assert _steps(policy, _concurrencies([100, 100, 100, 100, 100]), replicas=1) == [5, 10, 20, 40, 80]


def test_hpa_shrinks_only_when_the_window_agrees() -> None:
    policy = HPA("rate", 10.0, down_window_s=60, most=20)
    # Ten replicas at 10/s each, then half of it: the wish for 10 lasts 60 s = 4 intervals.
    rows = [(0, 1500, 0.0)] + [(0, 750, 0.0)] * 6
    assert _steps(policy, rows, replicas=10) == [10, 10, 10, 10, 10, 5, 5]


def test_target_tracking_waits_for_its_alarms_and_cooldowns() -> None:
    policy = TargetTracking(600, most=20)
    rows = [(0, 1500, 0.0)] * 3 + [(0, 4800, 0.0)] * 6 + [(0, 600, 0.0)] * 16
    got = _steps(policy, rows, replicas=1)
    # 1500 on one: after three minutes ceil(2.5) = 3. Then 1600 on each: nothing for 300 s.
    assert got[:8] == [1, 1, 3, 3, 3, 3, 3, 8]
    # 75 on each of 8: 15 minutes below 540, then ceil(1) = 1.
    assert got[8] == 8
    assert got[9:23] == [8] * 14
    assert got[23] == 1


def test_a_cold_start_delays_once() -> None:
    replica = Replica(ax.LinearService(0.01), batching=NoBatching(), count=0, start_s=3.0, name="r")
    pool = Pool(replica, autoscaler=Knative(target=1000))
    r = serve_fleet(pool, arrivals=Deterministic(2), requests=40)
    assert (r.events["event"] == "start").sum() == 1
    # The first, at 0.5 s, waits 3 s for the start; those behind it wait for the rest of it and each other.
    assert r.log.finish_ns[0] == 3_510_000_000
    assert (r.latency_s > 0.0101).sum() == 6 + 1
    assert r.latency_s[8:] == pytest.approx(np.full(32, 0.01))


def test_replicas_of_a_quiet_fleet_go_and_come_back() -> None:
    replica = Replica(ax.LinearService(0.01), count=1, start_s=1.0, name="r", usd_per_hour=3.6)
    pool = Pool(replica, autoscaler=Knative(target=10, stable_s=6, grace_s=2))
    traffic = Requests(np.array([1.0, 2.0, 60.0]))
    r = serve_fleet(pool, arrivals=traffic)
    assert r.latency_s == pytest.approx([0.01, 0.01, 1.01])
    assert (r.events["event"] == "gone").sum() == 1
    gone = r.events.set_index("event").loc["gone", "time_s"]
    assert 8 <= gone <= 14
    assert r.summary["usd"] == pytest.approx((gone + 1.01) * 0.001)


def test_a_fleet_grows_under_load_and_its_bill_follows() -> None:
    replica = Replica(ax.LinearService(0.02), batching=NoBatching(), start_s=2.0, usd_per_hour=3.6, name="r")
    pool = Pool(
        replica,
        autoscaler=HPA("utilisation", 0.6, interval_s=5, down_window_s=15, most=8),
        balancer="least_outstanding",
    )
    r = serve_fleet(pool, arrivals=ax.Poisson(150), requests=12_000)
    series = r.series(5.0)
    # 150/s times 20 ms are 3 busy replicas; at 60 % that makes 5, and 4 to 6 within the tolerance.
    assert 4 <= series["replicas"].iloc[-3] <= 7
    assert r.summary["usd"] == pytest.approx(3.6 * r.summary["replica_hours"])
    assert (series["replicas"] * 5.0).sum() == pytest.approx(3600 * r.summary["replica_hours"], rel=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HPA("cpu"), "unknown metric"),
        (lambda: HPA(least=0), "at least 1"),
        (lambda: Knative(most=0), "at least 1"),
        (lambda: Knative(target=0), "positive"),
        (lambda: TargetTracking(-1), "positive"),
        (lambda: Knative(grace_s=-1), "negative"),
    ],
)
def test_senseless_autoscalers_are_refused(make, words: str) -> None:
    with pytest.raises(ax.AccelsimError, match=words):
        make()
