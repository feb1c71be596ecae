"""Every name of a result is defined in docs/definitions.md, and what is defined of its tables is there."""

from __future__ import annotations

import pytest

import accelsim as ax
from accelsim.report.glossary import definitions, meaning

POINTS = [
    ("llama-3.1-8b", "h100-sxm", {"devices": 2, "phase": "decode", "context": 64}),
    ("resnet18", "tpu-v4", {"fidelity": "event"}),
    ("resnet18", "zcu104-dpu", {"precision": "int8"}),
    ("finn-tfc", "pynq-z2-finn", {}),
    ("keyword-spotting", "loihi", {}),
]


@pytest.fixture(scope="module")
def results():
    return [ax.simulate(workload, hardware, **settings) for workload, hardware, settings in POINTS]


def test_every_name_has_a_meaning(results):
    for result in results:
        frame = result.glossary().frame
        assert list(frame.name) == [*result.summary, *result.ops, *result.timeline]
        assert list(frame.name[frame.meaning == ""]) == []


def test_every_definition_of_a_column_is_of_one(results):
    for table in ("ops", "timeline"):
        columns = {name for result in results for name in getattr(result, table)}
        assert {name for name in definitions(table) if "*" not in name} <= columns


def test_a_table_has_its_own_meaning_of_a_name(results):
    rows = {(table, name): (unit, words) for table, name, unit, words in results[0].glossary().rows}
    assert rows["ops", "latency_s"] == ("s", "of one execution")
    assert rows["summary", "latency_s"][1].startswith("first input available")
    assert rows["ops", "flops"] == ("FLOP", "multiply-accumulate arithmetic, total")
    assert rows["timeline", "kind"] != rows["ops", "kind"]
    text = repr(results[0].glossary())
    assert "  latency_low_s, latency_high_s [s]: error band" in text


def test_patterns_give_way_to_names_and_the_narrowest_wins():
    known = {"stall_*_s": "wide", "stall_d*_s": "narrow", "stall_link_s": "exact"}
    assert [meaning(f"stall_{n}_s", known) for n in ("link", "dram", "tail")] == ["exact", "narrow", "wide"]
    assert meaning("other", known) == ""
