"""The operators of one step of a continuous batch on one device, as rows of the operator table.

A step computes `m` tokens. Products, norms, experts and collectives depend on `m` alone; attention depends on
who is in the batch; the output projection on how many sequences get a token. So a step is four sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.core.precision import plan
from accelsim.serving.llm.machine import Array, Costed, Formats, Machine, Split, Sum
from accelsim.serving.llm.shape import DeltaNet, ModelShape
from accelsim.workload.builders.latent import Indexer, LatentAttention
from accelsim.workload.builders.transformer import Attention, Mlp, Moe
from accelsim.workload.graph import Op, Tensor

STATE_BYTES = 4.0
"""A delta-rule state is kept in fp32 [B per element]."""

CHUNK = 64
"""Tokens that the delta rule takes at once in prefill (arXiv:2412.06464, section 3.3)."""

SAMPLING_PASSES = 3
"""Times that the sampler reads the logits: penalties and temperature, softmax, choice (assumed)."""


@dataclass(frozen=True)
class StepWork:
    """A model on a device, ready to cost the parts of a step.

    Attributes
    ----------
    model : ModelShape
    machine : Machine
    formats : Formats
    split : Split
    skew : float
        Exponent of the power law of expert loads; 0 balanced.
    """

    model: ModelShape
    machine: Machine
    formats: Formats
    split: Split
    skew: float = 0.0

    # -- every token

    def tokens(self, m: Array) -> Sum:
        """What each of `m` tokens passes, whoever they belong to."""
        model, machine = self.model, self.machine
        total = Sum(np.zeros_like(m))
        total.add(machine.stream(m, model.hidden))
        self._reduce(total, m, 1)
        for block in model.blocks:
            part = Sum(np.zeros_like(m))
            part.add(machine.stream(m, model.hidden, 2.0), 2)
            _MIXERS[type(block.mixer)](self, part, m, block.mixer)
            self._reduce(part, m, 1)
            self._feed_forward(part, m, block.feed_forward)
            total.add(Costed(part.seconds, part.joules), block.times)
        total.add(machine.stream(m, model.hidden, 2.0))
        if self.split.pipeline > 1:
            buffer = m * model.hidden * 2
            total.add(machine.rows("sendrecv", "bf16", bytes=buffer, ranks=2), self.split.pipeline - 1)
        return total

    def _reduce(self, total: Sum, m: Array, times: int) -> None:
        if self.split.tensor > 1:
            size = m * self.model.hidden * 2
            total.add(self.machine.rows("allreduce", "bf16", bytes=size, ranks=self.split.tensor), times)

    def _linear(
        self, total: Sum, m: Array, n: int, k: int, formats: str = "", *, after_norm: bool = False
    ) -> None:
        text = formats or self.formats.linear
        block = self.formats.scale_block if "fp8" in text else 0
        plain = self.formats.fused or (after_norm and self.formats.fused_norms)
        cost = self.machine.rows("gemm", text, plain=plain, m=m, n=max(1, n), k=max(1, k), scale_block=block)
        total.add(cost)

    def _projection(self, total: Sum, m: Array, n: int, k: int, *, after_norm: bool = False) -> None:
        self._linear(total, m, n, k, self.formats.projections, after_norm=after_norm)

    def _attention(self, total: Sum, m: Array, a: Attention) -> None:
        t, hidden = self.split.tensor, self.model.hidden
        heads, kv = _shared(a.heads, t), _shared(a.kv_heads, t)
        gates = heads if self.model.gated_queries else 0
        self._projection(
            total, m, (heads + gates + kv) * a.key_dim + kv * a.value_dim, hidden, after_norm=True
        )
        if a.qk_norm:
            total.add(self.machine.stream(m, (heads + kv) * a.key_dim))
        if a.rope:
            total.add(self.machine.stream(m, (heads + kv) * a.key_dim))
        total.add(self.machine.stream(m, kv * (a.key_dim + a.value_dim)))
        if gates:
            total.add(self.machine.stream(m, heads * a.value_dim, 2.0))
        self._projection(total, m, hidden, heads * a.value_dim)

    def _latent(self, total: Sum, m: Array, a: LatentAttention) -> None:
        hidden, heads = self.model.hidden, _shared(a.heads, self.split.tensor)
        query = heads * (a.nope_dim + a.rope_dim)
        self._projection(total, m, (a.q_rank or query) + a.kv_rank + a.rope_dim, hidden)
        if a.q_rank:
            total.add(self.machine.stream(m, a.q_rank))
            self._projection(total, m, query, a.q_rank)
        total.add(self.machine.stream(m, a.kv_rank))
        total.add(self.machine.stream(m, query + a.rope_dim))
        total.add(self.machine.stream(m, a.kv_rank + a.rope_dim))
        if a.indexer is not None and a.indexer.computes:
            self._projection(total, m, a.indexer.heads * a.indexer.width, a.q_rank)
            self._projection(total, m, a.indexer.width + a.indexer.heads, hidden)
            total.add(self.machine.stream(m, a.indexer.heads * a.indexer.width), 2)
        self._projection(total, m, hidden, heads * a.value_dim)

    def _delta(self, total: Sum, m: Array, a: DeltaNet) -> None:
        hidden, t = self.model.hidden, self.split.tensor
        keys, values = _shared(a.key_heads, t) * a.key_dim, _shared(a.value_heads, t) * a.value_dim
        mixed = 2 * keys + values
        self._projection(total, m, mixed + values, hidden)
        self._projection(total, m, 2 * _shared(a.value_heads, t), hidden)
        total.add(self.machine.stream(m, mixed))
        total.add(self.machine.stream(m, values, 2.0))
        self._projection(total, m, hidden, values)

    def _feed_forward(self, total: Sum, m: Array, f: Mlp | Moe) -> None:
        if isinstance(f, Mlp):
            self._mlp(total, m, f.width, f.gated)
            self._reduce(total, m, 1)
            return
        s, hidden = self.split, self.model.hidden
        self._linear(total, m, f.experts, hidden, "bf16")
        total.add(self.machine.stream(m, f.experts), 2)
        if s.data > 1:  # every rank's tokens reach every rank, and the results come back
            size = m * s.data * hidden * 2
            for op in ("allgather", "reducescatter"):
                total.add(self.machine.rows(op, "bf16", bytes=size, ranks=s.tensor * s.data))
        total.add(
            self.machine.rows(
                "moe",
                self.formats.experts,
                tokens=m * s.data,
                hidden=hidden,
                intermediate=f.width,
                experts=f.experts,
                topk=f.top_k,
                tensor_ranks=s.expert_width,
                expert_ranks=s.expert,
                skew=self.skew,
                scale_block=self.formats.scale_block if "fp8" in self.formats.experts else 0,
            )
        )
        if f.shared_width:
            self._mlp(total, m, f.shared_width, True)
            total.add(self.machine.stream(m, hidden, 2.0))
        self._reduce(total, m, 1)

    def _mlp(self, total: Sum, m: Array, width: int, gated: bool) -> None:
        inner = -(-width // self.split.tensor)
        self._linear(total, m, (2 if gated else 1) * inner, self.model.hidden, after_norm=True)
        total.add(self.machine.stream(m, inner, 2.0 if gated else 1.0))
        self._linear(total, m, self.model.hidden, inner)

    # -- sequences that get a token

    def sampled(self, rows: Array) -> Sum:
        """Output projection, gathering of its parts, and sampling."""
        total = Sum(np.zeros_like(rows))
        vocabulary, t = self.model.vocabulary, self.split.tensor
        self._linear(total, rows, -(-vocabulary // t), self.model.hidden, self.formats.head)
        if t > 1:
            total.add(self.machine.rows("allgather", "bf16", bytes=rows * vocabulary * 2, ranks=t))
        total.add(self.machine.stream(rows, vocabulary), SAMPLING_PASSES)
        return total

    # -- attention

    def decode(self, sequences: Array, context: Array) -> Sum:
        """Attention of sequences that get one token each from caches of `context` tokens."""
        total = Sum(np.zeros(np.broadcast_shapes(sequences.shape, context.shape)))
        for block in self.model.blocks:
            a = block.mixer
            for cost in _DECODING[type(a)](self, sequences, context, a):
                total.add(cost, block.times)
        return total

    def prefill(self, prompts: Array, tokens: Array, past: Array) -> Sum:
        """Attention of `prompts` chunks of `tokens` new tokens each after `past` cached ones."""
        total = Sum(np.zeros(np.broadcast_shapes(prompts.shape, tokens.shape, past.shape)))
        for block in self.model.blocks:
            a = block.mixer
            for cost in _PREFILLING[type(a)](self, prompts, tokens, past, a):
                total.add(cost, block.times)
        return total

    @property
    def _attention_formats(self) -> str:
        a = self.formats.attention
        return f"weight={a},activation={a},kv={self.formats.kv}"

    def _decode_attention(self, d: Array, c: Array, a: Attention) -> Iterator[Costed]:
        t = self.split.tensor
        yield self.machine.rows(
            "attention_decode",
            self._attention_formats,
            batch=d,
            heads=_shared(a.heads, t),
            kv_heads=_shared(a.kv_heads, t),
            head_dim=(a.key_dim + a.value_dim) // 2,
            seq_kv=c,
            window=a.window or 0,
        )

    def _prefill_attention(self, n: Array, q: Array, past: Array, a: Attention) -> Iterator[Costed]:
        t = self.split.tensor
        yield self.machine.rows(
            "attention_prefill",
            self._attention_formats,
            batch=n,
            heads=_shared(a.heads, t),
            kv_heads=_shared(a.kv_heads, t),
            head_dim=(a.key_dim + a.value_dim) // 2,
            seq_q=q,
            seq_kv=q + past,
            window=a.window or 0,
        )

    def _decode_latent(self, d: Array, c: Array, a: LatentAttention) -> Iterator[Costed]:
        heads = _shared(a.heads, self.split.tensor)
        yield self.machine.rows("bmm", "bf16", batch=heads, m=d, n=a.kv_rank, k=a.nope_dim)
        yield self.machine.rows("bmm", "bf16", batch=heads, m=d, n=a.value_dim, k=a.kv_rank)
        if a.indexer is not None:
            yield from self._scores(d, np.ones_like(d), c, a.indexer, "attention_decode")
            c = np.minimum(c, float(a.indexer.top_k))
        yield self._absorbed(d, c, heads, a)

    def _absorbed(self, d: Array, c: Array, heads: int, a: LatentAttention) -> Costed:
        """The absorbed form has no row in the operator table: its op of a graph."""
        d, c = np.broadcast_arrays(d, c)
        points = np.stack([d.ravel(), c.ravel()], axis=1).astype(np.int64)
        pairs, position = np.unique(points, axis=0, return_inverse=True)
        f, width = self.formats, a.kv_rank + a.rope_dim
        narrow, kv = plan(f.attention).activation, plan(f.kv).activation
        ops = []
        for i, (sequences, context) in enumerate(pairs.tolist()):
            q = Tensor(f"{i}:q", (sequences, heads, 1, width), narrow, batch_axis=0)
            cache = Tensor(f"{i}:cache", (sequences, context, width), kv, "kv", batch_axis=0)
            y = Tensor(f"{i}:y", (sequences, heads, 1, a.kv_rank), narrow, batch_axis=0)
            form = {"latent": a.kv_rank, "rope": a.rope_dim, "causal": True}
            ops.append(Op(f"{i}", "mla_attention", (q, cache), (y,), form, 1, "mla_attention"))
        cost = self.machine.graph(ops)
        at = position.reshape(d.shape)
        return Costed(cost.seconds[at], cost.joules[at])

    def _prefill_latent(self, n: Array, q: Array, past: Array, a: LatentAttention) -> Iterator[Costed]:
        heads = _shared(a.heads, self.split.tensor)
        expanded = heads * (a.nope_dim + a.value_dim)
        total = Sum(np.zeros(np.broadcast_shapes(n.shape, q.shape, past.shape)))
        self._projection(total, n * (q + past), expanded, a.kv_rank)
        yield Costed(total.seconds, total.joules)
        yield self.machine.stream(n * (q + past), expanded)
        precision = f"weight={self.formats.attention},activation={self.formats.attention}"
        sizes: dict[str, Any] = {"batch": n, "heads": heads, "seq_q": q, "seq_kv": q + past}
        if a.indexer is None:
            widths: dict[str, Any] = {"head_dim": a.nope_dim + a.rope_dim, "value_dim": a.value_dim}
            yield self.machine.rows("mla_prefill", precision, **sizes, **widths)
            return
        yield from self._scores(n, q, q + past, a.indexer, "attention_prefill")
        width = (a.nope_dim + a.rope_dim + a.value_dim) // 2
        yield self.machine.rows(
            "attention_prefill", precision, head_dim=width, window=a.indexer.top_k, **sizes
        )

    def _scores(self, n: Array, q: Array, kv: Array, i: Indexer, op: str) -> Iterator[Costed]:
        """Index scores: half of an attention (no values), hence half of the width; then the choice."""
        sizes: dict[str, Any] = {"batch": n, "heads": i.heads, "kv_heads": 1, "seq_q": q, "seq_kv": kv}
        yield self.machine.rows(op, self._attention_formats, head_dim=i.width // 2, **sizes)
        yield self.machine.stream(n * q, kv, 2.0)

    def _decode_delta(self, d: Array, c: Array, a: DeltaNet) -> Iterator[Costed]:
        """The state is read and written once per token."""
        cells = _shared(a.value_heads, self.split.tensor) * a.key_dim * a.value_dim
        cost = self.machine.stream(d, cells * STATE_BYTES / 2.0)
        shape = np.broadcast_shapes(d.shape, c.shape)
        yield Costed(np.broadcast_to(cost.seconds, shape), np.broadcast_to(cost.joules, shape))

    def _prefill_delta(self, n: Array, q: Array, past: Array, a: DeltaNet) -> Iterator[Costed]:
        """Chunks of 64 tokens: products within a chunk and with the state, and the state once per chunk."""
        heads, shape = (
            _shared(a.value_heads, self.split.tensor),
            np.broadcast_shapes(n.shape, q.shape, past.shape),
        )
        chunks = np.broadcast_to(n * np.ceil(q / CHUNK), shape)
        # within: K K^T, Q K^T and two products with values; with the state: read, write, query
        for m, k, times in ((CHUNK, a.key_dim, 4), (a.key_dim, CHUNK, 3)):
            cost = self.machine.rows("bmm", "bf16", batch=chunks * heads, m=m, n=a.value_dim, k=k)
            yield Costed(cost.seconds * times, cost.joules * times)

    # -- what it holds

    def weight_bytes(self) -> float:
        """Weights of one device of a stage [B]: products by their compulsory traffic, experts by their
        share."""
        f, m, s = self.formats, self.model, self.split
        texts = (f.linear, f.experts, f.projections or f.linear)
        linear, expert, mixing = (plan(x).weight.bytes_per_element for x in texts)
        head = plan(f.head).weight.bytes_per_element
        total = m.vocabulary * m.hidden / s.tensor * (head + (0.0 if m.tied else 2.0))
        for block in m.blocks:
            total += block.times * _mixer_weights(block.mixer, m) / s.tensor * mixing
            g = block.feed_forward
            if isinstance(g, Mlp):
                total += block.times * (3 if g.gated else 2) * m.hidden * g.width / s.tensor * linear
            else:
                experts = 3 * m.hidden * g.width * g.experts / (s.tensor * s.data) * expert
                shared = 3 * m.hidden * g.shared_width / s.tensor * linear
                total += block.times * (experts + shared + m.hidden * g.experts * 2.0)
        return total / s.pipeline

    def kv_bytes_per_token(self) -> float:
        """What one token adds to the cache of one device [B]; key heads are kept once at least."""
        t, size = self.split.tensor, plan(self.formats.kv).kv.bytes_per_element
        total = 0.0
        for block in self.model.blocks:
            a = block.mixer
            if isinstance(a, Attention):
                total += block.times * _shared(a.kv_heads, t) * (a.key_dim + a.value_dim) * size
            else:
                total += block.times * a.kv_elements_per_token * size
        return total / self.split.pipeline

    def state_bytes_per_sequence(self) -> float:
        """States that do not grow with the context, of one device [B]."""
        mixers = [(b.mixer, b.times) for b in self.model.blocks]
        cells = sum(n * a.state_elements for a, n in mixers if isinstance(a, DeltaNet))
        return cells * STATE_BYTES / self.split.tensor / self.split.pipeline


def _shared(heads: int, devices: int) -> int:
    """Heads of one device, one at least."""
    return max(1, -(-heads // devices))


def _mixer_weights(a: Any, model: ModelShape) -> float:
    h = model.hidden
    if isinstance(a, LatentAttention):
        q = a.heads * (a.nope_dim + a.rope_dim)
        queries = h * a.q_rank + a.q_rank * q if a.q_rank else h * q
        expanded = a.kv_rank * a.heads * (a.nope_dim + a.value_dim)
        index = a.indexer
        more = 0 if index is None else a.q_rank * index.heads * index.width + h * (index.width + index.heads)
        return queries + h * (a.kv_rank + a.rope_dim) + expanded + a.heads * a.value_dim * h + more
    if isinstance(a, DeltaNet):
        values = a.value_heads * a.value_dim
        return h * (2 * a.key_heads * a.key_dim + 3 * values + 2 * a.value_heads)
    queries = a.heads * a.key_dim * (2 if model.gated_queries else 1)
    return h * (queries + a.kv_heads * (a.key_dim + a.value_dim) + a.heads * a.value_dim)


_MIXERS: Mapping[type, Callable[..., None]] = {
    Attention: StepWork._attention,
    LatentAttention: StepWork._latent,
    DeltaNet: StepWork._delta,
}
_DECODING: Mapping[type, Callable[..., Iterator[Costed]]] = {
    Attention: StepWork._decode_attention,
    LatentAttention: StepWork._decode_latent,
    DeltaNet: StepWork._decode_delta,
}
_PREFILLING: Mapping[type, Callable[..., Iterator[Costed]]] = {
    Attention: StepWork._prefill_attention,
    LatentAttention: StepWork._prefill_latent,
    DeltaNet: StepWork._prefill_delta,
}
