"""Matrix products."""

from __future__ import annotations

from math import prod

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import LoopNest, Work, compulsory, register_op

_FP16 = precision("fp16")


def _example(batch: tuple[int, ...], m: int, n: int, k: int, weight: bool) -> Op:
    a = Tensor("a", (*batch, m, k), _FP16, batch_axis=0)
    if weight:
        b = Tensor("b", (k, n), _FP16, role="weight")
    else:
        b = Tensor("b", (*batch, k, n), _FP16, batch_axis=0)
    return Op("matmul", "matmul", (a, b), (Tensor("c", (*batch, m, n), _FP16, batch_axis=0),))


@register_op(
    "matmul",
    examples=[lambda: _example((), 128, 256, 64, True), lambda: _example((2, 12), 128, 128, 64, False)],
)
def matmul(op: Op) -> Work:
    """Matrix product C = A B (+ bias), batched when B has leading dimensions.

    ``inputs = (a, b[, bias])`` with a (..., m, k) and b (k, n) or (..., k, n); ``transpose_a`` and
    ``transpose_b`` swap the last two axes. With a two-dimensional b all leading axes of a count as rows: m =
    prod(leading) * m.
    """
    a, b = op.inputs[0], op.inputs[1]
    if len(a.shape) < 1 or len(b.shape) < 2:
        raise GraphError(f"matmul needs a (..., m, k) and b (k, n), got {a.shape} and {b.shape}", op.name)
    a_shape = a.shape if len(a.shape) > 1 else (1, *a.shape)
    rows, k = a_shape[-2:] if not op.attribute("transpose_a") else a_shape[-2:][::-1]
    k_b, n = b.shape[-2:] if not op.attribute("transpose_b") else b.shape[-2:][::-1]
    if k != k_b:
        raise GraphError(f"inner sizes differ: {a.shape} times {b.shape}", op.name)
    lead_a, lead_b = prod(a_shape[:-2]), prod(b.shape[:-2])
    if lead_b == 1:
        batch, m = 1, lead_a * rows
    else:
        batch, m = max(lead_a, lead_b), rows
    read, written = compulsory(op)
    nest = LoopNest({"b": batch}, {"m": m}, {"n": n}, {"k": k})
    bias = op.outputs[0].elements if len(op.inputs) > 2 else 0
    return Work(read, written, (nest,), vector_ops=bias)
