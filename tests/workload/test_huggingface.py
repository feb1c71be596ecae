"""HuggingFace configurations against published sizes and closed forms."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.errors import AccelsimError, ConfigError, ModelFileError, RequestError
from accelsim.workload.builders.decoder import Layer, runs
from accelsim.workload.builders.hf_workload import huggingface
from accelsim.workload.builders.transformer import Attention, Mlp
from accelsim.workload.graph import Graph
from accelsim.workload.huggingface import active_parameters, families, from_config
from accelsim.workload.load import load_workload

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
}
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "first_k_dense_replace": 2,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 24,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
LANGUAGE_MODELS = (
    "llama-3.1-8b",
    "llama-3.1-70b",
    "qwen3-8b",
    "qwen3-32b",
    "qwen3-30b-a3b",
    "mistral-7b",
    "mixtral-8x7b",
    "deepseek-v3",
    "gpt-oss-20b",
    "gpt-oss-120b",
    "gpt2",
)


def work_of(graph: Graph, kind: str) -> float:
    """MACs of one kind of operator."""
    return sum(op.macs * op.repeat for op in graph if op.kind == kind)


# Exact counts where the checkpoint publishes them; otherwise to the digits of the model card.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("bert-base", 109_482_240),
        ("bert-large", 335_141_888),
        ("distilbert", 66_362_880),
        ("gpt2", 124_439_808),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
        ("mistral-7b", 7_241_732_096),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-32b", 32_762_123_264),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("mixtral-8x7b", 46_702_792_704),
        ("deepseek-v3", 671_026_419_200),
        ("gpt-oss-120b", 116_829_156_672),
        ("gpt-oss-20b", 20_914_757_184),
        ("vit-b-16", 86_567_656),
        ("whisper-base", 72_593_920),
        ("t5-small", 60_506_624),
    ],
)
def test_parameters(name: str, parameters: int) -> None:
    assert load_workload(name).metadata["parameters_total"] == parameters


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_prefill_and_decode_hold_the_same_weights(name: str) -> None:
    prefill, decode = load_workload(name, phase="prefill"), load_workload(name, phase="decode")
    assert prefill.parameters == decode.parameters
    assert prefill.weight_bytes == pytest.approx(decode.weight_bytes, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "active", "embedding"),
    [
        ("deepseek-v3", 36.63e9, 129280 * 7168),
        ("mixtral-8x7b", 12.75e9, 32000 * 4096),
        ("gpt-oss-120b", 5.13e9, 201088 * 2880),  # the model card counts 5.13 B without the embedding
        ("qwen3-30b-a3b", 3.04e9, 151936 * 2048),
    ],
)
def test_active_parameters(name: str, active: float, embedding: int) -> None:
    graph = load_workload(name)
    assert graph.metadata["active_parameters"] == pytest.approx(active, rel=2e-3)
    assert graph.parameters > active + embedding


def test_deepseek_active_with_embedding() -> None:
    graph = load_workload("deepseek-v3")
    assert (graph.metadata["active_parameters"] + 129280 * 7168) / 1e9 == pytest.approx(37.55, abs=0.01)


def test_dense_models_use_all_weights_but_the_embedding() -> None:
    graph = load_workload("llama-3.1-8b")
    assert active_parameters(graph) == graph.parameters - 128256 * 4096


def test_tied_embedding_counts_once_and_is_active() -> None:
    untied, tied = from_config(LLAMA), from_config({**LLAMA, "tie_word_embeddings": True})
    assert untied.parameters - tied.parameters == 1000 * 64
    assert untied.flops == tied.flops
    assert tied.metadata["active_parameters"] == tied.parameters


@pytest.mark.parametrize(("context", "gflop"), [(128, 22.35), (512, 96.6)])
def test_bert_flops(context: int, gflop: float) -> None:
    graph = load_workload("bert-base", context=context)
    assert graph.flops / 1e9 == pytest.approx(gflop, rel=1e-3)
    encoder = 12 * (context * (4 * 768**2 + 2 * 768 * 3072) + 2 * context**2 * 768)
    assert graph.macs == encoder + 768**2  # and the pooler


def test_vit_macs() -> None:
    graph = load_workload("vit-b-16")
    assert graph.macs / 1e9 == pytest.approx(17.56, abs=0.01)
    layers = 12 * (197 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 197**2 * 768)
    assert graph.macs == layers + 196 * 768 * 768 + 768 * 1000


def test_whisper_encoder_macs() -> None:
    graph = load_workload("whisper-base")
    assert graph.phase == "forward"
    assert graph.metadata["context"] == 1500
    layers = 6 * (1500 * (4 * 512**2 + 2 * 512 * 2048) + 2 * 1500**2 * 512)
    assert graph.macs == layers + 3000 * 3 * 80 * 512 + 1500 * 3 * 512 * 512


def test_whisper_decode_reads_both_caches() -> None:
    graph = load_workload("whisper-base", phase="decode", context=100)
    assert graph.kv_bytes == 2 * 6 * 2 * 512 * (100 + 1500)
    assert graph.metadata["kv_elements_per_token"] == 2 * 6 * 512
    per_layer = 4 * 512**2 + 2 * 512**2 + 2 * 512 * 2048  # cross keys and values are cached
    assert graph.macs == 6 * (per_layer + 2 * 512 * (100 + 1500)) + 512 * 51865


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
@pytest.mark.parametrize("tokens", [256, 1024])
def test_prefill_macs_are_active_weights_times_tokens(name: str, tokens: int) -> None:
    """MACs = active matrix weights x tokens + attention; norms and biases, in the count, are under 0.2 %."""
    graph = load_workload(name, phase="prefill", context=tokens)
    head = next(op for op in graph if op.name == "lm_head")
    per_token = graph.metadata["active_parameters"] - head.inputs[1].elements
    products = graph.macs - work_of(graph, "attention") - head.macs
    assert head.macs == head.inputs[1].elements
    assert products == pytest.approx(per_token * tokens, rel=8e-3 if name == "gpt2" else 2e-3)


def test_prefill_attention_is_causal() -> None:
    t = 512
    graph = load_workload("llama-3.1-8b", phase="prefill", context=t)
    assert work_of(graph, "attention") == 32 * 2 * 32 * 128 * t * (t + 1) / 2


def test_sliding_window_limits_prefill_attention() -> None:
    t, w = 300, 128
    graph = load_workload("gpt-oss-120b", phase="prefill", context=t)
    full, windowed = t * (t + 1) / 2, w * (w + 1) / 2 + (t - w) * w
    assert work_of(graph, "attention") == 18 * 2 * 64 * 64 * (full + windowed)


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("llama-3.1-8b", 2 * 32 * 8 * 128),
        ("llama-3.1-70b", 2 * 80 * 8 * 128),
        ("qwen3-32b", 2 * 64 * 8 * 128),
        ("mixtral-8x7b", 2 * 32 * 8 * 128),
        ("gpt2", 2 * 12 * 768),
        ("deepseek-v3", 61 * 576),
    ],
)
@pytest.mark.parametrize("context", [1, 777])
def test_decode_cache(name: str, per_token: int, context: int) -> None:
    graph = load_workload(name, phase="decode", context=context)
    assert graph.metadata["kv_elements_per_token"] == per_token
    assert graph.kv_bytes == 2 * per_token * context
    assert graph.with_batch(5).kv_bytes == 5 * graph.kv_bytes
    written = sum(t.elements * op.repeat for op in graph if op.kind == "kv_write" for t in op.outputs)
    assert written == per_token


@pytest.mark.parametrize("context", [100, 128, 1000])
def test_sliding_layers_keep_a_window(context: int) -> None:
    graph = load_workload("gpt-oss-120b", phase="decode", context=context)
    assert graph.metadata["kv_elements_per_token"] == 2 * 36 * 8 * 64
    assert graph.kv_bytes == 2 * 2 * 18 * 8 * 64 * (context + min(context, 128))


def test_decode_macs() -> None:
    s = 2000
    graph = load_workload("llama-3.1-8b", phase="decode", context=s)
    matrices = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336) + 4096 * 128256
    assert graph.macs == matrices + 32 * 2 * 32 * 128 * s


def test_latent_decode_macs_are_those_of_the_absorbed_form() -> None:
    s, h = 4096, 128
    graph = load_workload("deepseek-v3", phase="decode", context=s)
    assert work_of(graph, "mla_attention") == 61 * h * s * (576 + 512)
    absorbed = [op for op in graph if op.name.endswith("_absorb")]
    assert sum(op.macs * op.repeat for op in absorbed) == 61 * h * 512 * (128 + 128)
    batched = next(op for op in graph.with_batch(32) if op.name.endswith("q_absorb"))
    nest = batched.loop_nest
    assert nest is not None
    assert (nest.batch, nest.m, nest.n, nest.k) == (128, 32, 512, 128)


def test_latent_prefill_macs_are_those_of_the_expanded_form() -> None:
    t = 256
    graph = load_workload("deepseek-v3", phase="prefill", context=t)
    assert work_of(graph, "attention") == 61 * 128 * (192 + 128) * t * (t + 1) / 2
    assert not any(op.kind == "mla_attention" for op in graph)


def test_expanding_and_absorbing_agree_on_what_one_token_needs() -> None:
    """With one token in the cache both forms do the same products, but for the attention itself."""
    prefill = from_config(DEEPSEEK, phase="prefill", context=1)
    decode = from_config(DEEPSEEK, phase="decode", context=1)
    assert prefill.macs - work_of(prefill, "attention") == decode.macs - work_of(decode, "mla_attention")


def test_latent_without_query_compression() -> None:
    direct = from_config({**DEEPSEEK, "q_lora_rank": None})
    compressed = from_config(DEEPSEEK)
    h, d = 4 * (16 + 8), 64
    assert compressed.parameters - direct.parameters == 5 * (d * 48 + 48 + 48 * h - d * h)


def test_sparse_attention_reads_only_the_selected_tokens() -> None:
    fields = {
        **DEEPSEEK,
        "architectures": ["DeepseekV32ForCausalLM"],
        "index_topk": 100,
        "index_n_heads": 2,
        "index_head_dim": 16,
    }
    short, long = (from_config(fields, phase="decode", context=s) for s in (1000, 5000))
    assert work_of(short, "mla_attention") == work_of(long, "mla_attention") == 5 * 4 * 100 * (40 + 32)
    assert long.kv_bytes == 2 * 5 * 5000 * (40 + 16)
    assert work_of(long, "attention") == 5 * 2 * 5000 * (16 + 1)
    assert all(op.approximated for op in long if op.kind in ("attention", "mla_attention"))


def test_mixture_reads_the_experts_that_tokens_choose() -> None:
    graph = load_workload("mixtral-8x7b", phase="decode")
    one = next(op for op in graph if op.kind == "grouped_matmul")
    assert one.work.bytes_read == pytest.approx(2 * one.inputs[1].elements * 2 / 8 + 2 * 4096 * 2)
    assert one.macs == 2 * 4096 * 2 * 14336


def test_experts_of_gpt_oss_are_mxfp4() -> None:
    graph = load_workload("gpt-oss-120b")
    assert {t.precision.name for t in graph.weights if len(t.shape) == 3} == {"mxfp4"}
    assert {t.precision.name for t in graph.weights if len(t.shape) < 3} == {"bf16"}
    experts = 36 * 128 * 3 * 2880**2  # 4.25 bits each: 4 and a scale of 8 for every 32
    assert graph.weight_bytes == experts * 4.25 / 8 + (graph.parameters - experts) * 2


@pytest.mark.parametrize("name", [*LANGUAGE_MODELS, "t5-small", "whisper-base"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_batch_scales_macs_and_traffic_but_not_weights(name: str, phase: str) -> None:
    graph = load_workload(name, phase=phase)
    many = graph.with_batch(3)
    assert many.parameters == graph.parameters
    assert many.macs == pytest.approx(3 * graph.macs, rel=1e-12)
    assert graph.bytes_compulsory < many.bytes_compulsory < 3 * graph.bytes_compulsory


@pytest.mark.parametrize("name", ["bert-base", "distilbert", "vit-b-16"])
def test_batch_of_encoders(name: str) -> None:
    graph = load_workload(name)
    assert graph.with_batch(7).macs == 7 * graph.macs
    assert graph.with_batch(7).parameters == graph.parameters


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_every_phase_has_one_input_and_one_result(name: str) -> None:
    for phase in ("prefill", "decode"):
        graph = load_workload(name, phase=phase)
        assert [t.name for t in graph.inputs if t.role == "activation"] == ["token_ids"]
        results = [t for t in graph.outputs if graph.producer(t.name).kind not in ("kv_write",)]
        assert [t.name for t in results] == ["lm_head"]
        assert results[0].shape[1] == 1


def test_precision_and_defaults() -> None:
    assert {t.precision.name for t in load_workload("llama-3.1-8b").weights} == {"bf16"}
    assert {t.precision.name for t in load_workload("bert-base").weights} == {"fp16"}
    assert {t.precision.name for t in from_config({**LLAMA, "torch_dtype": "float16"}).weights} == {"fp16"}
    assert {t.precision.name for t in from_config(LLAMA, precision="fp8").weights} == {"fp8_e4m3"}
    graph = from_config(LLAMA)
    assert (graph.phase, graph.metadata["context"], graph.name) == ("prefill", 1024, "llama")
    assert "last prompt token" in graph.metadata["note"]
    assert load_workload("gpt2").metadata["context"] == 128


def test_multimodal_files_give_their_language_model() -> None:
    nested = {"architectures": ["Qwen3VLForConditionalGeneration"], "text_config": LLAMA, "vision_config": {}}
    graph = from_config(nested)
    assert graph.macs == from_config(LLAMA).macs
    assert "language model only" in graph.metadata["note"]


def test_workload_parameters() -> None:
    graph = huggingface(
        "small", {"config": LLAMA, "phase": "decode", "context": 64, "precision": "int8"}, None, None
    )
    assert (graph.phase, graph.metadata["context"]) == ("decode", 64)
    assert huggingface("small", {"config": LLAMA, "context": 64}, "decode", 32).metadata["context"] == 32
    with pytest.raises(ConfigError, match="unknown parameter 'confg'; did you mean config"):
        huggingface("small", {"confg": LLAMA}, None, None)


A = Layer(Attention(1, 1, 8, 8), Mlp(8))
B = Layer(Attention(1, 1, 8, 8, window=4), Mlp(8))


@given(st.lists(st.sampled_from([A, B]), min_size=1, max_size=40))
def test_runs_say_the_same_layers(layers: list[Layer]) -> None:
    found = runs(layers)
    assert [layer for pattern, times in found for layer in list(pattern) * times] == layers
    assert all(times > 1 or len(pattern) == 1 for pattern, times in found)


def test_runs_find_patterns() -> None:
    assert [(len(p), n) for p, n in runs([A] * 3 + [B] * 5)] == [(1, 3), (1, 5)]
    assert [(len(p), n) for p, n in runs([B, A] * 18)] == [(2, 18)]


def test_layers_are_repeats() -> None:
    assert len(load_workload("llama-3.1-70b")) < 30
    assert len(load_workload("gpt-oss-120b")) < 60


# -- what goes wrong ----------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ["LlamaForCausalML"]},
            "unknown architecture 'LlamaForCausalML'; did you mean LlamaFor",
        ),
        ({"architectures": None}, "neither 'architectures' nor 'model_type' is given"),
        ({"hidden_size": None}, "field 'hidden_size' is missing"),
        ({"hidden_size": -64}, "hidden_size is -64, expected a whole number from 1"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_attention_heads": 7}, "attention heads 7 does not divide by 2 key/value heads"),
        ({"hidden_size": 65}, "hidden_size 65 does not divide by 8 attention heads"),
        ({"hidden_act": "sillu"}, "hidden_act is 'sillu', an unknown activation; did you mean silu"),
        ({"torch_dtype": "float17"}, "unknown precision 'float17'"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', expected true or false"),
    ],
)
def test_bad_fields(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        from_config({**LLAMA, **change}, where="here.json")
    assert str(caught.value).startswith("here.json: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_misspelt_field_is_named() -> None:
    fields = {("hiden_size" if k == "hidden_size" else k): v for k, v in LLAMA.items()}
    with pytest.raises(ModelFileError, match="'hidden_size' is missing; did you mean hiden_size"):
        from_config(fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[1]", "expected a JSON object"),
        ("[" * 100_000, "not JSON"),
        ("\x00", "not JSON"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=message):
        load_workload(path)


def test_file_gives_its_folder_as_name(tmp_path: Path) -> None:
    path = tmp_path / "my-llama" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(LLAMA))
    assert load_workload(path).name == "my-llama"
    with pytest.raises(ModelFileError, match="cannot read the file"):
        from_config(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("name", "phase", "context", "message"),
    [
        ("llama-3.1-8b", "forward", None, "no phase 'forward'; this model has: prefill, decode"),
        ("bert-base", "decode", None, "no phase 'decode'; this model has: forward"),
        ("bert-base", None, 513, "context 513 is longer than the 512 positions"),
        ("gpt2", "decode", 1025, "context 1025 is longer than the 1024 positions"),
        ("whisper-base", "decode", 449, "context 449 is longer than the 448 positions"),
        ("vit-b-16", None, 64, "an image of 224 pixels has 197 tokens"),
    ],
)
def test_bad_requests(name: str, phase: str | None, context: int | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load_workload(name, phase=phase, context=context)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=6),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([LLAMA, DEEPSEEK]), st.data())
def test_any_field_gives_a_graph_or_one_line(fields: dict[str, object], data: st.DataObject) -> None:
    key = data.draw(
        st.sampled_from(
            [*fields, "head_dim", "sliding_window", "layer_types", "moe_layer_freq", "text_config"]
        )
    )
    problem, macs = "", 0.0
    try:
        macs = from_config({**fields, key: data.draw(JUNK)}, context=16).macs
    except AccelsimError as error:
        problem = str(error)
    assert macs > 0 or (problem and "\n" not in problem)


# -- the configurations that a package of measured models ships ----------

_SPEC = find_spec("aiconfigurator_core")
_FOLDER = Path(str(_SPEC.origin)).parent / "model_configs" if _SPEC and _SPEC.origin else None
_FILES = [p for p in sorted(_FOLDER.glob("*_config.json")) if "hf_quant" not in p.name] if _FOLDER else []

UNSUPPORTED = {
    "DeciLMForCausalLM",
    "DeepseekV4ForCausalLM",
    "Gemma4ForConditionalGeneration",
    "KimiK3ForConditionalGeneration",
    "MiniMaxM3ForCausalLM",
    "MiniMaxM3SparseForConditionalGeneration",
    "NemotronHForCausalLM",
    "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration",
    "Step3p7FlashForCausalLM",
}


@pytest.mark.skipif(not _FILES, reason="aiconfigurator_core, which brings the files, is not installed")
def test_shipped_configurations() -> None:
    loaded = 0
    for path in _FILES:
        architecture = json.loads(path.read_text())["architectures"][0]
        if architecture not in families():
            assert architecture in UNSUPPORTED
            with pytest.raises(ModelFileError, match="unknown architecture"):
                from_config(path)
            continue
        prefill, decode = from_config(path), from_config(path, phase="decode", context=4096)
        assert prefill.parameters == decode.parameters
        assert decode.with_batch(2).macs == pytest.approx(2 * decode.macs)
        bound = 2 * prefill.metadata["active_parameters"] * 1024
        assert 0.8 * bound < prefill.flops < 1.5 * bound
        loaded += 1
    assert loaded >= 50


@pytest.mark.skipif(not _FILES, reason="aiconfigurator_core, which brings the files, is not installed")
@pytest.mark.parametrize(
    ("file", "billion"),  # model cards; DeepSeek-V3.2 and GLM-5 without their multi-token-prediction layers
    [
        ("meta-llama--Meta-Llama-3.1-405B", 405.9),
        ("Qwen--Qwen3-235B-A22B", 235.1),
        ("mistralai--Mixtral-8x22B-v0.1", 140.6),
        ("moonshotai--Kimi-K2-Instruct", 1026.4),
        ("meta-llama--Llama-4-Maverick-17B-128E-Instruct", 400.7),
        ("MiniMaxAI--MiniMax-M2.5", 228.7),
        ("XiaomiMiMo--MiMo-V2-Flash", 308.8),
        ("zai-org--GLM-5", 743.9),
    ],
)
def test_shipped_sizes(file: str, billion: float) -> None:
    assert _FOLDER is not None
    assert from_config(_FOLDER / f"{file}_config.json").parameters / 1e9 == pytest.approx(billion, abs=0.06)


@pytest.mark.skipif(not _FILES, reason="aiconfigurator_core, which brings the files, is not installed")
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("llama-3.1-8b", "meta-llama--Meta-Llama-3.1-8B"),
        ("llama-3.1-70b", "meta-llama--Meta-Llama-3.1-70B"),
        ("qwen3-32b", "Qwen--Qwen3-32B"),
        ("mixtral-8x7b", "mistralai--Mixtral-8x7B-v0.1"),
        ("deepseek-v3", "deepseek-ai--DeepSeek-V3"),
        ("gpt-oss-120b", "openai--gpt-oss-120b"),
    ],
)
def test_workloads_say_what_the_files_say(name: str, file: str) -> None:
    assert _FOLDER is not None
    for phase in ("prefill", "decode"):
        assert (
            load_workload(name, phase=phase).hash
            == from_config(_FOLDER / f"{file}_config.json", phase=phase).hash
        )
