"""Quantities as text: what is read, what is refused, and the way back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.core.errors import UnitError
from accelsim.core.units import DIMENSIONS, parse, si


@pytest.mark.parametrize(
    ("text", "dimension", "expected"),
    [
        ("3.35 TB/s", "bandwidth", 3.35e12),
        ("100 Gbit/s", "bandwidth", 12.5e9),
        ("80 GB", "bytes", 80e9),
        ("50 MiB", "bytes", 50 * 2**20),
        ("36 Kibit", "bytes", 36 * 1024 / 8),
        ("1.83GHz", "frequency", 1.83e9),
        ("2.5e-6 s", "time", 2.5e-6),
        ("5 us", "time", 5e-6),
        ("5 µs", "time", 5e-6),
        ("2 min", "time", 120.0),
        ("0.6 pJ", "energy", 0.6e-12),
        ("814 mm2", "area", 814e-6),
        ("30000 USD", "money", 30000.0),
        ("2.49 USD/h", "price_rate", 2.49),
        ("989.4 TFLOP/s", "compute", 989.4e12),
        ("-3 W", "power", -3.0),
    ],
)
def test_reads(text: str, dimension: str, expected: float) -> None:
    assert parse(text, dimension) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "dimension", "fragment"),
    [
        ("3.35", "bandwidth", "has no unit"),
        (3.35, "bandwidth", "has no unit"),
        (3, "bytes", "has no unit"),
        ("3.35 GB", "bandwidth", "is in units of bytes, expected bandwidth"),
        ("700 W", "energy", "is in units of power, expected energy"),
        ("5 parsecs", "length", "unknown unit 'parsecs'"),
        ("1 kUSD", "money", "unknown unit 'kUSD'"),
        ("1 KiHz", "frequency", "unknown unit 'KiHz'"),
        ("fast", "frequency", "not a number"),
        ("nan GB", "bytes", "not a number"),
        ("1e999 GB", "bytes", "not finite"),
        ("1,5 GB", "bytes", "unknown unit"),
        ("", "bytes", "not a number"),
    ],
)
def test_refuses(text: object, dimension: str, fragment: str) -> None:
    with pytest.raises(UnitError) as caught:
        parse(text, dimension, "memory.bandwidth")  # type: ignore[arg-type]
    message = str(caught.value)
    assert fragment in message
    assert message.startswith("memory.bandwidth: ")
    assert "write it like '1.5 " in message
    assert "\n" not in message


_PREFIXED = sorted(name for name, dimension in DIMENSIONS.items() if dimension.prefixed)


@given(
    st.floats(min_value=1e-18, max_value=1e21, allow_nan=False),
    st.sampled_from(_PREFIXED),
    st.booleans(),
)
def test_round_trip(magnitude: float, dimension: str, negative: bool) -> None:
    value = -magnitude if negative else magnitude
    text = si(value, DIMENSIONS[dimension].base, digits=15)
    assert parse(text, dimension) == pytest.approx(value, rel=1e-13)


@given(st.floats(min_value=1e-14, max_value=9e20))
def test_short_form_is_short_and_close(value: float) -> None:
    text = si(value, "B/s")
    assert 0.9 <= float(text.split()[0]) <= 1000
    assert len(text) <= len("-1.234 MB/s")
    assert parse(text, "bandwidth") == pytest.approx(value, rel=1e-3)


def test_formats_what_has_no_prefix() -> None:
    assert si(0.0, "s") == "0 s"
    assert si(math.nan, "J") == "unknown"
    assert si(math.inf, "s") == "inf s"
    assert si(0.00042, "s") == "420 us"


def test_binary_and_decimal_prefixes_differ() -> None:
    assert parse("1 GiB", "bytes") / parse("1 GB", "bytes") == pytest.approx(1.073741824, rel=1e-15)


def test_every_table_reads_its_own_base() -> None:
    for dimension in DIMENSIONS.values():
        assert parse(f"1 {dimension.base}", dimension.name) == 1.0
