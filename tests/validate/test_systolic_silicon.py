"""Systolic devices against silicon: what the model owes, and how the fit splits its rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelsim.core.errors import ConfigError
from accelsim.validate import edge_networks, systolic

GEMM = Path(__file__).parents[3] / "shared" / "measurements" / "tpu_gemm" / "gemm_fp16.csv"


@pytest.fixture(scope="module")
def silicon():
    return systolic.silicon()


def _errors(table, device: str):
    rows = table[(table.device == device) & (table.role == "scored")]
    return rows.dropna(subset=["predicted"]).set_index("what").error_pct.abs()


def test_tpu_v1_is_within_ten_percent(silicon) -> None:
    errors = _errors(silicon, "tpu-v1")
    assert len(errors) == 3
    assert (errors < 10).all(), errors


def test_tpu_v1_shapes_have_the_published_weights() -> None:
    """Table 1 of the paper: 20M, 52M and 8M weights; operations per weight byte 200, 64 and 2888."""
    for name, weights, intensity in (("MLP0", 20e6, 1), ("LSTM0", 52e6, 1), ("CNN0", 8e6, 361)):
        graph = systolic.tpu_v1_network(name)
        assert graph.weight_bytes == pytest.approx(weights, rel=0.05)
        assert graph.flops / 2 / graph.weight_bytes == pytest.approx(intensity, rel=0.02)


def test_eyeriss_is_within_ten_percent_per_layer(silicon) -> None:
    errors = _errors(silicon, "eyeriss")
    assert len(errors) == 6
    assert (errors < 10).all(), errors


def test_nvdla_estimates_stand_apart(silicon) -> None:
    rows = silicon[silicon.device.str.startswith("nvdla")]
    assert set(rows.role) == {"vendor estimate"}
    assert (rows[rows.what.str.endswith("throughput")].error_pct.abs() < 15).all()


def test_calibrated_rows_are_not_scored(silicon) -> None:
    rows = silicon[(silicon.device == "edge-tpu") & (silicon.role == "calibration")]
    assert len(rows) == 2
    assert (rows.error_pct.abs() < 3).all()


def test_tpu_products_are_scored_on_shapes_that_the_fit_did_not_see() -> None:
    if not GEMM.is_file():
        pytest.skip("the measured TPU products are not beside this repository")
    frame = systolic.read_tpu_gemm(GEMM)
    shapes = frame.groupby(["m", "n", "k"]).train.nunique()
    assert (shapes == 1).all()
    assert 0.4 < frame.train.mean() < 0.6
    device, scores = systolic.fit_tpu_gemm(frame)
    assert (scores.test_mape_pct < 12).all(), scores
    assert 0.5e-6 < device.dispatch_s < 1.5e-6


def test_a_wrong_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("M,N\n1,2\n")
    with pytest.raises(ConfigError, match="has no column 'K'"):
        systolic.read_tpu_gemm(tmp_path / "t.csv")


def test_tpu_v1_weight_shift_share_follows(silicon) -> None:
    """Table 3: a late weight tile shifts in exposed (MLP0, LSTM0), an early one hides (CNN0)."""
    shares = silicon[silicon.device == "tpu-v1"].set_index("what")
    for name in ("MLP0", "LSTM0", "CNN0"):
        row = shares.loc[f"{name} weight_shift"]
        assert row.predicted == pytest.approx(row.published, abs=1.5), name


@pytest.mark.parametrize(
    ("builder", "parameters", "millions"),
    [
        ("squeezenet-1.0", {}, 1.25),
        ("efficientnet-edge", {"image": 224, "depth": 1.0}, 5.44),
        ("efficientnet-edge", {"image": 240, "depth": 1.1}, 6.9),
        ("inception-resnet-v2", {}, 55.8),
    ],
)
def test_edge_networks_have_the_published_parameters(builder, parameters, millions) -> None:
    graph = edge_networks.network(builder, **parameters)
    assert graph.parameters / 1e6 == pytest.approx(millions, rel=0.01)
