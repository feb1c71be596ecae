"""Zeros inside weights: unstructured and N:M patterns, how they are stored, and what storing them costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import GraphError, RequestError, did_you_mean
from accelsim.core.sparsity import split_pattern, stored_share
from accelsim.workload.graph import Graph, Op, Tensor

if TYPE_CHECKING:
    from accelsim.techniques.arrays import Arrays

Amount = Callable[[tuple[str, ...]], float]

FORMATS = ("dense", "bitmap", "csr")
PRODUCTS = ("conv", "matmul", "grouped_matmul", "lstm", "gru")
CROSSOVER = (0.7, 0.9)
"""Share of zeros below which dense tensor cores still beat sparse kernels (Gale et al., SC 2020,
arXiv:2006.10901: about 70 %; Hoefler et al., JMLR 2021, arXiv:2102.00554: up to 90 %).
"""


# -- storage
# ----------------------------------------------------------------------------------------------------------


def storage_bytes(shape: tuple[int, ...], density: float, bits: int, form: str) -> float:
    """Storage of an unstructured sparse tensor [B].

    ``dense`` keeps every value. ``bitmap`` keeps the values that are not zero and one bit per element.
    ``csr`` keeps them with a column index each, of the bits that the row length needs, and a 32-bit start
    per row; rows are the first axis.

    Parameters
    ----------
    shape : tuple of int
    density : float
        Share of values that are not zero.
    bits : int
        Bits of a value.
    form : {"dense", "bitmap", "csr"}
    """
    if form not in FORMATS:
        raise RequestError(f"unknown storage format '{form}'", hint=did_you_mean(form, FORMATS))
    elements, rows = _elements(shape), shape[0] if shape else 1
    values = density * elements * bits
    if form == "dense":
        return elements * bits / 8
    if form == "bitmap":
        return (values + elements) / 8
    index = max(1, (max(1, elements // rows) - 1).bit_length())
    return (values + density * elements * index + 32 * (rows + 1)) / 8


def crossover(shape: tuple[int, ...], bits: int, form: str) -> float:
    """Density below which a format is smaller than dense storage; 0 where it never is.

    Both are linear in the density: bitmap crosses at 1 - 1 / bits, CSR at (bits - 32 (rows + 1) / elements) /
    (bits + index bits).
    """
    full, empty = storage_bytes(shape, 1.0, bits, form), storage_bytes(shape, 0.0, bits, form)
    dense = storage_bytes(shape, 1.0, bits, "dense")
    return 1.0 if full <= dense else max(0.0, (dense - empty) / (full - empty))


def best_format(shape: tuple[int, ...], density: float, bits: int) -> str:
    """The smallest of the formats; the simplest of equals."""
    return min(FORMATS, key=lambda form: storage_bytes(shape, density, bits, form))


def _elements(shape: tuple[int, ...]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n


def storage_table(graph: Graph) -> list[dict[str, Any]]:
    """Storage of every weight that products read: name, density, bytes by format, and the smallest."""
    rows = []
    for t in product_weights(graph).values():
        bits = t.precision.bits
        rows.append(
            {
                "weight": t.name,
                "shape": t.shape,
                "density": t.density,
                "pattern": t.pattern,
                **{f"{form}_bytes": storage_bytes(t.shape, t.density, bits, form) for form in FORMATS},
                "nm_bytes": t.size_bytes * stored_share(t.pattern, bits),
                "best": t.pattern or best_format(t.shape, t.density, bits),
            }
        )
    return rows


# -- masks of real weights
# ----------------------------------------------------------------------------------------------------------


def magnitude_mask(values: Any, amount: float) -> Any:
    """True where a value stays when the `amount` smallest magnitudes go; ties go in order."""
    import numpy as np

    flat = np.abs(np.asarray(values)).ravel()
    mask = np.ones(flat.size, bool)
    mask[np.argsort(flat, kind="stable")[: round(amount * flat.size)]] = False
    return mask.reshape(np.shape(values))


def pattern_mask(values: Any, pattern: str, axis: int) -> Any:
    """True for the N largest magnitudes of every M neighbours along an axis.

    Raises
    ------
    GraphError
        M does not divide the axis.
    """
    import numpy as np

    keep, block = split_pattern(pattern)
    moved = np.moveaxis(np.abs(np.asarray(values)), axis, -1)
    if moved.shape[-1] % block:
        raise GraphError(f"{pattern} does not divide an axis of {moved.shape[-1]}")
    groups = moved.reshape(*moved.shape[:-1], -1, block)
    order = np.argsort(-groups, axis=-1, kind="stable")
    mask = np.zeros(groups.shape, bool)
    np.put_along_axis(mask, order[..., :keep], True, axis=-1)
    return np.moveaxis(mask.reshape(moved.shape), -1, axis)


# -- transforms
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sparse:
    """A graph whose weights carry zeros.

    Attributes
    ----------
    graph : Graph
    pruned : int
        Weight tensors that lost values.
    skipped : tuple of str
        Operators whose weights a pattern does not divide.
    norm : float or None
        Share of the L1 norm that is left in the weights that were given; None without them.
    matched : int
        Weight tensors that were given.
    """

    graph: Graph
    pruned: int
    skipped: tuple[str, ...]
    norm: float | None
    matched: int


def product_weights(graph: Graph) -> dict[str, Tensor]:
    """Weight matrices and filters of products, by name."""
    return {t.name: t for op in graph if op.kind in PRODUCTS for t in op.weights if len(t.shape) > 1}


def _readers(graph: Graph) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for op in graph:
        if op.kind in PRODUCTS:
            for t in op.weights:
                found.setdefault(t.name, []).append(op.name)
    return {name: tuple(ops) for name, ops in found.items()}


def unstructured(graph: Graph, amount: Amount, arrays: Arrays | None) -> Sparse:
    """Zero the smallest magnitudes.

    Without weights each tensor loses the same share. With them one threshold holds for all tensors given
    (global magnitude, Gale et al., arXiv:1902.09574), so tensors end at densities of their own.
    """
    import numpy as np

    readers, weights = _readers(graph), product_weights(graph)
    removed = {name: amount(readers[name]) for name in weights}
    density = {name: 1.0 - share for name, share in removed.items()}
    given = {
        name: np.abs(arrays.require(t)).ravel()
        for name, t in weights.items()
        if arrays is not None and removed[name] > 0 and arrays.of(t) is not None
    }
    norm = None
    if given:
        every = np.concatenate(list(given.values()))
        goes = round(sum(removed[name] * v.size for name, v in given.items()))
        mask = magnitude_mask(every, goes / every.size)
        norm = float(every[mask].sum(dtype=np.float64) / max(every.sum(dtype=np.float64), 1e-300))
        at = 0
        for name, v in given.items():
            density[name] = float(mask[at : at + v.size].mean())
            at += v.size
            if density[name] == 0.0:
                raise GraphError(
                    "pruning would remove every weight", readers[name][0], "use a smaller amount"
                )

    def changed(t: Tensor) -> Tensor:
        return t if density.get(t.name, 1.0) >= t.density else replace(t, density=density[t.name])

    pruned = sum(d < 1 for d in density.values())
    return Sparse(graph.map_tensors(changed) if pruned else graph, pruned, (), norm, len(given))


def patterned(
    graph: Graph, pattern: str, chosen: Callable[[str], bool] | None, arrays: Arrays | None
) -> Sparse:
    """Keep N of every M neighbours along the reduction of each product.

    Raises
    ------
    GraphError
        M divides no layer, or not one that was named.
    """
    keep, block = split_pattern(pattern)
    targets: dict[str, int] = {}
    skipped: list[str] = []
    for op in graph:
        if op.kind not in PRODUCTS or (chosen is not None and not chosen(op.name)):
            continue
        for t in op.weights:
            if len(t.shape) < 2:
                continue
            axis = _reduction(op, t)
            if t.shape[axis] % block == 0:
                targets[t.name] = axis
            elif chosen is not None:
                raise GraphError(
                    f"{pattern} does not divide the {t.shape[axis]} inputs of {t.shape}", op.name
                )
            else:
                skipped.append(op.name)
    if not targets:
        raise GraphError(f"{pattern} divides no layer", graph.name)
    kept = total = 0.0
    matched = 0
    for t in product_weights(graph).values():
        values = arrays.of(t) if arrays is not None and t.name in targets else None
        if values is not None:
            mask = pattern_mask(values, pattern, targets[t.name])
            kept += float(abs(values * mask).sum())
            total += float(abs(values).sum())
            matched += 1

    def changed(t: Tensor) -> Tensor:
        if t.name not in targets:
            return t
        return replace(t, pattern=pattern, density=min(t.density, keep / block))

    names = tuple(dict.fromkeys(skipped))
    return Sparse(graph.map_tensors(changed), len(targets), names, kept / total if total else None, matched)


def _reduction(op: Op, t: Tensor) -> int:
    """Axis of a weight that its product sums over: input channels of a convolution (as cuSPARSELt and
    TensorRT group them).
    """
    if op.kind == "conv":
        return 0 if op.attribute("transposed", False) else 1
    if op.kind == "matmul":
        back = op.attribute("transpose_b") if t.name == op.inputs[1].name else not op.attribute("transpose_a")
        return len(t.shape) - (1 if back else 2)
    return 1


# -- what a device makes of it
# ----------------------------------------------------------------------------------------------------------


def gains(graph: Graph, device: Any) -> tuple[str, ...]:
    """What the zeros of a graph's weights bring on a device, in words; empty for dense weights."""
    if _dense(graph):
        return ()
    weights = product_weights(graph).values()
    loose = [t for t in weights if t.density < 1 and not t.pattern]
    found = []
    if loose:
        share = 1 - sum(t.density * t.elements for t in loose) / sum(t.elements for t in loose)
        text = f"unstructured zeros ({share:.0%} of the pruned weights)"
        if device.kind == "systolic" and device.array.skips_zeros:
            found.append(f"{text}: the array does not run their products; storage stays dense")
        elif device.kind == "gpu":
            low, high = CROSSOVER
            found.append(
                f"{text} gain nothing: tensor cores multiply them; sparse kernels begin to win at "
                f"{low:.0%} to {high:.0%} zeros and are not modelled"
            )
        elif device.kind == "fpga" and device.overlay is None:
            found.append(f"{text} save logic where a unit is fully unrolled; a folded unit multiplies them")
        else:
            found.append(f"{text} gain nothing: the multipliers take zeros like any value")
    return (*found, *_pattern_notes({t.pattern for t in weights if t.pattern}, device))


@lru_cache(maxsize=64)
def _dense(graph: Graph) -> bool:
    return all(t.density == 1 and not t.pattern for t in graph.weights)


def _pattern_notes(patterns: set[str], device: Any) -> list[str]:
    found = []
    for pattern in sorted(patterns):
        if device.kind == "gpu":
            if device.sm.sparse_speedup == 1.0:
                found.append(f"{device.name} has no sparse tensor cores: {pattern} weights run as dense ones")
            elif pattern != "2:4":
                found.append(f"sparse tensor cores take 2:4 only: {pattern} weights run as dense ones")
        elif device.kind == "fpga":
            found.append(f"{pattern} weights gain what unstructured zeros do: no cycles of a folded unit")
    return found
