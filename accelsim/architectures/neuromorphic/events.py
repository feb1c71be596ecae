"""Cores and messages event by event: every core's step, every message's way and its service.

A core updates its neurons, sends its messages one after the other, and serves what comes in as it comes. With
a barrier all cores start a step together, after the slowest; free-running cores start theirs when they have
served all messages of the step before. `accelsim.architectures.neuromorphic.twin` tells the same as simpy
processes; both must give the same times. Times are whole parts of a cycle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import numpy.typing as npt

from accelsim.architectures.neuromorphic.mapping import SPIKE_BYTES, reach

if TYPE_CHECKING:
    from accelsim.architectures.neuromorphic.lower import SpikingProgram

PARTS = 256
"""Parts of a cycle that times count, so that many short messages are not rounded up to cycles."""

_GOLDEN = 0.6180339887498949

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Cores and the messages between them.

    Attributes
    ----------
    update : ndarray of int, shape (cores,)
        Neuron updates of a step [parts].
    source, target : ndarray of int, shape (messages,)
        Cores of each message, ordered by source.
    spikes : ndarray of float
        Spikes of a message per step, on average; whole ones are sent as the sum passes them.
    phase : ndarray of float
        Where a message is between two whole spikes at the start, so that not all of them come at once.
    send, serve : ndarray of float
        Time per spike to put it on the mesh, and to add its synaptic events [parts].
    hop : ndarray of int
        Way of a message [parts].
    barrier : int
        Of a step [parts]; negative where cores run free.
    tick : int
        Shortest step [parts].
    """

    update: Ints
    source: Ints
    target: Ints
    spikes: Floats
    phase: Floats
    send: Floats
    serve: Floats
    hop: Ints
    barrier: int
    tick: int

    def sent(self, step: int) -> Ints:
        """Spikes of each message in a step."""
        after = np.floor((step + 1) * self.spikes + self.phase)
        whole: Ints = (after - np.floor(step * self.spikes + self.phase)).astype(np.int64)
        return whole


@numba.njit(cache=True)
def _run(
    steps: int, update: Ints, source: Ints, spikes: Floats, phase: Floats, send: Floats, serve: Floats,
    hop: Ints, barrier: int, tick: int, order: Ints, offsets: Ints,
) -> Ints:  # fmt: skip
    """End of every core's step [parts], shape (steps, cores); `order` lists messages by target."""
    cores = len(update)
    begin = np.zeros(cores, np.int64)
    ends = np.zeros((steps, cores), np.int64)
    free = np.zeros(cores, np.int64)
    arrival = np.full(len(source), -1, np.int64)
    work = np.zeros(len(source), np.int64)
    for step in range(steps):
        for core in range(cores):
            free[core] = begin[core] + update[core]
        for m in range(len(source)):
            before = math.floor(step * spikes[m] + phase[m])
            count = math.floor((step + 1) * spikes[m] + phase[m]) - before
            arrival[m] = -1
            if count > 0:
                free[source[m]] += math.ceil(count * send[m])
                arrival[m] = free[source[m]] + hop[m]
                work[m] = math.ceil(count * serve[m])
        for core in range(cores):
            inbox = order[offsets[core] : offsets[core + 1]]
            now = free[core]
            for i in np.argsort(arrival[inbox], kind="mergesort"):
                m = inbox[i]
                if arrival[m] >= 0:
                    now = max(now, arrival[m]) + work[m]
            ends[step, core] = now
        if barrier >= 0:
            last = ends[step].max() + barrier
            for core in range(cores):
                begin[core] = max(last, begin[core] + tick)
        else:
            for core in range(cores):
                begin[core] = max(ends[step, core], begin[core] + tick)
    return ends


def run(traffic: Traffic, steps: int) -> Ints:
    """End of every core's steps [parts], shape (steps, cores)."""
    order = np.argsort(traffic.target, kind="stable").astype(np.int64)
    counts = np.bincount(traffic.target, minlength=len(traffic.update))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    ends: Ints = _run(
        steps, traffic.update, traffic.source, traffic.spikes, traffic.phase, traffic.send, traffic.serve,
        traffic.hop, traffic.barrier, traffic.tick, order, offsets,
    )  # fmt: skip
    return ends


def traffic(program: SpikingProgram) -> Traffic:
    """The messages of a mapped network: every core of a population sends to every core that its spikes
    reach; the input enters at a port beside core 0.
    """
    network, mapping, device = program.network, program.mapping, program.device
    c = device.cores
    populations = network.populations
    update = [0]  # the input's port
    for p, n in zip(populations, mapping.cores):
        update += [math.ceil(PARTS * math.ceil(p.neurons / n) / c.neurons_per_clock)] * n
    copies = sum(
        reach(network, -1, p, n, s.count)
        for p, n in zip(populations, mapping.cores)
        for s in p.inputs
        if s.source < 0
    )
    rate = device.memory.bandwidth_bytes_per_s * device.memory.efficiency
    port = SPIKE_BYTES / rate * c.clock_hz / max(copies, 1.0)  # a spike enters once and is copied on its way
    rows: dict[str, list[Any]] = {name: [] for name in ("source", "target", "spikes", "send", "serve", "hop")}
    for index, p in enumerate(populations):
        low, high = mapping.span(index)
        targets = np.arange(low, high)
        for s in p.inputs:
            sources = np.arange(*mapping.span(s.source))
            share = reach(network, s.source, p, high - low, s.count) / (high - low)
            spikes = network.spikes(s.source) / len(sources) * share
            pairs = len(sources) * len(targets)
            events = network.events(p, s) / pairs
            a, b = np.repeat(sources, len(targets)), np.tile(targets, len(sources))
            across = np.abs(a % c.columns - b % c.columns) + np.abs(a // c.columns - b // c.columns)
            rows["source"].append(np.zeros(pairs, np.int64) if s.source < 0 else a + 1)
            rows["target"].append(b + 1)
            rows["spikes"].append(np.full(pairs, spikes))
            rows["send"].append(np.full(pairs, PARTS * (port if s.source < 0 else 1.0 / c.spikes_per_clock)))
            served = events / spikes / c.synapses_per_clock if spikes else 0.0
            rows["serve"].append(np.full(pairs, PARTS * served))
            rows["hop"].append(np.ceil(PARTS * across * c.hop_s * c.clock_hz - 1e-9).astype(np.int64))
    found = {name: np.concatenate(parts) for name, parts in rows.items()}
    order = np.argsort(found["source"], kind="stable")
    found = {name: values[order] for name, values in found.items()}
    phase = np.mod(_GOLDEN * np.arange(len(order)), 1.0)
    sync, tick = (
        math.ceil(PARTS * time_s * c.clock_hz - 1e-9)
        for time_s in (device.step.barrier_s, device.step.tick_s)
    )
    free = device.step.mode == "free"
    return Traffic(
        np.array(update, np.int64), found["source"], found["target"], found["spikes"], phase, found["send"],
        found["serve"], found["hop"], -1 if free else sync, tick,
    )  # fmt: skip


def follow(program: SpikingProgram, most: int) -> tuple[float, float]:
    """Mean length of a step, and the time from the first layer's first step to the last one's [s], from the
    first steps of a run event by event.
    """
    steps = min(program.coding.steps * program.graph.batch, most)
    last = run(traffic(program), steps + 1).max(axis=1)
    step_s = float(last[-1] - last[0]) / steps / PARTS / program.device.cores.clock_hz
    return step_s, (program.network.depth - 1) * step_s
