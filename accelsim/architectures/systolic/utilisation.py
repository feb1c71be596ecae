"""Where on the array the multiply-accumulates of a program happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.architectures.base import Program
from accelsim.architectures.systolic.nests import Nests

Map = NDArray[np.float64]


def element_macs(program: Program, kernels: Sequence[int] | None = None) -> Map:
    """Multiply-accumulates of each processing element in one run, the arrays of the device together.

    A tile that does not fill the array leaves its last rows and columns idle: an element works in as many
    tiles as reach it. Products of a batch that lie on the diagonal side by side fill their own blocks only.

    Parameters
    ----------
    program : Program
        Of a systolic device.
    kernels : sequence of int, optional
        Indices of the kernels to count; all by default.

    Returns
    -------
    array, (rows, columns)
        The sum is the program's multiply-accumulates, but for grouped convolutions that the vector unit does.
    """
    from accelsim.architectures.systolic import folds
    from accelsim.architectures.systolic.cost import _rates, parts_of

    nests: Nests = program.parameters["nests"]
    unit = program.device.array
    parts, table, _ = parts_of(program)
    wanted = set(range(len(program.kernels)) if kernels is None else kernels)
    rates = _rates(nests, program.device)
    total = np.zeros((unit.rows, unit.cols))
    for i, (kernel, macs) in enumerate(zip(nests.kernel.tolist(), nests.macs.tolist())):
        if kernel not in wanted or not parts.array[kernel]:
            continue
        depth = int(np.ceil(nests.k[i] / max(rates[i], 1.0)))
        down, across = _spread(unit.dataflow, bool(table[i, folds.SWAPPED]), nests, i, depth)
        pattern = (
            _sets(nests.sets[i], unit.rows, unit.cols)
            if unit.dataflow == "rs"
            else _tiles(down, across, int(nests.batch[i]), int(table[i, folds.PACKED]), unit.rows, unit.cols)
        )
        total += pattern * (macs * program.kernels[kernel].repeat / pattern.sum())
    return total


def _spread(dataflow: str, swapped: bool, nests: Nests, i: int, depth: int) -> tuple[int, int]:
    """What lies along the rows and the columns of the array."""
    if dataflow == "os":
        return int(nests.m[i] // nests.bands[i]), int(nests.n[i])
    stays = "is" if (dataflow == "is") != swapped else "ws"
    return depth, int(nests.m[i] // nests.bands[i] if stays == "is" else nests.n[i])


def _tiles(down: int, across: int, batch: int, packed: int, rows: int, cols: int) -> Map:
    """Tiles in which each element takes part, for all products of a batch."""
    if packed <= 1:
        return batch * np.outer(_reached(down, rows), _reached(across, cols))
    found = np.zeros((rows, cols))
    for block in range(packed):
        groups = len(range(block, batch, packed))
        found[block * down : (block + 1) * down, block * across : (block + 1) * across] += groups
    return found


def _reached(length: int, size: int) -> Map:
    """Tiles of at most `size` of a length that reach each place."""
    full, rest = divmod(length, size)
    return full + (np.arange(size) < rest).astype(float)


def _sets(sets: Any, rows: int, cols: int) -> Map:
    """Row-stationary: strips of a set side by side, as many as fit, all alike."""
    high = int(np.ceil(sets[0] / np.ceil(sets[0] / rows)))
    wide = int(np.ceil(sets[1] / np.ceil(sets[1] / cols)))
    found = np.zeros((rows, cols))
    found[: rows // high * high, : cols // wide * wide] = 1.0
    return found
