"""Tables for papers: booktabs, siunitx, units in headers, the best value bold, the stamp as a comment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.files import write_whole
from accelsim.core.units import column_unit
from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.explore.pareto import maximised

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.engine.result import Result
    from accelsim.explore.study import Study

COLUMNS = (
    "workload", "hardware", "batch", "precision", "latency_s", "throughput_per_s", "energy_per_item_j",
    "usd_per_million_items",
)  # fmt: skip
ROWS = 500
"""Rows of a table at the most."""

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "⁶": r"\textsuperscript{6}",
}  # fmt: skip
_UNITS = {
    "s": r"\second", "J": r"\joule", "W": r"\watt", "B": r"B", "B/s": r"B\per\second", "Hz": r"\hertz",
    "%": r"\percent", "1/s": r"\per\second", "m²": r"\metre\squared", "USD": "USD", "dB": r"\decibel",
    "FLOP": "FLOP", "FLOP/s": r"FLOP\per\second",
}  # fmt: skip
_PREFIXES = {
    -12: r"\pico", -9: r"\nano", -6: r"\micro", -3: r"\milli", 0: "", 3: r"\kilo", 6: r"\mega", 9: r"\giga",
    12: r"\tera", 15: r"\peta",
}  # fmt: skip
_BEST = ("latency", "energy", "power", "usd", "memory_bytes", "error", "price", "carbon", "co2")
"""Beginnings of the columns of which less is better; for `maximised` ones more is."""


def escaped(text: Any) -> str:
    """Text as LaTeX shows it."""
    return "".join(_SPECIAL.get(c, c) for c in " ".join(str(text).split()))


def study_table(
    study: Study,
    path: str | Path,
    columns: Sequence[str] | None = None,
    *,
    where: str | None = None,
    caption: str = "",
    label: str = "",
) -> Path:
    """Write the feasible points of a study as a LaTeX table.

    Parameters
    ----------
    study : Study
    path : path-like
    columns : sequence of str, optional
        Columns to show, in this order; the request and the headline numbers that are known by default.
    where : str, optional
        Condition on points, as for `Study.where`.
    caption, label : str
        Of the table float; without a caption the file holds the tabular alone.

    Returns
    -------
    Path

    Raises
    ------
    RequestError
        A column does not exist, there is no feasible point, or there are more than 500.
    ConfigError
        The folder does not exist or cannot be written.
    """
    frame = study.where(where)
    for name in columns or ():
        if name not in frame.columns:
            raise RequestError(f"no column '{name}'", hint=did_you_mean(name, frame.columns))
    if frame.empty:
        raise RequestError("there is no feasible point to put into a table")
    if len(frame) > ROWS:
        raise RequestError(f"a table of {len(frame)} rows is no table", hint="narrow it with where=")
    names = list(columns or [n for n in COLUMNS if n in frame.columns and frame[n].notna().any()])
    comment = f"accelsim {VERSION}, model version {MODEL_VERSION}, {len(frame)} of {len(study)} points"
    return write_whole(Path(path), document(frame[names], comment, caption, label))


def result_table(result: Result, path: str | Path, *, caption: str = "", label: str = "") -> Path:
    """Write the headline numbers of a result as a LaTeX table, with their error bands.

    Parameters
    ----------
    result : Result
    path, caption, label
        See `study_table`.
    """
    rows = []
    for name in ("latency_s", "throughput_per_s", "energy_per_item_j", "power_w", "memory_bytes",
                 "usd_per_million_items", "mac_utilisation"):  # fmt: skip
        value = result.summary.get(name, math.nan)
        if isinstance(value, int | float) and not math.isnan(value):
            band = result.intervals.get(name)
            words, unit = column_unit(name)
            power = _power([value]) if _prefixed(unit) else 0
            ends = [] if band is None else [_digits(end / 10.0**power) for end in (band.low, band.high)]
            rows.append((words, _unit(unit, power), _digits(value / 10.0**power), ends))
    s, stamp = result.summary, result.stamp
    comment = (
        f"{s['workload']} on {s['hardware']}, batch {s['batch']}, {s['precision']}; "
        f"accelsim {stamp.version}, model version {stamp.model_version}, stamp {stamp.hardware_hash} "
        f"{stamp.workload_hash} "
        f"{stamp.parameters_hash}, seed {stamp.seed}, {stamp.fidelity}"
    )
    band = result.intervals["latency_s"]
    head = ["quantity", "{value}", "{low}", "{high}"]
    body = [
        [
            f"{escaped(words)}{f' [{unit}]' if unit else ''}",
            value,
            *(ends or [r"{\textendash}", r"{\textendash}"]),
        ]
        for words, unit, value, ends in rows
    ]
    form = ["l", *(_format([row[i] for row in body]) for i in (1, 2, 3))]
    note = f"error band: {band.level:.0%}, {band.basis}"
    return write_whole(Path(path), _assembled(form, head, body, [comment, note], caption, label))


def document(frame: pd.DataFrame, comment: str, caption: str = "", label: str = "") -> str:
    """A table as LaTeX; the best value of each number of which less or more is better is bold."""
    form, heads, columns = [], [], []
    for name in frame.columns:
        words, unit = column_unit(str(name))
        column = frame[name].tolist()
        if frame[name].dtype.kind not in "fiu":
            form.append("l")
            heads.append(f"{{{escaped(words)}}}")
            columns.append([escaped(v) if v == v else r"\textendash" for v in column])
            continue
        known = [v for v in column if v == v]
        power = _power(known) if _prefixed(unit) else 0
        texts = [_digits(v / 10.0**power) if v == v else r"{\textendash}" for v in column]
        best = _best(str(name), known)
        columns.append([rf"\bfseries {t}" if v == best else t for v, t in zip(column, texts)])
        form.append(_format(texts))
        shown = _unit(unit, power)
        heads.append(f"{{{escaped(words)}{f' [{shown}]' if shown else ''}}}")
    return _assembled(form, heads, list(map(list, zip(*columns))), [comment], caption, label)


def _assembled(
    form: Sequence[str],
    heads: Sequence[str],
    body: Sequence[Sequence[str]],
    comments: Sequence[str],
    caption: str,
    label: str,
) -> str:
    lines = [f"% {' '.join(comment.split())}" for comment in comments]
    lines.append(r"% needs \usepackage{booktabs,siunitx}")
    if caption:
        lines += [r"\begin{table}", r"\centering", rf"\caption{{{escaped(caption)}}}"]
        lines += [rf"\label{{{label}}}"] if label else []
    lines += [r"\begingroup", r"\sisetup{detect-weight=true}"]
    lines += [rf"\begin{{tabular}}{{{' '.join(form)}}}", r"\toprule"]
    lines += [" & ".join(heads) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body]
    lines += [r"\bottomrule", r"\end{tabular}", r"\endgroup"]
    lines += [r"\end{table}"] if caption else []
    return "\n".join(lines) + "\n"


def _best(name: str, known: Sequence[float]) -> float | None:
    """The value to set bold; None where neither less nor more is better, or all are equal."""
    if len(known) < 2 or min(known) == max(known):
        return None
    if maximised(name):
        return max(known)
    return min(known) if name.startswith(_BEST) else None


def _prefixed(unit: str) -> bool:
    return unit in ("s", "J", "W", "B", "B/s", "Hz", "FLOP", "FLOP/s")


def _power(values: Sequence[float]) -> int:
    """The power of ten, a multiple of three, that suits the middle of some values."""
    sizes = sorted(abs(v) for v in values if v)
    if not sizes:
        return 0
    middle = sizes[len(sizes) // 2]
    return max(-12, min(15, 3 * math.floor(math.log10(middle) / 3)))


def _unit(unit: str, power: int) -> str:
    if not unit or unit == "1":
        return ""
    if unit in _UNITS:
        name = _UNITS[unit]
        gap = "" if name.startswith("\\") or not power else " "
        return rf"\si{{{_PREFIXES[power]}{gap}{name}}}"
    return escaped(unit)


def _digits(value: float) -> str:
    """Four digits, no exponent for table-sized numbers."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return str(int(value))
    if abs(value) >= 1e6 or abs(value) < 1e-4:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def _format(texts: Sequence[str]) -> str:
    """The siunitx column that holds the widest of some numbers."""
    whole, decimals, exponent = 1, 0, False
    for text in texts:
        bare = text.removeprefix(r"\bfseries ")
        if bare.startswith("{"):
            continue
        mantissa, _, power = bare.partition("e")
        before, _, after = mantissa.lstrip("-").partition(".")
        whole, decimals = max(whole, len(before)), max(decimals, len(after))
        exponent = exponent or bool(power)
    return f"S[table-format={whole}.{decimals}{'e-2' if exponent else ''}]"
