"""Encoder-decoder models: Whisper and T5.

Their phases: ``forward`` is the encoder alone, ``prefill`` the encoder and the decoder over its prompt (both
caches fill), ``decode`` one decoder step against the cache of its own tokens and that of the encoder states.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.core.precision import precision
from accelsim.workload.builders.encoder import Encoder, encode
from accelsim.workload.builders.transformer import Attention, Mlp, TransformerBuilder
from accelsim.workload.graph import Graph, Phase, Tensor


@dataclass(frozen=True)
class Whisper:
    """Whisper (arXiv:2212.04356).

    Attributes
    ----------
    encoder, decoder : Encoder
        Sizes of the two stacks.
    mels : int
        Mel bins per frame of the spectrogram.
    vocabulary, positions : int
        Tokens, and rows of the decoder's position table.
    source_positions : int
        Encoder states of a full window (1500 for 30 s).
    """

    encoder: Encoder
    decoder: Encoder
    mels: int
    vocabulary: int
    positions: int
    source_positions: int


@dataclass(frozen=True)
class T5:
    """T5 (arXiv:1910.10683): no biases, RMS norms, position biases that the layers of a stack share."""

    hidden: int
    head_dim: int
    heads: int
    width: int
    encoder_layers: int
    decoder_layers: int
    vocabulary: int
    buckets: int
    function: str
    gated: bool
    tied: bool
    precision: str


def build_whisper(name: str, model: Whisper, phase: Phase, context: int, frames: int) -> Graph:
    """`frames` encoder states of two mel frames each; decoder prompt or cache of `context` tokens."""
    b = TransformerBuilder(name, model.encoder.precision, phase=phase, context=context)
    memory = _whisper_encoder(b, model, frames) if phase != "decode" else None
    if phase == "forward":
        return b.build(item="sequence")
    attention = _whisper_attention(model.decoder)
    with b.scope("decoder"):
        x, table = b.tokens_in(1 if phase == "decode" else context, model.vocabulary, model.decoder.hidden)
        x = b.add_positions(x, model.positions)
        with b.repeated(model.decoder.layers), b.scope("layers"):
            x = b.add(x, b.self_attention(b.layer_norm(x, "self_norm"), attention, causal=True))
            with b.scope("cross"):
                x = b.add(x, b.cross_attention(b.layer_norm(x), memory, attention, frames))
            mlp = Mlp(model.decoder.width, gated=False, bias=True, function=model.decoder.function)
            x = b.add(x, b.mlp(b.layer_norm(x, "mlp_norm"), mlp))
        b.project_tied(b.last_token(b.layer_norm(x)), table)
    return b.build(phase=phase, item="token" if phase == "decode" else "sequence")


def _whisper_attention(stack: Encoder) -> Attention:
    head = stack.hidden // stack.heads
    return Attention(
        stack.heads,
        stack.heads,
        head,
        head,
        bias=True,
        out_bias=True,
        key_bias=False,
        rope=False,
        fused=False,
    )


def _whisper_encoder(b: TransformerBuilder, model: Whisper, frames: int) -> Tensor:
    width = model.encoder.hidden
    with b.scope("encoder"):
        x = b.input("mel_spectrogram", 1, model.mels, 2 * frames)
        x = b.activation(b.conv(x, width, 3, bias=True, stem="conv1"), "gelu")
        x = b.activation(b.conv(x, width, 3, stride=2, bias=True, stem="conv2"), "gelu")
        x = b.transpose(x, 0, 2, 1)
        x = b.add_positions(x, model.source_positions)
        x = encode(b, x, model.encoder, _whisper_attention(model.encoder))
        return b.layer_norm(x)


def build_t5(name: str, model: T5, phase: Phase, context: int, source: int) -> Graph:
    """`source` encoder tokens; the decoder starts from one token, or holds `context` tokens in its cache."""
    b = TransformerBuilder(name, model.precision, phase=phase, context=context)
    attention = Attention(model.heads, model.heads, model.head_dim, model.head_dim, rope=False, fused=False)
    mlp = Mlp(model.width, gated=model.gated, function=model.function)
    table = b.held("shared.weight", model.vocabulary, model.hidden)
    memory = None
    if phase != "decode":
        with b.scope("encoder"):
            x = _lookup(b, table, "source_ids", source)
            bias = _position_bias(b, model, source, source)
            with b.repeated(model.encoder_layers), b.scope("layers"):
                x = b.add(x, b.self_attention(b.rms_norm(x, "self_norm"), attention, causal=False, mask=bias))
                x = b.add(x, b.mlp(b.rms_norm(x, "mlp_norm"), mlp))
            memory = b.rms_norm(x)
    if phase == "forward":
        return b.build(item="sequence")
    with b.scope("decoder"):
        x = _lookup(b, table, "target_ids", 1)
        bias = _position_bias(b, model, 1, context if phase == "decode" else 1)
        with b.repeated(model.decoder_layers), b.scope("layers"):
            x = b.add(x, b.self_attention(b.rms_norm(x, "self_norm"), attention, causal=True, mask=bias))
            with b.scope("cross"):
                x = b.add(x, b.cross_attention(b.rms_norm(x), memory, attention, source))
            x = b.add(x, b.mlp(b.rms_norm(x, "mlp_norm"), mlp))
        x = b.rms_norm(x)
        if model.tied:
            b.project_tied(x, table)
        else:
            b.linear(x, model.vocabulary, bias=False, stem="lm_head")
    return b.build(phase=phase, item="token" if phase == "decode" else "sequence")


def _lookup(b: TransformerBuilder, table: Tensor, name: str, tokens: int) -> Tensor:
    ids = b.input(name, 1, tokens, dtype="int32")
    return b.op("gather", [table, ids], (1, tokens, table.shape[1]), stem="embed_tokens", axis=0)


def _position_bias(b: TransformerBuilder, model: T5, queries: int, keys: int) -> Tensor:
    """Bias (1, heads, queries, keys) from a table (buckets, heads), shared by layers and items."""
    table = b.held("relative_bias.weight", model.buckets, model.heads)
    where = Tensor(b.unique("bucket_ids"), (queries, keys), precision("int32", storage=True), "constant")
    bias = b.op(
        "gather", [table, where], (queries, keys, model.heads), stem="position_bias", batch_axis=None, axis=0
    )
    return b.view(bias, (1, model.heads, queries, keys), batch_axes=(None,))[0]
