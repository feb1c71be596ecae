"""Calibration finds constants again, is robust, says when it knows little, and writes a device that loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import accelsim as ax
from accelsim.calibration import constants as C
from accelsim.calibration.optimise import Problem, minimise
from accelsim.calibration.rows import usable
from accelsim.calibration.splits import held_out
from accelsim.cli import app
from accelsim.core.errors import AccelsimError, ConfigError, RequestError
from accelsim.engine import Calibration

DEVICE = "a100-sxm"
START = ("launch_cycles", "ramp_s")
"""Names that the fixed cost of a kernel has had."""


def _changes() -> dict[C.Path, float]:
    """Factors on constants that every shape depends on in a way of its own."""
    start = next(p for p in C.constants(ax.load_hardware(DEVICE)) if p[0] == "product" and p[1] in START)
    return {start: 1.5, ("product", "dram_efficiency"): 0.85, ("product", "tensor_efficiency"): 0.8}


def _shapes(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    m = np.round(2.0 ** rng.uniform(0, 13, rows))
    n, k = (64 * np.round(2.0 ** rng.uniform(1, 8, rows)) for _ in range(2))
    return pd.DataFrame({"op": "gemm", "precision": "bf16", "m": m, "n": n, "k": k})


def _truth() -> object:
    device = ax.load_hardware(DEVICE)
    held = C.constants(device)
    return C.with_constants(device, {path: held[path] * factor for path, factor in _changes().items()})


def _measured(rows: int, noise: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """What a device with other constants takes, with noise."""
    frame = _shapes(rows, seed)
    latency = ax.predict_ops(frame, _truth())["latency_s"].to_numpy()
    rng = np.random.default_rng(seed + 1)
    return frame.assign(latency_s=latency * np.exp(rng.normal(0.0, noise, rows)))


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return ax.calibrate(DEVICE, _measured(1500))


def test_known_constants_are_found_again(calibration: Calibration) -> None:
    before, after = C.constants(ax.load_hardware(DEVICE)), C.constants(calibration.device)
    for path, factor in _changes().items():
        found = after[path] / before[path]
        if path[-1] == "tensor_efficiency":  # what products of large tiles show is the share over their cost
            cost = ("product", "tile_costs", "0")
            found *= before[cost] / after[cost]
        assert found == pytest.approx(factor, rel=0.1), path
    (errors,) = calibration.errors
    assert errors["before_median_ape_pct"] > 9
    assert errors["after_median_ape_pct"] < 4  # 5 % of normal noise has a median of 3.4 %
    frame = _shapes(2000, seed=99)
    exact = ax.predict_ops(frame, _truth())["latency_s"]
    error = ax.predict_ops(frame, calibration.device)["latency_s"] / exact - 1.0
    assert np.median(np.abs(error)) < 0.02
    assert abs(np.median(error)) < 0.01


def test_the_band_fits_the_noise(calibration: Calibration) -> None:
    new = _measured(3000, seed=50)
    table = ax.predict_ops(new.drop(columns="latency_s"), calibration.device)
    inside = (table.low_s <= new.latency_s) & (new.latency_s <= table.high_s)
    assert 0.86 < inside.mean() < 0.95
    half = (table.high_s - table.low_s) / 2 / table.latency_s
    assert np.median(half) < 0.12


def test_same_seed_same_constants() -> None:
    first, second = (ax.calibrate(DEVICE, _measured(150)) for _ in range(2))
    assert first.constants == second.constants
    assert first.bands == second.bands


def test_outliers_do_not_pull() -> None:
    frame = _measured(800)
    frame.loc[::12, "latency_s"] *= 4.0
    spoilt = ax.calibrate(DEVICE, frame)
    new = _shapes(1000, seed=3)
    ratio = ax.predict_ops(new, spoilt.device)["latency_s"] / ax.predict_ops(new, _truth())["latency_s"]
    assert abs(np.median(ratio) - 1.0) < 0.03


def test_ten_rows_warn_and_widen(calibration: Calibration) -> None:
    few = ax.calibrate(DEVICE, _measured(10))
    assert any("only 10 usable rows" in text for text in few.warnings)
    assert "warning" in repr(few)
    wide, narrow = few.bands["gemm"], calibration.bands["gemm"]
    assert wide.high / wide.low > 1.2 * narrow.high / narrow.low
    before = C.constants(ax.load_hardware(DEVICE))
    moved = {p: abs(np.log(v / before[p])) for p, v in C.constants(few.device).items()}
    full = {p: abs(np.log(v / before[p])) for p, v in C.constants(calibration.device).items()}
    assert sum(moved.values()) < sum(full.values())


def test_flagged_rows_are_left_out() -> None:
    frame = _measured(300).assign(flag="")
    assert usable(frame.assign(flag=np.nan)).all()
    frame.loc[:99, "flag"] = "cold L2"
    frame.loc[:99, "latency_s"] *= 3.0
    found = ax.calibrate(DEVICE, frame)
    assert found.flagged == 100
    assert found.errors[0]["after_mape_pct"] < 8


def test_the_file_is_a_device_with_evidence(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    frame = _measured(400)
    frame.to_csv(table, index=False)
    out = tmp_path / "mine.yaml"
    found = ax.calibrate(DEVICE, table, out=out)
    device = ax.load_hardware(out)
    assert device == found.device
    q = device.quantities["kernels.product.dram_efficiency"]
    assert q.status == "measured"
    assert "rows.csv" in q.source
    assert str(len(frame) - found.held_out) in q.source
    assert found.held_out == held_out(frame).sum()
    rows = ax.predict_ops(frame.drop(columns="latency_s"), device)
    assert (rows.low_s < rows.latency_s).all()
    assert (
        "rows.csv" in ax.simulate("resnet50", device, batch=4, precision="bf16").intervals["latency_s"].basis
    )
    assert json.loads(found.to_json())["rows"] == len(frame)
    ax.calibrate(DEVICE, table, out=out)  # a calibration may be written again


def test_a_file_of_ones_own_is_extended_beside_it(tmp_path: Path) -> None:
    own = tmp_path / "my-gpu.yaml"
    own.write_text(f"extends: {DEVICE}\ntitle: My GPU\n")
    found = ax.calibrate(own, _measured(200))
    assert found.path == tmp_path / "my-gpu-calibrated.yaml"
    assert ax.load_hardware(found.path) == found.device
    assert own.read_text().startswith("extends")
    for bad in (own, tmp_path / "x.csv", tmp_path.parent / "elsewhere.yaml"):
        with pytest.raises(ConfigError):
            ax.calibrate(own, _measured(200), out=bad)
    (tmp_path / "other.yaml").write_text("extends: t4\n")
    with pytest.raises(ConfigError, match="exists already"):
        ax.calibrate(own, _measured(200), out=tmp_path / "other.yaml")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.assign(latency_s=f.latency_s * 1e3), "expected seconds"),
        (lambda f: f.drop(columns="latency_s"), "latency_s"),
        (lambda f: f.assign(m=-1.0), "column 'm'"),
        (lambda f: f.assign(flag="cold"), "none of the"),
        (lambda f: f.assign(precision="nvfp4"), "none of the"),
    ],
)
def test_bad_tables_are_refused(spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AccelsimError, match=message):
        ax.calibrate(DEVICE, spoil(_measured(60)))


def test_only_gpus() -> None:
    with pytest.raises(RequestError, match="not a GPU"):
        ax.calibrate("tpu-v4", _measured(60))


def test_other_operators_fit_their_own_constants() -> None:
    heads = {"op": "attention_prefill", "precision": "bf16", "heads": 32, "kv_heads": 8, "head_dim": 128}
    sizes = [(b, s) for b in (1, 2, 4, 8) for s in (256, 512, 1024, 2048, 4096)] * 3
    rows = [{**heads, "batch": b, "seq_q": s, "kv_heads": k} for (b, s), k in zip(sizes, (8, 16, 32) * 20)]
    frame = pd.DataFrame(rows)
    frame["latency_s"] = 1.25 * ax.predict_ops(frame, DEVICE)["latency_s"]
    found = ax.calibrate(DEVICE, frame)
    assert found.errors[0]["after_median_ape_pct"] < 0.5 * found.errors[0]["before_median_ape_pct"]
    assert {c["parameter"].split(".")[1] for c in found.constants} == {"attention"}
    assert set(found.bands) >= {"attention_prefill"}


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _measured(100).to_csv("rows.csv", index=False)
    done = CliRunner().invoke(app, ["calibrate", DEVICE, "rows.csv", "--json"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert Path(answer["file"]).name == f"{DEVICE}-calibrated.yaml"
    assert ax.load_hardware(answer["file"]).kernels.band


def test_the_search_finds_a_known_minimum_with_edges() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 3))
    truth = np.array([0.3, -0.4, 0.0])
    y = np.maximum(a @ truth, -0.2) + rng.laplace(0.0, 0.01, 400)
    y[::10] += 3.0
    low, high = np.full(3, -1.0), np.array([1.0, 1.0, 0.0])
    problem = Problem(lambda x: np.maximum(a @ x, -0.2) - y, np.zeros(3), low, high, np.ones(3), np.ones(400))
    assert minimise(problem) == pytest.approx(truth, abs=0.03)
