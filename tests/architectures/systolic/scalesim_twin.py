"""SCALE-Sim 3.0.0 written plainly: whole demand matrices, sets of addresses, one element at a time.

Kept slow and literal so that the kernels have something to equal.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from accelsim.architectures.systolic.scalesim_files import ScaleSimConfig, ScaleSimLayer
from accelsim.architectures.systolic.scalesim_layout import BankModel, BlockOrder, ScaleSimLayout


def operand_matrices(layer: ScaleSimLayer, sparse: bool) -> tuple[Any, Any]:
    """Addresses of inputs (pixels x products) and filters (products x filters)."""
    products = [k for k in range(layer.window) if not sparse or k % layer.block < layer.keep]
    inputs = np.full((layer.out_h * layer.out_w, len(products)), -1)
    for p in range(len(inputs)):
        for at, k in enumerate(products):
            kr, rest = divmod(k, layer.kernel_w * layer.channels)
            kc, ch = divmod(rest, layer.channels)
            r, c = (p // layer.out_w) * layer.stride + kr, (p % layer.out_w) * layer.stride + kc
            if r < layer.height and c < layer.width:
                inputs[p, at] = (r * layer.width + c) * layer.channels + ch
    filters = np.array([[n * layer.window + k for n in range(layer.filters)] for k in products])
    return inputs, filters


def skew(table: Any) -> Any:
    height, width = table.shape
    out = np.full((height + width - 1, width), -1)
    for c in range(width):
        out[c : c + height, c] = table[:, c]
    return out


def padded(table: Any, rows: int, cols: int) -> Any:
    out = np.full((rows, cols), -1)
    out[: table.shape[0], : table.shape[1]] = table
    return out


def gap(rows: int, cols: int) -> Any:
    return np.full((rows, cols), -1)


def demands(config: ScaleSimConfig, inputs: Any, filters: Any) -> tuple[list[Any], dict[str, int]]:
    """Demand matrices of inputs, filters and outputs, and the SRAM counts."""
    rows, cols, flow = config.rows, config.cols, config.dataflow
    m, k = inputs.shape
    n = filters.shape[1]
    results = np.arange(m * n).reshape(m, n)
    left, right, out, count = [], [], [], [0, 0, 0]
    down, across = (m, n) if flow == "os" else (k, n if flow == "ws" else m)
    streamed, held = (inputs, filters) if flow == "ws" else (filters.T, inputs.T)
    for fc in range(0, across, cols):
        for fr in range(0, down, rows):
            if flow == "os":
                a, b, c = (
                    inputs[fr : fr + rows].T,
                    filters[:, fc : fc + cols],
                    results[fr : fr + rows, fc : fc + cols],
                )
                left.append(skew(np.vstack([padded(a, k, rows), gap(cols - 1, rows)])))
                right.append(skew(np.vstack([padded(b, k, cols), gap(rows - 1, cols)])))
                out.append(skew(np.vstack([gap(k - 1, cols), np.flipud(padded(c, rows, cols))])))
                count = [count[0] + a.size, count[1] + b.size, count[2] + c.size + rows + cols]
                continue
            a, b = streamed[:, fr : fr + rows], held[fr : fr + rows, fc : fc + cols]
            c = results[:, fc : fc + cols] if flow == "ws" else results[fc : fc + cols].T
            t = len(streamed)
            stream = skew(np.vstack([gap(rows, rows), padded(a, t, rows), gap(cols - 1, rows)]))
            still = np.vstack([np.flipud(padded(b, rows, cols)), gap(rows + cols + t - 2, cols)])
            out.append(skew(np.vstack([gap(2 * rows - 1, cols), padded(c, t, cols)])))
            (left if flow == "ws" else right).append(stream)
            (right if flow == "ws" else left).append(still)
            sizes = [a.size, b.size] if flow == "ws" else [b.size, a.size]
            count = [count[0] + sizes[0], count[1] + sizes[1], count[2] + c.size]
    return [np.concatenate(x) for x in (left, right, out)], count


def prefetches(config: ScaleSimConfig, inputs: Any, filters: Any) -> tuple[Any, Any]:
    rows, cols, flow = config.rows, config.cols, config.dataflow

    def stacked(table: Any, width: int) -> Any:
        parts = [table[:, i : i + width] for i in range(0, table.shape[1], width)]
        return np.concatenate([padded(p, len(p), width) for p in parts])

    def diagonal(table: Any) -> Any:
        height, width = table.shape
        places = [
            table[r, d - r]
            for d in range(height + width)
            for r in range(min(d, height - 1), max(0, d - width + 1) - 1, -1)
            if d - r < width
        ]
        return np.array(places)

    if flow == "os":
        return diagonal(stacked(inputs.T, rows)), diagonal(stacked(filters, cols))
    if flow == "ws":
        return diagonal(stacked(inputs, rows)), stacked(filters, cols).ravel()
    return stacked(inputs.T, cols).ravel(), diagonal(stacked(filters.T, rows))


class Bounded:
    """Read buffer with bounded bandwidth, both errors included."""

    def __init__(self, stream: Any, size: int, width: int) -> None:
        active, ahead, per_set = math.ceil(size / 2), size - math.ceil(size / 2), math.ceil(size / 100)
        valid = [a for a in stream if a != -1]
        self.sets = [set(valid[i : i + per_set]) for i in range(0, len(valid) + 1, per_set)]
        if len(valid) % per_set:
            self.sets = self.sets[: len(valid) // per_set + 1]
        self.held = min(math.ceil(active / per_set), len(self.sets))
        self.step = min(len(self.sets) - self.held, math.ceil(ahead / per_set))
        self.at, self.width, self.line, self.end = 0, width, math.ceil(ahead / width), -1
        lead = min(math.ceil(active / width), math.ceil(len(stream) / width))
        self.start, self.reads = -lead, lead * width

    def holds(self, a: int) -> bool:
        return any(a in self.sets[(self.at + i) % len(self.sets)] for i in range(self.held))

    def serve(self, row: Any, now: int) -> int:
        offset = 1
        for a in row:
            if a == -1:
                continue
            while not self.holds(a):
                self.at = (self.at + self.step) % len(self.sets)
                self.end += self.line + 1
                self.reads += self.line * self.width
                late = self.end - (now + offset)
                offset += late
                if late > 0:
                    offset += late
        return now + offset

    def result(self) -> list[int]:
        return [self.start, self.end, self.reads]


def laid_out(order: BlockOrder, shape: tuple[int, ...]) -> list[int]:
    """Words of an operand in the order of a layout, one index after the other."""
    depth = len(shape)
    counts = [math.ceil(size / b) for size, b in zip(shape, order.block)]
    sizes = [*counts, *order.block]
    words = []
    for at in itertools.product(*(range(sizes[axis]) for axis in order.axes)):
        index = dict(zip(order.axes, at))
        place = [index[d] * order.block[d] + index[depth + d] for d in range(depth)]
        inside = all(p < size for p, size in zip(place, shape))
        words.append(int(np.ravel_multi_index(place, shape)) if inside else -1)
    return words


class Banked(Bounded):
    """Read buffer with a custom layout: the stall counts once, then the busiest bank's lines."""

    def __init__(self, stream: list[int], size: int, width: int, model: BankModel) -> None:
        active = math.ceil(size / 2)
        valid = [a + model.offset for a in stream if a != -1]
        # One word after the other, as the tool fills its sets.
        self.lines: list[set[int]] = [set()]
        for i, a in enumerate(valid):
            self.lines[-1].add(a)
            if i % width == width - 1:
                self.lines.append(set())
        self.held = min(math.ceil(active / width), len(self.lines))
        self.step = min(len(self.lines) - self.held, math.ceil((size - active) / width))
        self.at, self.width, self.line, self.end = 0, width, math.ceil((size - active) / width), -1
        lead = min(math.ceil(active / width), math.ceil(len(stream) / width))
        self.start, self.reads, self.model = -lead, lead * width, model

    def found(self, a: int) -> tuple[int, int] | None:
        for i in range(self.held):
            number = (self.at + i) % len(self.lines)
            if a in self.lines[number]:
                return number, list(self.lines[number]).index(a)
        return None

    def serve(self, row: Any, now: int) -> int:
        offset, wanted = 1, [set() for _ in range(self.model.banks)]
        for a in row:
            if a == -1:
                continue
            while (place := self.found(int(a) + self.model.offset)) is None:
                self.at = (self.at + self.step) % len(self.lines)
                self.end += self.line + 1
                self.reads += self.line * self.width
                offset += max(0, self.end - (now + offset))
            wanted[place[1] // (self.width // self.model.banks)].add(place[0])
        return now + offset + math.ceil(max(map(len, wanted)) / self.model.ports) - 1


class Unbounded:
    """Read buffer that finds out which bandwidth it needs: 50 sets in use, 50 on their way."""

    def __init__(self, stream: Any, size: int, width: int) -> None:
        self.per_set, self.reads, self.new, self.known = size // 100, 0, 0, set()
        self.swapped, self.first, self.end = False, -1, -1

    def serve(self, row: Any, now: int) -> int:
        for a in row:
            if a == -1:
                continue
            if self.first < 0:
                self.first = now
            if a not in self.known:
                self.known.add(a)
                self.reads += 1
                self.new += 1
                if self.new == 50 * self.per_set:
                    self.swapped, self.new, self.known, self.end = True, 0, set(), now
        return now + 1

    def result(self) -> list[int]:
        if self.swapped:
            return [self.first - math.ceil(50 * self.per_set / 10), self.end + 1, self.reads]
        return [-math.ceil(math.ceil(self.new / self.per_set) * self.per_set / 10), -1, self.reads]


class Outputs:
    """Output buffer, line by line."""

    def __init__(self, size: int, width: int) -> None:
        self.size, self.drain, self.width = size, size - math.ceil(size / 2), width
        self.free, self.lines, self.open, self.drained, self.busy = size, [], 0, 0, 0
        self.writes, self.starts, self.ends = 0, [], []

    def close(self) -> None:
        if self.open:
            self.lines.append(self.open)
            self.open = 0

    def empty(self, now: int) -> None:
        taken = self.lines[self.drained : self.drained + math.ceil(self.drain / self.width)]
        moved = len(taken) * self.width - (self.width - taken[-1])
        self.drained += len(taken)
        self.free += moved
        self.writes += moved
        self.busy = now + len(taken) - 1
        self.starts.append(now)
        self.ends.append(self.busy)

    def serve(self, row: Any, now: int) -> int:
        for a in row:
            if a == -1:
                continue
            self.open += 1
            self.free -= 1
            if self.open == self.width:
                self.close()
            if now < self.busy:
                if self.free <= 0:
                    now = self.busy
            elif self.free < self.size - self.drain:
                self.close()
                self.empty(now)
        return now

    def finish(self, now: int) -> None:
        self.close()
        while self.drained < len(self.lines):
            self.empty(now)
            now = self.busy + 1


def twin(
    config: ScaleSimConfig, layer: ScaleSimLayer, layout: ScaleSimLayout | None = None
) -> dict[str, Any]:
    """Totals, stalls, and start, stop and count of SRAM and DRAM accesses."""
    inputs, filters = operand_matrices(layer, bool(config.sparse))
    tables, counts = demands(config, inputs, filters)
    kind = Bounded if config.bounded else Unbounded
    sizes = (1024 * config.ifmap_kb, 1024 * config.filter_kb)
    streams = prefetches(config, inputs, filters)
    reads = [kind(s, size, width) for s, size, width in zip(streams, sizes, config.read_widths)]
    if layout is not None:
        shapes = (
            (layer.height, layer.width, layer.channels),
            (layer.filters, layer.channels, layer.kernel_h, layer.kernel_w),
        )
        for side, order in enumerate((layout.inputs, layout.filters)):
            model = config.layouts[side]
            if model is not None:
                words = laid_out(order, shapes[side])
                reads[side] = Banked(words, sizes[side], config.read_widths[side], model)
    writer = Outputs(1024 * config.ofmap_kb, config.write_width)
    stall, total, moments = 0, 0, [[], [], []]
    for i, rows in enumerate(zip(*tables)):
        now = i + stall
        served = [reads[0].serve(rows[0], now), reads[1].serve(rows[1], now), writer.serve(rows[2], now)]
        stall += max(served[0] - now - 1, served[1] - now - 1, served[2] - now)
        total = max(total, served[2])
        for moment, row, at in zip(moments, rows, served):
            if (row != -1).any():
                moment.append(at)
    writer.finish(served[2])
    if config.sparse and config.dataflow == "ws":
        factor = layer.block / layer.keep
        folds = [inputs[:, i : i + config.rows].size for i in range(0, inputs.shape[1], config.rows)]
        counts[0] = 0.0
        for _ in range(0, filters.shape[1], config.cols):
            for size in folds:
                counts[0] += size * factor
    return {
        "total": total,
        "stall": stall,
        "sram": [[m[0], m[-1], c] for m, c in zip(moments, counts)],
        "dram": [reads[0].result(), reads[1].result(), [writer.starts[0], max(writer.ends), writer.writes]],
    }
