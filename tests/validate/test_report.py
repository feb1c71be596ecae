"""The report: small tables by hand, and a real run on a few measured rows where they are installed."""

from __future__ import annotations

from importlib.util import find_spec

import pandas as pd
import pytest

from accelsim.core.errors import RequestError
from accelsim.validate import gpu, report
from accelsim.validate.table import Table

SMALL = pd.DataFrame({"device": ["a", "b"], "rows": [120, 7], "mape_pct": [5.1234, float("nan")]})


def test_markdown_of_a_table():
    text = Table("Products", "Held out.", SMALL).markdown()
    assert text.splitlines() == [
        "### Products",
        "",
        "Held out.",
        "",
        "| device | rows | mape_pct |",
        "| --- | --- | --- |",
        "| a | 120 | 5.12 |",
        "| b | 7 | unknown |",
    ]


def test_the_report_names_its_version_and_parts(tmp_path):
    path = report.write(tmp_path / "report.md", {"gpu": [Table("Products", "Held out.", SMALL)]})
    text = path.read_text()
    assert "model version" in text
    assert text.index("## GPUs") < text.index("### Products")
    with pytest.raises(RequestError, match="nothing to validate called 'gpus'"):
        report.collect("gpus")


@pytest.mark.skipif(find_spec("aiconfigurator_core") is None, reason="needs aiconfigurator-core's tables")
def test_products_are_scored_on_held_out_rows(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "DEVICES", ("h100-sxm",))
    monkeypatch.setattr(gpu, "ROWS", 500)
    errors, regimes, bands = gpu._products(tmp_path)
    assert errors.frame.rows.tolist() == [500]
    assert regimes.frame.rows.sum() == 500
    assert errors.frame.missing.tolist() == [0]
    # The bar that a wave, split-K and L2 fit set on these rows is 12 %.
    assert errors.frame.mape_pct[0] < 12
    assert 50 < bands.frame.coverage_pct[0] <= 100
    (rows,) = tmp_path.glob("*.csv")
    frame = pd.read_csv(rows)
    assert {"device", "latency_s", "predicted_s", "low_s", "high_s", "regime"} <= set(frame.columns)

    from accelsim.report.residuals import draw

    pytest.importorskip("matplotlib")
    (picture,) = draw(tmp_path, tmp_path)
    assert picture.read_bytes().startswith(b"%PDF")
