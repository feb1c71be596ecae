"""The answer of a fleet: that of a server, and tables by replica, pool and version."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.engine.result import Stamp
from accelsim.serving import statistics
from accelsim.serving.fleet import monitor
from accelsim.serving.fleet.firsts import TokenTimes, check_objectives
from accelsim.serving.fleet.run import FleetRun
from accelsim.serving.log import Log
from accelsim.serving.outcome import ServeResult, StationRun
from accelsim.serving.station import COMPLETED, REJECTED, TIMED_OUT, Request

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Attempts:
    """Every attempt, as arrays; times in [ns], -1 where it did not come to that.

    Attributes
    ----------
    pool, server : array
        Place of its pool and of its server; -1 for none.
    sent_ns, routed_ns, start_ns, finish_ns, back_ns : array
        Sent by the caller, on the way to a server, execution started, answered by the server, answer back.
    status, execution : array
    """

    pool: Ints
    server: Ints
    sent_ns: Ints
    routed_ns: Ints
    start_ns: Ints
    finish_ns: Ints
    back_ns: Ints
    status: Ints
    execution: Ints

    @classmethod
    def of(cls, run: FleetRun) -> Attempts:
        """Those of a run."""
        place = {id(pool): i for i, pool in enumerate(run.pools)}
        rows = [
            (
                place[id(a.call.pool)],
                -1 if a.server is None else a.server.number,
                a.arrival_ns,
                a.routed_ns,
                a.start_ns,
                a.finish_ns,
                a.back_ns,
                a.status,
                a.execution,
            )
            for a in run.attempts
        ]
        return cls(*np.array(rows, dtype=np.int64).reshape(-1, 9).T.copy())


@dataclass(frozen=True)
class ServerRun:
    """One replica's part in a run.

    Attributes
    ----------
    name, pool, hardware, version, place : str
    instances : int
    alive_ns, up_ns : array (stretches, 2)
        From launch to leaving, which is paid for; from ready to down.
    start_ns, held_ns, size : array
        By execution.
    energy_j : array, optional
        By execution [J].
    idle_w, usd_per_hour : float
        NaN when unknown.
    cache_use : array, optional
        Share of the blocks of a language model's cache in use, by execution.
    """

    name: str
    pool: str
    hardware: str
    version: str
    place: str
    instances: int
    alive_ns: Ints
    up_ns: Ints
    start_ns: Ints
    held_ns: Ints
    size: NDArray[np.int32]
    energy_j: NDArray[np.float64] | None
    idle_w: float
    usd_per_hour: float
    cache_use: NDArray[np.float64] | None = None

    @property
    def alive_s(self) -> float:
        """[s]"""
        return float((self.alive_ns[:, 1] - self.alive_ns[:, 0]).sum()) / 1e9

    @property
    def up_s(self) -> float:
        """[s]"""
        return float((self.up_ns[:, 1] - self.up_ns[:, 0]).sum()) / 1e9

    @property
    def busy_s(self) -> float:
        """Sum over instances [s]."""
        return float(self.held_ns.sum()) / 1e9

    @property
    def usd(self) -> float:
        """[USD]"""
        return self.usd_per_hour * self.alive_s / 3600

    @property
    def joules(self) -> float:
        """Energy of executions, and idle power while alive and not running [J]; NaN when unknown."""
        if self.energy_j is None:
            return math.nan
        return float(self.energy_j.sum()) + self.idle_w * max(
            0.0, self.alive_s - self.busy_s / self.instances
        )


class FleetResult(ServeResult):
    """Requests served by a fleet, and what it took.

    Attributes
    ----------
    servers : tuple of ServerRun
        Every replica that ever was.
    attempts : Attempts
    pool_names : tuple of str
    end_ns : int
        When the run ended.
    tokens : TokenTimes, optional
        Of a language model, by request.
    """

    def __init__(
        self,
        run: FleetRun,
        requests: list[Request],
        *,
        stamp: Stamp,
        warmup: float = 0.0,
        offered_per_s: float = math.nan,
        slo_s: float | None = None,
        slo: Mapping[str, float] | None = None,
        bounds: Mapping[str, list[Request]] | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        self._run = run
        self._requests = requests
        self.tokens = TokenTimes.of(run, requests)
        check_objectives(slo or {}, self.tokens)
        self.pool_names = tuple(p.spec.name for p in run.pools)
        self.attempts = Attempts.of(run)
        log = _log(requests)
        self.end_ns = max(int(run.env.now), int(log.finish_ns.max(initial=0)))
        servers = [s for pool in run.pools for s in pool.servers]
        # Servers by number: a pool that scales has numbers apart.
        servers.sort(key=lambda s: s.number)
        self.servers = tuple(_server_run(s, self.end_ns) for s in servers)
        stations = tuple(self._station(s, own) for s, own in zip(servers, self.servers))
        notes = (f"{len(self.servers)} replicas in {len(run.pools)} pools, {len(run.attempts)} attempts",)
        super().__init__(
            log,
            stations,
            stamp=stamp,
            warmup=warmup,
            offered_per_s=offered_per_s,
            slo_s=slo_s,
            notes=notes + self._unknown(),
            bounds={end: _log(other) for end, other in (bounds or {}).items()},
            request=request,
        )
        self.summary["attempts"] = len(run.attempts)
        self.summary["replica_hours"] = sum(s.alive_s for s in self.servers) / 3600
        self.summary["usd"] = self._usd()
        if self.tokens is not None:
            found, intervals = self.tokens.summary(self._skip)
            self.summary |= found
            self.intervals |= intervals
        if slo and self.tokens is not None:
            good = self.tokens.good(slo, self._skip)
            self.summary["slo"] = dict(slo)
            self.summary["goodput_per_s"] = good / self._span_s
            self.summary["slo_attainment_pct"] = 100.0 * good / max(1, len(requests) - self._skip)

    def _station(self, server: Any, own: ServerRun) -> StationRun:
        """The replica as the tables of `ServeResult` know it."""
        a = self.attempts
        mine = np.flatnonzero(a.server == server.number)
        log = Log(
            a.sent_ns[mine],
            a.finish_ns[mine],
            a.status[mine].astype(np.int8),
            a.execution[mine].astype(np.int32),
            own.start_ns,
            own.held_ns,
            own.size,
            np.array([x.padded for x in server.executions], dtype=np.int32),
            np.array([x.instance for x in server.executions], dtype=np.int32),
        )
        return StationRun(
            f"{own.pool}/{own.name}",
            log,
            server.kind.instances,
            server.kind.max_batch,
            server.kind.capacity_per_s,
            own.energy_j,
            own.usd_per_hour,
        )

    def _unknown(self) -> tuple[str, ...]:
        """What the sums lack."""
        lacks: dict[str, set[str]] = {}
        for s in self.servers:
            kind = s.name.rpartition("-")[0]
            if s.energy_j is None:
                lacks.setdefault("energy", set()).add(kind)
            elif math.isnan(s.idle_w):
                lacks.setdefault("idle power", set()).add(kind)
            if math.isnan(s.usd_per_hour):
                lacks.setdefault("price", set()).add(kind)
        return tuple(f"{what} of {', '.join(sorted(kinds))} is unknown" for what, kinds in lacks.items())

    # -- sums that differ from those of one server

    def _capacity(self) -> float:
        """The pool that is full first, with the replicas that it started with, or may grow to [1/s]."""
        found = [math.inf]
        for pool, mean in zip(self._run.pools, self._run.calls_per_request(self._requests)):
            kinds = [(k, k.spec.count) for k in pool.kinds[: len(pool.spec.replicas)]]
            if pool.spec.autoscaler is not None:
                kinds[0] = (kinds[0][0], pool.spec.autoscaler.most)
            if mean > 0:
                found.append(sum(k.capacity_per_s * n for k, n in kinds) / mean)
        return min(found)

    def _utilisation(self) -> float:
        room = sum(s.alive_s * s.instances for s in self.servers)
        return sum(s.busy_s for s in self.servers) / room if room else math.nan

    def _energy_j(self) -> float:
        return sum(s.joules for s in self.servers)

    def _usd(self) -> float:
        return sum(s.usd for s in self.servers)

    # -- tables

    @cached_property
    def replicas(self) -> pd.DataFrame:
        """One row per replica: ``replica pool hardware version place attempts completed rejected executions
        mean_batch utilisation alive_s available_pct latency_mean_s latency_p99_s usd energy_j``.

        Latency is of the completed attempts, from the caller's sending to the answer; `available_pct` is the
        time ready over the time alive.
        """
        import pandas as pd

        a = self.attempts
        rows = []
        for number, s in enumerate(self.servers):
            mine = a.server == number
            done = mine & (a.status == COMPLETED) & (a.back_ns >= 0)
            taken = (a.back_ns[done] - a.sent_ns[done]) / 1e9
            room = s.alive_s * s.instances
            rows.append(
                {
                    "replica": s.name,
                    "pool": s.pool,
                    "hardware": s.hardware,
                    "version": s.version,
                    "place": s.place,
                    "attempts": int(mine.sum()),
                    "completed": int(done.sum()),
                    "rejected": int((mine & (a.status == REJECTED)).sum()),
                    "executions": len(s.size),
                    "mean_batch": float(s.size.mean()) if len(s.size) else math.nan,
                    "utilisation": s.busy_s / room if room else math.nan,
                    "alive_s": s.alive_s,
                    "available_pct": 100 * s.up_s / s.alive_s if s.alive_s else math.nan,
                    **_latency(taken),
                    "usd": s.usd,
                    "energy_j": s.joules,
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def stages(self) -> pd.DataFrame:
        """One row per pool: ``pool calls attempts retries hedges completed rejected timed_out latency_mean_s
        latency_p99_s replica_hours usd energy_j``; latency is of the completed calls, retries included.
        """
        import pandas as pd

        rows = []
        for pool in self._run.pools:
            calls = [c for c in self._run.calls if c.pool is pool]
            done = [c for c in calls if c.status == COMPLETED]
            mine = [s for s in self.servers if s.pool == pool.spec.name]
            taken = np.array([c.end_ns - c.begin_ns for c in done], dtype=np.float64) / 1e9
            rows.append(
                {
                    "pool": pool.spec.name,
                    "calls": len(calls),
                    "attempts": sum(c.attempts for c in calls),
                    "retries": sum(c.attempts - c.hedged - 1 for c in calls if c.attempts),
                    "hedges": sum(c.hedged for c in calls),
                    "completed": len(done),
                    "rejected": sum(c.status == REJECTED for c in calls),
                    "timed_out": sum(c.status == TIMED_OUT for c in calls),
                    **_latency(taken),
                    "replica_hours": sum(s.alive_s for s in mine) / 3600,
                    "usd": sum(s.usd for s in mine),
                    "energy_j": sum(s.joules for s in mine),
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def versions(self) -> pd.DataFrame:
        """One row per pool and version: ``pool version attempts completed rejected latency_mean_s
        latency_p99_s``, by attempt.
        """
        import pandas as pd

        a = self.attempts
        found: dict[tuple[str, str], list[int]] = {}
        for number, s in enumerate(self.servers):
            found.setdefault((s.pool, s.version), []).append(number)
        rows = []
        for (pool, version), numbers in found.items():
            mine = np.isin(a.server, numbers)
            done = mine & (a.status == COMPLETED) & (a.back_ns >= 0)
            rows.append(
                {
                    "pool": pool,
                    "version": version,
                    "attempts": int(mine.sum()),
                    "completed": int(done.sum()),
                    "rejected": int((mine & (a.status == REJECTED)).sum()),
                    **_latency((a.back_ns[done] - a.sent_ns[done]) / 1e9),
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def reasons(self) -> dict[str, int]:
        """Why requests were not answered, and how many: ``admission``, ``no replica``, ``queue full``,
        ``queue timeout``, ``crash``, ``attempt timeout``, ``timeout``.
        """
        return dict(Counter(self._run.reasons.values()))

    @cached_property
    def events(self) -> pd.DataFrame:
        """What happened to replicas: ``time_s pool replica event``."""
        import pandas as pd

        frame = pd.DataFrame(self._run.events, columns=["time_s", "pool", "replica", "event"])
        frame["time_s"] = frame["time_s"] / 1e9
        return frame

    def series(self, step_s: float | None = None, pool: str | None = None) -> pd.DataFrame:
        """Monitoring over time, by window: ``time_s arrivals completed in_system queue running replicas ready
        utilisation mean_batch cache_use power_w``.

        `in_system` (requests), `queue` (attempts on their way or waiting) and `running` (attempts) are at the
        end of the window; `replicas` (alive), `ready`, `utilisation`, `cache_use` (share of the blocks of
        language models that sequences use; NaN without) and `power_w` are means over it. With
        `pool`, all but the requests are of that pool. `step_s` is a hundredth of the run by default.
        """
        return monitor.series(self, step_s, pool)


def _latency(taken: NDArray[np.float64]) -> dict[str, float]:
    return {
        "latency_mean_s": statistics.mean(taken).value,
        "latency_p99_s": statistics.percentile(taken, 99).value,
    }


def _log(requests: list[Request]) -> Log:
    """The requests from end to end; executions are in the logs of the replicas."""
    none, few = np.zeros(0, np.int64), np.zeros(0, np.int32)
    return Log(
        np.array([r.arrival_ns for r in requests], dtype=np.int64),
        np.array([r.finish_ns for r in requests], dtype=np.int64),
        np.array([r.status for r in requests], dtype=np.int8),
        np.full(len(requests), -1, np.int32),
        none,
        none,
        few,
        few,
        few,
    )


def _server_run(server: Any, end_ns: int) -> ServerRun:
    spec = server.kind.spec
    executions = server.executions
    held = np.array([x.held_ns for x in executions], dtype=np.int64)
    energy = server.kind.joules(server)
    if energy is not None:
        for number, share in server.cut.items():
            energy[number] *= share
    return ServerRun(
        server.name,
        server.pool.spec.name,
        "" if spec.hardware is None else str(getattr(spec.hardware, "name", spec.hardware)),
        spec.version,
        spec.place.name,
        server.kind.instances,
        _stretches(server.alive_ns, end_ns),
        _stretches(server.up_ns, end_ns),
        np.array([x.start_ns for x in executions], dtype=np.int64),
        held,
        np.array([x.size for x in executions], dtype=np.int32),
        energy,
        server.kind.idle_w,
        server.kind.usd_per_hour,
        np.array(server.cache_use) if server.cache_use else None,
    )


def _stretches(pairs: list[list[int]], end_ns: int) -> Ints:
    closed = [(a, end_ns if b < 0 else b) for a, b in pairs]
    return np.array(closed, dtype=np.int64).reshape(-1, 2)
