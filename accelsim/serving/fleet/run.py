"""A fleet on the clock: requests enter, pools fire in the order of the data flow, faults strike."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError
from accelsim.serving.arrivals import ClosedLoop, Length
from accelsim.serving.fleet.call import Call
from accelsim.serving.fleet.faults import Crash, LinkDelay, LinkLoss, Restart, Slow
from accelsim.serving.fleet.place import Window, Wire
from accelsim.serving.fleet.replica import BatchKind, Kind, Replica
from accelsim.serving.fleet.routing import PoolRun
from accelsim.serving.fleet.server import Attempt, Server
from accelsim.serving.fleet.spec import Fleet
from accelsim.serving.fleet.tokens import TokenKind
from accelsim.serving.fleet.versions import Shift, Swap
from accelsim.serving.llm.policy import ContinuousBatching
from accelsim.serving.requests import Requests, to_ns
from accelsim.serving.station import ARRIVAL, COMPLETED, TIMER, Moment, Request, environment, requests_of


class Progress:
    """How far a request is in the data flow."""

    __slots__ = ("calls", "fired", "missing", "open", "parts")

    def __init__(self, needs: Sequence[int]) -> None:
        self.missing = list(needs)
        self.fired = [False] * len(needs)
        self.parts = [0] * len(needs)
        self.open = len(needs)
        self.calls: list[Call] = []


class FleetRun:
    """One run of a fleet.

    Parameters
    ----------
    fleet : Fleet
    asked : Requests
        Those that will come; only their number and their lengths count.
    seed : int

    Raises
    ------
    InfeasibleError
        A model does not run on its hardware.
    """

    def __init__(self, fleet: Fleet, asked: Requests, seed: int) -> None:
        n = len(asked)
        self.fleet = fleet
        self.asked = asked
        self.seed = seed
        self.env = environment()
        self.attempts: list[Attempt] = []
        self.calls: list[Call] = []
        self.events: list[tuple[int, str, str, str]] = []
        self.reasons: dict[int, str] = {}
        self.left = n
        self.ended: Callable[[Request], object] | None = None
        self._servers = 0
        self.wires = {
            name: (Wire(place, self.draw(f"to {name}")), Wire(place, self.draw(f"from {name}")))
            for name, place in fleet.places.items()
        }
        self.pools = [
            PoolRun(self, spec, [self._kind(k) for k in spec.replicas], spec.client or fleet.client)
            for spec in fleet.pools
        ]
        self._place = {pool.spec.name: i for i, pool in enumerate(self.pools)}
        self._needs = [len(pool.spec.after) for pool in self.pools]
        self._after = [
            [i for i, other in enumerate(self.pools) if pool.spec.name in other.spec.after]
            for pool in self.pools
        ]
        self.copies = [self._fan_out(pool.spec.fan_out, n, i) for i, pool in enumerate(self.pools)]
        self._progress: dict[int, Progress] = {}
        for pool in self.pools:
            pool.pending = n
            for kind in pool.kinds:
                for _ in range(kind.spec.count):
                    pool.launch(kind, warm=True)
        for pool in self.pools:
            pool.watch()
        self._strike()
        self._change()

    def draw(self, what: str) -> random.Random:
        """Random numbers for one purpose: what is added to a fleet leaves those of the rest as they were."""
        return random.Random(f"{self.seed} {what}")

    def _kind(self, spec: Replica) -> Kind:
        if isinstance(spec.batching, ContinuousBatching):
            return TokenKind(spec, self.asked)
        return BatchKind(spec, self.seed)

    def _fan_out(self, law: Length, n: int, place: int) -> Sequence[int] | int:
        if isinstance(law, int):
            return law
        drawn: list[int] = law.sample(n, np.random.default_rng([self.seed, 5, place])).tolist()
        return drawn

    def server(self, pool: PoolRun, kind: Kind, place: int) -> Server:
        """A further server of a kind."""
        number, self._servers = self._servers, self._servers + 1
        wires = self.wires[kind.spec.place.name]
        return Server(pool, kind, number, place, wires, self.draw(f"server {number}"))

    def calls_per_request(self, requests: Sequence[Request]) -> list[float]:
        """Mean number of calls to each pool when nothing fails."""
        n = len(requests)
        model = np.array([r.model for r in requests])
        fired: list[NDArray[np.bool_]] = []
        means = []
        for i, pool in enumerate(self.pools):
            copies = np.broadcast_to(np.atleast_1d(self.copies[i])[:n], n)
            spec = pool.spec
            asked = np.full(n, spec.model is None) | (model == spec.model)
            if spec.after:
                asked = np.any([fired[self._place[name]] for name in spec.after], axis=0)
            fired.append(asked & (copies > 0))
            means.append(float((copies * asked).sum()) / max(1, n))
        return means

    # -- requests through the pools

    def enter(self, request: Request) -> None:
        """A request comes to the fleet."""
        self._progress[request.index] = Progress(self._needs)
        for i, pool in enumerate(self.pools):
            if pool.spec.after or request.finish_ns >= 0:
                continue
            if pool.spec.model is not None and pool.spec.model != request.model:
                self._resolve(request, i, fired=False)
            else:
                self._fire(request, i)

    def _fire(self, request: Request, i: int) -> None:
        copies, progress = self.copies[i], self._progress[request.index]
        count = copies if isinstance(copies, int) else copies[request.index]
        if count == 0:
            self._resolve(request, i, fired=False)
            return
        pool = self.pools[i]
        progress.parts[i] = count
        made = [Call(pool, request, partial(self._done, i)) for _ in range(count)]
        self.calls += made
        progress.calls += made
        for call in made:
            # A call may fail at once, and with it the request.
            if request.finish_ns < 0:
                call.begin()
            else:
                call.abandon()
        self._seen(pool)

    def _seen(self, pool: PoolRun) -> None:
        """One request less will come to a pool."""
        pool.pending -= 1
        if pool.pending == 0:
            pool.close()

    def _done(self, i: int, call: Call) -> None:
        request = call.request
        if request.finish_ns >= 0:
            return
        if call.status != COMPLETED:
            self.reasons[request.index] = call.reason
            self._end(request, call.status)
            return
        progress = self._progress[request.index]
        progress.parts[i] -= 1
        if progress.parts[i] == 0:
            self._resolve(request, i, fired=True)

    def _resolve(self, request: Request, i: int, *, fired: bool) -> None:
        """A pool has done its part for a request, or has none in it."""
        progress = self._progress[request.index]
        progress.open -= 1
        progress.missing[i] = -1
        if not fired:
            self._seen(self.pools[i])
        for j in self._after[i]:
            progress.missing[j] -= 1
            progress.fired[j] = progress.fired[j] or fired
            if progress.missing[j] == 0 and request.finish_ns < 0:
                if progress.fired[j]:
                    self._fire(request, j)
                else:
                    self._resolve(request, j, fired=False)
        if progress.open == 0 and request.finish_ns < 0:
            self._end(request, COMPLETED)

    def _end(self, request: Request, status: int) -> None:
        request.status, request.finish_ns = status, int(self.env.now)
        progress = self._progress.pop(request.index)
        for call in progress.calls:
            call.abandon()
        for i, missing in enumerate(progress.missing):
            if missing > 0 or (missing == 0 and progress.parts[i] == 0):
                self._seen(self.pools[i])
        self.left -= 1
        if self.ended is not None:
            self.ended(request)

    # -- faults and changes

    def is_about(self, target: str | None, server: Server) -> bool:
        """Whether a fault's target names a server."""
        return target in (None, server.name, server.kind.spec.name)

    def _at(self, seconds: float, call: Callable[[], object]) -> None:
        Moment(self.env, round(seconds * 1e9), TIMER, call)

    def _each(self, target: str | None, call: Callable[[Server], object]) -> None:
        for pool in self.pools:
            for server in tuple(pool.servers):
                if self.is_about(target, server):
                    call(server)

    def _strike(self) -> None:
        """Set the alarm for every fault that has a time."""
        for fault in self.fleet.faults:
            if isinstance(fault, Crash):
                if fault.at_s is not None:
                    repair = round(fault.for_s * 1e9) if math.isfinite(fault.for_s) else None
                    crash = partial(self._each, fault.replica, partial(_crash, repair))
                    self._at(fault.at_s, crash)
            elif isinstance(fault, Restart):
                self._at(fault.at_s, partial(self._each, fault.replica, partial(_restart, fault.down_s)))
            elif isinstance(fault, Slow):
                self._at(fault.at_s, partial(self._each, fault.replica, partial(_slow, fault.factor)))
                if math.isfinite(fault.for_s):
                    back = partial(self._each, fault.replica, partial(_slow, 1.0 / fault.factor))
                    self._at(fault.at_s + fault.for_s, back)
            else:
                self._disturb(fault)

    def _disturb(self, fault: LinkLoss | LinkDelay) -> None:
        start, end = fault.at_s * 1e9, (fault.at_s + fault.for_s) * 1e9
        window = (
            Window(start, end, loss=fault.probability)
            if isinstance(fault, LinkLoss)
            else Window(start, end, extra_ns=round(fault.delay_s * 1e9))
        )
        for name, wires in self.wires.items():
            if fault.place in (None, name):
                for wire in wires:
                    wire.windows.append(window)

    def _change(self) -> None:
        for change in self.fleet.changes:
            pool = self.pools[self._place[self.fleet.pool_of(change).name]]
            if isinstance(change, Shift):
                self._at(change.at_s, partial(setattr, pool, "split", change.split))
            else:
                self._at(change.at_s, partial(self._swap, pool, change))

    def _swap(self, pool: PoolRun, change: Swap) -> None:
        """Start the new replicas, wait for them, move the traffic, let the old ones finish."""
        kind = self._kind(change.replica)
        old = [s for s in pool.servers if s.stays]
        pool.kinds.append(kind)
        waiting = [pool.launch(kind) for _ in range(change.replica.count)]

        def move() -> None:
            pool.split = None
            pool.scaled = kind
            for server in old:
                server.drain()

        self._when_ready(waiting, move)

    def _when_ready(self, servers: list[Server], call: Callable[[], object]) -> None:
        if all(s.seen for s in servers):
            call()
            return
        for server in servers:
            server.when_ready = lambda: self._when_ready(servers, call)

    # -- the clock

    def run(self, until_s: float = math.inf) -> None:
        """Go on until every request has ended, nothing more can happen, or to a time."""
        limit = min(until_s * 1e9, sys.float_info.max)
        step, peek = self.env.step, self.env.peek
        while self.left and peek() <= limit:
            step()


def _crash(repair_ns: int | None, server: Server) -> None:
    server.crash(repair_ns)


def _restart(down_s: float, server: Server) -> None:
    server.restart(round(down_s * 1e9))


def _slow(factor: float, server: Server) -> None:
    server.clock.slow *= factor


def run_open(
    fleet: Fleet, requests: Requests, seed: int, until_s: float = math.inf
) -> tuple[FleetRun, list[Request]]:
    """Serve requests that come at their own times."""
    held = requests_of(requests)
    _check_models(fleet, held)
    run = FleetRun(fleet, requests, seed)
    coming = iter(held)

    def following() -> None:
        request = next(coming, None)
        if request is not None:
            Moment(run.env, request.arrival_ns - run.env.now, ARRIVAL, partial(arrive, request))

    def arrive(request: Request) -> None:
        run.enter(request)
        following()

    following()
    run.run(until_s)
    return run, held


def run_closed(
    fleet: Fleet, loop: ClosedLoop, n: int, seed: int, until_s: float = math.inf
) -> tuple[FleetRun, list[Request]]:
    """Serve users who wait for their answers, until `n` requests have been sent and answered."""
    asked = loop.lengths(n, seed)
    whole = requests_of(asked)
    run = FleetRun(fleet, asked, seed)
    thinking = to_ns(loop.thinking_s(n, seed))
    sent: list[Request] = []
    owner: list[int] = []
    waiting: dict[int, int] = {}

    def ask(user: int) -> None:
        count = min(loop.samples, n - len(sent))
        waiting[user] = count
        query = whole[len(sent) : len(sent) + count]
        for request in query:
            request.arrival_ns = int(run.env.now)
        sent.extend(query)
        owner.extend([user] * count)
        for request in query:
            run.enter(request)

    def ended(request: Request) -> None:
        user = owner[request.index]
        waiting[user] -= 1
        if waiting[user] == 0:
            Moment(run.env, int(thinking[request.index]), ARRIVAL, partial(ask, user))

    run.ended = ended
    for user in range(loop.users):
        Moment(run.env, 0, ARRIVAL, partial(ask, user))
    run.run(until_s)
    return run, sent


def _check_models(fleet: Fleet, requests: Sequence[Request]) -> None:
    """Refuse requests that no pool takes."""
    entries = [p.model for p in fleet.pools if not p.after]
    if None in entries:
        return
    for request in requests:
        if request.model not in entries:
            raise RequestError(
                f"request {request.index} asks for model {request.model}, which no pool takes",
                hint="give a pool model=... or none",
            )
