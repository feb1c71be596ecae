"""The multiple-choice knapsack against every combination, and its bounds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.errors import RequestError
from accelsim.techniques.allocate import allocate


def problem(seed: int, layers: int, choices: int, coarse: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cost, weight = rng.random((layers, choices)), rng.random((layers, choices)) ** 3
    return (np.round(cost, 1), np.round(weight, 1)) if coarse else (cost, weight)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.floats(0, 3))
def test_it_finds_what_trying_everything_finds(seed, layers, choices, coarse, budget):
    cost, weight = problem(seed, layers, choices, coarse)
    rows = range(layers)
    fitting = [
        cost[rows, x].sum()
        for x in itertools.product(range(choices), repeat=layers)
        if weight[rows, x].sum() <= budget * (1 + 1e-12)
    ]
    found = allocate(cost, weight, budget)
    if not fitting:
        assert found is None
        return
    assert found.exact
    assert found.cost == pytest.approx(min(fitting))
    assert found.weight <= budget * (1 + 1e-9) + 1e-12
    assert found.cost == pytest.approx(cost[rows, found.choice].sum())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 40))
def test_thinned_lists_stay_within_the_bound(seed, layers):
    rng = np.random.default_rng(seed)
    cost = rng.random((layers, 5))
    weight = (1 - cost) ** 2 * 10 ** (-3 * rng.random((layers, 5)))
    budget = 0.4 * float(weight.mean()) * layers
    exact, thin = allocate(cost, weight, budget), allocate(cost, weight, budget, states=3)
    assert thin.weight <= budget * (1 + 1e-9)
    assert thin.bound <= exact.cost * (1 + 1e-9)
    assert exact.cost <= thin.cost * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0.05, 1))
def test_a_larger_budget_never_costs_more(seed, share):
    cost, weight = problem(seed, 12, 4, coarse=False)
    least = float(weight.min(axis=1).sum())
    small, large = (allocate(cost, weight, least + s) for s in (share, 2 * share))
    assert large.cost <= small.cost


def test_a_choice_that_a_layer_cannot_take_is_not_taken():
    cost = np.array([[math.inf, 5.0], [1.0, 2.0]])
    found = allocate(cost, np.zeros((2, 2)), 1.0)
    assert found.choice == (1, 0)
    assert found.cost == 6.0


def test_mistakes_are_refused():
    with pytest.raises(RequestError, match="layers, choices"):
        allocate(np.ones((2, 3)), np.ones((3, 2)), 1.0)
    with pytest.raises(RequestError, match="not negative"):
        allocate(-np.ones((1, 1)), np.ones((1, 1)), 1.0)
