"""Runs as traces for Perfetto and Chrome: one track per lane, and counters.

The JSON of the Trace Event Format: complete events (``X``) that never overlap on a track, counters (``C``),
names of tracks (``M``). Times are whole nanoseconds written as microseconds, so that the end of one event is
the start of the next to the last digit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.files import write_whole
from accelsim.core.frames import records

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.engine.result import Result
    from accelsim.serving.outcome import ServeResult

Event = dict[str, Any]

EXECUTIONS = 300_000
"""Executions of a server that a trace holds; later ones are left out, and the trace says so."""


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _complete(name: str, track: int, start_s: float, end_s: float, kind: str, about: Event) -> Event:
    start, end = _ns(start_s), _ns(end_s)
    return {
        "name": name,
        "cat": kind,
        "ph": "X",
        "pid": 1,
        "tid": track,
        "ts": start / 1000,
        "dur": (end - start) / 1000,
        "args": about,
    }


def _counter(name: str, unit: str, at_s: float, value: float) -> Event:
    return {"name": name, "ph": "C", "pid": 1, "ts": _ns(at_s) / 1000, "args": {unit: value}}


def _named(process: str, tracks: Mapping[str, int]) -> list[Event]:
    return [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": process}},
        *(
            {"name": "thread_name", "ph": "M", "pid": 1, "tid": track, "args": {"name": lane}}
            for lane, track in tracks.items()
        ),
        *(
            {"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": track, "args": {"sort_index": track}}
            for track in tracks.values()
        ),
    ]


def events(result: Result) -> list[Event]:
    """The events of a result: a track per lane, counters of external traffic [B/s] and power [W].

    A kernel's bytes and energy are spread evenly over the time that it runs. There is no counter of power
    where the energy of a kernel or the idle power is unknown.
    """
    table = result.timeline
    tracks = {lane: i + 1 for i, lane in enumerate(dict.fromkeys(table["lane"]))}
    ops = {row["op"]: row for row in records(result.ops)}
    found = _named(f"{result.summary['workload']} on {result.summary['hardware']}", tracks)
    for row in records(table):
        about = {"bytes": row["bytes"]}
        kernel = ops.get(row["op"])
        if kernel is not None:
            names = ("kind", "repeat", "bound", "mapping", "fused", "flops", "energy_j")
            about.update({n: kernel[n] for n in names if kernel[n] == kernel[n] and kernel[n] != ""})
        found.append(
            _complete(row["op"], tracks[row["lane"]], row["start_s"], row["end_s"], row["kind"], about)
        )
    return found + _traffic(table) + _power(result, table)


def _traffic(table: pd.DataFrame) -> list[Event]:
    """External traffic over time; where memory phases are apart (event fidelity), theirs alone."""
    apart = table[table["kind"] == "memory"]
    moving = apart if len(apart) else table[table["bytes"] > 0]
    rates = [
        (row["start_s"], row["end_s"], row["bytes"] / (row["end_s"] - row["start_s"]))
        for row in records(moving)
        if row["end_s"] > row["start_s"]
    ]
    return [_counter("external traffic", "B/s", at, value) for at, value in _steps(rates)]


def _power(result: Result, table: pd.DataFrame) -> list[Event]:
    static = result.summary.get("power_static_w", math.nan)
    energy = dict(zip(result.ops["op"], result.ops["energy_j"]))
    busy: dict[str, float] = {}
    held = [row for row in records(table) if row["kind"] != "memory" and row["op"] in energy]
    for row in held:
        busy[row["op"]] = busy.get(row["op"], 0.0) + row["end_s"] - row["start_s"]
    if math.isnan(static) or any(math.isnan(energy[op]) for op in busy):
        return []
    rates = [
        (row["start_s"], row["end_s"], energy[row["op"]] / busy[row["op"]])
        for row in held
        if busy[row["op"]] > 0
    ]
    return [_counter("power", "W", at, static + value) for at, value in _steps(rates)]


def _steps(rates: Iterable[tuple[float, float, float]]) -> Iterator[tuple[float, float]]:
    """A sum of rates over time, at each time that it changes."""
    changes: dict[int, list[float]] = {}
    for start, end, rate in rates:
        changes.setdefault(_ns(start), []).append(rate)
        changes.setdefault(_ns(end), []).append(-rate)
    level: list[float] = []
    for at in sorted(changes):
        for change in changes[at]:
            if change < 0:
                level.remove(-change)  # exact: what ends is what began, so the sum never drifts
            else:
                level.append(change)
        yield at / 1e9, math.fsum(level)


def write_result(result: Result, path: str | Path) -> Path:
    """Write a result as a trace that ui.perfetto.dev and chrome://tracing open.

    Raises
    ------
    ConfigError
        The folder does not exist or cannot be written.
    """
    stamp = result.stamp
    about = {
        "accelsim": stamp.version,
        "model_version": stamp.model_version,
        "stamp": f"{stamp.hardware_hash} {stamp.workload_hash} {stamp.parameters_hash}",
        "notes": list(result.notes),
    }
    return _write(events(result), about, path)


def write_serving(served: ServeResult, path: str | Path) -> Path:
    """Write a serving run: a track per instance, counters of requests in the server and of utilisation.

    Raises
    ------
    ConfigError
        The folder does not exist or cannot be written.
    """
    table = served.executions
    lanes = [f"{s} {i}" for s, i in zip(table["station"], table["instance"])]
    tracks = {lane: i + 1 for i, lane in enumerate(sorted(set(lanes)))}
    found = _named("server", tracks)
    for lane, row in zip(lanes[:EXECUTIONS], records(table.head(EXECUTIONS))):
        end = row["start_s"] + row["held_s"]
        about = {"size": row["size"], "padded": row["padded"]}
        found.append(
            _complete(f"batch of {row['size']}", tracks[lane], row["start_s"], end, "execution", about)
        )
    for row in records(served.series()):
        found.append(_counter("requests in the server", "requests", row["time_s"], row["in_system"]))
        found.append(_counter("utilisation", "share", row["time_s"], row["utilisation"]))
    lost = len(table) - EXECUTIONS
    notes = [*served.notes, *([f"{lost} later executions are not in this trace"] if lost > 0 else [])]
    return _write(found, {"accelsim": served.stamp.version, "notes": notes}, path)


def trace_file(run: str | Path, path: str | Path) -> Path:
    """Turn a saved result into a trace (``accelsim trace run.json -o run.perfetto.json``).

    Raises
    ------
    ModelFileError
        The file is not a saved result.
    ConfigError
        The output's folder does not exist or cannot be written.
    """
    from accelsim.engine.result import Result

    return write_result(Result.load(run), path)


def _write(found: list[Event], about: Mapping[str, Any], path: str | Path) -> Path:
    from accelsim.engine.result import plain

    document = {"traceEvents": found, "displayTimeUnit": "ns", "otherData": dict(about)}
    return write_whole(Path(path), json.dumps(plain(document), allow_nan=False))
