"""What an hour of a device costs, rented or owned, from dated prices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

from accelsim.core.errors import ConfigError, RequestError
from accelsim.core.yamlfile import read_yaml
from accelsim.hardware.carbon import intensity
from accelsim.hardware.schema import Device
from accelsim.hardware.silicon import Figure

HOURS_PER_YEAR = 8760.0

ALL_IN_KW = {
    "h100-sxm": 1.73, "h200-sxm": 1.73, "b200": 2.17, "b300": 2.17, "gb200": 2.10, "gb300": 2.10,
    "mi300x": 1.79,
}  # fmt: skip
"""Power of one device with its share of host and network [kW]: InferenceX-app@77ca49a of 2026-04-03."""

Kind = Literal["purchase", "rent", "contract"]
KINDS: Mapping[Kind, str] = {"purchase": "price", "rent": "hourly", "contract": "contract"}
"""How a device is paid for, and the field of its file with the price: bought [USD], rented on demand or for
three years [USD/h]."""

_YEAR = re.compile(r"\b(?:19|20)\d\d(?:-\d\d(?:-\d\d)?)?\b")


@dataclass(frozen=True, slots=True)
class Price:
    """A price: [USD] for a purchase, [USD/h] for rent and contract."""

    value: float
    date: str
    source: str
    status: str


@dataclass(frozen=True)
class CostModel:
    """How a device is paid for and powered. Every default is assumed.

    Attributes
    ----------
    mode : {"rent", "purchase", "contract"}
        Rented on demand, bought, or rented for three years.
    years : float
        Over which a purchase is recovered.
    utilisation : float
        Share of the hours that do useful work, 0 to 1. Rent is paid for idle hours too.
    pue : float
        Power of the site over that of its devices.
    usd_per_kwh : float
        [USD/kWh]
    discount : float
        Yearly interest on the capital.
    colocation_usd_per_kw_year : float
        [USD/(kW a)]
    grid : str or float
        Name in `carbon.GRIDS`, or [g CO2e/kWh].
    defects_per_cm2 : float
        [1/cm2]
    """

    mode: Kind = "rent"
    years: float = 4.0
    utilisation: float = 0.6
    pue: float = 1.25
    usd_per_kwh: float = 0.083
    discount: float = 0.08
    colocation_usd_per_kw_year: float = 1500.0
    grid: str | float = "us"
    defects_per_cm2: float = 0.1

    def __post_init__(self) -> None:
        if self.mode not in KINDS:
            raise RequestError(f"cost mode '{self.mode}' is not one of {', '.join(KINDS)}")
        bounds = {
            "years": (0.0, 30.0), "utilisation": (0.0, 1.0), "pue": (1.0, 10.0), "usd_per_kwh": (0.0, 100.0),
            "discount": (0.0, 1.0), "colocation_usd_per_kw_year": (0.0, 1e6), "defects_per_cm2": (0.0, 100.0),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            if not number or not low <= value <= high:
                raise RequestError(f"{name} {value!r} is not a number from {low:g} to {high:g}", "cost model")
        for name in ("years", "utilisation"):
            if getattr(self, name) == 0:
                raise RequestError(f"{name} must be above zero", "cost model")
        intensity(self.grid)

    @property
    def capital_recovery(self) -> float:
        """Yearly share of the capital: i (1 + i)^n / ((1 + i)^n - 1), 1 / n without interest."""
        if self.discount == 0:
            return 1.0 / self.years
        grown = (1.0 + self.discount) ** self.years
        return float(self.discount * grown / (grown - 1.0))

    def hourly(self, device: Device, prices: Mapping[str, Price]) -> Figure:
        """Cost of an hour of useful work of one device [USD/h].

        Owned: (capital * capital recovery + kW PUE USD/kWh 8760 + colocation kW) / (8760 utilisation), with
        the kW of `kilowatts`. Rented: rent / utilisation, power included.
        """
        price = prices.get(self.mode)
        if price is None:
            named = {"purchase": "price", "rent": "hourly price", "contract": "hourly price for three years"}
            return Figure(nan, f"{device.name} has no {named[self.mode]}")
        words = f"{self.mode} of {price.value:g} USD{'' if self.mode == 'purchase' else '/h'}, {price.date}, "
        words += f"{price.status}: {price.source}"
        if self.mode != "purchase":
            return Figure(price.value / self.utilisation, words)
        drawn = kilowatts(device)
        yearly = price.value * self.capital_recovery
        yearly += drawn.value * self.pue * self.usd_per_kwh * HOURS_PER_YEAR
        yearly += drawn.value * self.colocation_usd_per_kw_year
        basis = f"{words}; {drawn.basis}" if drawn.value == drawn.value else drawn.basis
        return Figure(yearly / (HOURS_PER_YEAR * self.utilisation), basis)


def kilowatts(device: Device) -> Figure:
    """Power that a site must provide for one device [kW]: with its host where known, else its TDP."""
    if device.name in ALL_IN_KW:
        return Figure(ALL_IN_KW[device.name], "all-in kW of 2026-04-03")
    if device.power.tdp_w is None:
        return Figure(nan, f"{device.name} has no TDP")
    return Figure(device.power.tdp_w / 1e3, "TDP, without host")


def prices(device: Device, given: str | Path | Mapping[str, Any] | None = None) -> dict[str, Price]:
    """Prices of a device by kind.

    Parameters
    ----------
    device : Device
        Its own prices count where `given` has none; their source names the year.
    given : path or mapping, optional
        By device, then ``purchase`` [USD], ``rent`` and ``contract`` [USD/h], each with ``value``, ``date``
        and ``source``:
        ``{"h100-sxm": {"rent": {"value": 2.2, "date": "2026-05-01", "source": "quote"}}}``.

    Raises
    ------
    ConfigError
        A price without a date, a value that is no positive number, an unknown kind.
    """
    found: dict[str, Price] = {}
    for kind, field in KINDS.items():
        path, value = f"cost.{field}", getattr(device.cost, f"{field}_usd")
        if value is None:
            continue
        held = device.quantities.get(path)
        source, status = (held.source, held.status) if held is not None else ("set on the device", "assumed")
        year = _YEAR.search(source)
        if year is None:
            where = f"{device.name}: {path}"
            raise ConfigError(f"the price '{value:g}' has no date", where, "name the year in its source")
        found[kind] = Price(value, year.group(), source, status)
    if given is None:
        return found
    where = str(given) if isinstance(given, str | Path) else "prices"
    document = read_yaml(Path(given)) if isinstance(given, str | Path) else given
    mine = document.get(device.name, {})
    if not isinstance(mine, Mapping):
        where = f"{where}: {device.name}"
        raise ConfigError(f"expected {', '.join(KINDS)} with value, date and source", where)
    for kind, entry in mine.items():
        found[str(kind)] = _price(kind, entry, f"{where}: {device.name}.{kind}")
    return found


def _price(kind: Any, entry: Any, where: str) -> Price:
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of price '{kind}'", where, f"known are {', '.join(KINDS)}")
    if not isinstance(entry, Mapping) or "value" not in entry:
        raise ConfigError("expected value, date and source", where)
    extra = set(entry) - {"value", "date", "source", "status"}
    if extra:
        raise ConfigError(f"unknown key '{min(extra)}'", where, "keys are value, date, source and status")
    value, when = entry["value"], entry.get("date")
    if isinstance(value, bool) or not isinstance(value, int | float) or not (isfinite(value) and value > 0):
        raise ConfigError(f"'{value}' is not a positive number of USD", where)
    if isinstance(when, date):
        when = when.isoformat()
    if not when or not _YEAR.fullmatch(str(when)):
        hint = "add 'date:' as 2026, 2026-05 or 2026-05-01"
        raise ConfigError(f"the price {value:g} has no date", where, hint)
    source, status = entry.get("source", "user"), entry.get("status", "assumed")
    return Price(float(value), str(when), str(source), str(status))


def price_table(
    devices: Iterable[Device], given: str | Path | Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Every price that cost cells take, one a row, with its date, source and status.

    Parameters
    ----------
    devices : iterable of Device
    given : path or mapping, optional
        See `prices`.

    Returns
    -------
    list of dict
        Columns ``hardware kind value unit date status source``.

    Raises
    ------
    ConfigError
        A price without a date.
    """
    rows: list[dict[str, Any]] = []
    for device in devices:
        for kind, price in prices(device, given).items():
            unit = "USD" if kind == "purchase" else "USD/h"
            row = {"hardware": device.name, "kind": kind, "value": price.value, "unit": unit}
            rows.append(row | {"date": price.date, "status": price.status, "source": price.source})
    return rows
