"""Parts of a backward pass that no forward operator is: pointwise gradients, updates and attention's."""

from __future__ import annotations

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import LoopNest, Work, bytes_of, compulsory, register_op, require_operands
from accelsim.workload.ops.attention import SOFTMAX_OPS, allowed_pairs

_FP16 = precision("fp16")


def _x(name: str, *shape: int) -> Tensor:
    return Tensor(name, shape, _FP16, batch_axis=0)


@register_op(
    "gradient",
    examples=[
        lambda: Op(
            "relu.grad", "gradient", (_x("dy", 1, 64), _x("x", 1, 64)), (_x("dx", 1, 64),), {"per_element": 2}
        )
    ],
)
def gradient(op: Op) -> Work:
    """Gradient of a pointwise, normalising or moving operator, or an optimiser's update.

    Vector operations = elements of the largest operand x `per_element`; every input once, every output once.
    Attributes: per_element, of (the forward kind).
    """
    require_operands(op, 1)
    per_element = op.attribute("per_element", 1)
    if per_element < 0:
        raise GraphError(f"per_element is {per_element}", op.name)
    read, written = compulsory(op)
    largest = max(t.elements for t in (*op.inputs, *op.outputs))
    return Work(read, written, vector_ops=largest * per_element)


def _attention_example(heads: int, kv_heads: int, causal: bool) -> Op:
    q, y, dy, dq = (_x(n, 1, heads, 32, 64) for n in ("q", "y", "dy", "dq"))
    k, v, dk, dv = (_x(n, 1, kv_heads, 48, 64) for n in ("k", "v", "dk", "dv"))
    attributes = {"causal": causal}
    return Op("attention.grad", "attention_backward", (dy, q, k, v, y), (dq, dk, dv), attributes)


@register_op(
    "attention_backward",
    examples=[lambda: _attention_example(12, 12, False), lambda: _attention_example(8, 2, True)],
)
def attention_backward(op: Op) -> Work:
    """Gradient of scaled dot-product attention with its scores computed again on chip.

    ``inputs = (dy, q, k, v, y)``, outputs (dq, dk, dv). Five products where the forward pass has two: the
    scores q k^T again, dp = dy v^T, dv = p^T dy, dq = ds k and dk = ds^T q (Dao et al., FlashAttention,
    arXiv:2205.14135, algorithm 4; ``torch.utils.flop_counter`` counts the same five). Softmax costs
    `SOFTMAX_OPS` and its gradient four operations per score. Attributes: causal, window.
    """
    require_operands(op, 5, 3)
    dy, q, k, v = op.inputs[:4]
    if any(len(t.shape) != 4 for t in (dy, q, k, v)) or q.shape[1] % k.shape[1]:
        raise GraphError(
            f"attention_backward needs (b, h, t, d) operands, got {q.shape} and {k.shape}", op.name
        )
    (b, heads, t, d), (_, kv_heads, s, _), dv = q.shape, k.shape, v.shape[3]
    causal, window = bool(op.attribute("causal", False)), op.attribute("window")
    share = allowed_pairs(t, s, causal, window) / (t * s)
    batch, rows = {"b": b, "h": kv_heads}, {"g": heads // kv_heads, "t": t}
    nests = (
        LoopNest(batch, rows, {"s": s}, {"d": d}, share, left=1, right=2),
        LoopNest(batch, rows, {"s": s}, {"d": dv}, share, left=0, right=3),
        LoopNest(batch, {"s": s}, {"d": dv}, rows, share, left=None, right=0),
        LoopNest(batch, rows, {"d": d}, {"s": s}, share, left=None, right=2),
        LoopNest(batch, {"s": s}, {"d": d}, rows, share, left=None, right=1),
    )
    scores = b * heads * t * s * share
    return Work(bytes_of(op.inputs), bytes_of(op.outputs), nests, vector_ops=scores * (SOFTMAX_OPS + 4))


def _latent_example() -> Op:
    q, dq = (_x(n, 1, 16, 32, 80) for n in ("q", "dq"))
    y, dy = (_x(n, 1, 16, 32, 64) for n in ("y", "dy"))
    cache, d_cache = (_x(n, 1, 48, 80) for n in ("cache", "d_cache"))
    attributes = {"latent": 64, "rope": 16, "causal": True}
    return Op("mla.grad", "mla_attention_backward", (dy, q, cache, y), (dq, d_cache), attributes)


@register_op("mla_attention_backward", examples=[_latent_example])
def mla_attention_backward(op: Op) -> Work:
    """Gradient of latent attention in its absorbed form, with its scores computed again on chip.

    ``inputs = (dy, q, cache, y)``, outputs (dq, d_cache). The five products of `attention_backward`, scores,
    dq and dk over latent + rope, dp and dv over the latent; the cache gets the sum of its gradients as keys
    and as values. Attributes: latent, rope, causal.
    """
    require_operands(op, 4, 2)
    dy, q, cache = op.inputs[:3]
    latent, rope = op.attribute("latent"), op.attribute("rope", 0)
    (b, h, t, width), s = q.shape, cache.shape[1]
    if width != latent + rope or cache.shape != (b, s, width) or dy.shape != (b, h, t, latent):
        raise GraphError(
            f"latent {latent} and rope {rope} do not fit q {q.shape}, cache {cache.shape}, dy {dy.shape}",
            op.name,
        )
    share = allowed_pairs(t, s, bool(op.attribute("causal", False)), None) / (t * s)
    batch, rows, keys = {"b": b}, {"h": h, "t": t}, {"s": s}
    nests = (
        LoopNest(batch, rows, keys, {"d": width}, share, left=1, right=2),
        LoopNest(batch, rows, keys, {"d": latent}, share, left=0, right=2),
        LoopNest(batch, keys, {"d": latent}, rows, share, left=None, right=0),
        LoopNest(batch, rows, {"d": width}, keys, share, left=None, right=2),
        LoopNest(batch, keys, {"d": width}, rows, share, left=None, right=1),
    )
    scores = b * h * t * s * share
    merged = b * s * latent
    return Work(
        bytes_of(op.inputs), bytes_of(op.outputs), nests, vector_ops=scores * (SOFTMAX_OPS + 4) + merged
    )
