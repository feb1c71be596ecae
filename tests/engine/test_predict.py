"""Predicting operators: rows keep their place, the fast path equals the graph path, mistakes are named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures.base import Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.architectures.single import predict_by_graph
from accelsim.core.errors import RequestError
from accelsim.core.precision import plan

HEADS = {"heads": 32, "kv_heads": 8, "head_dim": 128}
FILTERS = {"c_in": 64, "c_out": 64, "kernel_h": 3, "kernel_w": 3}
EXPERTS = {"hidden": 1024, "intermediate": 512, "experts": 8, "topk": 2}

FRAME = pd.DataFrame(
    [
        {"op": "gemm", "precision": "fp16", "m": 128, "n": 4096, "k": 4096},
        {"op": "conv2d", "precision": "int8", **FILTERS, "h": 56, "w": 56},
        {"op": "attention_decode", "precision": "bf16", **HEADS, "seq_kv": 2048},
        {"op": "attention_prefill", "precision": "bf16", **HEADS, "seq_q": 2048},
        {"op": "bmm", "precision": "bf16", "batch": 64, "m": 128, "n": 128, "k": 64},
        {"op": "moe", "precision": "bf16", "tokens": 64, **EXPERTS},
        {"op": "rmsnorm", "precision": "bf16", "rows": 4096, "cols": 4096},
        {"op": "softmax", "precision": "bf16", "rows": 4096, "cols": 1024},
        {"op": "elementwise", "precision": "bf16", "rows": 4096, "cols": 4096, "inputs": 2},
        {"op": "allreduce", "precision": "bf16", "bytes": 1 << 24, "ranks": 8},
        {"op": "gemm", "precision": "fp16", "m": 4096, "n": 4096, "k": 4096},
    ],
    index=[7, 3, 5, 1, 0, 2, 4, 6, 8, 9, 10],
)


def test_rows_keep_their_place():
    table = ax.predict_ops(FRAME, "h100-sxm")
    assert list(table.index) == list(FRAME.index)
    assert (table.low_s < table.latency_s).all()
    assert (table.latency_s < table.high_s).all()
    assert (table.bound != "").all()
    assert table.latency_s[10] > table.latency_s[7]
    shuffled = ax.predict_ops(FRAME.sample(frac=1, random_state=1), "h100-sxm")
    pd.testing.assert_series_equal(shuffled.latency_s.sort_index(), table.latency_s.sort_index())


@pytest.mark.parametrize("name", ["tpu-v4", "zcu104-dpu"])
def test_other_sequential_devices_answer_too(name):
    rows = FRAME[FRAME.op.isin(["gemm", "conv2d"])].assign(precision="int8")
    table = ax.predict_ops(rows, name)
    assert (table.latency_s > 0).all()


sizes = st.tuples(*[st.integers(1, 5000)] * 3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(sizes, min_size=1, max_size=8),
    st.sampled_from(["bf16", "int8", "weight=int8,activation=bf16"]),
    st.sampled_from(["gemm", "bmm"]),
    st.sampled_from(["h100-sxm", "t4", "l40s"]),
    st.booleans(),
)
def test_the_fast_path_equals_the_graph_path(shapes, fmt, op, name, cold):
    if name == "t4" and "bf16" in fmt:
        fmt = "fp16"
    device = ax.load_hardware(name)
    m, n, k = np.array(shapes, dtype=float).T
    columns = {"m": m, "n": n, "k": k, "scale_block": np.zeros(len(m))}
    if op == "bmm":
        columns["batch"] = np.full(len(m), 3.0)
    options = Options(cold=cold)
    fast = ARCHITECTURE.predict(op, columns, plan(fmt), device, options)
    slow = predict_by_graph(ARCHITECTURE, op, columns, plan(fmt), device, options)
    np.testing.assert_allclose(fast.latency_s, slow.latency_s, rtol=1e-9)
    np.testing.assert_allclose(fast.dram_bytes, slow.dram_bytes, rtol=1e-9)
    np.testing.assert_allclose(fast.energy_j, slow.energy_j, rtol=1e-9)
    assert list(fast.bound) == list(slow.bound)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns=["k"]), ["'k'"]),
        (lambda f: f.assign(m=f.m.where(f.index != 7)), ["'m'", "row 0"]),
        (lambda f: f.assign(n=f.n.where(f.index != 10, -4)), ["'n'", "-4", "row 10"]),
        (lambda f: f.assign(op=f.op.replace("gemm", "germ")), ["germ", "gemm"]),
        (lambda f: f.assign(precision=f.precision.where(f.index != 7, "fp17")), ["fp17", "row 0"]),
        (lambda f: f.assign(precision=f.precision.where(f.index != 7, "int2")), ["int2", "rows 0", "has"]),
    ],
)
def test_mistakes_name_rows_and_columns(change, words):
    with pytest.raises(RequestError) as error:
        ax.predict_ops(change(FRAME), "h100-sxm")
    assert all(word in str(error.value) for word in words), str(error.value)
