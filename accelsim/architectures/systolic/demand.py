"""Who asks for which address when: the order in which SCALE-Sim 3.0.0 demands and prefetches (numba).

A layer is a product of an input matrix (pixels x products) and a filter matrix (filters x products). Folds
run with the column folds outside and the row folds inside. Each fold is a table of requests: one row per
cycle, one lane per edge element of the array. Four patterns cover all operands and dataflows:

=========  =========================  =====================================================
pattern    operands                   lane x of row j asks for (outer index, product index)
=========  =========================  =====================================================
STREAM     ws inputs, is filters      (j - R - x, fr R + x)
STATIONARY ws filters, is inputs      (fc C + x, fr R + R - 1 - j), in the first R rows
DOWN       os inputs                  (fr R + x, j - x)
ACROSS     os filters                 (fc C + x, j - x)
=========  =========================  =====================================================

With row-wise sparse filters a fold takes inputs of two tiles, in blocks of `BLOCK` products: each block goes
to half as many rows, one cycle later to each (`place`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from accelsim.architectures.systolic.folds import IS, OS, WS

STREAM, STATIONARY, DOWN, ACROSS = range(4)


# Indices of the vector that describes a layer to the kernels.
ROWS, COLS, FLOW, M, N, K, FOLD_ROWS, FOLD_COLS, FOLD_CYCLES = range(9)
# Products of the streaming operand, and the block of row-wise sparsity (0: none).
STREAM_K, BLOCK = 11, 12


@njit(cache=True)
def lanes(pattern: int, layer: Any, fr: int, fc: int, j: int) -> tuple[int, int, int, int, int, int]:
    """Requests of one row of one fold: first and last lane, then outer index and product index of lane x as
    ``a + b x`` and ``c + d x``. No request when the last lane is below the first.
    """
    rows, cols, k = layer[ROWS], layer[COLS], layer[K]
    outer = layer[M] if layer[FLOW] == WS or pattern == DOWN else layer[N]
    if pattern == STREAM and layer[BLOCK] > 0:
        block = layer[BLOCK]
        copies = 2 * rows // block * (block // 2)
        first, last = max(0, j - rows - outer + 1), min(copies - 1, j - rows)
        return first * block, last * block + block - 1, j - rows, -1, fr * 2 * rows, 1
    if pattern == STREAM:
        used = min(rows, k - fr * rows)
        return max(0, j - rows - outer + 1), min(used - 1, j - rows), j - rows, -1, fr * rows, 1
    if pattern == STATIONARY:
        spread = layer[M] if layer[FLOW] == IS else layer[N]
        used = min(rows, k - fr * rows)
        at = rows - 1 - j
        last = min(cols, spread - fc * cols) - 1 if 0 <= at < used else -1
        return 0, last, fc * cols, 1, fr * rows + at, 0
    side, fold = (rows, fr) if pattern == DOWN else (cols, fc)
    used = min(side, outer - fold * side)
    return max(0, j - k + 1), min(used - 1, j), fold * side, 1, j, -1


@njit(cache=True)
def place(block: int, a: int, b: int, c: int, d: int, x: int) -> tuple[int, int]:
    """Outer and product index of lane x of `lanes`; `block` is 0 but for row-wise sparse inputs."""
    if block == 0:
        return a + b * x, c + d * x
    copy = x // block
    return a - copy, c + copy // (block // 2) * block + x % block


@njit(cache=True)
def address(operand: Any, extent: Any, outer: int, product: int) -> int:
    """Address of an element, -1 where a window hangs over the edge of the image.

    Rows of `operand` are address, image row and image column: of an outer index in columns from 0, of a
    product index in columns from ``extent[2]``. `extent` is image height and width (0: no edge to check).
    """
    at = extent[2] + product
    if extent[0] > 0 and (
        operand[1, outer] + operand[1, at] >= extent[0] or operand[2, outer] + operand[2, at] >= extent[1]
    ):
        return -1
    return operand[0, outer] + operand[0, at]


@njit(cache=True)
def outputs_before(layer: Any, fr: int, fc: int, j: int) -> int:
    """Output elements that leave the array in the first j rows of a fold."""
    rows, cols, k = layer[ROWS], layer[COLS], layer[K]
    if layer[FLOW] == OS:
        count = min(rows, layer[M] - fr * rows)
        wide = min(cols, layer[N] - fc * cols)
        # Results leave through the bottom edge, so a fold that is not full starts late.
        t = j - (k - 1 + rows - count)
    else:
        spread = layer[N] if layer[FLOW] == WS else layer[M]
        count = layer[M] if layer[FLOW] == WS else layer[N]
        wide = min(cols, spread - fc * cols)
        t = j - (2 * rows - 1)
    # Lane c has given min(t - c, count) elements: a lanes all of theirs, the next n - a one less each.
    n = min(wide, max(t, 0))
    a = min(max(t - count, 0), n)
    return a * count + (n - a) * t - (n - 1 + a) * (n - a) // 2


@njit(cache=True)
def outputs(layer: Any, fr: int, fc: int, j: int) -> int:
    """Output elements that leave the array in row j of a fold."""
    return outputs_before(layer, fr, fc, j + 1) - outputs_before(layer, fr, fc, j)


@njit(cache=True)
def prefetch_element(pattern: int, layer: Any, row: int, col: int) -> tuple[int, int]:
    """Outer and product index of a place in the prefetch table, -1 where the table is padded."""
    rows, cols, k = layer[ROWS], layer[COLS], layer[K]
    if pattern == STREAM:
        length = layer[M] if layer[FLOW] == WS else layer[N]
        product = (row // length) * rows + col
        return (row % length, product) if product < layer[STREAM_K] else (-1, -1)
    side = rows if pattern == DOWN else cols
    limit = layer[M] if pattern == DOWN or (pattern == STATIONARY and layer[FLOW] == IS) else layer[N]
    outer = (row // k) * side + col
    return (outer, row % k) if outer < limit else (-1, -1)


@njit(cache=True)
def prefetch_shape(pattern: int, layer: Any) -> tuple[int, int]:
    """Rows and columns of the prefetch table: the folds of an operand stacked."""
    if pattern == STREAM:
        return -(-layer[STREAM_K] // layer[ROWS]) * (layer[M] if layer[FLOW] == WS else layer[N]), layer[ROWS]
    if pattern == DOWN:
        return layer[FOLD_ROWS] * layer[K], layer[ROWS]
    return layer[FOLD_COLS] * layer[K], layer[COLS]


@njit(cache=True)
def prefetch_order(pattern: int, layer: Any, operand: Any, extent: Any) -> Any:
    """Addresses in the order in which the tool fetches them, padding dropped.

    Skewed operands are read along anti-diagonals, lower left first; a stationary one row by row.
    """
    height, width = prefetch_shape(pattern, layer)
    order = np.empty(height * width, np.int32)
    count = 0
    if pattern == STATIONARY:
        for row in range(height):
            for col in range(width):
                outer, product = prefetch_element(pattern, layer, row, col)
                if outer >= 0:
                    at = address(operand, extent, outer, product)
                    if at >= 0:
                        order[count] = at
                        count += 1
        return order[:count]
    for diagonal in range(height + width - 1):
        for row in range(min(diagonal, height - 1), max(0, diagonal - width + 1) - 1, -1):
            outer, product = prefetch_element(pattern, layer, row, diagonal - row)
            if outer >= 0:
                at = address(operand, extent, outer, product)
                if at >= 0:
                    order[count] = at
                    count += 1
    return order[:count]


@njit(cache=True)
def span(pattern: int, layer: Any, operand: Any, extent: Any) -> tuple[int, int]:
    """First and last row in which an operand is asked for, all folds counted; -1 where it never is."""
    first, last = -1, -1
    block = layer[BLOCK] if pattern == STREAM else 0
    for fold in range(layer[FOLD_ROWS] * layer[FOLD_COLS]):
        fc, fr = fold // layer[FOLD_ROWS], fold % layer[FOLD_ROWS]
        for j in range(layer[FOLD_CYCLES]):
            low, high, a, b, c, d = lanes(pattern, layer, fr, fc, j)
            for x in range(low, high + 1):
                outer, product = place(block, a, b, c, d, x)
                if address(operand, extent, outer, product) >= 0:
                    last = fold * layer[FOLD_CYCLES] + j
                    first = last if first < 0 else first
                    break
    return first, last


@njit(cache=True)
def last_request(pattern: int, layer: Any, image: Any) -> int:
    """Index of the last row in which an input is asked for, all folds counted.

    `image` is height, width, kernel height, kernel width, channels, stride, windows across, and the N and M
    of an N:M pattern.
    """
    height, width, _, kernel_w, channels, stride, across, keep, block = image
    for fold in range(layer[FOLD_ROWS] * layer[FOLD_COLS] - 1, -1, -1):
        fc, fr = fold // layer[FOLD_ROWS], fold % layer[FOLD_ROWS]
        for j in range(layer[FOLD_CYCLES] - 1, -1, -1):
            low, high, a, b, c, d = lanes(pattern, layer, fr, fc, j)
            for x in range(low, high + 1):
                outer, product = a + b * x, c + d * x
                product = product // keep * block + product % keep
                row = outer // across * stride + product // (kernel_w * channels)
                col = outer % across * stride + product // channels % kernel_w
                if row < height and col < width:
                    return fold * layer[FOLD_CYCLES] + j
    return -1


@njit(cache=True)
def fold_requests(pattern: int, layer: Any, fr: int, fc: int) -> int:
    """Requests of a whole fold."""
    rows, cols, m, n, k = layer[ROWS], layer[COLS], layer[M], layer[N], layer[K]
    if pattern == DOWN:
        return k * min(rows, m - fr * rows)
    if pattern == ACROSS:
        return k * min(cols, n - fc * cols)
    used = min(rows, k - fr * rows)
    inputs_held = layer[FLOW] == IS
    if pattern == STREAM:
        return used * (n if inputs_held else m)
    return used * min(cols, (m if inputs_held else n) - fc * cols)


@njit(cache=True)
def nth_request(pattern: int, layer: Any, position: int) -> int:
    """Row in which request number `position` (from 1) is made, all folds counted; windows must not hang over
    the edge.
    """
    cycles = layer[FOLD_CYCLES]
    for fold in range(layer[FOLD_ROWS] * layer[FOLD_COLS]):
        fc, fr = fold // layer[FOLD_ROWS], fold % layer[FOLD_ROWS]
        whole = fold_requests(pattern, layer, fr, fc)
        if position > whole:
            position -= whole
            continue
        for j in range(cycles):
            low, high, _, _, _, _ = lanes(pattern, layer, fr, fc, j)
            position -= max(0, high - low + 1)
            if position <= 0:
                return fold * cycles + j
    return -1
