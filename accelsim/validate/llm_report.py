"""Tables on the serving of language models: replay of held-out rows, by system, model, backend and load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from accelsim.hardware.stacks import stack_of
from accelsim.serving.llm.policy import Host
from accelsim.serving.llm.setup import host_of
from accelsim.validate.llm_campaigns import Settings
from accelsim.validate.llm_disagg import replay_pools
from accelsim.validate.llm_rows import rows, table
from accelsim.validate.llm_serving import replay_all
from accelsim.validate.table import Table

if TYPE_CHECKING:
    import pandas as pd

BACKENDS = ("vllm", "trtllm", "sglang")
LOADS = (0, 8, 32, 128, 1 << 30)
PEER = {"TTFT": 46.4, "TPOT": 16.0}
"""Median APE of AIConfigurator 0.12.0 on all aggregated rows of the table, cited (not rerun here) [%]."""


def constants() -> tuple[dict[str, Host], dict[str, int]]:
    """Fitted constants of the backends, and tokens until the client has the first."""
    hosts, delivery = {}, {}
    for name in BACKENDS:
        hosts[name] = host_of(name)
        delivery[name] = max(1, round(stack_of(name).delivery_tokens))
    return hosts, delivery


def scored(settings: Settings | None = None) -> pd.DataFrame:
    """Held-out rows, replayed with the flags of their campaigns, or with `settings`."""
    hosts, delivery = constants()
    return replay_all([r for r in rows() if r.test], hosts, delivery, settings=settings)


def tables() -> list[Table]:
    """Tables of the report."""
    frame, pools = scored(), replay_pools()
    covered, apart = (f[f["reason"] == ""] for f in (frame, pools))
    return [
        Table(
            "Serving of language models, held-out rows",
            "Closed-loop benchmarks of aggregated serving in aiconfigurator-core 0.12.0 "
            "(`silicon_sample.csv`), labels repaired and repeats removed; a fifth of the configurations was "
            "held out. Each row is replayed request by request; per backend one set of host constants, and "
            "flags of the servers by campaign (build and day of a measurement) that the rows do not state, "
            f"were fitted on the other rows. {len(covered)} of {len(frame)} rows covered. AIConfigurator's "
            f"figures on all aggregated rows, cited: TTFT {PEER['TTFT']} %, TPOT {PEER['TPOT']} % median.",
            _summary(covered),
        ),
        Table(
            "The same by system, model, backend and users",
            "Median absolute and signed errors [%].",
            _groups(covered),
        ),
        Table(
            "Disaggregated serving",
            "Rows of the same table that state their worker counts, training and held-out ones: nothing was "
            "fitted to them, all flags are defaults. AIConfigurator's figures on them are not known.",
            _pools(apart),
        ),
        Table(
            "Rows left out",
            "Of all aggregated and disaggregated rows of the table.",
            _left_out(frame, pools),
        ),
    ]


def _line(label: str, part: pd.DataFrame) -> dict[str, object]:
    line: dict[str, object] = {"rows": label, "n": len(part)}
    for name in ("ttft", "tpot"):
        error = part[f"{name}_error"]
        line |= {
            f"{name.upper()} median": float(error.abs().median()),
            f"{name.upper()} MAPE": float(error.abs().mean()),
            f"{name.upper()} p90": float(error.abs().quantile(0.9)),
            f"{name.upper()} bias": float(error.median()),
        }
    return line


def _summary(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    parts: Mapping[str, pd.DataFrame] = {
        "all": frame,
        "dense models": frame[frame["dense"]],
        "experts": frame[~frame["dense"]],
        **{name: frame[frame["backend"] == name] for name in BACKENDS},
    }
    return pd.DataFrame([_line(label, part) for label, part in parts.items()])


def _groups(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    load = pd.cut(frame["users"], LOADS, labels=["1-8", "9-32", "33-128", "129-"]).astype(str)
    keys = ["system", "model", "backend", "load"]
    grouped = frame.assign(load=load).groupby(keys)
    lines = []
    for key, part in grouped:
        line = _line("", part)
        kept = {k: v for k, v in line.items() if k == "n" or "median" in k or "bias" in k}
        lines.append({**dict(zip(keys, key)), **kept})
    return pd.DataFrame(lines)


def _pools(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    lines = [_line("all", frame)]
    for (backend, system), part in frame.groupby(["backend", "system"]):
        lines.append(_line(f"{backend}, {system}", part))
    return pd.DataFrame(lines)


def _left_out(replayed: pd.DataFrame, pools: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    whole = table()
    aggregated = whole[(whole["mode"] == "agg") & (whole["excluded"] != "")]
    counts = aggregated.groupby("excluded").size().to_dict()
    split = whole[whole["mode"] == "disagg"]
    lacking = int(split["prefill_num_workers"].isna().sum())
    counts["disaggregated without worker counts"] = lacking
    for label, frame in (("held out", replayed), ("disaggregated", pools)):
        reasons = frame.loc[frame["reason"] != "", "reason"].str.split(":").str[0]
        for reason, n in reasons.value_counts().items():
            counts[f"{label}, cannot be replayed: {reason}"] = int(n)
    return pd.DataFrame([{"reason": k, "rows": v} for k, v in counts.items()])
