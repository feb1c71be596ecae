"""Measured latencies of single operators: the columns that a measurement adds to the table of operators.

A measurement file has the columns of `accelsim.architectures.opschema` (op, precision and shapes) and those
below. Only ``latency_s`` is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accelsim.architectures import opschema
from accelsim.architectures.opwork import groups, work
from accelsim.core.errors import MissingExtraError, RequestError, UnknownNameError
from accelsim.core.precision import PRECISIONS, Precision, plan
from accelsim.hardware.schema import GpuDevice
from accelsim.hardware.spec import load_hardware

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

MEASURED: Mapping[str, str] = MappingProxyType(
    {
        "latency_s": "duration of one execution [s]",
        "device": "name of the device, as `accelsim hw` lists it",
        "backend": "library or framework that ran the kernel",
        "version": "its version",
        "dtype": "its own name for the formats",
        "kernel": "kernel or algorithm, where known",
        "includes": "what was timed with the operator ('dynamic quantisation')",
        "flag": "why the row should not be scored; empty: it may",
        "conditions": "how it was timed (graph or eager, warm or cold L2, clocks)",
        "repeats": "measurements that the latency is the median of",
        "spread_s": "half the distance between their 5th and 95th percentile [s]",
        "power_w": "mean board power while it ran [W]",
    }
)
"""Column to meaning."""

_SLOWEST_FLOP_PER_S, _SLOWEST_BYTES_PER_S, _SLOWEST_START_S = 1e9, 1e9, 1e-3
_START_S = 2e-6
_LOW, _HIGH = 0.2, 200.0


def check_measurements(frame: pd.DataFrame, device: str | GpuDevice | None = None) -> None:
    """Refuse a frame that is not in the schema, or whose latencies cannot be seconds.

    Parameters
    ----------
    frame : DataFrame
    device : str or GpuDevice, optional
        What was measured; otherwise column ``device`` says, where it names a known device.

    Raises
    ------
    RequestError
        Rows and columns that are not usable; or a median latency outside 0.2 to 200 times the time that the
        datasheet's peaks allow, which no library reaches and another unit does.
    """
    if "latency_s" not in frame.columns:
        near = [c for c in map(str, frame.columns) if c.lower().startswith(("latency", "time", "duration"))]
        hint = f"'{near[0]}' must become latency_s, in seconds" if near else "give the duration in seconds"
        raise RequestError("the table has no column 'latency_s'", hint=hint)
    opschema.check(frame)
    latency = frame["latency_s"].to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(~(np.isfinite(latency) & (latency > 0)))
    if len(bad):
        rows = ", ".join(map(str, bad[:5])) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise RequestError(
            f"column 'latency_s' has {latency[bad[0]]} in rows {rows}", hint="expected positive seconds"
        )
    if not len(frame):
        raise RequestError("the table of measurements is empty")
    for gpu, at in _by_device(frame, device):
        part = frame if len(at) == len(frame) else frame.iloc[at]
        _check_scale(latency[at], _floor_s(part, gpu), gpu)


def read_measurements(path: str | Path, device: str | GpuDevice | None = None) -> pd.DataFrame:
    """A measurement file (``.csv`` or ``.parquet``), checked.

    Raises
    ------
    RequestError
        The file is missing or `check_measurements` refuses it.
    MissingExtraError
        A parquet file without pyarrow.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise RequestError("no such measurement file", str(path))
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except ImportError:
        raise MissingExtraError("pyarrow", "validation", "reading parquet measurements") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise RequestError(f"not a table ({error})", str(path), "write it as CSV with a header") from None
    try:
        check_measurements(frame, device)
    except RequestError as error:
        raise RequestError(error.what, str(path), error.hint) from None
    return frame


def matrix_precision(weight: Precision, activation: Precision, device: GpuDevice) -> str:
    """Format that the matrix units multiply in: that of the wider operand, as weight-only kernels widen the
    narrow one; where the device has no such rate, the narrowest wider float that it has.
    """
    wide = max((weight, activation), key=lambda p: (p.bits, p.kind == "float"))
    if device.peak_flop_per_s(wide.name) > 0:
        return wide.name
    able = [p for p in PRECISIONS.values() if p.kind == "float" and p.bits >= wide.bits]
    for candidate in sorted(able, key=lambda p: p.bits):
        if device.peak_flop_per_s(candidate.name) > 0:
            return candidate.name
    return "fp32"


def roofline(frame: pd.DataFrame, device: str | GpuDevice) -> tuple[Array, Array, Array]:
    """Seconds that datasheet peaks allow for arithmetic, for external memory and for the link.

    Parameters
    ----------
    frame : DataFrame
        Rows that `accelsim.architectures.opschema.check` accepts.
    device : str or GpuDevice

    Returns
    -------
    compute_s, memory_s, link_s : ndarray
        [s]
    """
    gpu = _gpu(device)
    flops, dram, link = work(frame)
    peak = np.ones(len(frame))
    for _, text, rows in groups(frame):
        formats = plan(text)
        weight, activation = formats.weight, formats.activation
        peak[rows] = gpu.peak_flop_per_s(matrix_precision(weight, activation, gpu)) or np.inf
    link_s = link / gpu.link.bandwidth_bytes_per_s if gpu.link is not None else np.zeros(len(frame))
    return flops / peak, dram / gpu.memory.bandwidth_bytes_per_s, link_s


def _gpu(device: str | GpuDevice) -> GpuDevice:
    found = load_hardware(device) if isinstance(device, str) else device
    if not isinstance(found, GpuDevice):
        raise RequestError(f"'{found.name}' is not a GPU", hint="operator measurements are of GPUs")
    return found


def _by_device(
    frame: pd.DataFrame, device: str | GpuDevice | None
) -> list[tuple[GpuDevice | None, npt.NDArray[np.intp]]]:
    import pandas as pd

    if device is not None or "device" not in frame.columns:
        return [(None if device is None else _gpu(device), np.arange(len(frame)))]
    codes, names = pd.factorize(frame["device"])
    found: list[tuple[GpuDevice | None, npt.NDArray[np.intp]]] = []
    for code in np.unique(codes).tolist():
        try:
            known = load_hardware(str(names[code])) if code >= 0 else None
        except UnknownNameError:  # a machine without a file, such as the CPU that tested the harness
            known = None
        found.append((known if isinstance(known, GpuDevice) else None, np.flatnonzero(codes == code)))
    return found


def _floor_s(frame: pd.DataFrame, device: GpuDevice | None) -> Array:
    """Seconds that the rows need at the least, or at the most on any machine when the device is not known."""
    if device is not None:
        return np.max(roofline(frame, device), axis=0) + _START_S
    flops, dram, link = work(frame)
    return flops / _SLOWEST_FLOP_PER_S + (dram + link) / _SLOWEST_BYTES_PER_S + _SLOWEST_START_S


def _check_scale(latency: Array, floor: Array, device: GpuDevice | None) -> None:
    ratio = float(np.median(latency / floor))
    low, high = (0.0, 1.0) if device is None else (_LOW, _HIGH)
    if low <= ratio <= high:
        return
    than = f"the peaks of {device.name} allow" if device is not None else "the slowest machine would take"
    words = f"column 'latency_s' has a median of {ratio:.3g} times what {than}"
    unit = "milliseconds" if ratio < 1e3 * high else "microseconds or nanoseconds"
    hint = (
        f"these look like {unit}, expected seconds"
        if ratio > high
        else "no device is that fast: check the unit"
    )
    raise RequestError(words, hint=hint)
