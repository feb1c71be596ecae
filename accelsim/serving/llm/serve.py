"""`serve` for language models: a decoder, devices, an engine's rules and traffic in; TTFT and TPOT out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.core.precision import PrecisionPlan, plan
from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.engine.result import Stamp
from accelsim.hardware.spec import load_hardware
from accelsim.hardware.stacks import stack_of
from accelsim.serving.arrivals import Arrivals, ClosedLoop
from accelsim.serving.llm import engine as plain
from accelsim.serving.llm.machine import Formats, Machine, Split
from accelsim.serving.llm.memory import Memory, memory_of
from accelsim.serving.llm.outcome import Bill, TokenServeResult
from accelsim.serving.llm.policy import ContinuousBatching, Host, Rules
from accelsim.serving.llm.shape import ModelShape, shape_of
from accelsim.serving.llm.surface import surface
from accelsim.serving.llm.work import StepWork
from accelsim.serving.requests import Requests, to_ns
from accelsim.workload.builders.transformer import Moe

ENGINES = ("auto", "plain", "numba")
DEFAULT_REQUESTS = 1000
RESERVE_B = 3e9
"""What context, libraries, recorded graphs and communication buffers keep of a device [B] (assumed)."""

HOST_LINK_BYTES_PER_S = 25e9
"""Rate at which a cache is swapped to host memory (PCIe 4.0 x16, assumed) [B/s]."""

SKEW = 1.2
"""Power law of expert loads in real traffic, as the measured expert layers have it."""

_KINDS = ("tensor", "pipeline", "data", "expert")


def serve_tokens(
    model: Any,
    hardware: Any,
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
) -> TokenServeResult | Infeasible:
    """Serve a language model with continuous batching.

    Parameters
    ----------
    model : str or Path
        A decoder: catalog name, workload file or HuggingFace ``config.json``.
    hardware : str or Path or Device
    arrivals : Arrivals, ClosedLoop or Requests
        Traffic with prompt and output lengths.
    batching : ContinuousBatching
    requests : int, optional
        How many; the whole of a trace, or 1,000, by default.
    seed : int
        Of arrivals and lengths.
    warmup : float
        Share of the first requests that statistics leave out.
    slo : mapping, optional
        Objectives ``ttft_s``, ``tpot_s``, ``e2e_s`` [s] that goodput counts.
    engine : {"auto", "plain", "numba"}
        Both give the same numbers; ``auto`` is numba.
    parallel : mapping, optional
        ``tensor``, ``pipeline``, ``data`` (ranks with attention of their own and a share of the traffic each)
        and ``expert`` degrees.
    precision : str, mapping or Formats, optional
        By default 16 bits, and experts in the format of their checkpoint.
    host : Host, optional
        Constants of the host; by default those of the engine's stack.
    skew : float, optional
        Exponent of the power law of expert loads; 1.2 by default.

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
    if hardware is None:
        raise RequestError("a language model needs hardware", hint="pass hardware=...")
    split = _split(parallel)
    device: Any = load_hardware(hardware)
    shape = shape_of(model)
    formats = precision if isinstance(precision, Formats) else _formats(shape, precision, batching.engine)
    even = SKEW if skew is None else skew
    work = StepWork(shape, Machine(device, batching.engine), formats, split, even if shape.moe else 0.0)
    added = host or host_of(batching.engine)
    count = (
        requests
        if requests is not None
        else len(arrivals)
        if isinstance(arrivals, Requests)
        else DEFAULT_REQUESTS
    )
    coming, think, users, offered = _traffic(arrivals, count, seed, split.data)
    prompt, output = coming.prompt_tokens, coming.output_tokens
    if prompt is None or output is None:
        raise RequestError(
            "requests of a language model need lengths", hint="pass prompt_tokens= and output_tokens="
        )
    try:
        memory = _memory(work, batching)
        rules = _rules(batching, memory, work)
        _check(prompt, output, rules, memory)
        table = surface(work, _most_tokens(rules), rules.max_seqs)
    except InfeasibleError as error:
        return error.outcome
    run_with = _engine(engine)
    known_energy = not any(np.isnan(t).any() for t in table.tables_j)
    run = run_with(
        coming.arrival_ns,
        prompt,
        output,
        rules,
        added,
        table.tables_s,
        table.tables_j if known_energy else None,
        users=users,
        think_ns=think,
    )
    notes = [f"expert loads follow a power law of exponent {even:g}"] if shape.moe else []
    if split.data > 1:
        notes.append(
            f"one of {split.data} equal data-parallel ranks was simulated with its share of the traffic"
        )
    result = TokenServeResult(
        run if known_energy else _without_energy(run),
        prompt,
        output,
        rules,
        Bill(
            split.devices,
            split.data,
            math.nan if device.power.idle_w is None else device.power.idle_w,
            math.nan if device.cost.hourly_usd is None else device.cost.hourly_usd,
        ),
        stamp=Stamp(
            VERSION,
            MODEL_VERSION,
            device.hash,
            shape.name,
            hashlib.blake2b(
                repr((batching, split, formats, added, even, arrivals, count)).encode(), digest_size=8
            ).hexdigest(),
            seed,
            run.engine,
        ),
        extra_s=added.request_s,
        warmup=warmup,
        offered_per_s=offered,
        slo=slo,
        notes=tuple(notes),
        request={"workload": shape.name, "hardware": device.name, "stack": batching.engine},
    )
    return result


def host_of(engine: str) -> Host:
    """Constants of the host of an engine's stack."""
    s = stack_of(engine)
    return Host(
        s.host_per_step_s, s.host_per_sequence_s, s.host_per_prompts_s, s.host_per_request_s, s.prompt_share
    )


def _engine(name: str) -> Any:
    if name == "plain":
        return plain.run
    from accelsim.serving.llm import fast

    return fast.run


def _without_energy(run: plain.Run) -> plain.Run:
    return replace(run, energy_j=math.nan)


def _split(parallel: Mapping[str, int] | None) -> Split:
    given = dict(parallel or {})
    unknown = sorted(set(given) - set(_KINDS))
    if unknown:
        raise RequestError(f"unknown parallelism '{unknown[0]}'", hint=did_you_mean(unknown[0], _KINDS))
    return Split(**given)


def _formats(shape: ModelShape, precision: Any, engine: str) -> Formats:
    """Formats by role: attention computes in 16 bits, or in fp8 where TensorRT-LLM has an fp8 cache."""
    stored = {b.feed_forward.expert_precision for b in shape.blocks if isinstance(b.feed_forward, Moe)} - {""}
    experts = f"weight={min(stored)},activation=bf16" if stored else ""
    if precision is None:
        return Formats(experts=experts or "bf16")
    p = plan(precision)
    weight, activation = p.weight.name, p.activation.name
    text = weight if weight == activation else f"weight={weight},activation={activation}"
    kv = p.kv.name if p.kv.bits in (8, 16) else "fp8_e4m3"
    attention = kv if engine == "trtllm" and p.kv.bits <= 8 else "bf16"
    return Formats(text, experts or text, attention, kv)


def _memory(work: StepWork, batching: ContinuousBatching) -> Memory:
    return memory_of(
        work,
        utilisation=batching.utilisation,
        block_size=batching.block,
        max_tokens=batching.budget,
        max_sequences=batching.sequences,
        reserve=RESERVE_B,
    )


def _rules(batching: ContinuousBatching, memory: Memory, work: StepWork) -> Rules:
    stack = stack_of(batching.engine)
    rules = batching.rules(memory.blocks, memory.token / HOST_LINK_BYTES_PER_S)
    if batching.stream_interval == 1:
        rules = rules._replace(stream=max(1, round(stack.delivery_tokens)))
    return rules


def _most_tokens(rules: Rules) -> int:
    """Tokens of the widest step that can occur."""
    return max(rules.budget, rules.max_seqs * (1 + rules.drafts), 1024)


def _check(prompt: Any, output: Any, rules: Rules, memory: Memory) -> None:
    """Every request must fit the cache by itself, and an uncut prompt the token budget."""
    if (prompt < 1).any() or (output < 1).any():
        bad = int(np.flatnonzero((prompt < 1) | (output < 1))[0])
        raise RequestError(f"request {bad} has {prompt[bad]} prompt and {output[bad]} output tokens")
    longest = int((prompt + output + rules.drafts).max())
    if -(-longest // rules.block) > rules.blocks:
        raise InfeasibleError(
            "cache",
            f"{longest} tokens for the longest request",
            f"{memory.tokens} tokens beside the weights",
            "use more devices, a narrower precision or shorter prompts",
        )
    if not rules.chunked and int(prompt.max()) > rules.budget:
        raise InfeasibleError(
            "token budget",
            f"{int(prompt.max())} tokens for the longest prompt, which is not cut",
            f"max_num_batched_tokens {rules.budget}",
            "raise it or turn chunked_prefill on",
        )


def _traffic(
    arrivals: Any, count: int, seed: int, ranks: int
) -> tuple[Requests, npt.NDArray[np.int64] | None, int, float]:
    """Requests of one rank, thinking times, users of a closed loop (0 for open arrivals), offered rate."""
    if isinstance(arrivals, ClosedLoop):
        users = -(-arrivals.users // ranks)
        prompt, output = arrivals.lengths(count, seed)
        think = to_ns(arrivals.thinking_s(count, seed))
        return Requests(np.zeros(count), prompt, output), think, users, math.nan
    coming = arrivals.first(count) if isinstance(arrivals, Requests) else arrivals.generate(count, seed)
    offered = coming.rate_per_s if math.isfinite(coming.rate_per_s) else math.nan
    return coming.take(slice(0, None, ranks)), None, 0, offered
