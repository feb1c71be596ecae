"""Predicting operators by the thousand on a GPU: columns of shapes straight to the numba kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import Options
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.cost import SPLIT_ARRAY, device_array
from accelsim.architectures.gpu.host import host_bound_s, launch_gap_s
from accelsim.architectures.gpu.lower import ISOLATED_COPIES
from accelsim.architectures.gpu.rates import product_rate, wider
from accelsim.architectures.gpu.tiles import tile_table
from accelsim.architectures.opwork import output_bytes
from accelsim.architectures.single import Lowering, OpTable, predict_by_graph
from accelsim.core.precision import PrecisionPlan

Array = npt.NDArray[np.float64]

CHUNK = 65_536
"""Rows that are costed at once: bounds the memory of a million rows."""


def predict(
    architecture: Lowering,
    op: str,
    shapes: Mapping[str, Array],
    formats: PrecisionPlan,
    device: Any,
    options: Options,
) -> OpTable:
    """Predict rows of one operator.

    Products take the fast path; rarer operators are lowered as graphs. Both cost the same rows.

    Raises
    ------
    InfeasibleError
        The device lacks the precision.
    """
    if op not in ("gemm", "bmm"):
        return predict_by_graph(architecture, op, shapes, formats, device, options)
    count = len(shapes["m"])
    latency, dram, energy = np.empty(count), np.empty(count), np.empty(count)
    bound = np.empty(count, dtype=object)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        sizes = {name: values[part] for name, values in shapes.items()}
        latency[part], dram[part], energy[part], bound[part] = _products(op, sizes, formats, device, options)
    return OpTable(latency, dram, energy, bound)


def _products(
    op: str, s: Mapping[str, Array], formats: PrecisionPlan, device: Any, options: Options
) -> tuple[Array, Array, Array, Any]:
    right = formats.weight if op == "gemm" else formats.activation
    product = wider(formats.activation, right)
    rate, clock, _ = product_rate(device, product.name)
    width_a, width_b = formats.activation.bytes_per_element, right.bytes_per_element
    width_c = output_bytes(formats.activation)
    batch = s.get("batch", np.ones_like(s["m"]))
    m, n, k = s["m"], s["n"], s["k"]
    a, b, c = batch * m * k * width_a, batch * n * k * width_b, batch * m * n * width_c
    own = a + b + c
    rows = np.zeros((len(m), R.WIDTH))
    rows[:, R.KIND] = R.MATRIX
    for column, values in (
        (R.BATCH, batch), (R.M, m), (R.N, n), (R.K, k),
        (R.BYTES_A, width_a), (R.BYTES_B, width_b), (R.BYTES_C, width_c),
        (R.RATE, rate), (R.CLOCK, clock), (R.A_BYTES, a), (R.B_BYTES, b), (R.C_BYTES, c),
        (R.VECTOR_RATE, 1.0), (R.SHARE, 1.0),
    ):  # fmt: skip
        rows[:, column] = values
    again = own + (ISOLATED_COPIES - 1) * b if op == "gemm" else own
    for column, distance in (
        (R.A_DISTANCE, own),
        (R.B_DISTANCE, again),
        (R.C_DISTANCE, own),
        (R.EXTRA_DISTANCE, own),
    ):
        rows[:, column] = np.inf if options.cold else distance
    out = cost_table(rows, tile_table(device, width_a, width_b), device, options)
    return finished(out, device, options, _energy(2.0 * batch * m * n * k, out, product.name, device))


def cost_table(rows: Array, tiles: Array, device: Any, options: Options) -> Array:
    """Rows of one tile table costed by the numba kernel."""
    from accelsim.architectures.gpu.sm import cost_rows

    out = np.zeros((len(rows), R.OUT_WIDTH))
    constants = device.kernels.product.array
    cost_rows(rows, tiles[None], SPLIT_ARRAY, device_array(device), constants, options.governor, out)
    return out


def finished(out: Array, device: Any, options: Options, energy: Array) -> tuple[Array, Array, Array, Any]:
    """Latency with launch and host, DRAM bytes, energy, and what limits each row; as
    `cost._Writer.finish`."""
    body, fixed = out[:, R.OUT_BODY], out[:, R.OUT_FIXED]
    launch = launch_gap_s(device, options.stack) + device.kernels.product.ramp_s
    total = body + fixed + launch
    bound = np.array(R.BOUNDS, dtype=object)[out[:, R.OUT_BOUND].astype(int)]
    bound = np.where(fixed > body, "latency", bound)
    bound = np.where(launch > 0.5 * total, "launch", bound)
    host = host_bound_s(device, options.stack)
    bound = np.where(total < host, "launch", bound)
    return np.maximum(total, host), out[:, R.OUT_DRAM_BYTES], energy, bound


def _energy(flops: Array, out: Array, name: str, device: Any) -> Array:
    """Dynamic energy of products [J]; NaN where the device has no coefficient."""
    e = device.energy
    mac, dram, l2 = (
        np.nan if v is None else float(v) for v in (e.mac_j.get(name), e.dram_byte_j, e.sram_byte_j)
    )
    return flops / 2.0 * mac + out[:, R.OUT_DRAM_BYTES] * dram + out[:, R.OUT_L2_BYTES] * l2
