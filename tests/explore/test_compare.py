"""Verdicts follow the error bands; influence follows closed forms."""

from __future__ import annotations

import math

import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError
from accelsim.explore.compare import probability_less


def band(low, high):
    return {"low": low, "high": high, "level": 0.9}


def test_probability_of_being_less():
    assert probability_less(band(1, 2), band(1, 2)) == pytest.approx(0.5)
    assert probability_less(band(1, 1.1), band(2, 2.2)) > 0.999
    one, other = band(1, 4), band(2, 6)
    assert probability_less(one, other) + probability_less(other, one) == pytest.approx(1.0)
    # Equal bands e apart: the difference has spread sqrt(2) sigma, sigma = ln(e) / (2 * 1.645).
    shifted = probability_less(band(1, math.e), band(math.e, math.e**2))
    assert shifted == pytest.approx(0.98996, abs=1e-3)


def test_devices_are_told_apart_only_beyond_their_error():
    table = ax.compare("resnet50", ["h100-sxm", "t4", "u250-finn"], batch=32, precision="int8")
    verdicts = dict(zip(table.frame.hardware, table.frame.verdict))
    assert verdicts["h100-sxm"] == "best"
    assert verdicts["t4"] == "worse"
    same = ax.compare("resnet50", ["h100-sxm", "h200-sxm"], batch=1, precision="int8")
    assert sorted(same.frame.verdict) == ["best", "not distinguishable"]
    assert same.winner is None
    assert "not distinguishable" in str(same)


def test_infeasible_devices_are_rows():
    table = ax.compare("resnet50", ["t4", "u250-finn"], precision="fp16", metric="throughput_per_s")
    row = table.frame[table.frame.hardware == "u250-finn"].iloc[0]
    assert row.verdict == "infeasible: precision"
    assert math.isnan(row.value)
    assert table.winner == "t4"


def test_comparisons_need_two_devices_and_a_band():
    with pytest.raises(AccelsimError, match="two"):
        ax.compare("resnet50", ["t4"])
    with pytest.raises(AccelsimError, match="latency_s"):
        ax.compare("resnet50", ["t4", "l4"], metric="energy_j")


def test_a_memory_bound_network_follows_its_bandwidth():
    table = ax.elasticities(
        "vgg16",
        "tpu-v4",
        precision="bf16",
        batch=1,
        parameters=["memory.bandwidth", "array.clock", "cost.hourly", "array.rows"],
    ).set_index("parameter")
    assert table.elasticity["memory.bandwidth"] < -0.3
    assert -1.0 <= table.elasticity["array.clock"] <= 0.0
    assert table.elasticity["cost.hourly"] == 0.0


def test_main_effects_of_a_product_add_to_one():
    import pandas as pd

    from accelsim.explore.study import Study

    rows = [
        {"workload": "x", "hardware": h, "batch": b, "status": "ok", "y_s": v * w}
        for h, v in (("a", 1.0), ("b", 10.0))
        for b, w in ((1, 1.0), (2, 2.0))
    ]
    table = ax.main_effects(Study(pd.DataFrame(rows), ("hardware", "batch")), "y_s")
    assert table.parameter.tolist() == ["hardware", "batch"]
    assert table.share.sum() == pytest.approx(1.0)
    assert table.factor.tolist() == pytest.approx([10.0, 2.0])
    assert table.best_value.tolist() == ["a", 1]
