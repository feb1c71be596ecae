"""An engine ready to serve: a decoder on devices, the engine's rules, its host and its surface."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import PrecisionPlan, plan
from accelsim.hardware.spec import load_hardware
from accelsim.hardware.stacks import stack_of
from accelsim.serving.llm.machine import Formats, Machine, Split
from accelsim.serving.llm.memory import Memory, memory_of
from accelsim.serving.llm.policy import ContinuousBatching, Host, Rules
from accelsim.serving.llm.shape import ModelShape, shape_of
from accelsim.serving.llm.surface import Surface, surface
from accelsim.serving.llm.work import StepWork
from accelsim.serving.llm.worker import Pace, Tables
from accelsim.workload.builders.transformer import Moe

RESERVE_B = 3e9
"""What context, libraries, recorded graphs and communication buffers keep of a device [B] (assumed)."""

HOST_LINK_BYTES_PER_S = 25e9
"""Rate at which a cache is swapped to host memory (PCIe 4.0 x16, assumed) [B/s]."""

SKEW = 1.2
"""Power law of expert loads in real traffic, as the measured expert layers have it."""

_KINDS = ("tensor", "pipeline", "data", "expert")


@dataclass(frozen=True)
class Setup:
    """A decoder on devices behind an engine.

    Attributes
    ----------
    batching : ContinuousBatching
    work : StepWork
    memory : Memory
    rules : Rules
    host : Host
    surface : Surface
    """

    batching: ContinuousBatching
    work: StepWork
    memory: Memory
    rules: Rules
    host: Host
    surface: Surface

    @property
    def shape(self) -> ModelShape:
        return self.work.model

    @property
    def device(self) -> Any:
        return self.work.machine.device

    @property
    def split(self) -> Split:
        return self.work.split

    @property
    def idle_w(self) -> float:
        """Of one device [W]; NaN when unknown."""
        return math.nan if self.device.power.idle_w is None else float(self.device.power.idle_w)

    @property
    def usd_per_hour(self) -> float:
        """Of one device; NaN when unknown."""
        return math.nan if self.device.cost.hourly_usd is None else float(self.device.cost.hourly_usd)

    @cached_property
    def tables_j(self) -> Tables | None:
        """Energy of the surface, None where the device has no coefficients."""
        tables = self.surface.tables_j
        return None if any(np.isnan(t).any() for t in tables) else tables

    @cached_property
    def pace(self) -> Pace:
        return Pace(self.rules, self.host, self.surface.tables_s, self.tables_j)

    def notes(self) -> tuple[str, ...]:
        """What was assumed of the model."""
        if not self.shape.moe:
            return ()
        return (f"expert loads follow a power law of exponent {self.work.skew:g}",)

    def check(self, prompt: Any, output: Any) -> None:
        """Every request must fit the cache by itself, and an uncut prompt the token budget.

        Raises
        ------
        RequestError
            A request without tokens.
        InfeasibleError
            One that does not fit.
        """
        rules = self.rules
        if (prompt < 1).any() or (output < 1).any():
            bad = int(np.flatnonzero((prompt < 1) | (output < 1))[0])
            raise RequestError(f"request {bad} has {prompt[bad]} prompt and {output[bad]} output tokens")
        longest = int((prompt + output + rules.drafts).max())
        if -(-longest // rules.block) > rules.blocks:
            raise InfeasibleError(
                "cache",
                f"{longest} tokens for the longest request",
                f"{self.memory.tokens} tokens beside the weights",
                "use more devices, a narrower precision or shorter prompts",
            )
        if not rules.chunked and int(prompt.max()) > rules.budget:
            raise InfeasibleError(
                "token budget",
                f"{int(prompt.max())} tokens for the longest prompt, which is not cut",
                f"max_num_batched_tokens {rules.budget}",
                "raise it or turn chunked_prefill on",
            )

    def capacity_per_s(self, prompt: float, output: float) -> float:
        """Largest sustained rate of requests of such mean lengths, as a fluid [1/s].

        A step of n decoding sequences computes u = min(n prompt / output, budget - n) tokens of prompts, so
        requests go at u / (prompt t(n, u)), if nothing of a prompt is found in the cache. n is bounded by
        `max_num_seqs` and the cache; the best of n, n / 2, n / 4 ... counts.
        """
        rules, host = self.rules, self.host
        context = prompt + output / 2
        most = max(1, int(min(rules.max_seqs, rules.budget / 2, self.memory.tokens / context)))
        best = 0.0
        for n in (most >> i for i in range(most.bit_length())):
            new = min(n * prompt / output, float(rules.budget - n))
            chunks = min(1.0, new / prompt)  # steps with a prompt in them
            step_s = self.surface.step_s(n, context, max(1, round(new / prompt)), max(1, int(new)), sampled=n)
            step_s += (host.prompt_s + host.prompt_share * step_s) * chunks
            step_s += host.step_s + host.sequence_s * (n + new / prompt)
            best = max(best, new / prompt / step_s)
        return float(best)


def setup_of(
    model: Any,
    hardware: Any,
    batching: ContinuousBatching,
    *,
    parallel: Mapping[str, int] | None = None,
    precision: str | Mapping[str, Any] | PrecisionPlan | Formats | None = None,
    host: Host | None = None,
    skew: float | None = None,
) -> Setup:
    """An engine ready to serve; parameters as `accelsim.serving.llm.serve.serve_tokens`.

    Raises
    ------
    AccelsimError
        The request makes no sense.
    InfeasibleError
        The model does not fit.
    """
    if hardware is None:
        raise RequestError("a language model needs hardware", hint="pass hardware=...")
    split = _split(parallel)
    shape = shape_of(model)
    formats = precision if isinstance(precision, Formats) else _formats(shape, precision, batching.engine)
    even = (SKEW if skew is None else skew) if shape.moe else 0.0
    device: Any = load_hardware(hardware)
    work = StepWork(shape, Machine(device, batching.engine), formats, split, even)
    added = host or host_of(batching.engine)
    memory = memory_of(
        work,
        utilisation=batching.utilisation,
        block_size=batching.block,
        max_tokens=batching.budget,
        max_sequences=batching.sequences,
        reserve=RESERVE_B,
    )
    rules = batching.rules(memory.blocks, memory.token / HOST_LINK_BYTES_PER_S)
    if batching.stream_interval == 1:
        rules = rules._replace(stream=max(1, round(stack_of(batching.engine).delivery_tokens)))
    return Setup(batching, work, memory, rules, added, surface(work, _most_tokens(rules), rules.max_seqs))


def host_of(engine: str) -> Host:
    """Constants of the host of an engine's stack."""
    s = stack_of(engine)
    return Host(
        s.host_per_step_s, s.host_per_sequence_s, s.host_per_prompts_s, s.host_per_request_s, s.prompt_share
    )


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


def _most_tokens(rules: Rules) -> int:
    """Tokens of the widest step that can occur."""
    return max(rules.budget, rules.max_seqs * (1 + rules.drafts), 1024)
