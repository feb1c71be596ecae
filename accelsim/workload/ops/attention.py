"""Scaled dot-product attention, with grouped heads, masks and caches."""

from __future__ import annotations

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Role, Tensor
from accelsim.workload.ops import TRANSCENDENTAL_OPS, LoopNest, Work, bytes_of, register_op, require_operands

_FP16 = precision("fp16")

# Per score: scale, compare for the maximum, subtract it, exp, add into the sum, divide.
SOFTMAX_OPS = TRANSCENDENTAL_OPS + 5


def _ramp(low: int, high: int, cap: int) -> int:
    """Sum of min(x, cap) for x in [low, high), with 0 <= low <= high and cap >= 0."""
    rising = max(min(high, cap + 1), low)  # below it x counts itself, from it on the cap counts
    return (low + rising - 1) * (rising - low) // 2 + cap * (high - rising)


def allowed_pairs(queries: int, keys: int, causal: bool, window: int | None = None) -> int:
    """Query-key pairs that a mask leaves.

    The queries are the last `queries` of `keys` positions. A causal query i sees min(keys - queries + i +
    1, window) keys: itself and those before. Without causality a window is centred: it reaches window // 2
    keys to each side.
    """
    past = keys - queries
    if causal:
        return _ramp(past + 1, keys + 1, keys if window is None else window)
    if window is None:
        return queries * keys
    half = window // 2
    return _ramp(past, keys, half) + _ramp(0, queries, half) + queries


def keys_read(queries: int, keys: int, causal: bool, window: int | None = None) -> int:
    """Keys that at least one query sees: all, or the last queries + window - 1 when a window slides."""
    if window is None:
        return keys
    return min(keys, queries + (window - 1 if causal else window // 2))


def _mask(op: Op, queries: int, keys: int) -> tuple[float, int]:
    """Share of the scores that run and keys that are read."""
    causal, window = bool(op.attribute("causal", False)), op.attribute("window")
    if window is not None and (not isinstance(window, int) or window < 1):
        raise GraphError(f"window {window!r} is not a positive number of tokens", op.name)
    if (causal or window is not None) and queries > keys:
        raise GraphError(
            f"{queries} queries are more than {keys} keys under a causal or sliding mask", op.name
        )
    share = allowed_pairs(queries, keys, causal, window) / (queries * keys)
    return share, keys_read(queries, keys, causal, window)


def _example(hq: int, hkv: int, t: int, s: int, role: Role = "activation", **attributes: int | bool) -> Op:
    q = Tensor("q", (1, hq, t, 64), _FP16, batch_axis=0)
    k, v = (Tensor(n, (1, hkv, s, 64), _FP16, role, batch_axis=0) for n in ("k", "v"))
    return Op(
        "attention", "attention", (q, k, v), (Tensor("y", (1, hq, t, 64), _FP16, batch_axis=0),), attributes
    )


@register_op(
    "attention",
    examples=[
        lambda: _example(12, 12, 128, 128),
        lambda: _example(32, 8, 256, 256, causal=True),
        lambda: _example(32, 8, 1, 1000, "kv", causal=True),
        lambda: _example(32, 8, 1, 1000, "kv", causal=True, window=128),
        lambda: _example(8, 1, 16, 48, causal=True),
    ],
)
def attention(op: Op) -> Work:
    """Scaled dot-product attention softmax(q k^T / sqrt(d) + mask) v as one operator; its scores stay inside.

    ``inputs = (q, k, v[, mask])``: q (b, hq, t, d), k (b, hkv, s, d), v (b, hkv, s, dv), output (b, hq, t,
    dv). The hq / hkv query heads of a group share a key head, so the group's queries are rows of one
    product. Two nests, both over b hkv: scores (m = hq / hkv t, n = s, k = d) and values (m = hq / hkv t, n
    = dv, k = s). The mask leaves `allowed_pairs` of the t s scores. Softmax costs `SOFTMAX_OPS` per score.
    Keys and values outside a sliding window are not read. Attributes: causal, window.
    """
    require_operands(op, 3)
    q, k, v = op.inputs[:3]
    y = op.outputs[0]
    if any(len(t.shape) != 4 for t in (q, k, v, y)):
        raise GraphError(
            f"attention needs (b, h, t, d) operands, got {q.shape}, {k.shape}, {v.shape}, {y.shape}", op.name
        )
    (b, hq, t, d), (bk, hkv, s, dk) = q.shape, k.shape
    if (bk, dk) != (b, d) or v.shape[:3] != (b, hkv, s) or hq % hkv or y.shape != (b, hq, t, v.shape[3]):
        raise GraphError(
            f"shapes do not fit: q {q.shape}, k {k.shape}, v {v.shape}, output {y.shape}", op.name
        )
    share, read_keys = _mask(op, t, s)
    batch, rows = {"b": b, "h": hkv}, {"g": hq // hkv, "t": t}
    scores = LoopNest(batch, rows, {"s": s}, {"d": d}, share, left=0, right=1)
    values = LoopNest(batch, rows, {"d": v.shape[3]}, {"s": s}, share, left=None, right=2)
    softmax = b * hq * t * s * share * (SOFTMAX_OPS + (1 if len(op.inputs) > 3 else 0))
    cache = bytes_of((k, v)) * read_keys / s
    read = bytes_of((q, *op.inputs[3:])) + cache
    return Work(read, bytes_of(op.outputs), (scores, values), vector_ops=softmax)


def _mla_example(t: int, s: int) -> Op:
    q = Tensor("q", (1, 16, t, 576), _FP16, batch_axis=0)
    cache = Tensor("cache", (1, s, 576), _FP16, "kv", batch_axis=0)
    y = Tensor("y", (1, 16, t, 512), _FP16, batch_axis=0)
    return Op("mla", "mla_attention", (q, cache), (y,), {"latent": 512, "rope": 64, "causal": True})


@register_op("mla_attention", examples=[lambda: _mla_example(1, 1000), lambda: _mla_example(128, 128)])
def mla_attention(op: Op) -> Work:
    """Multi-head latent attention in its absorbed form (DeepSeek-V2, arXiv:2405.04434).

    One latent vector per token is key and value of every head.

    ``inputs = (q, cache)``: q (b, h, t, latent + rope), cache (b, s, latent + rope), output (b, h, t,
    latent). All heads read the same cache, so h t are rows: scores (m = h t, n = s, k = latent + rope) and
    values (m = h t, n = latent, k = s). The cache is read once. Attributes: latent, rope, causal.
    """
    require_operands(op, 2)
    q, cache, y = op.inputs[0], op.inputs[1], op.outputs[0]
    latent, rope = op.attribute("latent"), op.attribute("rope", 0)
    if len(q.shape) != 4 or len(cache.shape) != 3 or not isinstance(latent, int):
        raise GraphError(
            f"mla_attention needs q (b, h, t, w) and cache (b, s, w), got {q.shape} and {cache.shape}",
            op.name,
        )
    (b, h, t, width), s = q.shape, cache.shape[1]
    if width != latent + rope or cache.shape != (b, s, width) or y.shape != (b, h, t, latent):
        raise GraphError(
            f"latent {latent} and rope {rope} do not fit q {q.shape}, cache {cache.shape}, output {y.shape}",
            op.name,
        )
    share, read_keys = _mask(op, t, s)
    rows = {"h": h, "t": t}
    scores = LoopNest({"b": b}, rows, {"s": s}, {"d": width}, share, left=0, right=1)
    values = LoopNest({"b": b}, rows, {"d": latent}, {"s": s}, share, left=None, right=1)
    read = bytes_of((q, *op.inputs[2:])) + cache.size_bytes * read_keys / s
    return Work(read, bytes_of(op.outputs), (scores, values), vector_ops=b * h * t * s * share * SOFTMAX_OPS)
