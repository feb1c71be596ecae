"""DRAM traffic of matrix products by a search over tiles and loop orders (numba).

A product is cut into tm x tn x tk tiles that stay on chip while they are used. An operand whose tile changes
more often than it has distinct tiles is read again; a sum that leaves the chip before it is complete is
written and read back. The search takes the cheapest of six loop orders and of tile heights and widths that
halve from the whole dimension; the depth is the largest that fits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# Columns of the table that `tile_table` returns.
EXTRA_BYTES, TILE_M, TILE_N, TILE_K, ORDER = range(5)

ORDERS = ("mnk", "mkn", "nmk", "nkm", "kmn", "knm")  # outermost loop first
# Position of the m, n and k loops in each order; 0 is outermost.
_POSITIONS = np.array([[o.index(x) for x in "mnk"] for o in ORDERS], np.int64)


@njit(cache=True)
def repeats(
    trips_m: int, trips_n: int, trips_k: int, at_m: int, at_n: int, at_k: int
) -> tuple[int, int, int]:
    """Times that each element of the left operand, the right operand and the sum crosses the memory
    interface.

    An operand is fetched again for each trip of the loop that does not index it, unless all loops inside that
    one leave its tile in place.
    """
    left = trips_n if (trips_m > 1 and at_m > at_n) or (trips_k > 1 and at_k > at_n) else 1
    right = trips_m if (trips_n > 1 and at_n > at_m) or (trips_k > 1 and at_k > at_m) else 1
    output = trips_k if (trips_m > 1 and at_m > at_k) or (trips_n > 1 and at_n > at_k) else 1
    return left, right, output


@njit(cache=True)
def depth_that_fits(
    tile_m: int,
    tile_n: int,
    k: int,
    trips_m: int,
    trips_n: int,
    left_element: float,
    right_element: float,
    sum_element: float,
    room: Any,
) -> int:
    """Largest tile depth for a tile height and width; 0 when none fits.

    `room` is capacity in all, for the left operand, the right operand and the sums [B]. Operand tiles are
    double-buffered unless there is just one; sums are held once, at the width of the accumulator.
    """
    sums = tile_m * tile_n * sum_element
    if sums > room[3] or sums > room[0]:
        return 0
    left, right = tile_m * left_element, tile_n * right_element
    whole_left = left * k * (2 if trips_m > 1 else 1)
    whole_right = right * k * (2 if trips_n > 1 else 1)
    if whole_left <= room[1] and whole_right <= room[2] and whole_left + whole_right + sums <= room[0]:
        return k
    depth = min(
        (room[0] - sums) / (2 * (left + right)), room[1] / (2 * left), room[2] / (2 * right), float(k)
    )
    return int(depth)


@njit(cache=True)
def tile_search(
    m: int,
    n: int,
    k: int,
    left_bytes: float,
    right_bytes: float,
    left_element: float,
    right_element: float,
    sum_element: float,
    room: Any,
    out: Any,
) -> None:
    """Least traffic beyond the compulsory for one product m x n x k [B]; fills one row of the table.

    `left_bytes` and `right_bytes` are what one pass over an operand moves (0 for an intermediate that never
    leaves the chip), the `*_element` are bytes that a tile holds per index pair.
    """
    spill = float(m) * n * sum_element
    best = np.inf
    cut_m = 1
    while True:
        tile_m = -(-m // cut_m)
        trips_m = -(-m // tile_m)
        cut_n = 1
        while True:
            tile_n = -(-n // cut_n)
            trips_n = -(-n // tile_n)
            tile_k = depth_that_fits(
                tile_m, tile_n, k, trips_m, trips_n, left_element, right_element, sum_element, room
            )
            if tile_k > 0:
                trips_k = -(-k // tile_k)
                for order in range(6):
                    at = _POSITIONS[order]
                    left, right, output = repeats(trips_m, trips_n, trips_k, at[0], at[1], at[2])
                    extra = left_bytes * (left - 1) + right_bytes * (right - 1) + 2.0 * spill * (output - 1)
                    if extra < best:
                        best = extra
                        out[EXTRA_BYTES] = extra
                        out[TILE_M], out[TILE_N], out[TILE_K], out[ORDER] = tile_m, tile_n, tile_k, order
                if best == 0.0:
                    return
            if tile_n == 1:
                break
            cut_n *= 2
        if tile_m == 1:
            break
        cut_m *= 2
    if best == np.inf:
        # Not even one element of each fits: every product reads its operands.
        out[EXTRA_BYTES] = left_bytes * (n - 1) + right_bytes * (m - 1) + 2.0 * spill * (k - 1)
        out[TILE_M], out[TILE_N], out[TILE_K], out[ORDER] = 1, 1, 1, 0


@njit(cache=True)
def tile_table(
    batch: Any,
    m: Any,
    n: Any,
    k: Any,
    steps: Any,
    left_bytes: Any,
    right_bytes: Any,
    left_element: Any,
    right_element: Any,
    sum_element: Any,
    held: Any,
    capacity: Any,
) -> Any:
    """`tile_search` of many nests at once; `*_bytes` are totals over the batch, so is the extra traffic.

    `capacity` is on-chip memory in all, for the left operand, the right operand and the sums, `held` the part
    of the first that tensors occupy while a nest runs [B].

    A nest that runs in steps reads its right operand again at every step unless all of it stays on chip.
    """
    table = np.zeros((len(m), 5))
    room = capacity.copy()
    for i in range(len(m)):
        room[0] = capacity[0] - held[i]
        tile_search(
            m[i], n[i], k[i], left_bytes[i] / batch[i], right_bytes[i] / batch[i],
            left_element[i], right_element[i], sum_element[i], room, table[i],
        )  # fmt: skip
        extra = table[i, EXTRA_BYTES] * batch[i]
        if steps[i] > 1:
            beside = m[i] * (k[i] * left_element[i] + n[i] * sum_element[i])
            resident = right_bytes[i] <= room[2] and right_bytes[i] + beside <= room[0]
            extra = 0.0 if resident else steps[i] * extra + (steps[i] - 1) * right_bytes[i]
        table[i, EXTRA_BYTES] = extra
    return table
