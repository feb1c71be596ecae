"""Measured rows as an architecture predicts them, again and again, for fits and residuals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures import architecture_of
from accelsim.architectures.base import STALLS, Options
from accelsim.architectures.gpu.intervals import format_of
from accelsim.architectures.opschema import shapes
from accelsim.architectures.opwork import groups
from accelsim.calibration.splits import shape_groups
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import PrecisionPlan, plan
from accelsim.hardware.stacks import stacks

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Part:
    """Rows of one operator, format and stack."""

    op: str
    formats: PrecisionPlan
    stack: str
    sizes: dict[str, Array]
    rows: Rows


@dataclass(frozen=True)
class Sample:
    """Measured rows, ready to be predicted.

    Attributes
    ----------
    frame : DataFrame
    parts : tuple of Part
        Together all rows.
    measured_s : ndarray
    group : ndarray of int
        Shape group of each row.
    """

    frame: pd.DataFrame
    parts: tuple[Part, ...]
    measured_s: Array
    group: Rows

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Sample:
        """Rows of a measurement table that `check_measurements` accepts."""
        frame = frame.reset_index(drop=True)
        parts: list[Part] = []
        for stack, mine in _by_stack(frame):
            part = frame if len(mine) == len(frame) else frame.iloc[mine]
            for op, text, rows in groups(part):
                parts.append(Part(op, plan(text), stack, shapes(part.iloc[rows], op), mine[rows]))
        return cls(frame, tuple(parts), frame["latency_s"].to_numpy(dtype=float), shape_groups(frame))

    def take(self, rows: npt.ArrayLike) -> Sample:
        """Some of the rows."""
        at = np.asarray(rows)
        return Sample.of(self.frame.iloc[np.flatnonzero(at) if at.dtype == bool else at])

    def __len__(self) -> int:
        return len(self.frame)

    def thinned(self, most: int, seed: int) -> Sample:
        """At most so many rows, drawn at random."""
        if len(self) <= most:
            return self
        chosen = np.random.default_rng(seed).choice(len(self), most, replace=False)
        return self.take(np.sort(chosen))

    def log_ratio(self, device: Any) -> Array:
        """Logarithm of predicted over measured latency of each row; NaN where the device lacks the format."""
        found = np.full(len(self), np.nan)
        for part, table in self._tables(device):
            found[part.rows] = np.log(table.latency_s)
        return found - np.log(self.measured_s)

    def residuals(self, device: Any) -> pd.DataFrame:
        """Rows that the device can run: columns ``op formats stack predicted_s bound log_ratio group`` and
        ``stall_compute_s`` ... beside those of the measurement; ``log_ratio`` is the logarithm of measured
        over predicted latency.
        """
        predicted, bound = np.full(len(self), np.nan), np.full(len(self), "", dtype=object)
        formats, stack = (np.full(len(self), "", dtype=object) for _ in range(2))
        stalls = np.zeros((len(self), len(STALLS)))
        for part, table in self._tables(device):
            predicted[part.rows], bound[part.rows] = table.latency_s, table.bound
            formats[part.rows], stack[part.rows] = format_of(part.op, part.formats), part.stack
            if table.stalls_s is not None:
                stalls[part.rows] = table.stalls_s
        frame = self.frame.assign(
            predicted_s=predicted,
            bound=bound,
            formats=formats,
            stack=stack,
            group=self.group,
            log_ratio=np.log(self.measured_s) - np.log(predicted),
            **{f"stall_{name}_s": stalls[:, column] for column, name in enumerate(STALLS)},
        )
        return frame[np.isfinite(predicted)].reset_index(drop=True)

    def _tables(self, device: Any) -> Iterator[tuple[Part, Any]]:
        architecture = architecture_of(device.kind)
        for part in self.parts:
            try:
                table = architecture.predict(
                    part.op, part.sizes, part.formats, device, Options(stack=part.stack)
                )
            except InfeasibleError:
                continue
            yield part, table


def usable(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows without a flag: their conditions are those that predictions assume."""
    if "flag" not in frame.columns:
        return np.ones(len(frame), dtype=bool)
    flag = frame["flag"].astype(object)
    return np.asarray(flag.isna() | (flag.astype(str).str.strip() == ""), dtype=bool)


def _by_stack(frame: pd.DataFrame) -> list[tuple[str, Rows]]:
    """Rows by the stack that predicts them: their backend where that is one, else a replayed graph."""
    if "backend" not in frame.columns:
        return [("graph", np.arange(len(frame)))]
    names = frame["backend"].astype(object).fillna("").astype(str)
    stack = np.array([name if name in stacks() else "graph" for name in names], dtype=object)
    return [(str(s), np.flatnonzero(stack == s)) for s in sorted(set(stack))]
