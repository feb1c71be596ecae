"""Batches whose activations do not stay on chip run in turns of fewer items."""

from __future__ import annotations

from typing import Any

import pytest

from accelsim.engine.simulate import simulate
from accelsim.hardware.spec import load_hardware
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.load import load_workload

KIB = 1024


def _chain(layers: int) -> Any:
    """Convolutions without padding effects: 64 KiB of activations a layer, 16 KiB of weights each."""
    b = GraphBuilder("chain", "int8")
    x = b.input("x", 1, 128, 16, 32)
    for _ in range(layers):
        x = b.conv(x, 128, 1, bias=False)
    return b.build()


@pytest.mark.parametrize("batch", [2, 3, 4, 7, 8, 12, 64])
@pytest.mark.parametrize(
    ("workload", "device"),
    [("mobilenet-v2", "edge-tpu"), ("densenet121", "nvdla-2048"), ("keyword-spotting", "systolic-128x128")],
)
def test_a_batch_is_never_slower_than_its_items(workload: str, device: str, batch: int) -> None:
    graph = load_workload(workload)
    one: Any = simulate(graph, device, precision="int8")
    many: Any = simulate(graph, device, batch=batch, precision="int8")
    assert many.summary["latency_s"] <= batch * one.summary["latency_s"] * (1 + 1e-9)
    assert many.summary["latency_s"] >= one.summary["latency_s"]
    bound: Any = simulate(graph, device, batch=batch, precision="int8", fidelity="analytic")
    assert bound.summary["latency_s"] <= many.summary["latency_s"]


def test_turns_move_activations_once_and_weights_every_turn() -> None:
    """Two items fit three quarters of 512 KiB (4 x 64 KiB live), eight do not."""
    chain = _chain(6)
    result: Any = simulate(chain, _small(512), batch=8, precision="int8")
    note = next(n for n in result.notes if "turns" in n)
    turns = int(note.split(" turns")[0].split()[-1])
    assert turns in (2, 4, 8)
    assert set(result.ops["repeat"]) == {turns}
    ends = 8 * 2 * 64 * KIB
    assert result.summary["dram_bytes"] == pytest.approx(ends + turns * 6 * 16 * KIB)
    assert result.summary["flops"] == 8 * simulate(chain, _small(512), precision="int8").summary["flops"]


def test_no_turns_where_all_stays_or_caches_are_cold() -> None:
    roomy: Any = simulate(_chain(6), _small(16 * KIB), batch=8, precision="int8")
    cold: Any = simulate(_chain(6), _small(512), batch=8, precision="int8", cold=True)
    for result in (roomy, cold):
        assert not any("turns" in note for note in result.notes)


def _small(capacity_kib: int) -> Any:
    split = dict.fromkeys(("sram.ifmap", "sram.filter", "sram.ofmap"))
    sizes = {"sram.capacity": f"{capacity_kib} KiB", "memory.bandwidth": "4 GB/s"}
    return load_hardware("systolic-128x128").replace(**split, **sizes)
