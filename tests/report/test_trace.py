"""Traces obey the law of the format, and hold every second and every joule."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest

import accelsim as ax
from accelsim.core.errors import ConfigError, ModelFileError
from accelsim.engine.timeline import busy_s
from accelsim.report import trace
from accelsim.report.trace import trace_file


def opened(path):
    document = json.loads(path.read_text())
    assert document["displayTimeUnit"] == "ns"
    held = document["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in held if e["ph"] == "M" and e["name"] == "thread_name"}
    for event in held:
        assert event["ph"] in "XCM"
        assert isinstance(event["pid"], int)
        if event["ph"] == "X":
            assert event["tid"] in names
            assert event["dur"] >= 0
            assert event["ts"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(v, int | float) and math.isfinite(v) for v in event["args"].values())
    for tid in names:
        track = sorted((e["ts"], e["ts"] + e["dur"]) for e in held if e["ph"] == "X" and e["tid"] == tid)
        for (_, end), (start, _) in pairwise(track):
            assert start >= end - 1e-6  # a thousandth of the nanosecond that times are rounded to
    return document, names


def counters(document, name):
    return [(e["ts"] / 1e6, next(iter(e["args"].values()))) for e in document["traceEvents"]
            if e["ph"] == "C" and e["name"] == name]  # fmt: skip


def integral(steps):
    return sum(value * (after - at) for (at, value), (after, _) in pairwise(steps))


CASES = {
    "gpu": ("resnet18", "a100-sxm", {"batch": 8}),
    "systolic": ("resnet18", "tpu-v4", {"batch": 2}),
    "event": ("resnet18", "tpu-v4", {"batch": 2, "fidelity": "event"}),
    "pipeline": ("finn-tfc", "pynq-z2-finn", {"batch": 4}),
    "pipeline, event": ("finn-tfc", "pynq-z2-finn", {"batch": 4, "fidelity": "event"}),
    "two stages": ("resnet18", "a100-sxm", {"batch": 2, "devices": 2, "parallel": {"pipeline": 2}}),
}


@pytest.mark.parametrize("case", CASES)
def test_no_overlap_and_every_busy_second(case, tmp_path):
    workload, hardware, settings = CASES[case]
    result = ax.simulate(workload, hardware, **settings)
    document, names = opened(result.to_trace(tmp_path / "t.json"))
    assert set(names.values()) == set(result.timeline["lane"])
    busy = busy_s(result._segments)
    for tid, lane in names.items():
        spans = [e["dur"] for e in document["traceEvents"] if e["ph"] == "X" and e["tid"] == tid]
        assert sum(spans) / 1e6 == pytest.approx(busy[lane], abs=1e-9 * len(spans))
    traffic = counters(document, "external traffic")
    moved = result.timeline[result.timeline["kind"] == "memory"]["bytes"].sum()
    moved = moved or result.timeline["bytes"].sum()
    assert integral(traffic) == pytest.approx(moved, rel=2e-3)
    assert traffic[-1][1] == 0.0
    assert document["otherData"]["stamp"].startswith(result.stamp.hardware_hash)


def test_power_is_the_energy(tmp_path):
    result = ax.simulate("resnet18", "a100-sxm", batch=8)
    document, _ = opened(result.to_trace(tmp_path / "t.json"))
    assert integral(counters(document, "power")) == pytest.approx(result.summary["energy_j"], rel=0.01)


def test_unknown_energy_has_no_counter(tmp_path):
    result = ax.simulate("resnet18", "a100-sxm")
    result.summary["power_static_w"] = math.nan
    document, _ = opened(result.to_trace(tmp_path / "t.json"))
    assert counters(document, "power") == []


def test_a_saved_run_gives_the_same_trace(tmp_path, systolic):
    systolic.save(tmp_path / "run.json")
    direct = systolic.to_trace(tmp_path / "a.json").read_text()
    assert trace_file(tmp_path / "run.json", tmp_path / "b.json").read_text() == direct


def test_a_server_has_a_track_per_instance(served, tmp_path, monkeypatch):
    document, names = opened(served.to_trace(tmp_path / "t.json"))
    spans = [e for e in document["traceEvents"] if e["ph"] == "X"]
    assert sum(e["args"]["size"] for e in spans) == 2000
    assert len(names) == 1
    queue = counters(document, "requests in the server")
    assert [v for _, v in queue] == served.series()["in_system"].tolist()
    monkeypatch.setattr(trace, "EXECUTIONS", 10)
    document, _ = opened(served.to_trace(tmp_path / "t.json"))
    assert any("later executions are not in this trace" in n for n in document["otherData"]["notes"])


def test_bad_files_are_one_line(tmp_path, gpu):
    with pytest.raises(ConfigError, match="cannot write here"):
        gpu.to_trace(tmp_path / "no" / "t.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ModelFileError, match="not a saved result"):
        trace_file(tmp_path / "bad.json", tmp_path / "t.json")
