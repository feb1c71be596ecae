"""Pairs, cascades and speculative decoding: closed forms, and what a verification step costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.core.errors import GraphError, RequestError, UnknownNameError
from accelsim.techniques import distillation as d
from accelsim.workload.load import load_workload

rates = st.floats(0, 1)
seconds = st.floats(1e-6, 1e3)


def test_every_shipped_pair_loads_and_cites_a_source():
    for pair in d.pairs():
        student, teacher = (load_workload(n) for n in (pair.student, pair.teacher))
        assert student.parameters < teacher.parameters
        assert pair.name == f"{pair.student}/{pair.teacher}"
        assert pair.source
        assert bool(pair.metric) == (not math.isnan(pair.student_value))
    assert d.named_pair("distilbert/bert-base").student_value == 97


def test_tinybert_has_the_size_of_its_paper():
    assert load_workload("tinybert-4").parameters == pytest.approx(14.5e6, rel=0.02)


def test_unknown_pairs_name_the_nearest_or_have_no_score():
    with pytest.raises(UnknownNameError, match="distilbert/bert-base"):
        d.named_pair("distilbert/bert")
    assert math.isnan(d.find_pair("resnet18", "vgg16").student_value)


@given(rates, st.integers(0, 20))
def test_expected_tokens_are_the_sum_of_the_accepted_prefixes(a, k):
    assert d.expected_tokens(a, k) == pytest.approx(sum(a**i for i in range(k + 1)))


def test_expected_tokens_match_a_simulated_process():
    rng = np.random.default_rng(0)
    accepted = rng.random((200_000, 5)) < 0.7
    yielded = 1 + np.cumprod(accepted, axis=1).sum(axis=1)
    assert d.expected_tokens(0.7, 5) == pytest.approx(yielded.mean(), abs=0.02)


@given(rates, seconds, seconds)
def test_a_cascade_breaks_even_where_it_says(a, student, teacher):
    even = d.cascade_break_even(student, teacher)
    cost = d.cascade_mean(student, teacher, a)
    if a > even + 1e-9:
        assert cost < teacher * (1 + 1e-9)
    if a < even - 1e-9:
        assert cost > teacher * (1 - 1e-9)


@given(st.integers(1, 12), st.floats(0.01, 2), st.floats(1, 3))
def test_speculation_breaks_even_where_it_says(k, student, verify):
    even = d.speculation_break_even(k, student, verify, 1.0)
    if math.isnan(even):
        assert d.seconds_per_token(1.0, k, student, verify) > 1.0
    else:
        assert 0 <= even <= 1
        assert d.seconds_per_token(even, k, student, verify) <= 1.0 + 1e-9
        if even > 1e-6:
            assert d.seconds_per_token(even * 0.99, k, student, verify) > 1.0 - 1e-9


@given(rates, st.floats(0.01, 1))
def test_the_best_draft_is_the_best_of_all(a, student):
    best = d.best_draft(a, student, lambda k: 1 + 0.02 * k, longest=10)
    times = [d.seconds_per_token(a, k, student, 1 + 0.02 * k) for k in range(11)]
    assert times[best] == min(times)
    assert d.best_draft(0.0, student, lambda k: 1.0, longest=10) == 0


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), True])
def test_acceptance_outside_the_unit_interval_is_refused(value):
    with pytest.raises(RequestError, match=r"not in \[0, 1\]"):
        d.expected_tokens(value, 3)
    with pytest.raises(RequestError, match=r"not in \[0, 1\]"):
        d.cascade_mean(1.0, 2.0, value)
    with pytest.raises(RequestError, match="draft length"):
        d.expected_tokens(0.5, -1)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v3", "gpt-oss-20b"])
def test_a_verification_step_multiplies_the_products_and_reads_the_cache_once(name):
    graph = load_workload(name, phase="decode", context=512)
    assert d.verification(graph, 1) is graph
    several = d.verification(graph, 4)
    products = [op for op in graph if op.kind == "matmul"]
    assert all(several[op.name].flops == 4 * op.flops for op in products)
    assert several.kv_bytes == graph.kv_bytes
    assert several.weight_bytes == graph.weight_bytes
    batched = several.with_batch(3)
    assert batched.kv_bytes == 3 * graph.kv_bytes
    shapes = {}
    for op in batched:
        assert op.work.bytes_read >= 0
        for t in (*op.inputs, *op.outputs):
            assert shapes.setdefault(t.name, t.shape) == t.shape


def test_only_decode_steps_verify():
    with pytest.raises(GraphError, match="decode"):
        d.verification(load_workload("bert-base"), 2)
