"""The explorer without a browser: change what the widgets hold, look at what they show."""

from __future__ import annotations

import re
from typing import Any

import pytest

import accelsim as ax
from accelsim.core.errors import MissingExtraError, RequestError, UnknownNameError
from accelsim.report.explorer import serving, views
from accelsim.report.explorer.answers import Answers, Memory, precisions
from accelsim.report.explorer.choice import BATCHES, Choice, facts

TWO = ("h100-sxm", "l4")


def evaluated(code: str) -> Any:
    return eval(code, {"ax": ax})


# -- choices
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "choice",
    [
        Choice("bert-base", TWO, "l4"),
        Choice("bert-base", TWO, "l4", batch=4, precision="int8", stack="tensorrt", context=64),
        Choice("llama-3.1-8b", TWO, "l4", batch=2, phase="decode", context=512, devices=2),
        Choice("bert-base", TWO, "h100-sxm", sparsity="2:4", precision="int8"),
    ],
)
def test_the_code_line_repeats_the_run(choice: Choice) -> None:
    answer = Answers().run(choice, choice.focus)
    again = evaluated(choice.code(choice.focus))
    assert answer.feasible
    assert again.stamp == answer.stamp  # equal stamps give equal numbers
    assert again.summary == pytest.approx(answer.summary, nan_ok=True)


def test_code_line_leaves_defaults_out_and_quotes() -> None:
    assert Choice("resnet50", TWO, "l4").code("l4") == 'ax.simulate("resnet50", "l4")'
    assert Choice('my "x".onnx', TWO, "l4").code("l4") == 'ax.simulate("my \\"x\\".onnx", "l4")'


def test_facts_of_models() -> None:
    assert facts("resnet50").phases == ("forward",)
    assert not facts("resnet50").has_context
    assert facts("llama-3.1-8b").phases == ("prefill", "decode")
    assert facts("bert-base").has_context
    with pytest.raises(UnknownNameError):
        facts("resnet5")


def test_precisions_are_those_of_any_device() -> None:
    found = precisions(("h100-sxm", "u250-finn"))
    assert {"fp16", "int8", "int1"} <= set(found)
    assert len(found) == len(set(found))


# -- answers
# ----------------------------------------------------------------------------------------------------------


def test_memory_forgets_the_oldest_first() -> None:
    held = Memory(2)
    held.put("a", 1)
    held.put("b", 2)
    assert held.get("a") == 1
    held.put("c", 3)
    assert (held.get("a"), held.get("b"), held.get("c"), len(held)) == (1, None, 3, 2)


def test_answers_run_once_and_curves_end_where_memory_does() -> None:
    answers = Answers()
    choice = Choice("llama-3.1-8b", ("l4",), "l4", phase="decode", context=4096, precision="fp16")
    assert answers.run(choice, "l4") is answers.run(choice, "l4")
    for at, device in answers.missing(choice):
        answers.row(at, device)
    assert list(answers.missing(choice)) == []
    rows = answers.curve(choice, "l4")
    batches = [r["batch"] for r in rows]
    assert batches == list(BATCHES[: len(batches)])
    assert 1 <= len(batches) < len(BATCHES)  # 24 GB hold few caches of 4096 tokens beside 16 GB of weights
    ended = answers.known(choice.at(BATCHES[len(batches)]), "l4")
    assert ended is not None
    assert ended["reason"] == "memory"


def test_a_senseless_request_is_an_answer() -> None:
    answer = Answers().run(Choice("resnet50", TWO, "l4", context=128), "l4")
    assert not answer.feasible
    assert "no context length" in str(answer)
    assert "no context length" in views.breakdown(Answers(), Choice("resnet50", TWO, "l4", context=128)).svg()


# -- pictures
# ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled() -> tuple[Answers, Choice]:
    answers = Answers()
    choice = Choice("bert-base", TWO, "h100-sxm", batch=8)
    for at, device in answers.missing(choice):
        answers.row(at, device)
    return answers, choice


def picks(svg: str) -> list[str]:
    return re.findall(r'data-pick="([^"]+)"', svg)


def test_curves_hold_a_point_per_device_and_batch(filled: tuple[Answers, Choice]) -> None:
    answers, choice = filled
    wanted = {f"run:{d}:{b}" for d in TWO for b in BATCHES}
    assert set(picks(views.batching(answers, choice, "throughput_per_s").svg())) == wanted
    assert set(picks(views.pareto(answers, choice, "energy_per_item_j").svg())) == wanted


def test_front_is_that_of_the_study(filled: tuple[Answers, Choice]) -> None:
    answers, choice = filled
    study = ax.sweep("bert-base", list(TWO), batch=list(BATCHES), progress=False)
    front = study.pareto("latency_s", "energy_per_item_j")
    svg = views.pareto(answers, choice, "energy_per_item_j").svg()
    marked = re.findall(r'data-pick="run:([^:]+):(\d+)"[^>]*aria-label="[^"]*on the front"', svg)
    assert {(d, int(b)) for d, b in marked} == set(zip(front["hardware"], front["batch"]))


def test_breakdown_names_the_slowest_kernel_first(filled: tuple[Answers, Choice]) -> None:
    answers, choice = filled
    result = ax.simulate("bert-base", "h100-sxm", batch=8)
    slowest = result.ops.sort_values("total_s", ascending=False).op.iloc[0]
    assert picks(views.breakdown(answers, choice).svg())[0] == f"op:{slowest}"
    assert set(picks(views.timeline(answers, choice).svg())) <= {f"op:{name}" for name in result.ops.op}


def test_roofline_draws_no_kernel_above_its_roof(filled: tuple[Answers, Choice]) -> None:
    answers, choice = filled
    svg = views.roofline(answers, choice).svg()
    assert {"run:h100-sxm:8", "run:l4:8"} <= set(picks(svg))
    device = ax.load_hardware("h100-sxm")
    row = answers.known(choice, "h100-sxm")
    assert row is not None
    peak = device.peak_flop_per_s(row["precision"])
    ops = ax.simulate("bert-base", "h100-sxm", batch=8).ops
    held = ops[(ops.flops > 0) & (ops.dram_bytes > 0)]
    assert (held.flops / held.total_s <= peak).all()


def test_unknown_metric_says_why() -> None:
    answers = Answers()
    choice = Choice("bert-base", ("eyeriss",), "eyeriss")
    answers.row(choice, "eyeriss")
    svg = views.pareto(answers, choice, "usd_per_million_items").svg()
    assert picks(svg) == []


# -- serving
# ----------------------------------------------------------------------------------------------------------


def test_served_line_repeats_the_run() -> None:
    served, traffic = serving.Served(), serving.Traffic(load_pct=50, max_batch=8, delay_us=200, slo_ms=5)
    choice = Choice("bert-base", TWO, "l4", batch=16, precision="int8")
    result = served.run(choice, traffic)
    again = evaluated(served.code(choice, traffic))
    assert again.stamp == result.stamp
    assert again.summary == pytest.approx(result.summary, nan_ok=True)
    # Half of the capacity is offered and, in the long run, served.
    assert result.summary["throughput_per_s"] == pytest.approx(
        0.5 * result.summary["capacity_per_s"], rel=0.05
    )


def test_more_load_waits_longer_and_the_histogram_is_whole() -> None:
    served, choice = serving.Served(), Choice("bert-base", TWO, "l4")
    low = served.run(choice, serving.Traffic(load_pct=30))
    high = served.run(choice, serving.Traffic(load_pct=95))
    assert low.feasible
    assert high.feasible
    assert high.summary["latency_p99_s"] > low.summary["latency_p99_s"]
    svg = serving.distribution(low, slo_s=1.0).svg()
    shares = [float(v) for v in re.findall(r": ([\d.e-]+) % of the requests</title>", svg)]
    assert sum(shares) == pytest.approx(100.0, abs=0.6)  # but for the thousandth beyond the axis


def test_models_that_generate_are_not_served_by_run() -> None:
    assert serving.generates(Choice("llama-3.1-8b", TWO, "l4"))
    assert not serving.generates(Choice("bert-base", TWO, "l4"))


# -- widgets
# ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown() -> Any:
    pytest.importorskip("ipywidgets")
    pytest.importorskip("anywidget")
    return ax.explorer("bert-base", TWO).explorer


def test_controls_have_labels_and_tips(shown: Any) -> None:
    c = shown.controls
    for control in (c.workload, c.hardware, *c.questions, c.code):
        assert control.description
        assert control.tooltip


def test_moving_the_batch_changes_the_pictures_and_the_line(shown: Any) -> None:
    c = shown.controls
    before = {
        name: c.charts[name].svg for name in ("batching", "pareto", "roofline", "breakdown", "timeline")
    }
    assert all(svg.startswith("<svg") for svg in before.values())
    c.batch.value = 16
    assert c.code.value == 'ax.simulate("bert-base", "h100-sxm", batch=16)'
    for name, svg in before.items():
        assert c.charts[name].svg != svg, name
    latency = ax.simulate("bert-base", "l4", batch=16).summary["throughput_per_s"]
    assert f"{latency:.4g} " in c.head.value
    c.batch.value = 1
    assert c.charts["breakdown"].svg == before["breakdown"]


def test_picks_become_code(shown: Any) -> None:
    c = shown.controls
    c.charts["pareto"].picked = "run:l4:64"
    c.charts["pareto"].picks += 1
    assert c.code.value == 'ax.simulate("bert-base", "l4", batch=64)'
    first = picks(c.charts["breakdown"].svg)[0]
    c.charts["breakdown"].picked = first
    c.charts["breakdown"].picks += 1
    assert c.code.value.startswith('print(ax.simulate("bert-base", "h100-sxm").explain(')
    evaluated(c.code.value)


def test_devices_keep_the_focus_they_still_have(shown: Any) -> None:
    c = shown.controls
    c.focus.value = "l4"
    c.hardware.value = ("l4", "tpu-v4")
    assert c.focus.value == "l4"
    c.hardware.value = ("tpu-v4",)
    assert c.focus.value == "tpu-v4"
    assert c.stack.disabled
    c.hardware.value = ()  # nothing chosen: what was shown stays
    assert c.code.value == 'ax.simulate("bert-base", "tpu-v4")'
    c.hardware.value = TWO
    assert not c.stack.disabled


def test_context_and_phase_follow_the_model(shown: Any) -> None:
    c = shown.controls
    c.context.value = 64
    assert shown.choice.context == 64
    c.workload.value = "tinybert-4"
    assert not c.context.disabled
    assert c.phase.disabled
    c.workload.value = "resnet18"
    assert c.context.disabled
    assert shown.choice.context is None
    c.workload.value = "bert-base"


def test_a_model_that_does_not_fit_is_said(shown: Any) -> None:
    c = shown.controls
    c.workload.value = "llama-3.1-70b"
    assert "infeasible (memory)" in c.head.value
    assert "infeasible (memory)" in re.sub(r"</text><text[^>]*>", " ", c.charts["breakdown"].svg)
    c.page.value = "Serving"
    assert "many" in c.charts["latency"].svg
    c.page.value = "Device"
    c.workload.value = "bert-base"


def test_serving_page(shown: Any) -> None:
    c = shown.controls
    c.page.value = "Serving"
    low = c.charts["latency"].svg, c.charts["queue"].svg, c.code.value
    c.load.value = 90
    high = c.charts["latency"].svg, c.charts["queue"].svg, c.code.value
    assert all(a != b for a, b in zip(low, high))
    assert "p99" in c.head.value
    c.page.value = "Device"
    assert c.code.value == 'ax.simulate("bert-base", "h100-sxm")'


def test_bad_beginnings() -> None:
    pytest.importorskip("anywidget")
    with pytest.raises(RequestError):
        ax.explorer("bert-base", ())
    with pytest.raises(RequestError):
        ax.explorer("bert-base", ["h100-sxm"] * 7)
    with pytest.raises(UnknownNameError, match="did you mean"):
        ax.explorer("bert-base", "h100")
    with pytest.raises(UnknownNameError):
        ax.explorer("bert", "l4")


def test_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingExtraError, match=r"accelsim-dse\[notebook\]"):
        ax.explorer("bert-base", "l4")
