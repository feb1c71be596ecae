"""Multi-head latent attention (MLA) of DeepSeek-V2, and the sparse selection of DeepSeek-V3.2."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.workload.builders.transformer import TransformerBuilder
from accelsim.workload.graph import Op, Tensor


@dataclass(frozen=True)
class Indexer:
    """Lightning indexer of DeepSeek-V3.2: cheap heads score all tokens, attention visits the best `top_k`.

    Attributes
    ----------
    heads, width : int
        Index heads and their width; one key of that width per token is cached.
    top_k : int
    computes : bool
        False where a layer reuses the selection of an earlier one (GLM-5.2).
    """

    heads: int
    width: int
    top_k: int
    computes: bool = True


@dataclass(frozen=True)
class LatentAttention:
    """Sizes of MLA (arXiv:2405.04434, section 2.1).

    Attributes
    ----------
    heads : int
    q_rank : int
        Width of the compressed query; 0 when queries are projected directly.
    kv_rank : int
        Width of the cached latent that keys and values are expanded from.
    nope_dim, rope_dim, value_dim : int
        Width per head of the key without position, of the rotated key that all heads share, and of the value.
    indexer : Indexer or None
    """

    heads: int
    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int
    indexer: Indexer | None = None

    @property
    def kv_elements_per_token(self) -> int:
        indexed = self.indexer.width if self.indexer and self.indexer.computes else 0
        return self.kv_rank + self.rope_dim + indexed


def latent_attention(b: TransformerBuilder, x: Tensor, spec: LatentAttention) -> Tensor:
    """MLA on hidden states (1, t, hidden): expanded to heads in prefill, absorbed in decode.

    The absorbed form folds W_UK into the query and W_UV into the output (arXiv:2405.04434, section 2.1.2),
    each a product batched over heads; the cache holds kv_rank + rope_dim elements per token for all heads.
    """
    _, t, width = x.shape
    h, nope, rot, value = spec.heads, spec.nope_dim, spec.rope_dim, spec.value_dim
    compressed = x
    if spec.q_rank:
        down = b.linear(x, spec.q_rank + spec.kv_rank + rot, bias=False, stem="qkv_a_proj")
        compressed, latent, k_rot = b.view(down, (1, t, spec.q_rank), (1, t, spec.kv_rank), (1, t, rot))
        compressed = b.rms_norm(compressed, "q_a_norm")
        q = b.linear(compressed, h * (nope + rot), bias=False, stem="q_b_proj")
    else:
        q = b.linear(x, h * (nope + rot), bias=False, stem="q_proj")
        down = b.linear(x, spec.kv_rank + rot, bias=False, stem="kv_a_proj")
        latent, k_rot = b.view(down, (1, t, spec.kv_rank), (1, t, rot))
    latent, k_rot = b.rms_norm(latent, "kv_a_norm"), b.rope(k_rot)
    b.op("kv_write", [latent, k_rot], (1, t, spec.kv_rank + rot), stem="kv_write")
    chosen = _select(b, x, compressed, spec.indexer) if spec.indexer and spec.indexer.computes else None
    if b.phase == "decode":
        # heads first, tokens of the batch second: the order of one product per head
        q_nope, q_rot = b.view(q, (h, t, nope), (1, h, t, rot), batch_axes=(1, 0))
        y = _absorbed(b, q_nope, b.rope(q_rot), spec, chosen)
    else:
        q_nope, q_rot = b.view(q, (1, h, t, nope), (1, h, t, rot))
        q = b.view([q_nope, b.rope(q_rot)], (1, h, t, nope + rot))[0]
        expanded = b.linear(latent, h * (nope + value), bias=False, stem="kv_b_proj")
        k_nope, v = b.view(expanded, (1, h, t, nope), (1, h, t, value))
        k_shared = b.view(k_rot, (1, 1, t, rot))[0]
        k = b.op(
            "copy", [k_nope, k_shared], (1, h, t, nope + rot), stem="k"
        )  # k_shared broadcasts over heads
        window, note = _sparsity(b, spec)
        y = b.merge(
            b.attend(q, k, v, causal=True, window=window, extra=[chosen] if chosen else [], note=note)
        )
    return b.linear(y, width, bias=False, stem="o_proj")


def _absorbed(
    b: TransformerBuilder, q_nope: Tensor, q_rot: Tensor, spec: LatentAttention, chosen: Tensor | None
) -> Tensor:
    h, t, nope = q_nope.shape
    rank, rot, value = spec.kv_rank, spec.rope_dim, spec.value_dim
    w_uk, w_uv = b.held("w_uk.weight", h, nope, rank), b.held("w_uv.weight", h, rank, value)
    q_latent = b.op("matmul", [q_nope, w_uk], (h, t, rank), stem="q_absorb", batch_axis=1)
    q = b.op("concat", [b.view(q_latent, (1, h, t, rank))[0], q_rot], (1, h, t, rank + rot), stem="q", axis=3)
    cache = b.cache("latent_cache", 1, b.context, rank + rot)
    name = b.unique("attention")
    y = Tensor(name, (1, h, t, rank), b.precision, batch_axis=0)
    window, note = _sparsity(b, spec)
    attributes = {"latent": rank, "rope": rot, "causal": True, **({"window": window} if window else {})}
    inputs = (q, cache, *([chosen] if chosen else []))
    b.ops.append(Op(name, "mla_attention", inputs, (y,), attributes, b.repeat, "mla_attention", note))
    by_head = b.view(y, (h, t, rank), batch_axes=(1,))[0]
    y = b.op("matmul", [by_head, w_uv], (h, t, value), stem="o_absorb", batch_axis=1)
    return b.view(y, (1, t, h * value))[0]


def _sparsity(b: TransformerBuilder, spec: LatentAttention) -> tuple[int | None, str]:
    """Attention over selected tokens as a window of that size, which has as many pairs and keys."""
    if spec.indexer is None or b.context <= spec.indexer.top_k:
        return None, ""
    return spec.indexer.top_k, "the selected tokens are counted as a sliding window of that size"


def _select(b: TransformerBuilder, x: Tensor, compressed: Tensor, spec: Indexer) -> Tensor:
    """Indices (1, t, top_k) of the tokens that attention visits, from the index scores of all earlier tokens.

    A score is the sum over heads of w_h relu(q_h k): the products of a multi-query attention whose values
    have width one, which is the kind that stands for it.
    """
    _, t, _ = x.shape
    with b.scope("indexer"):
        q = b.rope(
            b.heads(b.linear(compressed, spec.heads * spec.width, bias=False, stem="q_proj"), spec.heads)
        )
        k = b.rope(b.layer_norm(b.linear(x, spec.width, bias=False, stem="k_proj"), "k_norm"))
        gates = b.linear(x, spec.heads, bias=False, stem="weights_proj")
        b.op("kv_write", [k], (1, t, spec.width), stem="kv_write")
        s = b.context if b.phase == "decode" else t
        keys = (
            b.cache("k_cache", 1, 1, s, spec.width)
            if b.phase == "decode"
            else b.view(k, (1, 1, t, spec.width))[0]
        )
        ones = Tensor(b.unique("ones"), (1, 1, s, 1), b.precision, "constant", batch_axis=0)
        note = (
            "an index score is relu and a weighted sum over heads, counted as softmax and values of width one"
        )
        scores = b.attend(q, keys, ones, causal=True, extra=[gates], note=note, stem="scores")
        logits = b.op("copy", [scores], (1, t, s), stem="logits")
        return b.top_k(logits, min(spec.top_k, s))[1]
