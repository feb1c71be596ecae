"""Money, energy and carbon of a result under a cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from accelsim.core.errors import RequestError
from accelsim.engine.result import Result
from accelsim.hardware import carbon, silicon
from accelsim.hardware.cost import HOURS_PER_YEAR, CostModel, kilowatts, prices
from accelsim.hardware.schema import Device
from accelsim.hardware.spec import load_hardware


@dataclass(frozen=True)
class Costs:
    """What a result costs; see docs/definitions.md for the names.

    Attributes
    ----------
    summary : dict
        Numbers by name, NaN where unknown.
    basis : dict of str to str
        Where a number comes from, or why it is unknown.
    model : CostModel
    """

    summary: dict[str, float]
    basis: dict[str, str]
    model: CostModel

    @property
    def missing(self) -> dict[str, str]:
        """Why numbers are unknown."""
        return {name: self.basis[name] for name, value in self.summary.items() if isnan(value)}


def cost(
    result: Result,
    model: CostModel | None = None,
    *,
    prices_from: str | Path | Mapping[str, Any] | None = None,
    hardware: str | Path | Device | None = None,
) -> Costs:
    """Cost a result: ``r.cost(ax.CostModel(mode="purchase", years=3))``.

    Parameters
    ----------
    result : Result
    model : CostModel, optional
        By default rented, see `CostModel`.
    prices_from : path or mapping, optional
        Dated prices that count before the device's own, see `accelsim.hardware.cost.prices`.
    hardware : str or Path or Device, optional
        The device, where the result's name does not load it again.

    Raises
    ------
    RequestError
        The device that loads is not the one that the result is of.
    ConfigError
        A price without a date.
    """
    model = model or CostModel()
    s = result.summary
    device: Device = load_hardware(s["hardware"] if hardware is None else hardware)
    if device.hash != result.stamp.hardware_hash:
        raise RequestError(
            f"the result is of another '{s['hardware']}'", hint="pass the device: cost(hardware=device)"
        )
    devices = s.get("devices", 1)
    rate = s["throughput_per_s"]
    hourly = model.hourly(device, prices(device, prices_from))
    site = kilowatts(device)
    drawn_w = s["power_w"]
    drawn_reason = result.missing.get("power_w", "mean board power of the run")
    made = carbon.embodied(device, model.defects_per_cm2)
    chip = silicon.silicon(device, model.defects_per_cm2)
    life_items = rate * model.years * HOURS_PER_YEAR * 3600 * model.utilisation
    used_j = s["energy_per_item_j"] * 1e6
    each = f"spread over {model.years:g} years at {model.utilisation:.0%} utilisation"
    rows: dict[str, tuple[float, str]] = {
        "hourly_usd": (hourly.value * devices, hourly.basis),
        "cost_per_million_items_usd": (hourly.value * devices / 3600 / rate * 1e6, hourly.basis),
        "energy_per_item_j": (s["energy_per_item_j"], drawn_reason),
        "items_per_s_per_mw": (
            rate / (site.value * devices * model.pue) * 1e3,
            f"{site.basis}, PUE {model.pue:g}",
        ),
        "items_per_s_per_board_mw": (rate / drawn_w * 1e6, drawn_reason),
        "operating_kgco2e_per_million_items": (
            carbon.operation(used_j, model.pue, model.grid),
            f"{drawn_reason}, PUE {model.pue:g}, grid {model.grid} of 2023",
        ),
        "embodied_kgco2e": (made.value * devices, made.basis),
        "embodied_kgco2e_per_million_items": (
            made.value * devices / life_items * 1e6,
            f"{made.basis}, {each}",
        ),
        "silicon_usd": (chip.value * devices, chip.basis),
    }
    return Costs({k: v for k, (v, _) in rows.items()}, {k: b for k, (_, b) in rows.items()}, model)
