"""An error band that a calibration found."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accelsim.hardware.section import Count, Fraction, Seconds, Section


class Band(Section):
    """Measured over predicted latency of rows that constants were not fitted on.

    The logarithm of a row's band is ``middle + log(low) spread`` to ``middle + log(high) spread``, where
    ``middle`` and the logarithm of ``spread`` are linear in what the model knows of the row, see
    `accelsim.architectures.gpu.intervals.features`.
    """

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]
    """Ends of the band of a row of middling difficulty."""
    level: Fraction
    rows: Count
    shortest_s: Seconds = Field(alias="shortest")
    longest_s: Seconds = Field(alias="longest")
    """Predicted latencies that the rows span."""
    middle: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    """Coefficients by feature; none: all rows have the same band."""

    @classmethod
    def of(
        cls,
        low: float,
        high: float,
        level: float,
        rows: int,
        shortest_s: float,
        longest_s: float,
        middle: tuple[float, ...] = (),
        spread: tuple[float, ...] = (),
    ) -> Band:
        """A band from SI numbers, where a file would have units."""
        span = {"shortest": f"{shortest_s!r} s", "longest": f"{longest_s!r} s"}
        by_feature = {"middle": middle, "spread": spread}
        return cls.model_validate(
            {"low": low, "high": high, "level": level, "rows": rows} | span | by_feature
        )
