"""Populations on cores: how many each needs, how many it gets, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from accelsim.architectures.neuromorphic.population import Population, Spiking
from accelsim.core.outcome import InfeasibleError
from accelsim.core.units import si
from accelsim.hardware.schema import NeuromorphicDevice

_WEIGHTS = ((1.0, 0.0), (4.0, 1.0), (1.0, 1.0), (1.0, 4.0), (0.0, 1.0))
"""Of neurons and of synaptic events in the layouts that are tried; not the device's own rates, so that a
device with faster ones has all the layouts of a slower one."""

SPIKE_BYTES = 4.0
"""A spike at the chip's edge: address and time (assumed)."""


@dataclass(frozen=True)
class Mapping:
    """Cores of each population, laid out row by row of the mesh in the order of the populations.

    Attributes
    ----------
    cores : tuple of int
    step_s : float
        Length of a time step, where one ends before the next begins [s].
    core_cycles : tuple of float
        Work of the fullest core of each population in a step [cycles].
    """

    cores: tuple[int, ...]
    step_s: float
    core_cycles: tuple[float, ...]

    def first(self, index: int) -> int:
        """Index of the first core of a population; the input enters at core 0."""
        return sum(self.cores[:index]) if index >= 0 else 0

    def span(self, index: int) -> tuple[int, int]:
        """First core of a population and the one after its last."""
        if index < 0:
            return 0, 1
        first = self.first(index)
        return first, first + self.cores[index]


def least(p: Population, device: NeuromorphicDevice) -> int:
    """Cores that a population needs.

    Raises
    ------
    InfeasibleError
        ``cores``: not even one neuron of it fits a core.
    """
    c = device.cores
    if c.fan_in is not None and p.fan_in > c.fan_in:
        raise InfeasibleError(
            "cores",
            f"{p.fan_in:,} inputs of each neuron of '{p.name}'",
            f"{c.fan_in:,} inputs per core",
            "split the layer's inputs, or use a device with a larger fan-in",
        )
    shared = c.shares_weights and p.weights and any(op.kind == "conv" for op in p.ops[:1])
    have = c.synapse_memory_bytes * 8
    one = (p.fan_in * p.weight_bits) if p.weights else 0
    if one > have:
        raise InfeasibleError(
            "cores",
            f"{si(one / 8, 'B')} for the synapses of one neuron of '{p.name}'",
            f"{si(c.synapse_memory_bytes, 'B')} per core",
            "use a narrower precision, or a device with more synaptic memory",
        )
    count = ceil(p.neurons / c.neurons)
    if not p.weights:
        return count
    if shared:
        slices = min(p.channels, ceil(p.weights * p.weight_bits / have))
        if p.weights * p.weight_bits / p.channels > have:
            slices = p.channels * ceil(p.weights * p.weight_bits / p.channels / have)
        return max(count, slices)
    per_core = int(have // one)
    return max(count, ceil(p.neurons / per_core))


def place(network: Spiking, device: NeuromorphicDevice, steps: int) -> Mapping:
    """Give every population what it needs, then more cores to the one whose cores have most to do, and keep
    the layout that ends first. Faster or more cores never lengthen a run: the same layouts and more are
    tried.

    Parameters
    ----------
    steps : int
        Time steps of the run, all items together.

    Raises
    ------
    InfeasibleError
        ``cores``: a layer fits no core, or the network does not fit the chip.
    """
    have = device.cores.count
    cores = [least(p, device) for p in network.populations]
    if sum(cores) > have:
        largest = max(range(len(cores)), key=lambda i: cores[i])
        name = network.populations[largest].name
        raise InfeasibleError(
            "cores",
            f"{sum(cores):,} cores ('{name}' alone {cores[largest]:,})",
            f"{have:,} cores",
            "use a narrower precision, a smaller network or a larger chip",
        )
    best = _timed(network, device, tuple(cores))

    def whole_s(mapping: Mapping) -> float:
        return steps * mapping.step_s + fill_s(network, device, mapping)

    for weights in _WEIGHTS:
        for tried in _growing(network, have, cores, weights):
            found = _timed(network, device, tried)
            if whole_s(found) < whole_s(best):
                best = found
    return best


def _growing(
    network: Spiking, have: int, least_cores: list[int], weights: tuple[float, float]
) -> Iterator[tuple[int, ...]]:
    """Layouts with more and more cores: a quarter more to the population whose cores have most to do."""
    cores = list(least_cores)
    load = [
        weights[0] * p.neurons + weights[1] * sum(network.events(p, s) for s in p.inputs)
        for p in network.populations
    ]
    while True:
        widest = max(range(len(cores)), key=lambda i: (load[i] / cores[i], -i))
        more = max(1, cores[widest] // 4)
        if sum(cores) + more > have or cores[widest] + more > network.populations[widest].neurons:
            return
        cores[widest] += more
        yield tuple(cores)


def _timed(network: Spiking, device: NeuromorphicDevice, cores: tuple[int, ...]) -> Mapping:
    work = core_cycles(network, device, cores)
    held = Mapping(cores, 0.0, tuple(work))
    hops = max(
        most_hops(held, s.source, index, device.cores.columns)
        for index, p in enumerate(network.populations)
        for s in p.inputs
    )
    sync = device.step.barrier_s if device.step.mode == "barrier" else 0.0
    travel = hops * device.cores.hop_s if device.step.mode == "barrier" else 0.0
    rate = device.memory.bandwidth_bytes_per_s * device.memory.efficiency
    entering = SPIKE_BYTES * network.spikes(-1) / rate
    busy = max(max(work) / device.cores.clock_hz, entering) + travel + sync
    return Mapping(cores, max(busy, device.step.tick_s), tuple(work))


def fill_s(network: Spiking, device: NeuromorphicDevice, mapping: Mapping) -> float:
    """From the first step of the first layer to that of the last one [s]: a step per layer with a barrier,
    the layers' own time and the way between them where cores run free.
    """
    if device.step.mode == "barrier":
        return (network.depth - 1) * mapping.step_s
    at: list[float] = []
    for index, p in enumerate(network.populations):
        ways = [
            at[s.source]
            + max(mapping.core_cycles[s.source] / device.cores.clock_hz, device.step.tick_s)
            + most_hops(mapping, s.source, index, device.cores.columns) * device.cores.hop_s
            for s in p.inputs
            if s.source >= 0
        ]
        at.append(max(ways, default=0.0))
    return max(at)


def reach(network: Spiking, source: int, target: Population, cores: int, count: float) -> float:
    """Cores that a spike goes to: no more than its synapses, and no more than hold the target."""
    neurons = network.input_neurons if source < 0 else network.populations[source].neurons
    return min(float(cores), max(1.0, count / neurons))


def core_cycles(network: Spiking, device: NeuromorphicDevice, cores: Sequence[int]) -> list[float]:
    """Work of the fullest core of each population in a step [cycles]: its neurons, its spikes, its synaptic
    events.
    """
    c = device.cores
    sent = [0.0] * len(cores)
    taken = [0.0] * len(cores)
    for index, p in enumerate(network.populations):
        for s in p.inputs:
            taken[index] += network.events(p, s)
            if s.source >= 0:
                sent[s.source] += network.spikes(s.source) * reach(
                    network, s.source, p, cores[index], s.count
                )
    return [
        ceil(p.neurons / n) / c.neurons_per_clock
        + sent[i] / n / c.spikes_per_clock
        + taken[i] / n / c.synapses_per_clock
        for i, (p, n) in enumerate(zip(network.populations, cores))
    ]


def most_hops(mapping: Mapping, source: int, target: int, columns: int) -> int:
    """Longest way between cores of two populations [hops]."""
    low, high = _box(*mapping.span(source), columns), _box(*mapping.span(target), columns)
    return sum(max(high[a][1] - low[a][0], low[a][1] - high[a][0], 0) for a in (0, 1))


def _box(first: int, end: int, columns: int) -> tuple[tuple[int, int], tuple[int, int]]:
    rows = (first // columns, (end - 1) // columns)
    across = (first % columns, (end - 1) % columns) if rows[0] == rows[1] else (0, columns - 1)
    return across, rows


def mean_hops(mapping: Mapping, source: int, target: int, columns: int) -> float:
    """Mean way between a core of one population and a core of another [hops]; axes are independent."""
    total = 0.0
    a, b = (np.arange(*mapping.span(i)) for i in (source, target))
    for left, right in ((a % columns, b % columns), (a // columns, b // columns)):
        size = int(max(left.max(), right.max())) + 1
        p = np.bincount(left, minlength=size) / len(left)
        q = np.bincount(right, minlength=size) / len(right)
        distance = np.abs(np.arange(size)[:, None] - np.arange(size)[None, :])
        total += float(p @ distance @ q)
    return total
