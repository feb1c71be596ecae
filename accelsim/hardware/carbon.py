"""Carbon: what making a device emits, and what its electricity does.

Embodied: kg CO2e per cm2 of logic by node, after ACT (Gupta et al., "ACT: designing sustainable computer
systems with an architectural carbon modeling tool", ISCA 2022, doi:10.1145/3470496.3527408), and per GB of
memory; recalled, so assumed. Operation: energy times the grid's intensity of 2023. A device without a node,
an area or a memory of the table is unknown, with a reason.
"""

from __future__ import annotations

from math import nan

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.hardware.schema import Device
from accelsim.hardware.silicon import Figure, defect_yield

GRIDS = {"world": 481.0, "us": 369.0, "eu": 300.0, "india": 713.0, "iceland": 7.3}
"""Intensity in 2023 [g CO2e/kWh], by region; Ember's yearly figures, as cited for 2023."""

_LOGIC = {28: 0.9, 14: 1.2, 10: 1.475, 7: 1.52, 5: 2.75}
"""kg CO2e per cm2 of wafer at a node [nm]."""

_MEMORY = {"HBM": 0.065, "LPDDR": 0.048, "DDR": 0.065, "GDDR": 0.065}
"""kg CO2e per GB by the kind that the memory's name starts with. HBM and GDDR are taken as DDR4; the base
die and stacking of HBM are not in it."""


def intensity(grid: str | float) -> float:
    """Intensity of a grid [g CO2e/kWh]: by name, or the number given.

    Raises
    ------
    RequestError
        Unknown name, or a negative number.
    """
    if isinstance(grid, str):
        if grid.lower() not in GRIDS:
            raise RequestError(f"unknown grid '{grid}'", hint=did_you_mean(grid, GRIDS))
        return GRIDS[grid.lower()]
    if not 0 <= grid < float("inf"):
        raise RequestError(f"grid intensity {grid!r} is not zero or more g/kWh")
    return float(grid)


def logic(device: Device, defects_per_cm2: float) -> Figure:
    """Embodied carbon of the logic dies [kg CO2e]: area over yield, times the wafer's carbon at the node."""
    node, area = device.silicon.node_nm, device.silicon.area_m2
    if node is None or area is None:
        return Figure(nan, f"{device.name} has no {'node' if node is None else 'die area'}")
    nearest = min(_LOGIC, key=lambda n: abs(n - node))
    if not 0.6 <= nearest / node <= 1.7:
        return Figure(nan, f"no table gives the carbon of a {node:g} nm wafer")
    area_cm2 = area * 1e4
    value = area_cm2 / defect_yield(area_cm2, defects_per_cm2) * _LOGIC[nearest]
    return Figure(value, f"{area_cm2:.3g} cm2 at {nearest} nm over yield, ACT, recalled")


def memory(device: Device) -> Figure:
    """Embodied carbon of the external memory [kg CO2e]."""
    kind = device.memory.type.upper()
    each = next((value for name, value in _MEMORY.items() if kind.startswith(name)), None)
    if each is None:
        return Figure(nan, f"no table gives the carbon of {device.memory.type}")
    return Figure(each * device.memory.capacity_bytes / 1e9, f"{each:g} kg/GB, recalled")


def embodied(device: Device, defects_per_cm2: float) -> Figure:
    """Logic and memory of one device [kg CO2e]; board, cooling and host are not in it."""
    parts = (logic(device, defects_per_cm2), memory(device))
    missing = [part.basis for part in parts if part.value != part.value]
    basis = missing[0] if missing else "; ".join(part.basis for part in parts)
    return Figure(sum(part.value for part in parts), basis)


def operation(energy_j: float, pue: float, grid: str | float) -> float:
    """Carbon of some energy at the socket [kg CO2e], cooling and distribution included by PUE."""
    return energy_j * pue / 3.6e6 * intensity(grid) / 1e3
