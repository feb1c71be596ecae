"""Fused transformer node types: attention of the standard and of ONNX Runtime, and what surrounds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from accelsim.core.errors import UnsupportedOpError
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.onnx_node import MICROSOFT, Node, Shape, like_first, maps, shapes
from accelsim.workload.onnx_ops import convolution


def _heads(node: Node, x: Tensor, count: int, part: str, ops: list[Op]) -> Tensor:
    """(b, t, heads d) seen as (b, heads, t, d): the fused kernel strides over it."""
    if len(x.shape) == 4:
        return x
    b, t, width = x.shape
    split = replace(x, name=f"{node.name}.{part}", shape=(b, count, t, width // count), role="activation")
    ops.append(node.free(x, split, part))
    return split


def _attend(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ops: list[Op],
    *,
    mask: Sequence[Tensor] = (),
    causal: bool = False,
) -> list[Op]:
    """Attention on (b, h, t, d) operands, its output brought to the node's own shape."""
    y = node.y
    shape = (*q.shape[:3], v.shape[3])
    window = node.attr("local_window_size", -1)
    held: dict[str, Any] = {"causal": causal, **({"window": window} if window > 0 else {})}
    if y.shape == shape:
        return [*ops, node.op("attention", [q, k, v, *mask], [y], **held)]
    out = replace(y, name=f"{node.name}.heads", shape=shape)
    return [*ops, node.op("attention", [q, k, v, *mask], [out], **held), node.free(out, y, "merge")]


def _cached(node: Node, new: Tensor, past: int, present: int, part: str, ops: list[Op]) -> Tensor:
    """Keys or values of all positions: new ones join the cache, whose tensor attention reads."""
    if not node.has(past):
        _present(node, new, present, part, ops)
        return new
    old = node.tensor(past)
    if len(old.shape) != 4:
        raise UnsupportedOpError(
            f"the cache of {node.type} has shape {old.shape}, expected (b, h, s, d)", node.name
        )
    b, h, s, d = old.shape
    whole = replace(old, shape=(b, h, s + new.shape[2], d), role="kv")
    out = node.outputs[present] if present < len(node.outputs) else None
    slot = replace(new, name=out.name if out else f"{node.name}.{part}_slot")
    ops.append(node.op("kv_write", [new], [slot], part=f"{part}_write"))
    return replace(whole, name=f"{old.name}.cache")


def _present(node: Node, new: Tensor, index: int, part: str, ops: list[Op]) -> None:
    out = node.outputs[index] if index < len(node.outputs) else None
    if out is not None:
        ops.append(
            node.op("kv_write", [new], [replace(new, name=out.name, role="activation")], part=f"{part}_write")
        )


@maps("Attention")
def attention(node: Node) -> list[Op]:
    """Opset 23: inputs q, k, v, mask, past_key, past_value, as (b, h, t, d) or (b, t, h d)."""
    hq, hkv = node.attr("q_num_heads", 0), node.attr("kv_num_heads", 0)
    ops: list[Op] = []
    q = _heads(node, node.x, hq, "q", ops)
    k = _cached(node, _heads(node, node.tensor(1), hkv, "k", ops), 4, 1, "k", ops)
    v = _cached(node, _heads(node, node.tensor(2), hkv, "v", ops), 5, 2, "v", ops)
    return _attend(
        node,
        q,
        k,
        v,
        ops,
        mask=node.tensors(3) if node.has(3) else (),
        causal=bool(node.attr("is_causal", 0)),
    )


@maps("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: Node) -> list[Op]:
    """Inputs q, k, v as (b, t, h d), bias, key_padding_mask, attention_bias, past_key, past_value."""
    if not (node.has(1) and node.has(2)):
        raise UnsupportedOpError("packed queries, keys and values are not supported", node.name)
    heads = node.attr("num_heads")
    ops: list[Op] = []
    q = _heads(node, node.x, heads, "q", ops)
    k = _cached(node, _heads(node, node.tensor(1), heads, "k", ops), 6, 1, "k", ops)
    v = _cached(node, _heads(node, node.tensor(2), heads, "v", ops), 7, 2, "v", ops)
    return _attend(
        node,
        q,
        k,
        v,
        ops,
        mask=node.tensors(5) if node.has(5) else (),
        causal=bool(node.attr("unidirectional", 0)),
    )


@shapes("MultiHeadAttention", domain=MICROSOFT)
def _multi_head_shape(node: Node) -> list[tuple[int, Shape]]:
    dtype = node.value(0).dtype
    b, t, width = node.x.shape
    value = node.tensor(2)
    heads = node.attr("num_heads")
    out = value.shape[-1] if len(value.shape) == 3 else value.shape[1] * value.shape[3]
    tokens = value.shape[1] if len(value.shape) == 3 else value.shape[2]
    past = node.tensor(6).shape[2] if node.has(6) else 0
    return [
        (dtype, (b, t, out)),
        (dtype, (b, heads, past + tokens, width // heads)),
        (dtype, (b, heads, past + tokens, out // heads)),
    ]


@maps("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(node: Node) -> list[Op]:
    """Inputs q, k, v as (b, t, h d) (or packed in q), past_key, past_value; rotates inside."""
    hq, hkv = node.attr("num_heads"), node.attr("kv_num_heads")
    ops: list[Op] = []
    q, k, v = node.x, *(node.tensor(i) if node.has(i) else None for i in (1, 2))
    if k is None or v is None:
        b, t, width = q.shape
        d = width // (hq + 2 * hkv)
        parts = [
            replace(q, name=f"{node.name}.{p}_packed", shape=(b, t, n * d))
            for p, n in (("q", hq), ("k", hkv), ("v", hkv))
        ]
        ops.append(node.op("reshape", [q], parts, part="unpack"))
        q, k, v = parts
    split = [_heads(node, x, n, p, ops) for x, n, p in ((q, hq, "q"), (k, hkv, "k"), (v, hkv, "v"))]
    if node.attr("do_rotary", 0):
        for i, part in enumerate(("q", "k")):
            turned = replace(split[i], name=f"{node.name}.{part}_rope")
            ops.append(node.op("elementwise", [split[i]], [turned], part=f"{part}_rope", function="rope"))
            split[i] = turned
    keys = _cached(node, split[1], 3, 1, "k", ops)
    values = _cached(node, split[2], 4, 2, "v", ops)
    return _attend(node, split[0], keys, values, ops, causal=True)


@shapes("GroupQueryAttention", domain=MICROSOFT)
def _group_query_shape(node: Node) -> list[tuple[int, Shape]]:
    dtype = node.value(0).dtype
    b, t, width = node.x.shape
    hq, hkv = node.attr("num_heads"), node.attr("kv_num_heads")
    d = width // hq if node.has(1) else width // (hq + 2 * hkv)
    past = node.tensor(3).shape[2] if node.has(3) else 0
    cache = (dtype, (b, hkv, past + t, d))
    return [(dtype, (b, t, hq * d)), cache, cache]


@maps("Attention", domain=MICROSOFT)
def packed_attention(node: Node) -> list[Op]:
    """Inputs x (b, t, i), weight (i, 3 h d), bias, mask: the projection, then attention."""
    heads = node.attr("num_heads")
    x, w = node.x, node.weight(1)
    b, t, _ = x.shape
    sizes = node.attr("qkv_hidden_sizes") or [w.shape[-1] // 3] * 3
    ops: list[Op] = []
    qkv = replace(node.y, name=f"{node.name}.qkv", shape=(b, t, w.shape[-1]))
    bias = [node.weight(2)] if node.has(2) else []
    ops.append(node.op("matmul", [x, w, *bias], [qkv], part="qkv"))
    parts = [
        replace(qkv, name=f"{node.name}.{p}", shape=(b, heads, t, n // heads)) for p, n in zip("qkv", sizes)
    ]
    ops.append(node.op("reshape", [qkv], parts, part="unpack"))
    q, k, v = parts
    return _attend(node, q, k, v, ops, causal=bool(node.attr("unidirectional", 0)))


@shapes("Attention", domain=MICROSOFT)
def _packed_shape(node: Node) -> list[tuple[int, Shape]]:
    sizes = node.attr("qkv_hidden_sizes") or [node.tensor(1).shape[-1] // 3] * 3
    return [(node.value(0).dtype, (*node.x.shape[:2], sizes[2]))]


@maps("RotaryEmbedding")
@maps("RotaryEmbedding", domain=MICROSOFT)
def rotary(node: Node) -> list[Op]:
    return [node.op("elementwise", [node.x], function="rope")]


@maps("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_norm(node: Node) -> list[Op]:
    """Residual sum, then normalisation; the sum is an output when something reads it."""
    simplified = node.type == "SkipSimplifiedLayerNormalization"
    vectors = node.tensors(2) if simplified else node.tensors(2, 3)
    bias = node.tensors(3) if simplified and node.has(3) else node.tensors(4) if node.has(4) else []
    kept = node.outputs[3] if len(node.outputs) > 3 else None
    total = kept or replace(node.y, name=f"{node.name}.sum")
    return [
        node.op("elementwise", [node.x, node.tensor(1), *bias], [total], part="sum", function="add"),
        node.op("rms_norm" if simplified else "layer_norm", [total, *vectors], [node.y]),
    ]


@maps("EmbedLayerNormalization", domain=MICROSOFT)
def embed_norm(node: Node) -> list[Op]:
    """Inputs: ids, segment ids, word, position and segment tables, gamma, beta."""
    ops: list[Op] = []
    y = node.y
    words = replace(y, name=f"{node.name}.word")
    ops.append(node.op("gather", [node.tensor(2), node.x], [words], part="word", axis=0))
    positions = node.tensor(3)
    terms = [words, replace(positions, name=f"{node.name}.position", shape=y.shape[1:], role="activation")]
    ops.append(node.op("slice", [positions], [terms[1]], part="position", axes=(0,)))
    if node.has(1) and node.has(4):
        terms.append(replace(y, name=f"{node.name}.segment"))
        ops.append(node.op("gather", [node.tensor(4), node.tensor(1)], [terms[2]], part="segment", axis=0))
    total = replace(y, name=f"{node.name}.sum")
    ops.append(node.op("elementwise", terms, [total], part="sum", function="add"))
    return [*ops, node.op("layer_norm", [total, *node.tensors(5, 6)], [y])]


@shapes("EmbedLayerNormalization", domain=MICROSOFT)
def _embed_shape(node: Node) -> list[tuple[int, Shape]]:
    table = node.value(2)
    out = (table.dtype, (*node.x.shape, table.tensor.shape[1]))
    return [out, (node.value(0).dtype, node.x.shape[:1]), out]


@maps("FusedMatMul", domain=MICROSOFT)
def fused_matmul(node: Node) -> list[Op]:
    flags: dict[str, Any] = {
        "transpose_a": bool(node.attr("transA", 0)),
        "transpose_b": bool(node.attr("transB", 0)),
    }
    return [node.op("matmul", node.tensors(0, 1), **flags)]


@shapes("FusedMatMul", domain=MICROSOFT)
def _fused_matmul_shape(node: Node) -> list[tuple[int, Shape]]:
    a, b = node.x.shape, node.tensor(1).shape
    rows, columns = a[-1 if node.attr("transA", 0) else -2], b[-2 if node.attr("transB", 0) else -1]
    lead = max(a[:-2], b[:-2], key=len)
    return [(node.value(0).dtype, (*lead, rows, columns))]


@maps("FusedConv", domain=MICROSOFT)
def fused_conv(node: Node) -> list[Op]:
    return convolution(node, node.x, node.tensor(1), *node.tensors(2))


shapes(
    "Gelu",
    "FastGelu",
    "BiasGelu",
    "QuickGelu",
    "LayerNormalization",
    "SimplifiedLayerNormalization",
    "RotaryEmbedding",
    domain=MICROSOFT,
)(like_first)
shapes("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)(like_first)
shapes("SimplifiedLayerNormalization")(like_first)
