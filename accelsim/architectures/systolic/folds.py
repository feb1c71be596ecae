"""Fold cycles of matrix products on systolic arrays (numba).

A fold is one filling of the array. `fold_cost` is the physical model, the default; `scalesim_layers` is the
vectorised form of `accelsim.architectures.systolic.scalesim.layer`. Formulas and their derivation:
docs/models.md, "Systolic arrays".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

WS, OS, IS, RS = 0, 1, 2, 3
CODES = {"ws": WS, "os": OS, "is": IS, "rs": RS}

# Columns of the table that `fold_table` returns, one row per nest and step.
CYCLES, FOLDS, STREAM, LEFT_READS, RIGHT_READS, OUTPUT_ACCESSES, PACKED, SPLIT, SWAPPED = range(9)


@njit(cache=True)
def _ceil(a: int, b: int) -> int:
    return -(-a // b)


@njit(cache=True)
def stationary_cost(
    batch: int,
    stream: int,
    spread: int,
    depth: int,
    beats: float,
    share: float,
    rows: int,
    cols: int,
    arrays: int,
    double_buffered: bool,
    out: Any,
) -> None:
    """WS and IS: `depth` x `spread` stays in the array, `stream` vectors pass through it.

    Folds load r rows, stream s beats and drain through r + c - 2 more cycles. Double-buffered, the next fold
    loads while this one streams: cycles = r_1 + sum over later folds of max(s, r_f) + s + (r + c - 2). The
    products of a batch lie on the diagonal when several fit. Arrays share the column tiles; `split` groups of
    arrays also share the stream. The cheapest choice counts.
    """
    fit = min(batch, rows // depth, cols // spread)
    best = np.inf
    for attempt in range(2 if fit > 1 else 1):
        pack = fit if attempt == 1 else 1
        down, across = _ceil(depth, rows), _ceil(spread, cols)
        edge = (depth - (down - 1) * rows) * pack
        full = rows if down > 1 else edge
        used_cols = min(spread * pack, cols)
        tiles = _ceil(batch, pack) * across
        # A mask that leaves part of the products saves whole stream beats, up to half a tile at its border.
        part = 1.0 if share >= 1.0 else min(1.0, share + 0.5 / (down * across))
        skew = full + used_cols - 2
        for split in range(1, min(arrays, stream) + 1):
            mine = _ceil(tiles, arrays // split)
            s = _ceil(stream, split) * beats * part
            if double_buffered:
                cycles = edge + mine * (down - 1) * max(s, full) + (mine - 1) * max(s, edge) + s + skew
            else:
                cycles = mine * ((down - 1) * (full + s + skew) + edge + s + edge + used_cols - 2)
            if cycles < best:
                best = cycles
                out[CYCLES] = cycles
                out[FOLDS] = mine * down
                out[STREAM] = s
                out[PACKED] = pack
                out[SPLIT] = split
                out[LEFT_READS] = float(batch) * stream * depth * across * part
                out[RIGHT_READS] = float(batch) * depth * spread * split
                out[OUTPUT_ACCESSES] = float(batch) * stream * spread * part * (2 * down - 1)


@njit(cache=True)
def output_cost(
    batch: int,
    m: int,
    n: int,
    depth: int,
    beats: float,
    share: float,
    rows: int,
    cols: int,
    arrays: int,
    double_buffered: bool,
    out: Any,
) -> None:
    """OS: an m x n tile of outputs stays in the array while `depth` products pass.

    A fold streams s = depth beats; its r rows of results shift out while the next fold streams. The last fold
    shifts out beside the next layer, as in SCALE-Sim 3.0.0: cycles = s + sum over later folds of max(s, r_f)
    + (r + c - 2).
    """
    fit = min(batch, rows // m, cols // n)
    best = np.inf
    for attempt in range(2 if fit > 1 else 1):
        pack = fit if attempt == 1 else 1
        down, across = _ceil(m, rows), _ceil(n, cols)
        groups = _ceil(batch, pack)
        edge = (m - (down - 1) * rows) * pack
        full = rows if down > 1 else edge
        used_cols = min(n * pack, cols)
        part = 1.0 if share >= 1.0 else min(1.0, share + 0.5 / (down * across))
        s = depth * beats * part
        mine = _ceil(groups * down * across, arrays)
        long = min(mine, groups * across * (down - 1))
        short = mine - long
        skew = full + used_cols - 2
        if double_buffered:
            first = full if long > 0 else edge
            cycles = s + long * max(s, full) + short * max(s, edge) - max(s, first) + skew
        else:
            cycles = long * (s + skew) + short * (s + edge + used_cols - 2)
        if cycles < best:
            best = cycles
            out[CYCLES] = cycles
            out[FOLDS] = mine
            out[STREAM] = s
            out[PACKED] = pack
            out[SPLIT] = 1
            out[LEFT_READS] = float(batch) * m * depth * across * part
            out[RIGHT_READS] = float(batch) * depth * n * down * part
            out[OUTPUT_ACCESSES] = float(batch) * m * n * share


@njit(cache=True)
def row_cost(
    macs: float,
    share: float,
    rate: float,
    set_rows: int,
    set_cols: int,
    set_kernel: int,
    set_out: int,
    rows: int,
    cols: int,
    arrays: int,
    out: Any,
) -> None:
    """RS: a set of kernel rows x output rows of elements, each doing one row convolution (Y.-H. Chen et al.,
    ISCA 2016).

    Sets taller or wider than the array are cut into equal strips; sets that fit side by side run together.
    """
    beats = float(set_kernel) * set_out
    sets = macs / (beats * set_rows * set_cols)
    cuts_down, cuts_across = _ceil(set_rows, rows), _ceil(set_cols, cols)
    high, wide = _ceil(set_rows, cuts_down), _ceil(set_cols, cuts_across)
    strips = sets * cuts_down * cuts_across
    places = (rows // high) * (cols // wide) * arrays
    passes = np.ceil(strips / places)
    s = max(1.0, beats / rate)
    part = 1.0 if share >= 1.0 else share
    out[CYCLES] = max(passes * s * part, 1.0) + rows + cols - 2
    out[FOLDS] = passes
    out[STREAM] = s
    out[PACKED] = places
    out[SPLIT] = 1
    out[LEFT_READS] = strips * (high + wide - 1) * max(set_out, set_kernel) * part
    out[RIGHT_READS] = sets * set_rows * set_kernel * cuts_across * part
    out[OUTPUT_ACCESSES] = sets * set_cols * set_out * cuts_down * part


@njit(cache=True)
def fold_cost(
    batch: int,
    m: int,
    n: int,
    k: int,
    share: float,
    rate: float,
    set_rows: int,
    set_cols: int,
    set_kernel: int,
    set_out: int,
    rows: int,
    cols: int,
    arrays: int,
    dataflow: int,
    double_buffered: bool,
    out: Any,
) -> None:
    """Cycles and operand accesses of `batch` products m x n x k; fills one row of the table.

    `rate` is multiply-accumulates per element and cycle: above one, an element takes that many products along
    k at once (k becomes ceil(k / rate)); below one, each beat lasts 1 / rate cycles.
    """
    depth = int(np.ceil(k / rate)) if rate > 1.0 else k
    beats = 1.0 if rate >= 1.0 else 1.0 / rate
    if dataflow == OS:
        output_cost(batch, m, n, depth, beats, share, rows, cols, arrays, double_buffered, out)
    elif dataflow == WS:
        stationary_cost(batch, m, n, depth, beats, share, rows, cols, arrays, double_buffered, out)
    elif dataflow == IS:
        stationary_cost(batch, n, m, depth, beats, share, rows, cols, arrays, double_buffered, out)
        # The stationary operand is the left one here.
        out[LEFT_READS], out[RIGHT_READS] = out[RIGHT_READS], out[LEFT_READS]
    else:
        macs = float(batch) * m * n * k
        row_cost(macs, share, rate, set_rows, set_cols, set_kernel, set_out, rows, cols, arrays, out)
    if dataflow != RS:
        # Accesses count elements of the operands, not packed vectors.
        out[LEFT_READS] *= k / depth
        out[RIGHT_READS] *= k / depth


@njit(cache=True)
def fold_table(
    batch: Any,
    m: Any,
    n: Any,
    k: Any,
    share: Any,
    rate: Any,
    sets: Any,
    rows: int,
    cols: int,
    arrays: int,
    dataflow: int,
    double_buffered: bool,
    swap: Any,
) -> Any:
    """`fold_cost` of many nests at once: a table with one row per nest.

    Where `swap` allows it, the other operand stays in the array when that is faster.
    """
    table = np.zeros((len(m), 9))
    other = np.zeros(9)
    for i in range(len(m)):
        fold_cost(
            batch[i], m[i], n[i], k[i], share[i], rate[i], sets[i, 0], sets[i, 1], sets[i, 2], sets[i, 3],
            rows, cols, arrays, dataflow, double_buffered, table[i],
        )  # fmt: skip
        if swap[i] and dataflow in (WS, IS):
            fold_cost(
                batch[i], m[i], n[i], k[i], share[i], rate[i], sets[i, 0], sets[i, 1], sets[i, 2], sets[i, 3],
                rows, cols, arrays, IS if dataflow == WS else WS, double_buffered, other,
            )  # fmt: skip
            if other[CYCLES] < table[i, CYCLES]:
                table[i] = other
                table[i, SWAPPED] = 1
    return table


@njit(cache=True)
def scalesim_layers(m: Any, n: Any, k: Any, rows: Any, cols: Any, dataflow: Any) -> Any:
    """SCALE-Sim 3.0.0 for many layers: columns total cycles, ifmap reads, filter reads, ofmap writes."""
    table = np.zeros((len(m), 4), np.int64)
    for i in range(len(m)):
        down = m[i] if dataflow[i] == OS else k[i]
        across = m[i] if dataflow[i] == IS else n[i]
        fold_rows, fold_cols = _ceil(down, rows[i]), _ceil(across, cols[i])
        folds = fold_rows * fold_cols
        left, right, output = m[i] * k[i], k[i] * n[i], m[i] * n[i]
        if dataflow[i] == OS:
            cycles = rows[i] + cols[i] + k[i] - 2
            left, right, output = left * fold_cols, right * fold_rows, output + (rows[i] + cols[i]) * folds
        elif dataflow[i] == WS:
            cycles = 2 * rows[i] + cols[i] + m[i] - 2
            left, output = left * fold_cols, output * fold_rows
        else:
            cycles = 2 * rows[i] + cols[i] + n[i] - 2
            right, output = right * fold_cols, output * fold_rows
        table[i, 0], table[i, 1], table[i, 2], table[i, 3] = cycles * folds - 1, left, right, output
    return table


# Columns of the table that `scalesim_table` returns: the three accesses, first and last cycles of inputs,
# filters and outputs, distinct addresses of inputs and filters.
TOTAL, ACCESSES, STARTS, STOPS, FETCHED, RAGGED = 0, 1, 4, 7, 10, 12


@njit(cache=True)
def scalesim_table(layers: Any) -> tuple[Any, Any]:
    """What SCALE-Sim 3.0.0 reports with unbounded bandwidth, in closed form, and its two mean shares [%].

    Rows of `layers`: rows, cols, dataflow, m, n, k, fold rows, fold columns, cycles of a fold, distinct input
    addresses, whether windows hang over the edge of the image (the last input request is then unknown here).
    """
    table = np.zeros((len(layers), 13), np.int64)
    shares = np.zeros((len(layers), 2))
    for i in range(len(layers)):
        rows, cols, flow, m, n, k = (
            layers[i, 0],
            layers[i, 1],
            layers[i, 2],
            layers[i, 3],
            layers[i, 4],
            layers[i, 5],
        )
        fold_rows, fold_cols, cycles = layers[i, 6], layers[i, 7], layers[i, 8]
        count = fold_rows * fold_cols
        down = m if flow == OS else k
        across = m if flow == IS else n
        edge_rows, edge_cols = down - (fold_rows - 1) * rows, across - (fold_cols - 1) * cols
        before = (count - 1) * cycles
        left, right, output = m * k, k * n, m * n
        if flow == OS:
            left, right, output = left * fold_cols, right * fold_rows, output + (rows + cols) * count
            starts = (1, 1, rows - min(rows, m) + k - 1)
            stops = (edge_rows + k - 1, edge_cols + k - 1, k + rows + edge_cols - 3)
            length, span = k, rows + cols + k - 2
        else:
            length = m if flow == WS else n
            span = 2 * rows + 2 * cols + length - 3
            streamed, held = (rows + 1, rows + edge_rows + length - 1), (rows - min(rows, k) + 1, rows)
            result = (2 * rows - 1, 2 * rows + length + edge_cols - 3)
            if flow == WS:
                left, output = left * fold_cols, output * fold_rows
                starts, stops = (streamed[0], held[0], result[0]), (streamed[1], held[1], result[1])
            else:
                right, output = right * fold_cols, output * fold_rows
                starts, stops = (held[0], streamed[0], result[0]), (held[1], streamed[1], result[1])
        table[i, TOTAL] = cycles * count - 1
        table[i, ACCESSES], table[i, ACCESSES + 1], table[i, ACCESSES + 2] = left, right, output
        for j in range(3):
            table[i, STARTS + j] = starts[j]
            table[i, STOPS + j] = before + stops[j]
        table[i, FETCHED], table[i, FETCHED + 1] = layers[i, 9], k * n
        table[i, RAGGED] = layers[i, 10]
        mapped, busy = 0.0, 0.0
        for fc in range(fold_cols):
            for fr in range(fold_rows):
                used = min(rows, down - fr * rows) * min(cols, across - fc * cols)
                mapped += used / (rows * cols)
                busy += (used * length) / (rows * cols * span)
        shares[i, 0], shares[i, 1] = mapped / count * 100.0, busy / count * 100.0
    return table, shares
