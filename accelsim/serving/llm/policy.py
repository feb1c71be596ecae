"""How serving engines of language models batch: their rules as data, with the defaults of each engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.serving.llm.prefix import grain_of

MIXED, PREFILL_FIRST = 0, 1


class Rules(NamedTuple):
    """What both engines read: numbers only.

    Attributes
    ----------
    style : int
        `MIXED` (prompts join the decoding sequences of a step) or `PREFILL_FIRST` (a step has one or the
        other, prompts first).
    chunked : bool
        Prompts are cut to the token budget; else they wait for a step that has room for all.
    budget : int
        Tokens of a step (`MIXED`), of its prompts (`PREFILL_FIRST`).
    max_seqs : int
    block : int
        Tokens of a block of cache.
    blocks : int
        Blocks of the cache.
    reserve : float
        Share of its possible output that a sequence is promised room for when it is admitted.
    swap : bool
        A preempted sequence keeps its cache in host memory; else it is computed again.
    swap_s : float
        Time to move the cache of one token between device and host [s].
    drafts : int
        Draft tokens per sequence and step.
    acceptance : float
        Probability that a draft is accepted, given that those before it were.
    draft_s : float
        Time for one round of drafts of all sequences, per draft token [s].
    padded : bool
        Steps without prompts run recorded graphs of fixed batch sizes.
    stream : int
        Tokens of a sequence that are sent together; the first reaches the user with the others.
    grain : int
        Tokens of a piece of prompt that sequences can share; 0 without a prefix cache.
    poll : int
        The engine looks for new requests once in so many steps of decoding, and after each step with prompts.
    ahead : bool
        A step is planned when the one before it begins, so requests that come later join the step after
        (overlap scheduling); an idle engine starts at once.
    """

    style: int
    chunked: bool
    budget: int
    max_seqs: int
    block: int
    blocks: int
    reserve: float
    swap: bool
    swap_s: float
    drafts: int
    acceptance: float
    draft_s: float
    padded: bool
    stream: int = 1
    grain: int = 0
    poll: int = 1
    ahead: bool = False


class Host(NamedTuple):
    """What the host adds to device time, see `accelsim.hardware.stacks`.

    Attributes
    ----------
    step_s : float
        To each step [s].
    sequence_s : float
        To each step, per sequence in it [s].
    prompt_s : float
        To each step with prompts [s].
    request_s : float
        To each request, outside of the engine's loop: tokenising, transport [s].
    prompt_share : float
        To each step with prompts, as a share of its device time.
    """

    step_s: float = 0.0
    sequence_s: float = 0.0
    prompt_s: float = 0.0
    request_s: float = 0.0
    prompt_share: float = 0.0


@dataclass(frozen=True)
class Speculative:
    """Speculative decoding: drafts are verified in one pass (Leviathan et al., arXiv:2211.17192).

    A pass yields ``(1 - a^(k + 1)) / (1 - a)`` tokens on average.

    Parameters
    ----------
    tokens : int
        Drafts per pass, k.
    acceptance : float
        a, from 0 to 1.
    draft_s : float
        Time of one draft token for the whole batch [s]; 0 for drafts without a model (n-grams).
    """

    tokens: int
    acceptance: float
    draft_s: float = 0.0

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise RequestError(f"speculative decoding needs at least one draft token, got {self.tokens}")
        if not 0.0 <= self.acceptance <= 1.0:
            raise RequestError(f"acceptance must be between 0 and 1, got {self.acceptance}")
        if self.draft_s < 0:
            raise RequestError(f"time of a draft must not be negative, got {self.draft_s}")


@dataclass(frozen=True)
class _Defaults:
    style: int
    chunked: bool
    budget: int
    max_seqs: int
    block: int
    utilisation: float
    reserve: float
    ahead: bool


ENGINES = {
    # vLLM V1: EngineArgs for online serving (recalled): 2,048 tokens and 256 sequences on 80 GB cards and
    # less, 8,192 and 1,024 on H100-class ones; gpu_memory_utilization 0.9. All three plan
    # while the step before runs (vLLM: asynchronous scheduling; TensorRT-LLM and SGLang: overlap scheduling).
    "vllm": _Defaults(MIXED, True, 8192, 1024, 16, 0.90, 0.0, True),
    # TensorRT-LLM: max_num_tokens 8192, max_batch_size 2048, GUARANTEED_NO_EVICT, 90 % of what is free
    # (recalled).
    "trtllm": _Defaults(MIXED, False, 8192, 2048, 32, 0.92, 1.0, True),
    # SGLang: chunked_prefill_size 8192, mem_fraction_static about 0.88; new_token_ratio starts at 0.7 and
    # decays (recalled): the share that is held here is its usual middle.
    "sglang": _Defaults(PREFILL_FIRST, True, 8192, 1024, 1, 0.88, 0.3, True),
}


@dataclass(frozen=True)
class ContinuousBatching:
    """Continuous batching as an engine does it; what is None takes the engine's default.

    Parameters
    ----------
    engine : {"vllm", "sglang", "trtllm"}
    max_num_seqs : int, optional
        Sequences that run at once.
    max_num_batched_tokens : int, optional
        Token budget of a step (SGLang: of a step's prompts).
    chunked_prefill : bool, optional
    block_size : int, optional
        [tokens]
    memory_utilisation : float, optional
        Share of device memory for weights, activations and cache.
    capacity_policy : {"max_utilization", "guaranteed_no_evict"}, optional
        Admit what fits now, or what fits with its whole output.
    preemption : {"recompute", "swap"}
    speculative : Speculative, optional
    stream_interval : int
        Tokens of a sequence that the server sends together.
    prefix_caching : bool
        Beginnings that prompts share are computed once and kept until their room is needed (vLLM's hashed
        blocks, SGLang's radix tree, TensorRT-LLM's block reuse). Without requests that say what they share
        it changes nothing.
    """

    engine: str = "vllm"
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    chunked_prefill: bool | None = None
    block_size: int | None = None
    memory_utilisation: float | None = None
    capacity_policy: Literal["max_utilization", "guaranteed_no_evict"] | None = None
    preemption: Literal["recompute", "swap"] = "recompute"
    speculative: Speculative | None = None
    stream_interval: int = 1
    prefix_caching: bool = True

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise RequestError(f"unknown engine '{self.engine}'", hint=did_you_mean(self.engine, ENGINES))
        for name in ("max_num_seqs", "max_num_batched_tokens", "block_size", "stream_interval"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise RequestError(f"{name} must be a positive whole number, got {value!r}")
        if self.memory_utilisation is not None and not 0 < self.memory_utilisation <= 1:
            raise RequestError(
                f"memory_utilisation must be above 0 and at most 1, got {self.memory_utilisation}"
            )
        known = ("max_utilization", "guaranteed_no_evict")
        if self.capacity_policy is not None and self.capacity_policy not in known:
            raise RequestError(
                f"unknown capacity policy '{self.capacity_policy}'", hint=f"known: {known[1:]}"
            )
        if self.preemption not in ("recompute", "swap"):
            raise RequestError(f"unknown preemption '{self.preemption}'", hint="known: recompute, swap")

    @property
    def defaults(self) -> _Defaults:
        return ENGINES[self.engine]

    @property
    def budget(self) -> int:
        return self.max_num_batched_tokens or self.defaults.budget

    @property
    def sequences(self) -> int:
        return self.max_num_seqs or self.defaults.max_seqs

    @property
    def block(self) -> int:
        return self.block_size or self.defaults.block

    @property
    def utilisation(self) -> float:
        return self.memory_utilisation or self.defaults.utilisation

    def rules(self, blocks: int, swap_s: float = 0.0) -> Rules:
        """The rules with a cache of `blocks` blocks."""
        d = self.defaults
        reserve = {None: d.reserve, "max_utilization": 0.0, "guaranteed_no_evict": 1.0}[self.capacity_policy]
        s = self.speculative
        return Rules(
            d.style,
            d.chunked if self.chunked_prefill is None else self.chunked_prefill,
            self.budget,
            self.sequences,
            self.block,
            blocks,
            reserve,
            self.preemption == "swap",
            swap_s,
            s.tokens if s else 0,
            s.acceptance if s else 0.0,
            s.draft_s if s else 0.0,
            True,
            self.stream_interval,
            grain_of(self.block) if self.prefix_caching else 0,
            ahead=d.ahead,
        )
