"""Attention, mixture of experts and collectives against masks, enumeration and a ring."""

from __future__ import annotations

from itertools import combinations, product
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_ops import op

from accelsim.workload.ops.attention import SOFTMAX_OPS, allowed_pairs, keys_read
from accelsim.workload.ops.moe import expected_experts

# -- attention -------------------------------------------------------------------------------------------

windows = st.none() | st.integers(1, 40)


def mask(t: int, s: int, causal: bool, window: int | None) -> list[list[bool]]:
    def seen(position: int, key: int) -> bool:
        if causal:
            return key <= position and (window is None or position - key < window)
        return window is None or abs(position - key) <= window // 2

    return [[seen(s - t + i, j) for j in range(s)] for i in range(t)]


@given(t=st.integers(1, 24), past=st.integers(0, 24), causal=st.booleans(), window=windows)
def test_mask_share_and_keys_against_the_mask(t: int, past: int, causal: bool, window: int | None) -> None:
    s = t + past
    rows = mask(t, s, causal, window)
    assert allowed_pairs(t, s, causal, window) == sum(map(sum, rows))
    assert keys_read(t, s, causal, window) == sum(any(row[j] for row in rows) for j in range(s))


@given(
    b=st.integers(1, 3),
    kv=st.integers(1, 3),
    group=st.integers(1, 4),
    t=st.integers(1, 9),
    past=st.integers(0, 9),
    d=st.integers(1, 9),
    dv=st.integers(1, 9),
    window=windows,
)
def test_attention_counts_unmasked_scores(
    b: int, kv: int, group: int, t: int, past: int, d: int, dv: int, window: int | None
) -> None:
    s, heads = t + past, kv * group
    shapes = [(b, heads, t, d), (b, kv, s, d), (b, kv, s, dv)]
    o = op("attention", shapes, [(b, heads, t, dv)], causal=True, window=window)
    scores = b * heads * sum(map(sum, mask(t, s, True, window)))
    assert o.macs == pytest.approx(scores * (d + dv))
    assert o.work.vector_ops == pytest.approx(scores * SOFTMAX_OPS)
    read = sum(any(row[j] for row in mask(t, s, True, window)) for j in range(s))
    assert o.work.bytes_read == pytest.approx(2 * (b * heads * t * d + b * kv * read * (d + dv)))
    assert o.work.bytes_written == 2 * b * heads * t * dv


def test_a_mask_tensor_is_read_and_added() -> None:
    shapes = [(1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)]
    plain, masked = (
        op("attention", [*shapes, *more], [(1, 2, 4, 8)], causal=False) for more in ([], [(4, 4)])
    )
    assert masked.work.bytes_read - plain.work.bytes_read == 2 * 16
    assert masked.work.vector_ops - plain.work.vector_ops == 2 * 16


@given(
    h=st.integers(1, 6),
    t=st.integers(1, 6),
    past=st.integers(0, 9),
    latent=st.integers(1, 9),
    rope=st.integers(0, 5),
)
def test_mla_is_attention_with_one_key_head_whose_values_are_the_latents(
    h: int, t: int, past: int, latent: int, rope: int
) -> None:
    s = t + past
    mla = op(
        "mla_attention",
        [(1, h, t, latent + rope), (1, s, latent + rope)],
        [(1, h, t, latent)],
        latent=latent,
        rope=rope,
        causal=True,
    )
    mqa = op(
        "attention",
        [(1, h, t, latent + rope), (1, 1, s, latent + rope), (1, 1, s, latent)],
        [(1, h, t, latent)],
        causal=True,
    )
    assert mla.flops == mqa.flops
    assert mla.work.vector_ops == mqa.work.vector_ops
    assert mqa.work.bytes_read - mla.work.bytes_read == 2 * s * latent  # values are not read again


# -- mixture of experts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experts", "top_k", "tokens"), [(1, 1, 3), (2, 1, 3), (3, 2, 3), (4, 2, 2), (4, 3, 2), (5, 1, 4)]
)
def test_expected_experts_against_enumeration(experts: int, top_k: int, tokens: int) -> None:
    choices = list(combinations(range(experts), top_k))
    routings = product(choices, repeat=tokens)
    distinct = sum(len(set().union(*map(set, routing))) for routing in routings)
    assert expected_experts(experts, top_k, tokens) == pytest.approx(
        distinct / comb(experts, top_k) ** tokens
    )


@given(experts=st.integers(1, 64), data=st.data(), tokens=st.integers(1, 300))
def test_grouped_matmul_runs_routed_rows_and_reads_reached_experts(
    experts: int, data: st.DataObject, tokens: int
) -> None:
    top_k = data.draw(st.integers(1, experts))
    rows, k, n = tokens * top_k, 16, 24
    o = op("grouped_matmul", [(rows, k), (experts, k, n)], [(rows, n)], experts=experts, top_k=top_k)
    assert o.macs == pytest.approx(rows * k * n)
    reached = (o.work.bytes_read - 2 * rows * k) / (2 * k * n)
    assert min(top_k, experts) <= reached * (1 + 1e-9)
    assert reached <= min(experts, rows) * (1 + 1e-9)
    nest = o.loop_nest
    assert nest is not None
    assert nest.batch <= min(experts, rows)
    assert nest.batch * nest.m >= rows


def test_routing_moves_each_row_once_per_choice() -> None:
    routing = {"experts": 8, "top_k": 2}
    out = op("moe_dispatch", [(5, 16), (5, 2)], [(10, 16)], **routing)
    back = op("moe_combine", [(10, 16), (5, 2)], [(5, 16)], **routing)
    assert out.bytes_compulsory == 2 * (5 * 16 + 5 * 2 + 10 * 16)
    assert back.work.vector_ops == 5 * 16 * (2 + 1)  # two multiplies, one add


# -- collectives -----------------------------------------------------------------------------------------


def ring_all_reduce(devices: int, elements: int) -> tuple[int, int]:
    """Elements that one device sends and adds when a ring reduces and then gathers; every sum is checked."""
    chunk = elements // devices
    held = [[1] * devices for _ in range(devices)]  # chunk sums, in contributions
    sent = added = 0
    for step in range(devices - 1):
        moving = [(d, (d - step) % devices, held[d][(d - step) % devices]) for d in range(devices)]
        for d, c, value in moving:
            held[(d + 1) % devices][c] += value
        sent, added = sent + chunk, added + chunk
    for step in range(devices - 1):
        moving = [(d, (d + 1 - step) % devices, held[d][(d + 1 - step) % devices]) for d in range(devices)]
        for d, c, value in moving:
            held[(d + 1) % devices][c] = value
        sent += chunk
    assert all(value == devices for row in held for value in row)
    return sent, added


@given(devices=st.integers(2, 12), chunk=st.integers(1, 50))
def test_all_reduce_sends_what_a_ring_sends(devices: int, chunk: int) -> None:
    elements = devices * chunk
    sent, added = ring_all_reduce(devices, elements)
    work = op("all_reduce", [(elements,)], [(elements,)], devices=devices).work
    assert work.link_bytes == pytest.approx(2 * sent)
    assert work.vector_ops == pytest.approx(added)
    assert work.engine == "link"


@given(devices=st.integers(2, 12), chunk=st.integers(1, 50))
def test_reduce_scatter_then_all_gather_is_all_reduce(devices: int, chunk: int) -> None:
    whole, shard = (devices * chunk,), (chunk,)
    scatter = op("reduce_scatter", [whole], [shard], devices=devices).work
    gather = op("all_gather", [shard], [whole], devices=devices).work
    both = op("all_reduce", [whole], [whole], devices=devices).work
    assert scatter.link_bytes == pytest.approx(2 * (devices - 1) * chunk)
    assert gather.link_bytes == pytest.approx(scatter.link_bytes)
    assert both.link_bytes == pytest.approx(scatter.link_bytes + gather.link_bytes)
    assert op("all_to_all", [whole], [whole], devices=devices).work.link_bytes == pytest.approx(
        2 * (devices - 1) * chunk
    )
    assert op("send", [whole], [whole], devices=devices).work.link_bytes == 2 * devices * chunk


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"])
def test_one_device_communicates_nothing(kind: str) -> None:
    assert op(kind, [(8,)], [(8,)], devices=1).work.free
