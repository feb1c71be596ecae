"""Predicting single operators by the thousand: a table of shapes in, the same rows with latencies out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.architectures import architecture_of
from accelsim.architectures.base import STALLS, Options
from accelsim.architectures.opschema import check, shapes
from accelsim.architectures.opwork import groups
from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import plan
from accelsim.hardware.schema import Device
from accelsim.hardware.spec import load_hardware

if TYPE_CHECKING:
    import pandas as pd

ANSWERS = ("latency_s", "low_s", "high_s", "bound", "energy_j")
PARTS = tuple(f"stall_{name}_s" for name in STALLS)


def predict_ops(
    frame: pd.DataFrame,
    hardware: str | Path | Device,
    *,
    stack: str = "graph",
    cold: bool = False,
    stalls: bool = False,
) -> pd.DataFrame:
    """Predict the latency of single operators, back to back as benchmarks run them.

    Parameters
    ----------
    frame : DataFrame
        Columns ``op`` and ``precision`` (``bf16``, or by role: ``weight=int4,activation=bf16``) and the shape
        columns of each op, see `accelsim.architectures.opschema.OPS` and docs/definitions.md. Optional
        columns may be absent or empty.
    hardware : str or Path or Device
        A device that runs kernels in turn: a GPU, a systolic array or an overlay.
    stack : str
        Software stack, see `simulate`.
    cold : bool
        Nothing is on chip before each operator.
    stalls : bool
        Also say what each latency is spent on; off by default, since it is eight more columns.

    Returns
    -------
    DataFrame
        The same rows in the same order with ``latency_s``, its error band ``low_s high_s``, ``bound`` and the
        dynamic ``energy_j``; with `stalls` also ``stall_compute_s`` ... ``stall_link_s`` (see
        docs/definitions.md), which sum to the latency, or are NaN where a model has no such breakdown.

    Raises
    ------
    RequestError
        Names the rows and columns: a missing column, an empty or unusable cell, an unknown op, a precision
        that the device lacks, an op that it cannot run.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise RequestError(
            f"rows come in a DataFrame, not in a {type(frame).__name__}", hint="pd.DataFrame(rows)"
        )
    check(frame)
    device: Any = load_hardware(hardware)
    architecture = architecture_of(device.kind)
    options = Options(stack=stack, cold=cold)
    count = len(frame)
    numbers = {name: np.full(count, np.nan) for name in ("latency_s", "low_s", "high_s", "energy_j")}
    bound = np.full(count, "", dtype=object)
    parts = np.full((count if stalls else 0, len(PARTS)), np.nan)
    for op, text, rows in groups(frame):
        formats = plan(text)
        part = shapes(frame.iloc[rows] if len(rows) < count else frame, op)
        try:
            table = architecture.predict(op, part, formats, device, options)
        except InfeasibleError as error:
            problem = error.outcome
            where = f"{op} in {text}, rows {', '.join(map(str, rows[:5]))}{' ...' if len(rows) > 5 else ''}"
            raise RequestError(
                f"{device.name} cannot run it ({problem.reason}): needs {problem.need}, has {problem.have}",
                where,
                problem.hint,
            ) from None
        low, high = architecture.op_band(op, formats, device, options, table)
        numbers["latency_s"][rows] = table.latency_s
        numbers["energy_j"][rows] = table.energy_j
        numbers["low_s"][rows] = table.latency_s * low
        numbers["high_s"][rows] = table.latency_s * high
        bound[rows] = table.bound
        if stalls and table.stalls_s is not None:
            parts[rows] = table.stalls_s
    answers = pd.DataFrame({**numbers, "bound": bound}, index=frame.index)[list(ANSWERS)]
    old = [c for c in (*ANSWERS, *PARTS) if c in frame.columns]
    extra = [pd.DataFrame(parts, index=frame.index, columns=list(PARTS))] if stalls else []
    return pd.concat([frame.drop(columns=old), answers, *extra], axis=1)
