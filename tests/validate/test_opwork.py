"""Arithmetic and traffic of single operators: closed forms, brute force, the graph's own formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.architectures.opschema import shapes
from accelsim.architectures.opwork import expected_experts, visible_pairs, work
from accelsim.architectures.single import ops_of
from accelsim.core.precision import plan
from accelsim.workload.builders.layers import GraphBuilder


def _work(**row: Any) -> tuple[float, float, float]:
    flops, dram, link = work(pd.DataFrame([{"precision": "bf16", **row}]))
    return float(flops[0]), float(dram[0]), float(link[0])


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 12), st.booleans())
def test_visible_pairs_equal_the_mask_counted_cell_by_cell(
    q: int, past: int, window: int, causal: bool
) -> None:
    kv = q + past
    rows = np.arange(q)[:, None] + past
    keys = np.arange(kv)[None, :]
    mask = (
        (keys <= rows) & ((window == 0) | (keys > rows - window)) if causal else np.ones((q, kv), dtype=bool)
    )
    if not causal and window:
        return
    sizes = {"seq_q": q, "seq_kv": kv, "window": window, "causal": causal}
    s = {k: np.array([float(v)]) for k, v in sizes.items()}
    assert visible_pairs(s)[0] == mask.sum()


def test_gemm_and_its_formats() -> None:
    flops, dram, link = _work(op="gemm", m=4, n=6, k=8)
    assert (flops, dram, link) == (2 * 4 * 6 * 8, 2 * (4 * 8 + 8 * 6 + 4 * 6), 0)
    _, dram, _ = _work(op="gemm", m=4, n=6, k=8, precision="weight=int4,activation=bf16")
    assert dram == 2 * 4 * 8 + 0.5 * 8 * 6 + 2 * 4 * 6
    _, dram, _ = _work(op="gemm", m=4, n=6, k=8, precision="fp8_e4m3")
    assert dram == 4 * 8 + 8 * 6 + 2 * 4 * 6


@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 0, 1), (2, 1, 1), (1, 1, 4), (2, 3, 16)])
def test_convolution_counts_as_the_graph_counts(stride: int, padding: int, groups: int) -> None:
    layer: dict[str, Any] = {
        "op": "conv2d",
        "batch": 2,
        "c_in": 16,
        "c_out": 32,
        "kernel_h": 3,
        "kernel_w": 3,
    }
    flops, dram, _ = _work(**layer, h=14, w=10, stride=stride, padding=padding, groups=groups)
    b = GraphBuilder("one", "bf16")
    b.conv(b.input("x", 2, 16, 14, 10), 32, 3, stride=stride, padding=padding, groups=groups, bias=False)
    (op,) = b.ops
    assert flops == op.flops
    assert dram == op.bytes_compulsory


def test_attention_counts_as_the_graph_counts() -> None:
    b = GraphBuilder("one", "bf16")
    q = b.input("q", 3, 8, 1, 64)
    k, v = (b.input(n, 3, 2, 100, 64, role="kv") for n in "kv")
    b.attention(q, k, v, causal=True)
    (op,) = b.ops
    flops, dram, _ = _work(op="attention_decode", batch=3, heads=8, kv_heads=2, head_dim=64, seq_kv=100)
    assert flops == op.flops
    assert dram == op.bytes_compulsory


def test_latent_attention_counts_as_the_graph_counts() -> None:
    for op, shape in (
        ("mla_decode", {"seq_q": 1, "seq_kv": 100}),
        ("mla_prefill", {"seq_q": 32, "absorbed": 1}),
        ("mla_prefill", {"seq_q": 32}),
    ):
        row = {"op": op, "batch": 3, "heads": 16, **shape}
        flops, dram, _ = _work(**row)
        filled = {name: int(values[0]) for name, values in shapes(pd.DataFrame([row]), op).items()}
        (kernel,) = ops_of(op, filled, plan("bf16"), "one")
        assert flops == kernel.flops
        assert dram == kernel.bytes_compulsory
    keys = 3 * 16 * 32 * 33  # twice the visible pairs of all heads
    assert _work(op="mla_prefill", batch=3, heads=16, seq_q=32)[0] == keys * (192 + 128)
    assert _work(op="mla_prefill", batch=3, heads=16, seq_q=32, absorbed=1)[0] == keys * (576 + 512)


def test_a_window_bounds_what_is_read() -> None:
    whole = _work(op="attention_decode", heads=1, head_dim=64, seq_kv=4096)
    short = _work(op="attention_decode", heads=1, head_dim=64, seq_kv=4096, window=128)
    assert short[0] * 32 == whole[0]
    assert short[1] == 2 * 64 * 2 + 2 * 64 * 128 * 2


@given(st.integers(1, 10_000), st.integers(1, 512), st.integers(1, 64))
def test_expected_experts_lie_between_topk_and_all(tokens: int, experts: int, topk: int) -> None:
    topk = min(topk, experts)
    (found,) = expected_experts(*(np.array([float(x)]) for x in (tokens, experts, topk)))
    assert topk - 1e-6 <= found <= experts + 1e-9


def test_experts_split_over_ranks_share_work_and_weights() -> None:
    layer: dict[str, Any] = {"op": "moe", "tokens": 4096, "hidden": 512, "intermediate": 256}
    layer |= {"experts": 16, "topk": 2}
    whole, split = _work(**layer), _work(**layer, expert_ranks=4, tensor_ranks=2)
    assert split[0] * 8 == whole[0]
    assert whole[0] == 2 * 4096 * 2 * 3 * 512 * 256
    assert _work(**layer, gated=False)[0] * 3 == whole[0] * 2


def test_tokens_that_stay_on_a_rank_are_topk_rows_there() -> None:
    layer: dict[str, Any] = {"op": "moe", "tokens": 4096, "hidden": 512, "intermediate": 256, "local": 1}
    layer |= {"experts": 16, "topk": 2}
    whole = _work(**layer)
    assert _work(**layer | {"local": 0}) == whole  # one rank has all
    assert _work(**layer, expert_ranks=2)[0] == whole[0]  # every token visits both
    assert _work(**layer, expert_ranks=8)[0] * 4 == whole[0]


def test_ring_traffic() -> None:
    size = 1 << 20
    sent = {op: _work(op=op, bytes=size, ranks=4)[2] / size for op in ("allreduce", "allgather", "sendrecv")}
    assert sent == {"allreduce": 1.5, "allgather": 0.75, "sendrecv": 1.0}


def test_recurrent_layers_match_the_published_flop_counts() -> None:
    """DeepBench counts 8, 6 and 2 h^2 N T for the forward pass of its LSTM, GRU and plain layers."""
    for op, factor in {"lstm": 8, "gru": 6, "rnn": 2}.items():
        flops, _, _ = _work(op=op, hidden=512, batch=16, steps=25, input=0)
        assert flops == factor * 512**2 * 16 * 25
