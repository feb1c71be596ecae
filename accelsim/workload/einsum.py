"""Einstein sums as matrix products."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import prod

from accelsim.workload.graph import Op, Tensor


def einsum_ops(
    name: str, equation: str, operands: Sequence[Tensor], output: Tensor, origin: str
) -> list[Op] | None:
    """Ops of an einsum of one or two operands, or None when it is not a product, a sum or a permutation.

    Letters of two operands fall into batch (in both and in the output), rows (first operand and output),
    columns (second operand and output) and reduction (both, not in the output). Operands are permuted to
    (batch, rows, reduction) and (batch, reduction, columns); where the order already fits, this is free.
    """
    terms = _terms(equation, operands, output)
    if terms is None:
        return None
    inputs, out = terms
    if len(operands) == 1:
        return _unary(name, inputs[0], out, operands[0], output, origin)
    if len(operands) != 2:
        return None
    sizes: dict[str, int] = {}
    for letters, t in zip(inputs, operands):
        for letter, size in zip(letters, t.shape):
            sizes[letter] = max(size, sizes.get(letter, 1))
    a, b = inputs
    batch = [i for i in out if i in a and i in b]
    rows = [i for i in out if i in a and i not in b]
    columns = [i for i in out if i in b and i not in a]
    inner = [i for i in a if i in b and i not in out]
    if set(a) - set(batch + rows + inner) or set(b) - set(batch + columns + inner):
        return None
    if not inner:
        attributes = {"function": "mul"}
        op = Op(name, "elementwise", tuple(operands), (output,), attributes, origin=origin)
        return [op] if _aligned(inputs, out) else None

    def extent(letters: Sequence[str]) -> int:
        return prod(sizes[i] for i in letters)

    lead = (extent(batch),) if batch else ()
    ops: list[Op] = []
    left = _arranged(
        f"{name}.a", a, batch + rows + inner, operands[0], (*lead, extent(rows), extent(inner)), origin, ops
    )
    right = _arranged(
        f"{name}.b",
        b,
        batch + inner + columns,
        operands[1],
        (*lead, extent(inner), extent(columns)),
        origin,
        ops,
    )
    product = replace(output, name=f"{name}.product", shape=(*lead, extent(rows), extent(columns)))
    ops.append(Op(name, "matmul", (left, right), (product,), {}, origin=origin))
    order = batch + rows + columns
    if order == list(out):
        ops.append(Op(f"{name}.shape", "reshape", (product,), (output,), origin=origin))
    else:
        wide = replace(product, name=f"{name}.wide", shape=tuple(sizes[i] for i in order))
        ops.append(Op(f"{name}.wide", "reshape", (product,), (wide,), origin=origin))
        axes = tuple(order.index(i) for i in out)
        ops.append(Op(f"{name}.order", "transpose", (wide,), (output,), {"axes": axes}, origin=origin))
    return ops


def _terms(equation: str, operands: Sequence[Tensor], output: Tensor) -> tuple[list[str], str] | None:
    """Letters of operands and output, an ellipsis written out; None for diagonals."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        return None
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    if "..." in equation:
        count = max(
            len(t.shape) - len(term.replace("...", "")) for t, term in zip(operands, inputs) if "..." in term
        )
        dots = "".join(spare[:count])
        widths = [len(t.shape) - len(term.replace("...", "")) for t, term in zip(operands, inputs)]
        inputs = [term.replace("...", dots[count - w :] if w else "") for term, w in zip(inputs, widths)]
        out = out.replace("...", dots)
    if not arrow:
        letters = "".join(inputs)
        out = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    fits = all(len(term) == len(t.shape) for term, t in zip([*inputs, out], [*operands, output]))
    plain = all(re.fullmatch(r"[A-Za-z]*", term) and len(set(term)) == len(term) for term in [*inputs, out])
    return (inputs, out) if fits and plain else None


def _unary(name: str, letters: str, out: str, x: Tensor, y: Tensor, origin: str) -> list[Op] | None:
    if sorted(letters) == sorted(out):
        return [
            Op(name, "transpose", (x,), (y,), {"axes": tuple(letters.index(i) for i in out)}, origin=origin)
        ]
    kept = [i for i in letters if i in out]
    if kept != list(out):
        return None
    axes = tuple(i for i, letter in enumerate(letters) if letter not in out)
    return [
        Op(name, "reduce", (x,), (y,), {"function": "sum", "axes": axes, "keepdims": False}, origin=origin)
    ]


def _aligned(inputs: Sequence[str], out: str) -> bool:
    """The product is plain broadcasting: each operand's letters are the output's last ones."""
    return all(out.endswith(term) for term in inputs)


def _arranged(
    name: str,
    letters: str,
    order: Sequence[str],
    x: Tensor,
    shape: tuple[int, ...],
    origin: str,
    ops: list[Op],
) -> Tensor:
    if x.role == "weight":  # laid out once, beforehand
        return replace(x, shape=shape)
    if list(letters) != list(order):
        axes = tuple(letters.index(i) for i in order)
        turned = replace(x, name=f"{name}.order", shape=tuple(x.shape[i] for i in axes), role="activation")
        ops.append(Op(f"{name}.order", "transpose", (x,), (turned,), {"axes": axes}, origin=origin))
        x = turned
    flat = replace(x, name=f"{name}.shape", shape=shape, role="activation")
    ops.append(Op(f"{name}.shape", "reshape", (x,), (flat,), origin=origin))
    return flat
