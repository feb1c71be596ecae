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
from accelsim.serving.llm.policy import ContinuousBatching, Host, Speculative
from accelsim.serving.llm.shape import shape_of
from accelsim.serving.llm.surface import Surface, surface
from accelsim.serving.llm.work import StepWork
from accelsim.validate.llm_campaigns import Settings, budget_of, settings_of
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


TURNAROUND_NS = 3_000_000
"""From the last token of an answer to the user's next request [ns] (assumed): the next step has begun."""

ACCEPTANCE = 0.6
"""Share of drafts of multi-token prediction that are accepted, given that those before were."""


def batching_of(row: ServingRow, settings: Settings, stream: int, found: Surface) -> ContinuousBatching:
    """How the engine of a row batches: its defaults, its campaign's flags, and room for the longest prompt in
    TensorRT-LLM. `stream` are the tokens that exist when the first reaches the client of a server that sends
    each by itself.
    """
    budget = budget_of(row)
    speculative, per_step = None, 1.0
    if settings.drafts:
        k, a = settings.drafts, ACCEPTANCE
        per_step = (1 - a ** (k + 1)) / (1 - a)
        # A draft passes one layer (the prediction head) and the output projection.
        layer = found.tokens_s[row.users] / sum(b.times for b in found.work.model.blocks)
        speculative = Speculative(k, a, float(layer + found.sampled_s[row.users]))
    return ContinuousBatching(
        row.backend,
        max_num_seqs=max(1, row.users - settings.short) if settings.short else max(row.users, 8),
        max_num_batched_tokens=budget,
        stream_interval=stream + round((settings.stream - 1) * per_step),
        speculative=speculative,
    )


def surface_of(row: ServingRow) -> Surface:
    """The surface of a row, of one size per configuration."""
    return surface(work_of(row), 20480, 512 if row.users <= 512 else 4096)


def replay(
    row: ServingRow,
    host: Host,
    *,
    stream: int = 1,
    settings: Settings | None = None,
    rounds: int = ROUNDS,
    seed: int = 0,
    table: Surface | None = None,
) -> Replay:
    """Means of a closed loop as the row was measured; `settings` instead of those of its campaign."""
    flags = settings_of(row, settings)
    try:
        found = table or surface_of(row)
        batching = batching_of(row, flags, stream, found)
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
        np.zeros(n, dtype=np.int64), prompt, output, batching.rules(memory.blocks)._replace(poll=flags.poll),
        host, found.tables_s, users=row.users, think_ns=np.full(n, TURNAROUND_NS),
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
