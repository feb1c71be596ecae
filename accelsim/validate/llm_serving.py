"""Replay of measured closed-loop serving of language models, and how far off it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.core.outcome import InfeasibleError
from accelsim.hardware.spec import load_hardware
from accelsim.serving.llm import fast
from accelsim.serving.llm.machine import Machine
from accelsim.serving.llm.memory import memory_of
from accelsim.serving.llm.policy import ContinuousBatching, Host
from accelsim.serving.llm.shape import shape_of
from accelsim.serving.llm.surface import Surface, surface
from accelsim.serving.llm.work import StepWork
from accelsim.validate.llm_rows import ServingRow, folder

if TYPE_CHECKING:
    import pandas as pd

SHORTEST = 0.8
"""Prompts and outputs are uniform between this share of the nominal length and all of it."""

ROUNDS = 10
"""Requests per user."""

SKEW = 1.2
"""Power law of expert loads in real traffic, as the measured expert layers have it."""

RESERVE_B = 2e9
"""What runtime, graphs and buffers keep of a device's memory [B] (assumed)."""

UTILISATION = 0.95
"""Share of the memory that the engines were given; benchmarks raise the defaults (assumed)."""


@dataclass(frozen=True)
class Replay:
    """A row and what the engine says [s]; NaN with a reason where it cannot be replayed."""

    row: ServingRow
    ttft_s: float
    tpot_s: float
    reason: str = ""


@lru_cache(maxsize=256)
def _work(row_key: tuple[Any, ...]) -> StepWork:
    config, device, backend, formats, split = row_key
    shape = shape_of(folder() / "model_configs" / f"{config}_config.json")
    return StepWork(
        shape, Machine(load_hardware(device), backend), formats, split, SKEW if shape.moe else 0.0
    )


def work_of(row: ServingRow) -> StepWork:
    """The model of a row on its devices."""
    return _work((row.config, row.device, row.backend, row.formats, row.split))


def batching_of(row: ServingRow, stream: int = 1) -> ContinuousBatching:
    """How the engine of a row batches: its defaults, and room for the longest prompt in TensorRT-LLM."""
    budget = max(8192, row.isl + 1024) if row.backend == "trtllm" else 8192
    return ContinuousBatching(
        row.backend, max_num_seqs=max(row.users, 8), max_num_batched_tokens=budget, stream_interval=stream
    )


def surface_of(row: ServingRow) -> Surface:
    """The surface of a row, of one size per configuration."""
    return surface(work_of(row), 20480, 512 if row.users <= 512 else 4096)


def replay(
    row: ServingRow,
    host: Host,
    *,
    stream: int = 1,
    rounds: int = ROUNDS,
    seed: int = 0,
    table: Surface | None = None,
) -> Replay:
    """Means of a closed loop as the row was measured."""
    batching = batching_of(row, stream)
    try:
        found = table or surface_of(row)
        memory = memory_of(
            found.work,
            utilisation=UTILISATION,
            block_size=batching.block,
            max_tokens=batching.budget,
            max_sequences=row.users,
            reserve=RESERVE_B,
        )
    except InfeasibleError as error:
        return Replay(row, np.nan, np.nan, f"{error.outcome.reason}: needs {error.outcome.need}")
    if memory.tokens < row.isl + row.osl:
        return Replay(row, np.nan, np.nan, "one sequence does not fit the cache")
    n = rounds * row.users
    rng = np.random.default_rng([seed, row.isl, row.osl, row.users])
    prompt = rng.integers(int(SHORTEST * row.isl), row.isl + 1, n)
    output = rng.integers(max(2, int(SHORTEST * row.osl)), row.osl + 1, n)
    run = fast.run(
        np.zeros(n, dtype=np.int64), prompt, output, batching.rules(memory.blocks), host, found.tables_s,
        users=row.users,
    )  # fmt: skip
    ttft = (run.first_ns - run.arrival_ns) / 1e9 + host.request_s
    tpot = (run.finish_ns - run.first_ns) / 1e9 / np.maximum(output - 1, 1)
    return Replay(row, float(ttft.mean()), float(tpot.mean()))


def frame_of(replays: Iterable[Replay]) -> pd.DataFrame:
    """One line per row: labels, measured, predicted and signed errors [%]."""
    import pandas as pd

    lines: list[dict[str, Any]] = []
    for r in replays:
        row = r.row
        lines.append(
            {
                "id": row.id, "system": row.system, "model": row.model, "backend": row.backend,
                "precision": row.precision, "dense": row.dense, "users": row.users, "isl": row.isl,
                "osl": row.osl, "tensor": row.split.tensor, "data": row.split.data,
                "expert": row.split.expert, "test": row.test,
                "ttft_s": row.ttft_s, "tpot_s": row.tpot_s, "ttft_model_s": r.ttft_s,
                "tpot_model_s": r.tpot_s,
                "ttft_error": 100 * (r.ttft_s / row.ttft_s - 1),
                "tpot_error": 100 * (r.tpot_s / row.tpot_s - 1), "reason": r.reason,
            }
        )  # fmt: skip
    return pd.DataFrame(lines)


def replay_all(
    rows: Sequence[ServingRow], hosts: Mapping[str, Host], delivery: Mapping[str, int], **options: Any
) -> pd.DataFrame:
    """Replay rows with the constants of their backends."""
    ordered = sorted(rows, key=lambda r: (r.config, r.device, r.backend, str(r.formats), str(r.split)))
    return frame_of(replay(r, hosts[r.backend], stream=delivery[r.backend], **options) for r in ordered)
