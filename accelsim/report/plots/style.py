"""What all pictures share: sizes for one and two columns, colours and markers that survive colour-vision
deficiency and grey print, thinning, honest empty pictures, and writing files.

Nothing here touches pyplot: a picture is a `matplotlib.figure.Figure` of its own, which needs no display.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import ConfigError, MissingExtraError, RequestError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
"""Okabe and Ito's colours, the yellow darkened for white paper."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----", "++++", "oooo")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)))
GREY = "0.45"

WIDTHS_IN = {"column": 3.3, "page": 7.0}
"""Widths of a figure in a paper of two columns [in]."""

ENDINGS = (".png", ".pdf", ".svg", ".pgf")

DRAWN = 20_000
"""Points of a scatter that are drawn at the most."""

_RC: dict[str, Any] = {
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "legend.framealpha": 0.8,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "figure.dpi": 150.0,
}


def matplotlib() -> Any:
    """The package, or one line that names the extra."""
    try:
        import matplotlib as package
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "drawing") from None
    return package


@cache
def _classes() -> tuple[Any, Any]:
    """A figure and axes that a notebook shows without pyplot, as the last value of a cell."""
    matplotlib()
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Picture(Figure):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            FigureCanvasAgg(self)

        def _repr_png_(self) -> bytes:
            return png(self)

    class Shown(Axes):
        def _repr_png_(self) -> bytes:
            return png(self.figure)

    return Picture, Shown


def png(figure: Any, dpi: float = 150.0) -> bytes:
    """A figure, or the figure of axes, as the bytes of a PNG file."""
    from io import BytesIO

    held = BytesIO()
    getattr(figure, "figure", figure).savefig(held, format="png", dpi=dpi)
    return held.getvalue()


def size_in(width: str | float, height: float | None = None) -> tuple[float, float]:
    """Width and height of a picture [in]: ``column``, ``page`` or a number of inches."""
    if isinstance(width, str):
        if width not in WIDTHS_IN:
            raise RequestError(f"unknown width '{width}'", hint=did_you_mean(width, WIDTHS_IN))
        wide = WIDTHS_IN[width]
    else:
        wide = float(width)
    return wide, height if height is not None else max(2.3, min(0.68 * wide, 3.4))


def figure(width: str | float = "page", height: float | None = None) -> Any:
    """An empty figure for several pictures; add axes with ``figure.add_subplot``."""
    with paper_style():
        return _classes()[0](figsize=size_in(width, height), layout="constrained")


@contextmanager
def paper_style() -> Iterator[None]:
    """Font sizes and line widths of a paper, within the block."""
    with matplotlib().rc_context(_RC):
        yield


@contextmanager
def drawing(ax: Any, width: str | float = "column", height: float | None = None) -> Iterator[Any]:
    """The axes to draw into: those given, in their own style, or new ones in the style of a paper."""
    if ax is not None:
        yield ax
        return
    picture, shown = (matplotlib(), _classes())[1]
    with paper_style():
        held = picture(figsize=size_in(width, height), layout="constrained")
        yield held.add_subplot(axes_class=shown)


def empty(ax: Any, why: str) -> None:
    """Say in the picture why it shows nothing."""
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ax.spines.values():
        side.set_color("0.8")
    from textwrap import fill

    wide = ax.figure.get_size_inches()[0] * ax.get_position().width
    ax.text(
        0.5,
        0.5,
        fill(why, max(24, int(15 * wide))),
        ha="center",
        va="center",
        transform=ax.transAxes,
        color=GREY,
        fontsize="small",
    )


def remark(ax: Any, *texts: str) -> None:
    """Small print above the axes: what is left out, what was thinned."""
    said = "; ".join(text for text in texts if text)
    if said:
        from textwrap import fill

        wide = ax.figure.get_size_inches()[0] * ax.get_position().width
        ax.set_title(fill(said, max(30, int(19 * wide))), fontsize="x-small", color=GREY, loc="left")


def twin_legend(ax: Any, other: Any) -> None:
    """One legend above the axes for the first line of each of two that share an x axis."""
    lines = [*ax.get_lines()[:1], *other.get_lines()[:1]]
    words = [line.get_label() for line in lines]
    ax.legend(lines, words, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.1)


def save(ax: Any, path: str | Path, dpi: float = 300.0) -> Path:
    """Write the figure of axes as PNG, PDF, SVG or PGF, by the ending.

    Equal pictures give equal files. The file appears whole or not at all.

    Raises
    ------
    ConfigError
        The folder does not exist, the path is a folder, or it cannot be written.
    RequestError
        The ending is unknown; or PGF, and no TeX is installed to measure its texts.
    """
    path = Path(path)
    check_target(path)
    if path.suffix.lower() not in ENDINGS:
        raise RequestError(f"no format '{path.suffix}'", str(path), f"a picture ends in {', '.join(ENDINGS)}")
    from io import BytesIO

    from accelsim.core.files import write_bytes_whole

    kind = path.suffix.lower()[1:]
    held = BytesIO()
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    settings: dict[str, Any] = {"svg.hashsalt": "accelsim"}
    failures: tuple[type[Exception], ...] = ()
    if kind == "pgf":
        settings["pgf.texsystem"] = _tex(path)
        from matplotlib.backends.backend_pgf import LatexError

        failures = (LatexError, ValueError)  # at its start, and at a text that it does not know
    try:
        with matplotlib().rc_context(settings):
            getattr(ax, "figure", ax).savefig(
                held, format=kind, dpi=dpi, **({"metadata": metadata} if metadata else {})
            )
    except failures as error:
        told = next((line for line in str(error).splitlines() if line.startswith("! ")), "see its log")
        raise RequestError(f"TeX cannot measure the texts of the picture ({told})", str(path)) from None
    return write_bytes_whole(path, held.getvalue())


def _tex(path: Path) -> str:
    """The TeX that measures the texts of a PGF picture."""
    from shutil import which

    for name in ("xelatex", "pdflatex", "lualatex"):
        if which(name):
            return name
    raise RequestError("a .pgf picture needs a TeX installation", str(path), "write .pdf, which needs none")


def check_target(path: Path) -> None:
    """One line when a file cannot be written here, before anything is computed."""
    if path.is_dir():
        raise ConfigError("this is a folder, expected a file", str(path))
    if not path.parent.is_dir():
        raise ConfigError("its folder does not exist", str(path))


def thinned(frame: pd.DataFrame, most: int = DRAWN, keep: Any = None) -> tuple[pd.DataFrame, str]:
    """At most so many rows, always the same ones, and what to say of it.

    Parameters
    ----------
    frame : DataFrame
    most : int
    keep : array of bool, optional
        Rows that stay whatever happens (a front).
    """
    if len(frame) <= most:
        return frame, ""
    import numpy as np

    held = np.zeros(len(frame), dtype=bool) if keep is None else np.asarray(keep, dtype=bool).copy()
    rest = np.flatnonzero(~held)
    chosen = np.random.default_rng(0).choice(rest, max(0, min(len(rest), most - int(held.sum()))), False)
    held[chosen] = True
    return frame[held], f"{int(held.sum()):,} of {len(frame):,} points drawn"


def columns(frame: pd.DataFrame, names: Sequence[str], what: str = "the table") -> None:
    """One line when a column is missing, with the nearest names."""
    for name in names:
        if name not in frame.columns:
            raise RequestError(f"{what} has no column '{name}'", hint=did_you_mean(name, frame.columns))


def label(column: str) -> str:
    """A column name as an axis label: ``latency_s`` is ``latency [s]``."""
    from accelsim.core.units import column_unit

    words, unit = column_unit(column)
    return f"{words} [{unit}]" if unit else words


def styles(names: Sequence[Any]) -> Mapping[Any, tuple[str, str, Any, str]]:
    """Colour, marker, dash and hatch of each name, in order."""
    return {
        name: (COLOURS[i % 8], MARKERS[(i + i // 8) % 8], DASHES[i % 6], HATCHES[(i + i // 8) % 8])
        for i, name in enumerate(names)
    }


SI_UNITS = ("s", "J", "W", "B", "B/s", "Hz", "FLOP", "FLOP/s", "USD", "m²")


def engineering(axis: Any, unit: str) -> None:
    """Ticks with SI prefixes: ``10 ms``; a short logarithmic axis has ticks at 1, 2 and 5."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.set_major_formatter(EngFormatter(unit=unit))
    if axis.get_scale() != "log":
        return
    axis.set_minor_formatter(NullFormatter())
    low, high = sorted(axis.get_view_interval())
    if 0 < low < high < 300 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))


def scaled(axis: Any, values: pd.Series[float], name: str) -> None:
    """Ticks in the unit of a column; logarithmic where the values span more than a decade."""
    from accelsim.core.units import column_unit

    positive = values[values > 0]
    if len(positive) == len(values) and positive.max() > 10 * positive.min():
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    unit = column_unit(name)[1]
    engineering(axis, unit if unit in SI_UNITS else "")


def short(text: Any, most: int = 24) -> str:
    """A name cut in its middle, so that a picture keeps its shape; ``$`` is not mathematics here."""
    held = str(text).replace("$", r"\$")
    return held if len(held) <= most else f"{held[: most // 2 - 1]}…{held[-(most // 2) :]}"
