"""Energy of a population: synaptic events, weight fetches, neuron updates, spikes and their way."""

from __future__ import annotations

from accelsim.architectures.neuromorphic.coding import Coding
from accelsim.architectures.neuromorphic.mapping import Mapping, mean_hops, reach
from accelsim.architectures.neuromorphic.population import Spiking
from accelsim.hardware import energy
from accelsim.hardware.schema import NeuromorphicDevice

NAN = float("nan")


def joules(
    network: Spiking, mapping: Mapping, coding: Coding, device: NeuromorphicDevice, index: int, moved: float
) -> dict[str, float]:
    """Dynamic energy of one item by part [J]; NaN where the device has no coefficient.

    ``mac`` is the synaptic events, ``sram`` the fetch of their weights, ``vector`` the neuron updates,
    ``network`` the spikes that the population takes in with their hops. Where a device's figure of a synaptic
    event holds the fetch, the fetch is taken out of it, so the sum is the figure.
    """
    p, steps = network.populations[index], coding.steps
    events = steps * sum(network.events(p, s) for s in p.inputs)
    widths = [o.inputs[1].precision.name for o in p.ops[:1] if p.weights]
    each = device.energy.mac_j.get(widths[0] if widths else device.precisions[0])
    fetch = fetch_j(device, p.weight_bits) if p.weights else 0.0
    if device.spikes.fetch_included and each is not None:
        fetch = min(fetch, each) if fetch == fetch else 0.0
        each -= fetch
    s = device.spikes
    columns = device.cores.columns
    copies = hops = 0.0
    for source in p.inputs:
        sent = steps * network.spikes(source.source)
        sent *= reach(network, source.source, p, mapping.cores[index], source.count)
        copies += sent
        hops += sent * mean_hops(mapping, source.source, index, columns)
    way = _spent(copies, s.spike_j) + _spent(hops, s.hop_j)
    return {
        "mac": _spent(events, each),
        "sram": _spent(events, fetch) if p.weights else 0.0,
        "vector": _spent(float(steps * p.neurons), s.neuron_update_j),
        "network": way,
        "dram": _spent(moved, device.energy.dram_byte_j),
    }


def fetch_j(device: NeuromorphicDevice, bits: int) -> float:
    """Reading one weight from a core's memory [J]: the device's figure, else that of the public tables."""
    per_byte = device.energy.sram_byte_j
    if per_byte is None:
        node = device.silicon.node_nm
        found = None if node is None else energy.sram_byte(device.cores.synapse_memory_bytes, node)
        per_byte = NAN if found is None else found.value_j
    return per_byte * bits / 8


def _spent(amount: float, each: float | None) -> float:
    if amount == 0:
        return 0.0
    return NAN if each is None else amount * each
