"""Fleets obey queueing theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

import accelsim as ax
from accelsim.serving import (
    ClosedLoop,
    Deterministic,
    ExponentialService,
    Fleet,
    Nearest,
    NoBatching,
    Place,
    Pool,
    PowerOfChoices,
    Replica,
    Requests,
    Slow,
    Stream,
    Superposition,
    serve_fleet,
)
from accelsim.serving.arrivals import EmpiricalLengths

N = 20_000


def _within(estimate, exact: float, errors: float = 4.0) -> bool:
    return abs(estimate.value - exact) <= errors * estimate.standard_error


def _mm(count: int, mean_s: float = 0.01, **pool) -> Pool:
    return Pool(Replica(ExponentialService(mean_s), batching=NoBatching(), count=count), **pool)


def _erlang_c_wait(rate: float, mean_s: float, servers: int) -> float:
    """Mean wait of M/M/c [s]: C(c, a) / (c mu - l)."""
    a = rate * mean_s
    last = a**servers / math.factorial(servers) * servers / (servers - a)
    waits = last / (sum(a**k / math.factorial(k) for k in range(servers)) + last)
    return waits / (servers / mean_s - rate)


def test_one_queue_before_c_replicas_is_mmc() -> None:
    rate, count = 320.0, 4
    r = serve_fleet(_mm(count, concurrency=1), arrivals=ax.Poisson(rate), requests=N)
    assert _within(r.intervals["latency_mean_s"], 0.01 + _erlang_c_wait(rate, 0.01, count))
    assert r.summary["utilisation"] == pytest.approx(rate * 0.01 / count, rel=0.03)


@pytest.mark.parametrize("balancer", ["random", PowerOfChoices(1)])
def test_a_random_split_is_c_queues_of_their_own(balancer) -> None:
    r = serve_fleet(_mm(4, balancer=balancer), arrivals=ax.Poisson(240), requests=N)
    assert _within(r.intervals["latency_mean_s"], 0.01 / (1 - 0.6))


def test_looking_at_queues_beats_chance() -> None:
    names = ("random", "round_robin", "power_of_two", "least_outstanding")
    traffic = ax.Poisson(720).generate(12_000)
    means = {
        name: serve_fleet(_mm(8, balancer=name), arrivals=traffic).summary["latency_mean_s"] for name in names
    }
    assert means["least_outstanding"] < means["power_of_two"] < means["round_robin"] < means["random"]
    # Supermarket model of many queues: the mean number in a queue is the sum of rho^(2^i - 1) (Mitzenmacher).
    many = sum(0.9 ** (2**i - 1) for i in range(1, 12)) / 90.0
    assert means["power_of_two"] == pytest.approx(many, rel=0.2)


def test_a_pipeline_has_product_form() -> None:
    """Jackson 1957: each station of an open network is an M/M/1 on its own."""
    pools = (
        _mm(1, 0.005, name="detect"),
        _mm(1, 0.006, name="crop", after=("detect",)),
        _mm(1, 0.015, name="classify", after=("crop",), fan_out=EmpiricalLengths([0, 1])),
    )
    r = serve_fleet(Fleet(pools), arrivals=ax.Poisson(90), requests=N)
    exact = 0.005 / (1 - 0.45) + 0.006 / (1 - 0.54) + 0.5 * 0.015 / (1 - 0.675)
    assert _within(r.intervals["latency_mean_s"], exact)
    a = r.attempts
    begin, end = 2e9, 215e9
    numbers = [
        (np.minimum(a.back_ns[a.pool == i], end) - np.maximum(a.sent_ns[a.pool == i], begin)).clip(0).sum()
        / (end - begin)
        for i in range(3)
    ]
    for number, load in zip(numbers, (0.45, 0.54, 0.675)):
        assert number == pytest.approx(load / (1 - load), rel=0.1)


def test_fan_out_waits_for_the_last_part() -> None:
    pools = (
        Pool(Replica(ax.LinearService(0.002), batching=NoBatching()), "detector"),
        Pool(
            Replica(ax.LinearService(0.003), batching=NoBatching()),
            "classifier",
            after=("detector",),
            fan_out=4,
        ),
    )
    r = serve_fleet(Fleet(pools), arrivals=Deterministic(10), requests=50)
    assert r.latency_s == pytest.approx(np.full(50, 0.002 + 4 * 0.003))
    assert r.stages.set_index("pool").loc["classifier", "calls"] == 200
    assert r.summary["capacity_per_s"] == pytest.approx(1 / 0.012)


def test_models_take_their_own_requests() -> None:
    fleet = Fleet(
        (
            Pool(Replica(ax.LinearService(0.001)), "small", model=0),
            Pool(Replica(ax.LinearService(0.004)), "large", model=1),
        )
    )
    traffic = Superposition(Stream(Deterministic(10), model=0), Stream(Deterministic(5), model=1))
    r = serve_fleet(fleet, arrivals=traffic, requests=300)
    calls = r.stages.set_index("pool")["calls"]
    assert calls["small"] == pytest.approx(200, abs=2)
    assert calls.sum() == 300
    # A third of the requests asks for the large model, which serves 8 at once in 4 ms.
    assert r.summary["capacity_per_s"] == pytest.approx(3 * 8 / 0.004, rel=0.02)


def test_users_in_a_closed_loop_obey_the_response_time_law() -> None:
    loop = ClosedLoop(6, think_s=0.05)
    r = serve_fleet(_mm(2), arrivals=loop, requests=10_000)
    thinking = loop.thinking_s(10_000).mean()
    assert r.summary["latency_mean_s"] == pytest.approx(
        6 / r.summary["throughput_per_s"] - thinking, rel=0.01
    )


def test_the_way_to_a_place_counts_twice_and_its_bandwidth_is_shared() -> None:
    place = Place("cloud", delay_s=0.02, bytes_per_s=1e6)
    pool = Pool(
        Replica(ax.LinearService(0.001), place=place, batching=NoBatching(), count=2),
        request_bytes=5000,
        answer_bytes=1000,
    )
    r = serve_fleet(pool, arrivals=Deterministic(10), requests=20)
    assert r.latency_s == pytest.approx(np.full(20, 0.02 + 0.005 + 0.001 + 0.001 + 0.02))
    burst = Requests(np.zeros(2))
    r = serve_fleet(pool, arrivals=burst)
    assert np.sort(r.latency_s) == pytest.approx([0.047, 0.052])


def test_the_nearest_place_spills_over_when_it_is_full() -> None:
    edge = Replica(ax.LinearService(0.01), name="edge", place=Place("edge", 0.001), batching=NoBatching())
    cloud = Replica(
        ax.LinearService(0.01), name="cloud", place=Place("cloud", 0.03), batching=NoBatching(), count=4
    )
    pool = Pool((edge, cloud), balancer=Nearest(spill=2))
    low = serve_fleet(pool, arrivals=Deterministic(20), requests=100).replicas.set_index("replica")
    assert low.loc["edge-0", "completed"] == 100
    high = serve_fleet(pool, arrivals=ax.Poisson(300), requests=3000).replicas.set_index("replica")
    # 100/s is what the edge box can do; with a loss system of two places it is nearly always busy.
    assert 0.25 < high.loc["edge-0", "completed"] / 3000 < 0.34


def test_weights_divide_exactly() -> None:
    kinds = tuple(
        Replica(ax.LinearService(0.001), name=n, weight=w) for n, w in (("a", 5), ("b", 1), ("c", 1))
    )
    r = serve_fleet(Pool(kinds, balancer="weighted"), arrivals=Deterministic(50), requests=70)
    assert r.replicas["completed"].tolist() == [50, 10, 10]
    # The smooth order of nginx's example.
    assert r.attempts.server[:7].tolist() == [0, 0, 1, 0, 2, 0, 0]


def test_latency_awareness_avoids_a_slow_node() -> None:
    pool = Pool(
        Replica(ax.LinearService(0.002), name="r", count=4, batching=NoBatching()),
        balancer="latency_aware",
    )
    fleet = Fleet(pool, faults=(Slow(10, replica="r-0"),))
    r = serve_fleet(fleet, arrivals=ax.Poisson(800), requests=8000).replicas.set_index("replica")
    assert r.loc["r-0", "completed"] < 0.4 * r.loc["r-1", "completed"]
