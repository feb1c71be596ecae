"""Sizing finds the fleet that theory, and trying one after the other, find."""

from __future__ import annotations

import math

import numpy as np
import pytest

import accelsim as ax
from accelsim.serving import MMPP, ClosedLoop, ExponentialService, Greedy, NoBatching, QueuePolicy

EXPONENTIAL = {"unit": ExponentialService(0.01)}


def _alone(**more):
    return {"hardware": EXPONENTIAL, "batching": NoBatching(), "requests": 200_000, **more}


def test_the_number_is_that_of_the_mm1_quantile() -> None:
    # The sojourn of M/M/1 is exponential: p99 = ln(100) / (mu - l), so a replica takes mu - ln(100) / limit.
    limit_s = 0.1
    each = 100 - math.log(100) / limit_s
    for rate in (20.3 * each, 3.5 * each):
        s = ax.size_for(slo={"p99_ms": 1e3 * limit_s}, rate_per_s=rate, **_alone())
        assert s.winner["replicas"] == math.ceil(rate / each)
        row = s.rows[0]
        assert row["p99_ms_low"] <= row["p99_ms"] <= row["p99_ms_high"]
        exact = 1e3 * math.log(100) / (100 - rate / row["replicas"])
        assert row["p99_ms"] == pytest.approx(exact, rel=0.06)
        assert row["headroom_pct"] == pytest.approx(100 * (row["replicas"] * 100 / rate - 1))


def test_one_replica_less_misses_the_objective() -> None:
    law = {"unit": ax.LinearService(0.004, 0.0005)}
    s = ax.size_for(
        slo={"p99_ms": 12}, rate_per_s=20_000, hardware=law, batching=ax.Triton(8), requests=50_000
    )
    count = s.winner["replicas"]
    for n, meets in ((count, True), (count - 1, False)):
        r = ax.serve(
            law["unit"], arrivals=ax.Poisson(20_000 / n), batching=ax.Triton(8), requests=50_000, warmup=0.02
        )
        assert (r.summary["latency_p99_s"] <= 0.012) == meets


def test_looking_at_queues_needs_fewer_replicas() -> None:
    asked = {"slo": {"p99_ms": 60}, "rate_per_s": 700.0}
    split = ax.size_for(**asked, **_alone()).winner["replicas"]
    joined = ax.size_for(**asked, **_alone(balancer="least_outstanding", requests=700)).winner["replicas"]
    assert 8 <= joined < split


def test_bursts_need_more_replicas_than_a_steady_stream() -> None:
    asked = {"slo": {"p99_ms": 30}, **_alone(requests=30_000, hardware={"unit": ax.LinearService(0.01)})}
    counts = [
        ax.size_for(arrivals=arrivals, **asked).winner["replicas"]
        for arrivals in (ax.Poisson(300), MMPP((100.0, 900.0), (3.0, 1.0)))
    ]
    assert counts[0] < counts[1]


def test_refused_requests_count_as_never_answered() -> None:
    policy = ax.Triton(1, queue_policy=QueuePolicy(max_queue_size=1))
    law = {"unit": ax.LinearService(0.01)}
    s = ax.size_for(slo={"p99_ms": 25}, rate_per_s=100, hardware=law, batching=policy, requests=50_000)
    count = s.winner["replicas"]
    r = ax.serve(law["unit"], arrivals=ax.Poisson(100 / count), batching=policy, requests=50_000)
    assert r.summary["rejected_pct"] < 1


def test_what_cannot_do_it_is_a_row_with_its_reason() -> None:
    s = ax.size_for(slo={"p99_ms": 5}, rate_per_s=10, **_alone(hardware={"slow": ax.LinearService(0.006)}))
    assert s.winner is None
    assert s.rows[0]["status"] == "slo"
    assert "p99_ms above 5: 6" in s.rows[0]["reason"]
    big = ax.size_for(
        "llama-3.1-70b",
        slo={"p99_ms": 500},
        rate_per_s=1,
        hardware=["l4"],
        precision="fp16",
        batching=Greedy(1),
    )
    assert big.rows[0]["status"] == "infeasible"
    assert big.rows[0]["reason"].startswith("memory: needs")


def test_devices_are_priced_and_the_cheapest_wins() -> None:
    prices = {
        "l4": {"rent": {"value": 0.5, "date": "2026-05", "source": "quote"}},
        "h100-sxm": {"rent": {"value": 100.0, "date": "2026-05", "source": "quote"}},
    }
    asked = {
        "slo": {"p99_ms": 15},
        "rate_per_s": 30_000,
        "hardware": ["l4", "h100-sxm"],
        "precision": "int8",
        "batching": [Greedy(8)],
        "requests": 20_000,
    }
    s = ax.size_for("resnet50", **asked, prices_from=prices)
    assert s.winner["hardware"] == "l4"
    row = s.winner
    assert row["usd_per_hour"] == pytest.approx(0.5 * row["replicas"])
    assert row["usd_per_million_requests"] == pytest.approx(row["usd_per_hour"] / 3600 / 30_000 * 1e6)
    fewest = ax.size_for("resnet50", **asked, prices_from=prices, objective="replicas").winner
    assert fewest["hardware"] == "h100-sxm"
    assert row["p99_ms_band_low"] <= row["p99_ms"] <= row["p99_ms_band_high"]
    sure = {r["hardware"]: r["replicas"] for r in ax.size_for("resnet50", **asked, sure=True).rows}
    assert all(sure[r["hardware"]] >= r["replicas"] for r in s.rows)
    assert list(s.frame["hardware"]) == ["l4", "h100-sxm"]


def test_unknown_prices_are_said() -> None:
    s = ax.size_for(slo={"mean_ms": 20}, rate_per_s=50, **_alone(requests=5000))
    assert math.isnan(s.winner["usd_per_hour"])
    assert "no price" in s.winner["unknown"]
    assert any("fewest replicas" in n for n in s.notes)


def test_equal_seeds_give_equal_tables() -> None:
    one, two = (
        ax.size_for(slo={"p95_ms": 40}, rate_per_s=200, **_alone(requests=5000, seed=3)) for _ in range(2)
    )
    np.testing.assert_equal(one.rows, two.rows)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slo": {"p99": 15}}, "objective 'p99' is no known percentile; did you mean p99_ms"),
        ({"slo": {"p100_ms": 15}}, "no known percentile"),
        ({"slo": {}}, "no objective"),
        ({"slo": {"p99_ms": 0}}, "must be positive"),
        ({"rate_per_s": None}, "either a rate or arrivals"),
        ({"rate_per_s": -1.0}, "must be positive"),
        ({"rate_per_s": None, "arrivals": ClosedLoop(3)}, "must have a rate"),
        ({"objective": "costs"}, "did you mean cost"),
        ({"balancer": "rondom"}, "did you mean random"),
        ({"workload": "resnet50"}, "bring their own"),
        ({"hardware": ["l4"]}, "no workload"),
        ({"most": 0}, "at least 1 replica"),
        ({"hardware": {}}, "nothing to choose from"),
        ({"batching": []}, "nothing to choose from"),
    ],
)
def test_senseless_sizings_are_refused(changes, words: str) -> None:
    asked = {"slo": {"p99_ms": 50}, "rate_per_s": 100.0, **_alone(), **changes}
    with pytest.raises(ax.AccelsimError, match=words) as caught:
        ax.size_for(**asked)
    assert "\n" not in str(caught.value)
