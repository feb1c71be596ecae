"""Pareto fronts: which points no other beats, how much they dominate, and where the knee lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError

Array = npt.NDArray[np.float64]

MORE_IS_BETTER = ("throughput", "accuracy_pct", "utilisation", "goodput", "tokens_per_")
"""Beginnings or parts of column names of which more is better."""


def maximised(name: str) -> bool:
    """Whether more of a column is better, by its name."""
    return any(part in name for part in MORE_IS_BETTER)


def oriented(values: Any, objectives: Sequence[str], maximise: Sequence[str] | None = None) -> Array:
    """Objectives as costs: those of which more is better change sign."""
    found = np.array(values, dtype=np.float64)
    for i, name in enumerate(objectives):
        if name in maximise if maximise is not None else maximised(name):
            found[:, i] = -found[:, i]
    return found


def nondominated(costs: Array) -> npt.NDArray[np.bool_]:
    """Points that no other point is at least as good as in every cost and better in one.

    Parameters
    ----------
    costs : ndarray, shape (points, objectives)
        Less is better. Equal points are all kept.

    Notes
    -----
    Points in lexicographic order can only be dominated by earlier ones; two objectives need a running
    minimum (Kung, Luccio and Preparata 1975), more are compared with the front so far.
    """
    count, objectives = costs.shape
    keep = np.zeros(count, dtype=bool)
    if not count:
        return keep
    unique, places = np.unique(costs, axis=0, return_inverse=True)  # lexicographic, duplicates once
    if objectives == 1:
        front = np.arange(len(unique)) == 0
    elif objectives == 2:
        before = np.minimum.accumulate(unique[:, 1])
        front = np.concatenate([[True], unique[1:, 1] < before[:-1]])
    else:
        front = np.zeros(len(unique), dtype=bool)
        held = np.empty_like(unique)
        size = 0
        for i, point in enumerate(unique):
            if not (held[:size] <= point).all(axis=1).any():
                held[size] = point
                size += 1
                front[i] = True
    return np.asarray(front[places.reshape(-1)], dtype=bool)


def hypervolume(costs: Array, reference: Array) -> float:
    """Volume between a front and a reference point that is worse in every cost.

    By slices along the last objective, each the hypervolume of one objective less (the "HSO" algorithm:
    While, Hingston, Barone and Huband 2006, doi:10.1109/TEVC.2005.851275); exact, and fast for the two to
    four objectives of a study.

    Raises
    ------
    RequestError
        The reference has another number of objectives.
    """
    points, worst = np.asarray(costs, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != len(worst):
        raise RequestError(f"the reference has {len(worst)} objectives, the points {points.shape[1:]}")
    points = points[(points < worst).all(axis=1)]
    return _volume(points[nondominated(points)], worst) if len(points) else 0.0


def _volume(points: Array, worst: Array) -> float:
    if points.shape[1] == 1:
        return float(worst[0] - points[:, 0].min())
    if points.shape[1] == 2:
        front = points[np.argsort(points[:, 0])]
        ceilings = np.concatenate([[worst[1]], np.minimum.accumulate(front[:, 1])[:-1]])
        return float(((worst[0] - front[:, 0]) * np.maximum(0.0, ceilings - front[:, 1])).sum())
    order = np.argsort(points[:, -1])
    levels = np.append(points[order, -1], worst[-1])
    total = 0.0
    for i in range(len(order)):
        depth = levels[i + 1] - levels[i]
        if depth > 0.0:
            below = points[order[: i + 1], :-1]
            total += depth * _volume(below[nondominated(below)], worst[:-1])
    return float(total)


def knee(costs: Array) -> int:
    """Position of the knee of a front.

    With every cost scaled to 0..1 over the front, the point farthest below the hyperplane through the ends
    (for two objectives, the line between the extremes: Das 1999, doi:10.1007/BF01197559), which is the
    point of the least sum of scaled costs.
    """
    least, span = costs.min(axis=0), np.ptp(costs, axis=0)
    span[span == 0.0] = 1.0
    return int(np.argmin(((costs - least) / span).sum(axis=1)))
