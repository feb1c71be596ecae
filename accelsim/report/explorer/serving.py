"""The serving page: a rate in, the distribution of latencies and the queue out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.core.outcome import Infeasible
from accelsim.core.units import si
from accelsim.report.explorer.answers import Memory, facts_of
from accelsim.report.explorer.choice import Choice
from accelsim.report.explorer.svg import COLOURS, Axis, Chart
from accelsim.serving.arrivals import Poisson
from accelsim.serving.outcome import ServeResult
from accelsim.serving.serve import serve
from accelsim.serving.service import DeviceService
from accelsim.serving.triton import Triton

REQUESTS = 10_000
BINS = 60
LAWS = 32
"""Latency surfaces that are kept."""


@dataclass(frozen=True)
class Traffic:
    """What the serving page asks.

    Attributes
    ----------
    load_pct : float
        Offered rate as a share of the capacity [%].
    max_batch : int
    delay_us : int
        Longest time that a request waits for others [us].
    slo_ms : float
        Latency objective [ms].
    """

    load_pct: float = 60.0
    max_batch: int = 32
    delay_us: int = 500
    slo_ms: float = 20.0

    @property
    def policy(self) -> Triton:
        return Triton(max_batch=self.max_batch, max_queue_delay_us=self.delay_us)


class Served:
    """Serves a choice's workload on its device in focus, and remembers latency surfaces."""

    def __init__(self) -> None:
        self._laws = Memory(LAWS)

    def law(self, choice: Choice, max_batch: int) -> DeviceService:
        """The latency surface of the device in focus."""
        asked = choice.at(1)
        key = (asked.focus, max_batch, tuple(asked.settings.items()), asked.workload)
        law: DeviceService | None = self._laws.get(key)
        if law is None:
            settings = {k: v for k, v in asked.settings.items() if k != "batch"}
            law = DeviceService.of(asked.workload, asked.focus, max_batch=max_batch, **settings)
            self._laws.put(key, law)
        return law

    def rate_per_s(self, choice: Choice, traffic: Traffic) -> float:
        """Offered rate [1/s]; three digits, so that the code line can say it.

        Raises
        ------
        InfeasibleError
            The device cannot run the workload.
        """
        law = self.law(choice, traffic.max_batch)
        best = max(b / law.occupied_s(b) for b in range(1, traffic.max_batch + 1))
        return float(f"{traffic.load_pct / 100.0 * best:.3g}")

    def run(self, choice: Choice, traffic: Traffic) -> ServeResult | Infeasible:
        """The run at the rate asked.

        Raises
        ------
        InfeasibleError, RequestError
            The device cannot run the workload; the arguments do not fit.
        """
        return serve(
            self.law(choice, traffic.max_batch),
            arrivals=Poisson(self.rate_per_s(choice, traffic)),
            batching=traffic.policy,
            requests=REQUESTS,
            slo_s=traffic.slo_ms / 1e3,
        )

    def code(self, choice: Choice, traffic: Traffic) -> str:
        """The line that repeats the run."""
        return (
            f"ax.serve({choice.service_code(choice.focus, traffic.max_batch)}, "
            f"arrivals=ax.Poisson({self.rate_per_s(choice, traffic):g}), "
            f"batching=ax.Triton(max_batch={traffic.max_batch}, max_queue_delay_us={traffic.delay_us}), "
            f"requests={REQUESTS}, slo_s={traffic.slo_ms / 1e3:g})"
        )


def generates(choice: Choice) -> bool:
    """Whether the run is a phase of a model that generates tokens: one request is then many runs."""
    return "decode" in facts_of(choice.workload).phases and choice.phase != "forward"


def distribution(result: ServeResult, slo_s: float) -> Chart:
    """Histogram of the latencies, with percentiles and the objective."""
    values = result.latency_s
    title = "Latency of the requests"
    if not len(values):
        chart = Chart(title)
        chart.say("no request was completed")
        return chart
    end = float(max(np.percentile(values, 99.9), min(slo_s, 1.5 * float(values.max()))))
    counts, edges = np.histogram(values, BINS, range=(0.0, end))
    share = 100.0 * counts / len(values)
    keys = [("requests", COLOURS[0], ""), ("p50, p99", COLOURS[1], ""), ("objective", COLOURS[5], "6 3")]
    x = Axis("latency of a request", 0.0, end * 1.02, unit="s")
    y = Axis("share of the requests [%]", 0.0, float(share.max()) * 1.08 or 1.0)
    chart = Chart(title, x, y, left=52, keys=keys)
    for low, high, part in zip(edges[:-1].tolist(), edges[1:].tolist(), share.tolist()):
        if part > 0:
            top = chart.py(part)
            words = f"{si(low, 's', 3)} to {si(high, 's', 3)}: {part:.3g} % of the requests"
            chart.box(low, high, top, chart.bottom - top, COLOURS[0], words)
    highest = y.high
    for q in (50.0, 99.0):
        at = float(np.percentile(values, q))
        chart.line([at, at], [0.0, highest], COLOURS[1])
        chart.words(chart.px(at) + 3, chart.top + 12, f"p{q:g}", size=10)
    if slo_s <= x.high:
        chart.line([slo_s, slo_s], [0.0, highest], COLOURS[5], dash=" 6 3".strip())
    return chart


def queue(result: ServeResult) -> Chart:
    """Requests in the server over time."""
    table = result.series()
    times: list[float] = table["time_s"].tolist()
    inside: list[float] = [float(v) for v in table["in_system"]]
    x = Axis("time", 0.0, max(times), unit="s")
    y = Axis("requests in the server", 0.0, max(1.0, *inside) * 1.08)
    chart = Chart("Requests in the server over time", x, y, left=52)
    chart.band(times, [0.0] * len(times), inside, COLOURS[0])
    chart.line(times, inside, COLOURS[0])
    return chart


def headline(result: ServeResult) -> list[tuple[str, str]]:
    """Label and text of what the run says."""
    s: dict[str, Any] = result.summary
    band = ""
    if "latency_p99_low_s" in s:
        band = f" ({si(s['latency_p99_low_s'], 's', 3)} to {si(s['latency_p99_high_s'], 's', 3)})"
    rows = [
        (
            "offered",
            f"{s['offered_per_s']:.4g} requests/s, capacity {s['capacity_per_s']:.4g}/s, {s['status']}",
        ),
        ("latency", f"p50 {si(s['latency_p50_s'], 's', 3)}, p99 {si(s['latency_p99_s'], 's', 3)}{band}"),
        (
            "in time",
            f"{s['slo_attainment_pct']:.4g} % of the requests within {si(s['slo_s'], 's', 3)}, "
            f"{s['goodput_per_s']:.4g}/s",
        ),
        ("batches", f"{s['mean_batch']:.3g} requests on average, device busy {100 * s['utilisation']:.3g} %"),
    ]
    energy, usd = s["energy_per_request_j"], s["usd_per_million_requests"]
    known = [f"{si(energy, 'J', 3)} per request"] if energy == energy else []
    known += [f"{usd:.3g} USD per million requests"] if usd == usd else []
    return rows + ([("cost", ", ".join(known))] if known else [])
