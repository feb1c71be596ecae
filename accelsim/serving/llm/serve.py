"""`serve` for language models: a decoder, devices, an engine's rules and traffic in; TTFT and TPOT out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.core.precision import PrecisionPlan
from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.engine.result import Stamp
from accelsim.serving.arrivals import Arrivals, ClosedLoop
from accelsim.serving.llm import disagg
from accelsim.serving.llm import engine as readable
from accelsim.serving.llm.machine import Formats
from accelsim.serving.llm.outcome import Bill, TokenServeResult
from accelsim.serving.llm.policy import ContinuousBatching, Host
from accelsim.serving.llm.prefix import prefixes_of
from accelsim.serving.llm.setup import Setup, setup_of
from accelsim.serving.requests import Requests, to_ns

ENGINES = ("auto", "simpy", "numba")
DEFAULT_REQUESTS = 1000


@dataclass(frozen=True)
class Workers:
    """Equal engines that do one phase of requests: prompts, or the tokens after them.

    Parameters
    ----------
    count : int
    hardware : str or Path or Device, optional
        That of `serve` by default.
    batching : ContinuousBatching, optional
        That of `serve` by default.
    parallel : mapping, optional
        Degrees as in `serve_tokens`; those of `serve` by default.
    """

    count: int = 1
    hardware: Any = None
    batching: ContinuousBatching | None = None
    parallel: Mapping[str, int] | None = None


def serve_tokens(
    model: Any,
    hardware: Any = None,
    *,
    arrivals: Arrivals | ClosedLoop | Requests,
    batching: ContinuousBatching,
    requests: int | None = None,
    seed: int = 0,
    warmup: float = 0.0,
    slo: Mapping[str, float] | None = None,
    engine: str = "auto",
    parallel: Mapping[str, int] | None = None,
    precision: str | Mapping[str, Any] | PrecisionPlan | Formats | None = None,
    host: Host | None = None,
    skew: float | None = None,
    prefill: Workers | int | None = None,
    decode: Workers | int | None = None,
    link_bytes_per_s: float = disagg.LINK_BYTES_PER_S,
    link_latency_s: float = disagg.LINK_LATENCY_S,
) -> TokenServeResult | Infeasible:
    """Serve a language model with continuous batching.

    Parameters
    ----------
    model : str or Path
        A decoder: catalog name, workload file or HuggingFace ``config.json``.
    hardware : str or Path or Device
    arrivals : Arrivals, ClosedLoop or Requests
        Traffic with prompt and output lengths, and what prompts share.
    batching : ContinuousBatching
    requests : int, optional
        How many; the whole of a trace, or 1,000, by default.
    seed : int
        Of arrivals and lengths.
    warmup : float
        Share of the first requests that statistics leave out.
    slo : mapping, optional
        Objectives ``ttft_s``, ``tpot_s``, ``e2e_s`` [s] that goodput counts.
    engine : {"auto", "simpy", "numba"}
        Both give the same numbers; ``auto`` is numba where it covers the request.
    parallel : mapping, optional
        ``tensor``, ``pipeline``, ``data`` (ranks with attention of their own and a share of the traffic each)
        and ``expert`` degrees.
    precision : str, mapping or Formats, optional
        By default 16 bits, and experts in the format of their checkpoint.
    host : Host, optional
        Constants of the host; by default those of the engine's stack.
    skew : float, optional
        Exponent of the power law of expert loads; 1.2 by default.
    prefill, decode : Workers or int, optional
        Both: prompts are computed by some engines and their caches sent to others, which make the tokens. A
        number stands for so many engines as `hardware` and `parallel` say.
    link_bytes_per_s, link_latency_s : float
        Between them, for each device [B/s], [s].

    Returns
    -------
    TokenServeResult or Infeasible

    Raises
    ------
    AccelsimError
        The request makes no sense.
    """
    if engine not in ENGINES:
        raise RequestError(f"unknown engine '{engine}'", hint=f"known: {', '.join(ENGINES)}")
    pools = _pools(prefill, decode, hardware, batching, parallel)
    count = requests if requests is not None else _count(arrivals)
    try:
        setups = [
            setup_of(
                model, w.hardware, w.batching or batching, parallel=w.parallel, precision=precision,
                host=host, skew=skew,
            )
            for w in pools
        ]  # fmt: skip
        ranks = setups[0].split.data if len(setups) == 1 else 1
        coming, think, users, offered = _traffic(arrivals, count, seed, ranks)
        prompt, output = coming.prompt_tokens, coming.output_tokens
        if prompt is None or output is None:
            raise RequestError(
                "requests of a language model need lengths", hint="pass prompt_tokens= and output_tokens="
            )
        for setup in setups:
            setup.check(prompt, output)
    except InfeasibleError as error:
        return error.outcome
    first, last = setups[0], setups[-1]
    loop: dict[str, Any] = {
        "users": users, "think_ns": think, "prefixes": prefixes_of(coming, first.rules.grain),
    }  # fmt: skip
    given = (coming.arrival_ns, prompt, output)
    notes, more = list(first.notes()), dict[str, Any]()
    if len(setups) == 1:
        pace = first.pace
        run = _engine(engine)(*given, first.rules, first.host, pace.tables_s, pace.tables_j, **loop)
        run = run if pace.tables_j is not None else replace(run, energy_j=math.nan)
        bill = Bill(first.split.devices, ranks, first.idle_w, first.usd_per_hour)
    else:
        counts = [w.count for w in pools]
        transfer = disagg.transfer_between(first, last, link_bytes_per_s, link_latency_s)
        parts = [disagg.Pool(n, s.pace) for n, s in zip(counts, setups)]
        run, effort = _engine(engine, pools=True)(*given, parts[0], parts[1], transfer, **loop)
        run, bill = _together(run, effort, setups, counts)
        notes.append(f"{counts[0]} prefill and {counts[1]} decode workers")
        more = {
            "busy_prefill": effort.busy,
            "transfer_mean_s": float(np.mean([transfer.taken_ns(int(p)) for p in prompt])) / 1e9,
            "devices_prefill": counts[0] * first.split.devices,
            "devices_decode": counts[1] * last.split.devices,
        }
    if ranks > 1:
        notes.append(f"one of {ranks} equal data-parallel ranks was simulated with its share of the traffic")
    settings = [(s.batching, s.split, s.work.formats, s.host, s.work.skew) for s in setups]
    digest = hashlib.blake2b(repr((settings, arrivals, count, more)).encode(), digest_size=8).hexdigest()
    return TokenServeResult(
        run,
        prompt,
        output,
        last.rules,
        bill,
        stamp=Stamp(
            VERSION,
            MODEL_VERSION,
            " ".join(dict.fromkeys(s.device.hash for s in setups)),
            first.shape.name,
            digest,
            seed,
            run.engine,
        ),
        extra_s=first.host.request_s,
        warmup=warmup,
        offered_per_s=offered,
        slo=slo,
        notes=tuple(notes),
        request={
            "workload": first.shape.name,
            "hardware": " + ".join(dict.fromkeys(s.device.name for s in setups)),
            "stack": batching.engine,
        },
        more=more,
    )


def _pools(
    prefill: Workers | int | None,
    decode: Workers | int | None,
    hardware: Any,
    batching: ContinuousBatching,
    parallel: Mapping[str, int] | None,
) -> list[Workers]:
    """One kind of engines for everything, or those for prompts and those for tokens."""
    whole = Workers(1, hardware, batching, parallel)
    if prefill is None and decode is None:
        return [whole]
    if prefill is None or decode is None:
        raise RequestError("prefill and decode workers come together", hint="pass prefill= and decode=")
    found = []
    for given in (prefill, decode):
        w = Workers(given) if isinstance(given, int) else given
        if w.count < 1:
            raise RequestError(f"a pool needs at least one worker, got {w.count}")
        w = Workers(
            w.count,
            hardware if w.hardware is None else w.hardware,
            w.batching or batching,
            parallel if w.parallel is None else w.parallel,
        )
        if (w.parallel or {}).get("data", 1) > 1:
            raise RequestError("workers of a pool have one rank each", hint="raise their count instead")
        found.append(w)
    return found


def _together(
    run: readable.Run, effort: disagg.Effort, setups: list[Setup], counts: list[int]
) -> tuple[readable.Run, Bill]:
    """The run with the energy of both pools, and a bill with the means of their devices."""
    devices = [n * s.split.devices for n, s in zip(counts, setups)]
    total = sum(devices)
    joules = 0.0
    for s, spent in zip(setups, (effort.energy_j, run.energy_j)):
        joules += math.nan if s.tables_j is None else spent * s.split.devices
    bill = Bill(
        total,
        1,
        sum(n * s.idle_w for n, s in zip(devices, setups)) / total,
        sum(n * s.usd_per_hour for n, s in zip(devices, setups)) / total,
    )
    return replace(run, energy_j=joules / total), bill


def _engine(name: str, pools: bool = False) -> Any:
    if name == "simpy":
        return disagg.run if pools else readable.run
    from accelsim.serving.llm import fast

    return fast.run_pools if pools else fast.run


def _count(arrivals: Any) -> int:
    return len(arrivals) if hasattr(arrivals, "__len__") else DEFAULT_REQUESTS


def _traffic(
    arrivals: Any, count: int, seed: int, ranks: int
) -> tuple[Requests, npt.NDArray[np.int64] | None, int, float]:
    """Requests of one rank, thinking times, users of a closed loop (0 for open arrivals), offered rate."""
    if isinstance(arrivals, ClosedLoop):
        users = -(-arrivals.users // ranks)
        think = to_ns(arrivals.thinking_s(count, seed))
        return arrivals.lengths(count, seed), think, users, math.nan
    coming = arrivals.first(count) if isinstance(arrivals, Requests) else arrivals.generate(count, seed)
    offered = coming.rate_per_s if math.isfinite(coming.rate_per_s) else math.nan
    return coming.take(slice(0, None, ranks)), None, 0, offered
