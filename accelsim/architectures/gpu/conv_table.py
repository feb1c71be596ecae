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
from accelsim.architectures.gpu.finish import Timed, of_device, timed
from accelsim.architectures.gpu.lower import ISOLATED_COPIES
from accelsim.architectures.gpu.tiles import tile_table
from accelsim.core.precision import PrecisionPlan
from accelsim.hardware.stacks import stack_of

Array = npt.NDArray[np.float64]


def conv_rows(
    shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, stack: str, cold: bool
) -> Timed:
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

    Raises
    ------
    InfeasibleError
        The device lacks the precision.
    """
    from accelsim.architectures.gpu.sm import cost_rows

    layers = layers_of(shapes, formats, device, cold, ISOLATED_COPIES)
    model = conv_model(device, stack)
    made = kernels_of(layers, model, device.sm.count, planar=stack_of(stack).planar)
    width_a, width_b = formats.activation.bytes_per_element, formats.weight.bytes_per_element
    tensor = bool(layers.tensor[0]) if len(layers.tensor) else False
    either = bool(layers.lane_rate[0] > 0) if len(layers.lane_rate) else False
    keys = table_keys(model, width_a, width_b, tensor, either)
    tables = np.stack([tile_table(device, *key) for key in keys])
    out = np.zeros((len(made.rows), R.OUT_WIDTH))
    constants = device.kernels.product.array
    cost_rows(made.rows, tables, SPLIT_ARRAY, device_array(device), constants, True, out)
    return _fastest(made, out, len(layers.pixels), *of_device(device, stack))


def _fastest(made: Kernels, out: Array, count: int, launch_s: float, host_s: float) -> Timed:
    """Sum the rows of each algorithm of each convolution and take the fastest algorithm."""
    slot: npt.NDArray[np.intp] = made.owner * len(ALGORITHMS) + made.algorithm
    slots = count * len(ALGORITHMS)

    def total(values: Array) -> Array:
        return np.asarray(np.bincount(slot, values, slots).reshape(count, -1), dtype=np.float64)

    body, fixed = out[:, R.OUT_BODY], out[:, R.OUT_FIXED]
    launches = total(made.launches) * launch_s
    total_s = np.where(launches > 0.0, total(body) + total(fixed) + launches, np.inf)
    chosen = np.argmin(total_s, axis=1)
    mine = np.flatnonzero(made.algorithm == chosen[made.owner])
    owner = made.owner[mine]
    columns = [np.bincount(owner, out[mine, i], count) for i in range(R.OUT_SUMS)]
    sums: Array = np.stack(columns, axis=1).astype(np.float64)
    return timed(sums, launches[np.arange(count), chosen], host_s)
