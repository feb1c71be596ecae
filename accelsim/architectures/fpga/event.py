"""A streaming pipeline as simpy processes: every stage, window buffer and FIFO slot is an event of its own.

The same words as `accelsim.architectures.fpga.stages`, told by processes that wait for each other instead of
by a sweep over pixels; both must give the same times.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.architectures.fpga.fifo import wiring
from accelsim.architectures.fpga.network import Stage
from accelsim.architectures.fpga.timing import Pace, Run, deadlock

if TYPE_CHECKING:
    import simpy

Process = Generator[Any, Any, None]


class _Count:
    """How many pixels have passed a point; processes wait until a given one has."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.count = env, 0
        self.waiting: dict[int, simpy.Event] = {}

    def passed(self, index: int) -> list[simpy.Event]:
        """The event that pixel `index` passes; none when it has."""
        if index < self.count:
            return []
        return [self.waiting.setdefault(index, self.env.event())]

    def advance(self) -> None:
        event = self.waiting.pop(self.count, None)
        self.count += 1
        if event is not None:
            event.succeed()


class _Pipeline:
    def __init__(
        self, stages: Sequence[Stage], capacities: Sequence[Sequence[int]], times: Pace, frames: int
    ) -> None:
        import simpy

        self.env = simpy.Environment()
        self.times, self.frames, self.stages = times, frames, stages
        self.wires = wiring(stages, capacities)
        n = len(stages)
        self.first, self.last, self.taken = ([_Count(self.env) for _ in range(n)] for _ in range(3))
        self.stored = [_Count(self.env) for _ in self.wires.edges]
        self.start = np.zeros(n)
        self.finish = np.full((frames, n), np.nan)

    def run(self) -> Run:
        from accelsim.architectures.fpga.stages import MODE, SOURCE, WINDOW

        for s in range(len(self.stages)):
            self.env.process(self._stage(s))
            for e in self._inputs(s):
                if self.wires.edges[e][MODE] == WINDOW:
                    self.env.process(self._buffer(s, e, int(self.wires.edges[e][SOURCE])))
        self.env.run()
        for s, stage in enumerate(self.stages):
            if np.isnan(self.finish[-1, s]):
                raise deadlock(stage)
        return Run(self.start, self.finish, np.zeros(0, dtype=np.int64))

    def _inputs(self, s: int) -> range:
        return range(self.wires.offsets[s], self.wires.offsets[s + 1])

    def _buffer(self, s: int, e: int, source: int) -> Process:
        """A window's buffer takes pixels as they come, each in `accept` cycles."""
        accept, free = self.times.accept[s], 0.0
        for i in range(self.frames * int(self.wires.outputs[source])):
            yield from self.last[source].passed(i)
            if self.env.now < free + accept:
                yield self.env.timeout(free + accept - self.env.now)
            free = self.env.now
            self.stored[e].advance()

    def _stage(self, s: int) -> Process:
        env, t = self.env, self.times
        outputs = int(self.wires.outputs[s])
        for o in range(self.frames * outputs):
            yield from self._ready(s, o)
            if o == 0:
                self.start[s] = env.now
            room = env.process(self._room(s, o))
            env.process(self._leave(s, o, room))
            yield env.timeout(t.stream[s])
            yield from self._complete(s, o)
            self.taken[s].advance()
            yield env.timeout(t.tail[s])
            yield room
            env.process(self._done(s, o, outputs))

    def _ready(self, s: int, o: int) -> Process:
        from accelsim.architectures.fpga.stages import MODE, SOURCE, WINDOW, last_needed, oldest_needed

        for e in self._inputs(s):
            g = self.wires.edges[e]
            need = last_needed(g, o)
            if g[MODE] == WINDOW:
                yield from self.stored[e].passed(need)
            else:
                yield from self.first[g[SOURCE]].passed(min(oldest_needed(g, o), need))

    def _complete(self, s: int, o: int) -> Process:
        """The last word of a plain input has come."""
        from accelsim.architectures.fpga.stages import MODE, SOURCE, WINDOW, last_needed

        for e in self._inputs(s):
            g = self.wires.edges[e]
            if g[MODE] != WINDOW:
                yield from self.last[g[SOURCE]].passed(last_needed(g, o))

    def _room(self, s: int, o: int) -> Process:
        """Every FIFO behind the stage has a slot for pixel `o`."""
        from accelsim.architectures.fpga.stages import CAPACITY

        w = self.wires
        for i in range(w.reader_offsets[s], w.reader_offsets[s + 1]):
            e, reader = w.readers[i], w.reader_stages[i]
            slot = o - int(w.edges[e][CAPACITY])
            if slot >= 0:
                yield from self.taken[reader].passed(self._release(e, reader, slot))

    def _release(self, e: int, reader: int, slot: int) -> int:
        """First output of a reader after which a pixel's slot is free."""
        from accelsim.architectures.fpga.stages import oldest_needed

        g, total = self.wires.edges[e], self.frames * int(self.wires.outputs[reader])
        low, high = 0, total - 1
        while low < high:  # oldest_needed never falls
            middle = (low + high) // 2
            if oldest_needed(g, middle + 1) > slot:
                high = middle
            else:
                low = middle + 1
        return low

    def _leave(self, s: int, o: int, room: simpy.Event) -> Process:
        """The first word of a pixel leaves: after a cycle, or with the whole pixel."""
        if self.times.early[s]:
            yield self.env.timeout(1.0)
        else:
            yield from self.taken[s].passed(o)
        yield room
        yield self.env.timeout(self.times.latency[s])
        self.first[s].advance()

    def _done(self, s: int, o: int, outputs: int) -> Process:
        yield self.env.timeout(self.times.latency[s])
        self.last[s].advance()
        if (o + 1) % outputs == 0:
            self.finish[o // outputs, s] = self.env.now


def simulate(
    stages: Sequence[Stage], capacities: Sequence[Sequence[int]], times: Pace, frames: int = 1
) -> Run:
    """Run frames that follow each other as fast as the pipeline takes them; see `timing.run`.

    Raises
    ------
    GraphError
        A FIFO is too small and the pipeline deadlocks.
    """
    return _Pipeline(stages, capacities, times, frames).run()
