"""Batch curves, largest batches and buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.explore import length_buckets
from accelsim.explore.batching import BatchCurve, boundary


@pytest.fixture(scope="module")
def curve():
    return ax.batch_curve("resnet50", "t4", batches=(1, 4, 16, 64))


def test_a_curve_is_what_simulate_says(curve):
    row = curve.frame.iloc[2]
    one = ax.simulate("resnet50", "t4", batch=16).summary
    assert row["latency_s"] == one["latency_s"]
    assert row["throughput_low_per_s"] < row["throughput_per_s"] < row["throughput_high_per_s"]
    assert row["throughput_low_per_s"] == pytest.approx(16 / one["latency_high_s"])
    assert (curve.frame["memory_bytes"].diff().dropna() > 0).all()


def test_the_knee_is_the_first_batch_near_the_top(curve):
    rates = dict(zip(curve.frame["batch"], curve.frame["throughput_per_s"]))
    knee = curve.knee()
    assert rates[knee] >= 0.9 * max(rates.values())
    assert all(r < 0.9 * max(rates.values()) for b, r in rates.items() if b < knee)
    assert curve.knee(0.01) == 1
    assert curve.gain == pytest.approx(max(rates.values()) / rates[1])
    with pytest.raises(RequestError, match="share"):
        curve.knee(0)


def test_kneedle_finds_the_bend_of_a_saturating_curve():
    rows = tuple(
        {"batch": b, "status": "ok", "throughput_per_s": b / (b + 4)} for b in (1, 2, 4, 8, 16, 32, 64)
    )
    # Scaled by its ends the curve rises above the diagonal most where its slope is that of the chord.
    assert BatchCurve(rows, 1, ()).kneedle == 16
    assert BatchCurve(rows[:2], 1, ()).kneedle is None


def test_recurrent_networks_gain_more_from_a_batch_than_convolutions():
    recurrent, forward = (
        ax.batch_curve(n, "h100-sxm", batches=(1, 32, 256)) for n in ("lstm-1024", "resnet50")
    )
    assert recurrent.serial_steps > 1
    assert forward.serial_steps == 1
    assert "recurrent" in recurrent.notes[0]
    assert recurrent.gain > 3 * forward.gain
    assert recurrent.knee() >= forward.knee()


def test_a_curve_ends_where_memory_does():
    curve = ax.batch_curve(
        "llama-3.1-8b", "h100-sxm", phase="decode", context=4096, batches=(1, 64, 256, 512)
    )
    assert [row["status"] for row in curve.rows] == ["ok", "ok", "infeasible"]
    assert "memory" in curve.rows[-1]["reason"]


def test_the_largest_batch_keeps_the_limit_and_the_next_does_not():
    limit = 3e-3
    most = ax.largest_batch("resnet50", "h100-sxm", latency_s=limit, precision="int8")
    slow, slower = (
        ax.simulate("resnet50", "h100-sxm", batch=b, precision="int8").summary["latency_s"]
        for b in (most, most + 1)
    )
    assert slow <= limit < slower
    decode = {"phase": "decode", "context": 4096}
    most = ax.largest_batch("llama-3.1-8b", "h100-sxm", **decode)
    fits = [ax.simulate("llama-3.1-8b", "h100-sxm", batch=b, **decode).feasible for b in (most, most + 1)]
    assert fits == [True, False]
    assert ax.largest_batch("resnet50", "h100-sxm", latency_s=1e-9) == 0
    with pytest.raises(RequestError, match="not a positive number"):
        ax.largest_batch("resnet50", "h100-sxm", latency_s=-1)
    with pytest.raises(RequestError, match="not a positive number"):
        ax.largest_batch("resnet50", "h100-sxm", latency_s="5 ms")


@given(st.integers(0, 5000), st.integers(1, 4096))
def test_bisection_is_exact(limit, most):
    assert boundary(lambda n: n <= limit, most) == min(limit, most)


def test_buckets_lie_between_padding_and_none():
    lengths = [16, 24, 40, 60, 61, 90, 128, 200, 320]
    found = length_buckets("bert-base", "t4", lengths, buckets=3, batch=4, weights=range(9, 0, -1))
    longest, batch, buckets, none = (row["seconds_per_item"] for row in found.rows)
    assert longest > batch > none
    assert longest > buckets > none
    assert found.edges[-1] == 320
    assert len(found.edges) <= 3
    assert found.rows[-1]["waste_pct"] == 0
    more = length_buckets("bert-base", "t4", lengths, buckets=5, batch=4, weights=range(9, 0, -1))
    assert more.rows[2]["seconds_per_item"] <= buckets


def test_many_lengths_are_rounded_up_to_quantiles():
    from accelsim.explore.batching import CANDIDATES, _thinned
    from accelsim.techniques.padding import Lengths

    lengths = Lengths.of(range(1, 501))
    thin = _thinned(lengths)
    assert len(thin.values) <= CANDIDATES
    assert thin.longest == 500
    assert sum(thin.shares) == pytest.approx(1)
    assert lengths.mean <= thin.mean <= lengths.mean + 500 / CANDIDATES
