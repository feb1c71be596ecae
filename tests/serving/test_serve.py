"""Serving obeys queueing theory, and its answer says what it counts."""

from __future__ import annotations

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.serving import ClosedLoop, ExponentialService, Greedy, NoBatching, StaticBatch, TableService

N = 100_000


def _within(estimate, exact: float, errors: float = 4.0) -> bool:
    return abs(estimate.value - exact) <= errors * estimate.standard_error


def test_md1_and_mm1() -> None:
    rho, s = 0.5, 0.01
    md1 = ax.serve(ax.LinearService(s), arrivals=ax.Poisson(rho / s), batching=NoBatching(), requests=N)
    assert _within(md1.intervals["latency_mean_s"], s + rho * s / (2 * (1 - rho)))
    mm1 = ax.serve(ExponentialService(s), arrivals=ax.Poisson(rho / s), batching=NoBatching(), requests=N)
    assert _within(mm1.intervals["latency_mean_s"], s / (1 - rho))
    assert md1.summary["utilisation"] == pytest.approx(rho, rel=0.02)


def test_closed_loop_obeys_the_response_time_law() -> None:
    r = ax.serve(
        ExponentialService(0.01),
        arrivals=ClosedLoop(5, think_s=0.05),
        batching=NoBatching(),
        requests=20_000,
    )
    # Interactive response time law: R = N / X - Z.
    assert r.summary["latency_mean_s"] == pytest.approx(5 / r.summary["throughput_per_s"] - 0.05, rel=0.02)


def test_static_batches_are_full_but_for_the_last() -> None:
    r = ax.serve(ax.LinearService(0.001), arrivals=ax.Poisson(100), batching=StaticBatch(8), requests=1001)
    assert r.executions["size"].tolist() == [8] * 125 + [1]


def test_unstable_load_is_said_with_the_capacity() -> None:
    r = ax.serve(ax.LinearService(0.004, 0.0005), arrivals=ax.Poisson(1500), requests=5000)
    assert not r.stable
    assert r.summary["status"] == "unstable"
    assert r.summary["capacity_per_s"] == pytest.approx(1000)
    assert any("capacity 1000/s" in note for note in r.notes)


def test_the_gap_lowers_the_capacity() -> None:
    r = ax.serve(
        ax.LinearService(0.004078, 0.000518),
        arrivals=ax.Poisson(100),
        overheads=ax.Overheads(0.000127, 0.000068, 0.000449),
        requests=1000,
    )
    assert r.summary["capacity_per_s"] == pytest.approx(8 / 8.893e-3, rel=1e-3)
    assert r.latency_s.min() == pytest.approx(0.004078 + 0.000518 + 0.000449, abs=1e-9)


def test_series_and_tables_add_up() -> None:
    r = ax.serve(ax.LinearService(0.004, 0.0005), arrivals=ax.Poisson(600), requests=3000, slo_s=0.02)
    series = r.series(0.1)
    assert series["arrivals"].sum() == series["completed"].sum() == 3000
    assert series["in_system"].iloc[-1] == 0
    assert series["utilisation"].max() <= 1 + 1e-12
    busy = (series["utilisation"] * 0.1).sum()
    assert busy == pytest.approx(r.executions["held_s"].sum(), rel=1e-9)
    assert r.executions["size"].sum() == len(r.requests) == 3000
    assert r.summary["goodput_per_s"] <= r.summary["throughput_per_s"]
    assert r.goodput_per_s(np.inf) == pytest.approx(r.summary["throughput_per_s"])


def test_a_device_brings_its_latency_surface_energy_and_price() -> None:
    r = ax.serve("resnet50", "h100-sxm", arrivals=ax.Poisson(800), batching=Greedy(16), requests=2000)
    one = ax.simulate("resnet50", "h100-sxm", batch=1).summary["latency_s"]
    assert r.latency_s.min() == pytest.approx(one, abs=2e-9)
    assert r.summary["energy_per_request_j"] > 0
    # The device's error band becomes one of the latency.
    for name in ("mean", "p50", "p99"):
        low, high = (r.summary[f"latency_{name}_{end}_s"] for end in ("low", "high"))
        assert low < r.summary[f"latency_{name}_s"] < high


def test_equal_stamps_give_equal_numbers() -> None:
    def run(**changes):
        asked = {"arrivals": ax.Poisson(500), "batching": ax.Triton(8), "requests": 500, "seed": 3, **changes}
        return ax.serve(ax.LinearService(0.004, 0.0005), **asked)

    first = run()
    assert run().stamp == first.stamp
    assert np.array_equal(run().log.finish_ns, first.log.finish_ns)
    for change in (
        {"seed": 4},
        {"batching": ax.Triton(8, 1)},
        {"overheads": ax.Overheads(1e-6)},
        {"requests": 501},
    ):
        assert run(**change).stamp != first.stamp


def test_a_model_that_does_not_fit_is_infeasible() -> None:
    r = ax.serve(
        "llama-3.1-70b", "l4", arrivals=ax.Poisson(1), batching=Greedy(1), requests=10, precision="fp16"
    )
    assert not r.feasible
    assert r.reason == "memory"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ax.serve("resnet50", arrivals=ax.Poisson(1), requests=1),
        lambda: ax.serve(ax.LinearService(1), "l4", arrivals=ax.Poisson(1), requests=1),
        lambda: ax.serve(ax.LinearService(1), arrivals=ax.Poisson(1), requests=1, engine="x"),
        lambda: ax.serve(ax.LinearService(1), arrivals=ax.Poisson(1), requests=1, warmup=1),
        lambda: ax.LinearService(0),
        lambda: TableService({}),
        lambda: Greedy(0),
        lambda: Greedy(1, instances=0),
    ],
)
def test_senseless_requests_are_refused(make) -> None:
    with pytest.raises(RequestError):
        make()
