"""Expert layers (mixture of experts): routing, two grouped products, and what moves rows around them.

The arithmetic is in `moe_kernel`; this module picks constants and fills its arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.finish import Timed, launch_s, timed
from accelsim.architectures.gpu.rates import product_rate, wider
from accelsim.architectures.gpu.tiles import (
    half_rate,
    port_scale,
    shared_loads,
    switched_j,
    tile_table,
    voltage,
)
from accelsim.architectures.opwork import output_bytes
from accelsim.core.precision import Precision, PrecisionPlan
from accelsim.hardware.expert_kernels import MoeModel

Array = npt.NDArray[np.float64]

FEW = 8
"""Layers whose tokens visit fewer experts than this run on kernels of their own in some stacks."""

THIN, TUNED = "thin", "tuned"
"""Kinds of kernels of a stack that picks block sizes by tokens and experts, see `kinds`."""

LAUNCHES = 5
"""Kernels of a layer without measured constants: dispatch, two products, activation, combination."""


KEPT = 4096
"""Routings whose loads are kept between calls: fits ask for the same ones again and again."""


def format_name(weight: Precision, activation: Precision, scale_block: float = 0.0) -> str:
    """Name of a format in ``kernels.moe``: the weights', with the activations' if those are narrow too.

    Examples: ``bf16``, ``fp8_e4m3-block``, ``int4`` (activations of 16 bits), ``int4-fp8_e4m3``.
    """
    name = weight.name
    if activation != weight and activation.bits < 16:
        name += f"-{activation.name}"
    return f"{name}-block" if scale_block else name


@lru_cache(maxsize=512)
def moe_model(device: Any, stack: str, name: str, few: bool, gated: bool, kind: str = "") -> MoeModel:
    """Constants of a stack's kernels: of the format, else of its bf16 kernels, else those of plain
    products.

    `kind` is one of `kinds`; a stack without such a kernel takes its plain one.
    """
    own = device.kernels.moe.get(stack, {})
    # The kernels that stacks keep for few experts, and their block sizes, are of gated ones only.
    special = ["-few"] * few + [f"-{kind}"] * bool(kind)
    tails = [*special, ""] if gated else ["-ungated", ""]
    for base in _bases(name):
        for tail in tails:
            if base + tail in own:
                found: MoeModel = own[base + tail]
                return found
    generic: MoeModel = device.kernels.moe["default"]["default"]
    return generic


def _bases(name: str) -> tuple[str, ...]:
    """Formats whose constants do for one, best first."""
    return name, name.removesuffix("-block"), "bf16"


def kinds(device: Any, stack: str, name: str, tokens: Any, experts: Any, width: Any) -> npt.NDArray[np.str_]:
    """Which block sizes layers run with, for stacks that pick them by these rules.

    Triton kernels take sizes that were tuned for the experts and width of a rank on the device where the
    stack ships some (``tuned``); else small blocks up to one token per expert (``thin``) and one larger size
    beyond (empty).

    Parameters
    ----------
    device : GpuDevice
    stack, name : str
    tokens : array_like
        Tokens that the rank looks at.
    experts, width : array_like
        Experts of the rank, and their width on it.
    """
    own = device.kernels.moe.get(stack, {})
    found = np.where(np.asarray(tokens) <= np.asarray(experts), THIN, "")
    for base in _bases(name):
        if f"{base}-{TUNED}" in own:
            for layer in own[f"{base}-{TUNED}"].layers:
                found = np.where(
                    (np.asarray(experts) == layer[0]) & (np.asarray(width) == layer[1]), TUNED, found
                )
            break
    return found


def device_numbers(device: Any, rate: float, clock: float, *, integer: bool = False) -> Array:
    """The numbers of a device and its plain products that the numba kernel reads, in its order."""
    p, l2, memory, power = device.kernels.product, device.l2, device.memory, device.power
    headroom_w = max(0.0, (power.tdp_w or 0.0) - (power.idle_w or 0.0))
    values = [device.sm.count, clock, rate, memory.bandwidth_bytes_per_s, memory.latency_s]
    values += [l2.bandwidth_bytes_per_s * p.l2_efficiency, l2.latency_s, l2.capacity_bytes * p.l2_share]
    values += [shared_loads(device), headroom_w, half_rate(device), voltage(device)[1]]
    values += [p.tensor_efficiency, p.prologue_latencies, p.l2_bytes_per_clock * port_scale(device)]
    values += [p.epilogue_cycles, p.shared_bytes_per_clock, p.step_latencies, p.step_cycles]
    flop_j = p.switched_macs * switched_j(device) * (p.integer_power if integer else 1.0)
    values += [flop_j, p.dram_byte_j, p.step_overhead, *p.tile_costs]
    return np.array(values, dtype=np.float64)


def moe_rows(
    shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, stack: str, cold: bool = False
) -> Timed:
    """Latency of many expert layers on one rank, repeated with the same weights as benchmarks do.

    Parameters
    ----------
    shapes : mapping
        Columns of op ``moe`` in the operator table.
    formats : PrecisionPlan
    device : GpuDevice
    stack : str
        Software stack; a stack without measured constants launches one kernel per operator.
    cold : bool
        Nothing is on chip before.

    Raises
    ------
    InfeasibleError
        The device lacks the precision.
    """
    from accelsim.architectures.gpu.moe_kernel import OUT, all_classes, moe_layers

    product = wider(formats.activation, formats.weight)
    rate, clock, _ = product_rate(device, product.name)
    numbers = device_numbers(device, rate, clock, integer=product.is_integer)
    rows, keys = _rows(shapes, formats)
    classes = _classes(keys.tobytes()) if len(keys) <= KEPT else all_classes(keys)
    widths = formats.activation.bytes_per_element, formats.weight.bytes_per_element
    table = tile_table(device, *widths)
    out = np.zeros((len(rows), OUT))
    for at, model in _models(shapes, formats, device, stack):
        part = np.zeros((len(at), OUT))
        copies = np.inf if cold else 1.0
        moe_layers(rows[at], classes, table, numbers, model.array, copies, part)
        if stack not in device.kernels.moe:
            part[:, [R.OUT_FIXED, R.STALL_LAUNCH]] += LAUNCHES * launch_s(device, stack)
        out[at] = part
    return timed(out, 0.0, 0.0)


def moe_flops(shapes: Mapping[str, Array]) -> Array:
    """Arithmetic of expert layers on the rank that holds most rows [FLOP]."""
    from accelsim.architectures.gpu.moe_kernel import all_classes

    keys, position = _routings(shapes)
    classes = all_classes(keys)
    held = (classes[:, :, 0] * classes[:, :, 1]).sum(axis=1)[position]
    matrices = (2.0 + shapes["gated"]) * shapes["hidden"] * shapes["intermediate"] / shapes["tensor_ranks"]
    flops: Array = 2.0 * held * matrices
    return flops


def routed_rows(s: Mapping[str, Array]) -> Array:
    """Rows that the kernels of the rank look at: those of all ranks, or those of its own tokens where these
    stay on the rank.
    """
    own = s["topk"] * np.minimum(s["tokens"], np.ceil(s["tokens"] * s["topk"] / s["expert_ranks"]))
    return np.where(s["local"] > 0.0, own, s["tokens"] * s["topk"])


def _routings(s: Mapping[str, Array]) -> tuple[Array, npt.NDArray[np.intp]]:
    """The distinct routings, and which one each layer has."""
    names = ("tokens", "experts", "topk", "expert_ranks", "skew", "local")
    routing = np.stack([s[name] for name in names], axis=1)
    keys, position = np.unique(routing, axis=0, return_inverse=True)
    return keys, position.reshape(-1)


@lru_cache(maxsize=16)
def _classes(keys: bytes) -> Array:
    """Loads of the experts of each routing."""
    from accelsim.architectures.gpu.moe_kernel import all_classes

    found: Array = all_classes(np.frombuffer(keys).reshape(-1, 6).copy())
    return found


def _rows(s: Mapping[str, Array], formats: PrecisionPlan) -> tuple[Array, Array]:
    """Rows of the numba kernel, and the distinct routings that they point to."""
    from accelsim.architectures.gpu import moe_kernel as M

    keys, position = _routings(s)
    rows = np.empty((len(position), M.ROW))
    for column, values in (
        (M.KEY, position),
        (M.HIDDEN, s["hidden"]),
        (M.WIDTH, s["intermediate"] / s["tensor_ranks"]),
        (M.GATED, s["gated"]),
        (M.EXPERTS, s["experts"] / s["expert_ranks"]),
        (M.ROUTED, routed_rows(s)),
        (M.BYTES_A, formats.activation.bytes_per_element),
        (M.BYTES_B, formats.weight.bytes_per_element),
        (M.BYTES_C, output_bytes(formats.activation)),
    ):
        rows[:, column] = values
    return rows, keys


def _models(
    s: Mapping[str, Array], formats: PrecisionPlan, device: Any, stack: str
) -> list[tuple[npt.NDArray[np.intp], MoeModel]]:
    """Rows by the constants that they take."""
    few, gated, block = s["topk"] < FEW, s["gated"] == 1.0, s["scale_block"] > 0.0
    code = 4 * few + 2 * gated + block
    visiting = np.where(s["local"] > 0.0, routed_rows(s) / s["topk"], s["tokens"])
    experts, width = s["experts"] / s["expert_ranks"], s["intermediate"] / s["tensor_ranks"]
    found = []
    for value in np.unique(code).tolist():
        at = np.flatnonzero(code == value)
        name = format_name(formats.weight, formats.activation, float(value & 1))
        mine = kinds(device, stack, name, visiting[at], experts[at], width[at])
        for kind in np.unique(mine).tolist():
            model = moe_model(device, stack, name, bool(value & 4), bool(value & 2), kind)
            found.append((at[mine == kind], model))
    return found


def grouped_line(row: list[float], model: MoeModel, device: Any, governor: bool) -> list[float]:
    """Cost of a grouped product of a graph, in the output columns of `rows`.

    Parameters
    ----------
    row : list of float
        Its row for the product kernel: the rows spread evenly over the expected distinct experts.
    model : MoeModel
    device : GpuDevice
    governor : bool
        Model the power cap.
    """
    from accelsim.architectures.gpu import moe_kernel as M
    from accelsim.architectures.gpu.sm import resident

    numbers = device_numbers(device, row[R.RATE], row[R.CLOCK], integer=row[R.INTEGER] > 0)
    if not governor:
        numbers[M.HEADROOM] = 0.0
    total = row[R.BATCH] * row[R.M] * row[R.SHARE]
    active = row[R.B_BYTES] / (row[R.N] * row[R.K] * row[R.BYTES_B]) if row[R.B_BYTES] else row[R.BATCH]
    active = min(active, total)
    capacity = numbers[M.L2_CAPACITY]
    missed = sum(
        row[size] * (1.0 - resident(capacity, row[distance]))
        for size, distance in (
            (R.A_BYTES, R.A_DISTANCE),
            (R.B_BYTES, R.B_DISTANCE),
            (R.C_BYTES, R.C_DISTANCE),
            (R.EXTRA_BYTES, R.EXTRA_DISTANCE),
        )
    )
    out = np.zeros(M.OUT)
    widths = row[R.BYTES_A], row[R.BYTES_B]
    classes = np.array([[total / active, active]])
    table = tile_table(device, *widths)
    M.grouped_product(
        classes, 1.0, row[R.N], row[R.K], *widths, row[R.BYTES_C], missed, table, numbers, model.array, out
    )
    vector_s = row[R.VECTOR_OPS] / (
        row[R.VECTOR_RATE] * device.kernels.product.vector_efficiency * numbers[M.SMS] * numbers[M.CLOCK]
    )
    line = [0.0] * R.OUT_WIDTH
    line[: R.OUT_SUMS] = out[: R.OUT_SUMS].tolist()
    line[R.OUT_FIXED] += vector_s
    line[R.STALL_COMPUTE] += vector_s
    line[R.OUT_L2_BYTES] += row[R.C_BYTES]
    line[R.OUT_TILE], line[R.OUT_WAVES], line[R.OUT_SPLIT] = out[M.OUT_TILE], out[M.OUT_WAVES], 1.0
    return line
