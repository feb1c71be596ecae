"""Choice of PE and SIMD for every stage: the smallest initiation interval that fits a budget, or a given folding.

For a target interval each stage takes the cheapest legal folding that meets it, at fixed prices of LUT, DSP, BRAM and URAM. The choice does not
depend on the budget, and `pack` never fails with more of a resource, so the interval found is never longer on a larger device.
Several price vectors are tried. They also give a lower bound: a target is impossible when, at some prices, even the cheapest
foldings cost more than the whole budget is worth. Where both meet, the interval is optimal; with one scarce resource it always is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from accelsim.architectures.fpga.network import Stage, Unit
from accelsim.architectures.fpga.options import MEMORIES, Floats, Ints, Options, evaluate, options
from accelsim.architectures.fpga.resources import FF_PER_LUT, Budget, named
from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError
from accelsim.core.units import si

# Prices in LUTs of a DSP block, a BRAM18 and a URAM. The grid spans the ratios of real parts (60-350 LUT per DSP, 200-650 per BRAM18); the
# corners make one resource count alone, where the search is exact.
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


@lru_cache(maxsize=4096)
def _table(unit: Unit, technology: str) -> tuple[Options, Ints, Floats]:
    """Foldings by ascending cycles, and for each price vector the cheapest row up to each and its cost."""
    found = options(unit, technology)
    found = found.take(np.argsort(found.cycles, kind="stable"))
    cost = np.empty((len(PRICES), len(found)))
    for p, (lut, dsp, bram, uram) in enumerate(PRICES):
        multipliers = lut * found.multiplier_lut
        in_dsp = np.where(found.multiplier_dsp > 0, dsp * found.multiplier_dsp, np.inf)
        homes = np.minimum(bram * found.bram18, lut * found.lutram)
        homes = np.where(found.uram > 0, np.minimum(homes, uram * found.uram), homes)
        cost[p] = lut * found.lut + dsp * found.dsp + np.minimum(multipliers, in_dsp) + homes.sum(axis=1)
    running = np.minimum.accumulate(cost, axis=1)
    fresh = np.concatenate([np.ones((len(PRICES), 1), dtype=bool), running[:, 1:] < running[:, :-1]], axis=1)
    best = np.maximum.accumulate(np.where(fresh, np.arange(len(found)), 0), axis=1)
    return found, best.astype(np.int64), running


def fold(stages: Sequence[Stage], budget: Budget, technology: str, floor: float = 0.0) -> Plan:
    """The folding with the smallest interval that fits.

    Parameters
    ----------
    stages : sequence of Stage
    budget : Budget
    technology : str
        Fabric family, which sets the DSP packing.
    floor : float
        Cycles per frame that something outside the fabric takes (DMA); nothing is folded faster than that [cycles].

    Raises
    ------
    InfeasibleError
        Not even the slowest folding fits.
    """
    from accelsim.architectures.fpga.search import search

    tables = [_table(stage.unit, technology) for stage in stages]
    sizes = np.array([len(t[0]) for t in tables], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    every = _joined([t[0] for t in tables])
    best = np.concatenate([t[1] + start for t, start in zip(tables, offsets)], axis=1)
    cost = np.concatenate([t[2] for t in tables], axis=1)
    least = max(floor, max(float(t[0].cycles[0]) for t in tables))
    targets = np.unique(np.concatenate([[least], every.cycles[every.cycles >= least]]))
    columns = np.stack([every.lut, every.multiplier_lut, every.dsp, every.multiplier_dsp])
    memories = np.stack([every.bram18, every.uram, every.lutram])
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    chosen, used = np.zeros(len(stages), dtype=np.int64), np.zeros(4)
    at, _, bound = search(
        offsets, every.cycles, best, cost, PRICES, columns, memories, targets, have, chosen, used
    )
    if at < 0:
        slowest = offsets[1:] - 1
        _refuse(every.take(best[0][slowest]), budget)
    rows = tuple(every.take(slice(int(i), int(i) + 1)) for i in chosen)
    interval = max(float(every.cycles[chosen].max()), floor)
    return Plan(rows, interval, float(min(targets[bound], interval)), _used(used, budget))


def _joined(tables: Sequence[Options]) -> Options:
    return Options(
        **{name: np.concatenate([getattr(t, name) for t in tables]) for name in Options.__dataclass_fields__}
    )


def _used(used: Floats, budget: Budget) -> dict[str, float]:
    lut, dsp, bram, uram = (float(v) for v in used)
    return named(lut, lut * FF_PER_LUT, dsp, bram, uram, budget.intel)


def _refuse(rows: Options, budget: Budget) -> None:
    """Say which resource the smallest design lacks."""
    need = _pack(rows, budget)
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    names = [n if not budget.intel else {"BRAM18": "M20K"}.get(n, n) for n in _NAMES]
    lacking = [i for i in range(4) if need[i] > have[i]] or [0]
    weight_bits = float((rows.bram18 * 18432).sum())
    raise InfeasibleError(
        "resources",
        ", ".join(f"{need[i]:,.0f} {names[i]}" for i in lacking)
        + f" (about {si(weight_bits / 8, 'B')} of on-chip memory)",
        ", ".join(f"{have[i]:,.0f} {names[i]}" for i in lacking),
        "use fewer weight bits, a smaller model, a larger part, or an overlay that streams its weights",
    )


def _pack(rows: Options, budget: Budget) -> Floats:
    from accelsim.architectures.fpga.search import pack

    used = np.zeros(4)
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    flat = (rows.bram18.ravel(), rows.uram.ravel(), rows.lutram.ravel())
    pack(rows.lut, rows.multiplier_lut, rows.dsp, rows.multiplier_dsp, *flat, have, used)
    return used


def fold_with(
    stages: Sequence[Stage], folding: Sequence[Any] | Mapping[str, Any], technology: str = "ultrascale+"
) -> tuple[Options, ...]:
    """Foldings that a design file gives; stages that it does not name take the cheapest folding that keeps up.

    Parameters
    ----------
    stages : sequence of Stage
    folding : sequence or mapping
        For each matrix and depthwise unit in order, or by stage name: ``(PE, SIMD)`` or ``{"PE": 4, "SIMD": 8, "generator": 8}``, where
        ``generator`` is the SIMD of the sliding window if it differs.

    Returns
    -------
    tuple of Options
        One row per stage.

    Raises
    ------
    RequestError
        Too many entries, an unknown name, or a PE or SIMD that does not divide its unit.
    """
    matrix = [s for s in stages if s.unit.kind in ("mvau", "vvau")]
    if isinstance(folding, Mapping):
        given = dict(folding)
    else:
        if len(folding) > len(matrix):
            raise RequestError(f"{len(folding)} foldings for {len(matrix)} matrix units")
        given = {s.name: f for s, f in zip(matrix, folding)}
    unknown = sorted(set(given) - {s.name for s in stages})
    if unknown:
        from accelsim.core.errors import did_you_mean

        raise RequestError(
            f"no stage '{unknown[0]}' to fold", hint=did_you_mean(unknown[0], [s.name for s in stages])
        )
    rows: dict[str, Options] = {s.name: _row(s, given[s.name], technology) for s in stages if s.name in given}
    slowest = max((float(r.cycles[0]) for r in rows.values()), default=0.0)
    for s in stages:
        if s.name not in rows:
            found, best, _ = _table(s.unit, technology)
            last = max(int(np.searchsorted(found.cycles, slowest, side="right")) - 1, 0)
            row = int(best[0, last])
            rows[s.name] = found.take(slice(row, row + 1))
    return tuple(rows[s.name] for s in stages)


def _row(stage: Stage, entry: Any, technology: str) -> Options:
    unit = stage.unit
    if isinstance(entry, Mapping):
        pe, simd, generator = int(entry.get("PE", 1)), int(entry.get("SIMD", 1)), entry.get("generator")
    else:
        (pe, simd), generator = entry, None
    columns = unit.mw if unit.kind in ("mvau", "vvau") else 1
    if pe < 1 or simd < 1 or unit.mh % pe or columns % simd:
        raise RequestError(f"PE {pe} x SIMD {simd} does not divide {unit.mh} x {columns}", stage.name)
    if generator is not None and unit.channels % int(generator):
        raise RequestError(f"generator SIMD {generator} does not divide {unit.channels} channels", stage.name)
    lanes = None if generator is None else np.array([int(generator)])
    return evaluate(unit, technology, np.array([pe]), np.array([simd]), lanes)


def planned(rows: Sequence[Options], budget: Budget, floor: float = 0.0) -> Plan:
    """The plan of given foldings.

    Raises
    ------
    InfeasibleError
        They do not fit the budget.
    """
    every = _joined(rows)
    used = _pack(every, budget)
    if np.any(used > np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])):
        _refuse(every, budget)
    interval = max(float(every.cycles.max()), floor)
    return Plan(tuple(rows), interval, 0.0, _used(used, budget))


__all__ = ["MEMORIES", "PRICES", "Plan", "fold", "fold_with", "planned"]
