"""Choice of PE and SIMD for every stage: the fastest pipeline that fits a budget, or a given folding.

For a target interval each stage takes the cheapest folding that meets it, at fixed prices of LUT, DSP, BRAM
and URAM. A stage's foldings form a chain: from one target to a shorter one it moves to a folding that is
faster in every part of its timing, so both the interval and the first frame's latency only shrink. The chain
does not depend on the budget and `pack` never fails with more of a resource, so a larger device is never
slower. Several price vectors give several pipelines, of which the caller takes the fastest for its batch.

All foldings together give a lower bound of the interval: a target is impossible when, at some prices, even
the cheapest foldings cost more than the whole budget is worth. An interval that meets it is proven optimal;
otherwise the gap is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from accelsim.architectures.fpga.network import Stage, Unit
from accelsim.architectures.fpga.options import Floats, Ints, Options, options
from accelsim.architectures.fpga.resources import FF_PER_LUT, Budget, named
from accelsim.core.outcome import InfeasibleError

# Prices in LUTs of a DSP block, a BRAM18 and a URAM. The grid spans the ratios of real parts (60-350 LUT per
# DSP, 200-650 per BRAM18); the corners make one resource count alone, where the search is exact.
PRICES: Floats = np.array(
    [[1.0, d, b, 8.0 * b] for d in (100.0, 20.0, 500.0) for b in (300.0, 60.0, 1500.0)]
    + [[1.0, 1e-6, 1e-6, 1e-6], [1e-6, 1.0, 1e-6, 1e-6], [1e-6, 1e-6, 1.0, 8.0]]
)

_SMALLER = "use fewer weight bits, a smaller model, a larger part, or an overlay that streams its weights"

EXACT_LIMIT = 2_000_000
"""Combinations of foldings that `best` tries."""


@dataclass(frozen=True)
class Plan:
    """A folded pipeline.

    Attributes
    ----------
    rows : Options
        The folding of each stage, in order.
    interval : float
        Cycles between frames that the slowest stage allows [cycles].
    bound : float
        No folding is faster than this within the budget [cycles].
    used : mapping
        Resources by the vendor's names.
    """

    rows: Options
    interval: float
    bound: float
    used: Mapping[str, float]

    @property
    def exact(self) -> bool:
        """Whether the interval is proven to be the smallest."""
        return self.interval <= self.bound


@dataclass(frozen=True)
class _Table:
    """Foldings of a unit by ascending cycles; the cost of each and the least up to each by price vector; the
    rows of its chains, one chain behind the other, and where each starts."""

    every: Options
    cost: Floats
    least: Floats
    links: Ints
    starts: Ints

    @cached_property
    def chains(self) -> tuple[Options, ...]:
        """Foldings of each chain."""
        return tuple(self.every.take(self.links[a:b]) for a, b in pairwise(self.starts))


@lru_cache(maxsize=4096)
def _table(unit: Unit, technology: str, embedded: bool = False) -> _Table:
    from accelsim.architectures.fpga.search import chains

    found = options(unit, technology, embedded)
    found = found.take(np.argsort(found.cycles, kind="stable"))
    lut, dsp, bram, uram = PRICES.T[:, :, None]
    in_dsp = np.where(found.multiplier_dsp > 0, dsp * found.multiplier_dsp, np.inf)
    cost = lut * found.lut + dsp * found.dsp + np.minimum(lut * found.multiplier_lut, in_dsp)
    for column in range(found.bram18.shape[1]):
        ultra = found.uram[:, column]
        home = np.minimum(bram * found.bram18[:, column], lut * found.lutram[:, column])
        cost += np.where(ultra > 0, np.minimum(home, uram * ultra), home)
    links, starts = chains(found.cycles, found.stream, found.tail, found.accept, cost)
    return _Table(found, cost, np.minimum.accumulate(cost, axis=1), links, starts)


@dataclass(frozen=True)
class _Space:
    """All foldings of a pipeline and its chains, stage behind stage, as the kernels of `search` take them."""

    tables: tuple[_Table, ...]

    @cached_property
    def offsets(self) -> Ints:
        """Where the foldings of each stage start."""
        return np.cumsum([0, *(len(t.every) for t in self.tables)], dtype=np.int64)

    @cached_property
    def each(self) -> Floats:
        """Cycles of each folding [cycles]."""
        return np.concatenate([t.every.cycles for t in self.tables])

    @cached_property
    def cycles(self) -> Floats:
        """Every interval that some stage can have and all can meet, ascending [cycles]."""
        slowest = max(float(t.every.cycles[0]) for t in self.tables)
        return np.unique(self.each[self.each >= slowest])

    @cached_property
    def least(self) -> Floats:
        return np.concatenate([t.least for t in self.tables], axis=1)

    @cached_property
    def rows(self) -> Options:
        return _joined([t.every for t in self.tables])

    @cached_property
    def chains(self) -> tuple[Ints, Ints, Floats]:
        """(starts, links, cost): rows of all chains, those of chain c of stage s
        ``links[starts[s, c] : starts[s, c + 1]]``, and the cost of each folding by price vector."""
        before = np.cumsum([0, *(len(t.links) for t in self.tables[:-1])], dtype=np.int64)
        return (
            np.stack([t.starts + at for t, at in zip(self.tables, before)]),
            np.concatenate([t.links + at for t, at in zip(self.tables, self.offsets)]),
            np.concatenate([t.cost for t in self.tables], axis=1),
        )

    def targets(self, floor: float) -> Floats:
        """Intervals worth trying, in ascending order [cycles]."""
        least = max(floor, float(self.cycles[0]))
        return np.concatenate([[least], self.cycles[self.cycles > least]])


@lru_cache(maxsize=64)
def _space(units: tuple[Unit, ...], technology: str, embedded: bool) -> _Space:
    return _Space(tuple(_table(unit, technology, embedded) for unit in units))


def fold(
    stages: Sequence[Stage], budget: Budget, technology: str, floor: float = 0.0, *, embedded: bool = False
) -> tuple[Plan, ...]:
    """The pipelines with the smallest interval that fits, one for each price vector that finds one.

    Parameters
    ----------
    stages : sequence of Stage
    budget : Budget
    technology : str
        Fabric family, which sets the DSP packing.
    floor : float
        Cycles per frame of the DMA; nothing is folded faster than that [cycles].
    embedded : bool
        See `accelsim.hardware.schema.Dataflow`.

    Raises
    ------
    InfeasibleError
        Not even the slowest foldings fit.
    """
    units = tuple(stage.unit for stage in stages)
    found = plans(units, budget, technology, floor, embedded)
    if not found:
        tables = [_table(unit, technology, embedded) for unit in units]
        smallest = _joined([t.chains[0].take(slice(-1, None)) for t in tables])
        _refuse(smallest, budget, f"this is the smallest folding; {_SMALLER}")
    return found


@lru_cache(maxsize=4096)
def plans(
    units: tuple[Unit, ...], budget: Budget, technology: str, floor: float, embedded: bool
) -> tuple[Plan, ...]:
    """What `fold` finds for stages of these units, or nothing: equal layers of a network ask for the same."""
    from accelsim.architectures.fpga.search import bound, search

    space = _space(units, technology, embedded)
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    targets = space.targets(floor)
    first = bound(space.offsets, space.each, space.least, PRICES, targets, have)
    if first < 0:
        return ()
    starts, links, cost = space.chains
    count = starts.shape[1] - 1
    chosen, used = np.zeros((count, len(units)), dtype=np.int64), np.zeros((count, 4))
    met = np.zeros(count, dtype=np.bool_)
    rows = (space.each, space.rows.columns, space.rows.memories, cost)
    goal = (float(targets[first]), floor, have, budget.dies)
    search(starts, links, *rows, PRICES, *goal, chosen, used, met)
    plan_of: dict[bytes, Plan] = {}
    for c in np.flatnonzero(met):
        key = chosen[c].tobytes()
        if key not in plan_of:
            taken = space.rows.take(chosen[c])
            interval = max(float(taken.cycles.max()), floor)
            bounded = float(min(targets[first], interval))
            plan_of[key] = Plan(taken, interval, bounded, _used(used[c], budget))
    return tuple(plan_of.values())


def best(
    stages: Sequence[Stage], budget: Budget, technology: str, floor: float = 0.0, *, embedded: bool = False
) -> Plan:
    """The pipeline with the smallest interval of all: proven by trying every combination of foldings where
    these are few, else the best of `fold`, whose `Plan.bound` tells how far it can be from that.

    Parameters
    ----------
    stages, budget, technology, floor, embedded
        As in `fold`.

    Raises
    ------
    InfeasibleError
        Not even the slowest foldings fit.
    """
    from accelsim.architectures.fpga.search import exact

    near = min(fold(stages, budget, technology, floor, embedded=embedded), key=lambda plan: plan.interval)
    if near.exact:
        return near
    every = _space(tuple(s.unit for s in stages), technology, embedded)
    chosen, targets = np.zeros(len(stages), dtype=np.int64), every.targets(floor)
    targets = targets[(targets >= near.bound) & (targets <= near.interval)]
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    rows = every.rows
    where = (every.offsets, rows.cycles, rows.columns, rows.memories, targets, have, budget.dies)
    met = exact(*where, EXACT_LIMIT, chosen)
    if met < 0:
        return near
    found = planned([rows.take(chosen)], budget, floor)
    return replace(found, bound=found.interval)


def cheapest(
    stages: Sequence[Stage],
    budget: Budget,
    technology: str,
    target: float,
    floor: float = 0.0,
    *,
    embedded: bool = False,
) -> Plan:
    """The pipeline that meets a target interval with the smallest share of the board's scarcest resource.

    For each price vector every stage takes its cheapest folding that meets the target (optimal at those
    prices, since stages share nothing else); the best of these pipelines is near-optimal for the share.

    Parameters
    ----------
    target : float
        Interval not to be exceeded [cycles].
    stages, budget, technology, floor, embedded
        As in `fold`.

    Raises
    ------
    InfeasibleError
        No folding is that fast, or those that are do not fit.
    """
    tables = [_table(stage.unit, technology, embedded) for stage in stages]
    fastest = max(floor, max(float(t.every.cycles[0]) for t in tables))
    if fastest > target:
        raise InfeasibleError(
            "resources",
            f"{target:,.4g} cycles per frame",
            f"{fastest:,.0f} cycles when unfolded",
            "lower the target or raise the clock",
        )
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    found: list[tuple[float, Plan]] = []
    refused: InfeasibleError | None = None
    for p in range(len(PRICES)):
        rows = []
        for t in tables:
            meets = t.cost[p, : int(np.searchsorted(t.every.cycles, target, side="right"))]
            # The last of equals is the slowest.
            rows.append(t.every.take([len(meets) - 1 - int(np.argmin(meets[::-1]))]))
        try:
            plan = planned(rows, budget, floor)
        except InfeasibleError as error:
            refused = error
            continue
        share = _pack(_joined(rows), budget)
        found.append((float(np.max(share / np.maximum(have, 1e-9))), plan))
    if not found and refused is not None:
        raise refused
    return min(found, key=lambda pair: pair[0])[1]


def _joined(tables: Sequence[Options]) -> Options:
    return Options(
        **{name: np.concatenate([getattr(t, name) for t in tables]) for name in Options.__dataclass_fields__}
    )


def _used(used: Floats, budget: Budget) -> dict[str, float]:
    lut, dsp, bram, uram = (float(v) for v in used)
    return named(lut, lut * FF_PER_LUT, dsp, bram, uram, budget.intel)


def _refuse(rows: Options, budget: Budget, hint: str) -> NoReturn:
    """Say for each resource what a design needs and what there is, and which of them overflow."""
    lut, dsp, _, _ = _pack(rows, replace(budget, bram18=np.inf))
    blocks, ultra = float(rows.bram18.sum()), float(rows.fixed_uram.sum())
    need = named(lut, 0.0, dsp, blocks, ultra, budget.intel)
    have = budget.named()
    labels = {n: n.upper() for n in need if n != "ff" and not (n == "uram" and have[n] == 0 == need[n])}
    over = [f"{labels[n]} by {need[n] / max(have[n], 1) - 1:.0%}" for n in labels if need[n] > have[n]]
    if not over:  # each fits alone, but BRAM that moves to LUTs or URAM finds no room there
        over = ["memories that find no room in BRAM, URAM or LUT"]
        if budget.dies > 1 and packed(rows, budget)[1]:
            over = [f"one layer for one of {budget.dies} dies"]
    raise InfeasibleError(
        "resources",
        ", ".join(f"{_amount(need[n])} {labels[n]}" for n in labels),
        ", ".join(f"{_amount(have[n])} {labels[n]}" for n in labels),
        f"too much {', '.join(over)}: {hint}",
    )


def _amount(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _pack(rows: Options, budget: Budget) -> Floats:
    from accelsim.architectures.fpga.search import pack

    used = np.zeros(4)
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    flat = (rows.bram18.ravel(), rows.uram.ravel(), rows.lutram.ravel())
    pack(rows.lut, rows.multiplier_lut, rows.dsp, rows.multiplier_dsp, *flat, have, used)
    return used


def packed(rows: Options, budget: Budget) -> tuple[Floats, bool]:
    """(LUT, DSP, BRAM, URAM) of foldings within a budget, and whether they fit, whatever its dies."""
    fixed = float(rows.fixed_uram.sum())
    used = _pack(rows, replace(budget, uram=budget.uram - fixed))
    used[3] += fixed
    return used, not np.any(used > np.array([budget.lut, budget.dsp, budget.bram18, budget.uram]))


def least_cost(unit: Unit, technology: str, *, embedded: bool = False) -> float:
    """What the cheapest folding of a unit costs at the first price vector [LUT]."""
    return float(_table(unit, technology, embedded).least[0, -1])


def slowest_that_meets(unit: Unit, technology: str, cycles: float, *, embedded: bool = False) -> Options:
    """The folding of a unit's cheapest chain that just takes no more than `cycles`, else its fastest."""
    ways = _table(unit, technology, embedded).chains[0]
    last = max(int(np.searchsorted(ways.cycles, cycles, side="right")) - 1, 0)
    return ways.take(slice(last, last + 1))


def planned(rows: Sequence[Options], budget: Budget, floor: float = 0.0) -> Plan:
    """The plan of given foldings.

    Raises
    ------
    InfeasibleError
        They do not fit the budget.
    """
    every = _joined(rows)
    used, fits = packed(every, budget)
    if not fits:
        _refuse(every, budget, f"fold further, or {_SMALLER}")
    interval = max(float(every.cycles.max()), floor)
    return Plan(every, interval, 0.0, _used(used, budget))


def scored(
    stages: Sequence[Stage], choices: Ints, budget: Budget, technology: str, *, embedded: bool = False
) -> tuple[Floats, NDArray[np.bool_]]:
    """(interval, fits) of many designs at once, without their DMA.

    Parameters
    ----------
    choices : int64 (designs, stages)
        For each stage the index of a folding in `options.options`, by ascending cycles.
    stages, budget, technology, embedded
        As in `fold`.
    """
    from accelsim.architectures.fpga.search import score

    every = _space(tuple(s.unit for s in stages), technology, embedded)
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    interval, fits = np.empty(len(choices)), np.empty(len(choices), dtype=np.bool_)
    rows = every.rows
    where = (choices + every.offsets[:-1], rows.cycles, rows.columns, rows.memories, have)
    score(*where, budget.dies, interval, fits)
    return interval, fits
