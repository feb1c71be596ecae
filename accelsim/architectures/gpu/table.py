"""Predicting operators by the thousand on a GPU: columns of shapes straight to the numba kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import STALLS, Options
from accelsim.architectures.gpu import power
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention import attention_rows
from accelsim.architectures.gpu.collectives import TABLE_NAMES, collective_rows, ring_steps
from accelsim.architectures.gpu.conv_table import conv_rows
from accelsim.architectures.gpu.cost import SPLIT_ARRAY, device_array
from accelsim.architectures.gpu.finish import Timed, names, of_device, timed
from accelsim.architectures.gpu.formats import product_constants, row_limits
from accelsim.architectures.gpu.lower import ISOLATED_COPIES
from accelsim.architectures.gpu.moe import moe_flops, moe_rows
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
    if op not in _FAMILIES:
        return predict_by_graph(architecture, op, shapes, formats, device, options)
    count = len(next(iter(shapes.values())))
    latency, dram, energy = np.empty(count), np.empty(count), np.empty(count)
    bound, stalls = np.empty(count, dtype=object), np.empty((count, len(STALLS)))
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        sizes = {name: values[part] for name, values in shapes.items()}
        found, energy[part] = _FAMILIES[op](op, sizes, formats, device, options)
        latency[part], dram[part], bound[part] = found.latency_s, found.dram_bytes, names(found.bound)
        stalls[part] = found.stalls_s
    return OpTable(latency, dram, energy, bound, stalls)


def _products(
    op: str, s: Mapping[str, Array], formats: PrecisionPlan, device: Any, options: Options
) -> Answer:
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
        (R.VECTOR_RATE, 1.0), (R.SHARE, 1.0), (R.INTEGER, product.is_integer),
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
    for at, constants, splits in _kernels(op, m, blocks, right, formats.activation, device, options.stack):
        rows[at, R.KIND] = R.MATRIX if splits else R.UNSPLIT
        out[at] = cost_table(rows[at], tiles, device, options, constants)
    found = timed(out, *of_device(device, options.stack))
    return found, _product_energy(2.0 * batch * m * n * k, product, blocks, found, device, options)


def _kernels(
    op: str, m: Array, blocks: Array, weight: Precision, activation: Precision, device: Any, stack: str
) -> Iterator[tuple[npt.NDArray[np.bool_], ProductModel, bool]]:
    """Rows that one kernel of the stack computes, its constants, and whether it may split the reduction."""
    for block in np.unique(blocks):
        least = 0.0
        limits = row_limits(device, stack, weight, activation, float(block)) if op == "gemm" else (np.inf,)
        for most in limits:
            at = (blocks == block) & (m > least) & (m <= most)
            least = most
            if op != "gemm":
                yield at, device.kernels.product, True
            elif at.any():
                yield (at, *product_constants(device, stack, weight, activation, float(block), most))


def cost_table(
    rows: Array, tiles: Array, device: Any, options: Options, model: ProductModel | None = None
) -> Array:
    """Rows of one tile table costed by the numba kernel."""
    from accelsim.architectures.gpu.sm import cost_rows

    out = np.zeros((len(rows), R.OUT_WIDTH))
    constants = (model or device.kernels.product).array
    cost_rows(rows, tiles[None], SPLIT_ARRAY, device_array(device), constants, options.governor, out)
    return out


def _energy(flops: Any, name: str, family: str, found: Timed, device: Any, options: Options) -> Array:
    """Energy above idle [J]; NaN where the device has no coefficient."""
    each = power.coefficients(device, family)
    work = (flops, 0.0, found.dram_bytes, found.l2_bytes)
    return each.total(power.mac_j(device, name), work, found.latency_s, options.governor)


def _product_energy(
    flops: Any, product: Precision, blocks: Array, found: Timed, device: Any, options: Options
) -> Array:
    """Energy above idle of products, some of which may have a scale per block [J]."""
    plain, scaled = (
        _energy(flops, product.name, power.family(power.PRODUCT, product.bits, kind), found, device, options)
        for kind in (False, True)
    )
    energy: Array = np.where(blocks > 0, scaled, plain)
    return energy


_PHASES = {
    "attention_prefill": power.PREFILL,
    "attention_decode": power.DECODE,
    "mla_prefill": power.PREFILL,
    "mla_decode": power.DECODE,
}


def _single(kernel: Callable[..., Timed]) -> Callable[..., Answer]:
    """A family whose arithmetic runs in the format of the activations."""

    def answer(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Answer:
        found = kernel(op, s, f, device, o)
        flops, _, _ = op_work(op, s, f)
        kind = _PHASES.get(op, power.PRODUCT)
        family = power.family(kind, (f.activation if kind == power.PRODUCT else f.kv).bits)
        return found, _energy(flops, f.activation.name, family, found, device, o)

    return answer


def _attention(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Timed:
    return attention_rows(s, f, device, o.stack, o.cold, decode=op.endswith("_decode"))


def _convolution(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Timed:
    return conv_rows(s, f, device, o.stack, o.cold)


def _recurrent(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Timed:
    return recurrent_rows(op, s, f, device, o.stack, o.cold)


def _experts(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Answer:
    found = moe_rows(s, f, device, o.stack, o.cold)
    product = wider(f.activation, f.weight)
    return found, _product_energy(moe_flops(s), product, s["scale_block"], found, device, o)


def _collectives(op: str, s: Mapping[str, Array], f: PrecisionPlan, device: Any, o: Options) -> Answer:
    size, ranks = s["bytes"], s["ranks"]
    latency = collective_rows(op, size, ranks, device, o.stack, floats=not f.activation.is_integer)
    part = size if op == "sendrecv" else size / ranks
    sent = ring_steps(op, ranks) * part / device.link.bandwidth_bytes_per_s
    stalls = np.zeros((len(size), len(STALLS)))
    stalls[:, STALLS.index("link")] = np.minimum(sent, latency)
    stalls[:, STALLS.index("latency")] = np.maximum(0.0, latency - sent)
    bound = np.where(sent >= 0.5 * latency, R.LINK, R.LATENCY)
    touched = 2.0 * size
    found = Timed(latency, bound, touched, touched, stalls)
    return found, _energy(0.0, "", power.PRODUCT, found, device, o)


Answer = tuple[Timed, Array]
_FAMILIES: Mapping[str, Callable[..., Answer]] = {
    "gemm": _products,
    "bmm": _products,
    "conv2d": _single(_convolution),
    "moe": _experts,
    **dict.fromkeys(_PHASES, _single(_attention)),
    **dict.fromkeys(("lstm", "gru", "rnn"), _single(_recurrent)),
    **dict.fromkeys(TABLE_NAMES.values(), _collectives),
}
