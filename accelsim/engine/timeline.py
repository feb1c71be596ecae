"""Timelines: what ran where and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("op", "lane", "start_s", "end_s", "kind", "bytes")


class Segment(NamedTuple):
    """A stretch of time that a lane is busy with one op.

    Attributes
    ----------
    op, lane : str
    start_s, end_s : float
        [s]
    kind : {"compute", "memory", "link", "overhead"}
    bytes : float
        What moved [B].
    """

    op: str
    lane: str
    start_s: float
    end_s: float
    kind: str
    bytes: float


def frame(segments: Iterable[Segment]) -> pd.DataFrame:
    """Segments as a table, by start time."""
    import pandas as pd

    table = pd.DataFrame(list(segments), columns=list(COLUMNS))
    return table.sort_values(["start_s", "lane"], kind="stable", ignore_index=True)


def busy_s(segments: Iterable[Segment]) -> dict[str, float]:
    """Busy time of each lane [s]."""
    total: dict[str, float] = {}
    for s in segments:
        total[s.lane] = total.get(s.lane, 0.0) + s.end_s - s.start_s
    return total
