"""Laws that every architecture obeys on random networks, devices and batches."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accelsim as ax
from tests.strategies import convolutional, graphs, spiking

DEVICES = ["h100-sxm", "t4", "tpu-v4", "gemmini", "zcu104-dpu", "zcu104-finn", "loihi", "neuro-grid"]
SPIKING = ("loihi", "neuro-grid")
QUIET = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

# The parameters whose increase must never slow anything down, by kind of device.
RESOURCES = {
    "gpu": ["memory.bandwidth", "sm.clock+sm.tensor_clock", "l2.bandwidth", "l2.capacity", "memory.capacity"],
    "systolic": ["memory.bandwidth", "array.clock", "sram.capacity", "memory.capacity"],
    "overlay": ["memory.bandwidth", "overlay.clock", "overlay.buffer"],
    "dataflow": [
        "memory.bandwidth",
        "dataflow.clock",
        "fabric.lut",
        "fabric.dsp",
        "fabric.bram36",
        "fabric.uram",
    ],
    "neuromorphic": ["memory.bandwidth", "cores.clock", "cores.count", "cores.synapses_per_clock"],
}
UNITS = {"bandwidth": "B/s", "clock": "Hz", "capacity": "B", "buffer": "B"}


def run(graph, device, **more):
    return ax.simulate(graph, device, precision="int8", cold=True, governor=False, **more)


@pytest.mark.parametrize("name", DEVICES)
@QUIET
@given(data=st.data())
def test_tile_is_never_below_the_analytic_bound(name, data):
    graph = data.draw(convolutional() if name.endswith("finn") else spiking() if name in SPIKING else graphs)
    batch = data.draw(st.sampled_from([1, 3, 16]))
    tile = run(graph, name, batch=batch)
    if not tile.feasible:
        return
    bound = run(graph, name, batch=batch, fidelity="analytic")
    assert tile.summary["latency_s"] >= bound.summary["latency_s"] * (1 - 1e-9)
    assert (tile.ops.dram_bytes >= tile.ops.compulsory_bytes * (1 - 1e-9)).all()


@pytest.mark.parametrize("name", DEVICES)
@QUIET
@given(data=st.data())
def test_energy_busy_time_and_lanes(name, data):
    graph = data.draw(convolutional() if name.endswith("finn") else spiking() if name in SPIKING else graphs)
    result = run(
        graph,
        name,
        batch=data.draw(st.sampled_from([1, 4])),
        fidelity=data.draw(st.sampled_from(["tile", "event"])),
    )
    if not result.feasible:
        return
    total = sum(result.energy_parts.values())
    energy = result.summary["energy_j"]
    assert energy == pytest.approx(total, nan_ok=True)
    dynamic = sum(v for k, v in result.energy_parts.items() if k != "static")
    if not math.isnan(dynamic):
        assert result.ops.energy_j.sum() == pytest.approx(dynamic)
    makespan = result.summary["latency_s"]
    for _, lane in result.timeline.groupby("lane"):
        assert (lane.end_s - lane.start_s).sum() <= makespan * (1 + 1e-9)
        ordered = lane.sort_values("start_s")
        assert (ordered.start_s.iloc[1:].to_numpy() >= ordered.end_s.iloc[:-1].to_numpy() - 1e-12).all()


@pytest.mark.parametrize("name", DEVICES)
@QUIET
@given(data=st.data())
def test_more_of_any_resource_is_never_slower(name, data):
    graph = data.draw(convolutional() if name.endswith("finn") else spiking() if name in SPIKING else graphs)
    device = ax.load_hardware(name)
    kind = device.kind if device.kind != "fpga" else ("overlay" if device.overlay else "dataflow")
    factor = data.draw(st.sampled_from([1.07, 1.5, 2.0, 4.0]))
    paths = data.draw(st.sampled_from(RESOURCES[kind])).split("+")
    changes = {path: _scaled(device, path, factor) for path in paths}
    batch = data.draw(st.sampled_from([1, 8]))
    before, after = run(graph, device, batch=batch), run(graph, device.replace(**changes), batch=batch)
    if before.feasible:
        assert after.feasible
        assert after.summary["latency_s"] <= before.summary["latency_s"] * (1 + 1e-9), changes


def _scaled(device, path, factor):
    section, field = path.split(".")
    part = getattr(device, section)
    name = next(n for n, info in type(part).model_fields.items() if (info.alias or n) == field)
    value = getattr(part, name) * factor
    unit = UNITS.get(field.removeprefix("tensor_"))
    if field.endswith("_per_clock"):
        return value
    return f"{value!r} {unit}" if unit else math.ceil(value)


@pytest.mark.parametrize("name", DEVICES)
def test_equal_stamps_give_equal_numbers(name):
    workload = "mobilenet-v1" if name.startswith("zcu104") else "resnet50"
    if name in SPIKING:
        workload = "jet-tagging"
    first, second = (ax.simulate(workload, name, batch=4, precision="int8") for _ in range(2))
    assert first.stamp == second.stamp
    assert first.summary == pytest.approx(second.summary, nan_ok=True)
    other = ax.simulate(workload, name, batch=5, precision="int8")
    assert other.stamp != first.stamp
