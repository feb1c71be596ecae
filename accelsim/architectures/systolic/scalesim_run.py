"""Every number that SCALE-Sim 3.0.0 reports for a network.

Closed forms give what they can: all columns with unbounded bandwidth when an operand's addresses fit its
buffer. The rest runs the demand stream through the buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2, nan
from typing import Any

import numpy as np

from accelsim.architectures.systolic import buffers, demand, folds
from accelsim.architectures.systolic.scalesim_files import ScaleSimConfig, ScaleSimLayer
from accelsim.architectures.systolic.scalesim_layout import ScaleSimLayout, places
from accelsim.core.errors import RequestError

PREFETCH_WIDTH = 10
"""Words a cycle at which the tool fills a buffer before the first cycle when bandwidth is unbounded."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """One layer in the tool's reports.

    Attributes
    ----------
    total, stall : int
        Cycles, counted from zero, and how many of them are stalls [cycle].
    utilisation_pct, mapping_pct, compute_pct : float
        [%]
    sram, dram : tuple of (start, stop, count)
        For inputs, filters and outputs [cycle, cycle, word].
    sparse : tuple of float, or None
        Dense filter storage, compressed storage, metadata [word].
    """

    total: int
    stall: int
    utilisation_pct: float
    mapping_pct: float
    compute_pct: float
    sram: tuple[tuple[int, int, float], ...]
    dram: tuple[tuple[int, int, int], ...]
    sparse: tuple[float, float, float] | None

    @property
    def total_with_prefetch(self) -> int:
        """From the first fetch before cycle 0 to the last write [cycle]."""
        return self.dram[2][1] - min(self.dram[0][0], self.dram[1][0])


def run(
    config: ScaleSimConfig, layers: Sequence[ScaleSimLayer], layout: ScaleSimLayout | None = None
) -> tuple[LayerReport, ...]:
    """Simulate a network layer by layer, as SCALE-Sim 3.0.0 does.

    `layout` is needed where the configuration has custom layouts (`scalesim_files.layout_of`).
    """
    flow = folds.CODES[config.dataflow]
    table = np.array([_vector(config, layer, flow) for layer in layers], np.int64)
    closed, shares = folds.scalesim_table(table)
    if config.bounded:
        return tuple(
            _bounded(config, layer, layout, *row)
            for layer, row in zip(layers, zip(table, closed.tolist(), shares.tolist()))
        )
    drains = buffers.unbounded_outputs(table[:, :9].copy(), 1024 * config.ofmap_kb, config.cols)
    return tuple(
        _unbounded(config, layer, *row)
        for layer, row in zip(layers, zip(table, closed.tolist(), shares.tolist(), drains.tolist()))
    )


def _vector(config: ScaleSimConfig, layer: ScaleSimLayer, flow: int) -> tuple[int, ...]:
    rows, cols = config.rows, config.cols
    out_h, out_w, window = layer.out_h, layer.out_w, layer.window
    m, n, k = out_h * out_w, layer.filters, window
    if config.block:
        k = -(-window // (2 * config.block)) * config.block
    elif config.sparse:
        k = kept(window, layer.keep, layer.block)
    ragged = (out_h - 1) * layer.stride + layer.kernel_h > layer.height or (
        out_w - 1
    ) * layer.stride + layer.kernel_w > layer.width
    if flow == folds.OS:
        down, across, cycles = m, n, rows + cols + k - 2
    elif flow == folds.WS:
        down, across, cycles = k, n, 2 * rows + cols + m - 2
    else:
        down, across, cycles = k, m, 2 * rows + cols + n - 2
    return (
        rows, cols, flow, m, n, k, -(-down // rows), -(-across // cols), cycles,
        touched(layer.height, layer.kernel_h, layer.stride, out_h)
        * touched(layer.width, layer.kernel_w, layer.stride, out_w) * layer.channels,
        ragged, window if config.block else k, config.block,
    )  # fmt: skip


def touched(size: int, kernel: int, stride: int, windows: int) -> int:
    """Rows (or columns) of an image that some window covers."""
    if stride < kernel:
        return min(size, (windows - 1) * stride + kernel)
    last = (windows - 1) * stride
    return (windows - 1) * kernel + max(0, min(kernel, size - last))


def kept(window: int, keep: int, block: int) -> int:
    """Products that a layer-wise N:M pattern keeps: the first `keep` of every `block`."""
    return window // block * keep + min(keep, window % block)


def operand_tables(config: ScaleSimConfig, layer: ScaleSimLayer) -> tuple[tuple[Any, Any, int], ...]:
    """Addresses of inputs and filters as the kernels read them: table, extent, number of addresses."""
    products = np.arange(layer.window)
    if config.block:
        return _inputs(layer, products, _streamed(config, layer)), _row_wise_filters(config, layer)
    if config.sparse:
        products = products[products % layer.block < layer.keep]
    offsets = np.concatenate([np.arange(layer.filters) * layer.window, products])
    filters = np.stack([offsets, np.zeros_like(offsets), np.zeros_like(offsets)])
    extent = np.array([0, 0, layer.filters], np.int64)
    return _inputs(layer, products, len(products)), (filters, extent, layer.filters * layer.window)


def _inputs(layer: ScaleSimLayer, products: Any, places: int) -> tuple[Any, Any, int]:
    """The table of inputs; products beyond those that there are hang over the edge of the image."""
    k_row, k_col, k_channel = np.unravel_index(products, (layer.kernel_h, layer.kernel_w, layer.channels))
    p_row, p_col = np.divmod(np.arange(layer.out_h * layer.out_w), layer.out_w)
    p_row, p_col = p_row * layer.stride, p_col * layer.stride
    pixels = len(p_row)
    rows, cols = np.concatenate([p_row, k_row]), np.concatenate([p_col, k_col])
    inputs = np.stack([(rows * layer.width + cols) * layer.channels, rows, cols])
    inputs[0, pixels:] += k_channel
    hangs = rows[:pixels].max() + layer.kernel_h > layer.height
    hangs |= cols[:pixels].max() + layer.kernel_w > layer.width
    beyond = np.full((3, places - len(products)), layer.height, np.int64)
    hangs |= places > len(products)
    extent = np.array([layer.height if hangs else 0, layer.width, pixels], np.int64)
    table = np.concatenate([inputs.astype(np.int64), beyond], axis=1)
    return table, extent, layer.height * layer.width * layer.channels


def _streamed(config: ScaleSimConfig, layer: ScaleSimLayer) -> int:
    """Products that the folds of row-wise sparse filters take, two tiles at a time."""
    rows = -(-layer.window // (2 * config.block)) * config.block
    return -(-rows // config.rows) * 2 * config.rows


def kept_by_filter(config: ScaleSimConfig, layer: ScaleSimLayer) -> Any:
    """Products that each filter keeps of every block: what the tool draws, anew for each layer."""
    draw = np.random.RandomState(config.seed)
    return np.array([draw.randint(1, config.block // 2 + 1) for _ in range(layer.filters)])


def _row_wise_filters(config: ScaleSimConfig, layer: ScaleSimLayer) -> tuple[Any, Any, int]:
    """Filters in blocks of which each holds the first products of its own; half as many rows as a block has
    products.

    The two checks of `demand.address` leave out places beyond what a filter keeps and beyond the window.
    """
    half = config.block // 2
    rows = -(-layer.window // (2 * config.block)) * config.block
    number, place = np.divmod(np.arange(rows), half)
    product = number * config.block + place
    zeros = np.zeros(layer.filters, np.int64)
    table = np.stack(
        [
            np.concatenate([np.arange(layer.filters) * layer.window, product]),
            np.concatenate([half - kept_by_filter(config, layer), place]),
            np.concatenate([zeros, product >= layer.window]),
        ]
    ).astype(np.int64)
    return table, np.array([half, 1, layer.filters], np.int64), layer.filters * layer.window


def patterns(dataflow: str) -> tuple[int, int]:
    """Demand pattern of inputs and filters."""
    if dataflow == "os":
        return demand.DOWN, demand.ACROSS
    streamed, held = demand.STREAM, demand.STATIONARY
    return (streamed, held) if dataflow == "ws" else (held, streamed)


def _unbounded(
    config: ScaleSimConfig, layer: ScaleSimLayer, vector: Any, closed: list[int], shares: list[float],
    drain: list[int],
) -> LayerReport:  # fmt: skip
    first_drain, last_drain, writes, stall = drain
    if stall:
        raise RequestError(
            f"the output buffer stalls layer '{layer.name}' although bandwidth is unbounded",
            hint="enlarge OfmapSramSzkB; the tool's unbounded mode is not defined here",
        )
    starts, stops = closed[folds.STARTS : folds.STARTS + 3], closed[folds.STOPS : folds.STOPS + 3]
    dram = []
    pair = patterns(config.dataflow)
    if config.block:
        for side, (operand, extent, _) in enumerate(operand_tables(config, layer)):
            first, last = demand.span(pair[side], vector, operand, extent)
            starts[side], stops[side] = first + 1, last + 1
    for side, pattern in enumerate(pair):
        per_set = 1024 * (config.filter_kb if side else config.ifmap_kb) // 100
        count, swaps, last = _fetches(config, layer, vector, closed, side, pattern, 50 * per_set)
        sets = 50 if swaps else -(-count // per_set)
        lead = -(-sets * per_set // PREFETCH_WIDTH)
        # Without a swap the tool fills the buffer up to cycle 0, with one up to the first request.
        dram.append((starts[side] - 1 - lead, last + 1, count) if swaps else (-lead, -1, count))
    if closed[folds.RAGGED] and not config.block:
        stops[0] = demand.last_request(pair[0], vector, layer.image) + 1
    dram.append((first_drain, last_drain, writes))
    return _report(config, layer, vector, closed, shares, 0, closed[folds.TOTAL], starts, stops, dram)


def _fetches(
    config: ScaleSimConfig, layer: ScaleSimLayer, vector: Any, closed: list[int], side: int, pattern: int,
    window: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Words of an operand that are fetched, times that the buffer swaps, cycle of the last swap."""
    count = closed[folds.FETCHED + side]
    unknown = bool(config.block) or (side == 0 and bool(config.sparse))
    if count < window and not unknown:
        return count, 0, -1
    if count == closed[folds.ACCESSES + side] and not unknown:
        # Every address is asked for once, so the buffer is full after every `window` requests.
        return count, count // window, demand.nth_request(pattern, vector, count // window * window)
    operand, extent, ids = operand_tables(config, layer)[side]
    found = buffers.unbounded_reads(pattern, vector, operand, extent, ids, window).tolist()
    if found[0] < 0:
        raise RequestError(
            f"layer '{layer.name}' asks for more than half a buffer in one cycle",
            hint="enlarge the SRAM; SCALE-Sim divides by zero here",
        )
    return found[0], found[1], found[2]


def _bounded(
    config: ScaleSimConfig, layer: ScaleSimLayer, layout: ScaleSimLayout | None, vector: Any,
    closed: list[int], shares: list[float],
) -> LayerReport:  # fmt: skip
    buffered = []
    sizes = (1024 * config.ifmap_kb, 1024 * config.filter_kb)
    streams = layout.streams(layer) if layout is not None else (None, None)
    tables = operand_tables(config, layer)
    for side, pattern in enumerate(patterns(config.dataflow)):
        operand, extent, ids = tables[side]
        stream, model, width = streams[side], config.layouts[side], config.read_widths[side]
        if stream is None or model is None:
            per_set, banks, ports = -(-sizes[side] // 100), np.empty(0, np.int32), 1
            starts, sets, count = buffers.sets_of(pattern, vector, operand, extent, ids, per_set)
            height, breadth = demand.prefetch_shape(pattern, vector)
            length = height * breadth
        else:
            sets, banks = places(stream, width, model)
            starts, per_set, ports = np.arange(ids + 1), width, model.ports
            count, length = ids // width + 1, len(stream)
        state = buffers.new_read_buffer(sizes[side], width, per_set, count, length, ports)
        buffered.append((pattern, operand, extent, starts, sets, banks, state))
    table, total, stall = buffers.bounded(
        vector, *buffered[0], *buffered[1], 1024 * config.ofmap_kb, config.write_width
    )
    rows = table.tolist()
    starts, stops = [row[buffers.SRAM_START] for row in rows], [row[buffers.SRAM_STOP] for row in rows]
    dram = [tuple(row[buffers.DRAM_START :]) for row in rows]
    return _report(config, layer, vector, closed, shares, stall, total, starts, stops, dram)


def _report(
    config: ScaleSimConfig, layer: ScaleSimLayer, vector: Any, closed: list[int], shares: list[float],
    stall: int, total: int, starts: list[int], stops: list[int], dram: list[Any],
) -> LayerReport:  # fmt: skip
    counts: list[float] = list(closed[folds.ACCESSES : folds.ACCESSES + 3])
    sparse = None
    mapping_pct = shares[0]
    if config.block:
        fold_count = int(vector[demand.FOLD_ROWS]) * int(vector[demand.FOLD_COLS])
        copies = 2 * config.rows // config.block * (config.block // 2)
        counts[0] = fold_count * (int(vector[demand.M]) + config.rows - 1) * copies * config.block
        mapping_pct = _row_wise_share(config, layer, vector)
        sparse = _row_wise_storage(config, layer, int(vector[demand.K]))
    elif config.sparse:
        if config.dataflow == "ws":
            # Each of the block's inputs goes to every kept product; the tool adds fold by fold.
            counts[0] = _sum_of_folds(layer, vector, layer.block / layer.keep)
        sparse = _storage(config.sparse, layer)
    work = layer.out_h * layer.out_w * layer.filters * layer.window
    places = config.rows * config.cols
    return LayerReport(
        total,
        stall,
        (work * 100) / (total * places) if total else nan,
        mapping_pct,
        shares[1],
        tuple(zip(starts, stops, counts)),
        tuple(dram),
        sparse,
    )


def _sum_of_folds(layer: ScaleSimLayer, vector: Any, factor: float) -> float:
    rows, m, k = (int(vector[i]) for i in (demand.ROWS, demand.M, demand.K))
    total = 0.0
    for _ in range(int(vector[demand.FOLD_COLS])):
        for fold in range(int(vector[demand.FOLD_ROWS])):
            total += m * min(rows, k - fold * rows) * factor
    return total


def _storage(form: str, layer: ScaleSimLayer) -> tuple[float, float, float]:
    """Dense, compressed and metadata storage of a layer's filters in the tool's three formats [word]."""
    dense, k = layer.window * layer.filters, kept(layer.window, layer.keep, layer.block)
    held = k * layer.filters
    if form == "ellpack_block":
        metadata = (held * ceil(log2(layer.block))) / 32
        return dense, held + metadata, metadata
    pointers = (layer.window if form == "csr" else layer.filters) + 1
    return dense, 2 * held + pointers, held + pointers


def _row_wise_share(config: ScaleSimConfig, layer: ScaleSimLayer, vector: Any) -> float:
    """Mean share of elements that hold a weight which is not zero [%]."""
    table, extent, _ = _row_wise_filters(config, layer)
    n = layer.filters
    here = (table[1, :n] + table[1, n:, None] < extent[0]) & (table[2, n:, None] < extent[1])
    rows, cols = config.rows, config.cols
    shares = [
        (rows * cols - (rows * cols - int(here[r : r + rows, c : c + cols].sum()))) / (rows * cols)
        for c in range(0, n, cols)
        for r in range(0, int(vector[demand.K]), rows)
    ]
    return sum(shares) / len(shares) * 100


def _row_wise_storage(config: ScaleSimConfig, layer: ScaleSimLayer, k: int) -> tuple[float, float, float]:
    """`_storage` of row-wise sparse filters; the bits of a position follow from the topology's N:M."""
    dense, n = layer.window * layer.filters, layer.filters
    if config.sparse == "ellpack_block":
        metadata = (k * n * ceil(log2(layer.block))) / 32
        return dense, k * n + metadata, metadata
    held = sum(kept(layer.window, int(keep), config.block) for keep in kept_by_filter(config, layer))
    pointers = (layer.window if config.sparse == "csr" else n) + 1
    return dense, 2 * held + pointers, held + pointers
