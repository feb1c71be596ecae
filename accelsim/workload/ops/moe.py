"""Mixture of experts: routing tokens, the experts' products, and putting the results together."""

from __future__ import annotations

from functools import partial
from math import ceil

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import LoopNest, Work, bytes_of, compulsory, register_op, require_operands

_FP16 = precision("fp16")
_INT32 = precision("int32", storage=True)


def expected_experts(experts: int, top_k: int, tokens: int) -> float:
    """Expected number of distinct experts when each token chooses `top_k` different, equally likely ones.

    One expert is missed by one token with probability 1 - top_k / experts, and tokens choose independently:
    E (1 - (1 - k / E)^tokens).
    """
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def _routing(op: Op, rows: int) -> tuple[int, int, int]:
    """Experts, choices per token and tokens, from the attributes and the routed rows."""
    experts, top_k = op.attribute("experts"), op.attribute("top_k")
    if not isinstance(experts, int) or not isinstance(top_k, int) or not 1 <= top_k <= experts:
        raise GraphError(f"top_k {top_k} of {experts} experts makes no sense", op.name)
    tokens, rest = divmod(rows, top_k)
    if rest:
        raise GraphError(f"{rows} routed rows do not divide by top_k {top_k}", op.name)
    return experts, top_k, tokens


def _t(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, _FP16, batch_axis=0)


_ROUTING = {"experts": 8, "top_k": 2}


@register_op(
    "moe_dispatch",
    examples=[
        lambda: Op(
            "dispatch",
            "moe_dispatch",
            (_t("x", 16, 64), Tensor("chosen", (16, 2), _INT32, batch_axis=0)),
            (_t("rows", 32, 64),),
            _ROUTING,
        )
    ],
)
def moe_dispatch(op: Op) -> Work:
    """Copy each token once per chosen expert: (tokens, d) and indices to (tokens top_k, d), by expert."""
    require_operands(op, 2)
    x, y = op.inputs[0], op.outputs[0]
    _, top_k, tokens = _routing(op, y.shape[0])
    if x.shape != (tokens, *y.shape[1:]):
        raise GraphError(f"{x.shape} dispatched to {top_k} experts is not {y.shape}", op.name)
    read, written = compulsory(op)
    return Work(read, written)


def _experts_example(tokens: int) -> Op:
    w = Tensor("w", (8, 64, 128), _FP16, role="weight")
    rows = _t("rows", 2 * tokens, 64)
    return Op("experts", "grouped_matmul", (rows, w), (_t("y", 2 * tokens, 128),), _ROUTING)


@register_op("grouped_matmul", examples=[partial(_experts_example, tokens) for tokens in (1, 16, 64)])
def grouped_matmul(op: Op) -> Work:
    """Each routed row times the weight of its expert.

    ``inputs = (a, w[, bias])``: a (tokens top_k, k), w (experts, k, n), output (tokens top_k, n). MACs =
    rows k n. The weights of the `expected_experts` are read, the others are not. The nest spreads the rows
    evenly over that many experts, rounded to a whole number e: e products of ceil(rows / e) rows, with
    `share` correcting to the rows that exist; imbalance is for the architecture to add. Attributes:
    experts, top_k.
    """
    require_operands(op, 2)
    a, w, y = op.inputs[0], op.inputs[1], op.outputs[0]
    if len(a.shape) != 2 or len(w.shape) != 3:
        raise GraphError(
            f"grouped_matmul needs a (rows, k) and w (experts, k, n), got {a.shape} and {w.shape}", op.name
        )
    rows = a.shape[0]
    experts, top_k, tokens = _routing(op, rows)
    if w.shape != (experts, a.shape[1], w.shape[2]) or y.shape != (rows, w.shape[2]):
        raise GraphError(f"{a.shape} times {experts} experts of {w.shape} is not {y.shape}", op.name)
    active = expected_experts(experts, top_k, tokens)
    groups = min(max(1, round(active)), rows)
    per_group = ceil(rows / groups)
    nest = LoopNest(
        {"e": groups}, {"m": per_group}, {"n": w.shape[2]}, {"k": w.shape[1]}, rows / (groups * per_group)
    )
    read = a.size_bytes + bytes_of(op.inputs[1:]) * active / experts
    return Work(read, bytes_of(op.outputs), (nest,), vector_ops=y.elements if len(op.inputs) > 2 else 0)


def _weights_example() -> Op:
    dw = Tensor("dw", (8, 64, 128), _FP16)
    return Op("dw", "grouped_weight_gradient", (_t("rows", 32, 64), _t("dy", 32, 128)), (dw,), _ROUTING)


@register_op("grouped_weight_gradient", examples=[_weights_example])
def grouped_weight_gradient(op: Op) -> Work:
    """Gradient of the experts' weights: the rows of each expert, transposed, times their output gradients.

    ``inputs = (a, dy)``: a (tokens top_k, k), dy (tokens top_k, n), output (experts, k, n), written whole:
    experts without rows get zeros. MACs = rows k n, as in `grouped_matmul`. Attributes: experts, top_k.
    """
    require_operands(op, 2)
    a, dy, dw = op.inputs[0], op.inputs[1], op.outputs[0]
    rows = a.shape[0]
    experts, top_k, tokens = _routing(op, rows)
    if len(dw.shape) != 3 or dy.shape[0] != rows or dw.shape != (experts, a.shape[1], dy.shape[1]):
        raise GraphError(f"{a.shape} and {dy.shape} do not make gradients of {dw.shape}", op.name)
    groups = min(max(1, round(expected_experts(experts, top_k, tokens))), rows)
    per_group = ceil(rows / groups)
    share = rows / (groups * per_group)
    nest = LoopNest({"e": groups}, {"k": a.shape[1]}, {"n": dy.shape[1]}, {"m": per_group}, share)
    read, written = compulsory(op)
    return Work(read, written, (nest,))


@register_op(
    "moe_combine",
    examples=[
        lambda: Op(
            "combine", "moe_combine", (_t("rows", 32, 64), _t("gates", 16, 2)), (_t("y", 16, 64),), _ROUTING
        )
    ],
)
def moe_combine(op: Op) -> Work:
    """Gated sum of each token's rows: top_k multiplies and top_k - 1 adds per output element.

    ``inputs = (rows, gates)``: rows (tokens top_k, d), gates (tokens, top_k), output (tokens, d).
    """
    require_operands(op, 2)
    x, gates, y = op.inputs[0], op.inputs[1], op.outputs[0]
    _, top_k, tokens = _routing(op, x.shape[0])
    if y.shape != (tokens, *x.shape[1:]) or gates.shape != (tokens, top_k):
        raise GraphError(f"{x.shape} with gates {gates.shape} do not combine to {y.shape}", op.name)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=(2 * top_k - 1) * y.elements)
