"""The last step of every kernel family: launches and the host on top, and what limits a row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import BOUNDS, STALLS
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.host import host_bound_s, launch_gap_s, ramp_s

Array = npt.NDArray[np.float64]

_LAUNCH = STALLS.index("launch")


class Timed(NamedTuple):
    """Many operators, one per element.

    Attributes
    ----------
    latency_s : ndarray
        With launches and the host [s].
    bound : ndarray of int
        Index in `base.BOUNDS`: the largest of the stalls.
    dram_bytes, l2_bytes : ndarray
        [B]
    stalls_s : ndarray, shape (operators, len(STALLS))
        What the latency is spent on, in the order of `base.STALLS` [s]; sums to the latency.
    """

    latency_s: Array
    bound: npt.NDArray[np.intp]
    dram_bytes: Array
    l2_bytes: Array
    stalls_s: Array


def launch_s(device: Any, stack: str) -> float:
    """What each kernel takes beside its body and its fixed part [s]."""
    return launch_gap_s(device, stack) + ramp_s(device)


def timed(sums: Array, launched_s: Any, host_s: float, total_s: Array | None = None) -> Timed:
    """Add launches and the host to kernels.

    Parameters
    ----------
    sums : ndarray, shape (operators, at least OUT_SUMS)
        The output columns of `rows` that add up, over all kernels of an operator.
    launched_s : float or ndarray
        All launches of an operator [s].
    host_s : float
        Least time between operators that the host sustains [s].
    total_s : ndarray, optional
        Body, fixed part and launches where they are summed in another order [s].
    """
    body, fixed = sums[:, R.OUT_BODY], sums[:, R.OUT_FIXED]
    total = body + fixed + launched_s if total_s is None else total_s
    latency = np.maximum(total, host_s)
    stalls = np.zeros((len(sums), len(STALLS)))
    stalls[:, : R.OUT_SUMS - R.STALL_COMPUTE] = sums[:, R.STALL_COMPUTE : R.OUT_SUMS]
    stalls[:, _LAUNCH] += launched_s + (latency - total)
    return Timed(
        latency, np.argmax(stalls, axis=1), sums[:, R.OUT_DRAM_BYTES], sums[:, R.OUT_L2_BYTES], stalls
    )


def names(bound: npt.NDArray[np.intp]) -> Any:
    """Names of bounds by code."""
    return np.array(BOUNDS, dtype=object)[bound]


def of_device(device: Any, stack: str) -> tuple[float, float]:
    """Cost of a launch, and least time between operators [s]."""
    return launch_s(device, stack), host_bound_s(device, stack)
