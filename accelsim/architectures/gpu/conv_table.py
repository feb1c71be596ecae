"""Predicting convolutions by the thousand: columns of shapes straight to the numba kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.conv import (
    ALGORITHMS,
    Kernels,
    conv_model,
    kernels_of,
    layers_of,
    table_keys,
)
from accelsim.architectures.gpu.cost import SPLIT_ARRAY, device_array
from accelsim.architectures.gpu.host import host_bound_s, launch_gap_s, ramp_s, stack_of
from accelsim.architectures.gpu.lower import ISOLATED_COPIES
from accelsim.architectures.gpu.tiles import tile_table
from accelsim.core.precision import PrecisionPlan

Array = npt.NDArray[np.float64]

CHUNK = 65_536
"""Rows that are costed at once: bounds the memory of a million rows."""

BOUND_NAMES = (*R.BOUNDS, "launch")
"""What limits a row, by code."""


def conv_rows(
    shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, stack: str, cold: bool
) -> tuple[Array, npt.NDArray[np.intp], Array]:
    """Predict convolutions of the operator table by the thousand.

    Parameters
    ----------
    shapes : mapping of str to ndarray
        Shape columns of ``conv2d``.
    formats : PrecisionPlan
    device : GpuDevice
    stack : str
        Software stack.
    cold : bool
        Nothing is in the L2.

    Returns
    -------
    latency_s : ndarray
        With launches and the host [s].
    bound : ndarray of int
        Index in `BOUND_NAMES`.
    dram_bytes : ndarray
        [B]

    Raises
    ------
    InfeasibleError
        The device lacks the precision.
    """
    count = len(shapes["c_in"])
    latency, bound, dram = np.empty(count), np.empty(count, dtype=np.intp), np.empty(count)
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        columns = {name: values[part] for name, values in shapes.items()}
        latency[part], bound[part], dram[part] = _chunk(columns, formats, device, stack, cold)
    return latency, bound, dram


def _chunk(
    shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, stack: str, cold: bool
) -> tuple[Array, npt.NDArray[np.intp], Array]:
    from accelsim.architectures.gpu.sm import cost_rows

    layers = layers_of(shapes, formats, device, cold, ISOLATED_COPIES)
    model = conv_model(device, stack)
    made = kernels_of(layers, model, planar=stack_of(stack).planar)
    width_a, width_b = formats.activation.bytes_per_element, formats.weight.bytes_per_element
    tensor = bool(layers.tensor[0]) if len(layers.tensor) else False
    tables = np.stack([tile_table(device, *key) for key in table_keys(model, width_a, width_b, tensor)])
    out = np.zeros((len(made.rows), R.OUT_WIDTH))
    constants = device.kernels.product.array
    cost_rows(made.rows, tables, SPLIT_ARRAY, device_array(device), constants, True, out)
    each = launch_gap_s(device, stack) + ramp_s(device)
    return _fastest(made, out, len(layers.pixels), each, host_bound_s(device, stack))


def _fastest(
    made: Kernels, out: Array, count: int, launch_s: float, host_s: float
) -> tuple[Array, npt.NDArray[np.intp], Array]:
    """Sum the rows of each algorithm of each convolution and take the fastest algorithm."""
    slot: npt.NDArray[np.intp] = made.owner * len(ALGORITHMS) + made.algorithm
    slots = count * len(ALGORITHMS)

    def total(values: Array) -> Array:
        return np.asarray(
            np.bincount(slot, weights=values, minlength=slots).reshape(count, -1), dtype=np.float64
        )

    body, fixed = out[:, R.OUT_BODY], out[:, R.OUT_FIXED]
    bodies, waits, launches = total(body), total(fixed), total(made.launches) * launch_s
    sums = np.where(launches > 0.0, bodies + waits + launches, np.inf)
    chosen = np.argmin(sums, axis=1)
    at = np.arange(count)
    latency = sums[at, chosen]
    # The longest row of the chosen algorithm names the bound.
    mine = np.flatnonzero(made.algorithm == chosen[made.owner])
    order = mine[np.argsort(body[mine] + fixed[mine], kind="stable")]
    bound = np.zeros(count, dtype=np.intp)
    bound[made.owner[order]] = out[order, R.OUT_BOUND].astype(np.intp)
    bound[waits[at, chosen] > bodies[at, chosen]] = BOUND_NAMES.index("latency")
    starved = (launches[at, chosen] > 0.5 * latency) | (latency < host_s)
    bound[starved] = BOUND_NAMES.index("launch")
    return np.maximum(latency, host_s), bound, total(out[:, R.OUT_DRAM_BYTES])[at, chosen]
