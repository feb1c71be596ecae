"""Predicting operators by the thousand on a GPU: columns of shapes straight to the numba kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import Options
from accelsim.architectures.gpu import power
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention import BOUNDS as ATTENTION_BOUNDS
from accelsim.architectures.gpu.attention import attention_rows
from accelsim.architectures.gpu.collectives import TABLE_NAMES, collective_rows, ring_steps
from accelsim.architectures.gpu.conv_table import BOUND_NAMES as CONV_BOUNDS
from accelsim.architectures.gpu.conv_table import conv_rows
from accelsim.architectures.gpu.cost import SPLIT_ARRAY, device_array
from accelsim.architectures.gpu.formats import product_constants
from accelsim.architectures.gpu.host import host_bound_s, launch_gap_s, ramp_s
from accelsim.architectures.gpu.lower import ISOLATED_COPIES
from accelsim.architectures.gpu.moe import moe_table
from accelsim.architectures.gpu.rates import product_rate, wider
from accelsim.architectures.gpu.recurrent_table import recurrent_rows
from accelsim.architectures.gpu.tiles import tile_table
from accelsim.architectures.opwork import op_work, output_bytes
from accelsim.architectures.single import Lowering, OpTable, predict_by_graph
from accelsim.core.precision import Precision, PrecisionPlan
from accelsim.hardware.kernels import ProductModel

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

    Products, convolutions, attention, experts and collectives have tables; rarer operators are lowered as
    graphs. Both cost the same rows.

    Raises
    ------
    InfeasibleError
        The device lacks the precision.
    """
    if op == "moe":
        return _experts(shapes, formats, device, options)
    if op in TABLE_NAMES.values():
        return _collectives(op, shapes, formats, device, options)
    if op in _KERNELS:
        return _in_chunks(op, shapes, formats, device, options)
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
    blocks = s["scale_block"] if op == "gemm" and "scale_block" in s else np.zeros_like(m)
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
    tiles = tile_table(device, width_a, width_b)
    out = np.empty((len(rows), R.OUT_WIDTH))
    for block in np.unique(blocks):
        at = blocks == block
        constants, splits = device.kernels.product, True
        if op == "gemm":
            constants, splits = product_constants(
                device, options.stack, right, formats.activation, float(block)
            )
        rows[at, R.KIND] = R.MATRIX if splits else R.UNSPLIT
        out[at] = cost_table(rows[at], tiles, device, options, constants)
    latency, bound, busy = finished(out, device, options)
    dram, work = out[:, R.OUT_DRAM_BYTES], 2.0 * batch * m * n * k
    traffic = (dram, out[:, R.OUT_L2_BYTES])
    energy = _product_energy(device, product, blocks, work, traffic, busy, latency, options)
    return latency, dram, energy, bound


def cost_table(
    rows: Array, tiles: Array, device: Any, options: Options, model: ProductModel | None = None
) -> Array:
    """Rows of one tile table costed by the numba kernel."""
    from accelsim.architectures.gpu.sm import cost_rows

    out = np.zeros((len(rows), R.OUT_WIDTH))
    constants = (model or device.kernels.product).array
    cost_rows(rows, tiles[None], SPLIT_ARRAY, device_array(device), constants, options.governor, out)
    return out


def finished(out: Array, device: Any, options: Options) -> tuple[Array, Any, Array]:
    """Latency with launch and host, what limits each row, and how long its kernel runs."""
    body, fixed = out[:, R.OUT_BODY], out[:, R.OUT_FIXED]
    launch = launch_gap_s(device, options.stack) + ramp_s(device)
    total = body + fixed + launch
    bound = np.array(R.BOUNDS, dtype=object)[out[:, R.OUT_BOUND].astype(int)]
    bound = np.where(fixed > body, "latency", bound)
    bound = np.where(launch > 0.5 * total, "launch", bound)
    host = host_bound_s(device, options.stack)
    bound = np.where(total < host, "launch", bound)
    return np.maximum(total, host), bound, total


def _energy(
    device: Any,
    family: str,
    name: str,
    flops: Any,
    traffic: tuple[Any, Any],
    busy_s: Array,
    latency_s: Array,
    options: Options,
) -> Array:
    """Energy above idle [J]; NaN where the device has no coefficient."""
    found = power.coefficients(device, family)
    work = (flops, 0.0, *traffic)
    return found.total(power.mac_j(device, name), work, busy_s, latency_s, options.governor)


def _product_energy(
    device: Any,
    product: Precision,
    blocks: Array,
    flops: Any,
    traffic: tuple[Any, Any],
    busy_s: Array,
    latency_s: Array,
    options: Options,
) -> Array:
    """Energy above idle of products, some of which may have a scale per block [J]."""
    plain, scaled = (
        _energy(
            device, power.family(power.PRODUCT, product.bits, kind), product.name, flops, traffic, busy_s,
            latency_s, options,
        )
        for kind in (False, True)
    )  # fmt: skip
    energy: Array = np.where(blocks > 0, scaled, plain)
    return energy


def _attention(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Answer:
    decode = op == "attention_decode"
    latency, bound, *traffic = attention_rows(s, f, device, o.stack, o.cold, decode=decode)
    name = power.family(power.DECODE if decode else power.PREFILL, f.kv.bits)
    return latency, np.array(ATTENTION_BOUNDS, dtype=object)[bound], (traffic[0], traffic[1]), name


def _convolution(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Answer:
    latency, bound, dram = conv_rows(s, f, device, o.stack, o.cold)
    name = power.family(power.PRODUCT, f.activation.bits)
    return latency, np.array(CONV_BOUNDS, dtype=object)[bound], (dram, 0.0), name


def _recurrent(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Answer:
    latency, bound, dram = recurrent_rows(op, s, f, device, o.stack, o.cold)
    name = power.family(power.PRODUCT, f.activation.bits)
    return latency, np.array(CONV_BOUNDS, dtype=object)[bound], (dram, 0.0), name


Answer = tuple[Array, Any, tuple[Any, Any], str]
_KERNELS: Mapping[str, Callable[..., Answer]] = {
    "attention_prefill": _attention,
    "attention_decode": _attention,
    "conv2d": _convolution,
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn": _recurrent,
}


def _in_chunks(
    op: str, shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, options: Options
) -> OpTable:
    """Rows of a kernel family with a table of its own, some at a time."""
    count = len(next(iter(shapes.values())))
    latency, dram, energy = np.empty(count), np.empty(count), np.empty(count)
    bound = np.empty(count, dtype=object)
    arithmetic = formats.activation.name
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        sizes = {name: values[part] for name, values in shapes.items()}
        took, bound[part], traffic, name = _KERNELS[op](op, sizes, formats, device, options)
        flops, _, _ = op_work(op, sizes, formats)
        latency[part], dram[part] = took, traffic[0]
        energy[part] = _energy(device, name, arithmetic, flops, traffic, took, took, options)
    return OpTable(latency, dram, energy, bound)


def _experts(shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, options: Options) -> OpTable:
    latency, bound, flops, dram, l2 = moe_table(shapes, formats, device, options.stack, options.cold)
    product, blocks = wider(formats.activation, formats.weight), shapes["scale_block"]
    energy = _product_energy(device, product, blocks, flops, (dram, l2), latency, latency, options)
    return OpTable(latency, dram, energy, bound)


def _collectives(
    op: str, shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, options: Options
) -> OpTable:
    floats = not formats.activation.is_integer
    size, ranks = shapes["bytes"], shapes["ranks"]
    latency = collective_rows(op, size, ranks, device, options.stack, floats=floats)
    part = size if op == "sendrecv" else size / ranks
    sent = ring_steps(op, ranks) * part / device.link.bandwidth_bytes_per_s
    bound = np.where(sent >= 0.5 * latency, "link", "latency").astype(object)
    touched = 2.0 * size
    energy = _energy(device, power.PRODUCT, "", 0.0, (touched, touched), latency, latency, options)
    return OpTable(latency, touched, energy, bound)
