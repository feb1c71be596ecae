"""The engines meet exact references, and replays meet the measured servers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from accelsim.core.paths import data_folder
from accelsim.serving.service import LinearService
from accelsim.validate import queueing
from accelsim.validate.serving import replay, tables

RUNS = data_folder("validation") / "serving"


def test_closed_forms_agree_with_each_other() -> None:
    assert queueing.mmc(40, 0.01, 1) == pytest.approx(queueing.mm1(40, 0.01))
    assert queueing.mg1(40, 0.01, 1) == pytest.approx(queueing.mm1(40, 0.01))
    assert queueing.bulk(60, LinearService(0.01), 1) == pytest.approx(queueing.mg1(60, 0.01, 0), rel=1e-9)
    # Erlang C of two servers at one erlang is a third (Kleinrock).
    assert queueing.erlang_c(1.0, 2) == pytest.approx(1 / 3)
    # A batch of any size at 1,000 requests/s: the exact chain beside Inoue's bound.
    chain = queueing.bulk(1000, LinearService(0.004, 0.0005), 200)
    assert chain == pytest.approx(12.83271e-3, rel=1e-5)
    assert queueing.inoue(1000, 0.004, 0.0005) == pytest.approx(12.83333e-3, rel=1e-6)


def test_engines_meet_the_exact_references() -> None:
    table = queueing.table(requests=200_000)
    assert table["errors"].max() < 3.5, table.to_string()


def test_measured_triton_runs_are_met() -> None:
    table = replay(RUNS / "triton").set_index("run")
    whole = table[~table.index.str.contains(",")]
    delayed = whole.index.str.contains("d1ms|d5ms")
    limit = 8 * delayed + 4 * ~delayed
    assert (whole["mean_error_pct"].abs() < limit).all(), whole.to_string()
    assert (whole["p50_error_pct"].abs() < limit).all(), whole.to_string()
    # The 99th percentile of 15 s at 86 % load hangs on single stretches: 5 ms at 750/s is outside.
    assert (whole.drop("b8_d5ms_r750")["p99_error_pct"].abs() < 10).all(), whole.to_string()
    assert abs(whole.loc["b8_d5ms_r750", "p99_error_pct"]) < 16
    assert (whole["batch_error_pct"].abs() < 3).all(), whole.to_string()
    assert ((whole["refused_pct"] - whole["predicted_refused_pct"]).abs() < 1).all()


def test_measured_torchserve_runs_are_met() -> None:
    table = replay(RUNS / "torchserve")
    assert (table["mean_error_pct"].abs() < 2.5).all(), table.to_string()
    assert (table["p99_error_pct"].abs() < 6).all(), table.to_string()


def test_other_folders_of_runs_are_replayed(tmp_path: Path) -> None:
    shutil.copytree(RUNS / "torchserve", tmp_path / "torchserve")
    titles = [t.title for t in tables(tmp_path, requests=1000)]
    assert titles == ["Exact queueing references", "Replay of measured runs: torchserve"]
