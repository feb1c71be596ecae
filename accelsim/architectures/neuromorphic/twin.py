"""The cores of `accelsim.architectures.neuromorphic.events` as simpy processes that wait for each other."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.architectures.neuromorphic.events import Ints, Traffic

if TYPE_CHECKING:
    import simpy

Process = Generator[Any, Any, None]


class _Chip:
    def __init__(self, traffic: Traffic, steps: int) -> None:
        import simpy

        self.env = simpy.Environment()
        self.traffic, self.steps = traffic, steps
        cores = len(traffic.update)
        self.leaving = [np.flatnonzero(traffic.source == core).tolist() for core in range(cores)]
        self.coming = [np.flatnonzero(traffic.target == core).tolist() for core in range(cores)]
        self.inbox: list[list[deque[int]]] = [[deque() for _ in range(steps)] for _ in range(cores)]
        self.bell: list[simpy.Event] = [self.env.event() for _ in range(cores)]
        self.opened = [self.env.event() for _ in range(steps)]
        self.done = [0] * steps
        self.ends = np.zeros((steps, cores), np.int64)

    def run(self) -> Ints:
        for core in range(len(self.traffic.update)):
            self.env.process(self._core(core))
        self.env.run()
        return self.ends

    def _core(self, core: int) -> Process:
        t, env = self.traffic, self.env
        begin = 0
        for step in range(self.steps):
            counts = t.sent(step)
            yield env.timeout(int(t.update[core]))
            for m in self.leaving[core]:
                if counts[m] > 0:
                    yield env.timeout(math.ceil(counts[m] * t.send[m]))
                    env.process(self._travel(m, step))
            waiting = sum(1 for m in self.coming[core] if counts[m] > 0)
            while waiting:
                while not self.inbox[core][step]:
                    yield self.bell[core]
                m = self.inbox[core][step].popleft()
                yield env.timeout(math.ceil(counts[m] * t.serve[m]))
                waiting -= 1
            self.ends[step, core] = int(env.now)
            if t.barrier >= 0:
                yield from self._barrier(step)
            yield env.timeout(max(0, begin + t.tick - int(env.now)))
            begin = int(env.now)

    def _travel(self, m: int, step: int) -> Process:
        yield self.env.timeout(int(self.traffic.hop[m]))
        target = int(self.traffic.target[m])
        self.inbox[target][step].append(m)
        ringing, self.bell[target] = self.bell[target], self.env.event()
        ringing.succeed()

    def _barrier(self, step: int) -> Process:
        self.done[step] += 1
        if self.done[step] == len(self.traffic.update):
            self.opened[step].succeed()
        yield self.opened[step]
        yield self.env.timeout(self.traffic.barrier)


def run(traffic: Traffic, steps: int) -> Ints:
    """End of every core's steps [cycles], shape (steps, cores); see `events.run`."""
    return _Chip(traffic, steps).run()
