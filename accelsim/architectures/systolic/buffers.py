"""SCALE-Sim 3.0.0's double-buffered memories, with unbounded and with bounded bandwidth (numba).

The bounded mode keeps the tool's two errors, because its users compare with its numbers: a stall is added
twice (and a prefetch that is early shortens the row), and prefetches never wait for room in the buffer. The
physical model uses neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from accelsim.architectures.systolic.demand import (
    BLOCK,
    FOLD_COLS,
    FOLD_CYCLES,
    FOLD_ROWS,
    STREAM,
    address,
    lanes,
    outputs,
    outputs_before,
    place,
    prefetch_order,
)

# State of the output buffer.
SIZE, WIDTH, FREE, OPEN, LINES, DRAINED, DRAIN_END, WRITES, FIRST_DRAIN, LAST_DRAIN, NOW, GAPS = range(12)

# Columns that the kernels return for an operand or the outputs.
SRAM_START, SRAM_STOP, DRAM_START, DRAM_STOP, DRAM_COUNT = range(5)


@njit(cache=True)
def new_output_buffer(size: int, width: int) -> Any:
    state = np.zeros(12, np.int64)
    state[SIZE] = state[FREE] = size
    state[WIDTH] = width
    state[FIRST_DRAIN] = -1
    return state


@njit(cache=True)
def _close_line(state: Any, gaps: Any) -> Any:
    """Close a line that is not full; `gaps` remembers (line, empty slots) of such lines."""
    if state[OPEN] > 0:
        if state[GAPS] == len(gaps):
            wider = np.empty((2 * len(gaps), 2), np.int64)
            wider[: len(gaps)] = gaps
            gaps = wider
        gaps[state[GAPS], 0] = state[LINES]
        gaps[state[GAPS], 1] = state[WIDTH] - state[OPEN]
        state[GAPS] += 1
        state[LINES] += 1
        state[OPEN] = 0
    return gaps


@njit(cache=True)
def _drain(state: Any, gaps: Any, now: int) -> None:
    """Write up to half a buffer of lines, one a cycle. Only the empty slots of the last line are known to be
    empty.
    """
    most = -(-(state[SIZE] // 2) // state[WIDTH])
    taken = min(most, state[LINES] - state[DRAINED])
    moved = taken * state[WIDTH]
    last = state[DRAINED] + taken - 1
    for i in range(state[GAPS] - 1, -1, -1):
        if gaps[i, 0] <= last:
            if gaps[i, 0] == last:
                moved -= gaps[i, 1]
            break
    state[WRITES] += moved
    state[FREE] += moved
    state[DRAINED] += taken
    state[DRAIN_END] = now + taken - 1
    state[LAST_DRAIN] = max(state[LAST_DRAIN], state[DRAIN_END])
    if state[FIRST_DRAIN] < 0:
        state[FIRST_DRAIN] = now


@njit(cache=True)
def _store(state: Any, count: int) -> None:
    filled = state[OPEN] + count
    state[LINES] += filled // state[WIDTH]
    state[OPEN] = filled % state[WIDTH]
    state[FREE] -= count


@njit(cache=True)
def write(state: Any, gaps: Any, count: int, now: int) -> Any:
    """Accept `count` elements at cycle `now`; ``state[NOW]`` is the cycle at which the last one is in."""
    limit = state[SIZE] - state[SIZE] // 2
    while count > 0:
        if now < state[DRAIN_END]:
            part = min(count, max(1, state[FREE]))
            _store(state, part)
            if state[FREE] <= 0:
                now = state[DRAIN_END]
        else:
            part = min(count, max(1, state[FREE] - limit + 1))
            _store(state, part)
            if state[FREE] < limit:
                gaps = _close_line(state, gaps)
                _drain(state, gaps, now)
        count -= part
    state[NOW] = now
    return gaps


@njit(cache=True)
def finish(state: Any, gaps: Any, now: int) -> None:
    """Drain what is left after the last cycle."""
    gaps = _close_line(state, gaps)
    while state[DRAINED] < state[LINES]:
        _drain(state, gaps, now)
        now = state[DRAIN_END] + 1


@njit(cache=True)
def unbounded_outputs(layers: Any, size: int, width: int) -> Any:
    """Output traffic of layers whose reads never stall: columns first drain, last drain, writes and stalls.

    Rows that do not bring the buffer to a drain are counted at once.
    """
    table = np.zeros((len(layers), 4), np.int64)
    limit = size - size // 2
    for index in range(len(layers)):
        layer = layers[index]
        state = new_output_buffer(size, width)
        gaps = np.empty((64, 2), np.int64)
        stall = 0
        cycles, fold_rows = layer[FOLD_CYCLES], layer[FOLD_ROWS]
        folds = fold_rows * layer[FOLD_COLS]
        for fold in range(folds):
            fr, fc = fold % fold_rows, fold // fold_rows
            j = 0
            while j < cycles:
                # Rows that leave half of the buffer free never start a drain: find where they end.
                done = outputs_before(layer, fr, fc, j)
                room = state[FREE] - limit
                low, high = j, cycles
                while low < high:
                    middle = (low + high + 1) // 2
                    if outputs_before(layer, fr, fc, middle) - done <= room:
                        low = middle
                    else:
                        high = middle - 1
                _store(state, outputs_before(layer, fr, fc, low) - done)
                if low < cycles:
                    now = fold * cycles + low + stall
                    gaps = write(state, gaps, outputs(layer, fr, fc, low), now)
                    stall += state[NOW] - now
                j = low + 1
        finish(state, gaps, folds * cycles - 1 + stall)
        table[index, 0], table[index, 1] = state[FIRST_DRAIN], state[LAST_DRAIN]
        table[index, 2], table[index, 3] = state[WRITES], stall
    return table


@njit(cache=True)
def unbounded_reads(pattern: int, layer: Any, operand: Any, extent: Any, ids: int, window: int) -> Any:
    """Fetches of an operand when bandwidth is what it needs to be: count, drains of the window, last drain.

    The buffer holds `window` new addresses, then forgets all of them.
    """
    seen = np.zeros(ids, np.int32)
    epoch, new, total, swaps, last = 1, 0, 0, 0, -1
    block = layer[BLOCK] if pattern == STREAM else 0
    cycles, fold_rows = layer[FOLD_CYCLES], layer[FOLD_ROWS]
    for fold in range(fold_rows * layer[FOLD_COLS]):
        for j in range(cycles):
            low, high, a, b, c, d = lanes(pattern, layer, fold % fold_rows, fold // fold_rows, j)
            for x in range(low, high + 1):
                outer, product = place(block, a, b, c, d, x)
                at = address(operand, extent, outer, product)
                if at >= 0 and seen[at] != epoch:
                    seen[at] = epoch
                    new += 1
                    total += 1
                    if new == window:
                        now = fold * cycles + j
                        if now == last:
                            return np.array([-1, swaps, last])
                        new, epoch, swaps, last = 0, epoch + 1, swaps + 1, now
    return np.array([total, swaps, last])


@njit(cache=True)
def sets_of(
    pattern: int, layer: Any, operand: Any, extent: Any, ids: int, per_set: int
) -> tuple[Any, Any, int]:
    """Which sets of the prefetch stream hold an address, ``sets[starts[a]:starts[a + 1]]``, and how many
    sets there are.
    """
    order = prefetch_order(pattern, layer, operand, extent)
    starts = np.zeros(ids + 1, np.int64)
    latest = np.full(ids, -1, np.int32)
    for q in range(len(order)):
        if latest[order[q]] != q // per_set:
            latest[order[q]] = q // per_set
            starts[order[q] + 1] += 1
    for i in range(ids):
        starts[i + 1] += starts[i]
    sets = np.empty(starts[ids], np.int32)
    fill = starts[:-1].copy()
    latest[:] = -1
    for q in range(len(order)):
        at = order[q]
        if latest[at] != q // per_set:
            latest[at] = q // per_set
            sets[fill[at]] = q // per_set
            fill[at] += 1
    return starts, sets, len(order) // per_set + 1


# State of a bounded read buffer.
START, HELD, STEP, COUNT, END, LINE, READS, FIRST, LAST, LEAD, READ_WIDTH, PORTS, ASKED = range(13)


@njit(cache=True)
def new_read_buffer(size: int, width: int, per_set: int, count: int, stream: int, ports: int) -> Any:
    """A window of `HELD` sets of a stream; a prefetch moves it by `STEP` sets and takes `LINE` cycles.

    `count` sets of `per_set` words make the stream, whose length counts padding too.
    """
    state = np.zeros(13, np.int64)
    active = size - size // 2
    state[COUNT] = count
    state[HELD] = min(-(-active // per_set), count)
    state[STEP] = min(count - state[HELD], -(-(size - active) // per_set))
    state[LINE] = -(-(size - active) // width)
    state[LEAD] = min(-(-active // width), -(-stream // width))
    state[END] = -1
    state[READS] = width * state[LEAD]
    state[READ_WIDTH], state[PORTS] = width, ports
    state[FIRST] = state[LAST] = -1
    return state


@njit(cache=True)
def _fetch(state: Any, starts: Any, sets: Any, at: int, now: int, twice: bool) -> int:
    """Prefetch until the window holds an address; returns the stall, which counts `twice` where it is late
    (and then is negative where it is early).
    """
    offset, count = 0, state[COUNT]
    while True:
        for i in range(starts[at], starts[at + 1]):
            behind = sets[i] - state[START]
            if behind < 0:
                behind += count
            if behind < state[HELD]:
                return offset
        state[START] = (state[START] + state[STEP]) % count
        state[END] += state[LINE] + 1
        state[READS] += state[LINE] * state[READ_WIDTH]
        late = state[END] - (now + offset)
        if twice or late > 0:
            offset += late
        if twice and late > 0:
            offset += late


@njit(cache=True)
def _read_row(
    state: Any, starts: Any, sets: Any, banks: Any, stamps: Any, lines: Any, pattern: int, layer: Any,
    operand: Any, extent: Any, fr: int, fc: int, j: int, now: int,
) -> int:  # fmt: skip
    """Serve one row of requests; returns its stall, which can be negative.

    With a custom layout (`banks` is not empty) a bank serves as many lines a cycle as it has ports, and the
    row waits for the bank of which it wants the most lines. `stamps` has the row in which a line of a bank
    was last asked for, `lines` the lines of each bank.
    """
    low, high, a, b, c, d = lanes(pattern, layer, fr, fc, j)
    offset, asked = 1, False
    banked = len(banks) > 0
    block = layer[BLOCK] if pattern == STREAM else 0
    if banked:
        state[ASKED] += 1
        lines[:] = 0
    for x in range(low, high + 1):
        outer, product = place(block, a, b, c, d, x)
        at = address(operand, extent, outer, product)
        if at < 0:
            continue
        asked = True
        offset += _fetch(state, starts, sets, at, now + offset, not banked)
        if banked:
            line = sets[at] * len(lines) + banks[at]
            if stamps[line] != state[ASKED]:
                stamps[line] = state[ASKED]
                lines[banks[at]] += 1
    if banked:
        # A row without requests saves a cycle: no line over the ports, less one.
        offset += -(-lines.max() // state[PORTS]) - 1
    if asked:
        state[LAST] = now + offset
        if state[FIRST] < 0:
            state[FIRST] = now + offset
    return offset - 1


@njit(cache=True)
def bounded(
    layer: Any,
    left_pattern: int, left: Any, left_extent: Any, left_starts: Any, left_sets: Any, left_banks: Any,
    left_state: Any,
    right_pattern: int, right: Any, right_extent: Any, right_starts: Any, right_sets: Any, right_banks: Any,
    right_state: Any,
    out_size: int, out_width: int,
) -> tuple[Any, int, int]:  # fmt: skip
    """A layer with bounded bandwidth: a table of start, stop and count (inputs, filters, outputs), cycles and
    stalls. `left_banks` and `right_banks` are empty but for custom layouts.
    """
    left_lines = np.zeros(1 + (left_banks.max() if len(left_banks) else 0), np.int64)
    left_stamps = np.zeros(len(left_lines) * left_state[COUNT], np.int64)
    right_lines = np.zeros(1 + (right_banks.max() if len(right_banks) else 0), np.int64)
    right_stamps = np.zeros(len(right_lines) * right_state[COUNT], np.int64)
    state = new_output_buffer(out_size, out_width)
    gaps = np.empty((64, 2), np.int64)
    cycles, fold_rows = layer[FOLD_CYCLES], layer[FOLD_ROWS]
    stall, total, first, last, now = 0, 0, -1, -1, 0
    for fold in range(fold_rows * layer[FOLD_COLS]):
        fr, fc = fold % fold_rows, fold // fold_rows
        for j in range(cycles):
            now = fold * cycles + j + stall
            slow = _read_row(
                left_state, left_starts, left_sets, left_banks, left_stamps, left_lines,
                left_pattern, layer, left, left_extent, fr, fc, j, now,
            )  # fmt: skip
            other = _read_row(
                right_state, right_starts, right_sets, right_banks, right_stamps, right_lines,
                right_pattern, layer, right, right_extent, fr, fc, j, now,
            )  # fmt: skip
            slow = max(slow, other)
            state[NOW] = now
            amount = outputs(layer, fr, fc, j)
            if amount > 0:
                gaps = write(state, gaps, amount, now)
                last = state[NOW]
                if first < 0:
                    first = last
            stall += max(slow, state[NOW] - now)
            total = max(total, state[NOW])
            now = state[NOW]
    finish(state, gaps, now)
    table = np.zeros((3, 5), np.int64)
    for row, held in ((0, left_state), (1, right_state)):
        table[row, SRAM_START], table[row, SRAM_STOP] = held[FIRST], held[LAST]
        table[row, DRAM_START], table[row, DRAM_STOP] = -held[LEAD], held[END]
        table[row, DRAM_COUNT] = held[READS]
    table[2, SRAM_START], table[2, SRAM_STOP] = first, last
    table[2, DRAM_START], table[2, DRAM_STOP] = state[FIRST_DRAIN], state[LAST_DRAIN]
    table[2, DRAM_COUNT] = state[WRITES]
    return table, total, stall
