"""`serve`: a model, a server and traffic in; latency, goodput and cost out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.engine.result import Stamp
from accelsim.serving import engine as simpy_engine
from accelsim.serving.arrivals import Arrivals, ClosedLoop
from accelsim.serving.batching import Greedy
from accelsim.serving.fast import twin
from accelsim.serving.llm.outcome import TokenServeResult
from accelsim.serving.llm.policy import ContinuousBatching
from accelsim.serving.llm.serve import serve_tokens
from accelsim.serving.log import Log
from accelsim.serving.outcome import ServeResult, StationRun
from accelsim.serving.requests import Requests
from accelsim.serving.service import DeviceService, Overheads, ServiceLaw, Times
from accelsim.serving.station import Policy

ENGINES = ("auto", "simpy", "numba")
DEFAULT_REQUESTS = 100_000


def serve(
    models: Any,
    hardware: Any = None,
    *,
    arrivals: Arrivals | ClosedLoop | Requests,
    batching: Policy | ContinuousBatching | None = None,
    requests: int | None = None,
    seed: int = 0,
    overheads: Overheads | None = None,
    warmup: float = 0.0,
    slo_s: float | None = None,
    engine: str = "auto",
    **options: Any,
) -> ServeResult | TokenServeResult | Infeasible:
    """Serve a model under traffic.

    Parameters
    ----------
    models : ServiceLaw, or a workload
        A service law, or what `simulate` takes, whose latency surface on `hardware` is then the law.
    hardware : str or Path or Device, optional
        Needed for a workload.
    arrivals : Arrivals, ClosedLoop or Requests
        Traffic.
    batching : Policy, optional
        How the server batches; `Greedy` with a maximum of 8 by default. With `ContinuousBatching` a language
        model is served token by token, see `accelsim.serving.llm.serve.serve_tokens` for its options.
    requests : int, optional
        How many; the whole of a trace, or 100,000, by default.
    seed : int
        Of arrivals and random service.
    overheads : Overheads, optional
        What the server adds around executions; nothing by default.
    warmup : float
        Share of the first requests that statistics leave out.
    slo_s : float, optional
        Latency objective for `goodput_per_s` [s].
    engine : {"auto", "simpy", "numba"}
        ``auto`` takes numba where it covers the policy; both give the same numbers.
    **options
        For `simulate`: precision, stack, devices ...

    Returns
    -------
    ServeResult or TokenServeResult or Infeasible

    Raises
    ------
    AccelsimError
        The request makes no sense.
    """
    if isinstance(batching, ContinuousBatching):
        if overheads is not None:
            raise RequestError("overheads belong to other servers", hint="pass host=Host(...)")
        objective = {} if slo_s is None else {"slo": {"e2e_s": slo_s}}
        return serve_tokens(
            models, hardware, arrivals=arrivals, batching=batching, requests=requests, seed=seed,
            warmup=warmup, engine=engine, **{**objective, **options},
        )  # fmt: skip
    if engine not in ENGINES:
        raise RequestError(f"unknown engine '{engine}'", hint=f"known: {', '.join(ENGINES)}")
    policy = batching if batching is not None else Greedy()
    added = overheads if overheads is not None else Overheads()
    law = _law(models, hardware, policy.max_batch, options)
    count = requests if requests is not None else _count(arrivals)
    try:
        times = Times.of(law, added, policy.max_batch, count, seed)
    except InfeasibleError as error:
        return error.outcome
    capacity = times.capacity_per_s(policy.max_batch, policy.instances)
    if isinstance(arrivals, ClosedLoop):
        coming, log = simpy_engine.run_closed(arrivals, count, policy, times, seed)
        offered = math.nan
    else:
        coming = arrivals.first(count) if isinstance(arrivals, Requests) else arrivals.generate(count, seed)
        log = _runner(engine, policy)(coming, policy, times)
        offered = coming.rate_per_s if math.isfinite(coming.rate_per_s) else math.nan
    station = StationRun(
        getattr(models, "name", models if isinstance(models, str) else "model"),
        log,
        policy.instances,
        policy.max_batch,
        capacity,
        _energy(law, log, policy.max_batch),
        getattr(law, "usd_per_hour", math.nan),
    )
    stamp = Stamp(
        VERSION,
        MODEL_VERSION,
        "" if hardware is None else str(getattr(hardware, "name", hardware)),
        station.name,
        hashlib.blake2b(repr((policy, added, arrivals, count)).encode(), digest_size=8).hexdigest(),
        seed,
        log.engine,
    )
    return ServeResult(
        log,
        (station,),
        stamp=stamp,
        extra_s=added.input_output_s,
        warmup=warmup,
        offered_per_s=offered,
        slo_s=slo_s,
        request={"workload": station.name, "hardware": stamp.hardware_hash},
    )


def _runner(engine: str, policy: Policy) -> Callable[[Requests, Policy, Times], Log]:
    """The engine that runs open arrivals."""
    if engine == "numba" and not twin.covers(policy):
        raise RequestError(f"no kernel covers {type(policy).__name__}", hint="use engine='simpy' or 'auto'")
    return twin.run_open if engine != "simpy" and twin.covers(policy) else simpy_engine.run_open


def _count(arrivals: Any) -> int:
    return len(arrivals) if hasattr(arrivals, "__len__") else DEFAULT_REQUESTS


def _law(model: Any, hardware: Any, max_batch: int, options: Mapping[str, Any]) -> ServiceLaw:
    if isinstance(model, ServiceLaw):
        if hardware is not None or options:
            raise RequestError("a service law brings its own times", hint="leave the hardware out")
        return model
    if hardware is None:
        raise RequestError(
            "a workload needs hardware", hint="pass hardware=..., or a service law as the model"
        )
    return DeviceService.of(model, hardware, max_batch=max_batch, **options)


def _energy(law: ServiceLaw, log: Log, max_batch: int) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    if not hasattr(law, "energy_j"):
        return None
    table = np.array([0.0, *(law.energy_j(b) for b in range(1, max_batch + 1))])
    return table[log.padded]
