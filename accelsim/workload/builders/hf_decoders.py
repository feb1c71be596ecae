"""Decoder-only models from their HuggingFace fields: the attention and feed-forward block of each layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from accelsim.core.errors import ModelFileError
from accelsim.workload.builders.decoder import Decoder, Layer, build_decoder
from accelsim.workload.builders.hf_fields import Fields, Reading, Request
from accelsim.workload.builders.latent import Indexer, LatentAttention
from accelsim.workload.builders.transformer import Attention, Mlp, Moe

CONTEXT = 1024  # default prompt or cache [tokens]
GPT2_CONTEXT = 128

_PHASE_NOTES = {
    "prefill": "prefill computes the logits of the last prompt token only, as serving stacks do",
    "decode": "decode runs one new token per sequence; the cache holds `context` tokens with it",
}


def _attention(f: Fields, **special: Any) -> Attention:
    """Grouped-query attention from the fields that most models share."""
    heads = f.size("num_attention_heads")
    kv_heads = f.size("num_key_value_heads", heads)
    f.divides(heads, kv_heads, "attention heads", "key/value heads")
    if f.get("head_dim") is None:
        f.divides(f.size("hidden_size"), heads, "hidden_size", "attention heads")
    head = f.size("head_dim", f.size("hidden_size") // heads)
    return Attention(**{"heads": heads, "kv_heads": kv_heads, "key_dim": head, "value_dim": head, **special})


def _mlp(f: Fields, width: str = "intermediate_size") -> Mlp:
    return Mlp(f.size(width), bias=f.flag("mlp_bias", False), function=f.activation("hidden_act", "silu"))


def _moe(f: Fields, experts: str, **special: Any) -> Moe:
    made = Moe(
        **{
            "experts": f.size(experts),
            "top_k": f.size("num_experts_per_tok"),
            "width": f.size("moe_intermediate_size", f.get("intermediate_size")),
            "function": f.activation("hidden_act", "silu"),
            **special,
        }
    )
    if made.top_k > made.experts:
        raise ModelFileError(
            f"num_experts_per_tok {made.top_k} is more than the {made.experts} experts", f.where
        )
    return made


def _decoder(f: Fields, layers: list[Layer], **special: Any) -> Decoder:
    return Decoder(
        **{
            "hidden": f.size("hidden_size"),
            "vocabulary": f.size("vocab_size"),
            "layers": tuple(layers),
            "tied": f.flag("tie_word_embeddings", False),
            "notes": _notes(f),
            **special,
        }
    )


def _notes(f: Fields) -> tuple[str, ...]:
    notes = []
    quantization = f.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else None
    if method and method != "mxfp4":
        notes.append(f"the checkpoint stores {method} weights; this graph keeps one format throughout")
    extra = f.get("num_nextn_predict_layers") or f.get("num_mtp_modules")
    if extra:
        notes.append("without the multi-token-prediction layers")
    return tuple(notes)


def _windows(f: Fields, layers: int) -> list[int | None]:
    """Sliding window of each layer, from ``layer_types`` where given."""
    kinds = f.pattern("layer_types", layers)
    if f.get("sliding_window") is None or f.get("use_sliding_window") is False:
        return [None] * layers
    window = f.size("sliding_window")
    if kinds is None:
        return [window] * layers
    return [window if kind == "sliding_attention" else None for kind in kinds]


def _dense(f: Fields, **special: Any) -> Decoder:
    n = f.layers("num_hidden_layers")
    return _decoder(f, [Layer(_attention(f, window=w, **special), _mlp(f)) for w in _windows(f, n)])


def llama(f: Fields) -> Decoder:
    """Llama 2 and 3, Mistral (arXiv:2310.06825, with its sliding window)."""
    bias = f.flag("attention_bias", False)
    return _dense(f, bias=bias, out_bias=bias)


def qwen2(f: Fields) -> Decoder:
    """Qwen2 and MiMo: query, key and value biases; full attention unless ``use_sliding_window``."""
    return _dense(f, bias=f.flag("attention_bias", True))


def qwen3(f: Fields) -> Decoder:
    """Qwen3 (arXiv:2505.09388): norms on query and key heads, no biases."""
    bias = f.flag("attention_bias", False)
    return _dense(f, bias=bias, out_bias=bias, qk_norm="head")


def mixtral(f: Fields) -> Decoder:
    """Mixtral (arXiv:2401.04088): every layer has experts."""
    layer = [
        Layer(_attention(f, window=w), _moe(f, "num_local_experts"))
        for w in _windows(f, f.layers("num_hidden_layers"))
    ]
    return _decoder(f, layer)


def qwen_moe(f: Fields) -> Decoder:
    """Qwen2-MoE, with a gated shared expert, and Qwen3-MoE.

    ``decoder_sparse_step`` and ``mlp_only_layers`` pick the layers that have experts.
    """
    third = f.get("shared_expert_intermediate_size") is None
    attention = _attention(f, qk_norm="head" if third else "", bias=f.flag("attention_bias", not third))
    shared = f.size("shared_expert_intermediate_size", 0, minimum=0)
    moe = _moe(f, "num_experts", shared_width=shared, shared_gate=shared > 0)
    step = f.size("decoder_sparse_step", 1)
    dense = f.get("mlp_only_layers")
    dense = dense if isinstance(dense, list) else []
    layers = [
        Layer(attention, moe if (i + 1) % step == 0 and i not in dense else _mlp(f))
        for i in range(f.layers("num_hidden_layers"))
    ]
    return _decoder(f, layers)


def deepseek(f: Fields) -> Decoder:
    """DeepSeek-V2 and V3 (arXiv:2412.19437), Kimi K2: latent attention, dense layers, then experts.

    With ``index_topk`` (DeepSeek-V3.2, GLM-5) an indexer selects the tokens that attention visits.
    """
    n = f.layers("num_hidden_layers")
    first, every = f.size("first_k_dense_replace", 0, minimum=0), f.size("moe_layer_freq", 1)
    moe = _moe(
        f,
        "n_routed_experts",
        shared_width=f.size("moe_intermediate_size") * f.size("n_shared_experts", 0, minimum=0),
        scoring="sigmoid" if f.get("scoring_func") == "sigmoid" else "softmax",
        correction_bias=f.get("topk_method") == "noaux_tc",
    )
    layers = [
        Layer(attention, moe if i >= first and i % every == 0 else _mlp(f))
        for i, attention in enumerate(_latent(f, n))
    ]
    return _decoder(f, layers)


def _latent(f: Fields, layers: int) -> list[LatentAttention]:
    """Latent attention of each layer."""
    plain = LatentAttention(
        heads=f.size("num_attention_heads"),
        q_rank=f.size("q_lora_rank", 0, minimum=0),
        kv_rank=f.size("kv_lora_rank"),
        nope_dim=f.size("qk_nope_head_dim"),
        rope_dim=f.size("qk_rope_head_dim"),
        value_dim=f.size("v_head_dim"),
    )
    if f.get("index_topk") is None:
        return [plain] * layers
    indexer = Indexer(f.size("index_n_heads"), f.size("index_head_dim"), f.size("index_topk"))
    kinds = f.pattern("indexer_types", layers) or ["full"] * layers
    return [replace(plain, indexer=replace(indexer, computes=kind != "shared")) for kind in kinds]


def gpt_oss(f: Fields) -> Decoder:
    """gpt-oss (arXiv:2508.10925): sliding windows in turn, attention sinks, biases, MXFP4 experts."""
    quantization = f.get("quantization_config")
    mxfp4 = isinstance(quantization, dict) and quantization.get("quant_method") == "mxfp4"
    moe = _moe(
        f, "num_local_experts", router_bias=True, expert_bias=True, expert_precision="mxfp4" if mxfp4 else ""
    )
    bias = f.flag("attention_bias", True)
    windows = _windows(f, f.layers("num_hidden_layers"))
    if f.get("layer_types") is None:  # the layers alternate, a sliding one first
        windows = [w if i % 2 == 0 else None for i, w in enumerate(windows)]
    layers = [Layer(_attention(f, window=w, bias=bias, out_bias=bias, sinks=True), moe) for w in windows]
    return _decoder(f, layers)


def minimax_m2(f: Fields) -> Decoder:
    """MiniMax-M2: norms over all query and all key heads, sigmoid routing with a selection bias."""
    moe = _moe(f, "num_local_experts", scoring="sigmoid", correction_bias=f.flag("use_routing_bias", True))
    attention = _attention(f, qk_norm="layer" if f.flag("use_qk_norm", True) else "")
    return _decoder(f, [Layer(attention, moe)] * f.layers("num_hidden_layers"))


def llama4(f: Fields) -> Decoder:
    """Llama 4: three of four layers attend within chunks.

    Every ``interleave_moe_layer_step`` layers one expert of many runs beside a shared one.
    """
    n, step = f.layers("num_hidden_layers"), f.size("interleave_moe_layer_step", 1)
    chunk = f.size("attention_chunk_size", 8192)
    moe = _moe(
        f,
        "num_local_experts",
        width=f.size("intermediate_size"),
        shared_width=f.size("intermediate_size"),
        scoring="sigmoid",
    )
    note = f"chunks of {chunk} tokens counted as a sliding window, which is at most twice as much"
    local = _attention(f, window=chunk, note=note)
    everywhere = _attention(f, rope=False)
    layers = [
        Layer(
            local if (i + 1) % 4 else everywhere,
            moe if (i + 1) % step == 0 else _mlp(f, "intermediate_size_mlp"),
        )
        for i in range(n)
    ]
    return _decoder(f, layers)


def mimo_v2(f: Fields) -> Decoder:
    """MiMo-V2-Flash: sliding layers have their own key/value heads, keys are wider than values."""
    n = f.layers("num_hidden_layers")
    sliding = f.pattern("hybrid_layer_pattern", n) or [0] * n
    sparse = f.pattern("moe_layer_freq", n) or [1] * n
    whole = _attention(f, value_dim=f.size("v_head_dim"), sinks=f.flag("add_full_attention_sink_bias", False))
    local = _attention(
        f,
        heads=f.size("swa_num_attention_heads"),
        kv_heads=f.size("swa_num_key_value_heads"),
        key_dim=f.size("swa_head_dim"),
        value_dim=f.size("swa_v_head_dim"),
        window=f.size("sliding_window"),
        sinks=f.flag("add_swa_attention_sink_bias", False),
    )
    f.divides(local.heads, local.kv_heads, "attention heads of sliding layers", "key/value heads")
    moe = _moe(f, "n_routed_experts", scoring="sigmoid", correction_bias=True)
    return _decoder(f, [Layer(local if s else whole, moe if m else _mlp(f)) for s, m in zip(sliding, sparse)])


def gpt2(f: Fields) -> Decoder:
    """GPT-2: learned positions, layer norms, biases everywhere, tied output projection."""
    hidden, heads = f.size("n_embd"), f.size("n_head")
    f.divides(hidden, heads, "n_embd", "n_head")
    head = hidden // heads
    attention = Attention(heads, heads, head, head, bias=True, out_bias=True, rope=False)
    function = f.activation("activation_function", "gelu_new")
    mlp = Mlp(f.size("n_inner", 4 * hidden), gated=False, bias=True, function=function)
    return Decoder(
        hidden=hidden,
        vocabulary=f.size("vocab_size"),
        layers=(Layer(attention, mlp),) * f.layers("n_layer"),
        tied=f.flag("tie_word_embeddings", True),
        norm="layer",
        positions=f.size("n_positions", 1024),
    )


def read_decoder(reader: Callable[[Fields], Decoder], fields: Fields, request: Request) -> Reading:
    """Graph of a decoder-only model; prefill is its default phase."""
    model = replace(reader(fields), precision=request.precision)
    default = GPT2_CONTEXT if reader is gpt2 else CONTEXT
    phase, context = request.resolve({"prefill": default, "decode": default}, "prefill", model.positions)
    graph = build_decoder(request.name, model, phase, context)
    notes = [_PHASE_NOTES[phase], *model.notes]
    if fields.multimodal:
        notes.append("the language model only, without the towers for images or sound")
    limit = fields.get("max_position_embeddings")
    if isinstance(limit, int) and context > limit:
        notes.append(f"context {context} exceeds max_position_embeddings {limit}")
    return Reading(graph, graph.parameters, context, model.kv_elements_per_token, tuple(notes))


# Reader, family name, architecture names and further model types.
DECODERS: tuple[tuple[Callable[[Fields], Decoder], tuple[str, ...]], ...] = (
    (gpt2, ("gpt2", "GPT2LMHeadModel", "GPT2Model")),
    (llama, ("llama", "LlamaForCausalLM")),
    (llama, ("mistral", "MistralForCausalLM")),
    (qwen2, ("qwen2", "Qwen2ForCausalLM")),
    (qwen2, ("mimo", "MiMoForCausalLM")),
    (qwen3, ("qwen3", "Qwen3ForCausalLM")),
    (qwen3, ("qwen3_vl", "Qwen3VLForConditionalGeneration")),
    (mixtral, ("mixtral", "MixtralForCausalLM")),
    (qwen_moe, ("qwen2_moe", "Qwen2MoeForCausalLM")),
    (qwen_moe, ("qwen3_moe", "Qwen3MoeForCausalLM")),
    (qwen_moe, ("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration")),
    (deepseek, ("deepseek_v2", "DeepseekV2ForCausalLM")),
    (deepseek, ("deepseek_v3", "DeepseekV3ForCausalLM", "kimi_k2")),
    (deepseek, ("deepseek_v32", "DeepseekV32ForCausalLM")),
    (deepseek, ("glm_moe_dsa", "GlmMoeDsaForCausalLM")),
    (deepseek, ("kimi_k25", "KimiK25ForConditionalGeneration")),
    (gpt_oss, ("gpt_oss", "GptOssForCausalLM")),
    (minimax_m2, ("minimax_m2", "MiniMaxM2ForCausalLM")),
    (llama4, ("llama4", "Llama4ForConditionalGeneration")),
    (mimo_v2, ("mimo_v2_flash", "MiMoV2FlashForCausalLM")),
)
