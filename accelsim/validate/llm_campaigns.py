"""Server settings of benchmark campaigns that the measured rows do not state.

A campaign is what was measured on one day with one build of one backend on one system: one launch script, so
one set of flags. Only flags that the servers document are told apart, and only by training rows
(``validation/fit_serving.py`` writes ``validation/serving/campaigns.csv``); a campaign without an entry
has the flags of most campaigns of its backend.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from accelsim.core.paths import data_folder

if TYPE_CHECKING:
    from accelsim.validate.llm_rows import ServingRow

FILE = "campaigns.csv"
COLUMNS = ("campaign", "rows", "stream", "poll", "drafts", "short")

BALANCE_STEPS = 60
"""TensorRT-LLM with data-parallel attention: steps for which a rank may hold its prompts back so that all
ranks have some (``attention_dp_config.timeout_iters`` of the published recipes, recalled)."""

NODE = 8
"""Devices of a node."""

FEW_USERS = 16
"""Below so many users the recipes of SGLang look for requests three times as often (recalled, and seen in
training rows: from 8 to 16 users TTFT grows by 100 to 200 ms)."""

GENERATED = "|1.0.0rc3|"
"""Build of TensorRT-LLM that was measured with launch scripts of AIConfigurator's generator (recalled)."""

GENERATED_TOKENS = 1500
"""What that generator adds to prompt and users for ``max_num_tokens`` (recalled)."""


@dataclass(frozen=True)
class Settings:
    """Flags of a server.

    Attributes
    ----------
    stream : int
        Steps whose tokens are sent together (``stream_interval``).
    poll : int
        Steps of decoding between two looks for new requests (``scheduler_recv_interval``).
    drafts : int
        Draft tokens per step of multi-token prediction.
    short : int
        Users for whom the engine has no place (``max_batch_size`` below the number of users).
    """

    stream: int = 1
    poll: int = 1
    drafts: int = 0
    short: int = 0


DEFAULT = Settings()


@lru_cache(maxsize=1)
def known() -> dict[str, Settings]:
    """Settings by campaign."""
    path = data_folder("validation") / "serving" / FILE
    with path.open(newline="") as file:
        return {
            r["campaign"]: Settings(*(int(r[name]) for name in COLUMNS[2:])) for r in csv.DictReader(file)
        }


def branch_of(row: ServingRow) -> str:
    """Where a launch script may have flags of its own: nominal lengths, and a whole node of eight or less."""
    devices = "8" if row.split.devices >= NODE else "1-7"
    return f"{row.campaign}|{row.isl}/{row.osl}|{devices}"


def usual_of(row: ServingRow, table: Mapping[str, Settings]) -> Settings:
    """The entry of a row's branch, else of its campaign, else of its backend."""
    keys = (branch_of(row), row.campaign, row.backend)
    return next((table[key] for key in keys if key in table), DEFAULT)


def settings_of(row: ServingRow, found: Settings | None = None) -> Settings:
    """Flags of the server of a row: those of its campaign (or `found`), and what recipes derive from them."""
    s = usual_of(row, known()) if found is None else found
    poll = s.poll
    if row.backend == "trtllm" and row.split.data > 1:
        poll = BALANCE_STEPS
    elif poll > 1 and row.users < FEW_USERS:
        poll = max(1, poll // 3)
    return replace(s, poll=poll)


def budget_of(row: ServingRow) -> int:
    """Tokens of a step of a row's engine: its default, room for the longest prompt in TensorRT-LLM."""
    if row.backend != "trtllm":
        return 8192
    if GENERATED in row.campaign:
        return row.isl + row.users + GENERATED_TOKENS
    return max(8192, row.isl + 1024)
