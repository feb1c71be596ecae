"""The readable engine: one loop, a scheduler per style, a pool of cache blocks.

A step takes what the surface says for its mix of tokens, plus the host. Times are whole nanoseconds.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.serving.llm.policy import PREFILL_FIRST, Host, Rules
from accelsim.serving.llm.steptime import BINS, accepted, gap_bin, padded
from accelsim.serving.llm.surface import lookup

Tables = tuple[Any, Any, Any, Any]


@dataclass
class Sequence:
    """A request in the engine.

    Attributes
    ----------
    number, prompt, output : int
    cached : int
        Tokens of a shared prefix that the cache held when it was admitted.
    done : int
        Tokens whose keys and values are in the cache.
    emitted : int
        Tokens that the user has.
    held : int
        Blocks.
    promised : int
        Blocks that admission counted for it.
    last_ns : int
        When its last token came.
    away : bool
        Its cache is in host memory.
    """

    number: int
    prompt: int
    output: int
    done: int = 0
    emitted: int = 0
    held: int = 0
    promised: int = 0
    last_ns: int = 0
    away: bool = False

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one comes out."""
        return self.prompt + self.emitted - self.done

    @property
    def decoding(self) -> bool:
        return self.emitted > 0 and self.remaining == 1


@dataclass
class Step:
    """Who computes what in a step."""

    work: list[tuple[Sequence, int]] = field(default_factory=list)
    moved: int = 0
    """Tokens whose cache is swapped."""


class State:
    """What schedulers read and change.

    Parameters
    ----------
    rules : Rules
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.free = rules.blocks
        self.promised = 0
        self.preemptions = 0

    def blocks(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.rules.block)

    def take(self, s: Sequence, tokens: int) -> bool:
        """Room for `tokens` more tokens of a sequence, if there is."""
        need = self.blocks(s.done + tokens) - s.held
        if need > self.free:
            return False
        if need > 0:
            self.free -= need
            s.held += need
        return True

    def release(self, s: Sequence) -> None:
        """Give back all blocks."""
        self.free += s.held
        self.promised -= s.promised
        s.held = s.promised = 0

    def preempt(self, step: Step) -> Sequence:
        """Take the cache of the sequence that was admitted last; it waits in front."""
        victim = self.running.pop()
        self.release(victim)
        if self.rules.swap and victim.emitted:
            victim.away = True
            step.moved += victim.done
        else:
            victim.done = 0
        self.waiting.appendleft(victim)
        self.preemptions += 1
        return victim

    def fits(self, s: Sequence) -> bool:
        """Whether admission may promise the sequence its room."""
        r = self.rules
        if r.reserve <= 0:
            return True
        return self.promised + self.blocks(s.prompt + int(r.reserve * s.output)) <= r.blocks

    def admit(self, s: Sequence, tokens: int, step: Step) -> None:
        """Move the head of the queue into the running batch; its blocks are taken."""
        self.waiting.popleft()
        self.running.append(s)
        if self.rules.reserve > 0:
            s.promised = self.blocks(s.prompt + int(self.rules.reserve * s.output))
            self.promised += s.promised
        if s.away:
            s.away = False
            step.moved += s.done
        step.work.append((s, tokens))


class Mixed:
    """vLLM and TensorRT-LLM: running sequences first, in order of admission, then the queue, in one step.

    Nobody is admitted in a step that had to preempt.
    """

    def plan(self, state: State) -> Step:
        """The next step."""
        rules, step, budget = state.rules, Step(), state.rules.budget
        place, preempted = 0, False
        while place < len(state.running) and budget > 0:
            s = state.running[place]
            tokens = min(1 + rules.drafts if s.decoding else s.remaining, budget)
            while not state.take(s, tokens):
                preempted = True
                if state.preempt(step) is s:
                    break
            if place >= len(state.running):
                break
            step.work.append((s, tokens))
            budget -= tokens
            place += 1
        while state.waiting and not preempted and len(state.running) < rules.max_seqs and budget > 0:
            s = state.waiting[0]
            if s.remaining > budget and not rules.chunked and not s.emitted:
                break
            tokens = min(s.remaining, budget)
            if not state.fits(s) or not state.take(s, tokens):
                break
            state.admit(s, tokens, step)
            budget -= tokens
        return step


class PrefillFirst:
    """SGLang: while prompts wait and fit, a step is theirs alone; else all running sequences decode."""

    def plan(self, state: State) -> Step:
        """The next step."""
        rules, step, budget = state.rules, Step(), state.rules.budget
        last = state.running[-1] if state.running else None
        if last is not None and not last.decoding:  # the chunked prompt goes on
            tokens = min(last.remaining, budget)
            if state.take(last, tokens):
                step.work.append((last, tokens))
                budget -= tokens
        while state.waiting and len(state.running) < rules.max_seqs and budget > 0:
            s = state.waiting[0]
            if s.remaining > budget and not rules.chunked and step.work:
                break
            tokens = min(s.remaining, budget)
            if not state.fits(s) or not state.take(s, tokens):
                break
            state.admit(s, tokens, step)
            budget -= tokens
        if step.work:
            return step
        place = 0
        while place < len(state.running):
            s = state.running[place]
            tokens = 1 + rules.drafts if s.decoding else 0
            gone = False
            while not state.take(s, tokens):
                gone = state.preempt(step) is s
                if gone:
                    break
            if not gone and tokens:
                step.work.append((s, tokens))
            place += 1
        return step


@dataclass(frozen=True)
class Run:
    """What an engine hands back, by request and in total.

    Attributes
    ----------
    arrival_ns, first_ns, finish_ns : array of int64
    steps, busy_ns, preemptions, tokens : int
        `tokens` are those that users got.
    kv_peak : int
        Most blocks held at once.
    kv_ns : float
        Blocks held, summed over time.
    energy_j : float
        Dynamic energy of one device.
    gaps : array of int64
        Gaps between tokens of a sequence by bins of 2 %.
    engine : str
    """

    arrival_ns: npt.NDArray[np.int64]
    first_ns: npt.NDArray[np.int64]
    finish_ns: npt.NDArray[np.int64]
    steps: int
    busy_ns: int
    preemptions: int
    tokens: int
    kv_peak: int
    kv_ns: float
    energy_j: float
    gaps: npt.NDArray[np.int64]
    engine: str


def run(
    arrival_ns: npt.NDArray[np.int64],
    prompt: npt.NDArray[np.int64],
    output: npt.NDArray[np.int64],
    rules: Rules,
    host: Host,
    tables_s: Tables,
    tables_j: Tables | None = None,
    *,
    users: int = 0,
    think_ns: npt.NDArray[np.int64] | None = None,
    watch: Callable[[int, State, Step], None] | None = None,
) -> Run:
    """Serve requests in order.

    Parameters
    ----------
    arrival_ns : array
        Arrival times, not decreasing; of a closed loop those of the first `users` requests count.
    prompt, output : array
        Tokens of each request.
    rules : Rules
    host : Host
    tables_s, tables_j : tuple of arrays
        Of a `Surface`; without the latter energy is not counted.
    users : int
        Above 0: a closed loop in which each answer brings the next request.
    think_ns : array, optional
        Time from an answer to the request that follows it, by request.
    watch : callable, optional
        Called with time, state and step before each step.
    """
    n = len(prompt)
    arrival, first, finish = arrival_ns.copy(), np.full(n, -1), np.full(n, -1)
    state = State(rules)
    scheduler = PrefillFirst() if rules.style == PREFILL_FIRST else Mixed()
    coming = sorted(arrival_ns[: min(users, n) if users else n].tolist())
    known, clock = len(coming), 0
    begun = steps = busy = tokens_out = peak = 0
    kv_ns = energy = 0.0
    gaps = np.zeros(BINS, dtype=np.int64)
    position = 0
    while True:
        while position < len(coming) and coming[position] <= clock:
            arrival[begun] = coming[position]
            state.waiting.append(Sequence(begun, int(prompt[begun]), int(output[begun])))
            begun += 1
            position += 1
        step = scheduler.plan(state)
        if not step.work:
            if position >= len(coming):
                break
            clock = coming[position]
            continue
        if watch is not None:
            watch(clock, state, step)
        seconds, joules = _cost(step, rules, host, tables_s, tables_j)
        taken = int(seconds * 1e9 + 0.5)
        clock += taken
        busy += taken
        steps += 1
        energy += joules
        used = rules.blocks - state.free
        kv_ns += float(used) * taken
        peak = max(peak, used)
        ended = False
        for s, tokens in step.work:
            got = 0
            if s.decoding:
                got = 1 + accepted(s.number, s.emitted, tokens - 1, rules.acceptance)
                got = min(got, s.output - s.emitted)
                s.done += got
            else:
                s.done += tokens
                got = 1 if s.remaining == 0 else 0
            if not got:
                continue
            if s.emitted:
                gaps[gap_bin(clock - s.last_ns)] += 1
                gaps[0] += got - 1
            s.last_ns = clock
            s.emitted += got
            tokens_out += got
            if first[s.number] < 0 and s.emitted >= min(rules.stream, s.output):
                first[s.number] = clock
            if s.emitted >= s.output:
                finish[s.number] = clock
                state.release(s)
                ended = True
                if users and known < n:
                    think = 0 if think_ns is None else int(think_ns[known])
                    bisect.insort(coming, clock + think, lo=position)
                    known += 1
        if ended:
            state.running = [s for s in state.running if s.emitted < s.output]
    return Run(
        arrival, first, finish, steps, busy, state.preemptions, tokens_out, peak, kv_ns, energy, gaps, "plain"
    )


def _cost(
    step: Step, rules: Rules, host: Host, tables_s: Tables, tables_j: Tables | None
) -> tuple[float, float]:
    """Time [s] and energy [J] of a step."""
    decoding = chunks = new = sampled = context = past = drafted = 0
    for s, tokens in step.work:
        if s.decoding:
            decoding += 1
            drafted += tokens
            context += s.done + 1
            sampled += tokens
        else:
            chunks += 1
            new += tokens
            past += s.done
            sampled += tokens == s.remaining
    total = drafted + new
    if rules.padded and chunks == 0:
        total = padded(total, len(tables_s[0]) - 1)
    mean = context / decoding if decoding else 0.0
    before = past / chunks if chunks else 0.0
    rows = min(sampled, len(tables_s[1]) - 1)

    def at(tables: Tables) -> float:
        return lookup(*tables, total, rows, decoding, mean, chunks, new, before)

    seconds = at(tables_s) + host.step_s + host.sequence_s * (decoding + chunks)
    if chunks:
        seconds += host.prompt_s
    seconds += step.moved * rules.swap_s
    if drafted > decoding:
        seconds += rules.drafts * rules.draft_s
    return seconds, 0.0 if tables_j is None else at(tables_j)
