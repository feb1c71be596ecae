"""The matrix products of a program as columns of numbers: what the numba kernels read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from accelsim.architectures.base import Kernel
from accelsim.architectures.systolic.residency import Residency
from accelsim.core.precision import Precision, precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import LoopNest


def operands(op: Op) -> tuple[tuple[LoopNest, Tensor | None, Tensor | None], ...]:
    """The nests of an op, each with its left and right operand (None for an intermediate)."""
    return tuple(
        (
            nest,
            None if nest.left is None else op.inputs[nest.left],
            None if nest.right is None else op.inputs[nest.right],
        )
        for nest in op.work.nests
    )


def compute_precision(op: Op) -> Precision:
    """Format that an op's products run in: the widest of its operands.

    Weights that are narrower than the activations (weight-only formats) are widened on their way into the
    array.
    """
    formats = [t.precision for _, left, right in operands(op) for t in (left, right) if t is not None]
    return max(formats, key=lambda p: (p.bits, p.kind == "float"))


@dataclass(frozen=True)
class Nests:
    """One entry per matrix product of a program, in kernel order.

    Attributes
    ----------
    kernels : int
        Kernels of the program.
    kernel : array of int
        Index of the kernel that it belongs to.
    batch, m, n, k, steps : array of int
    share : array of float
        Part of the products that runs (masks, uneven experts).
    left_bytes, right_bytes : array of float
        One pass over the operand, whole batch; 0 for an intermediate that stays on chip [B].
    left_element, right_element, sum_element : array of float
        Bytes that an on-chip tile holds per index pair. A convolution's windows overlap, so its left operand
        takes less than one element per pair [B].
    left_width, right_width, output_width : array of float
        Bytes of one element [B].
    sets : array of int, (nests, 4)
        Kernel rows, output rows, kernel columns and output columns, for the row-stationary dataflow.
    bands : array of int
        Bands of rows that the kernel runs in.
    held : array of float
        On-chip memory that tensors occupy meanwhile [B].
    swap : array of bool
        Neither operand is a weight, so either can be the one that stays in the array.
    grouped : array of bool
        A convolution in groups, which the vector unit may do faster.
    faster : array of float
        Rate factor of sparse weights.
    formats : tuple of str
        Precision of the products.
    left_names, right_names : tuple of str
        Operands; empty for an intermediate.
    """

    kernels: int
    kernel: Any
    batch: Any
    m: Any
    n: Any
    k: Any
    steps: Any
    share: Any
    left_bytes: Any
    right_bytes: Any
    left_element: Any
    right_element: Any
    sum_element: Any
    left_width: Any
    right_width: Any
    output_width: Any
    sets: Any
    bands: Any
    held: Any
    swap: Any
    grouped: Any
    faster: Any
    formats: tuple[str, ...]
    left_names: tuple[str, ...]
    right_names: tuple[str, ...]

    @cached_property
    def macs(self) -> Any:
        """Multiply-accumulates of each nest, all steps."""
        return self.batch.astype(float) * self.m * self.n * self.k * self.share * self.steps

    @cached_property
    def height(self) -> Any:
        """Rows of the left operand at a time: those of a band."""
        return -(-self.m // self.bands)

    @cached_property
    def turns(self) -> Any:
        """Times that a nest runs for one execution of its kernel: steps and bands."""
        return self.steps * self.bands

    @cached_property
    def results(self) -> Any:
        """Values that one turn of each nest leaves."""
        return self.batch.astype(float) * self.height * self.n

    @cached_property
    def swaps(self) -> Any:
        """`swap` as truth values."""
        return self.swap.astype(bool)

    @cached_property
    def serial(self) -> Any:
        """Kernels whose steps take turns with the vector unit."""
        return np.bincount(self.kernel, self.steps > 1, self.kernels) > 0

    @cached_property
    def in_groups(self) -> Any:
        """Kernels that are convolutions in groups."""
        return np.bincount(self.kernel, self.grouped, self.kernels) > 0


_INTEGERS = ("kernel", "batch", "m", "n", "k", "steps", "swap", "grouped", "bands")
_FLOATS = (
    "held", "faster", "share", "left_bytes", "right_bytes", "left_element", "right_element", "sum_element",
    "left_width", "right_width", "output_width",
)  # fmt: skip


@dataclass(frozen=True)
class Totals:
    """One entry per kernel, one execution: what the unit beside the arrays does and what must move.

    Attributes
    ----------
    bytes_dram : array of float
        What must cross the memory interface, less what stays on chip [B].
    bytes_compulsory, vector_ops, link_bytes : array of float
    waits : array of float
        1 where the kernel reads an activation from external memory, so that nothing can be fetched before the
        kernels in front of it are done.
    link_hops : array of float
        Latencies that a collective pays one after the other (ring algorithms).
    repeats : array of float
        Executions in a run.
    """

    bytes_dram: Any
    bytes_compulsory: Any
    waits: Any
    vector_ops: Any
    link_bytes: Any
    link_hops: Any
    repeats: Any


def totals(kernels: Sequence[Kernel], sparsity: Sparsity) -> Totals:
    """The totals of all kernels when nothing stays on chip."""
    columns = zip(
        *(
            (
                max(0.0, kernel.bytes_compulsory - sparsity.saved_bytes(kernel, frozenset())),
                kernel.bytes_compulsory,
                _waits(kernel, frozenset()),
                sum(op.work.vector_ops for op in kernel.ops),
                sum(op.work.link_bytes for op in kernel.ops),
                _hops(kernel.anchor),
                kernel.repeat,
            )
            for kernel in kernels
        )
    )
    return Totals(*(np.array(column, np.float64) for column in columns))


def keep_on_chip(
    kernels: Sequence[Kernel], nests: Nests, work: Totals, residency: Residency, sparsity: Sparsity
) -> tuple[Nests, Totals]:
    """Nests and totals of a cold device as a residency plan leaves them."""
    sparse = [sparsity.saved_bytes(kernel, here) for kernel, here in zip(kernels, residency.on_chip)]
    left = work.bytes_compulsory - np.array(residency.saved_bytes) - np.array(sparse)
    waits = np.array([_waits(kernel, here) for kernel, here in zip(kernels, residency.on_chip)])
    here = [residency.on_chip[index] for index in nests.kernel.tolist()]

    def remaining(size: Any, names: tuple[str, ...]) -> Any:
        return np.where([name in held for name, held in zip(names, here)], 0.0, size) if len(here) else size

    return (
        replace(
            nests,
            held=np.array(residency.held_bytes)[nests.kernel],
            bands=np.minimum(np.array(residency.bands, np.int64)[nests.kernel], nests.m),
            left_bytes=remaining(nests.left_bytes, nests.left_names),
            right_bytes=remaining(nests.right_bytes, nests.right_names),
        ),
        replace(work, bytes_dram=np.maximum(left, 0.0), waits=waits),
    )


def _hops(op: Op) -> int:
    """Messages that a device sends in turn: a ring of p has p - 1 steps, an all-reduce twice as many."""
    if not op.work.link_bytes:
        return 0
    if op.kind == "send":
        return 1
    steps = int(op.attribute("devices", 2)) - 1
    return 2 * steps if op.kind == "all_reduce" else steps


def _waits(kernel: Kernel, here: frozenset[str]) -> float:
    return float(any(t.role != "weight" and t.name not in here for t in kernel.inputs))


@dataclass(frozen=True)
class Sparsity:
    """N:M sparse weights: `keep` of every `block`, at `faster` times the dense rate; 1:1 is dense. `coded`:
    activations with zeros are stored without them. `only`: the weights marked with this pattern, not all.

    Kept values carry their position in the block, in whole bits.
    """

    keep: int = 1
    block: int = 1
    faster: float = 1.0
    coded: bool = False
    only: str = ""

    def covers(self, t: Tensor | None) -> bool:
        """Whether a weight carries the pattern."""
        return t is not None and t.role == "weight" and (not self.only or t.pattern == self.only)

    def stored(self, t: Tensor | None) -> float:
        """Storage of a tensor over its dense storage.

        Coded activations take 64 bits for three values that are not zero and the runs of zeros before them
        (Y.-H. Chen et al., JSSC 2017, doi:10.1109/JSSC.2016.2616357).
        """
        if t is None:
            return 1.0
        if t.role == "activation" and self.coded:
            return min(1.0, t.density * 64 / (3 * t.precision.bits))
        if not self.covers(t) or self.keep == self.block:
            return 1.0
        return self.keep / self.block * (1 + (self.block - 1).bit_length() / t.precision.bits)

    def saved_bytes(self, kernel: Kernel, here: frozenset[str]) -> float:
        """Compulsory traffic of a kernel that its sparse tensors do not need [B]."""
        if self.keep == self.block and not self.coded:
            return 0.0
        used = {
            t.name: t
            for op in kernel.ops
            for _, left, right in operands(op)
            for t in (left, right)
            if t is not None and t.name not in here
        }
        written = {t.name: t for t in kernel.outputs}
        return sum(t.size_bytes * (1 - self.stored(t)) for t in {**used, **written}.values())


def collect(kernels: Sequence[Kernel], sparsity: Sparsity, skips: bool, sums: str | None) -> Nests:
    """The products of all kernels; with `skips`, products with a zero weight do not run; `sums` is the
    format of partial sums where it is not that of the precision.
    """
    rows: list[dict[str, Any]] = []
    for index, kernel in enumerate(kernels):
        for op in kernel.ops:
            if op.work.nests:
                rows.extend(
                    {"kernel": index, "held": 0.0, "bands": 1, **row}
                    for row in _rows(op, sparsity, skips, sums)
                )
    columns: dict[str, Any] = {name: np.array([r[name] for r in rows], np.int64) for name in _INTEGERS}
    columns.update({name: np.array([r[name] for r in rows], np.float64) for name in _FLOATS})
    sets = np.array([r["sets"] for r in rows], np.int64).reshape(-1, 4)
    words = {name: tuple(r[name] for r in rows) for name in ("formats", "left_names", "right_names")}
    return Nests(len(kernels), **columns, sets=sets, **words)


def _rows(op: Op, sparsity: Sparsity, skips: bool, sums: str | None) -> list[dict[str, Any]]:
    fmt = compute_precision(op)
    width = precision(sums or fmt.accumulate, storage=True).bytes_per_element
    # Part of the operands that is read at all: pixels between the strides of a convolution are not, nor are
    # experts that no token chose and keys outside a window.
    held = {t.name: t.size_bytes for t in op.inputs}
    first = op.inputs[0].size_bytes
    rest = sum(held.values()) - first
    seen = read = 1.0
    if op.kind == "conv":
        seen = min(1.0, max(0.0, (op.work.bytes_read - rest) / first))
    elif rest > 0:
        read = min(1.0, max(0.0, (op.work.bytes_read - first) / rest))
    rows = []
    for nest, left, right in operands(op):
        left_bytes = left.size_bytes * seen * sparsity.stored(left) if left is not None else 0.0
        right_bytes = right.size_bytes * read * sparsity.stored(right) if right is not None else 0.0
        weights = right is not None and right.role == "weight"
        faster = sparsity.faster if sparsity.covers(right) else 1.0
        skipped = right.density if right is not None and weights and skips and faster == 1.0 else 1.0
        left_width = (left.precision if left is not None else fmt).bytes_per_element
        right_width = (right.precision if right is not None else fmt).bytes_per_element
        left_pairs, right_pairs = float(nest.batch) * nest.m * nest.k, float(nest.batch) * nest.n * nest.k
        rows.append(
            {
                "batch": nest.batch,
                "m": nest.m,
                "n": nest.n,
                "k": nest.k,
                "steps": nest.steps,
                "share": nest.share * skipped,
                "swap": not weights,
                "grouped": op.kind == "conv" and nest.batch > 1,
                "faster": faster,
                "left_bytes": left_bytes,
                "right_bytes": right_bytes,
                "left_names": left.name if left is not None else "",
                "right_names": right.name if right is not None else "",
                "left_element": min(left_width, left_bytes / left_pairs) if left is not None else left_width,
                "right_element": min(right_width, right_bytes / right_pairs)
                if right is not None
                else right_width,
                "sum_element": width,
                "left_width": left_width,
                "right_width": right_width,
                "output_width": op.outputs[0].precision.bytes_per_element,
                "sets": _sets(op, nest),
                "formats": fmt.name,
            }
        )
    return rows


def _sets(op: Op, nest: LoopNest) -> tuple[int, int, int, int]:
    """Kernel rows, output rows, kernel columns and output columns of a convolution.

    Any other product is one kernel row of k columns that m output rows share.
    """
    if op.kind != "conv":
        return 1, nest.m, nest.k, 1
    kernel, pixels = nest.k_loops, nest.m_loops
    return kernel.get("r", 1), pixels.get("p", 1), kernel.get("s", 1), pixels.get("q", 1)
