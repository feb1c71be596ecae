"""Who computes what in the next step: the rules of the engines, a class per style."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from accelsim.serving.llm.policy import PREFILL_FIRST, Rules


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


def scheduler_of(rules: Rules) -> Mixed | PrefillFirst:
    """The scheduler of a style."""
    return PrefillFirst() if rules.style == PREFILL_FIRST else Mixed()
