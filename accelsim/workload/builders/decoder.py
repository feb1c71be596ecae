"""Decoder-only language models: prefill and decode graphs from a list of layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from accelsim.workload.builders.latent import LatentAttention, latent_attention
from accelsim.workload.builders.transformer import Attention, Mlp, Moe, TransformerBuilder
from accelsim.workload.graph import Graph, Phase, Tensor

MAX_PERIOD = 8


@dataclass(frozen=True)
class Layer:
    """One layer: attention, then a feed-forward block, each behind its norm and residual."""

    attention: Attention | LatentAttention
    feed_forward: Mlp | Moe

    @property
    def kv_elements_per_token(self) -> int:
        return self.attention.kv_elements_per_token


@dataclass(frozen=True)
class Decoder:
    """A decoder-only language model.

    Attributes
    ----------
    hidden, vocabulary : int
    layers : tuple of Layer
    tied : bool
        The output projection is the embedding table.
    norm : {"rms", "layer"}
    positions : int
        Rows of a learned position table; 0 for rotary positions.
    precision : str
    notes : tuple of str
        What was assumed or left out.
    """

    hidden: int
    vocabulary: int
    layers: tuple[Layer, ...]
    tied: bool = False
    norm: Literal["rms", "layer"] = "rms"
    positions: int = 0
    precision: str = "bf16"
    notes: tuple[str, ...] = ()

    @property
    def kv_elements_per_token(self) -> int:
        """Elements that one token adds to the cache, all layers together."""
        return sum(layer.kv_elements_per_token for layer in self.layers)


def build_decoder(name: str, model: Decoder, phase: Phase, context: int) -> Graph:
    """The graph of one step.

    Parameters
    ----------
    name : str
    model : Decoder
    phase : {"prefill", "decode"}
        Prefill runs `context` prompt tokens and computes the logits of the last one only, as serving
        stacks do. Decode runs one new token against a cache of `context` tokens, the new one included.
    context : int
    """
    tokens = 1 if phase == "decode" else context
    b = TransformerBuilder(name, model.precision, phase=phase, context=context)
    x, table = b.tokens_in(tokens, model.vocabulary, model.hidden)
    if model.positions:
        x = b.add_positions(x, model.positions)
    first = 0
    for pattern, times in runs(model.layers):
        with b.repeated(times):
            for i, layer in enumerate(pattern):
                with b.scope(f"layers.{first + i}"):
                    x = _layer(b, x, layer, model)
        first += len(pattern) * times
    x = b.last_token(_norm(b, x, model, "norm"))
    if model.tied:
        b.project_tied(x, table)
    else:
        b.linear(x, model.vocabulary, bias=False, stem="lm_head")
    return b.build(phase=phase, item="token" if phase == "decode" else "sequence")


def _layer(b: TransformerBuilder, x: Tensor, layer: Layer, model: Decoder) -> Tensor:
    normed = _norm(b, x, model, "input_norm")
    if isinstance(layer.attention, LatentAttention):
        x = b.add(x, latent_attention(b, normed, layer.attention))
    else:
        x = b.add(x, b.self_attention(normed, layer.attention, causal=True))
    normed = _norm(b, x, model, "post_norm")
    if isinstance(layer.feed_forward, Moe):
        return b.add(x, b.moe(normed, layer.feed_forward))
    return b.add(x, b.mlp(normed, layer.feed_forward))


def _norm(b: TransformerBuilder, x: Tensor, model: Decoder, stem: str) -> Tensor:
    return b.rms_norm(x, stem) if model.norm == "rms" else b.layer_norm(x, stem)


def runs(layers: Sequence[Layer]) -> list[tuple[Sequence[Layer], int]]:
    """Split layers into patterns of up to `MAX_PERIOD` layers that repeat, each as long a run as possible.

    ``A A A B B`` gives ``[(A,) x 3, (B,) x 2]`` and ``A B A B`` gives ``[(A, B) x 2]``.
    """
    found: list[tuple[Sequence[Layer], int]] = []
    start = 0
    while start < len(layers):
        best = (1, 1)
        for period in range(1, MAX_PERIOD + 1):
            pattern = layers[start : start + period]
            times = 1
            while layers[start + times * period : start + (times + 1) * period] == pattern:
                times += 1
            if times > 1 and period * times > best[0] * best[1]:
                best = (period, times)
        found.append((layers[start : start + best[0]], best[1]))
        start += best[0] * best[1]
    return found
