"""Charts as text: places of values, ticks, escapes."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.report.explorer.svg import COLOURS, Axis, Chart, short


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.booleans())
def test_places_keep_the_order_and_stay_inside(a: float, b: float, log: bool) -> None:
    axis = Axis.over("x", [a, b, 3.0], log=log)
    low, high = sorted((a, b))
    assert 0.0 <= axis.share(low) <= axis.share(high) <= 1.0


@given(st.floats(1e-6, 1e12), st.floats(1.01, 1e6), st.booleans())
def test_ticks_are_round_and_inside(low: float, ratio: float, log: bool) -> None:
    axis = Axis("x", low, low * ratio, log)
    ticks = axis.ticks
    assert len(ticks) <= 12
    for value in ticks:
        assert low * (1 - 1e-6) <= value <= low * ratio * (1 + 1e-6)
        if log:
            assert value / 10.0 ** math.floor(math.log10(value) + 1e-9) == pytest.approx(
                round(value / 10.0 ** math.floor(math.log10(value) + 1e-9))
            )


def test_a_decade_has_the_middle_of_a_log_axis_of_two() -> None:
    axis = Axis("x", 1.0, 100.0, log=True)
    assert axis.share(10.0) == pytest.approx(0.5)
    assert axis.ticks == [1.0, 10.0, 100.0]


def test_axis_of_nothing_or_nan_still_draws() -> None:
    for values in ([], [math.nan], [0.0], [-1.0]):
        axis = Axis.over("x", values, log=True)
        assert axis.low < axis.high
    assert Axis.over("x", [5.0, 5.0]).low < 5.0 < Axis.over("x", [5.0, 5.0]).high


def test_svg_is_well_formed_and_escapes_words() -> None:
    chart = Chart("<b>&", Axis("x & y", 0, 1), Axis("y", 0, 1), keys=[("<script>", COLOURS[0], "")])
    chart.point(0.5, 0.5, COLOURS[0], 'a "quoted" <name>', pick='op:"<x>"')
    chart.box(0.0, 1.0, 50, 10, COLOURS[1], "bar")
    chart.say("words < words")
    root = ElementTree.fromstring(chart.svg())
    picked = [e for e in root.iter() if "data-pick" in e.attrib]
    assert [e.attrib["data-pick"] for e in picked] == ['op:"<x>"']
    assert [e.attrib["aria-label"] for e in picked] == ['a "quoted" <name>']
    assert "<script>" not in chart.svg()


def test_every_series_differs_in_marker() -> None:
    def mark(shape: int) -> str:
        chart = Chart("", Axis("", 0, 1), Axis("", 0, 1))
        chart.point(0.5, 0.5, "red", "", shape=shape)
        return chart.svg()

    assert len({mark(i) for i in range(6)}) == 6


def test_long_names_keep_both_ends() -> None:
    assert short("layer4.2.conv3", 20) == "layer4.2.conv3"
    assert short("a" * 30 + "end", 12).endswith("end")
    assert len(short("a" * 40, 12)) == 12
