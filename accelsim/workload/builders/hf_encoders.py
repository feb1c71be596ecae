"""Encoders and encoder-decoder models from their HuggingFace fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from accelsim.core.errors import RequestError
from accelsim.workload.builders.encdec import T5, Whisper, build_t5, build_whisper
from accelsim.workload.builders.encoder import Encoder, build_bert, build_vit
from accelsim.workload.builders.hf_fields import Fields, Reading, Request

TEXT_CONTEXT = 128  # tokens; BERT's usual benchmark length
T5_SOURCE = 512
WHISPER_PROMPT = 4  # start of transcript, language, task, no timestamps

NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
"""Of an encoder's sizes, where they are not the model's own."""


def bert(fields: Fields, request: Request) -> Reading:
    """BERT: the encoder and its pooler."""
    model = _encoder(fields, request, *NAMES)
    return _bert(fields, request, model, types=fields.size("type_vocab_size", 2), pooler=True)


def distilbert(fields: Fields, request: Request) -> Reading:
    """DistilBERT: no segments, no pooler, its own field names."""
    model = _encoder(fields, request, "dim", "n_layers", "n_heads", "hidden_dim", "activation")
    return _bert(fields, request, model, types=0, pooler=False)


def _encoder(
    fields: Fields, request: Request, hidden: str, layers: str, heads: str, width: str, function: str
) -> Encoder:
    """An encoder whose sizes have these names."""
    return Encoder(
        hidden=fields.size(hidden),
        layers=fields.layers(layers),
        heads=fields.size(heads),
        width=fields.size(width),
        function=fields.activation(function, "gelu"),
        precision=request.precision,
    )


def _bert(fields: Fields, request: Request, model: Encoder, *, types: int, pooler: bool) -> Reading:
    fields.divides(model.hidden, model.heads, "hidden size", "attention heads")
    positions = fields.size("max_position_embeddings", 512)
    _, context = request.resolve({"forward": TEXT_CONTEXT}, "forward", positions)
    graph = build_bert(request.name, model, fields.size("vocab_size"), positions, types, pooler, context)
    head = "encoder with its pooler, no task head" if pooler else "encoder, no task head"
    return Reading(graph, graph.parameters, context, notes=(head,))


def vit(fields: Fields, request: Request) -> Reading:
    """ViT; the image fixes the number of tokens."""
    model = _encoder(fields, request, *NAMES)
    fields.divides(model.hidden, model.heads, "hidden size", "attention heads")
    image, patch = fields.size("image_size", 224), fields.size("patch_size", 16)
    fields.divides(image, patch, "image size", "pixels per patch")
    tokens = (image // patch) ** 2 + 1
    labels = fields.get("id2label")
    classes = fields.size("num_labels", len(labels) if isinstance(labels, Mapping) else 0, minimum=0)
    _, context = request.resolve({"forward": tokens}, "forward", tokens)
    if context != tokens:
        raise RequestError(
            f"an image of {image} pixels has {tokens} tokens, context {context} does not apply", request.name
        )
    graph = build_vit(request.name, model, image, patch, fields.size("num_channels", 3), classes)
    return Reading(graph, graph.parameters, tokens)


def whisper(fields: Fields, request: Request) -> Reading:
    """Whisper: forward is the encoder over a window of sound."""

    def stack(part: str) -> Encoder:
        made = Encoder(
            hidden=fields.size("d_model"),
            layers=fields.layers(f"{part}_layers"),
            heads=fields.size(f"{part}_attention_heads"),
            width=fields.size(f"{part}_ffn_dim"),
            function=fields.activation("activation_function", "gelu"),
            precision=request.precision,
        )
        fields.divides(made.hidden, made.heads, "d_model", f"{part} attention heads")
        return made

    model = Whisper(
        encoder=stack("encoder"),
        decoder=stack("decoder"),
        mels=fields.size("num_mel_bins", 80),
        vocabulary=fields.size("vocab_size"),
        positions=fields.size("max_target_positions", 448),
        source_positions=fields.size("max_source_positions", 1500),
    )
    frames = model.source_positions
    limit = frames if request.phase in (None, "forward") else model.positions
    phases = {
        "forward": frames,
        "prefill": min(WHISPER_PROMPT, model.positions),
        "decode": min(TEXT_CONTEXT, model.positions),
    }
    phase, context = request.resolve(phases, "forward", limit)
    graph = build_whisper(request.name, model, phase, context, context if phase == "forward" else frames)
    whole = build_whisper(request.name, model, "prefill", 1, frames)
    note = {
        "forward": f"the encoder alone, over {context} states of two mel frames each (1500 for 30 s)",
        "prefill": f"the encoder over {frames} states, the decoder over its prompt; logits of the last token",
        "decode": f"one decoder token; the caches hold `context` tokens and {frames} encoder states",
    }[phase]
    kv = 2 * model.decoder.layers * model.decoder.hidden
    return Reading(graph, whole.parameters, context, kv, (note,))


def t5(fields: Fields, request: Request) -> Reading:
    """T5: the decoder starts from one token."""
    kind = str(fields.get("feed_forward_proj", "relu"))
    layers = fields.layers("num_layers")
    model = T5(
        hidden=fields.size("d_model"),
        head_dim=fields.size("d_kv"),
        heads=fields.size("num_heads"),
        width=fields.size("d_ff"),
        encoder_layers=layers,
        decoder_layers=fields.layers("num_decoder_layers", layers),
        vocabulary=fields.size("vocab_size"),
        buckets=fields.size("relative_attention_num_buckets", 32),
        function=Fields({"f": kind.removeprefix("gated-")}, fields.where).activation("f", "relu"),
        gated=kind.startswith("gated-"),
        tied=fields.flag("tie_word_embeddings", True),
        precision=request.precision,
    )
    phase, context = request.resolve(dict.fromkeys(("prefill", "forward", "decode"), T5_SOURCE), "prefill")
    source = T5_SOURCE if phase == "decode" else context
    graph = build_t5(request.name, model, phase, context, source)
    whole = build_t5(request.name, model, "prefill", 1, 1)
    note = {
        "forward": "the encoder alone, over `context` source tokens",
        "prefill": "the encoder over `context` source tokens and the decoder over its start token",
        "decode": f"one decoder token; the caches hold `context` tokens and {source} source tokens",
    }[phase]
    kv = 2 * model.decoder_layers * model.heads * model.head_dim
    return Reading(graph, whole.parameters, context, kv, (note,))


# Reader, family name, architecture names.
ENCODERS: tuple[tuple[Callable[[Fields, Request], Reading], tuple[str, ...]], ...] = (
    (bert, ("bert", "BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForQuestionAnswering")),
    (bert, ("bert", "BertForSequenceClassification", "BertForTokenClassification")),
    (
        distilbert,
        ("distilbert", "DistilBertModel", "DistilBertForMaskedLM", "DistilBertForQuestionAnswering"),
    ),
    (distilbert, ("distilbert", "DistilBertForSequenceClassification")),
    (vit, ("vit", "ViTModel", "ViTForImageClassification")),
    (whisper, ("whisper", "WhisperModel", "WhisperForConditionalGeneration")),
    (t5, ("t5", "T5Model", "T5ForConditionalGeneration", "T5WithLMHeadModel")),
)
