"""Quantities as text ("3.35 TB/s", "0.6 pJ") to SI floats and back.

The grammar is ``number [prefix]unit``. Decimal prefixes are SI; ``Ki Mi Gi Ti`` are powers of 1024 and go
with bytes only. Inside the program every quantity is a plain float in the base unit of its dimension.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from accelsim.core.errors import UnitError

_DECIMAL = {
    "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "": 1.0,
    "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
}  # fmt: skip
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


@dataclass(frozen=True, slots=True)
class Dimension:
    """A physical dimension: its base unit, the suffix names carry, and the units it accepts."""

    name: str
    base: str
    units: tuple[tuple[str, float], ...]
    binary: bool = False
    prefixed: bool = True


def _dimension(
    name: str, base: str, *more: tuple[str, float], binary: bool = False, prefixed: bool = True
) -> Dimension:
    return Dimension(name, base, ((base, 1.0), *more), binary, prefixed)


DIMENSIONS: dict[str, Dimension] = {
    d.name: d
    for d in (
        _dimension("time", "s", ("min", 60.0), ("h", 3600.0)),
        _dimension("frequency", "Hz"),
        _dimension("bytes", "B", ("bit", 0.125), binary=True),
        _dimension("bandwidth", "B/s", ("bit/s", 0.125), binary=True),
        _dimension("power", "W"),
        _dimension("energy", "J"),
        _dimension("compute", "FLOP/s", ("OP/s", 1.0), ("FLOPS", 1.0), ("OPS", 1.0)),
        _dimension("area", "m2", ("mm2", 1e-6), ("um2", 1e-12), ("cm2", 1e-4), prefixed=False),
        _dimension("length", "m"),
        _dimension("money", "USD", prefixed=False),
        _dimension("price_rate", "USD/h", prefixed=False),
        _dimension("energy_price", "USD/kWh", prefixed=False),
        _dimension("carbon_intensity", "g/kWh", prefixed=False),
        _dimension("percent", "%", prefixed=False),
    )
}

_NUMBER = re.compile(r"^\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*$")


def _table(dimension: Dimension) -> dict[str, float]:
    table: dict[str, float] = {}
    for unit, scale in dimension.units:
        prefixes = _DECIMAL if dimension.prefixed and unit not in ("min", "h") else {"": 1.0}
        if dimension.binary:
            prefixes = {**prefixes, **_BINARY}
        for prefix, factor in prefixes.items():
            table[prefix + unit] = factor * scale
    return table


_TABLES = {name: _table(dimension) for name, dimension in DIMENSIONS.items()}


def parse(text: str | int | float, dimension: str, where: str = "") -> float:
    """Read a quantity.

    Parameters
    ----------
    text : str
        For example ``"3.35 TB/s"``. A bare number is refused: a quantity has a unit.
    dimension : str
        A key of `DIMENSIONS`.
    where : str, optional
        Field path for the error.

    Returns
    -------
    float
        The value in the dimension's SI base unit.

    Raises
    ------
    UnitError
        The text is not a number with a unit of that dimension, or is not finite.
    """
    expected = DIMENSIONS[dimension]
    example = f"write it like '1.5 {_example(expected)}'"
    if not isinstance(text, str):
        raise UnitError(f"'{text}' has no unit, expected {dimension} in {expected.base}", where, example)
    match = _NUMBER.match(text)
    if match is None:
        raise UnitError(f"'{text}' is not a number with a unit", where, example)
    number, unit = match.groups()
    if not unit:
        raise UnitError(f"'{text}' has no unit, expected {dimension} in {expected.base}", where, example)
    scale = _TABLES[dimension].get(unit)
    if scale is None:
        other = next((n for n, table in _TABLES.items() if unit in table), None)
        if other:
            raise UnitError(
                f"'{text}' is in units of {other}, expected {dimension} in {expected.base}", where, example
            )
        raise UnitError(f"unknown unit '{unit}' in '{text}', expected {dimension}", where, example)
    value = float(number) * scale
    if not math.isfinite(value):
        raise UnitError(f"'{text}' is not finite", where, example)
    return value


def _example(dimension: Dimension) -> str:
    return {"bytes": "GB", "bandwidth": "GB/s", "frequency": "GHz", "time": "us", "compute": "TFLOP/s"}.get(
        dimension.name, dimension.base
    )


def si(value: float, unit: str, digits: int = 4) -> str:
    """Write a value with the SI prefix that keeps its number between 1 and 1000.

    >>> si(3.35e12, "B/s")
    '3.35 TB/s'
    >>> si(0.00042, "s")
    '420 us'
    """
    if value is None or math.isnan(value):
        return "unknown"
    if value == 0 or math.isinf(value):
        return f"{value:g} {unit}"
    for prefix, factor in (
        ("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0),
        ("m", 1e-3), ("u", 1e-6), ("n", 1e-9), ("p", 1e-12), ("f", 1e-15),
    ):  # fmt: skip
        if abs(value) >= factor * 0.9999:
            return f"{value / factor:.{digits}g} {prefix}{unit}"
    return f"{value:.{digits}g} {unit}"


_SUFFIXES = (
    ("_bytes_per_s", "B/s"), ("_flop_per_s", "FLOP/s"), ("_per_s", "1/s"),
    ("_bytes", "B"), ("_hz", "Hz"), ("_usd", "USD"), ("_pct", "%"), ("_m2", "m²"), ("_db", "dB"),
    ("_words", "words"), ("_g", "g"), ("_s", "s"), ("_j", "J"), ("_w", "W"),
)  # fmt: skip


def column_unit(name: str) -> tuple[str, str]:
    """A column's words and unit.

    >>> column_unit("energy_per_item_j")
    ('energy per item', 'J')
    >>> column_unit("usd_per_million_items")
    ('price', 'USD/million items')
    """
    if name.startswith("usd_per_"):
        return "price", "USD/" + name.removeprefix("usd_per_").replace("_", " ")
    if name == "flops":
        return "arithmetic", "FLOP"
    if name == "mac_utilisation":
        return "MAC utilisation", "1"
    for suffix, unit in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix).replace("_", " "), unit
    return name.replace("_", " "), ""
