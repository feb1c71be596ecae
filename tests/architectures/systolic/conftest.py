"""A systolic device from a few words of YAML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from accelsim.core.yamlfile import parse_yaml
from accelsim.hardware import spec

_DEVICE = """
source: made up for the tests
kind: systolic
title: test array
vendor: nobody
family: test
placement: [edge]
memory: {type: HBM, capacity: 16 GiB, bandwidth: 100 GB/s, efficiency: 0.8, latency: 0.5 us}
link: {type: ring, bandwidth: 50 GB/s, latency: 1 us}
array: {rows: 128, cols: 128, count: 1, clock: 1 GHz, dataflow: ws, macs_per_pe: {bf16: 1, int8: 2}}
sram: {capacity: 8 MiB}
vector: {ops_per_clock: 1024}
dispatch: 1 us
silicon: {node_nm: 7}
energy: {mac: {bf16: 0.5 pJ, int8: 0.1 pJ}, vector_op: 0.5 pJ, dram_byte: 30 pJ, sram_byte: 2 pJ}
"""


@pytest.fixture(scope="session")
def make_device() -> Callable[..., Any]:
    """``make_device(**{"array.rows": 8})``: the test device with some parameters changed."""
    document = spec._with_evidence(parse_yaml(_DEVICE, "test"), "", "", "assumed", "test")
    base = spec.build(document, "test-array", "test")

    def make(**changes: Any) -> Any:
        return base.replace(**changes) if changes else base

    return make
