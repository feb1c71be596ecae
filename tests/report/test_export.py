"""Tables come back from their files as they were."""

from __future__ import annotations

import pandas as pd
import pytest

from accelsim.core.errors import ConfigError, MissingExtraError
from accelsim.report import export


def test_csv_of_kernels_and_points(gpu, study, tmp_path):
    kernels = pd.read_csv(gpu.to_csv(tmp_path / "k.csv"))
    assert kernels["total_s"].sum() == pytest.approx(gpu.ops["total_s"].sum())
    points = pd.read_csv(study.to_csv(tmp_path / "p.csv"))
    assert points["hardware"].tolist() == study.frame["hardware"].tolist()
    with pytest.raises(ConfigError, match="cannot write here"):
        study.to_csv(tmp_path / "no" / "p.csv")


def test_parquet_of_kernels_and_points(gpu, study, tmp_path):
    pytest.importorskip("pyarrow")
    back = pd.read_parquet(study.to_parquet(tmp_path / "p.parquet"))
    assert back["latency_s"].dropna().tolist() == study.frame["latency_s"].dropna().tolist()
    assert back["status"].tolist() == study.frame["status"].tolist()
    assert len(pd.read_parquet(gpu.to_parquet(tmp_path / "k.parquet"))) == len(gpu.ops)


def test_without_pyarrow_the_extra_is_named(study, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pyarrow.*accelsim-dse\[validation\]"):
        study.to_parquet(tmp_path / "p.parquet")
