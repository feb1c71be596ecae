"""How sure a GPU latency is: bands from the residuals of measured rows, and of sums of kernels.

Bands are measured over predicted latency, by cell: operator and formats. Within a cell, a row's band follows
what the model knows of it: the length of the prediction, what that is spent on, and the software stack. The
formulas are in docs/validation.md, "Bands".
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

from accelsim.architectures.base import STALLS, Interval, KernelCost, Options, Program
from accelsim.core.errors import ConfigError
from accelsim.core.paths import data_folder
from accelsim.core.precision import Precision, PrecisionPlan
from accelsim.hardware.bands import Band
from accelsim.workload.graph import Op

Array = npt.NDArray[np.float64]
Cells = Mapping[str, Band]
Shipped = tuple[dict[str, float], dict[tuple[str, str], dict[str, Band]]]

LEVEL = 0.9
KNOTS_S = (4e-6, 8e-6, 16e-6, 32e-6, 64e-6, 128e-6, 256e-6, 1e-3, 4e-3)
"""Predicted latencies between which bands are interpolated, by their logarithms [s]."""
STACKS = ("sglang", "trtllm", "vllm")
"""Serving engines, which bring kernels of their own."""
FEATURES = len(KNOTS_S) + len(STALLS) + len(STACKS)
_KNOTS = np.log(KNOTS_S)

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
_LOW_MOST, _HIGH_LEAST = np.log(1.0 - LEAST), np.log(1.0 + LEAST)

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


def features(latency_s: npt.ArrayLike, stalls_s: npt.ArrayLike | None, stack: npt.ArrayLike) -> Array:
    """What a band may depend on, by row: how near the prediction is to each of `KNOTS_S`, by linear
    interpolation of its logarithm; the share of it that each of `base.STALLS` takes; which of `STACKS` it is.

    Parameters
    ----------
    latency_s : array_like, shape (rows,)
        Predictions [s].
    stalls_s : array_like, shape (rows, len(STALLS)), or None
        What they are spent on [s]; None where a model has no such breakdown.
    stack : str or array_like of str
    """
    latency = np.asarray(latency_s, dtype=np.float64)
    found = np.zeros((len(latency), FEATURES))
    where = np.log(np.clip(latency, KNOTS_S[0], KNOTS_S[-1]))
    left = np.minimum(np.searchsorted(_KNOTS, where, side="right"), len(_KNOTS) - 1) - 1
    part = (where - _KNOTS[left]) / (_KNOTS[left + 1] - _KNOTS[left])
    rows = np.arange(len(latency))
    found[rows, left], found[rows, left + 1] = 1.0 - part, part
    if stalls_s is not None:
        found[:, len(_KNOTS) : -len(STACKS)] = np.asarray(stalls_s, dtype=np.float64) / latency[:, None]
    for column, name in enumerate(STACKS):
        found[:, column - len(STACKS)] = np.asarray(stack) == name
    return found


def cells_of(op: str, formats: str) -> tuple[str, str]:
    """Cells that a row may take, most specific first: ``gemm/half``, ``gemm``."""
    return f"{op}/{formats}", op


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
                slopes = (tuple(map(float, (row.get(c) or "").split())) for c in ("middle", "spread"))
                found = Band.of(*ends, int(row["rows"]), *span, *slopes)
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(f"not a row of error bands ({error})", str(path)) from None
            for device in row["device"].split() or ("",):  # siblings share a row
                cells.setdefault((row["basis"], device), {})[row["cell"]] = found
    return shares, cells


def factors(
    op: str,
    formats: str,
    device: Any,
    options: Options,
    latency_s: npt.ArrayLike,
    bound: npt.ArrayLike,
    stalls_s: npt.ArrayLike | None = None,
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
    stalls_s : array_like, optional
        See `features`.
    """
    latency = np.asarray(latency_s, dtype=np.float64)
    if options.fidelity == "analytic":
        return np.full(latency.shape, BOUND_ONLY[0]), np.full(latency.shape, BOUND_ONLY[1])
    line = line_of(op, formats, device, options)
    if line is None:
        return np.full(latency.shape, ASSUMED[0]), np.full(latency.shape, ASSUMED[1])
    band = line.band
    low, high = ends(band, features(latency, stalls_s, options.stack))
    beyond = np.maximum(np.log2(latency / band.longest_s), np.log2(band.shortest_s / latency))
    wider = np.minimum(1.0 + WIDER_PER_DOUBLING * np.maximum(beyond, 0.0), WIDEST) * line.wider
    low, high = np.exp(np.minimum(low * wider, _LOW_MOST)), np.exp(np.maximum(high * wider, _HIGH_LEAST))
    if options.stack == "eager":  # the host's time per operator is assumed
        hosted = np.asarray(bound, dtype=object) == "launch"
        low, high = np.where(hosted, ASSUMED[0], low), np.where(hosted, ASSUMED[1], high)
    return low, high


def ends(band: Band, x: Array) -> tuple[Array, Array]:
    """Logarithms of the ends of a band for rows with these `features`."""
    middle, spread = (
        x @ np.array(given) if given else np.zeros(len(x)) for given in (band.middle, band.spread)
    )
    wide = np.exp(spread)
    return middle + np.log(band.low) * wide, middle + np.log(band.high) * wide


@dataclass(frozen=True)
class Line:
    """The band of one operator and format on a device.

    Attributes
    ----------
    band : Band
    wider : float
        Factor on the logarithms for formats and conditions without rows.
    """

    band: Band
    wider: float


def line_of(op: str, formats: str, device: Any, options: Options) -> Line | None:
    """Band of an operator in a format; None where nothing was measured."""
    cells = evidence(device, op).cells
    if not cells:
        return None
    chosen = next(cells[name] for name in cells_of(op, formats) if name in cells)
    unseen = formats != ANY and f"{op}/{formats}" not in cells
    wider = WIDER_UNSEEN if unseen or options.cold or options.sparsity != "dense" else 1.0
    return Line(chosen, wider)


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
    spent_on: dict[tuple[str, str], list[list[float]]] = {}
    for kernel, cost in zip(program.kernels, costs):
        t = cost.latency_s
        if t > 0.0:
            shapes = groups.setdefault(row_of(kernel.anchor), {})
            shape = (float(f"{t:.6g}"), cost.bound)
            if shape not in shapes:
                parts = [cost.stalls_s.get(name, 0.0) for name in STALLS]
                spent_on.setdefault(row_of(kernel.anchor), []).append(parts)
            shapes[shape] = shapes.get(shape, 0.0) + t * kernel.repeat
    weights: list[float] = []
    lows: list[Array] = []
    highs: list[Array] = []
    share, basis = 0.0, dict[str, float]()
    for (op, formats), shapes in groups.items():
        seconds, bounds = zip(*shapes)
        stalls = spent_on[op, formats]
        low, high = factors(op, formats, program.device, program.options, seconds, bounds, stalls)
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
