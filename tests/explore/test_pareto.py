"""Fronts against brute force, hypervolume against inclusion-exclusion and Monte Carlo."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from accelsim.explore.pareto import hypervolume, knee, maximised, nondominated, oriented

costs = st.integers(1, 4).flatmap(
    lambda d: arrays(
        np.float64, st.tuples(st.integers(1, 12), st.just(d)), elements=st.integers(0, 6).map(float)
    )
)


def dominated(points: np.ndarray, i: int) -> bool:
    return any((p <= points[i]).all() and (p < points[i]).any() for p in points)


@given(costs)
def test_the_front_is_what_no_point_beats(points):
    assert nondominated(points).tolist() == [not dominated(points, i) for i in range(len(points))]


@given(costs)
def test_hypervolume_is_the_union_of_boxes(points):
    """Inclusion and exclusion over the boxes between each point and the reference."""
    points = points[:7]
    worst = np.full(points.shape[1], 7.0)
    union = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            union += (-1) ** (size + 1) * np.prod(worst - np.max(chosen, axis=0))
    assert hypervolume(points, worst) == pytest.approx(union)


def test_hypervolume_of_a_staircase():
    front = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    assert hypervolume(front, np.array([3.0, 3.0])) == 3 * 1 + 2 * 1 + 1 * 1
    assert hypervolume(front, np.array([0.5, 5.0])) == 0.5 * 3


def test_the_knee_of_a_bent_line():
    front = np.array([[0.0, 10.0], [1.0, 2.0], [5.0, 1.0], [10.0, 0.0]])
    assert knee(front) == 1


def test_more_is_better_by_name():
    assert maximised("throughput_per_s")
    assert maximised("accuracy_pct")
    assert not maximised("accuracy_drop_pct")
    assert not maximised("latency_s")
    values = oriented([[1.0, 2.0]], ["latency_s", "throughput_per_s"])
    assert values.tolist() == [[1.0, -2.0]]
    assert oriented([[1.0, 2.0]], ["a", "b"], maximise=["a"]).tolist() == [[-1.0, 2.0]]
