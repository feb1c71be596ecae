"""Scores against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.core.errors import RequestError
from accelsim.validate.score import error_pct, errors, interval_score_pct, intervals, noise_floor, regime

times = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=20)


@given(times, st.floats(0.1, 10.0))
def test_a_constant_factor_is_the_error(measured: list[float], factor: float) -> None:
    frame = pd.DataFrame({"latency_s": measured, "predicted_s": np.array(measured) * factor})
    (row,) = errors(frame).to_dict("records")
    assert row["rows"] == len(measured)
    for name in ("mape_pct", "median_ape_pct", "p90_ape_pct"):
        assert row[name] == pytest.approx(100 * abs(factor - 1), abs=1e-9)
    assert row["bias_pct"] == pytest.approx(100 * (factor - 1), abs=1e-9)


def test_errors_by_group_and_missing_predictions() -> None:
    frame = pd.DataFrame(
        {
            "latency_s": [1.0, 1.0, 1.0, 2.0, 2.0],
            "predicted_s": [1.1, 0.9, 1.4, 3.0, np.nan],
            "backend": ["a", "a", "a", "b", "b"],
        }
    )
    a, b = errors(frame, ["backend"]).to_dict("records")
    assert (a["rows"], a["missing"], b["rows"], b["missing"]) == (3, 0, 1, 1)
    assert a["mape_pct"] == pytest.approx(20)
    assert a["median_ape_pct"] == pytest.approx(10)
    assert a["bias_pct"] == pytest.approx(10)
    assert b["mape_pct"] == pytest.approx(50)
    with pytest.raises(RequestError, match="no column 'device'"):
        errors(frame, ["device"])


def test_error_is_signed() -> None:
    assert error_pct([2.0, 0.5], [1.0, 1.0]).tolist() == [100.0, -50.0]


@given(st.floats(1.0, 2.0), st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_interval_score_is_the_width_inside_and_grows_with_the_miss(
    y: float, half: float, level: float
) -> None:
    inside = interval_score_pct([y - half], [y + half], [y], level)[0]
    assert inside == pytest.approx(200 * half / y)
    above = interval_score_pct([y - 3 * half], [y - half], [y], level)[0]
    assert above == pytest.approx(inside + 200 / (1 - level) * half / y)
    below = interval_score_pct([y + half], [y + 3 * half], [y], level)[0]
    assert below == pytest.approx(above)


def test_true_quantiles_have_the_best_interval_score() -> None:
    y = np.linspace(1.0, 2.0, 20_001)  # uniform: the 90 % band is 1.05 to 1.95; equal weights, so scale by y
    score = {
        half: float((interval_score_pct(y * 0 + 1.5 - half, y * 0 + 1.5 + half, y, 0.9) * y).mean())
        for half in (0.35, 0.40, 0.45, 0.48)
    }
    assert min(score, key=lambda h: score[h]) == 0.45
    with pytest.raises(RequestError, match="level"):
        interval_score_pct([1.0], [2.0], [1.5], 1.0)


def test_coverage_and_width() -> None:
    frame = pd.DataFrame(
        {
            "latency_s": [1.0, 1.0, 1.0, 1.0],
            "low_s": [0.9, 1.0, 1.1, np.nan],
            "high_s": [1.1, 1.2, 1.3, np.nan],
            "predicted_s": [1.0, 1.1, 1.2, 1.0],
        }
    )
    (row,) = intervals(frame, 0.9).to_dict("records")
    assert row["rows"] == 3
    assert row["coverage_pct"] == pytest.approx(200 / 3)
    assert row["half_width_pct"] == pytest.approx(100 * 0.1 / 1.1)


def test_noise_floor_is_the_distance_between_backends() -> None:
    frame = pd.DataFrame(
        {
            "m": [1, 1, 2, 2, 3],
            "backend": ["a", "b", "a", "b", "a"],
            "latency_s": [1.0, 1.1, 1.0, 1.0, 9.0],
        }
    )
    found = noise_floor(frame, ["m"])
    assert found["pairs"] == 2
    assert found["mean_pct"] == pytest.approx(100 * 0.1 / 1.05 / 2)
    assert noise_floor(frame[frame["backend"] == "a"], ["m"])["pairs"] == 0


def test_regimes_follow_the_roofline() -> None:
    frame = pd.DataFrame({"op": "gemm", "precision": "bf16", "m": [1, 8192, 1], "n": 8192, "k": 8192})
    frame["latency_s"] = [60e-6, 2e-3, 10e-6]
    assert regime(frame, "h100-sxm").tolist() == ["memory", "compute", "small"]
    link = pd.DataFrame(
        [{"op": "allreduce", "precision": "bf16", "bytes": 1 << 28, "ranks": 8, "latency_s": 1e-3}]
    )
    assert regime(link, "h100-sxm").tolist() == ["link"]
