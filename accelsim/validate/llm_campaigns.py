"""Server settings of benchmark campaigns that the measured rows do not state.

A campaign is what was measured on one day with one build of one backend on one system: one launch script, so
one set of flags. Only flags that the servers document are told apart, and only by training rows
(``validation/fit_serving.py`` writes ``validation/serving/campaigns.csv``); a campaign without an entry
has the flags of most campaigns of its backend.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from accelsim.core.paths import data_folder

if TYPE_CHECKING:
    from accelsim.validate.llm_rows import ServingRow

FILE = "campaigns.csv"
COLUMNS = ("campaign", "rows", "stream", "poll", "drafts")

BALANCE_STEPS = 60
"""TensorRT-LLM with data-parallel attention: steps for which a rank may hold its prompts back so that all
ranks have some (``attention_dp_config.timeout_iters`` of the published recipes, recalled)."""

FEW_USERS = 16
"""Below so many users the recipes of SGLang look for requests three times as often (recalled, and seen in
training rows: from 8 to 16 users TTFT grows by 100 to 200 ms)."""


FRONT_END_S = {"1.0.0rc3": 0.06}
"""By build: what the front end and client of its measurements add to TTFT beside the backend's constant [s].
The rows of TensorRT-LLM 1.0.0rc3 were taken with another load generator than the recipes; of 0, 60 and 90 ms
the value that is best on training rows left out (TTFT of the backend 26.2, 22.6, 22.9 %)."""


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
    """

    stream: int = 1
    poll: int = 1
    drafts: int = 0


DEFAULT = Settings()


@lru_cache(maxsize=1)
def known() -> dict[str, Settings]:
    """Settings by campaign."""
    path = data_folder("validation") / "serving" / FILE
    with path.open(newline="") as file:
        return {
            r["campaign"]: Settings(int(r["stream"]), int(r["poll"]), int(r["drafts"]))
            for r in csv.DictReader(file)
        }


def settings_of(row: ServingRow, found: Settings | None = None) -> Settings:
    """Flags of the server of a row: those of its campaign (or `found`), and what recipes derive from them."""
    table = known()
    s = table.get(row.campaign, table.get(row.backend, DEFAULT)) if found is None else found
    poll = s.poll
    if row.backend == "trtllm" and row.split.data > 1:
        poll = BALANCE_STEPS
    elif poll > 1 and row.users < FEW_USERS:
        poll = max(1, poll // 3)
    return Settings(s.stream, poll, s.drafts)


def front_end_s(row: ServingRow) -> float:
    """What front end and client of a row's measurement add to TTFT [s]."""
    return next((s for build, s in FRONT_END_S.items() if f"|{build}|" in row.campaign), 0.0)
