"""Chains of layers in bands of rows: what they save, what they cost, and the laws of traffic."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.engine.simulate import simulate
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph


def chain(sizes: list[int], image: int, kernel: int = 3, channels: int = 16) -> Graph:
    b = GraphBuilder("chain", "int8")
    x = b.input("x", 1, channels, image, image)
    for width in sizes:
        x = b.activation(b.conv(x, width, kernel, bias=False), "relu")
    return b.build()


def both(graph: Graph, device, **more):
    sliced = device.replace(**{"sram.bands": True})
    return (simulate(graph, d, precision="int8", **more) for d in (device, sliced))


def ends(graph: Graph) -> float:
    """Input, weights and output of a graph: what must cross [B]."""
    return graph.weight_bytes + sum(t.size_bytes for t in (*graph.inputs, *graph.outputs))


def test_a_tensor_that_does_not_fit_whole_stays_in_bands(make_device) -> None:
    """Two convolutions on a 128 x 128 image: the 256 KiB between them need not cross 64 KiB of memory."""
    device = make_device(**{"sram.capacity": "64 KiB", "memory.bandwidth": "1 GB/s"})
    graph = chain([16, 16], 128)
    whole, sliced = both(graph, device)
    between = 16 * 128 * 128
    assert whole.summary["dram_bytes"] - sliced.summary["dram_bytes"] == pytest.approx(2 * between)
    assert sliced.summary["dram_bytes"] == pytest.approx(ends(graph))
    assert any("bands of rows" in note for note in sliced.notes)
    # Weights enter the arrays once per band.
    assert sliced.ops.cycles_compute.sum() > whole.ops.cycles_compute.sum()


def test_bands_need_room_for_all_weights_of_a_chain(make_device) -> None:
    device = make_device(**{"sram.capacity": "64 KiB", "memory.bandwidth": "1 GB/s"})
    whole, sliced = both(chain([512, 512], 64, channels=512), device)
    assert sliced.summary["dram_bytes"] == whole.summary["dram_bytes"]


def test_a_tensor_with_two_readers_crosses(make_device) -> None:
    device = make_device(**{"sram.capacity": "64 KiB", "memory.bandwidth": "1 GB/s"})
    b = GraphBuilder("branches", "int8")
    x = b.conv(b.input("x", 1, 16, 128, 128), 16, 3, bias=False)
    b.add(b.conv(b.conv(x, 16, 3, bias=False), 16, 3, bias=False), x)
    graph = b.build()
    whole, sliced = both(graph, device)
    assert sliced.summary["dram_bytes"] >= ends(graph) + 2 * 16 * 128 * 128
    assert sliced.summary["dram_bytes"] <= whole.summary["dram_bytes"]


def test_default_is_off(make_device) -> None:
    assert not make_device().sram.bands


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 96), min_size=1, max_size=5),
    image=st.integers(4, 96),
    kernel=st.sampled_from([1, 3, 5]),
    kib=st.integers(8, 512),
    dataflow=st.sampled_from(["ws", "os", "is", "rs"]),
    batch=st.integers(1, 3),
)
def test_laws(make_device, sizes, image, kernel, kib, dataflow, batch) -> None:
    """Bands never move more bytes or take longer, and what must cross crosses; analytic stays below."""
    device = make_device(
        **{"sram.capacity": f"{kib} KiB", "memory.bandwidth": "2 GB/s", "array.dataflow": dataflow}
    )
    graph = chain(sizes, image, kernel)
    whole, sliced = both(graph, device, batch=batch)
    assert sliced.summary["dram_bytes"] <= whole.summary["dram_bytes"] * (1 + 1e-12)
    assert sliced.summary["latency_s"] <= whole.summary["latency_s"] * (1 + 1e-12)
    assert sliced.summary["dram_bytes"] >= ends(graph.with_batch(batch)) * (1 - 1e-12)
    bound = simulate(
        graph, device.replace(**{"sram.bands": True}), precision="int8", batch=batch, fidelity="analytic"
    )
    assert bound.summary["latency_s"] <= sliced.summary["latency_s"] * (1 + 1e-12)
