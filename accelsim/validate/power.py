"""GPU board power against measurements: what is read, which rows count, and the table of the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.calibration.power import Sensor, predict_power
from accelsim.calibration.splits import held_out
from accelsim.hardware.spec import load_hardware
from accelsim.validate import aiconfigurator
from accelsim.validate.table import Table

if TYPE_CHECKING:
    import pandas as pd

DEVICE, STACK = "b200", "vllm"
LEAST_S = 200e-6
"""Kernels from here on were read at least five times (readings follow in proportion to the duration)."""


SENSOR = {
    "attention_decode": Sensor(356.0, 184e-6),
    "attention_prefill": Sensor(442.0, 17.7e-6),
    "moe": Sensor(502.0, 106e-6),
}
"""What the driver of the B200 read of short kernels: ``validation/fit_power.py --sensor``, training rows."""


def rows() -> pd.DataFrame:
    """Every row with board power: B200, attention and expert layers of vLLM 0.22.0.

    Returns
    -------
    DataFrame
        In the measurement schema with ``power_w`` [W] and ``quality``: ``steady``; ``short``, where the
        kernel is shorter than 200 us; ``single``, where one reading of the driver stands for the row.
    """
    import pandas as pd

    parts = []
    for load in (
        aiconfigurator.attention_prefill,
        aiconfigurator.attention_decode,
        aiconfigurator.moe,
    ):
        frame = load(DEVICE, versions="all")
        parts.append(frame[frame["power_w"].to_numpy(dtype=float) > 0])
    frame = pd.concat([p.astype({"op": str, "precision": str}) for p in parts], ignore_index=True)
    single, short = single_reading(frame), (frame["latency_s"] < LEAST_S).to_numpy()
    return frame.assign(quality=np.where(single, "single", np.where(short, "short", "steady")))


def single_reading(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows whose power is one reading of the driver rather than a mean.

    The driver reads whole milliwatts, so a mean of several readings almost never is. One reading at the start
    of a kernel shows what ran before: equal kernels of 6 us read 270 to 925 W.
    """
    milliwatts = frame["power_w"].to_numpy(dtype=float) * 1e3
    single: npt.NDArray[np.bool_] = np.abs(milliwatts - np.round(milliwatts)) < 1e-5
    return single


def tables() -> Iterator[Table]:
    """Board power of held-out rows, in the time that they were measured to take."""
    frame = rows()
    frame = frame[held_out(frame)].reset_index(drop=True)
    device = load_hardware(DEVICE)
    frame = frame.assign(predicted_w=predict_power(frame, device, STACK))
    steady = frame[frame["quality"] == "steady"]
    note = (
        "B200, vLLM 0.22.0, NVML means; held-out shape groups, constants fitted on the others. Steady: "
        "kernels of 200 us and longer, several readings. Power follows from work, traffic and the measured "
        "duration: these kernels are older than those whose latency is modelled."
    )
    yield Table("Board power", note, errors(steady, ["op", "precision"]))
    note = "Short: below 200 us. Single: one reading, which shows what ran before."
    yield Table("Board power by quality of the reading", note, errors(frame, ["quality"]))
    note = (
        "The same power behind a sensor that still holds what ran before: of a kernel of duration t it shows "
        "1 - exp(-t / tau), two constants per operator fitted on training rows. What ran before a row is not "
        "in the tables, so its mean stands for it and the scatter of short rows stays."
    )
    yield Table("Board power as the sensor reads it", note, errors(as_read(frame), ["quality"]))


def as_read(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``predicted_w`` as `SENSOR` would read it."""
    told = frame["predicted_w"].to_numpy(dtype=float).copy()
    taken, op = frame["latency_s"].to_numpy(dtype=float), frame["op"].to_numpy()
    for name, sensor in SENSOR.items():
        mine = op == name
        told[mine] = sensor.reading_w(told[mine], taken[mine])
    return frame.assign(predicted_w=told)


def errors(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Rows and errors of power in percent, by columns, and over all."""
    import pandas as pd

    error = 100.0 * (frame["predicted_w"] / frame["power_w"] - 1.0)
    table = frame[by].astype(str).assign(error=error, size=error.abs())
    grouped = table.groupby(by, sort=True)
    out = grouped.agg(
        rows=("size", "size"),
        mape_pct=("size", "mean"),
        median_ape_pct=("size", "median"),
        p90_ape_pct=("size", lambda s: s.quantile(0.9)),
        bias_pct=("error", "median"),
    ).reset_index()
    whole = {
        **dict.fromkeys(by, "all"),
        "rows": len(table),
        "mape_pct": table["size"].mean(),
        "median_ape_pct": table["size"].median(),
        "p90_ape_pct": table["size"].quantile(0.9),
        "bias_pct": table["error"].median(),
    }
    return pd.concat([out, pd.DataFrame([whole])], ignore_index=True)
