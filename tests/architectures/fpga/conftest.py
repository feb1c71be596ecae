"""FPGA boards and small networks for the tests of pipelines and overlays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from accelsim.hardware.spec import load_hardware

_BOARD = """
source: made up for the tests
kind: fpga
title: test board
vendor: nobody
family: test
placement: [edge]
memory: {type: DDR4, capacity: 2 GB, bandwidth: 10 GB/s}
fabric:
  {part: test, technology: ultrascale+, lut: 230400, ff: 460800, dsp: 1728, bram36: 312, uram: 96}
"""
_PIPELINE = "dataflow: {clock: 200 MHz, dma_bits: 64, driver: 10 us}\n"
_OVERLAY = """
overlay:
  {clock: 300 MHz, cores: 2, pixel_parallel: 8, input_parallel: 16, output_parallel: 16, buffer: 1 MiB,
   instruction: 5 us, driver: 100 us}
energy: {mac: {int8: 2 pJ}, vector_op: 1 pJ, sram_byte: 1 pJ, dram_byte: 100 pJ}
"""


def _maker(folder: Any, engine: str) -> Callable[..., Any]:
    path = folder / "test-board.yaml"
    path.write_text(_BOARD + engine)
    base = load_hardware(path)
    return lambda **changes: base.replace(**changes) if changes else base


@pytest.fixture(scope="session")
def make_board(tmp_path_factory: Any) -> Callable[..., Any]:
    """``make_board(**{"fabric.lut": 50000})``: a board with a pipeline, some parameters changed."""
    return _maker(tmp_path_factory.mktemp("pipeline"), _PIPELINE)


@pytest.fixture(scope="session")
def make_overlay(tmp_path_factory: Any) -> Callable[..., Any]:
    """The same board with an overlay of two cores of 2048 multipliers."""
    return _maker(tmp_path_factory.mktemp("overlay"), _OVERLAY)
