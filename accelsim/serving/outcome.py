"""The answer of a serving run: latency, goodput, batches, utilisation, cost, and how sure they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.core.accessors import Accessible
from accelsim.core.errors import RequestError
from accelsim.engine.result import Stamp
from accelsim.serving import statistics
from accelsim.serving.log import Log
from accelsim.serving.station import COMPLETED, IN_FLIGHT, REJECTED, TIMED_OUT

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = (50, 90, 95, 99, 99.9)
STATUS = {IN_FLIGHT: "in flight", COMPLETED: "completed", REJECTED: "rejected", TIMED_OUT: "timed out"}


@dataclass(frozen=True)
class StationRun:
    """One model's part in a run: its log and what its executions cost.

    Attributes
    ----------
    name : str
    log : Log
    instances : int
    max_batch : int
    capacity_per_s : float
        Largest sustained rate [1/s].
    energy_j : array, optional
        By execution [J].
    usd_per_hour : float
        Price of one instance [USD/h]; NaN when unknown.
    """

    name: str
    log: Log
    instances: int
    max_batch: int
    capacity_per_s: float
    energy_j: NDArray[np.float64] | None = None
    usd_per_hour: float = math.nan


class ServeResult(Accessible):
    """Requests served, and what it took.

    Attributes
    ----------
    summary : dict
        Headline numbers, see docs/definitions.md.
    intervals : dict of str to Estimate
        Standard errors and 95 % confidence intervals by batch means, by summary name.
    notes : tuple of str
        Warm-up cut, engine, instability, assumptions.
    stamp : Stamp
    stations : tuple of StationRun
    """

    feasible = True

    def __init__(
        self,
        log: Log,
        stations: tuple[StationRun, ...],
        *,
        stamp: Stamp,
        extra_s: float = 0.0,
        warmup: float = 0.0,
        offered_per_s: float = math.nan,
        slo_s: float | None = None,
        notes: tuple[str, ...] = (),
        bounds: Mapping[str, Log] | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= warmup < 1:
            raise RequestError(f"the warm-up cut is a share of the requests below 1, got {warmup}")
        self.log = log
        self.stations = stations
        self.stamp = stamp
        self.extra_s = extra_s
        self.warmup = warmup
        self.request = dict(request or {})
        self.intervals: dict[str, statistics.Estimate] = {}
        self._skip = int(len(log.status) * warmup)
        capacity = self._capacity()
        self.stable = not (offered_per_s > capacity)
        self.notes = (
            self._cut_note(),
            f"engine: {log.engine}",
            *notes,
            *self._load_notes(offered_per_s, capacity),
        )
        self.summary = self._summarise(offered_per_s, capacity, slo_s)
        for end, other in (bounds or {}).items():
            for name, q in (("mean", None), ("p50", 50.0), ("p99", 99.0)):
                values = self._latencies(other)
                value = values.mean() if q is None else np.percentile(values, q)
                self.summary[f"latency_{name}_{end}_s"] = float(value) if values.size else math.nan

    # -- numbers

    @cached_property
    def latency_s(self) -> NDArray[np.float64]:
        """Latency of the completed requests after the warm-up cut, by arrival [s]."""
        return self._latencies(self.log)

    def _latencies(self, log: Log) -> NDArray[np.float64]:
        kept = log.status[self._skip :] == COMPLETED
        taken = log.finish_ns[self._skip :][kept] - log.arrival_ns[self._skip :][kept]
        return taken / 1e9 + self.extra_s

    def percentile(self, q: float) -> statistics.Estimate:
        """Latency percentile `q` (0 to 100) with its standard error [s]."""
        return statistics.percentile(self.latency_s, q)

    def goodput_per_s(self, slo_s: float) -> float:
        """Requests per second whose answer came within `slo_s` [1/s]."""
        return float(np.count_nonzero(self.latency_s <= slo_s)) / self._span_s

    def slo_attainment(self, slo_s: float) -> float:
        """Share of all requests after the warm-up cut, refused ones included, answered within `slo_s`."""
        return float(np.count_nonzero(self.latency_s <= slo_s)) / max(1, len(self.log.status) - self._skip)

    @cached_property
    def _span_s(self) -> float:
        """From the first arrival that counts to the last event [s]."""
        log = self.log
        begin = int(log.arrival_ns[self._skip]) if len(log.arrival_ns) else 0
        end = int(log.finish_ns.max()) if len(log.finish_ns) else 0
        return max(end - begin, 1) / 1e9

    def _summarise(self, offered_per_s: float, capacity: float, slo_s: float | None) -> dict[str, Any]:
        log = self.log
        counted = np.bincount(log.status[self._skip :], minlength=4)
        total = max(1, int(counted.sum()))
        self.intervals["latency_mean_s"] = statistics.mean(self.latency_s)
        for q, estimate in zip(PERCENTILES, statistics.percentiles(self.latency_s, PERCENTILES)):
            self.intervals[_name(q)] = estimate
        sizes = np.concatenate([s.log.size for s in self.stations]) if self.stations else np.zeros(0)
        summary: dict[str, Any] = {
            **self.request,
            "status": "ok" if self.stable else "unstable",
            "requests": len(log.status),
            **{name: e.value for name, e in self.intervals.items()},
            "throughput_per_s": float(counted[COMPLETED]) / self._span_s,
            "offered_per_s": offered_per_s,
            "capacity_per_s": capacity,
            "mean_batch": float(sizes.mean()) if len(sizes) else math.nan,
            "rejected_pct": 100.0 * float(counted[REJECTED]) / total,
            "timed_out_pct": 100.0 * float(counted[TIMED_OUT]) / total,
            "in_flight": int(counted[IN_FLIGHT]),
            "utilisation": self._utilisation(),
            "energy_per_request_j": self._per_request(self._energy_j()),
            "usd_per_million_requests": self._per_request(self._usd()) * 1e6,
        }
        if slo_s is not None:
            summary["slo_s"] = slo_s
            summary["goodput_per_s"] = self.goodput_per_s(slo_s)
            summary["slo_attainment_pct"] = 100.0 * self.slo_attainment(slo_s)
        return summary

    def _capacity(self) -> float:
        """Largest sustained rate of the whole [1/s]."""
        return min((s.capacity_per_s for s in self.stations), default=math.inf)

    def _utilisation(self) -> float:
        """Busy share of all instances over the whole run, gaps included."""
        busy = sum(int(s.log.held_ns.sum()) for s in self.stations)
        end = int(self.log.finish_ns.max()) if len(self.log.finish_ns) else 0
        instances = sum(s.instances for s in self.stations)
        return busy / max(1, instances * end) if self.stations else math.nan

    def _energy_j(self) -> float:
        parts = [float(s.energy_j.sum()) if s.energy_j is not None else math.nan for s in self.stations]
        return sum(parts) if parts else math.nan

    def _usd(self) -> float:
        """Price of all instances for the whole run [USD]."""
        end_s = float(self.log.finish_ns.max()) / 1e9 if len(self.log.finish_ns) else 0.0
        parts = [s.usd_per_hour * s.instances * end_s / 3600 for s in self.stations]
        return sum(parts) if parts else math.nan

    def _per_request(self, amount: float) -> float:
        done = int(np.count_nonzero(self.log.status == COMPLETED))
        return amount / done if done else math.nan

    if TYPE_CHECKING:  # accessors that accelsim/__init__.py registers

        @property
        def plot(self) -> Any: ...

        def to_trace(self, path: str | Path) -> Path: ...

    # -- words

    def _cut_note(self) -> str:
        if not self._skip:
            return "no warm-up cut: every request counts"
        return f"warm-up cut: the first {self._skip} requests ({100 * self.warmup:g} %) are not counted"

    def _load_notes(self, offered_per_s: float, capacity: float) -> tuple[str, ...]:
        if self.stable:
            return ()
        return (
            f"unstable: {offered_per_s:.4g} requests/s offered, capacity {capacity:.4g}/s; the queue grows "
            "without end, or requests are refused, and latencies depend on the length of the run",
        )

    # -- tables

    @cached_property
    def requests(self) -> pd.DataFrame:
        """One row per request: ``arrival_s finish_s latency_s status execution``."""
        import pandas as pd

        log = self.log
        done = log.finish_ns >= 0
        latency = np.where(done, (log.finish_ns - log.arrival_ns) / 1e9, np.nan)
        latency = np.where(log.status == COMPLETED, latency + self.extra_s, latency)
        return pd.DataFrame(
            {
                "arrival_s": log.arrival_ns / 1e9,
                "finish_s": np.where(done, log.finish_ns / 1e9, np.nan),
                "latency_s": latency,
                "status": pd.Categorical.from_codes(
                    log.status.astype(np.int64), pd.Index(list(STATUS.values()))
                ),
                "execution": log.execution,
            }
        )

    @cached_property
    def executions(self) -> pd.DataFrame:
        """One row per execution: ``station instance start_s held_s size padded``."""
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "station": s.name,
                    "instance": s.log.instance,
                    "start_s": s.log.start_ns / 1e9,
                    "held_s": s.log.held_ns / 1e9,
                    "size": s.log.size,
                    "padded": s.log.padded,
                }
            )
            for s in self.stations
        ]
        return pd.concat(parts, ignore_index=True)

    def series(self, step_s: float | None = None) -> pd.DataFrame:
        """Monitoring over time, by window: ``time_s arrivals completed in_system utilisation mean_batch``.

        `in_system` is the number of requests in the server at the end of the window; `step_s` is a hundredth
        of the run by default.
        """
        import pandas as pd

        log = self.log
        end = max(int(log.finish_ns.max()), int(log.arrival_ns.max()), 1)
        step = max(1, round(step_s * 1e9) if step_s is not None else end // 100 + 1)
        edges = np.arange(0, end + step, step)
        arrivals = np.histogram(log.arrival_ns, edges)[0]
        finished = np.histogram(log.finish_ns[log.finish_ns >= 0], edges)[0]
        completed = np.histogram(log.finish_ns[log.status == COMPLETED], edges)[0]
        busy = np.zeros(len(edges) - 1)
        started, items = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
        for s in self.stations:
            busy += _overlap(s.log.start_ns, s.log.start_ns + s.log.held_ns, edges)
            started += np.histogram(s.log.start_ns, edges)[0]
            items += np.histogram(s.log.start_ns, edges, weights=s.log.size)[0]
        instances = sum(s.instances for s in self.stations)
        with np.errstate(invalid="ignore"):
            mean_batch = items / started
        return pd.DataFrame(
            {
                "time_s": edges[1:] / 1e9,
                "arrivals": arrivals,
                "completed": completed,
                "in_system": np.cumsum(arrivals) - np.cumsum(finished),
                "utilisation": busy / (step * max(1, instances)),
                "mean_batch": mean_batch,
            }
        )

    def __repr__(self) -> str:
        s = self.summary
        lines = [
            f"{s['requests']} requests, {s['status']}: {s['throughput_per_s']:.4g}/s of "
            f"{s['offered_per_s']:.4g}/s offered, capacity {s['capacity_per_s']:.4g}/s",
            "latency [ms]: "
            + ", ".join(
                f"{label} {_band(self.intervals[name])}"
                for label, name in [("mean", "latency_mean_s"), *((f"p{q:g}", _name(q)) for q in PERCENTILES)]
            ),
            f"mean batch {s['mean_batch']:.3g}, utilisation {100 * s['utilisation']:.3g} %, rejected "
            f"{s['rejected_pct']:.3g} %, timed out {s['timed_out_pct']:.3g} %",
            *(f"note: {n}" for n in self.notes),
        ]
        return "\n".join(lines)


def _name(q: float) -> str:
    return f"latency_p{q:g}_s".replace(".", "_")


def _band(e: statistics.Estimate) -> str:
    text = f"{e.value * 1e3:.4g}"
    return (
        text if math.isnan(e.standard_error) else f"{text} ± {statistics.T_95 * e.standard_error * 1e3:.2g}"
    )


def _overlap(
    start: NDArray[np.int64], end: NDArray[np.int64], edges: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Total time that intervals spend in each window: differences of the busy time up to each edge."""

    def before(edge_times: NDArray[np.int64], marks: NDArray[np.int64]) -> NDArray[np.float64]:
        ordered = np.sort(marks)
        sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
        count = np.searchsorted(ordered, edge_times, side="right")
        return edge_times * count.astype(np.float64) - sums[count]

    return np.diff(before(edges, start) - before(edges, end))
