"""Federated rounds: order statistics, conservation of updates, and the two engines agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.errors import RequestError
from accelsim.serving.arrivals import Poisson
from accelsim.serving.batching import NoBatching
from accelsim.serving.federated import Participants, federated
from accelsim.serving.federated_round import expected_kth_s
from accelsim.serving.service import ExponentialService, LinearService
from accelsim.serving.sharing import beside
from accelsim.techniques.federation import Compression, SecureAggregation


@st.composite
def rounds(draw):
    groups = [
        Participants(
            f"kind {i}",
            draw(st.integers(1, 12)),
            step_s=draw(st.sampled_from([0.5, 1.0, 3.0])),
            step_j=2.0,
            uplink_bytes_per_s=draw(st.sampled_from([1e3, 1e6, math.inf])),
            downlink_bytes_per_s=draw(st.sampled_from([1e4, math.inf])),
            availability=draw(st.sampled_from([0.3, 1.0])),
            dropout=draw(st.sampled_from([0.0, 0.4, 0.9])),
            cv=draw(st.sampled_from([0.0, 0.5, 1.0])),
        )
        for i in range(draw(st.integers(1, 3)))
    ]
    devices = sum(g.count for g in groups)
    select = draw(st.integers(1, devices))
    accept = draw(st.integers(1, select))
    return groups, {
        "parameters": 1000,
        "select": select,
        "accept": accept,
        "deadline_s": draw(st.sampled_from([None, 0.7, 2.0, 8.0])),
        "minimum": draw(st.integers(0, accept)),
        "secure": draw(st.sampled_from([None, SecureAggregation(), SecureAggregation(group=4)])),
        "rounds": 3,
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=80)
@given(rounds())
def test_engines_agree_and_no_update_is_lost(case):
    groups, options = case
    fast, slow = (federated(groups, engine=engine, **options) for engine in ("arrays", "simpy"))
    assert fast.rows == slow.rows
    assert np.array_equal(fast.energy_j, slow.energy_j)
    for row in fast.rows:
        fates = ("accepted", "late", "dropped", "discarded")
        assert row["selected"] == sum(row[f] for f in fates) == min(options["select"], row["available"])
        assert row["accepted"] <= options["accept"]
        assert row["bytes_up"] <= row["selected"] * fast.summary["update_bytes"] * (1 + 1e-12)
        assert row["bytes_up"] >= (row["accepted"] + row["discarded"]) * fast.summary["update_bytes"] * (
            1 - 1e-12
        )
        if options["deadline_s"] is not None:
            assert row["wait_s"] <= options["deadline_s"]
    assert fast.summary["energy_j"] == pytest.approx(sum(row["energy_j"] for row in fast.rows))


@pytest.mark.parametrize(("n", "k"), [(10, 10), (100, 80), (1000, 1000), (1000, 900)])
def test_stragglers_follow_the_order_statistics_of_the_exponential(n, k):
    many = 800
    found = federated(
        Participants("phone", n, step_s=2.0, cv=1.0), parameters=1, accept=k, rounds=many, seed=3
    ).summary
    # Var of the k-th of n exponentials: mean^2 sum 1 / i^2
    spread = 2.0 * math.sqrt(sum(1 / i**2 for i in range(n - k + 1, n + 1)) / many)
    assert abs(found["round_mean_s"] - expected_kth_s(2.0, n, k)) < 4 * spread + 1e-6


def test_a_round_of_a_thousand_devices_is_the_same_on_both_engines():
    groups = [
        Participants("a", 600, 1.0, 2.0, 1e7, 1e6, availability=0.9, dropout=0.1, cv=0.5),
        Participants("b", 400, 4.0, 9.0, 1e6, 1e5, availability=0.8, dropout=0.2, cv=1.0),
    ]
    arrays, events = (
        federated(groups, parameters=10**6, deadline_s=120, engine=engine).rows
        for engine in ("arrays", "simpy")
    )
    assert arrays == events


def test_a_round_of_a_thousand_simulated_devices_with_masks():
    model = "mobilenet-v2"
    groups = [
        Participants.of(model, "jetson-orin", count=300, batch=8, uplink_bytes_per_s=2e6, cv=0.3),
        Participants.of(model, "zcu104-dpu", count=700, batch=8, uplink_bytes_per_s=1e6, dropout=0.1),
    ]
    found = federated(
        groups,
        parameters=3_504_872,
        local_steps=20,
        accept=800,
        compression=Compression(8),
        secure=SecureAggregation(group=50),
    )
    assert found.rows[0]["accepted"] == 800
    assert any("int8" in note for note in found.notes)
    assert list(found.devices["name"]) == ["jetson-orin", "zcu104-dpu"]
    assert found.devices["busy_pct"].between(0, 100).all()
    assert (found.devices["energy_per_device_j"] > 0).all()


def test_no_device_there_makes_an_empty_round_that_fails():
    found = federated(Participants("rare", 2, 1.0, availability=1e-9), parameters=10)
    row = found.rows[0]
    assert (row["selected"], row["round_s"], row["failed"]) == (0, 0, True)


def test_deterministic_round_by_hand():
    client = Participants(
        "d", 4, 0.5, 3.0, downlink_bytes_per_s=400, uplink_bytes_per_s=100, radio_j_per_byte=0.01
    )
    found = federated(client, parameters=100, local_steps=4, compression=Compression(8))
    row = found.rows[0]
    assert row["wait_s"] == pytest.approx(400 / 400 + 4 * 0.5 + 100 / 100)
    assert (row["bytes_down"], row["bytes_up"]) == (1600, 400)
    assert found.energy_j == pytest.approx(4 * 3.0 + 500 * 0.01)
    assert repr(found).splitlines()[:2] == [
        "1 rounds of 4 devices: mean 4 s, p95 4 s",
        "updates: 4 accepted, 0 late, 0 dropped, 0 discarded",
    ]
    slower = federated(Participants("d", 4, 0.5, 3.0, share=0.25), parameters=100, local_steps=4)
    assert slower.rows[0]["wait_s"] == pytest.approx(8.0)
    assert slower.energy_j == pytest.approx(12.0)  # longer, not more work


def test_over_selection_shortens_rounds_and_makes_late_updates():
    client = Participants("phone", 100, 1.0, cv=1.0)
    all_of = federated(client, parameters=10, rounds=50).summary
    most = federated(client, parameters=10, accept=90, rounds=50).summary
    assert most["round_mean_s"] < all_of["round_mean_s"]
    assert (most["late"], all_of["late"]) == (50 * 10, 0)


def test_compression_counts_places():
    assert Compression().update_bytes(1000) == 4000
    assert Compression(8).update_bytes(1000) == 1000
    assert Compression(32, 0.01).update_bytes(1_000_000) == 10_000 * (32 + 20) / 8
    # with many kept the bitmap is smaller than the indices
    assert Compression(16, 0.5).update_bytes(1_000_000) == (500_000 * 16 + 1_000_000) / 8


@pytest.mark.parametrize(("users", "elements", "published"), [(2**10, 2**20, 1.73), (2**14, 2**24, 1.98)])
def test_expansion_of_secure_aggregation_is_the_published_one(users, elements, published):
    secure = SecureAggregation()
    whole = secure.sent_bytes(users, elements, 16) + secure.received_bytes(users)
    assert whole / (elements * 2) == pytest.approx(published, abs=0.006)


def test_secure_aggregation_grows_with_the_square_and_groups_stop_that():
    whole, grouped = (
        SecureAggregation(agreement_s=0, masks_per_s=1e30),
        SecureAggregation(64, agreement_s=0, masks_per_s=1e30),
    )
    assert whole.client_s(2000, 10) / whole.client_s(1000, 10) == pytest.approx(4)
    assert grouped.client_s(2000, 10) == grouped.client_s(1000, 10)
    plain = SecureAggregation(share_s=0.0, server_speedup=1.0)
    # own masks of 90 that answered, and 10 lost ones' masks with each of them
    assert plain.server_s(100, 10, 10**6) == pytest.approx((90 + 10 * 90) * 10**6 / plain.masks_per_s)


def test_inference_beside_training_follows_the_slowed_queue():
    """M/M/1 with service rate mu (1 - share): mean time in the system 1 / (mu (1 - share) - lambda)."""
    law, rate, share = ExponentialService(0.01), 30.0, 0.4
    found = beside(
        law, arrivals=Poisson(rate), share=share, busy=0.25, batching=NoBatching(), requests=200_000
    ).summary
    assert found["latency_mean_alone_s"] == pytest.approx(1 / (100 - rate), rel=0.03)
    assert found["latency_mean_training_s"] == pytest.approx(1 / (60 - rate), rel=0.05)
    assert found["latency_mean_s"] == pytest.approx(
        0.75 * found["latency_mean_alone_s"] + 0.25 * found["latency_mean_training_s"]
    )


def test_training_that_leaves_too_little_of_a_device_is_called_unstable():
    found = beside(
        LinearService(0.01), arrivals=Poisson(80.0), share=0.5, requests=2000, batching=NoBatching()
    )
    assert (found.alone.stable, found.training.stable) == (True, False)
    assert found.summary["status"] == "unstable while it trains"


def test_a_client_of_a_simulated_device_trains_as_long_as_its_passes():
    client = Participants.of("mobilenet-v2", "jetson-orin", count=3, batch=4, cv=0.0)
    found = federated(client, parameters=3_504_872, local_steps=10)
    assert client.name == "jetson-orin"
    assert found.rows[0]["wait_s"] == pytest.approx(10 * client.step_s, rel=1e-6)
    assert found.summary["energy_per_device_j"] == pytest.approx(10 * client.step_j, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: federated([], parameters=1), "no client"),
        (lambda: Participants("x", 0, 1.0), "0 devices"),
        (lambda: Participants("x", 1, 0.0), "step_s must be positive"),
        (lambda: Participants("x", 1, 1.0, dropout=1.0), "dropout of 1.0"),
        (lambda: Participants("x", 1, 1.0, availability=0.0), "availability 0.0"),
        (lambda: federated(Participants("x", 2, 1.0), parameters=0), "parameters 0"),
        (lambda: federated(Participants("x", 2, 1.0), parameters=1, select=3), "there are 2"),
        (lambda: federated(Participants("x", 2, 1.0), parameters=1, accept=3), "accepts 3 updates of 2"),
        (lambda: federated(Participants("x", 2, 1.0), parameters=1, deadline_s=0), "deadline of 0"),
        (lambda: federated(Participants("x", 2, 1.0), parameters=1, engine="ns3"), "unknown engine"),
        (lambda: beside(LinearService(1.0), arrivals=Poisson(1.0), share=1.0), "share 1.0"),
        (lambda: beside(LinearService(1.0), arrivals=Poisson(1.0), share=0.5, busy=2.0), "busy 2.0"),
        (lambda: Compression(0), "0 bits"),
        (lambda: Compression(8, 0.0), "keep 0.0"),
        (lambda: SecureAggregation(1), "group of 1"),
        (
            lambda: federated(
                Participants("x", 2, 1.0),
                parameters=9,
                compression=Compression(8, 0.1),
                secure=SecureAggregation(),
            ),
            "masks cover every element",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(RequestError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
