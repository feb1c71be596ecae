"""An error band that a calibration found."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accelsim.hardware.section import Count, Fraction, Seconds, Section


class Band(Section):
    """Measured over predicted latency of rows that constants were not fitted on."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]
    """Quantiles (1 - level) / 2 and (1 + level) / 2."""
    level: Fraction
    rows: Count
    shortest_s: Seconds = Field(alias="shortest")
    longest_s: Seconds = Field(alias="longest")
    """Predicted latencies that the rows span."""

    @classmethod
    def of(
        cls, low: float, high: float, level: float, rows: int, shortest_s: float, longest_s: float
    ) -> Band:
        """A band from SI numbers, where a file would have units."""
        span = {"shortest": f"{shortest_s!r} s", "longest": f"{longest_s!r} s"}
        return cls.model_validate({"low": low, "high": high, "level": level, "rows": rows, **span})
