"""The multiple-choice knapsack behind mixed precision: one choice per layer, least cost within a budget.

    minimise  sum_i cost[i, x_i]   subject to   sum_i weight[i, x_i] <= budget

Solved exactly by dynamic programming over the layers, keeping the pairs (cost, weight) that no other pair
beats in both. Two bounds keep the lists short: what the remaining layers weigh at least, and the Lagrangian
bound  L(u) = sum_i min_x (cost + u weight) - u budget  (weak duality: never above the optimum), whose best
multiplier also gives a good first solution. Where a list outgrows its limit it is thinned, and the Lagrangian
bound then says how far from the optimum the answer can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError

Array = npt.NDArray[np.float64]

STATES = 100_000
"""Pairs kept per layer."""

STEPS = 100
"""Halvings of the multiplier's interval."""


@dataclass(frozen=True)
class Allocation:
    """A choice per layer.

    Attributes
    ----------
    choice : tuple of int
    cost, weight : float
        Sums over the layers.
    bound : float
        No choice within the budget costs less.
    exact : bool
        The choice is optimal; otherwise ``cost - bound`` says by how much it can miss.
    """

    choice: tuple[int, ...]
    cost: float
    weight: float
    bound: float
    exact: bool


def allocate(cost: Array, weight: Array, budget: float, states: int = STATES) -> Allocation | None:
    """Least cost within a budget.

    Parameters
    ----------
    cost, weight : array (layers, choices)
        Not negative; infinite where a layer cannot take a choice.
    budget : float
        Same unit as `weight`.

    Returns
    -------
    Allocation or None
        None when even the lightest choices exceed the budget.
    """
    cost, weight = np.asarray(cost, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    if cost.shape != weight.shape or cost.ndim != 2 or not cost.size:
        raise RequestError(f"costs {cost.shape} and weights {weight.shape} must be (layers, choices)")
    if np.isnan(cost).any() or np.isnan(weight).any() or (cost < 0).any() or (weight < 0).any():
        raise RequestError("costs and weights must be numbers that are not negative")
    allowed = budget * (1 + 1e-12)
    # What a layer cannot take is too heavy for any budget, and finite: infinity times zero is no number.
    weight = np.where(np.isinf(cost) | np.isinf(weight), 2.0 * allowed + 1.0, weight)
    lightest = weight.min(axis=1)
    if lightest.sum() > allowed:
        return None
    multiplier, first = _multiplier(cost, weight, allowed)
    least = (cost + multiplier * weight).min(axis=1)
    bound = max(float(least.sum() - multiplier * budget), float(cost.min(axis=1).sum()))
    rows = np.arange(len(cost))
    best = float(cost[rows, first].sum())
    # Suffix sums: what the layers after i weigh and cost at least.
    light = np.append(np.cumsum(lightest[::-1])[::-1], 0.0)[1:]
    price = np.append(np.cumsum(least[::-1])[::-1], 0.0)[1:]
    costs, weights = np.zeros(1), np.zeros(1)
    steps: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    exact = True
    for i in range(len(cost)):
        grown = (costs[:, None] + cost[i]).reshape(-1)
        heavy = (weights[:, None] + weight[i]).reshape(-1)
        reach = grown + multiplier * heavy + price[i] - multiplier * allowed
        kept = np.flatnonzero((heavy + light[i] <= allowed) & (reach <= best * (1 + 1e-9) + 1e-300))
        kept = kept[_frontier(grown[kept], heavy[kept])]
        if len(kept) > states:
            kept, exact = kept[np.linspace(0, len(kept) - 1, states).astype(np.int64)], False
        steps.append((kept // cost.shape[1], kept % cost.shape[1]))
        costs, weights = grown[kept], heavy[kept]
    if not len(costs) or costs[0] > best:  # thinning lost what the multiplier had found
        choice = tuple(int(x) for x in first)
    else:
        place, picked = 0, []
        for parents, choices in reversed(steps):
            picked.append(int(choices[place]))
            place = int(parents[place])
        choice = tuple(reversed(picked))
    total = float(cost[rows, choice].sum())
    return Allocation(
        choice, total, float(weight[rows, choice].sum()), total if exact else min(bound, total), exact
    )


def _frontier(costs: Array, weights: Array) -> npt.NDArray[np.int64]:
    """Places of the pairs that no cheaper pair undercuts in weight, cheapest first."""
    order = np.lexsort((weights, costs))
    held = weights[order]
    before = np.minimum.accumulate(np.append(np.inf, held[:-1]))
    return order[held < before]


def _multiplier(cost: Array, weight: Array, budget: float) -> tuple[float, npt.NDArray[np.int64]]:
    """The multiplier at which the cheapest priced choices just fit, and those choices."""

    def choose(u: float) -> npt.NDArray[np.int64]:
        priced = cost + u * weight
        # Among equals the lighter choice, so that a large multiplier always fits.
        ties = priced <= priced.min(axis=1, keepdims=True) * (1 + 1e-15)
        return np.where(ties, weight, np.inf).argmin(axis=1)

    def fits(x: npt.NDArray[np.int64]) -> bool:
        return bool(weight[np.arange(len(x)), x].sum() <= budget)

    chosen = choose(0.0)
    if fits(chosen):
        return 0.0, chosen
    span = float(cost[np.isfinite(cost)].max())
    low, high = 0.0, span / max(float(weight[weight > 0].min()), 1e-300)
    lightest = np.where(weight == weight.min(axis=1, keepdims=True), cost, np.inf).argmin(axis=1)
    best = lightest
    for _ in range(STEPS):
        middle = (low * high) ** 0.5 if low > 0 else high * 1e-6 if high > 1e-300 else 0.0
        x = choose(middle)
        if fits(x):
            high, best = middle, x
        else:
            low = middle
        if high <= low * (1 + 1e-12):
            break
    return high, best
