"""The trade-off table: every cell is a number with its basis or a reason, and the numbers are the runs'."""

from __future__ import annotations

import math

import pytest

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.explore.tradeoff import CELLS

DEVICES = ("h100-sxm", "t4", "tpu-v4", "edge-tpu", "zcu104-dpu")


@pytest.mark.parametrize("model", ["resnet50", "lstm-1024", "finn-cnv"])
def test_every_cell_is_a_number_with_its_basis_or_a_reason(model):
    table = ax.tradeoff(model, DEVICES)
    assert {row["hardware"] for row in table.rows} == set(DEVICES)
    for row in table.rows:
        for name in CELLS:
            assert row[f"{name}_basis"], (row["hardware"], row["technique"], row["level"], name)
            assert math.isnan(row[name]) or math.isfinite(row[name])
        if not math.isnan(row["speedup"]):
            assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]


def test_numbers_are_those_of_the_runs():
    table = ax.tradeoff("resnet50", "t4").frame.set_index(["technique", "level"])
    base = ax.simulate("resnet50", "t4", precision="fp16").summary
    narrow = ax.simulate("resnet50", "t4", precision="int4").summary
    row = table.loc[("qat", "W4A4")]
    assert row["speedup"] == pytest.approx(narrow["throughput_per_s"] / base["throughput_per_s"])
    assert row["energy_per_item_j"] == pytest.approx(narrow["energy_per_item_j"])
    assert row["accuracy_pct"] == 74.24
    assert table.loc[("baseline", "fp16")]["speedup"] == 1
    assert table.loc[("unstructured", "90%")]["speedup"] == pytest.approx(
        1
    )  # dense tensor cores gain nothing
    assert table.loc[("ptq", "fp8")]["status"] == "infeasible"
    assert "fp8" in table.loc[("ptq", "fp8")]["speedup_basis"]


def test_robustness_is_unknown_unless_cited():
    cited = {
        "technique": "ptq",
        "level": "int8",
        "value_pct": 41.5,
        "attack": "PGD-20",
        "source": "a paper, table 2",
    }
    rows = {(r["technique"], r["level"]): r for r in ax.tradeoff("resnet50", "t4", robustness=[cited]).rows}
    assert rows["ptq", "int8"]["robustness"] == "41.5 % under PGD-20"
    assert rows["ptq", "int8"]["robustness_basis"] == "a paper, table 2"
    others = [row for key, row in rows.items() if key != ("ptq", "int8")]
    assert {row["robustness"] for row in others} == {"unknown"}
    assert all("no cited accuracy" in row["robustness_basis"] for row in others)
    with pytest.raises(RequestError, match="'source' is missing"):
        ax.tradeoff("resnet50", "t4", robustness=[{**cited, "source": ""}])
    with pytest.raises(RequestError, match="130 % is not"):
        ax.tradeoff("resnet50", "t4", robustness=[{**cited, "value_pct": 130}])


def test_an_empty_list_of_devices_is_refused():
    with pytest.raises(RequestError, match="empty"):
        ax.tradeoff("resnet50", [])


def test_the_picture_has_a_panel_per_device():
    pytest.importorskip("matplotlib")
    figure = ax.tradeoff("resnet50", ["t4", "edge-tpu"]).plot()
    assert [panel.get_title() for panel in figure.axes] == ["t4", "edge-tpu"]
