"""A replica at work: it starts, serves, crashes, restarts, drains and leaves."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from accelsim.serving.fleet.place import Wire
from accelsim.serving.fleet.replica import Kind
from accelsim.serving.fleet.tokens import TokenKind, TokenStation
from accelsim.serving.station import (
    ANSWER,
    ARRIVAL,
    COMPLETED,
    FREE,
    REJECTED,
    TIMED_OUT,
    Execution,
    Policy,
    Request,
    Station,
)

if TYPE_CHECKING:
    from accelsim.serving.fleet.call import Call
    from accelsim.serving.fleet.routing import PoolRun

STARTING, READY, DRAINING, DOWN, GONE = range(5)
"""State of a server."""


@dataclass(slots=True, eq=False)
class Attempt(Request):
    """One request to one replica: a call's first, a retry, or a hedge.

    Attributes
    ----------
    call : Call
    server : Server, optional
        None while it waits before the balancer.
    abandoned : bool
        The caller does not want the answer any more.
    cancelled : bool
        The server knows; it drops the attempt when its turn comes.
    reason : str
        Why it failed.
    routed_ns, back_ns : int
        When it left the balancer, and when its answer was back there; -1 before.
    first_ns : int
        When the first token of a language model left the engine; -1 before, or for other models.
    hits : int
        Tokens of its prompt that the engine's prefix cache held.
    """

    call: Call = None  # type: ignore[assignment]
    server: Server | None = None
    abandoned: bool = False
    cancelled: bool = False
    reason: str = ""
    routed_ns: int = -1
    back_ns: int = -1
    first_ns: int = -1
    hits: int = 0


class ServerStation(Station):
    """A station that can die, and that drops cancelled requests when their turn comes."""

    def __init__(self, server: Server, policy: Policy) -> None:
        self.server = server
        self.dead = False
        self.running: dict[int, int] = {}
        super().__init__(server.pool.env, policy, server.clock, server.answered)
        # One list for all lives of the server, so that executions are numbered on.
        self.executions = server.executions

    def execute(self, batch: Sequence[Request], padded: int = 0, instance: int | None = None) -> None:
        if self.dead:
            return
        attempts = cast("Sequence[Attempt]", batch)
        live = [a for a in attempts if not a.cancelled]
        if len(live) < len(batch):
            for attempt in attempts:
                if attempt.cancelled:
                    self.refuse(attempt, TIMED_OUT)
            if not live:
                self.at(self.now, self._offer, FREE)
                return
            pad: Callable[[int], int] | None = getattr(self.server.kind.spec.batching, "padded", None)
            padded = pad(len(live)) if pad is not None else 0
        chosen = self.idle[0] if instance is None else instance
        self.running[chosen] = len(self.executions)
        super().execute(live, padded, chosen)
        self.server.pool.busy(1)

    def _offer(self) -> None:
        """The instance that got nothing but cancelled requests asks again."""
        if self.idle and not self.dead:
            self.scheduler.free(self.idle[0])

    def _free(self, instance: int) -> None:
        if not self.dead:
            del self.running[instance]
            self.server.pool.busy(-1)
        super()._free(instance)

    def die(self) -> None:
        """Whatever runs ends now, unanswered."""
        self.dead = True
        for number in self.running.values():
            execution = self.executions[number]
            left = self.now - execution.start_ns
            self.server.cut[number] = left / max(1, execution.held_ns)
            execution.held_ns = left
        self.server.pool.busy(-len(self.running))
        self.running.clear()


class Server:
    """One replica of a fleet.

    Parameters
    ----------
    pool : PoolRun
    kind : Kind
    number : int
        Unique in the fleet.
    place : int
        Number among its kind.
    wires : tuple of Wire
        To it and back.
    """

    def __init__(
        self,
        pool: PoolRun,
        kind: Kind,
        number: int,
        place: int,
        wires: tuple[Wire, Wire],
        draw: random.Random,
    ) -> None:
        self.pool = pool
        self.kind = kind
        self.number = number
        self.name = f"{kind.spec.name}-{place}"
        self.clock = kind.clock(number)
        self.weight = kind.weight
        self.state = GONE
        self.seen = False
        self.outstanding = 0
        self.latency_ns = 0.0
        self.latency_at_ns = 0
        self.executions: list[Execution] = []
        self.cut: dict[int, float] = {}
        self.joules: list[float] = []
        self.cache_use: list[float] = []
        self.inside: dict[int, Attempt] = {}
        self.alive_ns: list[list[int]] = []
        self.up_ns: list[list[int]] = []
        self.station: ServerStation | TokenStation | None = None
        self._to, self._back = wires
        self._draw = draw
        self._life = 0
        self._drained: Callable[[], object] | None = None
        self.when_ready: Callable[[], object] | None = None
        # What the server adds on the way in and out belongs to the way: half of it each.
        whole = round(kind.input_output_s * 1e9)
        self._in_ns, self._out_ns = whole // 2, whole - whole // 2
        self.delay_ns = round(kind.spec.place.delay_s * 1e9)

    # -- life

    def launch(self, delay_ns: int | None = None) -> None:
        """Start; ready after the cold start, or a given time."""
        now = self.pool.now
        wait = round(self.kind.spec.start_s * 1e9) if delay_ns is None else delay_ns
        if not self.alive_ns or self.alive_ns[-1][1] >= 0:
            self.alive_ns.append([now, -1])
        self._turn(STARTING, "start")
        self._later(wait, self._ready)

    def _later(self, wait: int, call: Callable[[], object]) -> None:
        """Call after a time, unless the server's life takes another turn first."""
        if wait == 0:
            call()
            return
        life = self._life
        self.pool.at(self.pool.now + wait, lambda: call() if self._life == life else None)

    def _ready(self) -> None:
        self.station = self._new_station()
        if self.pool.closed:
            self.station.close()
        self.up_ns.append([self.pool.now, -1])
        self.latency_ns = 0.0
        self._turn(READY, "ready")
        for fault in self.pool.crashes(self):
            wait = round(self._draw.expovariate(1.0 / fault.mttf_s) * 1e9)  # type: ignore[operator]
            repair = round(self._draw.expovariate(1.0 / fault.mttr_s) * 1e9)
            self._later(max(1, wait), partial(self.crash, repair))
        self.pool.more_room()
        if self.when_ready is not None:
            self.when_ready()

    def _new_station(self) -> ServerStation | TokenStation:
        kind = self.kind
        if isinstance(kind, TokenKind):
            return TokenStation(self, kind)
        policy: Any = kind.spec.batching
        return ServerStation(self, policy)

    def hits(self, request: int) -> int:
        """Tokens of a request's prompt that its prefix cache holds."""
        return self.station.hits(request) if isinstance(self.station, TokenStation) else 0

    def crash(self, repair_ns: int | None) -> None:
        """Lose everything inside; back after the repair, never with None."""
        if self.state not in (READY, DRAINING, STARTING):
            return
        leaves = self.state == DRAINING and self._drained is None
        self._stop()
        self._turn(DOWN, "crash")
        lost, self.inside = self.inside, {}
        for attempt in lost.values():
            attempt.status, attempt.reason, attempt.finish_ns = REJECTED, "crash", self.pool.now
            self._return(attempt)
        if leaves or repair_ns is None:
            self.leave()
        else:
            self._later(max(1, repair_ns), partial(self.launch, 0))

    def restart(self, down_ns: int) -> None:
        """Finish what is inside, be down for a while, come back."""
        if self.state == READY:
            self._drain("restart", partial(self._rest, down_ns))

    def _rest(self, down_ns: int) -> None:
        self._stop()
        self._turn(DOWN, "down")
        self._later(down_ns, partial(self.launch, 0))

    def drain(self) -> None:
        """Finish what is inside, then leave."""
        if self.state in (STARTING, DOWN):
            self.leave()
        elif self.state == READY:
            self._drain("drain", None)
        elif self.state == DRAINING:
            self._drained = None

    def _drain(self, what: str, then: Callable[[], object] | None) -> None:
        self._drained = then
        self._turn(DRAINING, what)
        if self.station is not None:
            self.station.close()
        if self.outstanding == 0:
            self._empty()

    def _empty(self) -> None:
        if self._drained is not None:
            self._drained()
        else:
            self.leave()

    def leave(self) -> None:
        """Gone for good."""
        self._stop()
        self.alive_ns[-1][1] = self.pool.now
        self._turn(GONE, "gone")

    def _stop(self) -> None:
        if self.station is not None and not self.station.dead:
            self.station.die()
        if self.up_ns and self.up_ns[-1][1] < 0:
            self.up_ns[-1][1] = self.pool.now

    def _turn(self, state: int, what: str) -> None:
        """Another state; the balancer learns of crashes only after a while."""
        self.state = state
        self._life += 1
        self.pool.happened(self, what)
        if what == "crash" and self.pool.detect_ns:
            self.pool.at(self.pool.now + self.pool.detect_ns, self._notice)
            self.pool.refresh()
        else:
            self._notice()

    def _notice(self) -> None:
        self.seen = self.state == READY
        self.pool.refresh()

    @property
    def stays(self) -> bool:
        """Whether it serves, or will again."""
        coming_back = self.state == DRAINING and self._drained is not None
        return coming_back or self.state in (STARTING, READY, DOWN)

    # -- requests

    def send(self, attempt: Attempt) -> None:
        """A request leaves the balancer for this server."""
        self.outstanding += 1
        attempt.server = self
        attempt.routed_ns = now = self.pool.now
        arrival = self._to.arrival_ns(now, self.pool.spec.request_bytes) + self._in_ns
        if arrival == now:
            self._deliver(attempt)
        else:
            self.pool.at(arrival, partial(self._deliver, attempt), ARRIVAL)

    def _deliver(self, attempt: Attempt) -> None:
        if attempt.cancelled:
            attempt.status, attempt.finish_ns = TIMED_OUT, self.pool.now
            self._return(attempt)
        elif self.station is None or self.station.dead:
            attempt.status, attempt.reason, attempt.finish_ns = REJECTED, "crash", self.pool.now
            self._return(attempt)
        else:
            self.inside[attempt.index] = attempt
            self.station.submit(attempt)

    def answered(self, request: Any) -> None:
        """The station has an answer, or a refusal."""
        if self.inside.pop(request.index, None) is not None:
            if request.status == REJECTED and not request.reason:
                request.reason = "queue full"
            elif request.status == TIMED_OUT and not request.cancelled:
                request.reason = "queue timeout"
            self._return(request)

    def _return(self, attempt: Attempt) -> None:
        now = self.pool.now
        arrival = self._back.arrival_ns(now, self.pool.spec.answer_bytes) + self._out_ns
        # Errors come back by way of the clock: their callers may send again, to this very scheduler.
        if arrival == now and attempt.status == COMPLETED:
            self._arrive_back(attempt)
        else:
            self.pool.at(arrival, partial(self._arrive_back, attempt), ANSWER)

    def _arrive_back(self, attempt: Attempt) -> None:
        self.outstanding -= 1
        attempt.back_ns = self.pool.now
        self.pool.returned(self, attempt)
        if self.state == DRAINING and self.outstanding == 0:
            self._empty()

    def cancel(self, attempt: Attempt) -> None:
        """The caller's cancellation takes the way to the server."""
        if self.delay_ns:
            self.pool.at(self.pool.now + self.delay_ns, lambda: setattr(attempt, "cancelled", True))
        else:
            attempt.cancelled = True
