"""Kernel timings that the package ``aiconfigurator-core`` carries, read in place.

The package (NVIDIA, Apache-2.0) has one parquet table per system, operator, backend and version. The loaders
return them in the schema of `accelsim.calibration.measurements`; docs/validation.md tells what columns mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from accelsim.core.errors import MissingExtraError, RequestError, UnknownNameError, did_you_mean
from accelsim.validate import aiconfigurator_experts as experts

if TYPE_CHECKING:
    import pandas as pd

Versions = Literal["newest", "all"]

SYSTEMS: Mapping[str, str] = MappingProxyType(
    {
        "a100-sxm": "a100_sxm",
        "h100-sxm": "h100_sxm",
        "h200-sxm": "h200_sxm",
        "l40s": "l40s",
        "rtx-pro-6000": "rtx_pro_6000_server",
        "b200": "b200_sxm",
        "b300": "b300_sxm",
        "gb200": "gb200",
        "gb300": "gb300",
    }
)
"""Our device name to the package's system folder."""

MATRIX_FORMATS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "bfloat16": ("bf16", 0),
        "fp8": ("fp8_e4m3", 0),
        "fp8_block": ("fp8_e4m3", 128),
        "nvfp4": ("nvfp4", 0),
        "sq": ("int8", 0),
        "int8_wo": ("weight=int8,activation=bf16", 0),
        "int4_wo": ("weight=int4,activation=bf16", 0),
        "w4afp8": ("weight=int4,activation=fp8_e4m3", 0),
        "w4a16_mxfp4": ("weight=mxfp4,activation=bf16", 0),
        "w4a8_mxfp4_mxfp8": ("weight=mxfp4,activation=mxfp8", 0),
    }
)
"""The package's format of products to our ``precision`` and ``scale_block``."""

_ATTENTION_FORMATS = {
    "bfloat16,kv=bfloat16": "bf16",
    "bfloat16,kv=fp8": "weight=bf16,activation=bf16,kv=fp8_e4m3",
    "fp8,kv=fp8": "fp8_e4m3",
}
_LINK_FORMATS = {"half": ("fp16", 2), "bfloat16": ("bf16", 2), "int8": ("int8", 1)}
_LINK_OPS = {
    "all_reduce": "allreduce",
    "all_gather": "allgather",
    "reduce_scatter": "reducescatter",
    "alltoall": "alltoall",
}

_PREFERRED = ("trtllm_mha", "fa3", "flashinfer", "triton")
"""SGLang's attention kernels, the one that it takes where it can first."""

_ABSORBED_KERNELS = ("flash_attention", "triton")
"""SGLang's kernels that were timed on prompts with keys and values that are the latents."""

NO_GRAPH = "timed without a CUDA graph"
QUANTISATION = "dynamic quantisation"
ONE_COPY = "one copy of the weights"
TOO_FAST = "faster than the device can be as labelled"


@dataclass(frozen=True, slots=True)
class Table:
    """A file of the package.

    Attributes
    ----------
    backend, version : str
    path : Path
    rows : int
    """

    backend: str
    version: str
    path: Path
    rows: int


def version_key(text: str) -> tuple[tuple[int, ...], int, int, float, float]:
    """Order of versions as PEP 440 has it: development < release candidate < final < post-release.

    Raises
    ------
    RequestError
        The text is not a version.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?", text)
    if match is None:
        raise RequestError(f"'{text}' is not a version")
    release, phase, number, post, dev = match.groups()
    parts = [int(p) for p in release.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    rank = {"a": 1, "b": 2, "rc": 3}.get(phase or "", 0 if dev and not post else 4)
    return (
        tuple(parts),
        rank,
        int(number or 0),
        float(post) if post else -1.0,
        float(dev) if dev else float("inf"),
    )


@cache
def root() -> Path:
    """Folder of the package's measurements.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        return Path(str(files("aiconfigurator_core"))) / "systems" / "data"
    except ModuleNotFoundError:
        raise MissingExtraError(
            "aiconfigurator-core", "validation", "validating against kernel measurements"
        ) from None


def tables(device: str, family: str, name: str) -> list[Table]:
    """Files of one operator on one device, oldest version first.

    Parameters
    ----------
    device : str
        A key of `SYSTEMS`.
    family, name : str
        Folder and stem of the package, such as ``gemm`` and ``gemm_perf``.
    """
    if device not in SYSTEMS:
        raise UnknownNameError(f"no kernel measurements of '{device}'", hint=did_you_mean(device, SYSTEMS))
    pq = _parquet()
    found = [
        Table(path.parts[-3], path.parts[-2], path, pq.read_metadata(path).num_rows)
        for path in (root() / SYSTEMS[device] / family).glob(f"*/*/{name}.parquet")
    ]
    return sorted(found, key=lambda t: (t.backend, version_key(t.version)))


def _parquet() -> Any:
    try:
        return import_module("pyarrow.parquet")
    except ImportError:
        raise MissingExtraError("pyarrow", "validation", "reading kernel measurements") from None


def gemm(device: str, *, versions: Versions = "newest", flagged: bool = False) -> pd.DataFrame:
    """Matrix products of one device in the measurement schema.

    Parameters
    ----------
    device : str
        A key of `SYSTEMS`.
    versions : {"newest", "all"}
        Of each backend and format the newest version that has it, or all.
    flagged : bool
        Keep rows that should not be scored (column ``flag`` says why).
    """
    frame = _read(device, "gemm", "gemm_perf", ["m", "n", "k"], "gemm_dtype", versions)
    frame["op"] = "gemm"
    _set_matrix_formats(frame)
    low = frame["dtype"].isin(["fp8", "fp8_block", "nvfp4"])
    frame["includes"] = np.where(low, QUANTISATION, "")
    vllm = frame["backend"] == "vllm"
    frame["flag"] = np.where(vllm & (frame["dtype"] == "fp8_block"), NO_GRAPH, "")
    # The only such rows reach 1.19 times the bf16 peak, so their arithmetic is not 16-bit.
    frame.loc[(frame["backend"] == "sglang") & (frame["dtype"] == "int8_wo"), "flag"] = TOO_FAST
    few = vllm & (frame["dtype"] == "nvfp4") & (device in ("b200", "b300", "gb200", "gb300"))
    frame["conditions"] = np.where(few, ONE_COPY, "")
    return _finish(frame, device, ("m", "n", "k", "scale_block"), flagged)


def attention_prefill(device: str, *, versions: Versions = "newest", flagged: bool = False) -> pd.DataFrame:
    """Attention of whole prompts; see `gemm` for the parameters."""
    return _attention(device, "attention_prefill", "context_attention_perf", versions, flagged)


def attention_decode(device: str, *, versions: Versions = "newest", flagged: bool = False) -> pd.DataFrame:
    """Attention of one new token per sequence; see `gemm` for the parameters."""
    return _attention(device, "attention_decode", "generation_attention_perf", versions, flagged)


def _attention(device: str, op: str, name: str, versions: Versions, flagged: bool) -> pd.DataFrame:
    shape = ["batch_size", "isl", "step", "num_heads", "num_key_value_heads", "head_dim", "window_size"]
    frame = _read(device, "attention", name, [*shape, "kv_cache_dtype"], "attn_dtype", versions)
    frame["op"] = op
    frame["seq_kv"] = frame["isl"] + frame["step"]
    names = {"batch_size": "batch", "isl": "seq_q", "num_heads": "heads", "num_key_value_heads": "kv_heads"}
    frame = frame.rename(columns=names | {"window_size": "window"})
    both = frame["dtype"].astype(str) + ",kv=" + frame["kv_cache_dtype"].astype(str)
    frame["precision"] = _translated(both, _ATTENTION_FORMATS)
    frame["dtype"] = both
    frame["causal"] = True
    if device == "a100-sxm" and op == "attention_decode":
        # With shared heads this backend reads its cache at a median of 1.4 times the DRAM peak.
        shared = (frame["backend"] == "trtllm") & (frame["heads"] > frame["kv_heads"])
        frame["flag"] = np.where(shared, TOO_FAST, "")
    rank = frame["kernel"].astype(str).map({k: i for i, k in enumerate(_PREFERRED)}).fillna(0)
    layer = ["backend", "version", "precision", *(names.get(c, c) for c in shape[:-1]), "window"]
    best = rank.groupby([frame[c] for c in layer], observed=True).transform("min")
    second = (frame["backend"] == "sglang") & (rank > best)
    frame["flag"] = np.where(second, experts.OTHER_KERNEL, frame["flag"] if "flag" in frame.columns else "")
    columns = ("batch", "heads", "kv_heads", "head_dim", "seq_q", "seq_kv", "causal", "window")
    return _finish(frame, device, columns, flagged)


def mla(device: str, *, versions: Versions = "newest", flagged: bool = False) -> pd.DataFrame:
    """Latent attention of DeepSeek-V3, prompts and single tokens; see `gemm` for the parameters."""
    import pandas as pd

    shape = ["batch_size", "isl", "step", "num_heads", "kv_cache_dtype"]
    parts = []
    for op, name in (("mla_prefill", "context_mla_perf"), ("mla_decode", "generation_mla_perf")):
        part = _read(device, "mla", name, shape, "mla_dtype", versions)
        text = ("backend", "version", "dtype", "kernel", "kv_cache_dtype")
        parts.append(part.astype(dict.fromkeys(text, str)).assign(op=op))
    frame = pd.concat(parts, ignore_index=True)
    frame["seq_kv"] = frame["isl"] + frame["step"]
    frame = frame.rename(columns={"batch_size": "batch", "isl": "seq_q", "num_heads": "heads"})
    both = frame["dtype"] + ",kv=" + frame["kv_cache_dtype"]
    frame["precision"] = _translated(both, _ATTENTION_FORMATS)
    frame["dtype"], frame["causal"] = both, True
    # At 1088 products per score these reach 0.6 of the peak, as FlashAttention does; at 320, 0.18.
    frame["absorbed"] = (frame["op"] == "mla_prefill") & frame["kernel"].isin(_ABSORBED_KERNELS)
    columns = ("batch", "heads", "seq_q", "seq_kv", "causal", "absorbed")
    return _finish(frame, device, columns, flagged)


def moe(device: str, *, versions: Versions = "newest", flagged: bool = False) -> pd.DataFrame:
    """Expert layers of one rank; see `gemm` for the parameters."""
    shape = ["num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"]
    frame = _read(device, "moe", "moe_perf", [*shape, "distribution"], "moe_dtype", versions)
    frame["op"] = "moe"
    _set_matrix_formats(frame)
    old = {
        v: version_key(v) <= version_key(experts.LOCAL_UNTIL) for v in frame["version"].astype(str).unique()
    }
    experts.describe(frame, device, frame["version"].astype(str).map(old).to_numpy())
    names = {
        "num_tokens": "tokens",
        "hidden_size": "hidden",
        "inter_size": "intermediate",
        "num_experts": "experts",
        "moe_tp_size": "tensor_ranks",
        "moe_ep_size": "expert_ranks",
    }
    columns = (*names.values(), "topk", "gated", "skew", "local", "scale_block")
    return _finish(frame.rename(columns=names), device, columns, flagged)


def collectives(device: str, *, versions: Versions = "newest", flagged: bool = False) -> pd.DataFrame:
    """Collectives of NCCL (backend ``nccl``) and the all-reduce kernels of the serving frameworks; see `gemm`
    for the parameters.
    """
    import pandas as pd

    shape = ["message_size", "num_gpus", "op_name"]
    parts = [_read(device, "comm", "nccl_perf", shape, "nccl_dtype", versions, only="nccl")]
    parts.append(_read(device, "comm", "custom_allreduce_perf", shape, "allreduce_dtype", versions))
    frame = pd.concat(
        [p.astype({"backend": str, "version": str, "dtype": str, "kernel": str}) for p in parts]
    )
    frame = frame.reset_index(drop=True)
    frame["op"] = _translated(frame["op_name"], _LINK_OPS)
    frame["precision"] = _translated(frame["dtype"], {k: v[0] for k, v in _LINK_FORMATS.items()})
    frame["bytes"] = frame["message_size"] * frame["dtype"].map({k: v[1] for k, v in _LINK_FORMATS.items()})
    frame["ranks"] = frame["num_gpus"]
    frame["flag"] = np.where(frame["kernel"].str.endswith("_eager"), NO_GRAPH, "")
    return _finish(frame, device, ("bytes", "ranks"), flagged)


LOADERS: Mapping[str, Callable[..., pd.DataFrame]] = MappingProxyType(
    {
        "gemm": gemm,
        "attention_prefill": attention_prefill,
        "attention_decode": attention_decode,
        "mla": mla,
        "moe": moe,
        "collectives": collectives,
    }
)
"""Family of operators to its loader."""


def truth_gemm(device: str, dtype: str = "bfloat16") -> pd.DataFrame:
    """The truth of each shape: the median over backends of their newest versions.

    Returns
    -------
    DataFrame
        One row per (m, n, k) in the measurement schema; ``repeats`` is the number of backends.
    """
    frame = gemm(device)
    frame = frame[frame["dtype"] == dtype]
    if not len(frame):
        raise RequestError(f"no {dtype} products were measured on {device}")
    grouped = frame.groupby(["m", "n", "k"], sort=True)["latency_s"]
    out = grouped.median().reset_index()
    out["repeats"] = grouped.size().to_numpy()
    for name in ("op", "precision", "device", "dtype", "scale_block", "includes"):
        out[name] = frame[name].to_numpy()[0]
    return out


def quantisation(device: str) -> pd.DataFrame:
    """What quantising (m, k) activations to fp8 costs, measured on its own.

    Returns
    -------
    DataFrame
        ``backend version m k scale_s cast_s``: finding the scales and writing the fp8 values [s]. The sum is
        inside the ``fp8`` products of `gemm`.
    """
    parts = []
    for name in ("computescale_perf", "scale_matrix_perf"):
        frame = _read(device, "quantize", name, ["m", "k"], "quant_dtype", "newest")
        parts.append(frame.set_index(["backend", "version", "m", "k"])["latency_s"])
    return parts[0].rename("scale_s").to_frame().join(parts[1].rename("cast_s"), how="inner").reset_index()


def _read(
    device: str, family: str, name: str, columns: list[str], dtype: str, versions: Versions, only: str = ""
) -> pd.DataFrame:
    """Rows of all backends with ``backend version dtype kernel latency_s repeats`` and the shape columns."""
    import pandas as pd

    pq = _parquet()
    found = [t for t in tables(device, family, name) if only in ("", t.backend)]
    parts = []
    for table in found:
        have = set(pq.read_schema(table.path).names)
        wanted = [c for c in ("kernel_source", "framework", dtype, *columns, "latency", "power") if c in have]
        part = pd.read_parquet(table.path, columns=wanted)
        if table.backend != "nccl" and "framework" in have:  # some folders hold another framework's table
            part = part[part["framework"].str.lower() == table.backend]
        if "window_size" in columns and "window_size" not in have:
            part["window_size"] = 0
        part["backend"], part["version"] = table.backend, table.version
        parts.append(part.drop(columns="framework", errors="ignore"))
    if not parts:
        raise RequestError(f"no {family} measurements of {device}")
    frame = pd.concat(parts, ignore_index=True).rename(
        columns={dtype: "dtype", "kernel_source": "kernel", "power": "power_w"}
    )
    frame["latency_s"] = frame.pop("latency") * 1e-3  # the package is in milliseconds
    frame = frame[np.isfinite(frame["latency_s"]) & (frame["latency_s"] > 0)]
    key = ["backend", "dtype", *columns]
    frame = _merge_repeats(frame, ["version", "kernel", *key])
    return _newest(frame, found, key) if versions == "newest" else frame


def _merge_repeats(frame: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """One row per key: the median of rows that measured the same thing again."""
    twice = frame.duplicated(key, keep=False)
    frame = frame.assign(repeats=1)
    if not twice.any():
        return frame.reset_index(drop=True)
    import pandas as pd

    grouped = frame[twice].groupby(key, sort=False, observed=True)["latency_s"]
    merged = grouped.median().reset_index()
    merged["repeats"] = grouped.size().to_numpy()
    return pd.concat([frame[~twice], merged], ignore_index=True)


def _newest(frame: pd.DataFrame, found: list[Table], key: list[str]) -> pd.DataFrame:
    """Rows of each backend's newest version.

    A newest version with less than half the rows of an older one is a supplement (measurements of some more
    models): it wins for the shapes that it has, and the newest full version stands for the others. A format
    that neither has comes from the newest version that has it.
    """
    import pandas as pd

    parts = []
    for backend, rows in frame.groupby("backend", sort=False):
        mine = [t for t in found if t.backend == backend]
        full = max(i for i, t in enumerate(mine) if t.rows * 2 >= max(u.rows for u in mine))
        order = {t.version: i for i, t in enumerate(mine)}
        age = rows["version"].map(order)
        newest_of_dtype = age.groupby(rows["dtype"]).transform("max")
        keep = rows[age >= np.minimum(newest_of_dtype, full)]
        if full < len(mine) - 1:
            at = age.loc[keep.index]
            best = at.groupby([keep[c] for c in key], sort=False, observed=True).transform("max")
            keep = keep[at == best]
        parts.append(keep)
    return pd.concat(parts, ignore_index=True)


def _set_matrix_formats(frame: pd.DataFrame) -> None:
    frame["precision"] = _translated(frame["dtype"], {k: v[0] for k, v in MATRIX_FORMATS.items()})
    frame["scale_block"] = frame["dtype"].astype(str).map({k: v[1] for k, v in MATRIX_FORMATS.items()})


def _translated(cells: pd.Series[Any], words: Mapping[str, str]) -> pd.Series[Any]:
    """Names of the package in our words."""
    names = cells.astype(str)
    unknown = sorted(set(names.unique()) - set(words))
    if unknown:
        raise RequestError(
            f"unknown name '{unknown[0]}' in aiconfigurator-core", hint="install version 0.12.0"
        )
    return names.map(dict(words))


def _finish(frame: pd.DataFrame, device: str, shape: tuple[str, ...], flagged: bool) -> pd.DataFrame:
    """Columns in one order; text that repeats as categories."""
    for name in ("includes", "flag", "conditions"):
        if name not in frame.columns:
            frame[name] = ""
    frame["device"] = device
    if not flagged:
        frame = frame[frame["flag"] == ""]
    text = ["device", "backend", "version", "dtype", "kernel", "includes", "flag", "conditions"]
    power = ["power_w"] if "power_w" in frame.columns else []
    frame = frame[["op", "precision", *shape, "latency_s", "repeats", *power, *text]]
    return frame.astype(dict.fromkeys(["op", "precision", *text], "category")).reset_index(drop=True)
