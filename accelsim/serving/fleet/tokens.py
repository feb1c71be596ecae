"""Replicas that serve a language model token by token: the engine of `serve` behind a fleet's balancer."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.serving.fleet.replica import Kind, Replica
from accelsim.serving.llm.policy import ContinuousBatching
from accelsim.serving.llm.prefix import Prefixes, prefixes_of
from accelsim.serving.llm.scheduler import Sequence, Step
from accelsim.serving.llm.setup import setup_of
from accelsim.serving.llm.worker import Worker
from accelsim.serving.requests import Requests
from accelsim.serving.station import COMPLETED, TIMED_OUT, Execution

if TYPE_CHECKING:
    from accelsim.serving.fleet.server import Attempt, Server

OPTIONS = ("parallel", "precision", "host", "skew")


class TokenKind(Kind):
    """A kind whose servers are engines with continuous batching.

    Parameters
    ----------
    spec : Replica
    asked : Requests
        All requests of the run.

    Raises
    ------
    RequestError
        Requests without lengths, an unknown option.
    InfeasibleError
        The model or the longest request does not fit.
    """

    instances = 1

    def __init__(self, spec: Replica, asked: Requests) -> None:
        super().__init__(spec)
        batching = spec.batching
        if not isinstance(batching, ContinuousBatching):
            raise RequestError(f"replica '{spec.name}' has no continuous batching")
        for name in spec.options:
            if name not in OPTIONS:
                hint = did_you_mean(name, OPTIONS)
                raise RequestError(f"unknown option '{name}' of replica '{spec.name}'", hint=hint)
        prompt, output = asked.prompt_tokens, asked.output_tokens
        if prompt is None or output is None:
            raise RequestError(
                "requests of a language model need lengths", hint="pass prompt_tokens= and output_tokens="
            )
        self.setup = setup_of(spec.model, spec.hardware, batching, **spec.options)
        if self.setup.split.data > 1:
            raise RequestError("a replica of a language model is one rank", hint="raise its count instead")
        self.setup.check(prompt, output)
        self.prefixes: Prefixes | None = prefixes_of(asked, self.setup.rules.grain)
        self.max_batch = self.setup.rules.max_seqs
        self.capacity_per_s = self.setup.capacity_per_s(float(prompt.mean()), float(output.mean()))
        self.devices = self.setup.split.devices
        self.input_output_s = self.setup.host.request_s

    def keys(self, request: int) -> Row[int]:
        """Pieces of a request's prompt that others may share."""
        return () if self.prefixes is None else self.prefixes.of(request)

    def clock(self, number: int) -> Pulse:
        return Pulse()

    def joules(self, server: Server) -> NDArray[np.float64] | None:
        """Dynamic energy of each step, and idle power while it lasts."""
        if self.setup.tables_j is None:
            return None
        held_s = np.array([x.held_ns for x in server.executions]) / 1e9
        return self.devices * np.array(server.joules) + self.idle_w * held_s

    def identity(self) -> bytes:
        s = self.setup
        return repr((s.rules, s.host, s.split, s.work.formats, s.work.skew)).encode()

    def hashes(self) -> tuple[str, str]:
        return self.setup.device.hash, self.setup.shape.name


@dataclass
class Pulse:
    """Steps that begin take `slow` times as long."""

    slow: float = 1.0


class TokenStation(Worker):
    """An engine that can die, and that drops cancelled requests before its next step."""

    def __init__(self, server: Server, kind: TokenKind) -> None:
        super().__init__(server.pool.env, kind.setup.pace, self._answer)
        self.server, self.kind = server, kind
        self.dead = False
        self._attempts: dict[int, Attempt] = {}
        self._blocks = kind.setup.rules.blocks

    def submit(self, attempt: Attempt) -> None:
        """A request enters now."""
        attempt.entered_ns = int(self.env.now)
        self._attempts[attempt.index] = attempt
        keys = self.kind.keys(attempt.call.request.index)
        self.enter(Sequence(attempt.index, attempt.prompt_tokens, attempt.output_tokens, keys))

    def hits(self, request: int) -> int:
        """Tokens of a prompt that the prefix cache holds now."""
        keys = self.kind.keys(request)
        return self.state.cache.held(keys, len(keys)) * self.pace.rules.grain

    def close(self) -> None:
        """Nothing is held back for more requests."""

    def die(self) -> None:
        """Whatever runs ends now, unanswered."""
        self.dead = True
        if self.step is not None:
            number = len(self.server.executions) - 1
            execution = self.server.executions[number]
            left = int(self.env.now) - execution.start_ns
            self.server.cut[number] = left / max(1, execution.held_ns)
            execution.held_ns = left
            self.server.pool.busy(-1)

    def _begin(self) -> None:
        if self.dead:
            return
        self._drop()
        self.slow = self.server.clock.slow
        super()._begin()

    def begun(self, step: Step, taken_ns: int, joules: float) -> None:
        server, now, size = self.server, int(self.env.now), len(step.work)
        for s, _ in step.work:
            attempt = self._attempts[s.number]
            if attempt.start_ns < 0:
                attempt.start_ns, attempt.execution = now, len(server.executions)
        server.executions.append(Execution(0, now, taken_ns, taken_ns, size, size))
        server.joules.append(joules)
        server.cache_use.append(1.0 - self.state.free / self._blocks)
        server.pool.busy(1)

    def _end(self) -> None:
        if not self.dead:
            self.server.pool.busy(-1)
            super()._end()

    def _answer(self, s: Sequence) -> None:
        attempt = self._attempts.pop(s.number)
        attempt.status = COMPLETED
        attempt.first_ns, attempt.finish_ns, attempt.hits = s.first_ns, s.finish_ns, max(0, s.hits)
        self.server.answered(attempt)

    def _drop(self) -> None:
        """Engines look for aborted requests between steps; what these held is free again."""
        if not any(a.cancelled for a in self._attempts.values()):
            return
        gone = {number for number, a in self._attempts.items() if a.cancelled}
        state = self.state
        for s in [*state.waiting, *state.running]:
            if s.number in gone:
                state.release(s)
        self.unseen = [(came, s) for came, s in self.unseen if s.number not in gone]
        state.waiting = type(state.waiting)(s for s in state.waiting if s.number not in gone)
        state.running = [s for s in state.running if s.number not in gone]
        for number in sorted(gone):
            attempt: Any = self._attempts.pop(number)
            attempt.status, attempt.finish_ns = TIMED_OUT, int(self.env.now)
            self.server.answered(attempt)
