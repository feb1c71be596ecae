"""Tokens in a fleet: when the first came, how fast the others followed, and what caches held."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.serving import statistics
from accelsim.serving.fleet.run import FleetRun
from accelsim.serving.fleet.tokens import TokenKind
from accelsim.serving.station import COMPLETED, Request

OBJECTIVES = ("ttft_s", "tpot_s", "e2e_s")
PERCENTILES = (50, 90, 99)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenTimes:
    """By request of the fleet; NaN where it got no tokens.

    Attributes
    ----------
    ttft_s : array
        From the request to the first token at the client, of the last pool with a language model [s].
    tpot_s : array
        From there to the last, over the tokens after the first [s].
    e2e_s : array
        From the request to the end of its last pool [s].
    hits, prompts : int
        Tokens of prompts that caches held, and all of them, over all answers.
    """

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    hits: int
    prompts: int

    @classmethod
    def of(cls, run: FleetRun, requests: list[Request]) -> TokenTimes | None:
        """Those of a run; None without a language model."""
        serving = [i for i, pool in enumerate(run.pools) if isinstance(pool.kinds[0], TokenKind)]
        if not serving:
            return None
        last = run.pools[serving[-1]]
        first, end, e2e = np.full((3, len(requests)), np.nan)
        hits = prompts = 0
        for call in run.calls:
            won = call.winner
            if won is None or won.first_ns < 0:
                continue
            hits, prompts = hits + won.hits, prompts + won.prompt_tokens
            if call.pool is last:
                i, way = call.request.index, won.back_ns - won.finish_ns
                first[i] = np.fmin(first[i], won.first_ns + way)
                end[i] = np.fmax(end[i], won.back_ns)
        begin = np.array([r.arrival_ns for r in requests], dtype=np.float64)
        for i, r in enumerate(requests):
            if r.status == COMPLETED:
                e2e[i] = r.finish_ns - r.arrival_ns
        later = np.array([max(1, r.output_tokens - 1) for r in requests])
        return cls((first - begin) / 1e9, (end - first) / later / 1e9, e2e / 1e9, hits, prompts)

    def summary(self, skip: int) -> tuple[dict[str, Any], dict[str, statistics.Estimate]]:
        """Means and percentiles after a warm-up cut, and how sure they are."""
        intervals = {}
        for name in ("ttft", "tpot"):
            values = getattr(self, f"{name}_s")[skip:]
            values = values[~np.isnan(values)]
            intervals[f"{name}_mean_s"] = statistics.mean(values)
            held = statistics.percentiles(values, PERCENTILES)
            intervals |= {f"{name}_p{q}_s": e for q, e in zip(PERCENTILES, held)}
        found: dict[str, Any] = {name: e.value for name, e in intervals.items()}
        found["prefix_hit_pct"] = 100.0 * self.hits / self.prompts if self.prompts else math.nan
        return found, intervals

    def good(self, slo: Mapping[str, float], skip: int) -> int:
        """Requests after a warm-up cut that meet all objectives."""
        met = np.ones(len(self.e2e_s) - skip, dtype=bool)
        for name, limit in slo.items():
            met &= getattr(self, name)[skip:] <= limit
        return int(met.sum())


def check_objectives(slo: Mapping[str, float], tokens: TokenTimes | None) -> None:
    """Refuse objectives that are not known, or of tokens where there are none."""
    for name in slo:
        if name not in OBJECTIVES:
            raise RequestError(f"unknown objective '{name}'", hint=did_you_mean(name, OBJECTIVES))
    if slo and tokens is None:
        raise RequestError(
            "the fleet has no language model", hint="pass slo_s=, the objective of the latency"
        )
