"""The answer of a run of a language-model server: TTFT, TPOT, ITL, end-to-end latency, goodput, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError
from accelsim.engine.result import Stamp
from accelsim.serving import statistics
from accelsim.serving.llm.engine import Run
from accelsim.serving.llm.policy import Rules
from accelsim.serving.llm.steptime import BIN

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = (50, 90, 99)
OBJECTIVES = ("ttft_s", "tpot_s", "e2e_s")


@dataclass(frozen=True)
class Bill:
    """What the devices cost.

    Attributes
    ----------
    devices : int
        That run the model, all ranks together.
    ranks : int
        Equal engines; one was simulated with its share of the traffic.
    idle_w : float
        Of one device [W]; NaN when unknown.
    usd_per_hour : float
        Of one device; NaN when unknown.
    """

    devices: int
    ranks: int
    idle_w: float
    usd_per_hour: float


class TokenServeResult:
    """Requests of a language model served.

    Attributes
    ----------
    summary : dict
        Headline numbers, see docs/definitions.md.
    intervals : dict of str to Estimate
        Standard errors by batch means, by summary name.
    notes : tuple of str
    stamp : Stamp
    run : Run
        Times of every request on the engine's clock.
    """

    feasible = True

    def __init__(
        self,
        run: Run,
        prompt: npt.NDArray[np.int64],
        output: npt.NDArray[np.int64],
        rules: Rules,
        bill: Bill,
        *,
        stamp: Stamp,
        extra_s: float = 0.0,
        warmup: float = 0.0,
        offered_per_s: float = math.nan,
        slo: Mapping[str, float] | None = None,
        notes: tuple[str, ...] = (),
        request: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= warmup < 1:
            raise RequestError(f"the warm-up cut is a share of the requests below 1, got {warmup}")
        unknown = sorted(set(slo or {}) - set(OBJECTIVES))
        if unknown:
            raise RequestError(f"unknown objective '{unknown[0]}'", hint=f"known: {', '.join(OBJECTIVES)}")
        self.run = run
        self.prompt_tokens, self.output_tokens = prompt, output
        self.rules, self.bill = rules, bill
        self.stamp = stamp
        self.request = dict(request or {})
        self._extra_s = extra_s
        self._skip = int(len(prompt) * warmup)
        self._slo = dict(slo or {})
        self.intervals: dict[str, statistics.Estimate] = {}
        self.summary = self._summarise(offered_per_s) | dict(more or {})
        self.notes = (
            f"engine: {run.engine}",
            "no warm-up cut: every request counts"
            if not self._skip
            else f"warm-up cut: the first {self._skip} requests are not counted",
            *notes,
            *self._load_note(offered_per_s),
        )

    # -- by request

    @cached_property
    def _done(self) -> npt.NDArray[np.bool_]:
        return self.run.finish_ns[self._skip :] >= 0

    def _since(self, begin: Any, end: Any) -> npt.NDArray[np.float64]:
        taken: npt.NDArray[np.float64] = (end[self._skip :] - begin[self._skip :])[self._done] / 1e9
        return taken

    @cached_property
    def ttft_s(self) -> npt.NDArray[np.float64]:
        """From arrival to the first token at the client, by request [s]."""
        return self._since(self.run.arrival_ns, self.run.first_ns) + self._extra_s

    @cached_property
    def e2e_s(self) -> npt.NDArray[np.float64]:
        """From arrival to the last token, by request [s]."""
        return self._since(self.run.arrival_ns, self.run.finish_ns) + self._extra_s

    @cached_property
    def tpot_s(self) -> npt.NDArray[np.float64]:
        """Time from first to last token over the tokens after the first, by request [s]; 0 for one."""
        later = np.maximum(self.output_tokens[self._skip :][self._done] - 1, 1)
        return self._since(self.run.first_ns, self.run.finish_ns) / later

    def itl_percentile_s(self, q: float) -> float:
        """Percentile of the gaps between tokens as the engine makes them [s], to 1 %."""
        counts = self.run.gaps
        total = int(counts.sum())
        if not total:
            return math.nan
        place = int(np.searchsorted(np.cumsum(counts), q / 100 * total))
        return 0.0 if place == 0 else math.exp((place + 0.5) * BIN) / 1e9

    def goodput_per_s(self, **objectives: float) -> float:
        """Requests per second that meet all objectives (`ttft_s`, `tpot_s`, `e2e_s`) [1/s]."""
        good = np.ones(int(self._done.sum()), dtype=bool)
        for name, limit in objectives.items():
            good &= getattr(self, name) <= limit
        return float(good.sum()) / self._span_s * self.bill.ranks

    @cached_property
    def _span_s(self) -> float:
        ends = self.run.finish_ns
        begin = int(self.run.arrival_ns[self._skip]) if len(ends) else 0
        return max(int(ends.max(initial=0)) - begin, 1) / 1e9

    # -- numbers

    def _summarise(self, offered_per_s: float) -> dict[str, Any]:
        run, ranks = self.run, self.bill.ranks
        counted = len(run.finish_ns) - self._skip
        given, got = (
            int(x[self._skip :][self._done].sum()) for x in (self.prompt_tokens, self.output_tokens)
        )
        summary: dict[str, Any] = {
            **self.request,
            "status": "ok" if self._done.all() else "in flight at the end",
            "requests": counted,
            "completed": int(self._done.sum()),
            "offered_per_s": offered_per_s,
            "requests_per_s": float(self._done.sum()) / self._span_s * ranks,
            "output_tokens_per_s": got / self._span_s * ranks,
            "input_tokens_per_s": given / self._span_s * ranks,
        }
        for name in ("ttft", "tpot", "e2e"):
            values = getattr(self, f"{name}_s")
            for label, estimate in (
                ("mean", statistics.mean(values)),
                *zip((f"p{q}" for q in PERCENTILES), statistics.percentiles(values, PERCENTILES)),
            ):
                self.intervals[f"{name}_{label}_s"] = estimate
                summary[f"{name}_{label}_s"] = estimate.value
        for q in PERCENTILES:
            summary[f"itl_p{q}_s"] = self.itl_percentile_s(q)
        whole = max(int(run.finish_ns.max(initial=0)), 1)
        makespan_s = whole / 1e9
        joules = run.energy_j * self.bill.devices + self.bill.idle_w * self.bill.devices * makespan_s
        tokens = max(1, run.tokens) * ranks
        usd = self.bill.usd_per_hour * self.bill.devices * makespan_s / 3600
        summary |= {
            "steps": run.steps,
            "busy": run.busy_ns / whole,
            "tokens_per_step": run.tokens / max(1, run.steps),
            "kv_tokens": self.rules.blocks * self.rules.block,
            "kv_mean": run.kv_ns / whole / self.rules.blocks,
            "kv_peak": run.kv_peak / self.rules.blocks,
            "preemptions": run.preemptions,
            "prefix_hit_pct": 100.0 * float(run.hits.sum()) / max(1, int(self.prompt_tokens.sum())),
            "energy_per_token_j": joules / tokens,
            "usd_per_million_tokens": usd / tokens * 1e6,
            "devices": self.bill.devices,
        }
        if self._slo:
            summary["slo"] = dict(self._slo)
            summary["goodput_per_s"] = self.goodput_per_s(**self._slo)
            summary["slo_attainment_pct"] = (
                100.0 * summary["goodput_per_s"] * self._span_s / ranks / max(1, counted)
            )
        return summary

    def _load_note(self, offered_per_s: float) -> tuple[str, ...]:
        served = self.summary["requests_per_s"]
        if not served < 0.9 * offered_per_s:
            return ()
        return (
            f"unstable or too short a run: {offered_per_s:.4g} requests/s offered, {served:.4g}/s served "
            "until the last answer; the queue grows, and latencies depend on the length of the run",
        )

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row per request: ``arrival_s first_s finish_s prompt_tokens output_tokens hit_tokens``."""
        import pandas as pd

        run = self.run
        times = {"arrival_s": run.arrival_ns, "first_s": run.first_ns, "finish_s": run.finish_ns}
        columns: dict[str, Any] = {k: np.where(v >= 0, v / 1e9, np.nan) for k, v in times.items()}
        return pd.DataFrame(
            {
                **columns,
                "prompt_tokens": self.prompt_tokens,
                "output_tokens": self.output_tokens,
                "hit_tokens": run.hits,
            }
        )

    def __repr__(self) -> str:
        s = self.summary
        lines = [
            f"{s['completed']} of {s['requests']} requests: {s['requests_per_s']:.4g} requests/s, "
            f"{s['output_tokens_per_s']:.4g} output tokens/s on {s['devices']} devices",
            *(
                f"{name.upper()} [ms]: mean {1e3 * s[f'{name}_mean_s']:.4g}, "
                + ", ".join(f"p{q} {1e3 * s[f'{name}_p{q}_s']:.4g}" for q in PERCENTILES)
                for name in ("ttft", "tpot", "e2e")
            ),
            f"cache {100 * s['kv_mean']:.3g} % of {s['kv_tokens']} tokens on average, "
            f"{100 * s['kv_peak']:.3g} % at most, {s['preemptions']} preemptions, "
            f"{s['prefix_hit_pct']:.3g} % of prompts found in it",
            *(f"note: {n}" for n in self.notes),
        ]
        return "\n".join(lines)
