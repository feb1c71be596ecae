"""What the names in a result mean: docs/definitions.md, read by name, is the one place that says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

from accelsim.core.paths import data_folder
from accelsim.core.units import column_unit

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.engine.result import Result

SECTIONS = {
    "ops": ("Columns of `Result.ops`",),
    "timeline": ("Columns of `Result.timeline`",),
    "summary": (
        "What was asked for", "Work", "Time", "Energy, memory, money", "Resources", "Evidence",
        "Spikes, gradients, explanations",
    ),
}  # fmt: skip
"""Where the definitions of a table's names are; the ops' fall back to those of the summary."""


@dataclass(frozen=True)
class Glossary:
    """Units and meanings of the names in a result.

    Attributes
    ----------
    rows : tuple of (str, str, str, str)
        Table (``summary``, ``ops`` or ``timeline``), name, unit and meaning.
    """

    rows: tuple[tuple[str, str, str, str], ...]

    @property
    def frame(self) -> pd.DataFrame:
        """Columns ``table name unit meaning``."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=["table", "name", "unit", "meaning"])

    def __repr__(self) -> str:
        lines = []
        for table, rows in groupby(self.rows, itemgetter(0)):
            lines.append(table)
            for (unit, words), same in groupby(rows, itemgetter(2, 3)):
                names = ", ".join(name for _, name, _, _ in same)
                lines.append(f"  {names}{f' [{unit}]' if unit else ''}: {words}")
        return "\n".join(lines)


def glossary(result: Result) -> Glossary:
    """Units and meanings of every name in the summary and the tables of a result."""
    names = {"summary": [*result.summary], "ops": [*result.ops], "timeline": [*result.timeline]}
    rows = []
    for table, columns in names.items():
        known = definitions("summary") | definitions(table)
        rows += [(table, name, column_unit(name)[1], meaning(name, known)) for name in columns]
    return Glossary(tuple(rows))


def meaning(name: str, known: Mapping[str, str]) -> str:
    """The definition of a name or of the narrowest pattern that it fits; empty where there is none."""
    if name in known:
        return known[name]
    patterns = [key for key in known if "*" in key and fnmatchcase(name, key)]
    return known[max(patterns, key=len)] if patterns else ""


@cache
def definitions(table: str) -> dict[str, str]:
    """Names, or patterns with ``*``, and what they mean, from the table rows of a table's sections."""
    text = (data_folder("docs") / "definitions.md").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        head, _, body = section.partition("\n")
        if head in SECTIONS[table]:
            for names, words in re.findall(r"^\| (.+?) \| (.+) \|$", body, re.MULTILINE):
                plain = words.replace("`", "").replace("\\|", "|")
                found |= dict.fromkeys(re.findall(r"`([^`]+)`", names), plain)
    return found
