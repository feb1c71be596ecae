"""`serve`: models, a server and traffic in; latency, goodput and cost out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.engine.result import Stamp
from accelsim.engine.simulate import simulate
from accelsim.serving import engine as simpy_engine
from accelsim.serving import ensemble as flow
from accelsim.serving.arrivals import Arrivals, ClosedLoop, Poisson
from accelsim.serving.batching import Greedy
from accelsim.serving.ensemble import Ensemble
from accelsim.serving.fast import twin
from accelsim.serving.limiter import RateLimiter, SharedThreads
from accelsim.serving.llm.outcome import TokenServeResult
from accelsim.serving.llm.policy import ContinuousBatching
from accelsim.serving.llm.serve import serve_tokens
from accelsim.serving.log import Log
from accelsim.serving.outcome import ServeResult, StationRun
from accelsim.serving.requests import Requests
from accelsim.serving.service import DeviceService, Overheads, ServiceLaw, Times
from accelsim.serving.station import Policy
from accelsim.serving.tfserving import TensorFlowServing

if TYPE_CHECKING:
    import pandas as pd

ENGINES = ("auto", "simpy", "numba")
DEFAULT_REQUESTS = 100_000


@overload
def serve(
    models: Any,
    hardware: Any = None,
    *,
    arrivals: Arrivals | ClosedLoop | Requests,
    batching: ContinuousBatching,
    **options: Any,
) -> TokenServeResult | Infeasible: ...


@overload
def serve(
    models: Any,
    hardware: Any = None,
    *,
    arrivals: Arrivals | ClosedLoop | Requests,
    batching: Policy | Mapping[str, Policy] | None = None,
    **options: Any,
) -> ServeResult | Infeasible: ...


def serve(
    models: Any,
    hardware: Any = None,
    *,
    arrivals: Arrivals | ClosedLoop | Requests,
    batching: Policy | ContinuousBatching | Mapping[str, Policy] | None = None,
    requests: int | None = None,
    seed: int = 0,
    overheads: Overheads | None = None,
    warmup: float = 0.0,
    slo_s: float | None = None,
    resources: Mapping[str, int] | None = None,
    engine: str = "auto",
    **options: Any,
) -> ServeResult | TokenServeResult | Infeasible:
    """Serve models under traffic.

    Parameters
    ----------
    models : ServiceLaw, workload, mapping or Ensemble
        A service law; or what `simulate` takes, whose latency surface on `hardware` is then the law; or
        several of these by name, which requests choose by their model index (see `Stream`); or a data flow.
        Models do not slow each other down, each has its own instances; but those of one TensorFlow Serving
        share its threads, and those with a rate limit its resources.
    hardware : str or Path or Device, optional
        Needed for a workload.
    arrivals : Arrivals, ClosedLoop or Requests
        Traffic.
    batching : Policy, or mapping of str to Policy
        How the server batches, one for all models or by name; `Greedy` by default. Stages of an ensemble
        bring their own. With `ContinuousBatching` a language model is served token by token; its options
        (``prefill=`` and ``decode=`` workers, objectives ``slo=``, ``parallel=`` ...) are those of
        `accelsim.serving.llm.serve.serve_tokens`.
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
    resources : mapping of str to int, optional
        What instances with a rate limit share; see `RateLimiter`.
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
    by_token = isinstance(batching, ContinuousBatching)
    known = signature(serve).parameters | signature(serve_tokens if by_token else simulate).parameters
    for name in options.keys() - known:
        raise RequestError(f"unknown option '{name}'", hint=did_you_mean(name, known))
    if not hasattr(arrivals, "generate") and not isinstance(arrivals, ClosedLoop | Requests):
        hint = "such as Poisson(800), 800 requests per second"
        raise RequestError(f"arrivals {arrivals!r} say not when requests come", hint=hint)
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
    added = overheads if overheads is not None else Overheads()
    count = requests if requests is not None else _count(arrivals)
    try:
        parts = [
            _Part(name, model, _policy(policy), hardware, added, count, seed, options)
            for name, model, policy in _parts(models, batching)
        ]
    except InfeasibleError as error:
        return error.outcome
    offered, coming = math.nan, None
    if isinstance(arrivals, ClosedLoop):
        if len(parts) > 1 or isinstance(models, Ensemble):
            raise RequestError("a closed loop drives one model", hint="use open arrivals for several")
        if engine == "numba":
            raise RequestError("closed loops run on the simpy engine", hint="use engine='auto'")
        _, log = simpy_engine.run_closed(arrivals, count, parts[0].policy, parts[0].times, seed)
        logs = [log]
    else:
        coming = arrivals.first(count) if isinstance(arrivals, Requests) else arrivals.generate(count, seed)
        offered = coming.rate_per_s if math.isfinite(coming.rate_per_s) else math.nan
        log, logs = _run(models, parts, coming, engine, resources)
    device = next((p.law for p in parts if isinstance(p.law, DeviceService)), None)
    return ServeResult(
        log,
        tuple(part.outcome(own) for part, own in zip(parts, logs)),
        stamp=_stamp(parts, device, coming, (added, arrivals, count, resources), seed, log.engine),
        extra_s=added.input_output_s,
        warmup=warmup,
        offered_per_s=offered,
        slo_s=slo_s,
        bounds=_bounds(models, parts, coming, engine, resources, added),
        request={
            "workload": getattr(models, "name", "") or " + ".join(p.name for p in parts),
            "hardware": device.name if device is not None else "",
        },
    )


def _stamp(
    parts: Sequence[_Part],
    device: DeviceService | None,
    coming: Requests | None,
    settings: tuple[Any, ...],
    seed: int,
    engine: str,
) -> Stamp:
    """What produced a result. Times and arrivals count by their numbers, not by how they were made."""
    added, arrivals, *rest = settings
    policies = [(p.name, p.policy) for p in parts]
    digest = hashlib.blake2b(repr((policies, added, rest)).encode(), digest_size=8)
    for p in parts:
        digest.update(p.times.service_ns.tobytes() + p.times.held_ns.tobytes() + p.times.gap_ns.tobytes())
        digest.update(b"" if p.times.factors is None else p.times.factors.tobytes())
    if coming is None:
        digest.update(repr(arrivals).encode())
    else:
        for column in (coming.arrival_ns, coming.priority, coming.timeout_s, coming.model, coming.sequence):
            digest.update(b"-" if column is None else column.tobytes())
    made = device.results[device.grid[0]].stamp if device is not None else None
    return Stamp(
        VERSION,
        MODEL_VERSION,
        made.hardware_hash if made is not None else "",
        made.workload_hash if made is not None else "",
        digest.hexdigest(),
        seed,
        engine,
    )


def _bounds(
    models: Any,
    parts: Sequence[_Part],
    coming: Requests | None,
    engine: str,
    resources: Mapping[str, int] | None,
    added: Overheads,
) -> dict[str, Log]:
    """The run again with the ends of the devices' error bands as service times; empty without a device."""
    if coming is None or not any(isinstance(p.law, DeviceService) for p in parts):
        return {}
    return {
        end: _run(models, [p.bounded(end, added) for p in parts], coming, engine, resources)[0]
        for end in ("low", "high")
    }


def curve(models: Any, hardware: Any = None, *, rates_per_s: Sequence[float], **options: Any) -> pd.DataFrame:
    """Latency against rate: the summary of `serve` under Poisson arrivals at each rate.

    Parameters
    ----------
    models, hardware
        As in `serve`; pass a `DeviceService` to compute a device's latency surface once for all rates.
    rates_per_s : sequence of float
        [1/s]
    **options
        For `serve`, without arrivals.

    Returns
    -------
    DataFrame
        The summary at each rate, with ``rate_per_s`` in front.
    """
    import pandas as pd

    rows = []
    for rate in rates_per_s:
        result = serve(models, hardware, arrivals=Poisson(rate), **options)
        rows.append({"rate_per_s": rate, **result.summary})
    return pd.DataFrame(rows)


class _Part:
    """One model with its policy and its times."""

    def __init__(
        self,
        name: str,
        model: Any,
        policy: Policy,
        hardware: Any,
        overheads: Overheads,
        count: int,
        seed: int,
        options: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.policy = policy
        self.law: ServiceLaw = _law(model, hardware, policy.max_batch, options)
        self.times = Times.of(self.law, overheads, policy.max_batch, count, seed)

    def bounded(self, end: str, overheads: Overheads) -> _Part:
        """This part with the low or high end of its device's error band as its law."""
        if not isinstance(self.law, DeviceService):
            return self
        other = copy(self)
        other.law = self.law.bounded(end)
        other.times = Times.of(other.law, overheads, self.policy.max_batch)
        return other

    def outcome(self, log: Log) -> StationRun:
        """The part's place in the result."""
        energy = getattr(self.law, "energy_j", None)
        most = self.policy.max_batch
        table = None
        if energy is not None:
            table = np.array([0.0, *(energy(b) for b in range(1, most + 1))])[log.padded]
        capacity = self.times.capacity_per_s(most, self.policy.instances)
        if getattr(self.policy, "rate_limit", None) is not None:
            capacity = math.inf  # what shared resources leave of it is not known beforehand
        price = getattr(self.law, "usd_per_hour", math.nan)
        return StationRun(self.name, log, self.policy.instances, most, capacity, table, price)


def _parts(models: Any, batching: Any) -> list[tuple[str, Any, Policy]]:
    """Name, model and policy of each part."""
    if isinstance(models, Ensemble):
        if batching is not None:
            raise RequestError("stages of an ensemble bring their own batching", hint="leave batching out")
        return [(s.name, s.model, s.batching) for s in models.stages]
    if not isinstance(models, Mapping):
        if isinstance(batching, Mapping):
            raise RequestError("batching by name needs models by name")
        name = models if isinstance(models, str) else getattr(models, "name", "model")
        return [(str(name), models, batching if batching is not None else Greedy())]
    if not models:
        raise RequestError("there is no model to serve")
    found = []
    for name, model in models.items():
        policy = batching.get(name) if isinstance(batching, Mapping) else batching
        found.append((name, model, policy if policy is not None else Greedy()))
    for name in batching if isinstance(batching, Mapping) else ():
        if name not in models:
            raise RequestError(f"batching of '{name}', which is no model", hint=did_you_mean(name, models))
    return found


def _policy(policy: Any) -> Policy:
    if not hasattr(policy, "scheduler"):
        raise RequestError(f"batching {policy!r} is no policy", hint="such as Triton(max_batch=8)")
    return policy


def _run(
    models: Any, parts: Sequence[_Part], coming: Requests, engine: str, resources: Mapping[str, int] | None
) -> tuple[Log, list[Log]]:
    """The log from end to end, and that of each part."""
    if isinstance(models, Ensemble):
        if engine == "numba":
            raise RequestError("ensembles run on the simpy engine", hint="use engine='auto'")
        log, own = flow.run(coming, models, {p.name: p.times for p in parts}, RateLimiter(resources))
        return log, [own[p.name] for p in parts]
    limited = any(getattr(p.policy, "rate_limit", None) is not None for p in parts)
    threads = _shared_threads(parts)
    if not isinstance(models, Mapping) and not limited:
        log = _runner(engine, parts[0].policy)(coming, parts[0].policy, parts[0].times)
        return log, [log]
    chosen = coming.model if coming.model is not None else np.zeros(len(coming), np.int64)
    if chosen.min() < 0 or chosen.max() >= len(parts):
        raise RequestError(f"model index {chosen.max()}, but there are {len(parts)} models")
    if limited or threads:
        if engine == "numba":
            raise RequestError(
                "models that share something run on the simpy engine", hint="use engine='auto'"
            )
        pairs = [(p.policy, p.times) for p in parts]
        limiter = SharedThreads(threads) if threads else RateLimiter(resources)
        return simpy_engine.run_models(replace(coming, model=chosen), pairs, limiter)
    logs = []
    finish = np.full(len(coming), -1, np.int64)
    status = np.zeros(len(coming), np.int8)
    for index, part in enumerate(parts):
        mine = np.flatnonzero(chosen == index)
        log = _runner(engine, part.policy)(coming.take(mine), part.policy, part.times)
        finish[mine], status[mine] = log.finish_ns, log.status
        logs.append(log)
    return Log.whole(coming.arrival_ns, finish, status, logs[0].engine), logs


def _shared_threads(parts: Sequence[_Part]) -> int:
    """Threads of a TensorFlow Serving that several models share, 0 if there is none.

    Raises
    ------
    RequestError
        The models say different numbers of threads, or only some are TensorFlow Serving's.
    """
    counts = {p.policy.threads if isinstance(p.policy, TensorFlowServing) else 0 for p in parts}
    if len(parts) < 2 or counts == {0}:
        return 0
    if len(counts) > 1:
        raise RequestError(
            "models of one TensorFlow Serving share its threads", hint="give all the same number"
        )
    return counts.pop()


def _runner(engine: str, policy: Policy) -> Callable[[Requests, Policy, Times], Log]:
    """The engine that runs open arrivals."""
    if engine == "numba" and not twin.covers(policy):
        raise RequestError(f"no kernel covers {type(policy).__name__}", hint="use engine='simpy' or 'auto'")
    return twin.run_open if engine != "simpy" and twin.covers(policy) else simpy_engine.run_open


def _count(arrivals: Any) -> int:
    return len(arrivals) if hasattr(arrivals, "__len__") else DEFAULT_REQUESTS


def _law(model: Any, hardware: Any, max_batch: int, options: Mapping[str, Any]) -> ServiceLaw:
    if isinstance(model, ServiceLaw):
        if options or (hardware is not None and not isinstance(model, DeviceService)):
            raise RequestError("a service law brings its own times", hint="leave hardware and options out")
        return model
    if hardware is None:
        raise RequestError("a workload needs hardware", hint="pass hardware=..., or a law as the model")
    return DeviceService.of(model, hardware, max_batch=max_batch, **options)
