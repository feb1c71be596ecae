"""The clock that place and route reaches, as a model of how full the part is and whether its dies must talk.

Published builds give few pairs of target and achieved clock, so all constants are assumed; they are chosen to
let the designs of BNN-PYNQ (100 MHz at 49-76 % of the LUTs of an XC7Z020, 300 MHz on an XCZU3EG) and
finn-examples (250 MHz on an XCZU7EV) meet their targets, and to put designs that fill an XCU250 near 200 MHz.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.hardware.schema import Fabric

# What folded logic reaches on an empty die [Hz].
EMPTY_HZ = {
    "7series": 200e6,
    "ultrascale": 300e6,
    "ultrascale+": 400e6,
    "versal": 450e6,
    "arria10": 300e6,
    "stratix10": 450e6,
    "agilex": 600e6,
}
ROOMY = 0.5  # share of the LUTs to which routing costs no speed
FULL_LOSS = 0.4  # of the clock when every LUT is taken
CROSSING = 0.6  # factor once nets cross between dies (super logic regions)
BAND = (0.8, 1.15)  # of the modelled clock: a build lands inside in 8 of 10 cases


@dataclass(frozen=True)
class Tier:
    """A share of the LUTs that a design may take, and the clock that it then reaches [Hz]."""

    share: float
    clock_hz: float


def reached(fabric: Fabric, share: float, target_hz: float, dies: int | None = None) -> float:
    """Clock of a design that takes a share of the LUTs: no more than the target [Hz].

    Parameters
    ----------
    fabric : Fabric
    share : float
        Of all LUTs.
    target_hz : float
    dies : int, optional
        That the design lies in; by default one where its share fits one.
    """
    crowded = 1.0 - FULL_LOSS * max(0.0, share - ROOMY) / (1.0 - ROOMY)
    several = share > one_die(fabric) * (1 + 1e-9) if dies is None else dies > 1
    return min(target_hz, EMPTY_HZ[fabric.technology] * crowded * (CROSSING if several else 1.0))


def congested(taken: float) -> float:
    """Factor on the clock when a share of the wires between two dies is taken."""
    return 1.0 - FULL_LOSS * max(0.0, taken - ROOMY) / (1.0 - ROOMY)


def one_die(fabric: Fabric) -> float:
    """Share of the LUTs that lies in one die and is usable."""
    return fabric.usable / fabric.slr


def tiers(fabric: Fabric, target_hz: float) -> list[Tier]:
    """Shares worth a design of their own, from the whole part down to the first that reaches the target.

    A smaller share gives a slower pipeline with a faster clock. Each tier has a fixed share and clock, so a
    larger part offers every tier of a smaller one with more resources in it, and is never slower.
    """
    shares = {fabric.usable, one_die(fabric), *(s for s in (0.5, 0.6, 0.7) if s < fabric.usable)}
    found = []
    for share in sorted(shares, reverse=True):
        found.append(Tier(share, reached(fabric, share, target_hz)))
        if found[-1].clock_hz >= target_hz:
            break
    return found
