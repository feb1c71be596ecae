"""`serve_fleet`: a fleet and traffic in; latency, goodput, cost and what happened out."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import replace

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.serving.arrivals import Arrivals, ClosedLoop
from accelsim.serving.fleet import run as engine
from accelsim.serving.fleet.checks import positive
from accelsim.serving.fleet.outcome import FleetResult
from accelsim.serving.fleet.replica import BatchKind, Replica
from accelsim.serving.fleet.spec import Fleet, Pool
from accelsim.serving.fleet.stamp import stamp_of
from accelsim.serving.fleet.versions import Swap
from accelsim.serving.requests import Requests
from accelsim.serving.service import DeviceService
from accelsim.serving.station import Request

DEFAULT_REQUESTS = 20_000


def serve_fleet(
    fleet: Fleet | Pool | Replica,
    *,
    arrivals: Arrivals | ClosedLoop | Requests,
    requests: int | None = None,
    seed: int = 0,
    warmup: float = 0.0,
    slo_s: float | None = None,
    slo: Mapping[str, float] | None = None,
    until_s: float = math.inf,
) -> FleetResult | Infeasible:
    """Serve requests with a fleet.

    Parameters
    ----------
    fleet : Fleet, Pool or Replica
        A pool or a replica stands for a fleet of only it.
    arrivals : Arrivals, ClosedLoop or Requests
        Traffic.
    requests : int, optional
        How many; the whole of a trace, or 20,000, by default.
    seed : int
        Of arrivals and of everything random in the fleet.
    warmup : float
        Share of the first requests that statistics leave out.
    slo_s : float, optional
        Latency objective for `goodput_per_s` [s].
    slo : mapping, optional
        Of a language model instead: objectives ``ttft_s``, ``tpot_s``, ``e2e_s`` [s].
    until_s : float
        The run ends then; requests that have not ended are in flight [s].

    Returns
    -------
    FleetResult or Infeasible

    Raises
    ------
    AccelsimError
        The request makes no sense.
    """
    if isinstance(fleet, Replica):
        fleet = Pool((fleet,))
    if isinstance(fleet, Pool):
        fleet = Fleet((fleet,))
    positive("the end of the run", until_s)
    whole = len(arrivals) if isinstance(arrivals, Sized) else DEFAULT_REQUESTS
    count = requests if requests is not None else whole
    if count < 1:
        raise RequestError(f"cannot serve {count} requests", hint="ask for at least one")
    offered, coming = math.nan, None
    bounds: dict[str, list[Request]] = {}
    try:
        with _collector_paused():
            if isinstance(arrivals, ClosedLoop):
                run, served = engine.run_closed(fleet, arrivals, count, seed, until_s)
            else:
                coming = _coming(arrivals, count, seed)
                offered = coming.rate_per_s if math.isfinite(coming.rate_per_s) else math.nan
                run, served = engine.run_open(fleet, coming, seed, until_s)
                bounds = {
                    end: engine.run_open(other, coming, seed, until_s)[1]
                    for end in ("low", "high")
                    if (other := _bounded(run, end)) is not None
                }
    except InfeasibleError as error:
        return error.outcome
    hardware = dict.fromkeys(kind.spec.name for pool in run.pools for kind in pool.kinds)
    return FleetResult(
        run,
        served,
        stamp=stamp_of(run, arrivals, coming, (count, until_s)),
        warmup=warmup,
        offered_per_s=offered,
        slo_s=slo_s,
        slo=slo,
        bounds=bounds,
        request={"workload": fleet.name, "hardware": ", ".join(hardware)},
    )


def _bounded(run: engine.FleetRun, end: str) -> Fleet | None:
    """The fleet with the ends of its devices' error bands as service times; None without a device."""
    fleet = run.fleet
    laws = {
        id(kind.spec): kind.law for pool in run.pools for kind in pool.kinds if isinstance(kind, BatchKind)
    }
    if not any(isinstance(law, DeviceService) for law in laws.values()):
        return None

    def bounded(spec: Replica) -> Replica:
        law = laws.get(id(spec))
        return replace(spec, model=law.bounded(end), options={}) if isinstance(law, DeviceService) else spec

    changes = tuple(
        replace(c, replica=bounded(c.replica)) if isinstance(c, Swap) else c for c in fleet.changes
    )
    pools = tuple(replace(pool, replicas=tuple(bounded(r) for r in pool.replicas)) for pool in fleet.pools)
    return replace(fleet, pools=pools, changes=changes)


def _coming(arrivals: Arrivals | Requests, count: int, seed: int) -> Requests:
    return arrivals.first(count) if isinstance(arrivals, Requests) else arrivals.generate(count, seed)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Every object of a run lives to its end: looking for garbage takes half of the time, in vain."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
