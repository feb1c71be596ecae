"""A study, or a store alone, to one HTML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import AccelsimError, ConfigError, MissingExtraError, RequestError, did_you_mean
from accelsim.core.files import write_whole
from accelsim.core.frames import records
from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.core.yamlfile import parse_yaml
from accelsim.engine.result import plain
from accelsim.explore.influence import main_effects
from accelsim.explore.pareto import maximised, nondominated, oriented
from accelsim.explore.store import Store
from accelsim.explore.study import Study
from accelsim.report.page import interactive, sections
from accelsim.report.page.evidence import candidates, code
from accelsim.report.plots.style import check_target, label, thinned

if TYPE_CHECKING:
    import pandas as pd

DRAWN = 4000
"""Points that the report's charts and table hold; the front always is among them."""

OBJECTIVES = ("latency_s", "energy_per_item_j")
HEADLINES = (
    "latency_s", "throughput_per_s", "energy_per_item_j", "power_w", "usd_per_million_items", "memory_bytes",
    "accuracy_pct", "mac_utilisation", "bound",
)  # fmt: skip


def report(
    study: Study,
    path: str | Path,
    *,
    title: str = "",
    question: str = "",
    objectives: Sequence[str] | None = None,
    where: str | None = None,
    document: str = "",
) -> Path:
    """Write the report of a study.

    Parameters
    ----------
    study : Study
    path : path-like
        The HTML file.
    title, question : str
        What the study asks, in words.
    objectives : sequence of str, optional
        Columns to trade off, the decisive one first; latency and energy per item by default.
    where : str, optional
        Condition on points that count, such as ``latency_s < 0.01``.
    document : str, optional
        The study's YAML, shown so that it can be repeated.

    Returns
    -------
    Path

    Raises
    ------
    ConfigError
        The folder does not exist or cannot be written.
    MissingExtraError
        plotly is not installed.
    RequestError
        An objective is not a column, or the condition cannot be read.
    """
    path = Path(path)
    check_target(path)
    script = _plotly()
    wanted = _objectives(study, objectives)
    held = study.where(where)
    found = candidates(study.frame, held, wanted[0]) if len(study) else []
    name = title or "Study of " + _names(study)
    body = [
        f"<header><h1>{escape(name)}</h1>",
        f"<p class=question>{escape(question)}</p>" if question else "",
        f"<p class=soft>{len(study):,} points, {study.infeasible:,} infeasible. Every number is a simulation "
        f"by accelsim {escape(VERSION)}; its error band says how far it may be off.</p></header>",
        _section("Verdict", sections.verdict(found, wanted[0], where)),
        _section("Candidates", sections.candidates(found)),
    ]
    explored, data = _explored(study, held, wanted)
    body += [
        explored,
        _section("Cost and carbon", sections.money(found)),
        _section("Devices", sections.cards(found, [*dict.fromkeys([*wanted, *HEADLINES])])),
        _section("Infeasible points", sections.infeasible(study.frame) if len(study) else "<p>None.</p>"),
        _section(
            "How to reproduce",
            sections.reproduce(study, document, _digest(study.frame), (VERSION, MODEL_VERSION)),
        ),
    ]
    return write_whole(path, _page(name, "\n".join(body), data, script))


def report_store(path: str | Path, out: str | Path, **settings: Any) -> Path:
    """Write the report of a store alone (``accelsim report study.db -o study.html``).

    Title, question, objectives and text come from the study that is kept in it, the newest where there are
    several. Rows of an older model version are used only when there are none of this one.

    Parameters
    ----------
    path : path-like
        SQLite file of a sweep or a search.
    out : path-like
        The HTML file.
    **settings
        Of `report`; they replace what the store says.

    Raises
    ------
    ConfigError
        There is no such file, or the output's folder does not exist.
    StoreError
        The file is not a store.
    """
    check_target(Path(out))
    if not Path(path).is_file():
        raise ConfigError("no such file", str(path), "write one with: accelsim sweep ... --store study.db")
    store = Store(path)
    versions = store.versions
    version = MODEL_VERSION if MODEL_VERSION in versions else max(versions, default=MODEL_VERSION)
    frame = store.frame(version=version)
    held = store.studies
    store.close()
    if not len(frame.columns):
        raise RequestError("the store has no rows yet", str(path))
    told: dict[str, Any] = {"title": Path(path).stem}
    axes: tuple[str, ...] = ()
    if held:
        name, text = list(held.items())[-1]
        axes, described = _described(name, text)
        told.update(described, document=text)
    if version != MODEL_VERSION:
        told["title"] += f" (model version {version})"
    if not axes:
        axes = tuple(
            c for c in ("workload", "hardware", "batch", "precision", "context", "devices", "stack")
            if c in frame.columns and frame[c].nunique() > 1
        )  # fmt: skip
        axes += tuple(c for c in frame.columns if "." in c)
    return report(Study(frame, axes), out, **{**told, **settings})


def _described(name: str, text: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Axes, title, question and objectives of a study's text."""
    try:
        document = parse_yaml(text.encode(), name)
    except AccelsimError:
        return (), {"title": name}
    objectives = (document.get("search") or {}).get("objective", document.get("objectives"))
    told: dict[str, Any] = {
        "title": str(document.get("title", name)),
        "question": str(document.get("question", "")),
    }
    if objectives:
        told["objectives"] = [objectives] if isinstance(objectives, str) else list(objectives)
    return tuple(map(str, document.get("space") or {})), told


def _objectives(study: Study, given: Sequence[str] | None) -> tuple[str, str]:
    """Two columns to trade off."""
    frame = study.frame
    names = [given] if isinstance(given, str) else list(given or ())
    for name in names:
        if name not in frame.columns:
            raise RequestError(f"no column '{name}'", hint=did_you_mean(name, frame.columns))
    for name in (*OBJECTIVES, "throughput_per_s", "memory_bytes"):
        if len(names) >= 2:
            break
        if name not in names and name in frame.columns and frame[name].notna().any():
            names.append(name)
    names += [n for n in OBJECTIVES if n not in names]
    return names[0], names[1]


def _explored(study: Study, held: pd.DataFrame, wanted: tuple[str, str]) -> tuple[str, dict[str, Any]]:
    """The charts with their table, and the data behind them."""
    x, y = wanted
    known = held.dropna(subset=[n for n in wanted if n in held.columns]) if len(held) else held
    if not len(known):
        return _section("Trade-off", "<p>No feasible point has both objectives: nothing to draw.</p>"), {}
    unknown = len(held) - len(known)
    lost = f"{unknown:,} feasible points without {label(x)} or {label(y)} are not drawn." if unknown else ""
    known = known.reset_index(drop=True)
    front = nondominated(oriented(known[[x, y]].to_numpy(float), wanted))
    shown, cut = thinned(known.assign(_front=front), DRAWN, front)
    shown = shown.reset_index(drop=True)
    front = shown.pop("_front").to_numpy(bool)
    names = _shown_columns(study, shown, wanted)
    rows = shown[names]
    rows_ = records(shown)
    data: dict[str, Any] = {
        "columns": names,
        "labels": [label(n) for n in names],
        "numeric": [rows[n].dtype.kind in "fiu" for n in names],
        "rows": [list(row.values()) for row in records(rows)],
        "front": [i for i, is_front in enumerate(front.tolist()) if is_front],
        "codes": [code(row) for row in rows_],
        "objectives": list(wanted),
        "maximised": maximised(x),
        "figures": {"pareto": interactive.pareto(shown, front, x, y)},
    }
    body = [
        *(f"<p class=soft>{escape(said)}</p>" for said in (cut, lost) if said),
        "<p class=screen>Drag over the chart to select points for the table; click a point or a line for the "
        "code that repeats it.</p><div id=pareto class=figure></div>",
        _table(names),
    ]
    body += [_parallel(study, shown, wanted, data), _batch(known, wanted, data), _effects(study, x)]
    return _section("Trade-off", "".join(body)), data


def _table(names: Sequence[str]) -> str:
    heads = "".join(f"<th scope=col><button>{escape(label(n))}</button></th>" for n in names)
    return (
        "<div class=bar><select id=which aria-label='points in the table'><option value=front>front</option>"
        "<option value=all>all points drawn</option></select>"
        "<input id=word type=search placeholder='filter' aria-label='filter the table'>"
        "<button id=clear>clear selection</button><span id=count role=status></span></div>"
        f"<div class=wide><table id=rows><thead><tr>{heads}</tr></thead><tbody></tbody></table></div>"
        "<pre id=code aria-live=polite></pre>"
    )


def _shown_columns(study: Study, frame: pd.DataFrame, wanted: Sequence[str]) -> list[str]:
    """Columns of the table: what was varied, the objectives, the headline numbers that are known."""
    names = ["workload", "hardware", "batch", "precision", *study.axes, *wanted, *HEADLINES]
    ends = [f"{n[:-2]}_{end}_s" for n in wanted if n == "latency_s" for end in ("low", "high")]
    held = [n for n in dict.fromkeys([*names, *ends]) if n in frame.columns and frame[n].notna().any()]
    alone = [n for n in ("workload", "precision") if n in held and frame[n].nunique() == 1]
    return [n for n in held if n not in alone or n in study.axes]


def _parallel(study: Study, shown: pd.DataFrame, wanted: Sequence[str], data: dict[str, Any]) -> str:
    varied = [a for a in study.axes if a in shown.columns and shown[a].nunique() > 1]
    known = [n for n in HEADLINES[:5] if n in shown.columns and shown[n].notna().any()]
    names = list(dict.fromkeys([*varied[:8], *known, *wanted]))
    held = shown.dropna(subset=names)
    if len(names) < 3 or len(held) < 2:
        return ""
    figure = interactive.parallel(held, names)
    data["figures"]["parallel"] = {**figure, "rows": held.index.tolist()}
    return (
        "<h3 class=screen>All numbers at once</h3><p class=screen>Drag along an axis to keep only points "
        "inside the range; the table follows.</p><div id=parallel class='figure low screen'></div>"
    )


def _batch(known: pd.DataFrame, wanted: Sequence[str], data: dict[str, Any]) -> str:
    value = next((n for n in wanted if n in ("throughput_per_s", "latency_s")), "throughput_per_s")
    if value not in known.columns or known["batch"].nunique() < 2:
        return ""
    data["figures"]["batch"] = interactive.batch(known, value)
    lines = known.groupby(["hardware", "precision"]).ngroups
    cut = f" {lines - 12} more lines are not drawn." if lines > 12 else ""
    return (
        f"<h3>Over the batch</h3><p class=soft>Best {escape(label(value))} per device, precision and batch, "
        f"with error bands.{cut}</p><div id=batch class='figure low'></div>"
    )


def _effects(study: Study, metric: str) -> str:
    effects = main_effects(study, metric)
    if effects.empty:
        return ""
    rows = [
        [
            escape(str(r["parameter"])),
            f"{100 * r['share']:.1f} %",
            escape(str(r["best_value"])),
            f"{r['factor']:.3g}",
        ]
        for r in records(effects)
    ]
    heads = ["parameter", "share of the spread", "lowest at", "largest over smallest mean"]
    return f"<h3>What {escape(label(metric))} hangs on</h3>" + sections.table(heads, rows, right=(1, 3))


def _names(study: Study) -> str:
    held = [str(v) for v in study.frame["workload"].unique()] if len(study) else []
    return ", ".join(held[:3]) + (f" and {len(held) - 3} more" if len(held) > 3 else "") or "nothing"


def _section(head: str, body: str) -> str:
    return f"<section><h2>{escape(head)}</h2>{body}</section>"


def _digest(frame: pd.DataFrame) -> str:
    """Hash of the table, whatever the order of its columns."""
    import hashlib

    import pandas as pd

    held = hashlib.blake2b(digest_size=8)
    for name in sorted(frame.columns):
        held.update(name.encode())
        column = frame[name]
        text = column if column.dtype.kind in "fiub" else column.astype(str)
        held.update(pd.util.hash_pandas_object(text, index=False).to_numpy().tobytes())
    return held.hexdigest()


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingExtraError("plotly", "plot", "the HTML report") from None
    return str(get_plotlyjs())


def _page(title: str, body: str, data: dict[str, Any], script: str) -> str:
    folder = files("accelsim.report.page")
    style, behaviour = ((folder / name).read_text("utf-8") for name in ("page.css", "page.js"))
    script = script.replace("</script", "<\\/script")
    # Inside a script element only "</" and "<!--" end or change it.
    held = json.dumps(plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    policy = (
        "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; worker-src blob:"
    )
    scripts = (
        f'<script type="text/plain" id="plotly">{script}</script>\n'
        f'<script type="application/json" id="study">{held}</script>\n<script>{behaviour}</script>'
        if data
        else ""
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n{scripts}\n"
        "</body>\n</html>\n"
    )
