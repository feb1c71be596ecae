"""Sweeps keep every point, in order, infeasible ones too."""

from __future__ import annotations

import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError
from accelsim.explore import sweep as sweeping


def test_pow2():
    assert ax.pow2(1, 64) == [1, 2, 4, 8, 16, 32, 64]
    assert ax.pow2(3, 40) == [4, 8, 16, 32]
    with pytest.raises(AccelsimError):
        ax.pow2(8, 1)


def test_all_combinations_with_infeasible_rows():
    study = ax.sweep("resnet50", ["h100-sxm", "u250-finn"], batch=[1, 8], precision=["fp16", "int8"])
    frame = study.frame
    assert len(frame) == len(study) == 8
    assert list(zip(frame.hardware, frame.batch, frame.precision))[:3] == [
        ("h100-sxm", 1, "fp16"),
        ("h100-sxm", 1, "int8"),
        ("h100-sxm", 8, "fp16"),
    ]
    infeasible = frame[frame.status == "infeasible"]
    assert set(zip(infeasible.hardware, infeasible.precision)) == {("u250-finn", "fp16")}
    assert (infeasible.reason == "precision").all()
    assert infeasible.latency_s.isna().all()
    assert len(study.feasible) == 6


def test_workers_give_the_same_table():
    axes = {"batch": [1, 2, 4], "precision": ["fp16", "int8"]}
    serial, parallel = (ax.sweep("resnet18", ["l4"], jobs=j, **axes).frame for j in (1, 2))
    assert serial.equals(parallel)


def test_workers_take_over_where_they_pay(monkeypatch):
    axes = {"array.rows": list(range(8, 40)), "array.cols": [8, 12]}
    here = ax.sweep("resnet18", "tpu-v4i", **axes).frame
    asked = []
    monkeypatch.setattr(sweeping, "WORKERS_S", 0.0)
    monkeypatch.setattr(sweeping, "JUDGED_S", 0.0)
    monkeypatch.setattr(sweeping, "_cores", lambda jobs: asked.append(jobs) or 2)
    assert here.equals(ax.sweep("resnet18", "tpu-v4i", **axes).frame)
    assert asked, "no workers were thought of"


def test_rows_are_kept_together_and_none_is_lost(monkeypatch):
    monkeypatch.setattr(sweeping, "KEPT_POINTS", 3)
    tables = [([i], {"x": [i], **({"reason": ["full"]} if i % 4 == 3 else {})}) for i in range(10)]
    found = list(sweeping._gathered(iter(tables)))
    assert len(found) < len(tables)
    assert sorted(i for places, _ in found for i in places) == list(range(10))
    for places, columns in found:
        assert columns["x"] == places
        assert ("reason" in columns) == (places[0] % 4 == 3)
        assert len({len(values) for values in columns.values()}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"hardware": "h100"},
        {"precision": ["fp16", "fp17"]},
        {"batch": [1, 0]},
        {"workload": []},
        {"workload": "resnet5"},
    ],
)
def test_mistakes_are_found_before_anything_runs(change):
    with pytest.raises(AccelsimError):
        ax.sweep(**{"workload": "resnet50", "hardware": "h100-sxm", **change})
