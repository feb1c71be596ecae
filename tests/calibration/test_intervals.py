"""Bands: they hold the share that they promise, widen where less is known, and sums of kernels follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures.base import Options
from accelsim.architectures.gpu import intervals
from accelsim.architectures.gpu.intervals import ASSUMED, combine, factors, shipped_bands
from accelsim.calibration.intervals import (
    LEAST_ROWS,
    cells,
    common_share,
    conformal,
    coverage,
    effective_rows,
)
from accelsim.core.errors import ConfigError
from accelsim.hardware.bands import Band


def _residuals(rows: int, seed: int, skew: float = 0.0) -> pd.DataFrame:
    """Errors whose spread depends on the size and on what limits the row."""
    rng = np.random.default_rng(seed)
    predicted = np.exp(rng.uniform(np.log(2e-6), np.log(5e-3), rows))
    bound = rng.choice(["compute", "memory", "latency"], rows)
    sigma = 0.03 + 0.15 * (predicted < 10e-6) + 0.08 * (bound == "memory")
    error = rng.normal(0.0, sigma)
    return pd.DataFrame(
        {
            "op": "gemm",
            "formats": "half",
            "device": "d",
            "predicted_s": predicted,
            "bound": bound,
            "group": np.arange(rows) % 400,
            "log_ratio": np.where(error > 0, error * (1.0 + skew), error),
        }
    )


def _calibrated(found: dict[str, tuple[Band, float]]) -> object:
    device = ax.load_hardware("h100-sxm")
    bands = {name: band for name, (band, _) in found.items()}
    return device.model_copy(update={"kernels": device.kernels.model_copy(update={"band": bands})})


@pytest.mark.parametrize("skew", [0.0, 2.0])
def test_bands_hold_nine_rows_in_ten_in_every_regime(skew: float) -> None:
    device = _calibrated(cells(_residuals(8000, 1, skew)))
    new = _residuals(8000, 2, skew)
    low, high = factors("gemm", "half", device, Options(), new["predicted_s"], new["bound"])
    measured = np.exp(new["log_ratio"])
    inside = (low <= measured) & (measured <= high)
    assert 0.88 < inside.mean() < 0.93
    for regime in (new["predicted_s"] < 10e-6, new["bound"] == "memory", new["bound"] == "compute"):
        assert 0.86 < inside[regime].mean() < 0.95
    widths = np.log(high / low)
    small = (new["predicted_s"] < 10e-6).to_numpy()
    assert np.median(widths[small]) > 2 * np.median(widths[~small])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_few_rows_make_a_wide_band(seed: int) -> None:
    errors = np.random.default_rng(seed).normal(0.0, 0.1, 4000)
    low, high = conformal(errors)
    assert high - low == pytest.approx(2 * 1.645 * 0.1, rel=0.1)
    short = np.mean([np.subtract(*conformal(errors[i : i + 10])[::-1]) for i in range(0, 1000, 10)])
    longer = np.mean([np.subtract(*conformal(errors[i : i + 40])[::-1]) for i in range(0, 4000, 40)])
    assert short > longer > high - low


@pytest.mark.parametrize("rows", [5, 15, 30, 100])
def test_finite_samples_still_cover(rows: int) -> None:
    rng = np.random.default_rng(rows)
    held = []
    for _ in range(600):
        low, high = conformal(rng.normal(0.0, 1.0, rows))
        new = rng.normal(0.0, 1.0, 20)
        held.append(np.mean((low <= new) & (new <= high)))
    assert np.mean(held) > 0.885


def test_rows_of_one_group_count_once() -> None:
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.normal(0.0, 0.1, 30), 50)
    by_row, by_group = conformal(shared), conformal(shared, groups=np.repeat(np.arange(30), 50))
    assert by_group[0] <= by_row[0] < by_row[1] <= by_group[1]
    assert by_group != by_row


def test_rows_count_by_how_alike_their_groups_are() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    alone, shared = rng.normal(0.0, 1.0, 1000), rng.normal(0.0, 1.0, 40)[groups]
    assert effective_rows(alone, groups) > 500
    assert effective_rows(shared, groups) == pytest.approx(40, rel=0.05)
    assert 40 < effective_rows(shared + alone, groups) < 200
    assert effective_rows(alone, np.arange(1000)) == 1000
    assert effective_rows(alone, np.zeros(1000)) == 1


def test_weights_count_families_alike() -> None:
    errors = np.concatenate([np.full(900, 0.0), np.full(100, 0.5)])
    assert conformal(errors, 0.7)[1] == 0.0
    weights = np.concatenate([np.full(900, 1 / 900), np.full(100, 1 / 100)])
    assert conformal(errors, 0.7, weights=weights)[1] == 0.5


def test_cells_below_the_least_rows_fall_back() -> None:
    frame = _residuals(60, 3)
    found = cells(frame)
    assert set(found) == {"gemm", "gemm/half"}
    assert found["gemm/half"][0].low == pytest.approx(found["gemm"][0].low)
    many = cells(_residuals(8000, 3))
    assert all(band.rows >= LEAST_ROWS for band, _ in many.values())
    assert any(name.count("/") == 2 for name in many)


def test_bands_widen_outside_what_was_measured() -> None:
    device = _calibrated(cells(_residuals(4000, 5)))
    inside, beyond, far = (
        np.log(np.divide(*factors("gemm", "half", device, Options(), [t], ["compute"])[::-1]))[0]
        for t in (4e-3, 20e-3, 10.0)
    )
    assert inside < beyond < far
    unseen = np.log(np.divide(*factors("gemm", "nvfp4", device, Options(), [4e-3], ["compute"])[::-1]))[0]
    assert unseen > inside
    sparse = factors("gemm", "half", device, Options(sparsity="2:4"), [4e-3], ["compute"])
    assert np.log(sparse[1] / sparse[0])[0] > inside
    low, high = factors("fft", "half", device, Options(), [1e-3], ["compute"])
    assert (low[0], high[0]) == ASSUMED


bands = st.tuples(st.floats(0.5, 0.99), st.floats(1.01, 2.0), st.floats(1e-6, 1e-2))


@settings(max_examples=100, deadline=None)
@given(st.lists(bands, min_size=1, max_size=12), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_sums_of_kernels(parts: list[tuple[float, float, float]], one: float, two: float) -> None:
    low, high, seconds = (np.array(v) for v in zip(*parts))
    few, many = sorted((one, two))
    narrow, wide = combine(seconds, low, high, few), combine(seconds, low, high, many)
    assert narrow[0] < narrow[1]
    assert np.log(wide[1] / wide[0]) >= np.log(narrow[1] / narrow[0]) - 1e-9
    assert combine(seconds[:1], low[:1], high[:1], one) == pytest.approx((low[0], high[0]))
    split = combine(np.repeat(seconds / 2, 2), np.repeat(low, 2), np.repeat(high, 2), 1.0)
    assert split == pytest.approx(combine(seconds, low, high, 1.0), rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_bands_of_sums_hold_in_simulation(share: float) -> None:
    rng = np.random.default_rng(7)
    seconds, sigma = rng.lognormal(-9.0, 1.0, 20), rng.uniform(0.05, 0.3, 20)
    low, high = np.exp(-1.645 * sigma), np.exp(1.645 * sigma)
    common, own = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, 20))
    errors = sigma * (np.sqrt(share) * common + np.sqrt(1.0 - share) * own)
    ratio = (seconds * np.exp(errors)).sum(axis=1) / seconds.sum()
    a, b = combine(seconds, low, high, share)
    assert np.mean((a <= ratio) & (ratio <= b)) == pytest.approx(0.9, abs=0.01)
    assert np.mean(ratio < a) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_the_common_share_is_found(share: float) -> None:
    rng = np.random.default_rng(11)
    frame = _residuals(12_000, 12)
    cluster = rng.integers(0, 600, len(frame))
    z = np.sqrt(share) * rng.normal(size=600)[cluster] + np.sqrt(1.0 - share) * rng.normal(size=len(frame))
    frame = frame.assign(log_ratio=0.1 * z, group=np.arange(len(frame)))
    found = {name: band for name, (band, _) in cells(frame).items()}
    assert common_share(frame, found, cluster) == pytest.approx(share, abs=0.08)


def test_coverage_is_counted_by_hand() -> None:
    frame = pd.DataFrame(
        {"latency_s": [1.0, 2.0], "predicted_s": [1.0, 1.0], "low_s": [0.9, 0.9], "high_s": [1.1, 1.1]}
    )
    found = coverage(frame)
    assert found["coverage_pct"] == 50.0
    assert found["half_width_pct"] == pytest.approx(10.0)
    # Width 0.2, and the second misses by 0.9: 20 times that, over a measurement of 2.
    assert found["interval_score_pct"] == pytest.approx(100 * (0.2 + (0.2 + 20 * 0.9) / 2) / 2)


def test_the_shipped_table_is_small_and_whole() -> None:
    shares, found = shipped_bands()
    assert set(shares) == {intervals.MEASURED, intervals.LEFT_OUT}
    assert all(0.0 <= s <= 1.0 for s in shares.values())
    for (basis, device), held in found.items():
        assert (device == "") == (basis == intervals.LEFT_OUT)
        if device:
            ax.load_hardware(device)
        for name, band in held.items():
            assert band.low < band.high, name
            assert name.split("/")[0] in held, f"{name} has nothing to fall back to"


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "basis,device,cell,low,high,level,rows,shortest_s,longest_s\nmeasured,d,gemm,x,1,1,1,1,1\n"
    )
    with pytest.raises(ConfigError, match="not a row of error bands"):
        shipped_bands(path)


def test_a_device_without_measurements_is_less_certain() -> None:
    frame = pd.DataFrame({"op": "gemm", "precision": "fp16", "m": [64, 4096], "n": 4096, "k": 4096})
    known, unknown = (ax.predict_ops(frame, name) for name in ("h100-sxm", "rtx-3090"))
    assert (unknown.high_s / unknown.low_s > known.high_s / known.low_s).all()
    changed = ax.load_hardware("h100-sxm").replace(**{"memory.bandwidth": "2 TB/s"})
    other = ax.predict_ops(frame, changed)
    assert (other.high_s / other.low_s > known.high_s / known.low_s).all()


def test_a_network_says_what_its_band_rests_on() -> None:
    result = ax.simulate("resnet50", "h100-sxm", batch=8)
    band = result.intervals["latency_s"]
    assert band.low < result.summary["latency_s"] < band.high
    assert band.level == 0.9
    assert "% of the time" in band.basis
    bound = ax.simulate("resnet50", "h100-sxm", batch=8, fidelity="analytic").intervals["latency_s"]
    assert "assumed" in bound.basis
