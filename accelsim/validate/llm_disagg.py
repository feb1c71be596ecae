"""Replay of measured disaggregated serving: the rows of `silicon_sample.csv` that state worker counts.

Nothing is fitted: host constants are those of aggregated serving, all flags have the servers' defaults. A
worker with data-parallel attention is that many engines. Where ranks of both pools have a common divisor, one
such part of the deployment is replayed with its share of the users.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.core.outcome import InfeasibleError
from accelsim.hardware.stacks import stack_of
from accelsim.serving.llm.disagg import LINK_BYTES_PER_S, Pool, Transfer
from accelsim.serving.llm.fast import run_pools
from accelsim.serving.llm.machine import Split
from accelsim.serving.llm.memory import memory_of
from accelsim.serving.llm.policy import ContinuousBatching
from accelsim.serving.llm.setup import host_of
from accelsim.serving.llm.worker import Pace
from accelsim.validate.llm_rows import DENSE, MODELS, SYSTEMS, ServingRow, formats_of, table
from accelsim.validate.llm_serving import (
    RESERVE_B,
    ROUNDS,
    SHORTEST,
    UTILISATION,
    Replay,
    frame_of,
    surface_of,
)

if TYPE_CHECKING:
    import pandas as pd

LATENCY_S = 2e-3
"""Handing a request over, before its cache moves (assumed) [s]."""


def replay_pools() -> pd.DataFrame:
    """Every row with worker counts: measured, predicted and signed errors [%], or the reason why not."""
    return frame_of(_replays())


def _replays() -> Iterator[Replay]:
    frame = table()
    known = frame[(frame["mode"] == "disagg") & frame["prefill_num_workers"].notna()]
    for r in known.itertuples(index=False):
        yield _replay(r)


def _row(r: Any, stage: str, users: int) -> ServingRow:
    """A worker's engine as a row of aggregated serving: one rank of its data parallelism."""
    config, device = MODELS[r.model_path], SYSTEMS[r.system]
    tensor, data, expert = (
        max(1, int(getattr(r, f"{stage}_{name}_size"))) for name in ("tp", "attention_dp", "moe_ep")
    )
    if config.startswith(DENSE) or (tensor * data) % expert:
        expert = 1
    pipeline = max(1, int(getattr(r, f"{stage}_pp_size")))
    return ServingRow(
        r.id, r.system, r.model_path, r.backend, r.precision, device, config,
        formats_of(config, r.backend, r.precision, device), Split(tensor, pipeline, data, expert),
        int(r.isl), int(r.osl), users, float(r.silicon_ttft_ms) / 1e3, float(r.silicon_tpot_ms) / 1e3,
        bool(r.test),
    )  # fmt: skip


def _users(r: Any) -> int:
    """Users of the whole deployment."""
    asked = re.search(r"silicon_concurrency=(\d+)", r.silicon_data_source)
    if asked:
        return int(asked[1])
    return int(r.decode_batch_size) * _ranks(r, "decode")


def _replay(r: Any) -> Replay:
    whole = _row(r, "decode", _users(r))
    parts = math.gcd(_ranks(r, "prefill"), _ranks(r, "decode"))
    users = -(-whole.users // parts)
    n = ROUNDS * users
    try:
        early, _ = _pool(r, "prefill", parts, users)
        late, token_s = _pool(r, "decode", parts, users)
    except InfeasibleError as error:
        return Replay(whole, np.nan, np.nan, f"{error.outcome.reason}: needs {error.outcome.need}")
    rng = np.random.default_rng([0, whole.isl, whole.osl, users])
    prompt = rng.integers(int(SHORTEST * whole.isl), whole.isl + 1, n)
    output = rng.integers(max(2, int(SHORTEST * whole.osl)), whole.osl + 1, n)
    if late.pace.rules.blocks * late.pace.rules.block < whole.isl + whole.osl:
        return Replay(whole, np.nan, np.nan, "one sequence does not fit the cache")
    found, _ = run_pools(
        np.zeros(n, dtype=np.int64), prompt, output, early, late, Transfer(LATENCY_S, token_s), users=users
    )
    tpot = (found.finish_ns - found.first_ns) / 1e9 / np.maximum(output - 1, 1)
    ttft = (found.first_ns - found.arrival_ns) / 1e9 + late.pace.host.request_s
    return Replay(whole, float(ttft.mean()), float(tpot.mean()))


def _ranks(r: Any, stage: str) -> int:
    return int(getattr(r, f"{stage}_num_workers")) * max(1, int(getattr(r, f"{stage}_attention_dp_size")))


def _pool(r: Any, stage: str, parts: int, users: int) -> tuple[Pool, float]:
    """Engines of a stage in one of the deployment's parts, time to move the cache of a token [s]."""
    ranks = _ranks(r, stage) // parts
    row = _row(r, stage, users)
    row = replace(row, users=max(8, -(-2 * users // ranks)))
    found = surface_of(row)
    delivery = max(1, round(stack_of(r.backend).delivery_tokens))
    budget = max(8192, row.isl + 1024) if row.backend == "trtllm" else 8192
    batching = ContinuousBatching(
        row.backend, max_num_seqs=row.users, max_num_batched_tokens=budget, stream_interval=delivery
    )
    memory = memory_of(
        found.work,
        utilisation=UTILISATION,
        block_size=batching.block,
        max_tokens=budget,
        max_sequences=row.users,
        reserve=RESERVE_B,
    )
    rules = batching.rules(memory.blocks)
    pace = Pace(rules, host_of(row.backend), found.tables_s)
    return Pool(ranks, pace), memory.token / LINK_BYTES_PER_S
