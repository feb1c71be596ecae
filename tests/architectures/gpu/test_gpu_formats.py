"""Kernels of narrow formats: which one a product takes, in a table and in a graph."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import accelsim as ax
from accelsim.architectures.gpu.formats import product_constants, row_limits
from accelsim.calibration import constants as C
from accelsim.core.precision import precision
from accelsim.hardware.spec import load_hardware
from accelsim.workload.builders.layers import GraphBuilder

FP8 = precision("fp8_e4m3")
PLAIN = ("formats", "vllm", "fp8_e4m3")
SMALL = ("formats", "vllm", "fp8_e4m3-64")


@pytest.fixture(scope="module")
def one():
    """A GPU whose stack has one kernel of fp8 for all rows."""
    held = load_hardware("l40s")
    formats = {**held.kernels.formats, "vllm": {"fp8_e4m3": held.kernels.formats["vllm"]["fp8_e4m3"]}}
    kernels = held.kernels.model_copy(update={"formats": formats})
    return held.model_copy(update={"kernels": kernels, "hash": f"{held.hash}+one"})


@pytest.fixture(scope="module")
def two(one):
    """The same with another kernel for up to 64 rows, which quantises 5 us longer."""
    more = C.with_kernel(one, SMALL, PLAIN)
    cycles = C.value(more, (*PLAIN, "quantise_cycles")) + 5e-6 * more.sm.tensor_clock_hz
    return C.with_constants(more, {(*SMALL, "quantise_cycles"): cycles})


def latency(device, m, op="fp8_e4m3", block=0):
    frame = pd.DataFrame({"op": "gemm", "precision": op, "m": m, "n": 4096, "k": 4096, "scale_block": block})
    return ax.predict_ops(frame, device, stack="vllm")["latency_s"].to_numpy()


def test_limits_are_the_numbers_at_the_end_of_kernel_names(one, two):
    assert row_limits(one, "vllm", FP8, FP8) == (math.inf,)
    assert row_limits(two, "vllm", FP8, FP8) == (64.0, math.inf)
    assert row_limits(two, "eager", FP8, FP8) == (math.inf,)
    more = C.with_kernel(two, (*PLAIN[:2], "fp8_e4m3-8"), PLAIN)
    assert row_limits(more, "vllm", FP8, FP8) == (8.0, 64.0, math.inf)
    # Scales per block take the plain format's kernels where there are no others, and only those are theirs.
    assert row_limits(two, "vllm", FP8, FP8, 128.0) == (64.0, math.inf)
    blocked = C.with_kernel(two, (*PLAIN[:2], "fp8_e4m3-block"), PLAIN)
    assert row_limits(blocked, "vllm", FP8, FP8, 128.0) == (math.inf,)
    assert product_constants(two, "vllm", FP8, FP8, 0.0, 64.0) != product_constants(two, "vllm", FP8, FP8)


def test_a_table_takes_each_kernel_for_its_rows(one, two):
    m = np.array([1, 63, 64, 65, 4096])
    extra = latency(two, m) - latency(one, m)
    assert extra[:3] == pytest.approx(5e-6, rel=1e-6)
    assert (extra[3:] == 0).all()
    wide = "bf16"
    assert (latency(two, m, wide) == latency(one, m, wide)).all()


@pytest.mark.parametrize(("tokens", "extra_s"), [(64, 5e-6), (65, 0.0)])
def test_a_graph_takes_the_kernel_of_its_tokens(one, two, tokens, extra_s):
    builder = GraphBuilder("gemm", "fp8_e4m3")
    builder.linear(builder.input("x", tokens, 4096), 4096, bias=False)
    graph = builder.build()
    after, before = (ax.simulate(graph, device, stack="vllm").summary["latency_s"] for device in (two, one))
    assert after - before == pytest.approx(extra_s, abs=1e-9)
