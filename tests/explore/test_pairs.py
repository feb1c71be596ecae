"""Students beside their teachers on devices."""

from __future__ import annotations

import math

import pytest

import accelsim as ax
from accelsim.core.errors import RequestError, UnknownNameError
from accelsim.explore import cascade, speculative
from accelsim.techniques import distillation as d


def test_distilbert_halves_the_work_of_the_encoder():
    student, teacher = ax.load_workload("distilbert"), ax.load_workload("bert-base")

    def encoder(graph):
        return sum(op.flops * op.repeat for op in graph if op.name.startswith("layers"))

    assert encoder(student) == encoder(teacher) / 2
    assert student.parameters / teacher.parameters == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("device", ["h100-sxm", "t4", "tpu-v4", "zcu104-dpu"])
def test_a_pair_is_compared_on_any_architecture(device):
    both = ax.distill("distilbert/bert-base", hardware=device)
    row = both.summary
    assert row["status"] == "ok"
    assert row["speedup"] == pytest.approx(2.0, abs=0.1)
    assert row["speedup_low"] < row["speedup"] < row["speedup_high"]
    assert row["student_value"] == 97
    assert "1910.01108" in row["source"]
    assert both.notes == ()


def test_a_student_larger_than_its_teacher_is_warned_about():
    both = ax.distill("resnet50", "resnet18", "t4")
    assert any(n.startswith("warning: the student resnet50") for n in both.notes)
    assert any("score unknown" in n for n in both.notes)
    assert math.isnan(both.summary["student_value"])
    assert both.summary["speedup"] < 1


def test_what_does_not_fit_is_said_and_not_a_number():
    both = ax.distill("llama-3.1-8b/llama-3.1-70b", hardware="h100-sxm")
    assert not both.feasible
    assert math.isnan(both.summary["speedup"])
    assert "teacher needs" in both.summary["reason"]
    outcome = cascade("llama-3.1-8b/llama-3.1-70b", hardware="h100-sxm", acceptance=0.5)
    assert isinstance(outcome, ax.Infeasible)


def test_cascades_interpolate_between_student_and_both():
    none, some, every = (
        cascade("distilbert/bert-base", hardware="t4", acceptance=a, batch=8).summary for a in (0, 0.7, 1)
    )
    assert none["latency_mean_s"] == pytest.approx(none["latency_worst_s"])
    assert every["latency_mean_s"] == pytest.approx(none["latency_worst_s"] - none["teacher_latency_s"])
    assert every["latency_mean_s"] < some["latency_mean_s"] < none["latency_mean_s"]
    even = some["break_even_acceptance"]
    at = cascade("distilbert/bert-base", hardware="t4", acceptance=even, batch=8).summary
    assert at["speedup"] == pytest.approx(1)
    assert some["score"] == "unknown"


def test_speculation_pays_at_one_sequence_and_less_in_a_large_batch():
    def best(batch):
        return speculative(
            "qwen3-8b/qwen3-32b", hardware="h200-sxm", acceptance=0.8, batch=batch, drafts=(1, 3, 6)
        ).summary["speedup"]

    assert best(1) > 1.3
    assert best(1) > best(128) >= 1.0


def test_a_round_is_drafts_and_one_verification():
    found = speculative("qwen3-8b/qwen3-32b", hardware="h200-sxm", acceptance=0.7, drafts=(4,), context=512)
    alone, row = found.rows
    assert alone["draft"] == 0
    assert alone["speedup"] == 1
    teacher = ax.simulate("qwen3-32b", "h200-sxm", phase="decode", context=512).summary["latency_s"]
    assert alone["verify_s"] == teacher
    assert row["verify_s"] >= teacher
    assert row["verify_s"] < 1.5 * teacher  # the weights are read once
    tokens = d.expected_tokens(0.7, 4)
    assert row["seconds_per_token"] == pytest.approx((4 * row["student_s"] + row["verify_s"]) / tokens)
    even = row["break_even_acceptance"]
    at = d.seconds_per_token(even, 4, row["student_s"], row["verify_s"])
    assert at == pytest.approx(teacher)
    assert speculative("qwen3-8b/qwen3-32b", hardware="h200-sxm", acceptance=0.0).best_draft == 0


def test_bad_requests_are_refused():
    with pytest.raises(RequestError, match="acceptance"):
        cascade("distilbert/bert-base", hardware="t4", acceptance=1.5)
    with pytest.raises(RequestError, match="acceptance"):
        speculative("qwen3-8b/qwen3-32b", hardware="h200-sxm", acceptance=-1)
    with pytest.raises(RequestError, match="draft lengths"):
        speculative("qwen3-8b/qwen3-32b", hardware="h200-sxm", acceptance=0.5, drafts=(1, -2))
    with pytest.raises(RequestError, match="hardware"):
        ax.distill("distilbert/bert-base")
    with pytest.raises(UnknownNameError, match="distilbert/bert-base"):
        ax.distill("distilbert", hardware="t4")
