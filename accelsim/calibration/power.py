"""Fitting the power model of a GPU on measured board power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu.power_rows import Activity, activity
from accelsim.architectures.opschema import shapes
from accelsim.architectures.opwork import groups
from accelsim.core.errors import RequestError
from accelsim.core.precision import plan
from accelsim.hardware.power_kernels import PowerModel

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

_START = np.log((0.3, 4.0, 4.0))
_STEPS = 400
_LEAST_ROWS = 50


@dataclass(frozen=True)
class Fitted:
    """Constants of one family, the rows behind them, and the mean absolute log error on those."""

    family: str
    model: PowerModel
    rows: int
    error: float


def activities(frame: pd.DataFrame, device: Any, stack: str) -> list[tuple[Activity, npt.NDArray[np.intp]]]:
    """What the rows of a measurement table do by operator, format and kind of scales, and their positions."""
    found = []
    for op, text, rows in groups(frame):
        sizes = shapes(frame.iloc[rows], op)
        blocks = sizes.get("scale_block", np.zeros(len(rows))) > 0
        for part in (~blocks, blocks):
            if part.any():
                mine = {name: values[part] for name, values in sizes.items()}
                found.append((activity(op, mine, plan(text), device, stack), rows[part]))
    return found


def predict_power(frame: pd.DataFrame, device: Any, stack: str) -> Array:
    """Mean board power of each row in the time that it took [W].

    Parameters
    ----------
    frame : DataFrame
        Rows of the measurement schema, of operators in `accelsim.architectures.gpu.power_rows.OPS`.
    device : GpuDevice
    stack : str
    """
    out = np.empty(len(frame))
    taken = frame["latency_s"].to_numpy(dtype=float)
    for what, rows in activities(frame, device, stack):
        out[rows] = what.power_w(device, taken[rows])
    return out


@dataclass(frozen=True)
class Sensor:
    """What a driver's reading holds of a kernel that has not run for long, by operator.

    A reading averages over some time. Benchmarks repeat a kernel a fixed number of times, so the share of
    that time in which it ran grows with its duration t: reading = before + (power − before)(1 − exp(−t / τ)).

    Attributes
    ----------
    before_w : float
        Power that was read before the kernel ran: of the kernels before it and of pauses [W].
    settling_s : float
        τ, in durations of one kernel [s].
    """

    before_w: float
    settling_s: float

    def reading_w(self, power_w: Array, taken_s: Array) -> Array:
        """What is read of kernels that draw `power_w` for `taken_s` [W]."""
        followed = 1.0 - np.exp(-np.asarray(taken_s) / self.settling_s)
        return self.before_w + (np.asarray(power_w) - self.before_w) * followed


def fit_sensor(frame: pd.DataFrame) -> dict[str, Sensor]:
    """Fit `Sensor` for each operator of a table with ``op``, ``latency_s``, ``power_w`` and ``predicted_w``.

    The loss is that of `fit_power`; the power itself stays as predicted.
    """
    found = {}
    for op, part in frame.groupby("op", sort=True):
        taken, true, read = (part[n].to_numpy(float) for n in ("latency_s", "predicted_w", "power_w"))

        def loss(logs: Array, true: Array = true, taken: Array = taken, read: Array = read) -> float:
            before, settling = np.exp(logs)
            told = Sensor(before, settling).reading_w(true, taken)
            return float(np.mean(np.abs(np.log(told / read))))

        start = np.log((np.median(read), 50e-6))
        point, _ = min((_nelder_mead(loss, start + shift) for shift in (0.0, 1.0)), key=lambda pair: pair[1])
        before, settling = np.exp(point)
        found[str(op)] = Sensor(float(before), float(settling))
    return found


def fit_power(frame: pd.DataFrame, device: Any, stack: str) -> list[Fitted]:
    """Fit ``kernels.power`` of a device.

    Parameters
    ----------
    frame : DataFrame
        Training rows with ``latency_s`` and ``power_w`` [W].
    device : GpuDevice
        Gives TDP, idle power and the bare energies that the constants multiply.
    stack : str

    Returns
    -------
    list of Fitted
        Of each family with 50 rows or more. The loss is the mean absolute log ratio, which outliers move
        little; Nelder and Mead's simplex (1965, doi:10.1093/comjnl/7.4.308) minimises it.

    Raises
    ------
    RequestError
        No power column, or TDP or idle power of the device unknown.
    """
    if "power_w" not in frame.columns:
        raise RequestError("the measurements have no column 'power_w'")
    if device.power.tdp_w is None or device.power.idle_w is None:
        raise RequestError(f"{device.name} has no TDP or no idle power")
    families: dict[str, list[tuple[Activity, npt.NDArray[np.intp]]]] = {}
    for what, rows in activities(frame, device, stack):
        families.setdefault(what.family, []).append((what, rows))
    taken = frame["latency_s"].to_numpy(dtype=float)
    power = frame["power_w"].to_numpy(dtype=float)
    found = []
    for name, parts in sorted(families.items()):
        rows = np.concatenate([r for _, r in parts])
        if len(rows) < _LEAST_ROWS:
            continue
        rates = np.concatenate([_rates(what, device, taken[r]) for what, r in parts])
        numbers, error = _simplex(rates, power[rows] - device.power.idle_w, device)
        share = min(1.0, float(numbers[0]))
        model = PowerModel(active=share, mac=float(numbers[1]), dram=float(numbers[2]))
        found.append(Fitted(name, model, len(rows), error))
    return found


def _rates(what: Activity, device: Any, taken_s: Array) -> Array:
    """Columns: power at a factor of one of arithmetic and of DRAM, and that of the L2, which has none [W]."""
    energy = device.energy
    columns = (
        what.flops / 2.0 * what.mac_j,
        what.dram_bytes * energy.dram_byte_j,
        what.l2_bytes * energy.sram_byte_j,
    )
    return np.stack(columns, axis=1) / taken_s[:, None]


def _simplex(rates: Array, above_w: Array, device: Any) -> tuple[Array, float]:
    """Constants (active, mac, dram) with the least mean absolute log error of board power."""
    idle, head = device.power.idle_w, device.power.tdp_w - device.power.idle_w
    measured = np.log(np.maximum(above_w + idle, 1.0))

    def loss(logs: Array) -> float:
        active, mac, dram = np.exp(np.minimum(logs, 20.0))
        drawn = min(active, 1.0) * head + mac * rates[:, 0] + dram * rates[:, 1] + rates[:, 2]
        return float(np.mean(np.abs(np.log(np.minimum(drawn, head) + idle) - measured)))

    best, best_loss = _START, loss(_START)
    for shift in (0.0, 0.7, -0.7):
        point, value = _nelder_mead(loss, _START + shift)
        point, value = _nelder_mead(loss, point)
        if value < best_loss:
            best, best_loss = point, value
    return np.exp(best), best_loss


def _nelder_mead(loss: Any, start: Array) -> tuple[Array, float]:
    """Downhill simplex with the usual coefficients (1, 2, 1/2, 1/2)."""
    size = len(start)
    points = np.vstack([start, start + 0.4 * np.eye(size)])
    values = np.array([loss(p) for p in points])
    for _ in range(_STEPS):
        order = np.argsort(values, kind="stable")
        points, values = points[order], values[order]
        centre = points[:-1].mean(axis=0)
        reflected = 2.0 * centre - points[-1]
        value = loss(reflected)
        if value < values[0]:
            far = 3.0 * centre - 2.0 * points[-1]
            wide = loss(far)
            reflected, value = (far, wide) if wide < value else (reflected, value)
        elif value >= values[-2]:
            reflected = 0.5 * (centre + points[-1])
            value = loss(reflected)
            if value >= values[-1]:
                points[1:] = 0.5 * (points[1:] + points[0])
                values[1:] = [loss(p) for p in points[1:]]
                continue
        points[-1], values[-1] = reflected, value
    best = int(np.argmin(values))
    return points[best], float(values[best])
