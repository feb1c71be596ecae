"""From rows of a study back to the results and devices behind them."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import AccelsimError
from accelsim.core.frames import records
from accelsim.engine.simulate import simulate
from accelsim.explore.pareto import maximised
from accelsim.hardware.spec import load_hardware

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.engine.result import Result

SETTINGS = ("precision", "stack", "phase", "context", "fidelity", "sparsity", "cold", "governor", "seed")
"""Arguments of `simulate` that a row holds as they are."""

DEVICES = 12
"""Devices that get a card: those with the best points."""


@dataclass(frozen=True)
class Candidate:
    """A device of a study with its best point.

    Attributes
    ----------
    hardware : str
    row : dict
        Its best feasible point; empty when it has none.
    points, feasible : int
    result : Result or None
        The best point simulated again, for what a row does not hold: error band, notes, stamp.
    unknown : str
        Why there is no result.
    device : Device or None
        None where the catalog does not have it.
    """

    hardware: str
    row: Mapping[str, Any]
    points: int
    feasible: int
    result: Result | None
    unknown: str
    device: Any


def candidates(frame: pd.DataFrame, held: pd.DataFrame, objective: str) -> list[Candidate]:
    """The devices of a study, the best by an objective first; those without a feasible point last.

    `held` is the part of the feasible points that counts.
    """
    counts = frame["hardware"].value_counts()
    feasible = held["hardware"].value_counts()
    known = held[held[objective].notna()].sort_values(
        objective, ascending=not maximised(objective), kind="stable"
    )
    best = {row["hardware"]: row for row in records(known.drop_duplicates("hardware"))}
    names = [*best, *(str(name) for name in counts.index if name not in best)]
    found = []
    for place, name in enumerate(names):
        row = best.get(name, {})
        result, why = again(row) if row and place < DEVICES else (None, "")
        found.append(
            Candidate(name, row, int(counts[name]), int(feasible.get(name, 0)), result, why, _device(name))
        )
    return found


def again(row: Mapping[str, Any]) -> tuple[Result | None, str]:
    """A row's point simulated again, or why that does not give the row's latency."""
    try:
        arguments = call(row)
        outcome: Any = simulate(**arguments)
    except AccelsimError as error:
        return None, str(error)
    if not outcome.feasible or not math.isclose(outcome.summary["latency_s"], row["latency_s"], rel_tol=1e-6):
        return None, "simulated again, the point gives another latency: a file has changed, or the model"
    return outcome, ""


def call(row: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `simulate` that give a row."""
    device: Any = load_hardware(row["hardware"])
    changes = {name: row[name] for name in row if "." in name and _known(row[name])}
    if changes:
        device = device.replace(**changes)
    arguments = {"workload": row["workload"], "hardware": device, "batch": int(row["batch"])}
    for name in SETTINGS:
        if name in row and _known(row[name]) and row[name] != "":
            arguments[name] = int(row[name]) if name in ("context", "seed") else row[name]
    if _known(row.get("devices")):
        arguments["devices"] = int(row["devices"])
    if isinstance(row.get("parallel"), str) and row["parallel"].startswith("{"):
        arguments["parallel"] = ast.literal_eval(row["parallel"])
    return arguments


def code(row: Mapping[str, Any]) -> str:
    """The line of Python that gives a row."""
    changes = {name: row[name] for name in row if "." in name and _known(row[name])}
    device = f"{row['hardware']!r}"
    if changes:
        device = f"ax.load_hardware({device}).replace(**{changes!r})"
    rest = [f"batch={int(row['batch'])}"] if _known(row.get("batch")) else []
    for name in (*SETTINGS, "devices"):
        if name in row and _known(row[name]) and row[name] not in ("", "dense", "tile", "forward", "graph"):
            value = row[name]
            whole = isinstance(value, float) and value.is_integer()
            rest.append(f"{name}={int(value) if whole else value!r}")
    return f"ax.simulate({', '.join([repr(row['workload']), device, *rest])})"


def _known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _device(name: str) -> Any:
    try:
        return load_hardware(name)
    except AccelsimError:
        return None
