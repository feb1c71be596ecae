"""SCALE-Sim 3.0.0's custom layouts: which line and which bank of a read buffer hold a word.

A layout file cuts an operand into blocks that fill a line of the buffer, and orders the blocks and the words
inside them. The tool fills a line's words into a Python set and takes a word's place in the set's iteration
as its column; consecutive columns make a bank. That place follows from the numbers alone (a whole number
hashes to itself, and CPython's table probes and grows by fixed rules), so a set of this interpreter gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.core.errors import ConfigError

if TYPE_CHECKING:
    from accelsim.architectures.systolic.scalesim_files import ScaleSimLayer


@dataclass(frozen=True, slots=True)
class BankModel:
    """Banks of a read buffer that has a custom layout.

    Attributes
    ----------
    banks, ports : int
        Banks, and lines that one of them serves in a cycle.
    offset : int
        First address of the operand; it moves words between places of the tool's sets.
    """

    banks: int
    ports: int
    offset: int


@dataclass(frozen=True, slots=True)
class BlockOrder:
    """How an operand lies in its buffer.

    Attributes
    ----------
    block : tuple of int
        Size of a block: rows, columns, channels of inputs; filters, channels, rows, columns of filters.
    axes : tuple of int
        Outermost first: axes of the blocks (from 0), then axes inside a block (after those).
    """

    block: tuple[int, ...]
    axes: tuple[int, ...]

    def stream(self, shape: tuple[int, ...]) -> Any:
        """Words of an operand of a shape in the order of the layout, -1 where a block is padded."""
        counts = [-(-size // b) for size, b in zip(shape, self.block)]
        words = np.arange(prod(shape)).reshape(shape)
        edges = [(0, count * b - size) for count, b, size in zip(counts, self.block, shape)]
        padded = np.pad(words, edges, constant_values=-1)
        split = padded.reshape([x for pair in zip(counts, self.block) for x in pair])
        depth = 2 * len(shape)
        blocks = split.transpose([*range(0, depth, 2), *range(1, depth, 2)])
        return blocks.transpose(self.axes).ravel()


@dataclass(frozen=True, slots=True)
class ScaleSimLayout:
    """The row of a layout file that the tool uses for all layers: the first one."""

    inputs: BlockOrder
    filters: BlockOrder

    def streams(self, layer: ScaleSimLayer) -> tuple[Any, Any]:
        """Words of inputs and filters in the order in which a layer's buffers are filled."""
        return (
            self.inputs.stream((layer.height, layer.width, layer.channels)),
            self.filters.stream((layer.filters, layer.channels, layer.kernel_h, layer.kernel_w)),
        )


def read_layout(path: Path, text: str, widths: tuple[int | None, int | None]) -> ScaleSimLayout:
    """Read the first row of a layout file.

    Parameters
    ----------
    path, text : Path, str
        File and its content.
    widths : tuple of int or None
        Words of a line of inputs and of filters; None where the layout is not used.

    Raises
    ------
    ConfigError
        The row is incomplete or not an order, or a block does not make a line.
    """
    rows = [
        (number, line.strip().split(",")[:-1])
        for number, line in enumerate(text.splitlines(), 1)
        if number > 1 and line.strip()
    ]
    if not rows:
        raise ConfigError("the file has no layers", str(path), "the first line is a header")
    number, cells = rows[0]
    where = f"{path}:{number}"
    try:
        values = [int(cell) for cell in cells[1:]]
    except ValueError:
        raise ConfigError("a cell is not a whole number", where) from None
    if len(values) < 20:
        raise ConfigError(f"{len(values)} numbers, expected 20", where, "the line ends in a comma")
    if "DP" in cells[0]:
        values[4] = 1  # the tool makes one single-channel layer of each channel
    inputs = BlockOrder((values[0], values[1], values[4]), (*values[9:12], *values[6:9]))
    filters = BlockOrder((values[5], values[4], values[2], values[3]), (*values[16:20], *values[12:16]))
    for name, order, width in zip(("inputs", "filters"), (inputs, filters), widths):
        if width is not None:
            _check(name, order, width, where)
    return ScaleSimLayout(inputs, filters)


def _check(name: str, order: BlockOrder, width: int, where: str) -> None:
    depth = len(order.axes)
    if min(order.block) < 1:
        raise ConfigError(f"a block of {name} has a side of {min(order.block)}", where, "take 1 or more")
    if sorted(axis % depth for axis in order.axes) != list(range(depth)) or not all(
        -depth <= axis < depth for axis in order.axes
    ):
        raise ConfigError(f"the orders of {name} do not name each of {depth} axes once", where)
    words = prod(order.block)
    if words > width or (name == "filters" and words < width):
        raise ConfigError(
            f"a block of {name} has {words} words, a line of the buffer {width}",
            where,
            "the tool takes at most a line of inputs and exactly a line of filters",
        )


def places(stream: Any, width: int, model: BankModel) -> tuple[Any, Any]:
    """Line and bank of each word of a stream.

    Parameters
    ----------
    stream : array of int
        Words in the order of the layout; -1 is padding, which is not stored.
    width : int
        Words of a line.
    model : BankModel
    """
    stored = stream[stream >= 0]
    lines = np.empty(len(stored), np.int32)
    lines[stored] = np.arange(len(stored)) // width
    banks = np.empty(len(stored), np.int32)
    per_bank = width // model.banks
    addresses = (stored + model.offset).tolist()
    for start in range(0, len(addresses), width):
        for column, address in enumerate(set(addresses[start : start + width])):
            banks[address - model.offset] = column // per_bank
    return lines, banks
