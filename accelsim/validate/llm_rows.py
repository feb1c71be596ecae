"""Measured serving rows of aiconfigurator-core (`systems/silicon_sample.csv`), labels repaired.

The rows are closed-loop benchmarks of vLLM, SGLang and TensorRT-LLM: `batch_size` users per rank of data
parallelism all ask at once, then each asks again when it has its answer; see docs/validation.md.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.serving.llm.machine import Formats, Split

if TYPE_CHECKING:
    import pandas as pd

SYSTEMS = {
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "b200_sxm": "b200",
    "b300_sxm": "b300",
    "gb200": "gb200",
    "gb300": "gb300",
}
BLACKWELL = ("b200", "b300", "gb200", "gb300")

MODELS = {
    "MiniMaxAI/MiniMax-M2.5": "MiniMaxAI--MiniMax-M2.5",
    "Qwen/Qwen3-235B-A22B-FP8": "Qwen--Qwen3-235B-A22B-FP8",
    "Qwen/Qwen3-32B": "Qwen--Qwen3-32B",
    "Qwen/Qwen3.5-397B-A17B": "Qwen--Qwen3.5-397B-A17B",
    "deepseek-ai/DeepSeek-R1": "deepseek-ai--DeepSeek-R1",
    "deepseek-ai/DeepSeek-V3": "deepseek-ai--DeepSeek-R1",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-ai--DeepSeek-R1",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-ai--DeepSeek-R1",
    "meta-llama/Llama-3.1-70B": "meta-llama--Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama--Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama--Meta-Llama-3.1-8B",
    "moonshotai/Kimi-K2.5": "moonshotai--Kimi-K2.5",
    "nvidia/Qwen3-32B-NVFP4": "Qwen--Qwen3-32B",
    "openai/gpt-oss-120b": "openai--gpt-oss-120b",
    "zhipuai/GLM-5": "nvidia--GLM-5-NVFP4",
}
"""Models of the rows and the configuration that has their shape."""

BLOCK_SCALED = ("MiniMaxAI--", "Qwen--", "deepseek-ai--", "nvidia--GLM-5")
"""Models whose fp8 checkpoint has a scale per 128 x 128 weights."""

WIDE_PROJECTIONS = ("MiniMaxAI--", "Qwen--Qwen3.5", "deepseek-ai--", "nvidia--GLM-5", "moonshotai--")
"""Models whose 4-bit checkpoints keep the products around attention in 16 bits (`hf_quant_config.json`)."""

DENSE = ("Qwen--Qwen3-32B", "meta-llama--")

GROUP = (
    "system", "model_path", "backend", "precision", "isl", "osl",
    "tp_size", "pp_size", "moe_ep_size", "attention_dp_size",
)  # fmt: skip
"""Columns whose text, joined by ``|``, decides whether a row is held out."""


@dataclass(frozen=True)
class ServingRow:
    """One measurement of aggregated serving.

    Attributes
    ----------
    id, system, model, backend, precision : str
        `model` as the table names it.
    device : str
    config : str
        Stem of the model's configuration.
    formats : Formats
    split : Split
    isl, osl, users : int
        Most prompt and output tokens; users per rank of data parallelism.
    ttft_s, tpot_s : float
        Measured means [s].
    test : bool
        Held out of every fit.
    campaign : str
        Backend, configuration, system, precision, build and day of the measurement.
    """

    id: str
    system: str
    model: str
    backend: str
    precision: str
    device: str
    config: str
    formats: Formats
    split: Split
    isl: int
    osl: int
    users: int
    ttft_s: float
    tpot_s: float
    test: bool
    campaign: str = ""

    @property
    def dense(self) -> bool:
        return self.config.startswith(DENSE)


def folder() -> Path:
    """The installed package.

    Raises
    ------
    RequestError
        It is not installed.
    """
    try:
        return Path(str(resources.files("aiconfigurator_core")))
    except ModuleNotFoundError:
        raise RequestError(
            "aiconfigurator-core is not installed",
            hint="install the extra: pip install 'accelsim[validation]'",
        ) from None


def table() -> pd.DataFrame:
    """The rows as they are, and `excluded`, `test` and the repaired labels."""
    import pandas as pd

    frame = pd.read_csv(folder() / "systems" / "silicon_sample.csv", dtype={"precision": "string"})
    whole = [c for c in frame.columns if c.endswith("_size") or c.endswith("_workers")]
    frame[whole] = frame[whole].astype("Int64")
    frame["precision"] = frame["precision"].fillna("bf16")
    _repair(frame)
    frame["excluded"] = ""
    aggregated = frame["mode"] == "agg"
    large = aggregated & frame["system"].isin(["gb200", "gb300"]) & (frame["tp_size"] > 8)
    frame.loc[large, "excluded"] = "GB200/GB300 aggregated with more than 8 tensor ranks: labels cannot be so"
    same = ["mode", "system", "backend", "isl", "osl", "batch_size", "silicon_ttft_ms", "silicon_tpot_ms"]
    repeats = frame.duplicated(same) & aggregated
    frame.loc[repeats & (frame["excluded"] == ""), "excluded"] = "the same measurement a second time"
    frame["test"] = [_held_out(row) for row in frame[list(GROUP)].itertuples(index=False)]
    # a measurement under two names is held out when either is
    frame["test"] = frame.groupby(same, dropna=False)["test"].transform("max").astype(bool)
    return frame


def _repair(frame: pd.DataFrame) -> None:
    """Labels that count the expert ranks twice (329 rows)."""
    import pandas as pd

    ones = frame["attention_dp_size"].fillna(1)
    frame["attention_dp_size"] = ones.where(ones > 0, 1)
    for name in ("moe_tp_size", "moe_ep_size"):
        values = frame[name].fillna(1)
        frame[name] = values.where(values > 0, 1)
    ep, mtp = frame["moe_ep_size"], frame["moe_tp_size"]
    dp, tp = frame["attention_dp_size"], frame["tp_size"].fillna(0)
    tensor = (ep > 1) & (mtp == ep) & (tp == ep * ep) & (dp == 1)
    data = (ep > 1) & (dp == ep * ep)
    frame.loc[tensor, "tp_size"] = ep[tensor]
    frame.loc[tensor, "moe_tp_size"] = 1
    frame.loc[data, "attention_dp_size"] = ep[data]
    frame.loc[data, ["tp_size", "moe_tp_size"]] = 1
    found = frame["silicon_data_source"].str.replace(r".*silicon_concurrency=(\d+).*", r"\1", regex=True)
    asked = pd.to_numeric(found, errors="coerce")
    users = -(-asked // ep.astype(float))
    frame.loc[data & asked.notna(), "batch_size"] = users[data & asked.notna()].astype("Int64")


def _held_out(row: Any) -> bool:
    text = "|".join(str(v) for v in row)
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 5 == 0


def rows(frame: pd.DataFrame | None = None) -> list[ServingRow]:
    """Rows of aggregated serving that are not excluded."""
    held = table() if frame is None else frame
    used = held[(held["mode"] == "agg") & (held["excluded"] == "")]
    return [_row(r) for r in used.itertuples(index=False)]


def _row(r: Any) -> ServingRow:
    device, config = SYSTEMS[r.system], MODELS[r.model_path]
    tensor, data, expert = int(r.tp_size), int(r.attention_dp_size), int(r.moe_ep_size)
    if tensor == data > 1 and expert == tensor * data:
        # The same ranks counted twice, in rows of vLLM: attention is data parallel on all of them. Training
        # rows say so: the median TPOT error of MiniMax-M2.5 is -31 % as labelled and -11 to 0 % like this.
        tensor, expert = 1, data
    if config.startswith(DENSE):
        expert = 1
    return ServingRow(
        r.id,
        r.system,
        r.model_path,
        r.backend,
        r.precision,
        device,
        config,
        formats_of(config, r.backend, r.precision, device),
        Split(tensor, int(r.pp_size), data, expert if (tensor * data) % expert == 0 else 1),
        int(r.isl),
        int(r.osl),
        int(r.batch_size),
        float(r.silicon_ttft_ms) / 1e3,
        float(r.silicon_tpot_ms) / 1e3,
        bool(r.test),
        _campaign(r, config),
    )


def _campaign(r: Any, config: str) -> str:
    day = re.search(r"measured=(\d{4}-\d\d-\d\d)", r.silicon_data_source)
    build = r.backend_version if isinstance(r.backend_version, str) else ""
    return "|".join((r.backend, config, r.system, r.precision, build, day[1] if day else ""))


def formats_of(config: str, backend: str, precision: str, device: str) -> Formats:
    """Formats of a checkpoint as the engines run it."""
    new = device in BLACKWELL
    kv = "fp8" if precision == "fp4" or (precision == "fp8" and (backend == "trtllm" or new)) else "bf16"
    attention = "fp8" if kv == "fp8" and backend == "trtllm" else "bf16"
    block = 128 if config.startswith(BLOCK_SCALED) else 0
    if config.startswith("openai--"):
        activation = "mxfp8" if new else "bf16"
        return Formats("bf16", f"weight=mxfp4,activation={activation}", attention, kv)
    if precision == "int4":
        return Formats("bf16", "weight=int4,activation=bf16", attention, kv)
    if precision == "fp4":
        wide = "bf16" if config.startswith(WIDE_PROJECTIONS) else ""
        norms = backend == "trtllm"
        return Formats("nvfp4", "nvfp4", attention, kv, projections=wide, fused_norms=norms)
    if precision == "fp8":
        # With one static scale per tensor the norm or activation in front writes fp8 (vLLM, TensorRT-LLM).
        fused = backend in ("vllm", "trtllm") and not block
        return Formats("fp8", "fp8", attention, kv, block, fused=fused)
    return Formats()
