"""Batches of items of different lengths: what padding wastes, and the bucket edges that waste least."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from accelsim.core.errors import RequestError

MAX_LENGTHS = 4096
"""Distinct lengths that `optimal_edges` takes; it is quadratic in them."""

Cost = Callable[[int], float]
"""Cost of an item padded to a length: tokens, or seconds on a device."""


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths.

    Attributes
    ----------
    values : tuple of int
        Distinct lengths, ascending.
    shares : tuple of float
        Probability of each.
    """

    values: tuple[int, ...]
    shares: tuple[float, ...]

    @staticmethod
    def of(lengths: Sequence[int], weights: Sequence[float] | None = None) -> Lengths:
        """From observed lengths, or from lengths with their weights (a histogram).

        Raises
        ------
        RequestError
            No length, one that is not a positive integer, or a weight that is negative or not finite.
        """
        given = list(weights) if weights is not None else [1.0] * len(lengths)
        if not lengths or len(given) != len(lengths):
            raise RequestError(f"{len(lengths)} lengths and {len(given)} weights", "lengths")
        held: dict[int, float] = {}
        for n, w in zip(lengths, given):
            if not _whole(n):
                raise RequestError(f"length {n!r} is not a positive integer", "lengths")
            if not isinstance(w, Real) or not math.isfinite(w) or w < 0:
                raise RequestError(f"weight {w!r} is not a number of at least 0", "lengths")
            held[int(n)] = held.get(int(n), 0.0) + w
        total = sum(held.values())
        if total <= 0:
            raise RequestError("all weights are 0", "lengths")
        values = sorted(n for n, w in held.items() if w > 0)
        return Lengths(tuple(values), tuple(held[n] / total for n in values))

    @property
    def mean(self) -> float:
        return sum(n * p for n, p in zip(self.values, self.shares))

    @property
    def longest(self) -> int:
        return self.values[-1]

    def expected(self, cost: Cost) -> float:
        """Mean cost of an item without padding."""
        return sum(cost(n) * p for n, p in zip(self.values, self.shares))

    def expected_of_longest(self, batch: int, cost: Cost = float) -> float:
        """Mean cost of an item padded to the longest of a batch of independent draws.

        P(max <= l) = F(l)^b, so the expectation is the sum over l of cost(l) (F(l)^b - F(l-)^b).
        """
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise RequestError(f"batch {batch!r} is not a positive integer")
        total, below = 0.0, 0.0
        for n, p in zip(self.values, self.shares):
            reached = min(1.0, below + p)
            total += cost(n) * (reached**batch - below**batch)
            below = reached
        # Rounding of the shares is given to the longest.
        return total + cost(self.longest) * (1.0 - below**batch)


def _whole(n: Any) -> bool:
    """Whether something is a positive integer, those of numpy and whole floats included."""
    return isinstance(n, Real) and not isinstance(n, bool) and float(n) >= 1 and float(n).is_integer()


def bucketed(lengths: Lengths, edges: Sequence[int], cost: Cost = float) -> float:
    """Mean cost of an item padded to the first edge that holds it.

    Raises
    ------
    RequestError
        The last edge is below the longest item.
    """
    from bisect import bisect_left

    held = sorted(set(edges))
    if not held or held[-1] < lengths.longest:
        raise RequestError(f"edges {held} do not hold an item of length {lengths.longest}")
    return sum(cost(held[bisect_left(held, n)]) * p for n, p in zip(lengths.values, lengths.shares))


def waste(lengths: Lengths, edges: Sequence[int]) -> float:
    """Share of the padded tokens that is padding."""
    return 1.0 - lengths.mean / bucketed(lengths, edges)


def optimal_edges(lengths: Lengths, buckets: int, cost: Cost = float) -> tuple[int, ...]:
    """The edges of at most `buckets` buckets that cost least, exactly.

    Dynamic programming over the distinct lengths l_1 < ... < l_n, which are the only useful edges: with
    D_j(i) the least cost of items up to l_i in j buckets,

      D_j(i) = min over h < i of D_(j-1)(h) + cost(l_i) (P_i - P_h),  P_i the share of items up to l_i.

    O(buckets n^2). A cost that falls with the length makes longer edges better; it is taken as given.
    """
    import numpy as np

    n = len(lengths.values)
    if isinstance(buckets, bool) or not isinstance(buckets, int) or buckets < 1:
        raise RequestError(f"buckets {buckets!r} is not a positive integer")
    if n > MAX_LENGTHS:
        raise RequestError(f"{n} distinct lengths are more than {MAX_LENGTHS}", hint="bin them first")
    price = np.array([cost(v) for v in lengths.values])
    upto = np.concatenate([[0.0], np.cumsum(lengths.shares)])
    least: Any = np.concatenate([[0.0], np.full(n, np.inf)])
    choices: list[Any] = []
    best: list[Any] = []
    later = np.tri(n, n + 1, 0, dtype=bool)  # h <= i - 1 for the i-th length, counted from 1
    block = np.where(later, price[:, None] * (upto[1:, None] - upto[None, :]), np.inf)
    for _ in range(min(buckets, n)):
        total = least[None, :] + block
        at = total.argmin(axis=1)
        choices.append(at)
        least = np.concatenate([[0.0], total[np.arange(n), at]])
        best.append(least[-1])
    count = int(np.argmin(best))
    edges, i = [], n
    for at in reversed(choices[: count + 1]):
        if i == 0:
            break
        edges.append(lengths.values[i - 1])
        i = int(at[i - 1])
    return tuple(reversed(edges))
