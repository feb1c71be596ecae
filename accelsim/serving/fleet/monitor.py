"""Series over time from what a run has left behind: nothing is sampled while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.serving.fleet.outcome import FleetResult, ServerRun

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def overlap(start: Ints, end: Ints, weight: Floats | float, edges: Ints) -> Floats:
    """Weighted time that intervals spend in each window [ns]: differences of the time up to each edge."""

    def before(marks: Ints) -> Floats:
        order = np.argsort(marks, kind="stable")
        weights = np.broadcast_to(np.asarray(weight, dtype=np.float64), marks.shape)[order]
        ordered = marks[order].astype(np.float64)
        total = np.concatenate([[0.0], np.cumsum(weights)])
        moment = np.concatenate([[0.0], np.cumsum(weights * ordered)])
        count = np.searchsorted(ordered, edges, side="right")
        return edges * total[count] - moment[count]

    return np.diff(before(start) - before(end))


def present(enter: Ints, leave: Ints, times: Ints) -> Ints:
    """How many intervals hold each time; a negative end is none."""
    gone = np.sort(leave[leave >= 0])
    inside = np.searchsorted(np.sort(enter), times, side="right")
    return (inside - np.searchsorted(gone, times, side="right")).astype(np.int64)


def series(result: FleetResult, step_s: float | None, pool: str | None) -> pd.DataFrame:
    """See `FleetResult.series`."""
    import pandas as pd

    log = result.log
    end = max(result.end_ns, 1)
    step = max(1, round(step_s * 1e9) if step_s is not None else end // 100 + 1)
    edges = np.arange(0, end + step, step)
    mine = [s for s in result.servers if pool is None or s.pool == pool]
    a = result.attempts
    chosen = np.ones(len(a.sent_ns), bool) if pool is None else a.pool == result.pool_names.index(pool)
    sent, start, back = a.sent_ns[chosen], a.start_ns[chosen], a.back_ns[chosen]
    ran = start >= 0
    run_start = np.concatenate([s.start_ns for s in mine]) if mine else np.zeros(0, np.int64)
    run_held = np.concatenate([s.held_ns for s in mine]) if mine else np.zeros(0, np.int64)
    size = np.concatenate([s.size for s in mine]) if mine else np.zeros(0, np.int32)
    started = np.histogram(run_start, edges)[0]
    items = np.histogram(run_start, edges, weights=size)[0]
    alive, ready, room, power, used, caches = np.zeros((6, len(edges) - 1))
    for s in mine:
        here = overlap(s.alive_ns[:, 0], s.alive_ns[:, 1], 1.0, edges)
        alive += here
        room += here * s.instances
        ready += overlap(s.up_ns[:, 0], s.up_ns[:, 1], 1.0, edges)
        power += _power(s, edges)
        if s.cache_use is not None:
            used += overlap(s.start_ns, s.start_ns + s.held_ns, s.cache_use, edges)
            caches += here
    busy = overlap(run_start, run_start + run_held, 1.0, edges)
    finished = np.sort(log.finish_ns[log.finish_ns >= 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        frame = {
            "time_s": edges[1:] / 1e9,
            "arrivals": np.histogram(log.arrival_ns, edges)[0],
            "completed": np.histogram(log.finish_ns[log.status == 1], edges)[0],
            "in_system": np.searchsorted(np.sort(log.arrival_ns), edges[1:], side="right")
            - np.searchsorted(finished, edges[1:], side="right"),
            "queue": present(sent, np.where(ran, start, back), edges[1:]),
            "running": present(start[ran], a.finish_ns[chosen][ran], edges[1:]),
            "replicas": alive / step,
            "ready": ready / step,
            "utilisation": np.where(room > 0, busy / room, np.nan),
            "mean_batch": items / started,
            "cache_use": np.where(caches > 0, used / caches, np.nan),
            "power_w": power / step,
        }
    return pd.DataFrame(frame)


def _power(server: ServerRun, edges: Ints) -> Floats:
    """Energy of executions spread over their time, and idle power while alive and not running [W ns]."""
    end = server.start_ns + server.held_ns
    idle = overlap(server.alive_ns[:, 0], server.alive_ns[:, 1], 1.0, edges)
    idle -= overlap(server.start_ns, end, 1.0 / server.instances, edges)
    if server.energy_j is None:
        return np.full(len(edges) - 1, np.nan)
    watts = server.energy_j / np.maximum(server.held_ns, 1) * 1e9
    return overlap(server.start_ns, end, watts, edges) + server.idle_w * np.maximum(idle, 0.0)
