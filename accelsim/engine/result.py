"""The answer: a Result with its numbers, its error band and where they come from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.architectures.base import STALLS, Interval
from accelsim.core.accessors import Accessible
from accelsim.core.errors import ModelFileError, RequestError, UnknownNameError, did_you_mean
from accelsim.engine.timeline import Segment, frame

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.core.outcome import Infeasible

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Stamp:
    """What produced a result: equal stamps give equal numbers.

    Attributes
    ----------
    version, model_version : str
        Of accelsim, and of its models: that changes whenever a number can.
    hardware_hash, workload_hash, parameters_hash : str
        Of the device, the graph, and everything else that was asked for.
    seed : int
    fidelity : {"analytic", "tile", "event"}
    """

    version: str
    model_version: str
    hardware_hash: str
    workload_hash: str
    parameters_hash: str
    seed: int
    fidelity: str


class Result(Accessible):
    """One workload on one device, as asked.

    Attributes
    ----------
    summary : dict
        Headline numbers; every name ends in its unit (see docs/definitions.md).
    energy_parts : dict
        Energy of the batch by component [J]; ``energy_j`` is their sum.
    intervals : dict of str to Interval
        Error bands, by summary name.
    missing : dict of str to str
        Why a number is NaN.
    notes : tuple of str
        Assumptions and approximations that apply.
    stamp : Stamp
    request : dict
        What was asked for, resolved; the summary repeats it.
    arguments : dict
        Of `simulate`, as they were given. A workload or device that is in no file is None after `load`.
    programs : tuple of Program
        What the architecture decided, one per pipeline-parallel stage, for pictures that look inside; empty
        where the result was loaded from a file.
    """

    feasible = True

    def __init__(
        self,
        summary: Mapping[str, Any],
        energy_parts: Mapping[str, float],
        intervals: Mapping[str, Interval],
        missing: Mapping[str, str],
        notes: tuple[str, ...],
        stamp: Stamp,
        rows: Callable[[], list[dict[str, Any]]],
        segments: Callable[[], list[Segment]],
        request: Mapping[str, Any],
        arguments: Mapping[str, Any],
        programs: tuple[Any, ...] = (),
    ) -> None:
        self.summary = dict(summary)
        self.energy_parts = dict(energy_parts)
        self.intervals = dict(intervals)
        self.missing = dict(missing)
        self.notes = notes
        self.stamp = stamp
        self.request = dict(request)
        self.arguments = dict(arguments)
        self.programs = programs
        self._make_rows = rows
        self._make_segments = segments

    # -- tables
    # ------------------------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return self._make_rows()

    @cached_property
    def _segments(self) -> list[Segment]:
        return self._make_segments()

    @cached_property
    def ops(self) -> pd.DataFrame:
        """One row per kernel, repeats included in the totals (see docs/definitions.md for the columns)."""
        import pandas as pd

        return pd.DataFrame(self._rows).drop(columns=["formula"])

    @cached_property
    def timeline(self) -> pd.DataFrame:
        """Columns ``op lane start_s end_s kind bytes``; a lane never overlaps itself."""
        return frame(self._segments)

    # -- questions
    # ---------------------------------------------------------------------------------------------------

    def explain(self, op: str) -> str:
        """The formula behind an op's latency, with its numbers in.

        Parameters
        ----------
        op : str
            Name of a kernel, or of an op fused into one.

        Raises
        ------
        UnknownNameError
            With the nearest names.
        """
        for row in self._rows:
            if op == row["op"] or op in row["fused"].split(" + "):
                from accelsim.core.units import si

                head = (
                    f"{row['op']} ({row['kind']}) on {self.summary['hardware']}: {si(row['latency_s'], 's')}"
                )
                times = f", {row['repeat']} times" if row["repeat"] > 1 else ""
                lines = [f"{head}{times}, bound by {row['bound']}", f"  {row['formula']}"]
                if spent := _spent(row):
                    lines.append(f"  spent on: {spent}")
                if row["mapping"]:
                    lines.append(f"  mapping: {row['mapping']}")
                if row["fused"]:
                    lines.append(f"  fused: {row['fused']}")
                return "\n".join(lines)
        known = [row["op"] for row in self._rows] + [
            n for row in self._rows for n in row["fused"].split(" + ") if n
        ]
        raise UnknownNameError(f"no op '{op}' in this result", hint=did_you_mean(op, known))

    def compare(self, other: Result) -> pd.DataFrame:
        """Table of the numbers of two results: columns ``metric``, one per result, ``ratio`` and ``verdict``.

        The verdict on latency is ``better``, ``worse`` or ``not distinguishable`` (error bands overlap), from
        this result's view.
        """
        import pandas as pd

        if not isinstance(other, Result):
            raise RequestError(
                f"a result compares with a result, not with this {type(other).__name__}: {other}"
            )
        rows = []
        for key, mine in self.summary.items():
            theirs = other.summary.get(key)
            if (
                isinstance(mine, bool)
                or not isinstance(mine, int | float)
                or not isinstance(theirs, int | float)
            ):
                continue
            ratio = mine / theirs if theirs else math.nan
            rows.append(
                {
                    "metric": key,
                    "this": mine,
                    "other": theirs,
                    "ratio": ratio,
                    "verdict": self._verdict(key, other),
                }
            )
        return pd.DataFrame(rows)

    def _verdict(self, key: str, other: Result) -> str:
        a, b = self.intervals.get(key), other.intervals.get(key)
        if a is None or b is None:
            return ""
        if a.high < b.low:
            return "better"
        return "worse" if a.low > b.high else "not distinguishable"

    # -- files
    # -------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data; NaN becomes None."""
        return plain(
            {
                "format": FORMAT,
                "summary": self.summary,
                "energy_parts": self.energy_parts,
                "intervals": {k: asdict(v) for k, v in self.intervals.items()},
                "missing": self.missing,
                "notes": list(self.notes),
                "stamp": asdict(self.stamp),
                "request": self.request,
                "arguments": {name: _written(value) for name, value in self.arguments.items()},
                "ops": self._rows,
                "timeline": [list(s) for s in self._segments],
            }
        )

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    def save(self, path: str | Path) -> Path:
        """Write the result as JSON; `load` reads it back. The file appears whole or not at all."""
        from accelsim.core.files import write_whole

        return write_whole(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read a result that `save` wrote.

        Raises
        ------
        ModelFileError
            The file is not a saved result.
        """
        try:
            data = json.loads(Path(path).read_text())
            version = data["format"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ModelFileError("not a saved result", str(path)) from None
        if version != FORMAT:
            raise ModelFileError(f"saved in format {version}, this version reads {FORMAT}", str(path))
        rows = [_numbers(row) for row in data["ops"]]
        segments = [Segment(*row) for row in data["timeline"]]
        return cls(
            _numbers(data["summary"]),
            _numbers(data["energy_parts"]),
            {k: Interval(**v) for k, v in data["intervals"].items()},
            data["missing"],
            tuple(data["notes"]),
            Stamp(**data["stamp"]),
            lambda: rows,
            lambda: segments,
            data["request"],
            data["arguments"],
        )

    if TYPE_CHECKING:  # accessors that accelsim/__init__.py registers

        def text_card(self) -> str: ...

        def html_card(self) -> str: ...

        def cost(self, *args: Any, **kwargs: Any) -> Any: ...

        def rerun(self, **changes: Any) -> Result | Infeasible: ...

        def glossary(self) -> Any: ...

        @property
        def plot(self) -> Any: ...

        def to_latex(self, path: str | Path, **settings: Any) -> Path: ...

        def to_trace(self, path: str | Path) -> Path: ...

        def to_csv(self, path: str | Path) -> Path: ...

        def to_parquet(self, path: str | Path) -> Path: ...

    def __repr__(self) -> str:
        return self.text_card()

    def _repr_html_(self) -> str:
        return self.html_card()


def _spent(row: Mapping[str, Any]) -> str:
    """What a kernel's time is spent on, the largest part first: ``dram 61.0 %, latency 39.0 %``."""
    whole = row["latency_s"]
    parts = {name: row.get(f"stall_{name}_s", math.nan) / whole if whole else math.nan for name in STALLS}
    shown = sorted((share, name) for name, share in parts.items() if share >= 5e-4)
    return ", ".join(f"{name} {100.0 * share:.1f} %" for share, name in reversed(shown))


def _written(argument: Any) -> Any:
    """An argument as a file can hold it; None for a graph or a device in memory."""
    if isinstance(argument, Path):
        return str(argument)
    return argument if isinstance(argument, str | int | float | list | tuple | Mapping | None) else None


def plain(node: Any) -> Any:
    """Data as JSON can hold it: NaN is None, numpy scalars are numbers, tuples are lists."""
    if isinstance(node, dict):
        return {k: plain(v) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [plain(v) for v in node]
    if isinstance(node, float) and not math.isfinite(node):
        return None
    if hasattr(node, "item"):
        return plain(node.item())
    return node


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Undo `plain`: None in a field with a unit is NaN."""
    suffixes = ("_s", "_j", "_w", "_bytes", "_usd", "_pct", "_hz", "_m2")
    return {k: math.nan if v is None and k.endswith(suffixes) else v for k, v in row.items()}
