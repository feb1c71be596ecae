"""A table of the validation report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table:
    """A titled table with a note on what its rows are."""

    title: str
    note: str
    frame: pd.DataFrame

    def markdown(self) -> str:
        """The table for a Markdown file; numbers with three significant digits, counts whole."""
        names = [str(c) for c in self.frame.columns]
        lines = [f"### {self.title}", "", self.note, "", _row(names), _row(["---"] * len(names))]
        lines += [_row([_cell(v) for v in row]) for row in self.frame.itertuples(index=False)]
        return "\n".join([*lines, ""])


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        if value != value:
            return "unknown"
        return str(int(value)) if value.is_integer() and abs(value) >= 100 else f"{value:.3g}"
    return str(value)
