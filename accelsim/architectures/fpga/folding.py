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
from functools import lru_cache

import numpy as np

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

_NAMES = ("LUT", "DSP", "BRAM18", "URAM")


@dataclass(frozen=True)
class Plan:
    """A folded pipeline.

    Attributes
    ----------
    rows : tuple of Options
        One folding per stage.
    interval : float
        Cycles between frames that the slowest stage allows [cycles].
    bound : float
        No folding is faster than this within the budget [cycles].
    used : mapping
        Resources by the vendor's names.
    """

    rows: tuple[Options, ...]
    interval: float
    bound: float
    used: Mapping[str, float]

    @property
    def exact(self) -> bool:
        """Whether the interval is proven to be the smallest."""
        return self.interval <= self.bound


@dataclass(frozen=True)
class _Table:
    """Foldings of a unit by ascending cycles; the least cost up to each by price vector; a chain by price
    vector."""

    every: Options
    least: Floats
    chains: tuple[Options, ...]


@lru_cache(maxsize=4096)
def _table(unit: Unit, technology: str, embedded: bool = False) -> _Table:
    from accelsim.architectures.fpga.search import chain

    found = options(unit, technology, embedded)
    found = found.take(np.argsort(found.cycles, kind="stable"))
    cost = np.empty((len(PRICES), len(found)))
    for p, (lut, dsp, bram, uram) in enumerate(PRICES):
        multipliers = lut * found.multiplier_lut
        in_dsp = np.where(found.multiplier_dsp > 0, dsp * found.multiplier_dsp, np.inf)
        homes = np.minimum(bram * found.bram18, lut * found.lutram)
        homes = np.where(found.uram > 0, np.minimum(homes, uram * found.uram), homes)
        cost[p] = lut * found.lut + dsp * found.dsp + np.minimum(multipliers, in_dsp) + homes.sum(axis=1)
    parts = (found.cycles, found.stream, found.tail, found.accept)
    chains = tuple(found.take(chain(*parts, cost[p])) for p in range(len(PRICES)))
    return _Table(found, np.minimum.accumulate(cost, axis=1), chains)


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
    from accelsim.architectures.fpga.search import bound, search

    tables = [_table(stage.unit, technology, embedded) for stage in stages]
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    every = _joined([t.every for t in tables])
    least = np.concatenate([t.least for t in tables], axis=1)
    targets = _targets([t.every for t in tables], floor)
    first = bound(_offsets([t.every for t in tables]), every.cycles, least, PRICES, targets, have)
    plans: dict[tuple[float, ...], Plan] = {}
    for p in range(len(PRICES)):
        chains = [t.chains[p] for t in tables]
        joined, chosen, used = _joined(chains), np.zeros(len(stages), dtype=np.int64), np.zeros(4)
        columns = np.stack([joined.lut, joined.multiplier_lut, joined.dsp, joined.multiplier_dsp])
        memories = np.stack([joined.bram18, joined.uram, joined.lutram])
        goals = _targets(chains, floor)
        if search(_offsets(chains), joined.cycles, columns, memories, goals, have, chosen, used) < 0:
            continue
        rows = joined.take(chosen)
        interval = max(float(rows.cycles.max()), floor)
        key = (*rows.pe, *rows.simd)
        if key not in plans:
            singles = tuple(rows.take(slice(i, i + 1)) for i in range(len(stages)))
            least_interval = float(min(targets[first], interval)) if first >= 0 else interval
            plans[key] = Plan(singles, interval, least_interval, _used(used, budget))
    if not plans:
        _refuse(_joined([t.chains[0].take(slice(-1, None)) for t in tables]), budget)
    return tuple(plans.values())


def _offsets(tables: Sequence[Options]) -> Ints:
    return np.concatenate([[0], np.cumsum([len(t) for t in tables])]).astype(np.int64)


def _targets(tables: Sequence[Options], floor: float) -> Floats:
    """Every interval that some stage can have and all can meet, in ascending order [cycles]."""
    least = max(floor, max(float(t.cycles[0]) for t in tables))
    cycles = np.concatenate([t.cycles for t in tables])
    return np.unique(np.concatenate([[least], cycles[cycles >= least]]))


def _joined(tables: Sequence[Options]) -> Options:
    return Options(
        **{name: np.concatenate([getattr(t, name) for t in tables]) for name in Options.__dataclass_fields__}
    )


def _used(used: Floats, budget: Budget) -> dict[str, float]:
    lut, dsp, bram, uram = (float(v) for v in used)
    return named(lut, lut * FF_PER_LUT, dsp, bram, uram, budget.intel)


def _refuse(rows: Options, budget: Budget) -> None:
    """Say which resource the smallest design lacks."""
    blocks = float(rows.bram18.sum())
    held = "M20K" if budget.intel else "BRAM18"
    hint = "use fewer weight bits, a smaller model, a larger part, or an overlay that streams its weights"
    need = dict(zip(("LUT", "DSP"), _pack(rows, replace(budget, bram18=np.inf))))
    have = {"LUT": budget.lut, "DSP": budget.dsp}
    lacking = [name for name in have if need[name] > have[name]]
    if lacking:
        raise InfeasibleError(
            "resources",
            ", ".join(f"{need[n]:,.0f} {n}" for n in lacking) + " when folded to the last",
            ", ".join(f"{have[n]:,.0f} {n}" for n in lacking),
            hint,
        )
    ultra = "" if budget.uram == 0 else f" and {budget.uram:,.0f} URAM"
    raise InfeasibleError(
        "resources",
        f"{blocks:,.0f} {held} for weights, windows and FIFOs",
        f"{budget.bram18:,.0f} {held}{ultra}, and {budget.lut:,.0f} LUT",
        hint,
    )


def _pack(rows: Options, budget: Budget) -> Floats:
    from accelsim.architectures.fpga.search import pack

    used = np.zeros(4)
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    flat = (rows.bram18.ravel(), rows.uram.ravel(), rows.lutram.ravel())
    pack(rows.lut, rows.multiplier_lut, rows.dsp, rows.multiplier_dsp, *flat, have, used)
    return used


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
    fixed = float(every.fixed_uram.sum())
    used = _pack(every, replace(budget, uram=budget.uram - fixed))
    used[3] += fixed
    if np.any(used > np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])):
        _refuse(every, budget)
    interval = max(float(every.cycles.max()), floor)
    return Plan(tuple(rows), interval, 0.0, _used(used, budget))
