"""The installed measurements: decoded into the schema, spot-checked against the raw tables."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from accelsim.architectures.opwork import work
from accelsim.calibration.measurements import check_measurements, roofline
from accelsim.calibration.splits import held_out
from accelsim.core.errors import MissingExtraError, RequestError, UnknownNameError
from accelsim.validate import aiconfigurator as source
from accelsim.validate import aiconfigurator_experts as experts

load = cache(lambda family, device, **kwargs: source.LOADERS[family](device, **kwargs))

installed = pytest.mark.skipif(
    find_spec("aiconfigurator_core") is None or find_spec("pyarrow") is None,
    reason="the extra 'validation' is not installed",
)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("0.5.9", "0.5.10"),
        ("0.5.6.post2", "0.5.9"),
        ("0.5.6", "0.5.6.post2"),
        ("1.3.0rc9", "1.3.0rc20"),
        ("1.3.0rc20", "1.3.0"),
        ("1.2.0", "1.3.0rc1"),
        ("0.1.dev19262", "0.1"),
        ("2.27", "2.27.3"),
    ],
)
def test_versions_are_compared_as_versions(older: str, newer: str) -> None:
    assert source.version_key(older) < source.version_key(newer)
    assert source.version_key("2.27") == source.version_key("2.27.0")
    with pytest.raises(RequestError, match="not a version"):
        source.version_key("latest")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(source, "files", gone)
    source.root.cache_clear()
    with pytest.raises(MissingExtraError, match=re.escape("accelsim-dse[validation]")):
        source.gemm("h100-sxm")
    source.root.cache_clear()


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(UnknownNameError, match="h100-sxm"):
        source.tables("h100-sxn", "gemm", "gemm_perf")


# Rows of the newest versions: products, prefill, decode, latent attention, experts, collectives.
MINIMA = {
    "a100-sxm": (72_000, 15_000, 11_500, 4_200, 65_000, 700),
    "h100-sxm": (270_000, 160_000, 150_000, 9_300, 271_000, 700),
    "l40s": (240_000, 160_000, 150_000, 6_300, 195_000, 700),
    "b200": (360_000, 158_000, 154_000, 9_300, 401_000, 700),
}


@installed
@pytest.mark.parametrize("device", MINIMA)
def test_every_family_is_in_the_schema_and_no_smaller_than_it_was(device: str) -> None:
    for family, least in zip(source.LOADERS, MINIMA[device]):
        frame = load(family, device)
        assert len(frame) >= least, family
        check_measurements(frame)
        assert set(frame["device"].unique()) == {device}
        shape = [
            c for c in frame.columns if c not in ("latency_s", "repeats", "includes", "flag", "conditions")
        ]
        assert not frame.duplicated(shape).any(), family
        assert (frame["flag"] == "").all()


@installed
def test_products_equal_the_raw_table() -> None:
    frame = load("gemm", "h100-sxm", flagged=True)
    for backend, dtype, expected in (("vllm", "bfloat16", "bf16"), ("trtllm", "fp8_block", "fp8_e4m3")):
        table = source.tables("h100-sxm", "gemm", "gemm_perf")
        newest = max((t for t in table if t.backend == backend), key=lambda t: source.version_key(t.version))
        raw = pd.read_parquet(newest.path)
        raw = raw[raw["gemm_dtype"] == dtype].sample(50, random_state=0)
        mine = frame[(frame["backend"] == backend) & (frame["dtype"] == dtype)]
        both = raw.merge(mine, on=["m", "n", "k"])
        assert len(both) == 50
        assert both["latency_s"].to_numpy() == pytest.approx(both["latency"].to_numpy() * 1e-3)
        assert set(both["precision"]) == {expected}
        assert set(both["scale_block"]) == {128 if dtype == "fp8_block" else 0}


@installed
def test_rows_that_must_not_be_scored_are_left_out_unless_asked_for() -> None:
    sound, everything = load("gemm", "l40s"), load("gemm", "l40s", flagged=True)
    flagged = everything[everything["flag"] != ""]
    assert set(zip(flagged["backend"], flagged["dtype"])) == {("vllm", "fp8_block")}
    assert len(sound) + len(flagged) == len(everything)
    assert flagged["latency_s"].min() > 50e-6
    low = sound[sound["dtype"].isin(["fp8", "fp8_block"])]
    assert set(low["includes"]) == {source.QUANTISATION}
    assert set(sound[sound["dtype"] == "bfloat16"]["includes"]) == {""}


@installed
def test_fp8_products_contain_the_quantisation_that_is_measured_on_its_own() -> None:
    """With few columns a product is one pass over the activations. What is left of TensorRT-LLM's fp8 time
    without its quantisation is a pass over 1 byte per element; with it, it would be several.
    """
    gemm = load("gemm", "h100-sxm")
    gemm = gemm[
        (gemm["backend"] == "trtllm") & (gemm["dtype"] == "fp8") & (gemm["n"] == 32) & (gemm["m"] == 32768)
    ]
    cast = source.quantisation("h100-sxm")
    both = gemm[gemm["k"] >= 8192].merge(cast[cast["backend"] == "trtllm"], on=["m", "k"])
    assert len(both) >= 5
    rest = both["latency_s"] - both["scale_s"] - both["cast_s"]
    per_byte = rest * 3.35e12 / (both["m"] * both["k"])
    assert per_byte.between(0.9, 1.7).all()
    assert (both["latency_s"] * 3.35e12 / (both["m"] * both["k"]) > 6).all()


@installed
def test_truth_is_the_median_of_the_newest_backends() -> None:
    truth = source.truth_gemm("h100-sxm").set_index(["m", "n", "k"])
    frame = load("gemm", "h100-sxm")
    frame = frame[frame["dtype"] == "bfloat16"]
    assert set(frame["version"]) == {"0.5.14", "1.3.0rc20", "0.24.0"}
    shape = (256, 4096, 4096)
    three = frame[(frame["m"] == 256) & (frame["n"] == 4096) & (frame["k"] == 4096)]["latency_s"]
    assert truth.loc[shape, "latency_s"] == sorted(three)[1]
    assert truth.loc[shape, "repeats"] == 3
    assert len(truth) > 35_000


@installed
def test_attention_lengths_count_the_new_tokens() -> None:
    decode = load("attention_decode", "h100-sxm")
    assert set(decode["seq_q"]) == {1}
    assert (np.log2(decode["seq_kv"]) % 1 == 0).all()  # the tables have step = 2^i - 1
    prefill = load("attention_prefill", "h100-sxm")
    assert (prefill["seq_q"] == prefill["seq_kv"]).all()
    assert {"bf16", "fp8_e4m3", "weight=bf16,activation=bf16,kv=fp8_e4m3"} == set(prefill["precision"])


@installed
def test_nothing_reads_its_cache_faster_than_dram() -> None:
    """Caches far larger than the L2 pass DRAM, so datasheet bandwidth bounds them: lengths, heads, formats
    and units are decoded right. The rows that break it are flagged.
    """
    for device in ("a100-sxm", "h100-sxm", "b200"):
        frame = load("attention_decode", device)
        _, memory, _ = roofline(frame, device)
        large = (memory > 200e-6) & (frame["seq_kv"] >= 512).to_numpy()
        share = memory[large] / frame["latency_s"].to_numpy()[large]
        assert large.sum() > 400
        assert np.quantile(share, 0.99) < 1.0, device
    flagged = load("attention_decode", "a100-sxm", flagged=True)
    flagged = flagged[flagged["flag"] == source.TOO_FAST]
    _, memory, _ = roofline(flagged, "a100-sxm")
    large = memory > 200e-6
    assert np.median(memory[large] / flagged["latency_s"].to_numpy()[large]) > 1.2


@installed
def test_collectives_are_in_bytes_and_never_beat_the_link() -> None:
    frame = load("collectives", "h100-sxm")
    assert set(frame["op"]) == {"allreduce", "allgather", "reducescatter", "alltoall"}
    nccl = frame[frame["backend"] == "nccl"]
    top = nccl.groupby("precision", observed=True)["bytes"].max()
    assert set(top) == {512 << 20}  # the same buffer in 2-byte and 1-byte elements
    others = frame[frame["backend"] != "nccl"]
    assert set(others["op"]) == {"allreduce"}
    assert others["bytes"].max() == 1 << 30
    for name in ("allgather", "reducescatter", "alltoall"):  # the switch may add up for an all-reduce
        part = nccl[nccl["op"] == name]
        _, _, link = roofline(part, "h100-sxm")
        share = link / part["latency_s"].to_numpy()
        assert 0.5 < share.max() < 1.0


@installed
def test_experts_read_their_weights_at_a_possible_speed() -> None:
    """The gate matrix and the split over ranks are decoded right: balanced layers that read all their experts
    do so below DRAM peak, and come close to it.
    """
    frame = load("moe", "h200-sxm")
    deepseek = (frame["hidden"] == 7168) & (frame["experts"] == 256)  # routed to half of its expert groups
    frame = frame[(frame["skew"] == 0) & ~deepseek & frame["tokens"].between(128, 1024)]
    _, memory, _ = roofline(frame, "h200-sxm")
    large = memory > 300e-6  # weights of 1.4 GB and more
    share = pd.Series(memory[large] / frame["latency_s"].to_numpy()[large])
    assert share.max() < 1.0
    best = share.groupby(frame["gated"].to_numpy()[large]).max()
    assert best[True] > 0.8
    assert best[False] > 0.8


@installed
def test_tokens_that_stay_on_a_rank_make_it_as_slow_as_it_is() -> None:
    """Of a layer with two experts per token, two ranks take as long as one and four take half of that."""
    frame = load("moe", "rtx-pro-6000")
    mixtral = (frame["hidden"] == 6144) & (frame["experts"] == 8) & (frame["dtype"] == "bfloat16")
    frame = frame[mixtral & (frame["backend"] == "sglang") & (frame["skew"] == 0) & (frame["tokens"] >= 8192)]
    frame = frame[frame["tensor_ranks"] == 1]
    assert (frame["local"] == (frame["expert_ranks"] > 1)).all()
    took = frame.groupby(["tokens", "expert_ranks"])["latency_s"].median().unstack()
    assert (took[2] / took[1]).median() == pytest.approx(1.0, abs=0.05)
    assert (took[4] / took[1]).median() == pytest.approx(0.5, abs=0.05)
    assert (took[8] / took[1]).median() == pytest.approx(0.25, abs=0.05)


@installed
def test_latent_prompts_stay_below_the_peak_in_the_form_that_they_have() -> None:
    for device, peak in (("h100-sxm", 989e12), ("l40s", 181e12)):
        frame = load("mla", device)
        frame = frame[(frame["op"] == "mla_prefill") & (frame["precision"] == "bf16")]
        absorbed = frame["absorbed"].to_numpy()
        assert (frame.loc[absorbed, "backend"] == "sglang").all()
        assert absorbed.any()
        flops, _, _ = work(frame)
        share = flops / frame["latency_s"].to_numpy() / peak
        assert 0.4 < share[absorbed].max() < 1.0
        assert 0.55 < share[~absorbed].max() < 1.0


@installed
def test_power_is_kept_where_it_was_measured() -> None:
    frame = load("attention_prefill", "b200", versions="all")
    measured = frame["power_w"].dropna()
    assert len(measured) == 36_992
    assert set(frame.loc[measured.index, "version"]) == {"0.22.0"}
    assert measured.between(200, 1050).all()


@installed
def test_layers_that_ran_untuned_are_as_slow_as_the_library_elsewhere() -> None:
    """vLLM runs the same kernels without their tuner: equal to the flagged rows, slower than others."""
    frame = load("moe", "h100-sxm", flagged=True)
    frame = frame[(frame["dtype"] == "fp8") & frame["tokens"].between(16, 1024) & ~held_out(frame)]
    shape = ["tokens", "hidden", "intermediate", "topk", "experts", "tensor_ranks", "expert_ranks", "skew"]
    vllm = frame[frame["backend"] == "vllm"].set_index(shape)["latency_s"]
    mine = frame[frame["backend"] == "trtllm"].set_index(shape)
    ratio = (vllm / mine["latency_s"]).dropna()
    slow = (mine["flag"] == experts.NOT_TUNED).reindex(ratio.index)
    assert slow.sum() > 300
    assert 0.95 < ratio[slow].median() < 1.1
    assert ratio[~slow].median() > 3.0


@installed
def test_one_kernel_of_tensorrt_llm_stands_for_a_shape() -> None:
    frame = load("moe", "b200", flagged=True)
    low = frame["kernel"].astype(str).str.endswith("min_latency")
    assert (frame["flag"] == experts.OTHER_KERNEL).sum() == low.sum() > 30_000
