"""A federated round as simpy processes: the readable twin of `federated_round.close_round`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import simpy

from accelsim.serving.federated_round import ACCEPTED, DROPPED, LATE, NEVER, Closed, Draw, Plan
from accelsim.serving.station import Moment, environment

_DECIDE, _DEADLINE = 2, 3
"""At one instant: what devices do, then the server's decision, then the deadline."""


class _Server:
    """Counts updates and closes the round."""

    def __init__(self, env: simpy.Environment, plan: Plan, devices: int) -> None:
        self.env = env
        self.plan = plan
        self.left = devices
        self.fate = np.full(devices, LATE, np.int64)
        self.closed = env.event()
        self.close_ns = 0
        self._arrived: list[int] = []
        self._accepted = 0
        if plan.deadline_ns < NEVER:
            Moment(env, plan.deadline_ns, _DEADLINE, self.close)

    def update(self, device: int) -> None:
        """An update is in; of those of one instant, lower numbers come first."""
        self._arrived.append(device)
        self.left -= 1
        Moment(self.env, 0, _DECIDE, self._decide)

    def leave(self, device: int) -> None:
        """A device is gone."""
        if not self.closed.triggered:
            self.fate[device] = DROPPED
        self.left -= 1
        Moment(self.env, 0, _DECIDE, self._decide)

    def _decide(self) -> None:
        if self.closed.triggered:
            return
        for device in sorted(self._arrived)[: self.plan.accept - self._accepted]:
            self.fate[device] = ACCEPTED
            self._accepted += 1
        self._arrived = []
        if self._accepted == self.plan.accept or self.left == 0:
            self.close()

    def close(self) -> None:
        """Nothing that comes later counts."""
        if not self.closed.triggered:
            self.close_ns = int(self.env.now)
            self.closed.succeed()


def _device(env: simpy.Environment, server: _Server, draw: Draw, place: int) -> Iterator[Any]:
    """Downloads, trains and uploads, unless it leaves on the way."""
    leaves = int(draw.drop_ns[place])
    for phase in (draw.down_ns, draw.train_ns, draw.up_ns):
        end = int(env.now) + int(phase[place])
        if leaves <= end:
            yield env.timeout(leaves - int(env.now))
            server.leave(place)
            return
        yield env.timeout(int(phase[place]))
    server.update(place)


def run_round(plan: Plan, draw: Draw) -> Closed:
    """One round on a simpy clock."""
    env = environment()
    server = _Server(env, plan, len(draw.device))
    for place in range(len(draw.device)):
        env.process(_device(env, server, draw, place))
    if len(draw.device):
        env.run(until=server.closed)
    return Closed(server.close_ns, server.fate)
