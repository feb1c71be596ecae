"""Silicon cost by node and yield."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, pi, sqrt

from accelsim.hardware.schema import Device

WAFER_USD = {28: 2891.0, 14: 3984.0, 10: 5992.0, 7: 9346.0, 5: 16988.0}
"""Price of a 300 mm wafer at a node [nm]; Khan and Mann, "AI chips", CSET 2020, recalled."""
WAFER_MM = 300.0


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and where it comes from, or why it is NaN."""

    value: float
    basis: str


def defect_yield(area_cm2: float, defects_per_cm2: float) -> float:
    """Share of good dies: (1 + A D / 3)^-3, the negative binomial of Stapper (1989) with clustering 3."""
    return float((1.0 + area_cm2 * defects_per_cm2 / 3.0) ** -3)


def dies_per_wafer(area_mm2: float) -> float:
    """Whole dies on a round wafer: pi d^2 / (4 A) - pi d / sqrt(2 A)."""
    return pi * WAFER_MM**2 / (4.0 * area_mm2) - pi * WAFER_MM / sqrt(2.0 * area_mm2)


def silicon(device: Device, defects_per_cm2: float) -> Figure:
    """Cost of the good logic dies of a device [USD], without package, memory and test.

    Dies above the reticle limit of 858 mm2 are taken as two of half the area.
    """
    node, area = device.silicon.node_nm, device.silicon.area_m2
    if node is None or area is None:
        return Figure(nan, f"{device.name} has no {'node' if node is None else 'die area'}")
    nearest = min(WAFER_USD, key=lambda n: abs(n - node))
    if not 0.6 <= nearest / node <= 1.7:
        return Figure(nan, f"no table gives the price of a {node:g} nm wafer")
    count = 1 if area * 1e6 <= 858.0 else 2
    area_mm2 = area * 1e6 / count
    good = dies_per_wafer(area_mm2) * defect_yield(area_mm2 / 100.0, defects_per_cm2)
    return Figure(
        count * WAFER_USD[nearest] / good,
        f"{count} x {area_mm2:.4g} mm2 on {nearest} nm wafers of {WAFER_USD[nearest]:.0f} USD, "
        f"{defects_per_cm2:g} defects per cm2",
    )
