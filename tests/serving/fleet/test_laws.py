"""Whatever happens to a fleet, requests are conserved, every one ends, and batches keep their limits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.serving import (
    HPA,
    Client,
    ClosedLoop,
    Crash,
    Deterministic,
    ExponentialService,
    Fleet,
    Greedy,
    Knative,
    LatencyLimit,
    LinkDelay,
    LinkLoss,
    NoBatching,
    Place,
    Pool,
    QueueLimit,
    QueuePolicy,
    RandomService,
    Replica,
    Restart,
    Shift,
    Slow,
    StaticBatch,
    Swap,
    TokenBucket,
    serve_fleet,
)
from accelsim.serving.arrivals import EmpiricalLengths
from accelsim.serving.station import COMPLETED, IN_FLIGHT, REJECTED, TIMED_OUT

ADMISSIONS = [None, QueueLimit(9), LatencyLimit(0.03), TokenBucket(400, 5)]


@st.composite
def policies(draw: st.DrawFn):
    most = draw(st.integers(1, 6))
    return draw(
        st.sampled_from(
            [
                Greedy(most, draw(st.integers(1, 2))),
                StaticBatch(most),
                ax.Triton(most, draw(st.sampled_from([0, 2000]))),
                ax.Triton(most, queue_policy=QueuePolicy("REJECT", 20_000, max_queue_size=6)),
                ax.TorchServe(most, 3, 1, 8),
                ax.TensorFlowServing(most, 2000, 3),
                ax.RayServe(most, 0.002),
            ]
        )
    )


@st.composite
def clients(draw: st.DrawFn) -> Client:
    never = float("inf")
    return Client(
        timeout_s=draw(st.sampled_from([never, 0.03, 0.2])),
        attempt_timeout_s=draw(st.sampled_from([never, 0.01, 0.08])),
        retries=draw(st.integers(0, 2)),
        backoff_s=draw(st.sampled_from([0.0, 0.002])),
        hedge_after_s=draw(st.sampled_from([never, 0.0, 0.004])),
        hedges=draw(st.integers(0, 2)),
    )


@st.composite
def pools(draw: st.DrawFn, name: str, after: tuple[str, ...]) -> Pool:
    law = RandomService(ax.LinearService(0.003, 0.001), cv=draw(st.sampled_from([0.0, 1.0])))
    place = Place(
        f"at {name}", draw(st.sampled_from([0.0, 0.001])), draw(st.sampled_from([1e6, float("inf")]))
    )
    replica = Replica(
        law,
        batching=draw(policies()),
        count=draw(st.integers(1, 3)),
        name=name,
        place=place,
        start_s=draw(st.sampled_from([0.0, 0.05])),
        overheads=ax.Overheads(input_output_s=draw(st.sampled_from([0.0, 0.0005]))),
    )
    scaler = draw(
        st.sampled_from(
            [
                None,
                None,
                Knative(target=4, stable_s=0.4, interval_s=0.02, grace_s=0.1, most=5),
                HPA("concurrency", 3, interval_s=0.05, down_window_s=0.1, most=4),
            ]
        )
    )
    return Pool(
        (replica,),
        name,
        draw(st.sampled_from(["round_robin", "random", "least_outstanding", "power_of_two", "latency_aware",
                              "weighted", "nearest"])),
        concurrency=draw(st.sampled_from([None, None, 1, 5])),
        admission=draw(st.sampled_from(ADMISSIONS)),
        autoscaler=scaler,
        after=after,
        fan_out=draw(st.sampled_from([1, 1, 2, EmpiricalLengths([0, 0, 3])])),
        request_bytes=100.0,
        answer_bytes=50.0,
        detect_s=draw(st.sampled_from([0.0, 0.01])),
    )  # fmt: skip


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    flow = draw(st.sampled_from([(), (("a",),), (("a",), ("a",), ("b", "c")), ((), ("a", "b"))]))
    chosen = [draw(pools("abcd"[i], after)) for i, after in enumerate(((), *flow))]
    name = draw(st.sampled_from([p.name for p in chosen]))
    faults = draw(
        st.lists(
            st.sampled_from(
                [
                    Crash(name, at_s=0.1, for_s=0.05),
                    Crash(f"{name}-0", at_s=0.05, for_s=float("inf")),
                    Crash(mttf_s=0.2, mttr_s=0.03),
                    Restart(0.08, 0.04, name),
                    Slow(5.0, 0.05, 0.1, name),
                    LinkLoss(0.2, 0.05, 0.1),
                    LinkLoss(1.0, 0.1, 0.02),
                    LinkDelay(0.01, 0.02, 0.1),
                ]
            ),
            max_size=3,
        )
    )
    new = Replica(ax.LinearService(0.002, 0.001), name="new", version="2", count=2, start_s=0.02)
    changes = draw(st.sampled_from([(), (Swap(0.1, new, name),)]))
    return Fleet(tuple(chosen), draw(clients()), tuple(faults), changes)


@settings(max_examples=60, deadline=None)
@given(fleets(), st.integers(0, 5), st.sampled_from([100.0, 400.0, 1500.0]), st.sampled_from([None, 0.15]))
def test_requests_are_conserved_and_end(fleet: Fleet, seed: int, rate: float, until: float | None) -> None:
    result = serve_fleet(
        fleet, arrivals=ax.Poisson(rate), requests=120, seed=seed, until_s=until or float("inf")
    )
    counted = np.bincount(result.log.status, minlength=4)
    assert counted.sum() == 120
    if until is None:
        assert counted[IN_FLIGHT] == 0
        assert (result.log.finish_ns >= result.log.arrival_ns).all()
        assert sum(result.reasons.values()) == counted[REJECTED] + counted[TIMED_OUT]
    a = result.attempts
    for number, server in enumerate(result.servers):
        mine = a.server == number
        most = result.stations[number].max_batch
        assert (server.size >= 1).all()
        assert (server.size <= most).all()
        if until is None:
            assert _most_at_once(server.start_ns, server.start_ns + server.held_ns) <= server.instances
        # Nobody answers from a replica that is down, and executions have the requests that they say.
        assert (mine & (a.status == COMPLETED)).sum() <= server.size.sum()
        assert server.up_s <= server.alive_s + 1e-9
    stages = result.stages.set_index("pool")
    for pool in fleet.pools:
        row = stages.loc[pool.name]
        assert row["attempts"] == (a.pool == result.pool_names.index(pool.name)).sum()
        if pool.concurrency is not None:
            for number, server in enumerate(result.servers):
                mine = (a.server == number) & (server.pool == pool.name)
                assert _most_at_once(a.routed_ns[mine], a.back_ns[mine]) <= pool.concurrency


def _most_at_once(enter, leave) -> int:
    marks = sorted([(t, 1) for t in enter] + [(t, -1) for t in leave if t >= 0])
    return int(np.max(np.cumsum([change for _, change in marks]), initial=0))


@settings(max_examples=15, deadline=None)
@given(fleets(), st.integers(0, 3))
def test_equal_seeds_give_equal_numbers(fleet: Fleet, seed: int) -> None:
    one, two = (serve_fleet(fleet, arrivals=ax.Poisson(500), requests=60, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(one.log.finish_ns, two.log.finish_ns)
    np.testing.assert_array_equal(one.attempts.start_ns, two.attempts.start_ns)
    assert one.summary == two.summary or one.summary.keys() == two.summary.keys()


@settings(max_examples=15, deadline=None)
@given(policies(), st.integers(0, 3))
def test_a_fleet_of_one_is_a_server(policy, seed: int) -> None:
    law = RandomService(ax.LinearService(0.003, 0.0005), cv=0.5)
    traffic = ax.Poisson(500)
    alone = ax.serve(law, arrivals=traffic, batching=policy, requests=300, seed=seed, engine="simpy")
    fleet = serve_fleet(Replica(law, batching=policy), arrivals=traffic, requests=300, seed=seed)
    np.testing.assert_array_equal(alone.log.finish_ns, fleet.log.finish_ns)
    np.testing.assert_array_equal(alone.log.status, fleet.log.status)


def test_one_queue_is_first_in_first_out() -> None:
    pool = Pool(Replica(ExponentialService(0.01), batching=NoBatching(), count=3), concurrency=1)
    result = serve_fleet(pool, arrivals=ax.Poisson(290), requests=2000)
    assert (np.diff(result.attempts.start_ns) >= 0).all()


def test_a_live_swap_loses_nothing_and_leaves_only_the_new_version() -> None:
    old = Replica(ax.LinearService(0.004, 0.0005), name="old", count=3)
    new = Replica(ax.LinearService(0.002, 0.0005), name="new", version="2", count=2, start_s=0.5)
    fleet = Fleet(Pool((old,)), changes=(Swap(1.0, new),))
    result = serve_fleet(fleet, arrivals=ax.Poisson(1000), requests=4000)
    assert (result.log.status == COMPLETED).all()
    by_version = result.versions.set_index("version")
    assert by_version["completed"].sum() == 4000
    a = result.attempts
    late = a.sent_ns >= 1.5e9
    assert (a.server[late] >= 3).all()
    assert (a.server[~late] < 3).all()
    assert (result.events["event"] == "gone").sum() == 3


def test_a_restart_loses_nothing() -> None:
    pool = Pool(Replica(ax.LinearService(0.004, 0.0005), name="r", count=2), balancer="random")
    fleet = Fleet(pool, faults=(Restart(1.0, 0.5, "r-0"),))
    result = serve_fleet(fleet, arrivals=ax.Poisson(800), requests=2400)
    assert (result.log.status == COMPLETED).all()
    assert result.replicas.set_index("replica").loc["r-0", "available_pct"] < 100


def test_a_split_divides_the_traffic_and_a_canary_moves_it() -> None:
    kinds = tuple(Replica(ax.LinearService(0.001), name=f"v{v}", version=v, count=2) for v in ("1", "2"))
    fleet = Fleet(Pool(kinds, split={"1": 0.9, "2": 0.1}), changes=(Shift(5.0, {"1": 0.5, "2": 0.5}),))
    result = serve_fleet(fleet, arrivals=Deterministic(1000), requests=10_000)
    a = result.attempts
    second = np.isin(a.server, [2, 3])
    early = a.sent_ns < 5e9
    assert abs(second[early].mean() - 0.1) < 4 * np.sqrt(0.09 / 5000)
    assert abs(second[~early].mean() - 0.5) < 4 * np.sqrt(0.25 / 5000)


def test_what_can_never_be_answered_is_in_flight() -> None:
    """Three users cannot fill a batch of four."""
    pool = Pool(Replica(ax.LinearService(0.01), batching=StaticBatch(4)))
    result = serve_fleet(pool, arrivals=ClosedLoop(3), requests=100)
    assert result.summary["in_flight"] == 3
    assert len(result.log.status) == 3


def test_equal_stamps_name_equal_runs() -> None:
    def run(seed=3, requests=200, rate=500.0, count=2, law=None, **changes):
        law = law or RandomService(ax.LinearService(0.004, 0.0005), 0.3)
        replica = Replica(law, batching=ax.Triton(8), count=count)
        fleet = Fleet(Pool(replica, balancer="power_of_two"), **changes)
        return serve_fleet(fleet, arrivals=ax.Poisson(rate), requests=requests, seed=seed)

    first = run()
    assert run().stamp == first.stamp
    assert (run().log.finish_ns == first.log.finish_ns).all()
    for change in (
        {"seed": 4},
        {"requests": 201},
        {"rate": 501.0},
        {"count": 3},
        {"law": RandomService(ax.LinearService(0.004, 0.0005), 0.4)},
        {"client": Client(retries=1)},
        {"faults": (Slow(2.0),)},
    ):
        assert run(**change).stamp != first.stamp
