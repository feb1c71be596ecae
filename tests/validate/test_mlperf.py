"""Published inference results of whole networks."""

from __future__ import annotations

import pytest

from accelsim.core.paths import data_folder
from accelsim.validate.mlperf import LENGTHS, MEAN_TOKENS, throughput


def test_lengths_have_the_assumed_mean_and_fit_the_benchmark():
    assert sum(LENGTHS) / len(LENGTHS) == pytest.approx(MEAN_TOKENS, rel=0.01)
    assert max(LENGTHS) <= 384


def test_every_published_row_names_its_precision_and_source():
    pd = pytest.importorskip("pandas")
    table = pd.read_csv(data_folder("validation") / "gpu" / "mlperf.csv")
    assert len(table) == 8
    assert table.notna().all().all()
    assert set(table["precision"]) == {"int8", "fp8_e4m3"}


def test_resnet_on_an_h100_is_near_what_was_published():
    rate, batch = throughput("resnet50", "h100-sxm", "int8")
    assert rate == pytest.approx(86_600, rel=0.15)
    assert batch >= 64
