"""Accuracy under attack: shown where a source is cited, unknown everywhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from accelsim.core.errors import RequestError

FIELDS = ("technique", "level", "value_pct", "attack", "source")


def cited(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Cited numbers by technique and level.

    Parameters
    ----------
    rows : iterable of mapping
        ``technique level value_pct attack source``: accuracy under an attack [%].

    Raises
    ------
    RequestError
        A field is missing, a number is no percentage, or it has no source.
    """
    found = {}
    for row in rows:
        where = f"robustness of {row.get('technique', '?')} {row.get('level', '?')}"
        for name in FIELDS:
            if row.get(name) in (None, ""):
                raise RequestError(f"'{name}' is missing", where, "a number without its source is not shown")
        value = row["value_pct"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise RequestError(f"'{value}' is not a percentage", where)
        if not 0 <= value <= 100:
            raise RequestError(f"{value:g} % is not from 0 to 100", where)
        found[str(row["technique"]), str(row["level"])] = row
    return found


def robustness_of(
    row: Mapping[str, Any], known: Mapping[tuple[str, str], Mapping[str, Any]]
) -> dict[str, str]:
    """Columns ``robustness`` and ``robustness_basis`` of a row of the trade-off table."""
    held = known.get((str(row["technique"]), str(row["level"])))
    if held is None:
        reason = (
            f"no cited accuracy under attack of {row['workload']} after {row['technique']} {row['level']}"
        )
        return {"robustness": "unknown", "robustness_basis": reason}
    return {
        "robustness": f"{held['value_pct']:g} % under {held['attack']}",
        "robustness_basis": str(held["source"]),
    }
