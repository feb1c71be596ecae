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


def test_bands_stand_where_there_is_one_and_counts_are_exact():
    rows = {(r["technique"], r["level"]): r for r in ax.tradeoff("resnet50", "h100-sxm").rows}
    row = rows["ptq", "int8"]
    assert row["memory_low_bytes"] == row["memory_bytes"] == row["memory_high_bytes"]
    assert "exact by construction" in row["memory_bytes_basis"]
    half = 164.48536 * math.sqrt(0.7592 * 0.2408 / 50_000)  # a share of ImageNet's 50,000 images
    assert row["accuracy_high_pct"] - row["accuracy_pct"] == pytest.approx(half, rel=1e-4)
    assert row["accuracy_pct"] - row["accuracy_low_pct"] == pytest.approx(half, rel=1e-4)
    assert "sampling of 50,000" in row["accuracy_pct_basis"]
    assert math.isnan(rows["channel", "30%"]["accuracy_low_pct"])  # interpolated
    assert "spread is not published" in rows["channel", "30%"]["accuracy_pct_basis"]
    refused = rows["qat", "W4A4"]
    assert refused["status"] == "infeasible"
    assert refused["accuracy_pct"] == 74.24  # of the network, wherever it runs
    assert "does not run it" in refused["accuracy_pct_basis"]
    assert math.isnan(refused["speedup"])


def test_a_network_of_whole_numbers_keeps_its_accuracy_in_a_format_that_holds_them():
    for device in ("tpu-v4", "zcu104-dpu", "t4"):
        rows = {(r["technique"], r["level"]): r for r in ax.tradeoff("finn-cnv", device).rows}
        assert rows["ptq", "int8"]["accuracy_pct"] == 84.22
        assert "holds every int1" in rows["ptq", "int8"]["accuracy_pct_basis"]
    half = {(r["technique"], r["level"]): r for r in ax.tradeoff("finn-cnv", "tpu-v4").rows}
    assert half["weight-only", "W8A16"]["precision"] == "weight=int8,activation=bf16,kv=bf16"


def test_what_cannot_be_bought_is_rented():
    bought, rented = ax.tradeoff("resnet18", ["t4", "tpu-v4"]).rows[
        :: len(ax.tradeoff("resnet18", "t4").rows)
    ]
    assert bought["cost_per_million_items_usd_basis"].startswith("purchase of")
    assert rented["cost_per_million_items_usd_basis"].startswith("rent of 3.22 USD/h, 2025, assumed")
    paid = ax.tradeoff("resnet18", "tpu-v4", cost_model=ax.CostModel(mode="purchase")).rows[0]
    assert math.isnan(paid["cost_per_million_items_usd"])


def test_a_student_is_compared_only_within_a_source():
    rows = {(r["technique"], r["level"]): r for r in ax.tradeoff("resnet50", ["h100-sxm"]).rows}
    student = rows["distillation", "mobilenet-v2"]
    assert student["accuracy_pct"] == 71.878
    assert student["accuracy_drop_pct"] == pytest.approx(76.13 - 71.878)  # both of torchvision


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
