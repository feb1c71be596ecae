"""Encoders: BERT, DistilBERT and the vision transformer."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.workload.builders.transformer import Attention, Mlp, TransformerBuilder
from accelsim.workload.graph import Graph, Tensor


@dataclass(frozen=True)
class Encoder:
    """A stack of identical bidirectional layers.

    Attributes
    ----------
    hidden, layers, heads, width : int
        Hidden size, layers, attention heads and width of the feed-forward block.
    function : str
        Activation of the feed-forward block.
    precision : str
    """

    hidden: int
    layers: int
    heads: int
    width: int
    function: str = "gelu"
    precision: str = "fp16"

    @property
    def attention(self) -> Attention:
        head = self.hidden // self.heads
        return Attention(
            self.heads, self.heads, head, head, bias=True, out_bias=True, rope=False, fused=False
        )


def build_bert(
    name: str, model: Encoder, vocabulary: int, positions: int, types: int, pooler: bool, context: int
) -> Graph:
    """BERT (arXiv:1810.04805): embeddings, post-norm layers, and a pooler over the first token or none.

    ``types = 0`` leaves the segment embedding out (DistilBERT).
    """
    b = TransformerBuilder(name, model.precision, phase="forward", context=context)
    with b.scope("embeddings"):
        x, _ = b.tokens_in(context, vocabulary, model.hidden)
        x = b.add_positions(x, positions)
        if types:
            ids = b.input("segment_ids", 1, context, dtype="int32")
            table = b.held("segments.weight", types, model.hidden)
            x = b.add(x, b.op("gather", [table, ids], x.shape, stem="segments", axis=0))
        x = b.layer_norm(x)
    with b.repeated(model.layers), b.scope("layers"):
        x = b.layer_norm(b.add(x, b.self_attention(x, model.attention, causal=False)), "attention_norm")
        x = b.layer_norm(b.add(x, b.mlp(x, _mlp(model))), "mlp_norm")
    if pooler:
        first = b.op("slice", [x], (1, 1, model.hidden), stem="first_token", axis=1)
        b.activation(b.linear(first, model.hidden, stem="pooler"), "tanh")
    return b.build(item="sequence")


def build_vit(name: str, model: Encoder, image: int, patch: int, channels: int, labels: int) -> Graph:
    """Vision transformer (arXiv:2010.11929): patches, pre-norm layers, a classifier on the class token.

    ``labels = 0`` leaves the classifier out.
    """
    side = image // patch
    tokens = side * side + 1
    b = TransformerBuilder(name, model.precision, phase="forward", context=tokens)
    pixels = b.input("pixels", 1, channels, image, image)
    x = b.conv(pixels, model.hidden, patch, stride=patch, padding=0, bias=True, stem="patch_embed")
    x = b.transpose(b.reshape(x, 1, model.hidden, side * side), 0, 2, 1)
    first = b.op(
        "copy", [b.held("class_token.weight", 1, 1, model.hidden)], (1, 1, model.hidden), stem="class_token"
    )
    x = b.op("concat", [first, x], (1, tokens, model.hidden), stem="with_class", axis=1)
    x = b.add(x, b.held("positions.weight", tokens, model.hidden))
    x = encode(b, x, model)
    x = b.layer_norm(x)
    if labels:
        first = b.op("slice", [x], (1, 1, model.hidden), stem="first_token", axis=1)
        b.linear(first, labels, stem="classifier")
    return b.build(item="image")


def encode(b: TransformerBuilder, x: Tensor, model: Encoder, attention: Attention | None = None) -> Tensor:
    """Pre-norm layers, all alike: one repeated layer."""
    with b.repeated(model.layers), b.scope("layers"):
        normed = b.layer_norm(x, "attention_norm")
        x = b.add(x, b.self_attention(normed, attention or model.attention, causal=False))
        return b.add(x, b.mlp(b.layer_norm(x, "mlp_norm"), _mlp(model)))


def _mlp(model: Encoder) -> Mlp:
    return Mlp(model.width, gated=False, bias=True, function=model.function)
