"""The answer of a sweep or a search: its rows, and the questions one asks of them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.core.accessors import Accessible
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.frames import records
from accelsim.explore.pareto import hypervolume, knee, nondominated, oriented

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pandas as pd

FIRST_COLUMNS = ("workload", "hardware", "batch", "precision", "status", "reason", "need", "have", "hint")


class Study(Accessible):
    """Points with their numbers.

    Parameters
    ----------
    frame : DataFrame
        One row per point; infeasible points are rows with ``reason need have hint`` and no numbers.
    axes : tuple of str
        Parameters that were varied.

    Attributes
    ----------
    frame : DataFrame
        In the order of the space.
    """

    def __init__(self, frame: pd.DataFrame, axes: Sequence[str] = ()) -> None:
        first = [c for c in FIRST_COLUMNS if c in frame.columns]
        names = [*first, *(c for c in frame.columns if c not in first)]
        self.frame = frame if names == list(frame.columns) else frame[names]
        self.axes = tuple(axes)

    @cached_property
    def rows(self) -> tuple[dict[str, Any], ...]:
        """The points as plain rows: infeasible ones without numbers, feasible ones without a reason."""
        why = ("reason", "need", "have", "hint")
        return tuple(
            {k: v for k, v in row.items() if (v == v if row["status"] != "ok" else k not in why)}
            for row in records(self.frame)
        )

    @property
    def feasible(self) -> pd.DataFrame:
        return self.frame[self.frame["status"] == "ok"]

    @property
    def infeasible(self) -> int:
        """Points that no device can run as asked."""
        return len(self.frame) - len(self.feasible)

    # -- questions
    # ---------------------------------------------------------------------------------------------------

    def where(self, condition: str | None) -> pd.DataFrame:
        """Feasible points that meet a condition on the columns, such as ``latency_s < 0.01``.

        Raises
        ------
        RequestError
            The condition cannot be read.
        """
        frame = self.feasible
        if not condition:
            return frame
        try:
            return frame.query(condition)
        except (ValueError, SyntaxError, KeyError, TypeError, NameError, AttributeError) as error:
            raise RequestError(f"the condition '{condition}' cannot be read ({error})") from None

    def pareto(
        self, *objectives: str, where: str | None = None, maximise: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Points that no other point beats in every objective.

        Parameters
        ----------
        *objectives : str
            Columns; at least two.
        where : str, optional
            A condition that points must meet.
        maximise : sequence of str, optional
            Objectives of which more is better; by default throughputs, accuracies and utilisations.

        Returns
        -------
        DataFrame
            Sorted by the first objective. Points whose objective is unknown (NaN) are left out.
        """
        frame, values = self._valued(objectives, where, maximise)
        return frame[nondominated(values)].sort_values(objectives[0])

    def knee(self, *objectives: str, where: str | None = None, maximise: Sequence[str] | None = None) -> Any:
        """The point of the front farthest below the line (plane) through its ends; see `pareto.knee`."""
        frame, values = self._valued(objectives, where, maximise)
        front = nondominated(values)
        if not front.any():
            raise RequestError("no feasible point has all of these objectives", ", ".join(objectives))
        return frame[front].iloc[knee(values[front])]

    def hypervolume(
        self,
        *objectives: str,
        where: str | None = None,
        maximise: Sequence[str] | None = None,
        reference: Sequence[float] | None = None,
    ) -> float:
        """Volume that the front dominates, each objective scaled to the range of the feasible points.

        ``reference`` is the worst corner in the objectives' own units; by default the worst feasible values.
        """
        frame, values = self._valued(objectives, where, maximise)
        if not len(frame):
            return 0.0
        worst = values.max(axis=0) if reference is None else oriented([reference], objectives, maximise)[0]
        best = values.min(axis=0)
        span = worst - best
        span[span == 0.0] = 1.0
        scaled = (values[nondominated(values)] - best) / span
        return hypervolume(scaled, (worst - best) / span)

    def _valued(
        self, objectives: Sequence[str], where: str | None, maximise: Sequence[str] | None
    ) -> tuple[pd.DataFrame, Any]:
        if not objectives:
            raise RequestError("name the objectives", hint="such as 'latency_s', 'energy_per_item_j'")
        frame = self.where(where)
        for name in (*objectives, *(maximise or ())):
            if name not in frame.columns:
                raise RequestError(f"no column '{name}'", hint=did_you_mean(name, frame.columns))
        frame = frame.dropna(subset=list(objectives))
        return frame, oriented(frame[list(objectives)].to_numpy(float), objectives, maximise)

    if TYPE_CHECKING:  # accessors that accelsim/__init__.py registers

        @property
        def plot(self) -> Any: ...

        def report(self, path: str | Path, **settings: Any) -> Path: ...

        def to_latex(self, path: str | Path, **settings: Any) -> Path: ...

        def to_csv(self, path: str | Path) -> Path: ...

        def to_parquet(self, path: str | Path) -> Path: ...

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"Study of {len(self)} points, {self.infeasible} infeasible"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.frame.to_html(max_rows=20, notebook=True)}"
