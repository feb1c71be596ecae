"""Who computes what in the next step: the rules of the engines, a class per style."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Row
from dataclasses import dataclass, field

from accelsim.serving.llm.policy import PREFILL_FIRST, Rules
from accelsim.serving.llm.prefix import PrefixCache


@dataclass(eq=False)
class Sequence:
    """A request in the engine.

    Attributes
    ----------
    number, prompt, output : int
    keys : sequence of int
        Pieces of the prompt that others may share, see `Prefixes`.
    done : int
        Tokens whose keys and values are in the cache.
    emitted : int
        Tokens that the user has.
    held : int
        Blocks of its own.
    shared : int
        Pieces that it uses with others.
    promised : int
        Blocks that admission counted for it.
    hits : int
        Tokens that the cache held when it was first admitted; -1 before.
    first_ns, last_ns, finish_ns : int
        When its first and its last token came, and when it ended; -1 before.
    away : bool
        Its cache is in host memory.
    """

    number: int
    prompt: int
    output: int
    keys: Row[int] = ()
    done: int = 0
    emitted: int = 0
    held: int = 0
    shared: int = 0
    promised: int = 0
    hits: int = -1
    first_ns: int = -1
    last_ns: int = -1
    finish_ns: int = -1
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

    Blocks are free, of one sequence, or shared; shared pieces that nobody uses count as free until their room
    is needed.

    Parameters
    ----------
    rules : Rules
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.cache = PrefixCache()
        self.free = rules.blocks
        self.promised = 0
        self.preemptions = 0
        self._piece = rules.grain // rules.block

    def blocks(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.rules.block)

    def take(self, s: Sequence, tokens: int) -> bool:
        """Room for `tokens` more tokens of a sequence, if there is."""
        need = self.blocks(s.done + tokens) - s.held - s.shared * self._piece
        if need > self.free:
            return False
        if need > 0:
            self.free -= need
            s.held += need
            self._make_room()
        return True

    def _make_room(self) -> None:
        while len(self.cache.idle) * self._piece > self.free:
            self.cache.evict()

    def release(self, s: Sequence) -> None:
        """Give back all blocks; the last piece of a prompt will be forgotten before those in front of it."""
        self.free += s.held
        for key in reversed(s.keys[: s.shared]):
            self.free += self._piece * self.cache.leave(key)
        self.promised -= s.promised
        s.held = s.shared = s.promised = 0

    def publish(self, s: Sequence, tokens: int) -> None:
        """Let others use the whole pieces among the first `tokens` tokens; a second copy is given back."""
        if s.shared == len(s.keys):
            return
        most = min(len(s.keys), tokens // self.rules.grain)
        while s.shared < most:
            key = s.keys[s.shared]
            known = key in self.cache.users
            was_idle = self.cache.use(key)
            if known and not was_idle:  # an idle copy, which counted as free, takes the place of its own
                self.free += self._piece
            s.held -= self._piece
            s.shared += 1

    def found(self, s: Sequence) -> int:
        """Pieces of a waiting sequence that are there; one token is always left to compute."""
        if s.done or not s.keys:
            return 0
        return self.cache.held(s.keys, min(len(s.keys), (s.remaining - 1) // self.rules.grain))

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
        return self.rules.reserve <= 0 or self.promised + self._promise(s) <= self.rules.blocks

    def _promise(self, s: Sequence) -> int:
        return self.blocks(s.prompt + int(self.rules.reserve * s.output)) if self.rules.reserve > 0 else 0

    def admit(self, step: Step, budget: int, *, alone: bool) -> None:
        """Move the head of the queue into the running batch, again and again, while there is room.

        `alone`: a prompt that is not cut may exceed the budget when it has the step for itself.
        """
        rules = self.rules
        while self.waiting and len(self.running) < rules.max_seqs and budget > 0:
            s = self.waiting[0]
            pieces = self.found(s)
            left = s.remaining - pieces * rules.grain
            if left > budget and not rules.chunked and (step.work if alone else not s.emitted):
                return
            tokens = min(left, budget)
            if not self.fits(s) or not self._enter(s, pieces, tokens):
                return
            self.waiting.popleft()
            self.running.append(s)
            s.promised = self._promise(s)
            self.promised += s.promised
            if s.away:
                s.away = False
                step.moved += s.done
            if s.hits < 0:
                s.hits = s.shared * rules.grain
            step.work.append((s, tokens))
            if not alone:
                self.publish(s, s.done + tokens)
            budget -= tokens

    def _enter(self, s: Sequence, pieces: int, tokens: int) -> bool:
        """Use the pieces that are there and take blocks for the tokens behind them, if there is room."""
        idle = sum(key in self.cache.idle for key in s.keys[:pieces])
        need = self.blocks(s.done + pieces * self.rules.grain + tokens) - pieces * self._piece
        if need + idle * self._piece > self.free:
            return False
        for key in s.keys[:pieces]:
            self.cache.use(key)
        self.free -= idle * self._piece
        s.shared = pieces
        s.done += pieces * self.rules.grain
        return self.take(s, tokens)


class Mixed:
    """vLLM and TensorRT-LLM: running sequences first, in order of admission, then the queue, in one step.

    Nobody is admitted in a step that had to preempt. What a step computes is shared from the next admission
    on, in the same step.
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
            state.publish(s, s.done + tokens)
            budget -= tokens
            place += 1
        if not preempted:
            state.admit(step, budget, alone=False)
        return step

    def settled(self, state: State, s: Sequence) -> None:
        """Nothing is left to do when a step has ended."""


class PrefillFirst:
    """SGLang: while prompts wait and fit, a step is theirs alone; else all running sequences decode.

    What a step computes is shared when it has ended.
    """

    def plan(self, state: State) -> Step:
        """The next step."""
        rules, step, budget = state.rules, Step(), state.rules.budget
        last = state.running[-1] if state.running else None
        if last is not None and not last.decoding:  # the chunked prompt goes on
            tokens = min(last.remaining, budget)
            if state.take(last, tokens):
                step.work.append((last, tokens))
                budget -= tokens
        state.admit(step, budget, alone=True)
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

    def settled(self, state: State, s: Sequence) -> None:
        """A sequence has computed its part of a step."""
        state.publish(s, s.done)


def scheduler_of(rules: Rules) -> Mixed | PrefillFirst:
    """The scheduler of a style."""
    return PrefillFirst() if rules.style == PREFILL_FIRST else Mixed()
