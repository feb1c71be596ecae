"""Searches: the front of enumerable spaces, constraints, seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError
from accelsim.explore import search as searching
from accelsim.explore import sweep as sweeping
from accelsim.explore.evaluate import columns_of
from accelsim.explore.pareto import hypervolume, oriented
from accelsim.explore.search import Limit
from accelsim.explore.space import Space

optuna = pytest.importorskip("optuna")

OBJECTIVES = ("latency_s", "energy_per_item_j", "area_mm2")


def array_model(points):
    """An array's folds, a memory roof, energy and area in closed form: a space that can be enumerated."""
    rows = []
    for p in points:
        b, r, c = p["batch"], p["array.rows"], p["array.cols"]
        bandwidth = float(p["memory.bandwidth"].split()[0]) * 1e9
        m, k, n = b * 3136, 576, 512
        cycles = math.ceil(k / r) * math.ceil(n / c) * (m + 2 * r + c)
        latency = max(cycles / 1e9, (m * k + k * n + m * n) / bandwidth)
        area = r * c * 1e-3 + bandwidth / 2e10 + 10
        energy = m * n * k * 1e-12 + 0.1 * area * latency + (m * k + k * n) * 32e-12 * (1 + 64 / min(r, c))
        numbers = {"latency_s": latency, "energy_per_item_j": energy / b, "area_mm2": area}
        status = "infeasible" if area > 60 else "ok"
        rows.append({**p, "status": status, **({} if status == "infeasible" else numbers)})
    return columns_of(rows)


def array_rows(group, loaded):
    points = [{**group.settings, "batch": b} for b in group.batches.tolist()]
    yield group.positions.tolist(), array_model(points)


@pytest.fixture
def closed_form(monkeypatch):
    for module in (searching, sweeping):
        monkeypatch.setattr(module, "evaluate", array_model)
    monkeypatch.setattr(sweeping, "rows_of", array_rows)
    return Space(
        {
            "workload": "resnet18",
            "hardware": "tpu-v4",
            "batch": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64],
            "array.rows": [16, 32, 48, 64, 96, 128, 192, 256],
            "array.cols": [16, 32, 48, 64, 96, 128, 192, 256],
            "memory.bandwidth": [f"{x} GB/s" for x in (50, 100, 150, 200, 300, 400, 600, 800)],
        }
    )


def test_the_front_of_an_enumerable_space_is_found(closed_form):
    whole = sweeping.run(closed_form, jobs=1, yes=True)

    def scaled(frame, low, high):
        return (oriented(frame[list(OBJECTIVES)].to_numpy(float), OBJECTIVES) - low) / (high - low)

    costs = oriented(whole.feasible[list(OBJECTIVES)].to_numpy(float), OBJECTIVES)
    low, high = costs.min(axis=0), costs.max(axis=0)
    full = hypervolume(scaled(whole.feasible, low, high), np.ones(3))
    budget = int(0.15 * len(closed_form))

    def volumes(sampler):
        return [
            hypervolume(
                scaled(
                    searching.run(
                        closed_form, objective=OBJECTIVES, budget=budget, sampler=sampler, seed=seed
                    ).feasible,
                    low,
                    high,
                ),
                np.ones(3),
            )
            / full
            for seed in range(1)
        ]

    found, chance = volumes("nsga2"), volumes("random")
    assert min(found) >= 0.99
    assert np.mean(found) > np.mean(chance)


def test_the_same_seed_is_the_same_study(closed_form):
    def once(seed, sampler):
        return searching.run(closed_form, objective=OBJECTIVES, budget=60, seed=seed, sampler=sampler).frame

    for sampler in searching.SAMPLERS:
        assert once(3, sampler).equals(once(3, sampler))
    assert not once(3, "random").equals(once(4, "random"))


def test_constraints_hold_and_a_start_costs_nothing(closed_form):
    limit = "area_mm2 <= 20"
    first = searching.run(closed_form, objective="latency_s", constraints=limit, budget=80)
    assert len(first) == 80
    assert not first.frame.duplicated(list(first.axes)).any()
    assert first.best.area_mm2 <= 20
    again = searching.run(closed_form, objective="latency_s", constraints=limit, budget=40, start=first)
    both = set(map(tuple, first.frame[list(first.axes)].to_numpy())) & set(
        map(tuple, again.frame[list(again.axes)].to_numpy())
    )
    assert not both
    assert again.best.latency_s <= 1.3 * first.best.latency_s


def test_a_budget_beyond_the_space_is_the_whole_space():
    found = ax.search("resnet18", ["t4", "l4"], batch=[1, 2, 4], objective="latency_s", budget=100)
    assert len(found) == 6
    swept = ax.sweep("resnet18", ["t4", "l4"], batch=[1, 2, 4])
    assert found.best.latency_s == swept.frame.latency_s.min()


def test_limits_read_and_measure():
    assert Limit.of("latency_s <= 0.01") == Limit("latency_s", "<=", 0.01)
    assert Limit.of("throughput_per_s >= 100").violation({"throughput_per_s": 50.0}) == 0.5
    assert Limit.of("a < 1").violation({"a": 1.0}) > 0
    assert Limit.of("a < 1").violation({}) == math.inf


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampler": "nsga"}, "nsga2"),
        ({"objective": "latency"}, "latency_s"),
        ({"objective": []}, "objective"),
        ({"constraints": "latency_s ~ 3"}, "latency_s ~ 3"),
        ({"budget": 0}, "budget"),
    ],
)
def test_mistakes_are_named(change, named):
    with pytest.raises(AccelsimError, match=named):
        ax.search("resnet18", "t4", **{"batch": [1, 2], "objective": "latency_s", "budget": 2, **change})
