"""Running a program: in dependency order (analytic, tile), or as simpy processes that contend for resources
(event).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from accelsim.architectures.base import KernelCost, Pipeline, Program
from accelsim.engine.timeline import Segment

EVENT_ITEMS = 64
"""Items of a batch that the event engine follows through a pipeline; the rest repeat the steady state."""


def in_order(program: Program, costs: Sequence[KernelCost]) -> list[Segment]:
    """Kernels one after the other in dependency order."""
    now = 0.0
    segments = []
    for kernel, cost in zip(program.kernels, costs):
        end = now + cost.latency_s * kernel.repeat
        kind = "link" if kernel.lane == "link" else "compute"
        segments.append(
            Segment(kernel.name, kernel.lane, now, end, kind, cost.bytes_by_level["dram"] * kernel.repeat)
        )
        now = end
    return segments + host(program, now)


def host(program: Program, now: float) -> list[Segment]:
    """What the host adds to a run, after its kernels."""
    if program.host_s <= 0.0:
        return []
    return [Segment("host", "host", now, now + program.host_s, "overhead", 0.0)]


def pipelined(program: Program, costs: Sequence[KernelCost], timing: Pipeline) -> list[Segment]:
    """Stages of a pipeline, each on its own lane from its first input to its last output."""
    return [
        Segment(k.name, k.lane, start, finish, "compute", c.bytes_by_level["dram"] * program.graph.batch)
        for k, c, start, finish in zip(program.kernels, costs, timing.start_s, timing.finish_s)
    ]


def event_sequential(program: Program, costs: Sequence[KernelCost]) -> list[Segment]:
    """Kernels as simpy processes.

    A kernel starts when those before it have finished and its lane is free. Its memory phase then holds the
    shared ``dram`` lane, which serves in order of request, while its compute phase runs; overhead follows
    both.
    """
    import simpy

    env = simpy.Environment()
    lanes = {lane: simpy.Resource(env) for lane in dict.fromkeys(k.lane for k in program.kernels)}
    dram = simpy.Resource(env)
    done = [env.event() for _ in program.kernels]
    segments: list[Segment] = []

    def memory(name: str, duration: float, size: float) -> Generator[Any, Any, None]:
        with dram.request() as turn:
            yield turn
            start = env.now
            yield env.timeout(duration)
            segments.append(Segment(name, "dram", start, env.now, "memory", size))

    def run(index: int) -> Generator[Any, Any, None]:
        kernel, cost = program.kernels[index], costs[index]
        yield env.all_of([done[i] for i in kernel.after])
        with lanes[kernel.lane].request() as turn:
            yield turn
            start = env.now
            size = cost.bytes_by_level["dram"] * kernel.repeat
            if cost.exact_s is not None:
                yield env.timeout(cost.exact_s * kernel.repeat)
            else:
                scale = kernel.repeat / cost.clock_hz
                phases = [env.timeout(cost.cycles_compute * scale)]
                if cost.cycles_memory > 0:
                    phases.append(env.process(memory(kernel.name, cost.cycles_memory * scale, size)))
                yield env.all_of(phases)
                yield env.timeout(cost.cycles_overhead * scale)
            kind = "link" if kernel.lane == "link" else "compute"
            segments.append(Segment(kernel.name, kernel.lane, start, env.now, kind, size))
        done[index].succeed()

    for index in range(len(program.kernels)):
        env.process(run(index))
    env.run()
    return segments


def event_pipeline(
    program: Program, costs: Sequence[KernelCost], timing: Pipeline
) -> tuple[list[Segment], float]:
    """Stages as simpy processes that hand items on; returns segments and the makespan [s].

    A stage begins an item when it is free, and as long after each stage before it began the item as its first
    window takes to fill; it ends no earlier than its inputs do. Items beyond `EVENT_ITEMS` repeat the steady
    state.
    """
    import simpy

    env = simpy.Environment()
    items = min(program.graph.batch, EVENT_ITEMS)
    count = len(program.kernels)
    began = [[env.event() for _ in range(items)] for _ in range(count)]
    ended = [[env.event() for _ in range(items)] for _ in range(count)]
    segments: list[Segment] = []

    def stage(index: int) -> Generator[Any, Any, None]:
        kernel, cost = program.kernels[index], costs[index]
        lags = [(p, max(0.0, timing.start_s[index] - timing.start_s[p])) for p in kernel.after]
        for item in range(items):
            if not kernel.after and item == 0:
                yield env.timeout(timing.start_s[index])
            for before, lag in lags:
                moment = yield began[before][item]
                yield env.timeout(max(0.0, moment + lag - env.now))
            start = env.now
            began[index][item].succeed(start)
            yield env.timeout(cost.latency_s * kernel.repeat)
            for before, _ in lags:
                yield ended[before][item]
            ended[index][item].succeed()
            segments.append(
                Segment(kernel.name, kernel.lane, start, env.now, "compute", cost.bytes_by_level["dram"])
            )

    for index in range(count):
        env.process(stage(index))
    env.run()
    return segments, env.now + (program.graph.batch - items) * timing.interval_s
