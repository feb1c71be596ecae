"""Prices, ownership, silicon and carbon: closed forms, and one-line errors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.catalog import catalog
from accelsim.core.errors import ConfigError, RequestError
from accelsim.hardware import carbon, silicon
from accelsim.hardware.cost import KINDS, price_table, prices


@given(st.floats(0.01, 0.3), st.floats(1, 15))
def test_capital_recovery_pays_the_capital_back(interest, years):
    model = ax.CostModel(discount=interest, years=years)
    present = model.capital_recovery * (1 - (1 + interest) ** -years) / interest
    assert present == pytest.approx(1)
    assert ax.CostModel(discount=0, years=years).capital_recovery == pytest.approx(1 / years)


def test_ownership_is_the_published_formula():
    device = ax.load_hardware("h100-sxm")
    model = ax.CostModel(mode="purchase", years=4, utilisation=0.5, pue=1.2, usd_per_kwh=0.1, discount=0)
    held = prices(device, {"h100-sxm": {"purchase": {"value": 30000, "date": "2026-01", "source": "quote"}}})
    yearly = 30000 / 4 + 1.73 * 1.2 * 0.1 * 8760 + 1.73 * 1500
    assert model.hourly(device, held).value == pytest.approx(yearly / (8760 * 0.5))
    rent = ax.CostModel(utilisation=0.5).hourly(device, prices(device))
    assert rent.value == pytest.approx(2 * device.cost.hourly_usd)
    assert "assumed" in rent.basis


def test_costs_of_a_result():
    result = ax.simulate("resnet50", "h100-sxm", batch=8, precision="int8")
    model = ax.CostModel(utilisation=1.0)
    costs = result.cost(model)
    s = costs.summary
    assert s["cost_per_million_items_usd"] == pytest.approx(result.summary["usd_per_million_items"])
    joules = result.summary["energy_per_item_j"]
    assert s["operating_kgco2e_per_million_items"] == pytest.approx(joules * 1e6 * 1.25 / 3.6e6 * 0.369)
    assert s["items_per_s_per_board_mw"] == pytest.approx(1e6 / joules)
    double = result.cost(replace(model, utilisation=0.5)).summary
    assert double["cost_per_million_items_usd"] == pytest.approx(2 * s["cost_per_million_items_usd"])
    unknown = ax.simulate("mobilenet-v2", "edge-tpu").cost(model)
    assert math.isnan(unknown.summary["cost_per_million_items_usd"])
    assert "no hourly price" in unknown.missing["cost_per_million_items_usd"]


def test_three_years_of_a_700_w_part_dwarf_its_die():
    used = carbon.operation(700 * 3 * 8760 * 3600, 1.0, "us")
    assert used == pytest.approx(6800, rel=0.01)
    logic = carbon.logic(ax.load_hardware("h100-sxm"), 0.0).value
    assert 20 < logic < 30


def test_a_larger_die_yields_less_and_costs_more_than_in_proportion():
    assert silicon.defect_yield(0, 0.1) == 1
    assert silicon.defect_yield(8, 0.1) == pytest.approx((1 + 0.8 / 3) ** -3)
    device = ax.load_hardware("h100-sxm")
    half = device.replace(**{"silicon.area": "407 mm2"})
    assert silicon.silicon(device, 0.1).value > 2 * silicon.silicon(half, 0.1).value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"utilisation": -0.5}, "utilisation -0.5"),
        ({"utilisation": 0}, "utilisation"),
        ({"utilisation": 1.2}, "utilisation 1.2"),
        ({"pue": 0.9}, "pue 0.9"),
        ({"years": math.nan}, "years nan"),
        ({"usd_per_kwh": "cheap"}, "usd_per_kwh"),
        ({"grid": "wrld"}, "world"),
        ({"grid": -1.0}, "grid intensity"),
        ({"mode": "lease"}, "lease"),
    ],
)
def test_mistakes_in_a_cost_model_are_one_line(change, words):
    with pytest.raises(RequestError, match=words) as error:
        ax.CostModel(**change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"rent": {"value": 2.0, "source": "quote"}}, "no date"),
        ({"rent": {"value": -2.0, "date": "2026"}}, "positive"),
        ({"lease": {"value": 2.0, "date": "2026"}}, "lease"),
        ({"rent": 2.0}, "value, date and source"),
        ({"rent": {"value": 2.0, "date": "2026", "currency": "EUR"}}, "currency"),
        ([1], "purchase"),
    ],
)
def test_mistakes_in_prices_are_one_line(entry, words):
    with pytest.raises(ConfigError, match=words):
        prices(ax.load_hardware("h100-sxm"), {"h100-sxm": entry})


def test_a_price_file_counts_before_the_device(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("t4:\n  rent: {value: 0.2, date: 2026-05-01, source: quote}\n")
    held = prices(ax.load_hardware("t4"), path)
    assert held["rent"].value == 0.2
    assert held["rent"].date == "2026-05-01"
    assert held["purchase"].value == 2300


def test_a_price_of_a_device_file_without_a_year_is_refused():
    device = ax.load_hardware("t4").replace(**{"cost.hourly": "1 USD/h"})
    if "cost.hourly" in device.quantities:
        quantity = replace(device.quantities["cost.hourly"], source="somebody said so")
        device = device.model_copy(update={"quantities": {**device.quantities, "cost.hourly": quantity}})
    with pytest.raises(ConfigError, match="no date"):
        prices(device)


def test_the_table_of_prices_has_a_date_for_each():
    devices = [ax.load_hardware(name) for name in catalog("hardware")]
    rows = price_table(devices)
    assert {row["kind"] for row in rows} == set(KINDS)
    for row in rows:
        assert 1990 < int(row["date"][:4]) < 2100
        assert row["status"] in ("cited", "assumed")
        assert row["source"]
        assert row["unit"] == ("USD" if row["kind"] == "purchase" else "USD/h")
        if row["status"] == "cited":
            assert "recalled" not in row["source"]
    mine = {"t4": {"rent": {"value": 0.4, "date": "2026-05-01", "source": "quote"}}}
    own = {(r["hardware"], r["kind"]): r for r in price_table(devices, mine)}
    assert own["t4", "rent"] | {"value": 0.4, "date": "2026-05-01"} == own["t4", "rent"]


def test_three_years_of_rent_are_cheaper_than_hours_on_demand():
    for name in ("h100-sxm", "b200", "mi300x"):
        device = ax.load_hardware(name)
        held = prices(device)
        contract = ax.CostModel(mode="contract").hourly(device, held)
        assert contract.value < ax.CostModel().hourly(device, held).value
        assert "2026-04-03, cited" in contract.basis
    device = ax.load_hardware("t4")
    assert "for three years" in ax.CostModel(mode="contract").hourly(device, prices(device)).basis
