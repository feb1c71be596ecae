"""How sure a GPU latency is: bands from the residuals of measured rows, and of sums of kernels.

Bands are measured over predicted latency, by cell: operator, formats, size of the prediction, and what limits
it. A row takes the most specific cell that there is. The formulas are in docs/validation.md, "Bands".
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import BOUNDS, Interval, KernelCost, Options, Program
from accelsim.core.errors import ConfigError
from accelsim.core.paths import data_folder
from accelsim.core.precision import Precision, PrecisionPlan
from accelsim.hardware.bands import Band
from accelsim.workload.graph import Op

Array = npt.NDArray[np.float64]
Cells = Mapping[str, Band]
Shipped = tuple[dict[str, float], dict[tuple[str, str], dict[str, Band]]]

LEVEL = 0.9
SIZES_S = (10e-6, 100e-6, 1e-3)
"""Predicted latencies that part the sizes 0 to 3 [s]."""
STEPS_S = (5e-6, 7e-6, 10e-6, 14e-6, 20e-6, 30e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 3e-3)
"""Those that part the steps, several to a size."""
_SIZES = tuple(sum(edge >= size for size in SIZES_S) for edge in (0.0, *STEPS_S))
LIMITS = ("compute", "memory", "l2", "latency", "launch")
"""What limits a row, by index; operands from shared memory count as `compute`, links as `memory`, the tail of
the last wave as `latency`.
"""
_LIMIT_OF = {"shared": "compute", "link": "memory", "tail": "latency"}
LIMIT_OF_BOUND = tuple(LIMITS.index(_LIMIT_OF.get(name, name)) for name in BOUNDS)
"""Index in `LIMITS` of each of `base.BOUNDS`."""

ASSUMED = (0.6, 1.8)
"""Band of operators that no measurement covers."""
BOUND_ONLY = (0.9, 4.0)
"""Band of the analytic fidelity: kernels seldom beat the datasheet, and small ones take several times as
long."""
WIDER_PER_DOUBLING, WIDEST = 0.25, 4.0
"""Outside the latencies of the rows, a band is wider (in logarithms) by this share per doubling."""
WIDER_UNSEEN = 1.5
"""The same for formats without rows, caches cold at each kernel, and sparse weights."""
LEAST = 0.01  # a band holds its prediction, with this much to spare

ANY = "any"
"""Formats of operators that only move bytes over a link."""

MEASURED, LEFT_OUT = "measured", "left out"
_BASIS = {
    MEASURED: "training rows of this device, aiconfigurator-core 0.12.0",
    LEFT_OUT: "devices left out of every fit in turn, as nothing of this kind was measured here",
}

LINKS = frozenset({"allreduce", "allgather", "reducescatter", "alltoall", "sendrecv"})

_OPS = {
    "conv": "conv2d",
    "softmax": "softmax",
    "layer_norm": "layernorm",
    "rms_norm": "rmsnorm",
    "elementwise": "elementwise",
    "activation": "elementwise",
    "gather": "embedding",
    "grouped_matmul": "moe",
    "moe_dispatch": "moe",
    "moe_combine": "moe",
    "lstm": "lstm",
    "gru": "gru",
    "all_reduce": "allreduce",
    "all_gather": "allgather",
    "reduce_scatter": "reducescatter",
    "all_to_all": "alltoall",
    "send": "sendrecv",
}


def format_class(left: Precision, right: Precision) -> str:
    """Formats as cells name them: of weight and activation, or of activation and cache."""
    a, b = _kind(left), _kind(right)
    return a if a == b else f"{a}+{b}"


def _kind(p: Precision) -> str:
    if p.kind == "float" and p.bits == 16:
        return "half"
    return "fp8" if p.name.startswith("fp8") else p.name


def format_of(op: str, formats: PrecisionPlan) -> str:
    """Format class of a row of the operator table."""
    if op in LINKS:
        return ANY
    if op.startswith("attention"):
        return format_class(formats.activation, formats.kv)
    if op in ("gemm", "moe", "lstm", "gru", "rnn"):
        return format_class(formats.weight, formats.activation)
    return _kind(formats.activation)


def step_of(latency_s: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Index of the step of each predicted latency."""
    return np.asarray(np.digitize(np.asarray(latency_s, dtype=np.float64), STEPS_S))


def limit_of(bound: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Index in `LIMITS` of what limits each row."""
    place = dict(zip(BOUNDS, LIMIT_OF_BOUND))
    names, at = np.unique(np.asarray(bound, dtype=str), return_inverse=True)
    return np.array([place[name] for name in names.tolist()], dtype=np.intp)[at]


def cells_of(op: str, formats: str, step: int, limit: int) -> tuple[str, ...]:
    """Cells that a row may take, most specific first: ``gemm/half/1/memory/5``, ``gemm/half/1/memory``,
    ``gemm/half/1``, ``gemm/half``, ``gemm``.
    """
    kind, size = f"{op}/{formats}", f"{op}/{formats}/{_SIZES[step]}"
    return f"{size}/{LIMITS[limit]}/{step}", f"{size}/{LIMITS[limit]}", size, kind, op


@dataclass(frozen=True)
class Evidence:
    """Bands of one operator on one device.

    Attributes
    ----------
    cells : mapping of str to Band
        Empty: nothing was measured.
    basis : str
    common_share : float
        Share of the variance of log errors that the kernels of a run have in common.
    """

    cells: Cells
    basis: str
    common_share: float


def evidence(device: Any, op: str) -> Evidence:
    """The nearest bands: the device's own calibration, rows of this device, other devices left out of the
    fit.
    """
    shares, shipped = shipped_bands()
    own = device.kernels.band
    if op in own:
        origin = device.quantities.get(f"kernels.band.{op}.low")
        basis = "calibrated" if origin is None else str(origin.source)
        return Evidence(own, basis, shares.get(MEASURED, 0.5))
    for origin_name, key in ((MEASURED, device.name), (LEFT_OUT, "")):
        cells = shipped.get((origin_name, key), {})
        if op in cells:
            return Evidence(cells, _BASIS[origin_name], shares.get(origin_name, 0.5))
    return Evidence({}, "assumed: nothing measured", 0.5)


def shipped_bands(
    path: Path | None = None,
) -> tuple[dict[str, float], dict[tuple[str, str], dict[str, Band]]]:
    """Common share by basis, and cells by basis and device, of the shipped table.

    Raises
    ------
    ConfigError
        The table is missing or damaged.
    """
    file = path or data_folder("hwconfigs") / "gpu" / "_intervals.csv"
    return _read(file, file.stat().st_mtime_ns if file.is_file() else -1)


@lru_cache(maxsize=4)
def _read(path: Path, modified: int) -> Shipped:
    if modified < 0:
        raise ConfigError("the table of error bands is missing", str(path), "reinstall accelsim-dse")
    shares: dict[str, float] = {}
    cells: dict[tuple[str, str], dict[str, Band]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            try:
                if row["cell"] == "common":
                    shares[row["basis"]] = float(row["low"])
                    continue
                ends = float(row["low"]), float(row["high"]), float(row["level"])
                span = float(row["shortest_s"]), float(row["longest_s"])
                found = Band.of(*ends, int(row["rows"]), *span)
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(f"not a row of error bands ({error})", str(path)) from None
            for device in row["device"].split() or ("",):  # siblings share a row
                cells.setdefault((row["basis"], device), {})[row["cell"]] = found
    return shares, cells


def factors(
    op: str, formats: str, device: Any, options: Options, latency_s: npt.ArrayLike, bound: npt.ArrayLike
) -> tuple[Array, Array]:
    """Band of each row, as factors on its latency.

    Parameters
    ----------
    op, formats : str
        Operator of the table and `format_of`.
    device : GpuDevice
    options : Options
    latency_s : array_like
        Predictions [s].
    bound : array_like of str
        What limits them.
    """
    latency = np.asarray(latency_s, dtype=np.float64)
    if options.fidelity == "analytic":
        return np.full(latency.shape, BOUND_ONLY[0]), np.full(latency.shape, BOUND_ONLY[1])
    table = table_of(op, formats, device, options)
    if table is None:
        return np.full(latency.shape, ASSUMED[0]), np.full(latency.shape, ASSUMED[1])
    at = step_of(latency) * len(LIMITS) + limit_of(bound)
    beyond = np.maximum(np.log2(latency / table.longest_s), np.log2(table.shortest_s / latency))
    wider = np.minimum(1.0 + WIDER_PER_DOUBLING * np.maximum(beyond, 0.0), WIDEST) * table.wider
    low, high = np.exp(table.low[at] * wider), np.exp(table.high[at] * wider)
    low, high = np.minimum(low, 1.0 - LEAST), np.maximum(high, 1.0 + LEAST)
    if options.stack == "eager":  # the host's time per operator is assumed
        hosted = np.asarray(bound, dtype=object) == "launch"
        low, high = np.where(hosted, ASSUMED[0], low), np.where(hosted, ASSUMED[1], high)
    return low, high


@dataclass(frozen=True)
class Table:
    """Bands of one operator and format by step and limit, at index ``step * len(LIMITS) + limit``.

    Attributes
    ----------
    low, high : ndarray
        Logarithms of the ends.
    shortest_s, longest_s : float
        Latencies that the rows span [s].
    wider : float
        Factor on the logarithms for formats and conditions without rows.
    """

    low: Array
    high: Array
    shortest_s: float
    longest_s: float
    wider: float


def table_of(op: str, formats: str, device: Any, options: Options) -> Table | None:
    """Bands of an operator in a format; None where nothing was measured."""
    cells = evidence(device, op).cells
    if not cells:
        return None
    names = [cells_of(op, formats, s, b) for s in range(len(STEPS_S) + 1) for b in range(len(LIMITS))]
    chosen = [next(cells[n] for n in cell if n in cells) for cell in names]
    seen = cells.get(f"{op}/{formats}", cells[op])
    unseen = formats != ANY and f"{op}/{formats}" not in cells
    wider = WIDER_UNSEEN if unseen or options.cold or options.sparsity != "dense" else 1.0
    low, high = np.log([c.low for c in chosen]), np.log([c.high for c in chosen])
    return Table(low, high, seen.shortest_s, seen.longest_s, wider)


def combine(
    latencies: npt.ArrayLike,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    common_share: float,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Band of the sum of kernels whose errors correlate.

    Each kernel's log error is normal between its band's ends and has a part that all kernels share:
    ``sigma_i (sqrt(share) c + sqrt(1 - share) u_i)``. The sum is taken as lognormal with the same mean and
    variance (Fenton 1960, doi:10.1109/TCOM.1960.1097606), whose ends are its band.

    Parameters
    ----------
    latencies : array_like
        Predictions of distinct kernels; one that runs n times counts n times as long [s].
    low, high : array_like
        Band of each, as factors.
    common_share : float
        From 0 (errors cancel) to 1 (they add).
    level : float
        Of the bands and of the answer.

    Returns
    -------
    low, high : float
        Factors on the sum.
    """
    t = np.asarray(latencies, dtype=np.float64)
    a, b = np.log(np.asarray(low, dtype=np.float64)), np.log(np.asarray(high, dtype=np.float64))
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    sigma = (b - a) / (2.0 * z)
    mean = t * np.exp((a + b) / 2.0 + sigma**2 / 2.0)
    total = float(mean.sum())
    covariance = np.expm1(common_share * np.outer(sigma, sigma))
    np.fill_diagonal(covariance, np.expm1(sigma**2))
    spread = np.log1p(float(mean @ covariance @ mean) / total**2)
    centre = np.log(total / float(t.sum())) - spread / 2.0
    half = z * np.sqrt(spread)
    return float(np.exp(centre - half)), float(np.exp(centre + half))


def interval(program: Program, costs: Iterable[KernelCost], latency_s: float) -> Interval:
    """Band of a program's latency: those of its kernels, combined.

    Kernels of equal operator, formats and latency are one shape and err alike, so they count as one.
    """
    groups: dict[tuple[str, str], dict[tuple[float, str], float]] = {}
    for kernel, cost in zip(program.kernels, costs):
        t = cost.latency_s
        if t > 0.0:
            shapes = groups.setdefault(row_of(kernel.anchor), {})
            shape = (float(f"{t:.6g}"), cost.bound)
            shapes[shape] = shapes.get(shape, 0.0) + t * kernel.repeat
    weights: list[float] = []
    lows: list[Array] = []
    highs: list[Array] = []
    share, basis = 0.0, dict[str, float]()
    for (op, formats), shapes in groups.items():
        seconds, bounds = zip(*shapes)
        low, high = factors(op, formats, program.device, program.options, seconds, bounds)
        lows.append(low)
        highs.append(high)
        known, spent = evidence(program.device, op), sum(shapes.values())
        weights += shapes.values()
        share += known.common_share * spent
        basis[known.basis] = basis.get(known.basis, 0.0) + spent
    total = sum(weights)
    if not total:
        return Interval(
            ASSUMED[0] * latency_s, ASSUMED[1] * latency_s, LEVEL, "assumed: no kernel takes time"
        )
    least, most = combine(weights, np.concatenate(lows), np.concatenate(highs), share / total)
    least, most = min(least, 1.0 - LEAST), max(most, 1.0 + LEAST)
    if program.options.fidelity == "analytic":
        text = "assumed: datasheet bound only"
    else:
        by_time = sorted(basis.items(), key=lambda item: -item[1])
        text = "; ".join(f"{spent / total:.0%} of the time: {name}" for name, spent in by_time)
    return Interval(least * latency_s, most * latency_s, LEVEL, text)


def row_of(op: Op) -> tuple[str, str]:
    """Operator of the table and formats of a kernel's anchor."""
    tensors = [t.precision for t in op.inputs[:2]]
    first, last = tensors[0], tensors[-1]
    if op.kind == "matmul":
        if op.inputs[1].role == "weight":
            return "gemm", format_class(last, first)
        return "bmm", _kind(first)
    if op.kind in ("attention", "mla_attention"):
        decode = op.inputs[1].role == "kv"
        if op.kind == "mla_attention":
            return "mla_decode", format_class(first, last)
        return ("attention_decode" if decode else "attention_prefill"), format_class(first, last)
    name = _OPS.get(op.kind, op.kind)
    if name in LINKS:
        return name, ANY
    if name in ("moe", "lstm", "gru"):
        return name, format_class(last, first)
    return name, _kind(first)
