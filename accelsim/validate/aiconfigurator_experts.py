"""What the expert layers of ``aiconfigurator-core`` are beyond the columns of its tables, and which rows are
not what they say.

docs/validation.md has the evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.hardware.spec import load_hardware

if TYPE_CHECKING:
    import pandas as pd

NOT_BALANCED = "half of the rows on four experts, labelled balanced"
NOT_SPLIT = "takes as long on many ranks as on one"
NOT_TUNED = "as slow as the library's kernel without its tuner"
OTHER_KERNEL = "the shape has rows of a kernel that the backend prefers"

_LAYER = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")

# Experts without a gate (squared ReLU): hidden, intermediate, topk, experts. Kernels written for SwiGLU were
# timed on these shapes with a gate, as the weights that they would have to read at peak bandwidth show.
_UNGATED = (
    (1024, 2688, 22, 512),
    (2048, 5120, 22, 512),
    (2688, 1856, 6, 128),
    (4096, 2688, 22, 512),
    (8192, 5120, 22, 512),
)
_ALWAYS_GATED = ("sglang_fused_moe_triton", "sglang_marlin_moe", "vllm_fused_moe", "vllm_marlin_int4_moe")

# Layers of Nemotron, Gemma and Mixtral which SGLang's Triton and Marlin kernels were timed on with every
# choice of a token on the rank, as training rows show: hidden, intermediate, topk, experts. Until 0.5.10 all.
_LOCAL = ((1024, 2688, 22, 512), (2816, 704, 8, 128), (4096, 14336, 2, 8), (6144, 16384, 2, 8))
_LOCAL_KERNELS = ("sglang_fused_moe_triton", "sglang_marlin_moe")
LOCAL_UNTIL = "0.5.10"

_GROUP_LIMITED = (7168, 2048, 8, 256)
"""The layer of DeepSeek-V3, whose router picks four of eight groups of experts first."""

_HOPPER_CUTLASS = {"bfloat16": 2.0, "fp8": 1.0}
"""Bytes of a weight of the formats whose CUTLASS kernels have a tuner worth having on Hopper."""

_AROUND_S, _SLOW, _LARGE = 60e-6, 3.0, 4e7
"""See `_not_tuned`."""


def describe(frame: pd.DataFrame, device: str, old: npt.NDArray[np.bool_]) -> None:
    """Add ``skew gated local flag`` to the rows of a device, `old` those of versions up to `LOCAL_UNTIL`."""
    law = frame["distribution"].astype(str)
    skews = {
        name: 0.0 if name == "balanced" else float(name.removeprefix("power_law_")) for name in law.unique()
    }
    frame["skew"] = law.map(skews)
    kernels = frame["kernel"].astype(str)
    gated = kernels.map({k: k.startswith(_ALWAYS_GATED) for k in kernels.unique()})
    frame["gated"] = gated.to_numpy() | ~_is_layer(frame, _UNGATED)
    sglang, several = frame["backend"] == "sglang", frame["moe_ep_size"] > 1
    before = old & sglang.to_numpy()
    frame["local"] = several & kernels.isin(_LOCAL_KERNELS) & (before | _is_layer(frame, _LOCAL))
    whole = several & kernels.str.startswith("sglang_marlin") & (frame["dtype"] == "w4a16_mxfp4")
    grouped = _is_layer(frame, (_GROUP_LIMITED,)) & (frame["skew"] == 0.0) & ~before
    grouped &= sglang | kernels.str.contains("flashinfer_trtllm")
    flags = {NOT_SPLIT: whole, NOT_BALANCED: grouped, OTHER_KERNEL: _second_kernel(frame, kernels)}
    flags[NOT_TUNED] = _not_tuned(frame, device, kernels)
    frame["flag"] = np.select([np.asarray(rows, dtype=bool) for rows in flags.values()], list(flags), "")


def _second_kernel(frame: pd.DataFrame, kernels: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Rows of TensorRT-LLM's kernels for few tokens whose shape has a row of its CUTLASS kernels too, which
    it runs unless told otherwise.
    """
    low = kernels.str.endswith("min_latency")
    if not low.any():
        return np.zeros(len(frame), dtype=bool)
    twice = frame.duplicated(["backend", "dtype", "num_tokens", "distribution", *_LAYER], keep=False)
    return np.asarray(low & twice, dtype=bool)


def _not_tuned(frame: pd.DataFrame, device: str, kernels: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Layers that TensorRT-LLM's CUTLASS kernels on Hopper ran as they come: with hundreds of tokens the
    weights arrive at less than a third of the DRAM bandwidth, 60 us of everything else set aside.

    A layer is one load on one split; times at 64 to 512 tokens decide, of weights of 40 MB and more.
    """
    widths = frame["dtype"].astype(str).map(_HOPPER_CUTLASS)
    mine = (frame["backend"] == "trtllm") & kernels.str.startswith("moe_torch_flow") & widths.notna()
    if device not in ("h100-sxm", "h200-sxm") or not mine.any():
        return np.zeros(len(frame), dtype=bool)
    ranks = frame["moe_tp_size"] * frame["moe_ep_size"]
    size = frame["num_experts"] * frame["hidden_size"] * frame["inter_size"] / ranks * (2 + frame["gated"])
    weights = size * widths
    peak_s = weights / load_hardware(device).memory.bandwidth_bytes_per_s
    times = ((frame["latency_s"] - _AROUND_S) / peak_s).where(frame["num_tokens"].between(64, 512))
    found = times[mine].groupby(
        [frame.loc[mine, c] for c in ("dtype", "distribution", *_LAYER)], observed=True
    )
    slow = found.transform("median").reindex(frame.index) > _SLOW
    return np.asarray(slow & (weights > _LARGE), dtype=bool)


def _is_layer(frame: pd.DataFrame, layers: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.bool_]:
    """Whether rows are of one of the expert layers."""
    sizes = frame[["hidden_size", "inter_size", "topk", "num_experts"]].to_numpy()
    found = np.zeros(len(frame), dtype=bool)
    for layer in layers:
        found |= (sizes == np.array(layer)).all(axis=1)
    return found
