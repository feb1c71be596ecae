"""The orchestrator: fidelities, parallel devices, results and their files."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError, ModelFileError, RequestError, UnknownNameError

DEVICES = ["h100-sxm", "tpu-v4", "u250-finn"]


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("fidelity", ["analytic", "tile", "event"])
def test_every_fidelity_answers_on_every_architecture(name, fidelity):
    r = ax.simulate("resnet50", name, batch=4, precision="int8", fidelity=fidelity)
    s = r.summary
    assert s["latency_low_s"] <= s["latency_s"] <= s["latency_high_s"]
    assert s["throughput_per_s"] > 0
    assert r.timeline.end_s.max() <= s["latency_s"] * (1 + 1e-9)
    assert r.ops.flops.sum() == pytest.approx(s["flops"])
    assert s["flops"] == pytest.approx(4 * 2 * 4.089e9, rel=1e-3)


def test_a_single_lane_takes_the_same_time_in_tile_and_event():
    for stack in ("eager", "graph", "tensorrt"):
        tile = ax.simulate("resnet50", "h100-sxm", stack=stack)
        event = ax.simulate("resnet50", "h100-sxm", stack=stack, fidelity="event")
        assert event.summary["latency_s"] == pytest.approx(tile.summary["latency_s"])


def test_event_never_exceeds_the_serial_schedule_on_several_lanes():
    tile = ax.simulate("bert-base", "tpu-v4", precision="bf16")
    event = ax.simulate("bert-base", "tpu-v4", precision="bf16", fidelity="event")
    assert event.summary["latency_s"] <= tile.summary["latency_s"] * (1 + 1e-9)


def test_batch_amortises_weights():
    one, many = (
        ax.simulate("llama-3.1-8b", "h100-sxm", phase="decode", context=512, batch=b).summary for b in (1, 32)
    )
    assert many["throughput_per_s"] > 10 * one["throughput_per_s"]
    # Decode at batch 1 reads every weight once: bandwidth bounds it from below.
    weights = ax.load_workload("llama-3.1-8b", phase="decode", context=512).weight_bytes
    assert one["latency_s"] >= 0.9 * weights / ax.load_hardware("h100-sxm").memory.bandwidth_bytes_per_s


def test_tensor_and_pipeline_parallel_make_a_large_model_fit():
    alone = ax.simulate("llama-3.1-70b", "h100-sxm", phase="decode", context=1024)
    assert not alone.feasible
    assert alone.reason == "memory"
    tensor = ax.simulate("llama-3.1-70b", "h100-sxm", phase="decode", context=1024, devices=4)
    pipeline = ax.simulate(
        "llama-3.1-70b", "h100-sxm", phase="decode", context=1024, parallel={"pipeline": 4}
    )
    assert tensor.summary["memory_bytes"] < 40e9
    assert tensor.summary["latency_s"] < pipeline.summary["latency_s"]
    assert pipeline.summary["throughput_per_s"] > 3 / pipeline.summary["latency_s"]
    assert {lane.split(".")[0] for lane in pipeline.timeline.lane} == {f"stage{i}" for i in range(4)}
    assert (tensor.ops.kind == "all_reduce").any()


def test_data_parallel_multiplies_throughput():
    one = ax.simulate("resnet50", "l4", batch=8, precision="int8").summary
    four = ax.simulate("resnet50", "l4", batch=32, precision="int8", parallel={"data": 4}).summary
    assert four["latency_s"] == pytest.approx(one["latency_s"])
    assert four["throughput_per_s"] == pytest.approx(4 * one["throughput_per_s"])
    assert four["energy_j"] == pytest.approx(4 * one["energy_j"], nan_ok=True)


def test_the_default_precision_is_the_models_own_or_says_otherwise():
    assert ax.simulate("resnet50", "h100-sxm").summary["precision"] == "fp16"
    r = ax.simulate("resnet50", "tpu-v4")
    assert r.summary["precision"] == "bf16"
    assert any("lacks the model's fp16" in note for note in r.notes)


def test_infeasible_says_why_and_what_would_help():
    r = ax.simulate("resnet50", "u250-finn", precision="fp16")
    assert not r.feasible
    assert r.summary["status"] == "infeasible"
    assert {"reason", "need", "have", "hint", "workload", "hardware", "batch", "precision"} <= set(r.summary)
    assert "int8" in r.have + r.hint


def test_what_is_missing_is_nan_with_a_reason():
    r = ax.simulate("resnet50", "h100-sxm")
    for key, value in r.summary.items():
        if isinstance(value, float) and math.isnan(value):
            assert r.missing[key]


def test_explain_gives_the_formula_with_numbers():
    r = ax.simulate("resnet50", "h100-sxm")
    text = r.explain(r.ops.op[0])
    assert "bound by" in text
    assert any(c.isdigit() for c in text.splitlines()[1])
    fused = next(f for f in r.ops.fused if f).split(" + ")[0]
    assert fused in r.explain(fused)
    with pytest.raises(UnknownNameError, match="no op"):
        r.explain("nonsense")


def test_results_survive_a_file(tmp_path):
    r = ax.simulate("resnet50", "tpu-v4", precision="int8", batch=2)
    path = r.save(tmp_path / "run.json")
    json.loads(path.read_text())
    back = ax.Result.load(path)
    assert back.stamp == r.stamp
    assert back.summary == pytest.approx(r.summary, nan_ok=True)
    pd.testing.assert_frame_equal(back.ops, r.ops)
    pd.testing.assert_frame_equal(back.timeline, r.timeline)
    assert back.explain(r.ops.op[0]) == r.explain(r.ops.op[0])
    assert repr(back) == repr(r)
    with pytest.raises(ModelFileError):
        ax.Result.load(__file__)
    with pytest.raises(AccelsimError, match="folder"):
        r.save(tmp_path)


def test_a_saved_result_runs_again(tmp_path):
    plan = {"weight": "int4", "activation": "fp16"}
    r = ax.simulate(
        "llama-3.1-8b", "h100-sxm", phase="decode", context=900, batch=3, precision=plan, devices=2
    )
    back = ax.Result.load(r.save(tmp_path / "run.json"))
    again = back.rerun()
    assert again.stamp == r.stamp
    assert again.summary == pytest.approx(r.summary, nan_ok=True)
    assert set(back.compare(again).ratio.dropna()) == {1.0}
    assert back.rerun(batch=6).summary["latency_s"] > r.summary["latency_s"]
    with pytest.raises(RequestError, match="no argument 'bach'; did you mean batch"):
        back.rerun(bach=6)
    mine = ax.load_hardware("tpu-v4").replace(**{"memory.bandwidth": "2 TB/s"})
    changed = ax.simulate(ax.load_workload("resnet50"), mine)
    assert changed.rerun().stamp == changed.stamp
    read = ax.Result.load(changed.save(tmp_path / "changed.json"))
    with pytest.raises(RequestError, match="the hardware of this result was in no file; give hardware="):
        read.rerun(workload="resnet50")
    assert read.rerun(workload="resnet50", hardware=mine).stamp == changed.stamp


def test_compare_gives_a_verdict():
    a, b = (ax.simulate("resnet50", n, batch=32, precision="int8") for n in ("h100-sxm", "t4"))
    table = a.compare(b).set_index("metric")
    assert table.verdict["latency_s"] in ("better", "not distinguishable")
    assert table.ratio["latency_s"] == pytest.approx(a.summary["latency_s"] / b.summary["latency_s"])
    assert a.compare(a).set_index("metric").verdict["latency_s"] == "not distinguishable"


def test_cards_show_the_band_and_the_evidence():
    r = ax.simulate("resnet50", "h100-sxm")
    for card in (repr(r), r._repr_html_()):
        assert "latency" in card
        assert "error band" in card
        assert "assumed" in card


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 0},
        {"batch": -1},
        {"batch": 2**40},
        {"batch": 1.5},
        {"fidelity": "cycle"},
        {"stack": "jax"},
        {"sparsity": "3:4"},
        {"precision": "fp17"},
        {"phase": "train"},
        {"context": 0},
        {"devices": 0},
        {"parallel": {"tensor": 2}, "devices": 3},
    ],
)
def test_a_wrong_request_is_one_line(change):
    with pytest.raises(AccelsimError) as error:
        ax.simulate("resnet50", "h100-sxm", **change)
    assert "\n" not in str(error.value)
