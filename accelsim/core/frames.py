"""Tables as rows of plain Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
