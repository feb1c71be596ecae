"""Transformer blocks: attention with a cache, gated MLPs and mixtures of experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Op, Phase, Tensor

_GATES = {"silu": "swiglu", "gelu": "geglu"}


@dataclass(frozen=True)
class Attention:
    """Grouped-query attention of one layer.

    Attributes
    ----------
    heads, kv_heads : int
    key_dim, value_dim : int
        Width of a query or key head, and of a value head.
    window : int or None
        Tokens that a query sees at most, itself included.
    bias, out_bias : bool
        Whether the query/key/value projection and the output projection add a vector.
    key_bias : bool
        False takes the keys out of `bias` (Whisper); only where the projections are separate.
    qk_norm : {"", "head", "layer"}
        RMS norm of queries and keys, per head (Qwen3) or over all heads at once (MiniMax-M2).
    rope : bool
    sinks : bool
        One learned logit per head that takes part in the softmax (gpt-oss).
    fused : bool
        One matrix product yields queries, keys and values, as serving stacks store it; otherwise three.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None
    bias: bool = False
    out_bias: bool = False
    key_bias: bool = True
    qk_norm: Literal["", "head", "layer"] = ""
    rope: bool = True
    sinks: bool = False
    fused: bool = True
    note: str = ""

    @property
    def kv_elements_per_token(self) -> int:
        return self.kv_heads * (self.key_dim + self.value_dim)


@dataclass(frozen=True)
class Mlp:
    """Feed-forward block; `gated` multiplies an activated gate with a second projection (SwiGLU)."""

    width: int
    gated: bool = True
    bias: bool = False
    function: str = "silu"


@dataclass(frozen=True)
class Moe:
    """Mixture of gated experts.

    Attributes
    ----------
    experts, top_k, width : int
    shared_width : int
        Total width of the experts that every token visits; 0 for none.
    shared_gate : bool
        A sigmoid gate scales the shared expert (Qwen2-MoE).
    scoring : {"softmax", "sigmoid"}
    correction_bias : bool
        A vector added to the scores for selection only (DeepSeek-V3).
    router_bias, expert_bias : bool
    expert_precision : str
        Format of the expert weights; the graph's own when empty.
    """

    experts: int
    top_k: int
    width: int
    shared_width: int = 0
    shared_gate: bool = False
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    correction_bias: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    expert_precision: str = ""
    function: str = "silu"


class TransformerBuilder(GraphBuilder):
    """Writes blocks on hidden states (1, tokens, hidden); `phase` decides where keys and values come from."""

    def __init__(self, name: str, default: str, *, phase: Phase, context: int) -> None:
        super().__init__(name, default)
        self.phase = phase
        self.context = context

    @property
    def repeat(self) -> int:
        """How many times ops built now run."""
        return self._repeat

    # -- pieces ---------------------------------------------------------------------------------------------

    def view(
        self, x: Tensor | Sequence[Tensor], *shapes: Sequence[int], batch_axes: Sequence[int | None] = ()
    ) -> tuple[Tensor, ...]:
        """Other names for the same memory: kernels read slices and head orders by strides."""
        sources = (x,) if isinstance(x, Tensor) else tuple(x)
        name = self.unique("view")
        outputs = tuple(
            Tensor(f"{name}:{i}", tuple(shape), sources[0].precision, batch_axis=axis)
            for i, (shape, axis) in enumerate(zip(shapes, batch_axes or (0,) * len(shapes)))
        )
        if sum(t.elements for t in outputs) != sum(t.elements for t in sources):
            raise GraphError(f"cannot view {[t.shape for t in sources]} as {list(shapes)}", self.name)
        self.ops.append(Op(name, "reshape", sources, outputs, {}, self._repeat, origin="view"))
        return outputs

    def held(self, stem: str, *shape: int, dtype: str = "") -> Tensor:
        """A weight named after the current scope."""
        fmt = precision(dtype) if dtype else self.precision
        return Tensor(".".join([*self._scope, stem]), shape, fmt, "weight")

    def cache(self, stem: str, *shape: int) -> Tensor:
        return Tensor(".".join([*self._scope, stem]), shape, self.precision, "kv", batch_axis=0)

    def rope(self, x: Tensor) -> Tensor:
        return self.op("elementwise", [x], x.shape, stem="rope", function="rope")

    def heads(self, x: Tensor, heads: int) -> Tensor:
        """(1, t, heads * width) seen as (1, heads, t, width)."""
        b, t, features = x.shape
        return self.view(x, (b, heads, t, features // heads))[0]

    def merge(self, x: Tensor) -> Tensor:
        """(1, heads, t, width) seen as (1, t, heads * width)."""
        b, heads, t, width = x.shape
        return self.view(x, (b, t, heads * width))[0]

    def tokens_in(self, length: int, vocabulary: int, width: int) -> tuple[Tensor, Tensor]:
        """Embedded token ids (1, length, width), and the table for a tied output projection."""
        ids = self.input("token_ids", 1, length, dtype="int32")
        table = self.held("embed_tokens.weight", vocabulary, width)
        return self.op("gather", [table, ids], (1, length, width), stem="embed_tokens", axis=0), table

    def add_positions(self, x: Tensor, rows: int, stem: str = "embed_positions") -> Tensor:
        """Add learned positions: one row per token, shared by the batch."""
        t, width = x.shape[1:]
        where = Tensor(f"{stem}.ids", (t,), precision("int32", storage=True), "constant")
        table = self.held(f"{stem}.weight", rows, width)
        return self.add(x, self.op("gather", [table, where], (t, width), stem=stem, batch_axis=None, axis=0))

    def last_token(self, x: Tensor) -> Tensor:
        return self.op("slice", [x], (1, 1, x.shape[2]), stem="last_token", axis=1) if x.shape[1] > 1 else x

    def project_tied(self, x: Tensor, table: Tensor, stem: str = "lm_head") -> Tensor:
        """Logits from the embedding table (rows, width), transposed."""
        return self.op("matmul", [x, table], (*x.shape[:-1], table.shape[0]), stem=stem, transpose_b=True)

    # -- attention ------------------------------------------------------------------------------------------

    def self_attention(
        self, x: Tensor, spec: Attention, *, causal: bool, mask: Tensor | None = None
    ) -> Tensor:
        """Projections, positions, cache, attention, output; decode attends to a cache of `context` tokens."""
        q_size, k_size, v_size = (
            spec.heads * spec.key_dim,
            spec.kv_heads * spec.key_dim,
            spec.kv_heads * spec.value_dim,
        )
        b, t, width = x.shape
        if spec.fused:
            qkv = self.linear(x, q_size + k_size + v_size, bias=spec.bias, stem="qkv_proj")
            q, k, v = self.view(qkv, (b, t, q_size), (b, t, k_size), (b, t, v_size))
        else:
            q = self.linear(x, q_size, bias=spec.bias, stem="q_proj")
            k = self.linear(x, k_size, bias=spec.bias and spec.key_bias, stem="k_proj")
            v = self.linear(x, v_size, bias=spec.bias, stem="v_proj")
        if spec.qk_norm == "layer":
            q, k = self.rms_norm(q, "q_norm"), self.rms_norm(k, "k_norm")
        q, k, v = self.heads(q, spec.heads), self.heads(k, spec.kv_heads), self.heads(v, spec.kv_heads)
        if spec.qk_norm == "head":
            q, k = self.rms_norm(q, "q_norm"), self.rms_norm(k, "k_norm")
        if spec.rope:
            q, k = self.rope(q), self.rope(k)
        if causal:
            k, v = self.cached(k, v, spec.window)
        extra = [mask] if mask is not None else []
        if spec.sinks:
            extra.append(self.held("sinks.weight", spec.heads))
        y = self.attend(q, k, v, causal=causal, window=spec.window, extra=extra, note=spec.note)
        return self.linear(self.merge(y), width, bias=spec.out_bias, stem="o_proj")

    def cached(self, k: Tensor, v: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """Write new keys and values; decode attends to the cache, of which a window keeps the last tokens."""
        width = k.shape[3] + v.shape[3]
        self.op("kv_write", [k, v], (1, k.shape[1], k.shape[2], width), stem="kv_write")
        if self.phase != "decode":
            return k, v
        s = min(self.context, window or self.context)
        return self.cache("k_cache", 1, k.shape[1], s, k.shape[3]), self.cache(
            "v_cache", 1, v.shape[1], s, v.shape[3]
        )

    def cross_attention(self, x: Tensor, memory: Tensor | None, spec: Attention, length: int) -> Tensor:
        """Attention from decoder states to `length` encoder states, cached already where `memory` is None."""
        q_size = spec.heads * spec.key_dim
        q = self.heads(self.linear(x, q_size, bias=spec.bias, stem="q_proj"), spec.heads)
        if memory is None:
            k = self.cache("k_cache", 1, spec.heads, length, spec.key_dim)
            v = self.cache("v_cache", 1, spec.heads, length, spec.key_dim)
        else:
            k = self.heads(
                self.linear(memory, q_size, bias=spec.bias and spec.key_bias, stem="k_proj"), spec.heads
            )
            v = self.heads(self.linear(memory, q_size, bias=spec.bias, stem="v_proj"), spec.heads)
            self.op("kv_write", [k, v], (*k.shape[:3], 2 * spec.key_dim), stem="kv_write")
        y = self.attend(q, k, v, causal=False)
        return self.linear(self.merge(y), x.shape[-1], bias=spec.out_bias, stem="o_proj")

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool,
        window: int | None = None,
        extra: Sequence[Tensor] = (),
        note: str = "",
        stem: str = "attention",
    ) -> Tensor:
        name = self.unique(stem)
        out = Tensor(name, (*q.shape[:3], v.shape[3]), self.precision, batch_axis=0)
        attributes = {"causal": causal, **({"window": window} if window else {})}
        self.ops.append(
            Op(
                name,
                "attention",
                (q, k, v, *extra),
                (out,),
                attributes,
                self._repeat,
                origin="attention",
                approximated=note,
            )
        )
        return out

    # -- feed-forward ---------------------------------------------------------------------------------------

    def mlp(self, x: Tensor, spec: Mlp, *, stem: str = "mlp") -> Tensor:
        """Up projection(s), activation and down projection; gate and up are one matrix product."""
        with self.scope(stem):
            if spec.gated:
                y = self._gate(
                    self.linear(x, 2 * spec.width, bias=spec.bias, stem="gate_up_proj"), spec.function
                )
            else:
                y = self.activation(self.linear(x, spec.width, bias=spec.bias, stem="up_proj"), spec.function)
            return self.linear(y, x.shape[-1], bias=spec.bias, stem="down_proj")

    def _gate(self, gate_up: Tensor, function: str) -> Tensor:
        """function(gate) * up on the two halves of a fused projection."""
        half = (*gate_up.shape[:-1], gate_up.shape[-1] // 2)
        fused = _GATES.get(function)
        if fused:
            return self.op("elementwise", [gate_up], half, stem=fused, function=fused)
        gate, up = self.view(gate_up, half, half)
        return self.elementwise("mul", self.activation(gate, function), up)

    def moe(self, x: Tensor, spec: Moe) -> Tensor:
        """Route each token to `top_k` experts, run their MLPs as grouped products, add up with the gates."""
        with self.scope("moe"):
            b, t, width = x.shape
            rows = self.view(x, (b * t, width))[0]
            gates, chosen = self._route(rows, spec)
            held: dict[str, Any] = {"experts": spec.experts, "top_k": spec.top_k}
            routed = (b * t * spec.top_k, width)
            y = self.op("moe_dispatch", [rows, chosen], routed, stem="dispatch", **held)
            y = self._gate(self._experts(y, 2 * spec.width, spec, "gate_up_proj"), spec.function)
            y = self._experts(y, width, spec, "down_proj")
            y = self.op("moe_combine", [y, gates], (b * t, width), stem="combine", **held)
            if spec.shared_width:
                shared = self.mlp(rows, Mlp(spec.shared_width, function=spec.function), stem="shared_expert")
                if spec.shared_gate:
                    gate = self.activation(self.linear(rows, 1, bias=False, stem="shared_gate"), "sigmoid")
                    shared = self.elementwise("mul", shared, gate)
                y = self.add(y, shared)
            return self.view(y, (b, t, width))[0]

    def _route(self, rows: Tensor, spec: Moe) -> tuple[Tensor, Tensor]:
        """Gates (tokens, top_k) and the chosen experts (tokens, top_k)."""
        scores = self.linear(rows, spec.experts, bias=spec.router_bias, stem="router")
        if spec.scoring == "sigmoid":
            scores = self.activation(scores, "sigmoid")
        if spec.correction_bias:
            scores = self.add(scores, self.held("correction_bias.weight", spec.experts))
        values, chosen = self.top_k(scores, spec.top_k)
        return self.softmax(values), chosen

    def top_k(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Values and indices of the `k` largest along the last axis."""
        name = self.unique("topk")
        shape = (*x.shape[:-1], k)
        values = Tensor(name, shape, self.precision, batch_axis=0)
        indices = Tensor(f"{name}:1", shape, precision("int32", storage=True), batch_axis=0)
        self.ops.append(Op(name, "topk", (x,), (values, indices), {"k": k}, self._repeat, origin="topk"))
        return values, indices

    def _experts(self, x: Tensor, features: int, spec: Moe, stem: str) -> Tensor:
        name = f"experts.{stem}"
        inputs = [
            x,
            self.held(f"{name}.weight", spec.experts, x.shape[1], features, dtype=spec.expert_precision),
        ]
        if spec.expert_bias:
            inputs.append(self.held(f"{name}.bias", spec.experts, features))
        return self.op(
            "grouped_matmul",
            inputs,
            (x.shape[0], features),
            stem=name,
            experts=spec.experts,
            top_k=spec.top_k,
        )
