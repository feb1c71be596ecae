"""A pool at work: admission, versions, the balancer, the queue before it, and the number of replicas."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from accelsim.serving.fleet.autoscaler import Sample
from accelsim.serving.fleet.balancers import balancer_of
from accelsim.serving.fleet.call import Call
from accelsim.serving.fleet.client import Client
from accelsim.serving.fleet.faults import Crash
from accelsim.serving.fleet.replica import Kind
from accelsim.serving.fleet.server import GONE, READY, STARTING, Attempt, Server
from accelsim.serving.fleet.spec import Pool
from accelsim.serving.fleet.versions import draw_version
from accelsim.serving.station import COMPLETED, REJECTED, TIMER, Moment

if TYPE_CHECKING:
    from accelsim.serving.fleet.run import FleetRun


class Meter:
    """What happened in a pool since the autoscaler last looked: integrals over time."""

    def __init__(self) -> None:
        self.arrivals = 0
        self.requests = 0
        self.instances = 0
        self.time_ns = 0
        self._since_ns = 0
        self._request_ns = 0
        self._instance_ns = 0
        self._room_ns = 0

    def advance(self, now: int, room: int) -> None:
        """Add up to now, with so many instances at hand."""
        span = now - self.time_ns
        self._request_ns += self.requests * span
        self._instance_ns += self.instances * span
        self._room_ns += room * span
        self.time_ns = now

    def sample(self, ready: int, replicas: int) -> Sample:
        """The sample, and a new beginning."""
        span = max(1, self.time_ns - self._since_ns)
        taken = Sample(
            self.time_ns / 1e9,
            span / 1e9,
            self._request_ns / span,
            self.arrivals,
            self._instance_ns / self._room_ns if self._room_ns else 0.0,
            ready,
            replicas,
        )
        self.arrivals = 0
        self._since_ns = self.time_ns
        self._request_ns = self._instance_ns = self._room_ns = 0
        return taken


class PoolRun:
    """One pool of a running fleet."""

    def __init__(self, run: FleetRun, spec: Pool, kinds: Sequence[Kind], client: Client) -> None:
        self.run = run
        self.env = run.env
        self.spec = spec
        self.client = client
        self.split = spec.split
        self.kinds = list(kinds)
        self.scaled = self.kinds[0]
        self.detect_ns = round(spec.detect_s * 1e9)
        self.servers: list[Server] = []
        self.routable: list[Server] = []
        self.held: deque[Attempt] = deque()
        self.outstanding = 0
        self.capacity_per_s = 0.0
        self.closed = False
        self.pending = 0
        self.draw: random.Random = run.draw(f"pool {spec.name}")
        self.sizes: list[tuple[int, int, int]] = []
        self._pick = balancer_of(spec.balancer).picker(run.draw(f"balancer {spec.name}"))
        self._decay_ns = getattr(spec.balancer, "decay_s", 10.0) * 1e9
        self._admits = spec.admission.gate() if spec.admission is not None else None
        self._scaler = spec.autoscaler.scaler() if spec.autoscaler is not None else None
        self._meter = Meter() if self._scaler is not None else None
        self._room = 0
        self._counts: dict[str, int] = {}

    # -- what servers and calls use

    @property
    def now(self) -> int:
        """The clock [ns]."""
        return int(self.env.now)

    def at(self, time_ns: int, call: Callable[[], object], order: int = TIMER) -> Moment:
        """Call something at a time."""
        return Moment(self.env, time_ns - self.now, order, call)

    def happened(self, server: Server, what: str) -> None:
        """A server has changed its state."""
        self.run.events.append((self.now, self.spec.name, server.name, what))

    def crashes(self, server: Server) -> list[Crash]:
        """Random crashes that threaten a server."""
        return [
            f
            for f in self.run.fleet.faults
            if isinstance(f, Crash) and f.mttf_s is not None and self.run.is_about(f.replica, server)
        ]

    def busy(self, change: int) -> None:
        """Instances start or end."""
        if self._meter is not None:
            self._meter.advance(self.now, self._room)
            self._meter.instances += change

    def refresh(self) -> None:
        """Servers have come, gone, or been noticed."""
        if self._meter is not None:
            self._meter.advance(self.now, self._room)
        ready = [s for s in self.servers if s.state == READY]
        self.routable = [s for s in self.servers if s.seen]
        self.capacity_per_s = sum(s.kind.capacity_per_s for s in ready)
        self._room = sum(s.kind.instances for s in ready)
        alive = sum(s.state != GONE for s in self.servers)
        self.sizes.append((self.now, len(ready), alive))
        if self.held and not self.routable and not self._expects():
            self._turn_away()

    # -- requests

    def attempt(self, call: Call) -> Attempt:
        """A new attempt of a call."""
        whole = call.request
        made = Attempt(
            len(self.run.attempts),
            self.now,
            whole.priority,
            whole.timeout_ns,
            whole.sequence,
            whole.model,
            whole.prompt_tokens,
            whole.output_tokens,
            whole.ends,
            call=call,
        )
        self.run.attempts.append(made)
        return made

    def send(self, attempt: Attempt) -> None:
        """An attempt comes to the door."""
        meter = self._meter
        if meter is not None:
            meter.arrivals += 1
        if self._admits is not None and not self._admits(self, self.now):
            self._fail(attempt, "admission")
            return
        self._count(1)
        if self.held or not self._route(attempt):
            self.held.append(attempt)
            if not self.routable and not self._expects():
                self._turn_away()

    def _count(self, change: int) -> None:
        if self._meter is not None:
            self._meter.advance(self.now, self._room)
            self._meter.requests += change
        self.outstanding += change

    def _route(self, attempt: Attempt) -> bool:
        """Send to a server; False when none has room."""
        targets = self.routable
        if self.split is not None:
            version = draw_version(self.split, self.draw)
            targets = [s for s in targets if s.kind.spec.version == version] or targets
        if self.spec.concurrency is not None:
            targets = [s for s in targets if s.outstanding < self.spec.concurrency]
        live = attempt.call.live
        if len(live) > 1:
            elsewhere = {a.server for a in live}
            targets = [s for s in targets if s not in elsewhere] or targets
        if not targets:
            return False
        number = attempt.call.request.index
        targets[self._pick(targets, number) if len(targets) > 1 else 0].send(attempt)
        return True

    def more_room(self) -> None:
        """Something may leave the queue."""
        while self.held:
            attempt = self.held[0]
            if attempt.abandoned:
                self.held.popleft()
                continue
            if not self._route(attempt):
                return
            self.held.popleft()

    def _expects(self) -> bool:
        """Whether replicas will come by themselves."""
        if any(s.state == STARTING for s in self.servers):
            return True
        if self._scaler is None:
            return False
        if self._size() == 0:
            self.resize(1)
        return True

    def _turn_away(self) -> None:
        while self.held:
            attempt = self.held.popleft()
            if not attempt.abandoned:
                self._count(-1)
                self._fail(attempt, "no replica")

    def _fail(self, attempt: Attempt, reason: str) -> None:
        attempt.status, attempt.reason = REJECTED, reason
        attempt.finish_ns = attempt.back_ns = self.now
        attempt.call.failed(attempt, REJECTED, reason)

    def returned(self, server: Server, attempt: Attempt) -> None:
        """An answer or an error is back at the balancer."""
        self._count(-1)
        if attempt.status == COMPLETED:
            # Exponentially weighted in time: what is older than the time constant fades.
            age = attempt.back_ns - server.latency_at_ns
            fresh = 1.0 if server.latency_ns == 0 else 1.0 - math.exp(-age / self._decay_ns)
            server.latency_ns += (attempt.back_ns - attempt.arrival_ns - server.latency_ns) * fresh
            server.latency_at_ns = attempt.back_ns
        if not attempt.abandoned:
            if attempt.status == COMPLETED:
                attempt.call.answered(attempt)
            else:
                attempt.call.failed(attempt, attempt.status, attempt.reason)
        if self.held:
            self.more_room()

    def cancel(self, attempt: Attempt) -> None:
        """The caller does not want an attempt any more."""
        attempt.abandoned = True
        if attempt.server is not None:
            attempt.server.cancel(attempt)
        elif attempt.back_ns < 0:
            attempt.finish_ns = attempt.back_ns = self.now
            attempt.cancelled = True
            self._count(-1)

    def close(self) -> None:
        """No further request will come."""
        self.closed = True
        for server in self.servers:
            if server.station is not None:
                server.station.close()

    # -- replicas

    def launch(self, kind: Kind, *, warm: bool = False) -> Server:
        """A further replica."""
        place = self._counts.get(kind.spec.name, 0)
        self._counts[kind.spec.name] = place + 1
        server = self.run.server(self, kind, place)
        self.servers.append(server)
        server.launch(0 if warm else None)
        return server

    def _mine(self) -> list[Server]:
        """Servers of the scaled kind that stay."""
        return [s for s in self.servers if s.kind is self.scaled and s.stays]

    def _size(self) -> int:
        return len(self._mine())

    def resize(self, wanted: int) -> None:
        """Launch or drain replicas of the scaled kind."""
        mine = self._mine()
        for _ in range(wanted - len(mine)):
            self.launch(self.scaled)
        # First those that are not ready, then those with the least to finish, then the newest.
        order = sorted(mine, key=lambda s: (s.state == READY, s.outstanding, -s.number))
        for server in order[: max(0, len(mine) - wanted)]:
            server.drain()

    def watch(self) -> None:
        """Let the autoscaler look, again and again."""
        if self._scaler is None or self._meter is None or self.spec.autoscaler is None:
            return
        self._meter.advance(self.now, self._room)
        ready = sum(s.state == READY for s in self.servers)
        if self.now:
            replicas, size = sum(s.stays for s in self.servers), self._size()
            wanted = self._scaler.decide(self._meter.sample(ready, replicas))
            if wanted != replicas:
                self.run.events.append((self.now, self.spec.name, "", f"scale to {wanted}"))
                self.resize(max(0, wanted - (replicas - size)))
        self.at(self.now + round(self.spec.autoscaler.interval_s * 1e9), self.watch)
