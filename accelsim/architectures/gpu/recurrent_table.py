"""Predicting recurrent layers by the thousand: columns of shapes straight to the numba kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.cost import SPLIT_ARRAY, device_array
from accelsim.architectures.gpu.finish import Timed, of_device, timed
from accelsim.architectures.gpu.lower import ISOLATED_COPIES
from accelsim.architectures.gpu.rates import product_rate, vector_rate, wider
from accelsim.architectures.gpu.recurrent import step_s
from accelsim.architectures.gpu.tiles import tile_table
from accelsim.core.precision import PrecisionPlan
from accelsim.workload.ops import TRANSCENDENTAL_OPS
from accelsim.workload.ops.recurrent import GRU_OPS, LSTM_OPS

Array = npt.NDArray[np.float64]

LAYERS = {"lstm": (4, LSTM_OPS), "gru": (3, GRU_OPS), "rnn": (1, TRANSCENDENTAL_OPS + 1)}
"""Gates, and elementwise operations per unit and step."""


def recurrent_rows(
    op: str, shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, stack: str, cold: bool
) -> Timed:
    """Predict recurrent layers, a launch per step; ``input`` 0 leaves the input product out.

    Parameters
    ----------
    op : str
        ``lstm``, ``gru`` or ``rnn``.
    shapes : mapping of str to ndarray
        Its shape columns.
    formats : PrecisionPlan
    device : GpuDevice
    stack : str
        Software stack.
    cold : bool
        Nothing is in the L2 when the layer starts.

    Raises
    ------
    InfeasibleError
        The device lacks the precision.
    """
    gates, per_unit = LAYERS[op]
    hidden, steps, batch, width = (shapes[name] for name in ("hidden", "steps", "batch", "input"))
    a, b = formats.activation.bytes_per_element, formats.weight.bytes_per_element
    wide = gates * hidden
    state, made, held = batch * hidden * a, batch * wide * a, hidden * wide * b
    x, w_ih, written = steps * batch * width * a, width * wide * b, steps * batch * hidden * a
    ahead = _products(device, formats, steps * batch, wide, np.maximum(width, 1.0))
    _move(ahead, (x, w_ih, written), (x + written, x + written + ISOLATED_COPIES * w_ih, x + written), cold)
    one = _products(device, formats, batch, wide, hidden)
    _move(one, (state, held, made), (0.0 * state, held + 2.0 * state + made, 0.0 * made), False)
    gate = np.zeros_like(one)
    lanes = vector_rate(device, formats.activation.name)
    gate[:, R.CLOCK], gate[:, R.VECTOR_RATE], gate[:, R.SHARE] = device.sm.clock_hz, lanes, 1.0
    gate[:, R.A_BYTES], gate[:, R.C_BYTES], gate[:, R.VECTOR_OPS] = made, state, batch * hidden * per_unit
    parts = [(_cost(rows, device, a, b), times) for rows, times in (
        (ahead, np.where(width > 0, 1.0, 0.0)), (one, steps), (gate, steps),
    )]  # fmt: skip
    launch, host = of_device(device, stack)
    total, sums = step_s(device, stack, op) * steps, np.zeros((len(steps), R.OUT_SUMS))
    for column in (R.OUT_FIXED, R.STALL_LAUNCH):
        sums[:, column] = total
    for out, times in parts:
        total += times * (out[:, R.OUT_BODY] + out[:, R.OUT_FIXED] + launch)
        sums += times[:, None] * out[:, : R.OUT_SUMS]
    return timed(sums, (parts[0][1] + 2.0 * steps) * launch, host, total)


def _products(device: Any, formats: PrecisionPlan, m: Array, n: Array, k: Array) -> Array:
    product = wider(formats.activation, formats.weight)
    rate, clock, _ = product_rate(device, product.name)
    a, b = formats.activation.bytes_per_element, formats.weight.bytes_per_element
    rows = np.zeros((len(m), R.WIDTH))
    rows[:, R.KIND], rows[:, R.BATCH], rows[:, R.SHARE] = R.MATRIX, 1.0, 1.0
    rows[:, R.M], rows[:, R.N], rows[:, R.K], rows[:, R.INTEGER] = m, n, k, product.is_integer
    rows[:, R.BYTES_A], rows[:, R.BYTES_B], rows[:, R.BYTES_C] = a, b, a
    rows[:, R.RATE], rows[:, R.CLOCK], rows[:, R.VECTOR_RATE] = rate, clock, 1.0
    return rows


def _move(rows: Array, moved: tuple[Array, ...], distances: tuple[Array, ...], cold: bool) -> None:
    columns = ((R.A_BYTES, R.A_DISTANCE), (R.B_BYTES, R.B_DISTANCE), (R.C_BYTES, R.C_DISTANCE))
    for (size, gap), value, distance in zip(columns, moved, distances):
        rows[:, size], rows[:, gap] = value, np.inf if cold else distance


def _cost(rows: Array, device: Any, a: float, b: float) -> Array:
    from accelsim.architectures.gpu.sm import cost_rows

    out = np.zeros((len(rows), R.OUT_WIDTH))
    tables = tile_table(device, a, b)[None]
    cost_rows(rows, tables, SPLIT_ARRAY, device_array(device), device.kernels.product.array, True, out)
    return out
