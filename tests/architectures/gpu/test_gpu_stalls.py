"""What the time of a kernel is spent on: the parts sum to it, and go where closed forms say."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures.base import STALLS
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention import attention_rows
from accelsim.architectures.gpu.cost import SPLIT_ARRAY, device_array
from accelsim.architectures.gpu.grid import divided, spread
from accelsim.architectures.gpu.sm import cost_rows
from accelsim.architectures.gpu.tiles import TILES, tile_table
from accelsim.core.precision import plan
from accelsim.engine.predict import PARTS
from accelsim.hardware.spec import load_hardware
from accelsim.workload.builders.layers import GraphBuilder

DEVICES = {name: load_hardware(name) for name in ("h100-sxm", "b200", "l40s", "l4", "v100-sxm")}
EXACT = 1e-12


def costed(device, constants, *shapes, governor=False, kind=R.MATRIX, vector=0.0, distance=math.inf):
    """Rows of (batch, m, n, k) of 16 bits costed by the kernel."""
    rows = []
    for batch, m, n, k in shapes:
        moved = [2.0 * batch * x for x in (m * k, n * k, m * n)]
        gaps = [distance] * 4
        sizes = (batch, m, n, k)
        rows.append(
            [kind, *sizes, *[2.0] * 3, 2000.0, 1e9, *moved, 0.0, *gaps, vector, 128.0, 0.0, 1.0, 1.0, 1.0]
        )
    out = np.full((len(rows), R.OUT_WIDTH), 7.0)  # what was there before does not matter
    tables = tile_table(device, 2.0, 2.0)[None]
    numbers = device_array(device)
    cost_rows(np.array(rows), tables, SPLIT_ARRAY, numbers, constants.array, governor, out)
    return out


def parts(out):
    return out[:, R.STALL_COMPUTE : R.OUT_SUMS]


SHAPES = st.tuples(st.sampled_from([1, 6]), *[st.integers(1, 9000)] * 3)


@settings(max_examples=80, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    name=st.sampled_from(sorted(DEVICES)),
    kind=st.sampled_from([R.STREAM, R.MATRIX, R.UNSPLIT]),
    governor=st.booleans(),
    vector=st.sampled_from([0.0, 1e6, 1e10]),
    distance=st.sampled_from([0.0, 3e7, math.inf]),
    update=st.sampled_from(
        [{}, {"quantise_passes": 2.0, "quantise_cycles": 1e3, "quantise_row_cycles": 50.0}]
    ),
)
def test_parts_of_a_kernel_sum_to_its_time(shapes, name, kind, governor, vector, distance, update):
    constants = DEVICES[name].kernels.product.model_copy(update=update)
    out = costed(
        DEVICES[name], constants, *shapes, kind=kind, governor=governor, vector=vector, distance=distance
    )
    total = out[:, R.OUT_BODY] + out[:, R.OUT_FIXED]
    assert parts(out).sum(axis=1) == pytest.approx(total, rel=EXACT)
    assert (parts(out) >= -EXACT * total[:, None]).all()
    memory = out[:, R.OUT_DRAM_S] >= out[:, R.OUT_COMPUTE]
    on_chip = out[:, R.OUT_BODY] - out[:, R.OUT_DRAM_S]
    if not update:
        assert (out[memory, R.STALL_DRAM] >= on_chip[memory]).all()


FRAMES = {
    "gemm": st.fixed_dictionaries({c: st.integers(1, 9000) for c in "mnk"}),
    "conv2d": st.fixed_dictionaries(
        {"c_in": st.integers(1, 256), "c_out": st.integers(1, 256), "h": st.integers(3, 99)}
    ),
    "attention_prefill": st.fixed_dictionaries(
        {"seq_q": st.integers(1, 5000), "batch": st.integers(1, 64), "window": st.sampled_from([0, 128])}
    ),
    "attention_decode": st.fixed_dictionaries(
        {"seq_kv": st.integers(1, 50000), "batch": st.integers(1, 64), "window": st.sampled_from([0, 128])}
    ),
    "moe": st.fixed_dictionaries({"tokens": st.integers(1, 5000), "intermediate": st.integers(1, 3000)}),
    "lstm": st.fixed_dictionaries({"hidden": st.integers(1, 2000), "steps": st.integers(1, 99)}),
    "softmax": st.fixed_dictionaries({"rows": st.integers(1, 9000), "cols": st.integers(1, 9000)}),
    "allreduce": st.fixed_dictionaries({"bytes": st.integers(1, 1 << 30), "ranks": st.integers(2, 16)}),
}
FIXED = {
    "kernel_h": 3, "kernel_w": 3, "padding": 1, "w": 30, "heads": 32, "kv_heads": 8, "head_dim": 128,
    "hidden": 1024, "experts": 16, "topk": 2,
}  # fmt: skip


@pytest.mark.parametrize("op", FRAMES)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_parts_of_every_operator_sum_to_its_latency(op, data):
    cells = data.draw(FRAMES[op])
    stack = data.draw(st.sampled_from(["eager", "graph", "tensorrt", "vllm", "trtllm"]))
    name, fmt = data.draw(st.sampled_from([("h100-sxm", "bf16"), ("v100-sxm", "fp16"), ("l4", "int8")]))
    if op == "allreduce" and name == "l4":
        name, fmt = "h100-sxm", "bf16"
    row = pd.DataFrame([{**FIXED, **cells, "op": op, "precision": fmt}])
    plain, table = ax.predict_ops(row, name, stack=stack), ax.predict_ops(row, name, stack=stack, stalls=True)
    assert list(table.columns) == [*plain.columns, *PARTS]
    assert table[list(PARTS)].sum(axis=1)[0] == pytest.approx(table.latency_s[0], rel=EXACT)
    assert (table[list(PARTS)] >= -EXACT * table.latency_s[0]).all(axis=None)
    assert table.latency_s[0] == plain.latency_s[0]
    name = "dram" if table.bound[0] == "memory" else table.bound[0]
    largest = table[f"stall_{name}_s"][0]
    assert largest >= table[list(PARTS)].max(axis=1)[0] * (1 - EXACT)


def test_a_full_wave_is_arithmetic_and_an_odd_one_has_a_tail(toy):
    """100 SMs: 100 tiles fill them; with 101 the last block runs alone, so 99 of 200 places stay empty."""
    free = dict.fromkeys(("l2_efficiency", "l2_bytes_per_clock", "shared_bytes_per_clock"), 1e9)
    none = dict.fromkeys(
        ("epilogue_cycles", "prologue_latencies", "step_latencies", "step_cycles", "step_overhead"), 0.0
    )
    only = tuple(1.0 if tile == (128, 128) else 1e6 for tile in TILES)
    ideal = toy.kernels.product.model_copy(
        update={**free, **none, "tensor_efficiency": 1.0, "tile_costs": only, "split_k_cycles": 1e12}
    )
    full, odd = costed(toy, ideal, (1, 1280, 1280, 4096), (101, 128, 128, 4096), distance=0.0)
    assert full[R.STALL_COMPUTE] == pytest.approx(full[R.OUT_BODY], rel=1e-9)
    assert odd[R.STALL_TAIL] == pytest.approx(odd[R.OUT_BODY] * 99 / 200, rel=1e-6)
    assert odd[R.STALL_COMPUTE] == pytest.approx(odd[R.OUT_BODY] * 101 / 200, rel=1e-6)
    starved = toy.kernels.product.model_copy(
        update={**free, **none, "tile_costs": only, "split_k_cycles": 1e12, "shared_bytes_per_clock": 1.0}
    )
    (slow,) = costed(toy, starved, (1, 1280, 1280, 4096), distance=0.0)
    assert slow[R.STALL_SHARED] == pytest.approx(slow[R.OUT_BODY], rel=1e-9)


def test_a_streamed_matrix_is_spent_on_dram(toy):
    (line,) = costed(toy, toy.kernels.product, (1, 1, 16384, 16384))
    assert line[R.STALL_DRAM] == pytest.approx(line[R.OUT_DRAM_S])
    assert line[R.STALL_DRAM] > 0.9 * (line[R.OUT_BODY] + line[R.OUT_FIXED])


@settings(deadline=None)
@given(main=st.floats(0, 1), dram=st.floats(0, 1), extra=st.floats(0, 1))
def test_the_longer_of_two_activities_counts_in_full(main, dram, extra):
    body = max(main, dram) + extra * min(main, dram)
    on_chip, external = divided(body, main, dram)
    assert on_chip + external == pytest.approx(body)
    assert max(on_chip, external) >= max(main, dram) * (1 - 1e-9)


times = st.floats(0, 1)


pairs = st.tuples(times, times)


@settings(deadline=None)
@given(
    step=st.tuples(st.floats(1, 9), *[st.floats(0, 9)] * 4),
    busy=times,
    limits=st.tuples(times, times, times),
    even=pairs,
    again=pairs,
    on_chip=times,
)
def test_spread_equals_its_python_self_and_keeps_the_sum(step, busy, limits, even, again, on_chip):
    fast, slow = np.zeros(R.OUT_WIDTH), np.zeros(R.OUT_WIDTH)
    spread(fast, on_chip, step, busy, limits, even, again)
    spread.py_func(slow, on_chip, step, busy, limits, even, again)
    assert fast == pytest.approx(slow)
    assert fast.sum() == pytest.approx(on_chip)
    assert (fast >= 0).all()


def test_more_launch_and_host_time_is_launch(toy):
    b = GraphBuilder("a", "fp16")
    b.linear(b.input("x", 4, 64), 64)
    graph = b.build()
    for stack, least in (("eager", 20e-6), ("graph", 1e-6)):
        result = ax.simulate(graph, toy, stack=stack)
        assert result.ops.stall_launch_s[0] >= 0.5 * least
        assert result.ops[list(PARTS)].sum(axis=1)[0] == pytest.approx(result.ops.latency_s[0], rel=EXACT)


@pytest.mark.parametrize("fidelity", ["analytic", "tile", "event"])
@pytest.mark.parametrize(("workload", "devices"), [("resnet50", 1), ("bert-base", 2)])
def test_parts_of_every_kernel_of_a_network_sum_to_its_time(workload, devices, fidelity):
    for stack in ("eager", "graph", "tensorrt"):
        result = ax.simulate(workload, "h100-sxm", stack=stack, devices=devices, fidelity=fidelity)
        table = result.ops[list(PARTS)]
        assert table.sum(axis=1).to_numpy() == pytest.approx(result.ops.latency_s.to_numpy(), rel=1e-9)
        assert "stall_s" not in result.missing
        assert (table.stall_link_s > 0).any() == (devices > 1)


def test_explain_names_the_largest_part_first():
    text = ax.simulate("resnet50", "h100-sxm", batch=64).explain("fc")
    (line,) = (x for x in text.splitlines() if "spent on" in x)
    shares = [float(x.split()[1]) for x in line.split(": ")[1].split(", ")]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert line.split(": ")[1].split()[0] in STALLS


def test_architectures_without_a_breakdown_say_so():
    result = ax.simulate("resnet50", "tpu-v4")
    assert result.ops[list(PARTS)].isna().all(axis=None)
    assert "does not divide" in result.missing["stall_s"]
    assert "spent on" not in result.explain(result.ops.op[0])
    row = pd.DataFrame([{"op": "gemm", "precision": "int8", "m": 9, "n": 9, "k": 9}])
    assert ax.predict_ops(row, "tpu-v4", stalls=True)[list(PARTS)].isna().all(axis=None)


def test_attention_of_many_queries_is_arithmetic_and_decoding_is_dram():
    shape = {"batch": 64, "heads": 32, "kv_heads": 8, "head_dim": 128, "causal": 1, "window": 0}
    device = DEVICES["h100-sxm"]

    def share(name, **sizes):
        columns = {k: np.array([float(v)]) for k, v in {**shape, **sizes}.items()}
        found = attention_rows(columns, plan("bf16"), device, "vllm")
        return found.stalls_s[0, STALLS.index(name)] / found.latency_s[0]

    assert share("compute", seq_q=8192, seq_kv=8192) > 0.6
    assert share("dram", seq_q=1, seq_kv=8192) > 0.7
    assert share("launch", seq_q=1, seq_kv=1, batch=1) > 0.4
