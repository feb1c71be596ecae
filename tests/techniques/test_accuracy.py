"""Published accuracies: exact, interpolated within a source, otherwise unknown."""

from __future__ import annotations

import math

import pytest

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.techniques.accuracy import TECHNIQUES, accuracy, table


def test_rows_of_the_table_are_whole():
    for row in table():
        assert row.family
        assert row.source
        assert row.technique in TECHNIQUES
        assert math.isnan(row.number) or 0 < row.number <= (
            1 if row.technique not in ("weight-only", "mixed") else 16
        )
        if row.metric != "perplexity":
            assert 0 < row.value <= 100


def test_anchors():
    quantised = accuracy("resnet50", "ptq", "W8A8")
    assert (quantised.value_pct, round(quantised.drop_pct, 2)) == (75.92, 0.21)
    hawq = accuracy("resnet50", "qat", "W4A4")
    assert hawq.drop_pct == pytest.approx(77.72 - 74.24)
    smooth = accuracy("llama-3.1-8b", "ptq", "W8A8")
    assert smooth.drop_pct == pytest.approx(100 * (6.258 / 6.138 - 1))
    assert math.isnan(smooth.value_pct)
    assert "Llama-3-8B" in smooth.confidence
    assert "perplexity" in smooth.reason


def test_interpolation_stays_in_a_source_and_is_marked():
    middle = accuracy("resnet50", "unstructured", 0.85)
    ends = [accuracy("resnet50", "unstructured", share) for share in (0.8, 0.9)]
    assert middle.value_pct == pytest.approx(sum(e.value_pct for e in ends) / 2)
    assert middle.confidence.startswith("interpolated")
    assert ends[0].confidence == "baseline recalled"


@pytest.mark.parametrize(
    ("model", "technique", "level"),
    [
        ("resnet50", "unstructured", 0.2),
        ("resnet50", "unstructured", 0.999),
        ("resnet50", "n:m", "2:4"),
        ("lstm-1024", "ptq", "W8A8"),
        ("resnet50", "ptq", "W3A3"),
    ],
)
def test_what_nobody_measured_is_unknown_with_a_reason(model, technique, level):
    found = accuracy(model, technique, level)
    assert math.isnan(found.value_pct)
    assert math.isnan(found.drop_pct)
    assert found.confidence == "unknown"
    assert model in found.reason


def test_an_unknown_technique_names_the_known_ones():
    with pytest.raises(RequestError, match="unstructured"):
        accuracy("resnet50", "unstrctured")


def test_results_carry_accuracy():
    plain = ax.simulate("resnet50", "h100-sxm", precision="fp16").summary
    assert plain["accuracy_drop_pct"] == 0
    narrow = ax.simulate("resnet50", "h100-sxm", precision="int8")
    assert narrow.summary["accuracy_pct"] == 75.92
    assert "torchvision" in narrow.summary["accuracy_source"]
    assert "drop 0.21" in narrow.text_card()
    sparse = ax.simulate("resnet50", "h100-sxm", precision="int8", sparsity="2:4")
    assert math.isnan(sparse.summary["accuracy_pct"])
    assert "together" in sparse.missing["accuracy_pct"]
    trained = ax.simulate("finn-cnv", "zcu104-finn")
    assert trained.summary["accuracy_pct"] == 84.22
    assert "no baseline" in trained.missing["accuracy_drop_pct"]


def test_pruned_graphs_take_the_row_of_their_share():
    pruned = ax.simulate(ax.prune("resnet50", "unstructured", 0.9), "h100-sxm", precision="fp16")
    assert pruned.summary["accuracy_pct"] == pytest.approx(73.91)
