"""A small GPU of round numbers, and helpers to run a graph on it."""

from __future__ import annotations

import pytest

from accelsim.architectures.base import Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.hardware.spec import load_hardware

TOY = """
kind: gpu
title: Toy GPU
vendor: none
family: toy
placement: [cloud]
source: made up for the tests
memory: {type: HBM, capacity: 8 GB, bandwidth: 1 TB/s, latency: 400 ns}
link: {type: bus, bandwidth: 100 GB/s, latency: 2 us}
power: {tdp: 400 W, idle: 50 W}
energy: {mac: {fp16: 0.5 pJ}, vector_op: 1 pJ, dram_byte: 30 pJ, sram_byte: 1 pJ}
sm:
  count: 100
  clock: 1 GHz
  tensor_clock: 1 GHz
  tensor_flop_per_clock: {fp16: 2000, int8: 4000}
  vector_flop_per_clock: {fp32: 256, fp16: 256}
  shared_memory: 160 KiB
  sparse_speedup: 2
l2: {capacity: 40 MB, bandwidth: 4 TB/s, latency: 200 ns}
launch: {stream: 2 us, graph: 1 us, eager: 20 us}
"""


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "toy.yaml"
    path.write_text(TOY)
    return load_hardware(path)


@pytest.fixture
def run():
    """Costs of a graph: `run(graph, device, **options)` gives the program and its costs."""

    def go(graph, device, **options):
        program = ARCHITECTURE.lower(graph, device, Options(**options))
        return program, ARCHITECTURE.cost(program)

    return go
