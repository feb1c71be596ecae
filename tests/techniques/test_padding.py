"""Padding and buckets: expectations against draws, and edges against every choice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.errors import RequestError
from accelsim.techniques.padding import Lengths, bucketed, optimal_edges, waste

few = st.dictionaries(st.integers(1, 60), st.floats(0.01, 5), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(few, st.integers(1, 4), st.sampled_from((1.0, 2.0, 0.5)))
def test_optimal_edges_beat_every_other_choice(weights, buckets, power):
    lengths = Lengths.of(list(weights), list(weights.values()))

    def cost(n):
        return float(n) ** power + 3

    best = bucketed(lengths, optimal_edges(lengths, buckets, cost), cost)
    inner = lengths.values[:-1]
    every = (
        bucketed(lengths, (*chosen, lengths.longest), cost)
        for k in range(min(buckets, len(lengths.values)))
        for chosen in itertools.combinations(inner, k)
    )
    assert best == pytest.approx(min(every))
    assert len(optimal_edges(lengths, buckets, cost)) <= buckets


@given(few)
def test_more_buckets_never_waste_more_and_one_per_length_wastes_nothing(weights):
    lengths = Lengths.of(list(weights), list(weights.values()))
    wasted = [waste(lengths, optimal_edges(lengths, k)) for k in range(1, len(lengths.values) + 1)]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(wasted))
    assert wasted[-1] == pytest.approx(0, abs=1e-12)
    assert wasted[0] == pytest.approx(1 - lengths.mean / lengths.longest)


def test_the_longest_of_a_batch_is_what_draws_give():
    rng = np.random.default_rng(0)
    values = [5, 20, 21, 80]
    lengths = Lengths.of(values, [4, 3, 2, 1])
    draws = rng.choice(values, p=[0.4, 0.3, 0.2, 0.1], size=(100_000, 6)).max(axis=1)
    assert lengths.expected_of_longest(6) == pytest.approx(draws.mean(), rel=0.01)
    assert lengths.expected_of_longest(1) == pytest.approx(lengths.mean)


def test_bad_lengths_and_edges_are_refused():
    for lengths, weights in (
        ([], None),
        ([0], None),
        ([3, 4], [1]),
        ([3], [-1]),
        ([3], [0]),
        ([1.5], None),
        (["x"], None),
    ):
        with pytest.raises(RequestError):
            Lengths.of(lengths, weights)
    held = Lengths.of([3, 9])
    with pytest.raises(RequestError, match="do not hold"):
        bucketed(held, (5,))
    with pytest.raises(RequestError, match="buckets"):
        optimal_edges(held, 0)
    with pytest.raises(RequestError, match="batch"):
        held.expected_of_longest(0)
