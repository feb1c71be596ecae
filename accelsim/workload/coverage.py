"""Which operators of a graph have an exact formula, and how much of the work they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Literal

from accelsim.core.errors import UnsupportedOpError
from accelsim.workload.graph import Graph, Op

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["supported", "approximated", "unsupported"]

_COLUMNS = ("kind", "origin", "status", "count", "flops_pct", "bytes_pct", "why")


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """Operators of one kind and origin that are covered alike.

    Attributes
    ----------
    kind, origin : str
        Registered kind, and the type in the file that it came from.
    status : {"supported", "approximated", "unsupported"}
        Approximated: a formula that is only close, or the memory-bound fallback. Unsupported: no formula at
        all.
    count : int
        Executions, repeats included.
    flops_pct, bytes_pct : float
        Share of the graph's known FLOPs and compulsory bytes [%]; an unsupported operator counts its
        operands once as bytes and no FLOPs.
    why : str
        Why it is approximated.
    """

    kind: str
    origin: str
    status: Status
    count: int
    flops_pct: float
    bytes_pct: float
    why: str


class Coverage:
    """How much of a graph the operator registry covers.

    Parameters
    ----------
    graph : Graph
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.rows = _rows(graph)

    def __iter__(self) -> Iterator[CoverageRow]:
        return iter(self.rows)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per kind, origin and status, the largest share of bytes first."""
        import pandas as pd

        return pd.DataFrame(
            [[getattr(row, c) for c in _COLUMNS] for row in self.rows], columns=list(_COLUMNS)
        )

    @property
    def flops_covered_pct(self) -> float:
        """Share of the known FLOPs in operators with an exact formula [%]; 100 when there are none."""
        return 100.0 - sum(row.flops_pct for row in self.rows if row.status != "supported")

    @property
    def bytes_covered_pct(self) -> float:
        """Share of the compulsory bytes in operators with an exact formula [%]; 100 when nothing moves."""
        return 100.0 - sum(row.bytes_pct for row in self.rows if row.status != "supported")

    @cached_property
    def unsupported(self) -> list[str]:
        """Names of the operators without an exact formula, each with its origin and what is wrong."""
        named = ((op, *_status(op)) for op in self.graph)
        return [
            f"{op.name} ({_origin(op)}): {why or status}"
            for op, status, why in named
            if status != "supported"
        ]

    def require_exact(self) -> None:
        """Refuse a graph that is not fully covered.

        Raises
        ------
        UnsupportedOpError
            With the first operator that is only approximated, and its origin.
        """
        for op in self.graph:
            status, why = _status(op)
            if status != "supported":
                more = len(self.unsupported) - 1
                also = f" and {more} more" if more else ""
                raise UnsupportedOpError(
                    f"operator '{op.name}' ({_origin(op)}){also} is {status}: {why}",
                    self.graph.name,
                    "load without strict to use the approximation",
                )

    def __repr__(self) -> str:
        lines = [self._headline()]
        for row in self.rows:
            name = row.kind if row.origin in ("", row.kind) else f"{row.kind} <- {row.origin}"
            shares = f"{row.flops_pct:6.2f} {row.bytes_pct:7.2f}"
            lines.append(
                f"  {name:32.32} {row.count:6} {shares}  {row.status}{': ' * bool(row.why)}{row.why}"
            )
        return "\n".join(
            [lines[0], f"  {'operator':32} {'count':>6} {'FLOP %':>6} {'bytes %':>7}  status", *lines[1:]]
        )

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{c}</th>" for c in ("kind", "origin", "status", "count", "FLOP %", "bytes %", "why")
        )
        body = "".join(
            f"<tr><td>{escape(r.kind)}</td><td>{escape(r.origin)}</td><td>{r.status}</td><td>{r.count}</td>"
            f"<td>{r.flops_pct:.2f}</td><td>{r.bytes_pct:.2f}</td><td>{escape(r.why)}</td></tr>"
            for r in self.rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p>{escape(self._headline())}</p>{table}"

    def _headline(self) -> str:
        left = len(self.unsupported)
        rest = f", {left} operators not exact" if left else ""
        shares = f"{self.flops_covered_pct:.1f} % of FLOPs and {self.bytes_covered_pct:.1f} % of bytes"
        return f"Coverage of {self.graph.name}: {shares} have an exact formula{rest}"


def _origin(op: Op) -> str:
    return op.origin or op.kind


def _status(op: Op) -> tuple[Status, str]:
    """How an op is covered, and why when it is not exact."""
    try:
        _ = op.work
    except UnsupportedOpError as error:
        return "unsupported", error.what
    if op.approximated or op.kind == "generic":
        return "approximated", op.approximated or "counted as memory traffic only"
    return "supported", ""


def _cost(op: Op, status: Status) -> tuple[float, float]:
    if status == "unsupported":
        from accelsim.workload.ops import compulsory

        return 0.0, sum(compulsory(op)) * op.repeat
    return op.flops * op.repeat, op.bytes_compulsory * op.repeat


def _rows(graph: Graph) -> tuple[CoverageRow, ...]:
    groups: dict[tuple[str, str, Status], tuple[int, float, float, str]] = {}
    for op in graph:
        status, why = _status(op)
        flops, moved = _cost(op, status)
        key = (op.kind, op.origin, status)
        count, f, b, first_why = groups.get(key, (0, 0.0, 0.0, why))
        groups[key] = (count + op.repeat, f + flops, b + moved, first_why)
    total_flops = sum(f for _, f, _, _ in groups.values()) or 1.0
    total_bytes = sum(b for _, _, b, _ in groups.values()) or 1.0
    rows = (
        CoverageRow(kind, origin, status, count, 100 * f / total_flops, 100 * b / total_bytes, why)
        for (kind, origin, status), (count, f, b, why) in groups.items()
    )
    return tuple(sorted(rows, key=lambda row: -row.bytes_pct))
