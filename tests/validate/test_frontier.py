"""Federated, private and confidential inference against published figures and exact results."""

from __future__ import annotations

import pandas as pd
import pytest

from accelsim.core.paths import data_folder
from accelsim.validate import report
from accelsim.validate.frontier import _CHECKS, TARGET_PCT, rows


@pytest.fixture(scope="module")
def table():
    return rows()


def test_every_row_names_a_check_and_its_source(table):
    given = pd.read_csv(data_folder("validation") / "frontier" / "published.csv", keep_default_na=False)
    assert set(given["check"]) == set(_CHECKS)
    assert len(table) == len(given)
    assert (table["source"] != "").all()
    assert table["predicted"].notna().all()


def test_what_is_exact_or_arithmetic_is_met(table):
    for text, most in (("secure aggregation", 0.5), ("exponential devices", 2.5)):
        found = table[table["what"].str.contains(text)]
        assert len(found) == 2
        assert (found["error_pct"].abs() < most).all()


def test_confidential_queries_stay_under_the_published_bound_and_fall_with_length(table):
    found = table[table["what"].str.contains("overhead in")]
    assert (found["error_pct"] == 0).all()
    assert (found["predicted_high"] < 7).all()
    assert found["predicted"].is_monotonic_decreasing


def test_misses_say_why(table):
    missed = table[(table["scored"] == "yes") & (table["error_pct"].abs() > TARGET_PCT)]
    assert (missed["remark"] != "").all()
    # The assumed range of the constants reaches the published one.
    lost = table[table["what"].str.contains("throughput lost")]
    assert (lost["predicted_high"] > lost["published_low"]).all()


def test_the_report_takes_it(monkeypatch, table):
    monkeypatch.setattr("accelsim.validate.frontier.rows", lambda: table)
    first, second = report.collect("frontier")
    assert "Bonawitz" in second.markdown()
    assert "predicted_high" in first.markdown()
