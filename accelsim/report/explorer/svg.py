"""Small charts as SVG text: drawn in a few milliseconds, in the colours of the page around them.

Text and axes take the page's own colour (``currentColor``), so that light and dark themes both read well.
Series take Okabe-Ito colours and differ in their markers and dashes too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from accelsim.core.units import si

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe-Ito without black and yellow, which one of the two themes would hide."""

DASHES = ("", "6 3", "2 2", "8 3 2 3", "4 4", "1 3")
WIDTH, HEIGHT = 480.0, 320.0
DECADE_TICKS = 6


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes
    ----------
    label : str
    low, high : float
        Ends, in the unit of the data.
    log : bool
    unit : str
        Ticks are written with it and a prefix: ``2 ms``.
    """

    label: str
    low: float
    high: float
    log: bool = False
    unit: str = ""

    @classmethod
    def over(
        cls, label: str, values: Iterable[float], *, log: bool = False, unit: str = "", floor: bool = False
    ) -> Axis:
        """An axis with room for the values; ``floor`` starts a linear one at 0."""
        known = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
        if not known:
            return cls(label, 1.0 if log else 0.0, 10.0 if log else 1.0, log, unit)
        low, high = min(known), max(known)
        if log:
            return cls(label, low / 1.4, high * 1.4, True, unit)
        low = 0.0 if floor else low
        room = 0.05 * ((high - low) or abs(high) or 1.0)
        return cls(label, low if floor else low - room, high + room, False, unit)

    def share(self, value: float) -> float:
        """Place of a value between the ends, 0 to 1; values outside stand at the end."""
        if self.log:
            value = max(value, 1e-300)
            place = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, place))

    @property
    def ticks(self) -> list[float]:
        """Round values within the ends, about five."""
        if not self.log:
            step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
            step *= next(m for m in (1, 2, 5, 10) if (self.high - self.low) / (step * m) <= 5.5)
            first = math.ceil(self.low / step - 1e-9)
            return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        if last - first >= 2:
            every = max(1, math.ceil((last - first + 1) / DECADE_TICKS))
            return [10.0**e for e in range(first, last + 1, every)]
        found = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
        return [v for v in found if self.low <= v <= self.high]

    def text(self, value: float) -> str:
        """A tick's words."""
        return si(value, self.unit, 3) if self.unit else f"{value:g}"


class Chart:
    """A picture under construction.

    Parameters
    ----------
    title : str
        Stands above it, and is what a screen reader says.
    x, y : Axis, optional
    left : float
        Room for words left of the axis [px].
    keys : sequence of (str, str, str)
        Name, colour and dash of each line of the legend, which stands under the title.
    """

    def __init__(
        self,
        title: str,
        x: Axis | None = None,
        y: Axis | None = None,
        *,
        left: float = 62.0,
        keys: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        self.title, self.x, self.y = title, x, y
        self.left, self.right = left, WIDTH - 14.0
        self.bottom = HEIGHT - (42.0 if x is not None else 8.0)
        legend, rows = _legend(keys)
        self.top = 30.0 + 15.0 * rows
        self._parts: list[str] = [legend]

    # -- places

    def px(self, value: float) -> float:
        """Horizontal place of a value [px]."""
        return self.left + (self.right - self.left) * (self.x.share(value) if self.x else 0.0)

    def py(self, value: float) -> float:
        """Vertical place of a value [px]."""
        return self.bottom - (self.bottom - self.top) * (self.y.share(value) if self.y else 0.0)

    # -- marks

    def line(
        self, xs: Sequence[float], ys: Sequence[float], colour: str, *, dash: str = "", width: float = 1.8
    ) -> None:
        """Straight lines between points in data units."""
        places = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in zip(xs, ys))
        style = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width}"{style}/>'
        )

    def band(self, xs: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> None:
        """The area between two lines."""
        there = [f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in zip(xs, high)]
        back = [f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in zip(reversed(xs), reversed(low))]
        self._parts.append(
            f'<polygon points="{" ".join(there + back)}" fill="{colour}" fill-opacity="0.16" stroke="none"/>'
        )

    def point(
        self,
        x: float,
        y: float,
        colour: str,
        words: str,
        *,
        shape: int = 0,
        size: float = 4.0,
        pick: str = "",
        faint: bool = False,
    ) -> None:
        """A marker, with words under the pointer and an id to pick it by."""
        mark = _marker(shape, self.px(x), self.py(y), size)
        opacity = ' fill-opacity="0.6"' if faint else ""
        self._parts.append(
            f'<g class="mark" fill="{colour}"{opacity}{_picked(pick, words)}>'
            f"<title>{escape(words)}</title>{mark}</g>"
        )

    def box(
        self, x0: float, x1: float, top: float, height: float, colour: str, words: str, pick: str = ""
    ) -> None:
        """A bar from one value of x to another at a height in px."""
        left, right = self.px(x0), self.px(x1)
        self._parts.append(
            f'<g class="mark" fill="{colour}"{_picked(pick, words)}><title>{escape(words)}</title>'
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(0.4, right - left):.1f}" '
            f'height="{height:.1f}"/></g>'
        )

    def words(
        self, x: float, y: float, text: str, *, anchor: str = "start", size: float = 11.0, colour: str = ""
    ) -> None:
        """Text at a place in px."""
        fill = f' style="fill:{colour}"' if colour else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}"{fill}>'
            f"{escape(text)}</text>"
        )

    def upright(self, x: float, words: str) -> None:
        """A dashed line across at a value of x."""
        at = self.px(x)
        self._parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{self.top}" y2="{self.bottom}" stroke="currentColor" '
            f'stroke-opacity="0.6" stroke-dasharray="3 3"><title>{escape(words)}</title></line>'
        )

    def say(self, text: str) -> None:
        """Words in the middle of an empty chart, broken into lines."""
        for i, row in enumerate(_wrapped(text, 62)[:8]):
            self.words((self.left + self.right) / 2, self.top + 60 + 16 * i, row, anchor="middle", size=12)

    # -- whole

    def svg(self) -> str:
        """The picture."""
        return (
            f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="group" aria-label="{escape(self.title)}" '
            'xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" fill="currentColor">'
            f'<text x="8" y="18" font-size="13" font-weight="600">{escape(self.title)}</text>'
            f"{self._axes()}{''.join(self._parts)}</svg>"
        )

    def _axes(self) -> str:
        parts = []
        frame = 'stroke="currentColor" stroke-opacity="0.5"'
        faint = 'stroke="currentColor" stroke-opacity="0.13"'
        if self.x is not None:
            parts.append(
                f'<line x1="{self.left}" x2="{self.right}" y1="{self.bottom}" y2="{self.bottom}" {frame}/>'
            )
            for value in self.x.ticks:
                at = self.px(value)
                parts.append(
                    f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{self.top}" y2="{self.bottom}" {faint}/>'
                    f'<text x="{at:.1f}" y="{self.bottom + 15:.1f}" text-anchor="middle" font-size="11">'
                    f"{escape(self.x.text(value))}</text>"
                )
            parts.append(
                f'<text x="{(self.left + self.right) / 2:.1f}" y="{self.bottom + 33:.1f}" '
                f'text-anchor="middle" font-size="12">{escape(self.x.label)}</text>'
            )
        if self.y is not None:
            parts.append(
                f'<line x1="{self.left}" x2="{self.left}" y1="{self.top}" y2="{self.bottom}" {frame}/>'
            )
            for value in self.y.ticks:
                at = self.py(value)
                parts.append(
                    f'<line x1="{self.left}" x2="{self.right}" y1="{at:.1f}" y2="{at:.1f}" {faint}/>'
                    f'<text x="{self.left - 5:.1f}" y="{at + 4:.1f}" text-anchor="end" font-size="11">'
                    f"{escape(self.y.text(value))}</text>"
                )
        return "".join(parts)


def _legend(keys: Sequence[tuple[str, str, str]]) -> tuple[str, int]:
    """Names with a piece of their line, in as many rows as they need."""
    parts: list[str] = []
    at, row = 8.0, 1
    for name, colour, dash in keys:
        wide = 36.0 + 6.9 * len(name)
        if at + wide > WIDTH and at > 8.0:
            at, row = 8.0, row + 1
        y = 18.0 + 15.0 * row
        style = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<line x1="{at:.0f}" x2="{at + 18:.0f}" y1="{y - 4:.0f}" y2="{y - 4:.0f}" stroke="{colour}" '
            f'stroke-width="3"{style}/><text x="{at + 22:.0f}" y="{y:.0f}" font-size="11">'
            f"{escape(name)}</text>"
        )
        at += wide
    return "".join(parts), row if keys else 0


def _picked(pick: str, words: str) -> str:
    """Attributes of a mark that can be chosen by pointer and keyboard; the script moves the tab stop."""
    if not pick:
        return ""
    return f' data-pick="{escape(pick)}" role="button" tabindex="-1" aria-label="{escape(words)}"'


def _marker(shape: int, x: float, y: float, r: float) -> str:
    """Circle, square, triangle, diamond, bar or star, one per series."""
    kind = shape % 6
    if kind == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    if kind == 1:
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}"/>'
    if kind == 4:
        return f'<rect x="{x - 1.4 * r:.1f}" y="{y - r / 2:.1f}" width="{2.8 * r:.1f}" height="{r:.1f}"/>'
    turns = {2: ((0, -1.3), (1.2, 0.9), (-1.2, 0.9)), 3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0))}
    corners = turns.get(kind) or tuple(
        (
            math.sin(math.pi * i / 5) * (1.5 if i % 2 == 0 else 0.6),
            -math.cos(math.pi * i / 5) * (1.5 if i % 2 == 0 else 0.6),
        )
        for i in range(10)
    )
    places = " ".join(f"{x + r * a:.1f},{y + r * b:.1f}" for a, b in corners)
    return f'<polygon points="{places}"/>'


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width) or [""]


def short(text: str, most: int) -> str:
    """A name cut in the middle."""
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}…{text[-half:]}"
