"""Which die (super logic region) each stage lies in: whole stages, in the order of the pipeline, so that
every die stays within its own resources and few nets cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from accelsim.architectures.fpga.folding import packed
from accelsim.architectures.fpga.network import Stage
from accelsim.architectures.fpga.options import Floats, Options
from accelsim.architectures.fpga.resources import FF_PER_LUT, Budget, named

WIRES = 17280  # between two neighbouring dies of an UltraScale+ part, recalled
HANDSHAKE = 2  # valid and ready of a stream


@dataclass(frozen=True)
class Placement:
    """Stages by die.

    Attributes
    ----------
    ends : tuple of int
        The stage after the last one of each die that is used.
    wires : tuple of int
        Nets across the boundary behind each die but the last.
    used : tuple of mapping
        Resources of each die, by the vendor's names.
    """

    ends: tuple[int, ...]
    wires: tuple[int, ...]
    used: tuple[Mapping[str, float], ...]

    @property
    def fullest(self) -> float:
        """The largest share of a boundary's wires that is taken."""
        return max(self.wires, default=0) / WIRES


def crossing_wires(stages: Sequence[Stage], widths: Sequence[int]) -> list[int]:
    """Nets across a boundary before each stage: the streams that pass it, with their handshakes.

    Parameters
    ----------
    stages : sequence of Stage
    widths : sequence of int
        Bits of the stream that each stage writes.
    """
    change = np.zeros(len(stages) + 1, dtype=np.int64)
    for reader, stage in enumerate(stages):
        for edge in stage.edges:
            change[edge.source + 1] += widths[edge.source] + HANDSHAKE
            change[reader + 1] -= widths[edge.source] + HANDSHAKE
    return [int(v) for v in np.cumsum(change)]


def place(stages: Sequence[Stage], widths: Sequence[int], rows: Options, budget: Budget) -> Placement | None:
    """The placement on the fewest dies with the fewest crossing nets; None when whole stages do not fit.

    How far a die reaches from each stage follows from its resources; among all cuts within these reaches
    dynamic programming finds the one with the least sum of crossing nets.
    """
    n, die = len(stages), budget.die()
    reach = _reach(rows, die)
    dies = _fewest(reach)
    if dies is None or dies > budget.dies:
        return None
    across = np.array(crossing_wires(stages, widths), dtype=np.float64)
    least = np.full((dies + 1, n + 1), np.inf)
    came = np.zeros((dies + 1, n + 1), dtype=np.int64)
    least[0, 0] = 0.0
    for k in range(dies):
        for low in np.flatnonzero(np.isfinite(least[k])).tolist():
            for high in range(low + 1, reach[low] + 1):
                cost = least[k, low] + (across[high] if high < n else 0.0)
                if cost < least[k + 1, high]:
                    least[k + 1, high], came[k + 1, high] = cost, low
    ends = [n]
    for k in range(dies, 1, -1):
        ends.append(int(came[k, ends[-1]]))
    ends = ends[::-1]
    used = []
    for low, high in pairwise([0, *ends]):
        taken, _ = packed(rows.take(slice(low, high)), die)
        used.append(_named(taken, budget))
    return Placement(tuple(ends), tuple(int(across[e]) for e in ends[:-1]), tuple(used))


def _reach(rows: Options, die: Budget) -> list[int]:
    """For each first stage of a die, the furthest end that still fits; less never stops fitting."""
    n, high = len(rows), 0
    found = []
    for low in range(n):
        high = max(high, low)
        while high < n and packed(rows.take(slice(low, high + 1)), die)[1]:
            high += 1
        found.append(high)
    return found


def _fewest(reach: Sequence[int]) -> int | None:
    """Dies when each is filled as far as it goes."""
    low, count = 0, 0
    while low < len(reach):
        if reach[low] == low:
            return None
        low, count = reach[low], count + 1
    return count


def _named(used: Floats, budget: Budget) -> dict[str, float]:
    lut, dsp, bram, uram = (float(v) for v in used)
    return named(lut, lut * FF_PER_LUT, dsp, bram, uram, budget.intel)
