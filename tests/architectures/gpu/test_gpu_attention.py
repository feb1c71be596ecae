"""The attention kernel against a slow twin written from docs/models.md, its laws, and measured rows."""

from __future__ import annotations

from math import ceil, floor, inf, log2

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.base import BOUNDS, Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.architectures.gpu import attention_rows as A
from accelsim.architectures.gpu.attention import (
    attention_device,
    attention_model,
    attention_rows,
    run_kernel,
)
from accelsim.architectures.gpu.host import ramp_s
from accelsim.architectures.opschema import shapes as columns
from accelsim.architectures.opwork import visible_pairs
from accelsim.architectures.single import predict_by_graph
from accelsim.core.precision import plan
from accelsim.hardware.spec import load_hardware
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Op, Tensor

COLUMNS = ("batch", "heads", "kv_heads", "head_dim", "seq_q", "seq_kv", "causal", "window")
BF16 = plan("bf16")


def table(*rows):
    return {name: np.array(column, dtype=float) for name, column in zip(COLUMNS, zip(*rows))}


def share_resident(capacity, distance):
    return 1.0 if distance <= 0 else min(1.0, max(0.0, (capacity / distance - 0.8333) / 0.4167))


def visited(model, tile, per_token, block, queries, keys, causal, window):
    """Key blocks of the query tiles of one problem: their mean and the most."""
    count = ceil(queries * per_token / tile)
    tokens = tile / per_token
    span = max(tokens, 1.0)
    if not causal:
        steps = ceil((min(keys, span + window + model.window_edge * block) if window else keys) / block)
        return steps, steps
    limit = min(keys, window + span - 1) if window else keys
    ends = [min(keys - queries + span + i * tokens, limit) for i in range(count)]
    edge = model.window_edge * block if window and keys > limit else 0.0
    most = ceil(min(keys, limit + edge) / block) if edge else ceil(limit / block)
    mean = (sum(ends) / count + max(0.0, block - tokens) / 2 + edge) / block
    return min(max(mean if count > 1 else most, 1.0), most), most


def at_width(width, at_64, at_192, at_256, at_512):
    return float(np.interp(width, [64, 128, 192, 256, 512], [at_64, 1.0, at_192, at_256, at_512]))


def twin(model, device, shape, distance, rate, clock):
    """Body and fixed time of one kernel, slowly."""
    batch, heads, shared, width, queries, keys, causal, window = shape
    sm, memory, l2 = device.sm, device.memory, device.l2
    group = heads / shared
    units, rows, per_token = (
        (batch * shared, queries * group, group) if model.packed else (batch * heads, queries, 1.0)
    )
    largest = model.narrow_tile if width <= 64 else model.tile
    tile = min(largest, max(model.smallest_tile, 2.0 ** ceil(log2(rows))))
    grid = units * ceil(rows / tile)
    narrow = min(1.0, max(64.0, 2.0 ** floor(log2(16384 / width))) / 128)
    slots = model.resident
    if model.streams:
        threads = 256 * max(t for t in (1, 2, 4) if t <= ceil(4 * sm.count / grid))
        slots = 1024 / threads
        narrow = 128 / 2 ** ceil(log2(width)) * threads / 256
        if log2(width) % 1:
            narrow /= 2
    block = model.step_keys * narrow
    mean, most = visited(model, tile, per_token, block, queries, keys, causal, window * model.skips)
    split = 1.0
    if model.streams:
        seen = keys if model.history or not window * model.skips else min(keys, window)
        split = max(1.0, min(ceil(model.split_fill * sm.count / grid), seen // block + 1, model.most_splits))
    elif model.split_fill:
        room = floor(model.split_fill * sm.count / grid)
        counted = keys if model.history else most * block
        split = max(1.0, min(room, floor(counted / model.split_keys), model.most_splits))
    own, last, blocks = max(1.0, mean / split), max(1.0, most / split), grid * split
    products = 4.0 * tile * block * width / rate
    softmax = model.softmax * tile * block / sm.exp_per_clock
    tensor = products / model.efficiency
    load = block * 2 * width * 2
    work = max(tensor, softmax) + (1 - model.hidden) * min(tensor, softmax)
    slower = at_width(width, model.step_64, model.step_192, model.step_256, model.step_512)
    work *= slower
    work = max(work, products, load / model.l2_bytes_per_clock)
    start = model.block_cycles * at_width(
        width, model.block_64, model.block_192, model.block_256, model.block_512
    )

    def rounds(queue):
        return model.rounding * ceil(queue) + (1 - model.rounding) * max(1.0, queue)

    pace = work + model.step_cycles
    if model.streams:
        pace = work + model.step_cycles * slower * min(1.0, 8 * keys / block)
    busy = max(rounds(blocks / sm.count) * own * work, last * work)
    wait = max(rounds(blocks / sm.count / slots) * (own * pace + start), last * pace + start)
    l2_rate = l2.bandwidth_bytes_per_s * model.l2_efficiency
    main = max(busy / clock, wait / clock, blocks * own * load / l2_rate)
    main *= 1 + (1 / model.sustained - 1) * main / (main + 5e-3)
    reach = queries + (window - 1 if causal else window // 2) if window else keys
    moved = 2 * batch * width * (2 * heads * queries + 2 * shared * min(keys, reach))
    miss = 1 - share_resident(l2.capacity_bytes * model.l2_share, distance)
    dram_rate = memory.bandwidth_bytes_per_s * model.dram_efficiency
    dram = moved * miss / dram_rate
    body = (main**model.overlap + dram**model.overlap) ** (1 / model.overlap)
    tokens = batch * queries
    fresh = 2 * tokens * width * (heads * model.query_passes + 2 * shared * model.key_passes)
    fixed = model.fixed_s + fresh * (miss / dram_rate + (1 - miss) / l2_rate) + tokens * model.token_s
    fixed += batch * model.sequence_s if batch <= model.sequences else 0.0
    if model.packed and group > 1 and batch > 1 and shared > 1:
        fixed += model.repack_s
    if split > 1:
        fixed += model.merge_s + 8 * split * tokens * heads * width / (l2_rate * model.merge_share)
    return body, fixed


@st.composite
def shapes(draw):
    shared = draw(st.sampled_from([1, 2, 8]))
    heads = shared * draw(st.sampled_from([1, 3, 8, 64]))
    queries = draw(st.sampled_from([1, 7, 128, 1000]))
    keys = queries + draw(st.sampled_from([0, 1, 500, 20000]))
    batch, width = draw(st.sampled_from([1, 5, 300])), draw(st.sampled_from([64, 80, 128, 192, 256, 512]))
    return (
        batch,
        heads,
        shared,
        width,
        queries,
        keys,
        draw(st.booleans()),
        draw(st.sampled_from([0, 1, 128, 4096])),
    )


@pytest.mark.parametrize("device", ["a100-sxm", "h100-sxm", "b300", "l40s"])
@settings(max_examples=60, deadline=None)
@given(shape=shapes(), stack=st.sampled_from(["vllm", "trtllm", "sglang"]), cold=st.booleans())
def test_equals_the_slow_twin(device, shape, stack, cold):
    gpu = load_hardware(device)
    batch, heads, shared, width, queries, keys, causal, window = shape
    model = attention_model(
        gpu,
        stack,
        decode=queries == 1,
        format_bits=(16.0, 16.0),
        group=heads / shared,
        width=width,
        window=window > 0,
        few=queries == 1 and batch * shared * max(1, keys // 128) < gpu.sm.count / 4,
    )
    reach = queries + (window - 1 if causal else window // 2) if window else keys
    touched = 2 * batch * width * (2 * heads * queries + 2 * shared * min(keys, reach))
    rate, clock = gpu.sm.tensor_flop_per_clock["bf16"], gpu.sm.tensor_clock_hz
    body, fixed = twin(model, gpu, shape, inf if cold else touched, rate, clock)
    latency, bound, dram, _, stalls = attention_rows(table(shape), BF16, gpu, stack, cold)
    launch = gpu.launch.graph_s + ramp_s(gpu)
    assert latency[0] == pytest.approx(body + fixed + launch, rel=1e-9)
    assert stalls[0, bound[0]] == stalls[0].max()
    assert dram[0] <= touched * (1 + 1e-12)


@pytest.mark.parametrize("device", ["a100-sxm", "h200-sxm", "b200", "rtx-pro-6000", "mi300x"])
def test_never_beats_the_roofline_with_cold_caches(device):
    gpu = load_hardware(device)
    rng = np.random.default_rng(0)
    count = 2000
    shared = 2.0 ** rng.integers(0, 4, count)
    queries = np.where(rng.random(count) < 0.5, 1, rng.integers(1, 5000, count))
    s = {
        "batch": 2.0 ** rng.integers(0, 9, count),
        "heads": shared * rng.integers(1, 40, count),
        "kv_heads": shared,
        "head_dim": rng.choice([64.0, 96.0, 128.0, 256.0], count),
        "seq_q": queries.astype(float),
        "seq_kv": queries + 2.0 ** rng.integers(0, 15, count),
        "causal": (rng.random(count) < 0.8).astype(float),
        "window": rng.choice([0.0, 128.0, 1024.0], count) * 1.0,
    }
    s["window"][s["causal"] == 0] = 0
    peak = gpu.peak_flop_per_s("bf16")
    reach = np.where(s["window"] > 0, np.minimum(s["window"] + s["seq_q"] - 1, s["seq_kv"]), s["seq_kv"])
    per_token = 2 * s["batch"] * s["head_dim"]
    moved = per_token * (2 * s["heads"] * s["seq_q"] + 2 * s["kv_heads"] * reach)
    flops = 4 * s["batch"] * s["heads"] * s["head_dim"] * visible_pairs(s)
    for stack in ("eager", "vllm", "trtllm", "sglang"):
        latency, _, dram, *_ = attention_rows(s, BF16, gpu, stack, cold=True)
        assert (latency >= flops / peak).all()
        assert (latency >= moved / gpu.memory.bandwidth_bytes_per_s).all()
        np.testing.assert_allclose(dram, moved)


def test_graph_and_table_agree(toy, run):
    b = GraphBuilder("a", "fp16")
    q = b.input("q", 1, 32, 1000, 128)
    k, v = (b.input(n, 1, 8, 3000, 128, role="kv") for n in "kv")
    b.attention(q, k, v, causal=True)
    shape = (1, 32, 8, 128, 1000, 3000, True, 0)
    for stack in ("eager", "graph"):
        for cold in (False, True):
            _, (cost,) = run(b.build(), toy, stack=stack, cold=cold)
            latency, bound, dram, l2, _ = attention_rows(table(shape), plan("fp16"), toy, stack, cold)
            assert cost.latency_s == pytest.approx(latency[0])
            assert cost.bound == BOUNDS[bound[0]]
            assert cost.bytes_by_level == pytest.approx({"dram": dram[0], "l2": l2[0]})


def test_latent_attention_reads_its_cache_once(toy, run):
    def cost(heads):
        q = Tensor("q", (4, heads, 1, 576), BF16.activation, batch_axis=0)
        cache = Tensor("c", (4, 65536, 576), BF16.activation, "kv", batch_axis=0)
        y = Tensor("y", (4, heads, 1, 512), BF16.activation, batch_axis=0)
        attributes = {"latent": 512, "rope": 64, "causal": True}
        device = load_hardware("h100-sxm")
        return run(Graph("mla", [Op("mla", "mla_attention", (q, cache), (y,), attributes)]), device)[1][0]

    few, many = cost(16), cost(128)
    size = 4 * 65536 * 576 * 2
    assert few.bytes_by_level["dram"] == pytest.approx(size, rel=0.01)
    assert few.latency_s >= size / 3.35e12
    work = 4 * 128 * 65536 * 2 * (576 + 512)
    assert many.latency_s >= max(few.latency_s, work / load_hardware("h100-sxm").peak_flop_per_s("bf16"))


def test_what_shapes_change():
    gpu = load_hardware("h100-sxm")

    def time(*shape, precision="bf16"):
        return attention_rows(table(shape), plan(precision), gpu, "vllm")[0][0]

    long = time(1, 32, 8, 128, 16384, 16384, True, 0)
    assert 1.7 < time(1, 32, 8, 128, 16384, 16384, False, 0) / long < 2.1  # the mask halves the work
    assert time(1, 32, 8, 128, 16384, 16384, True, 128) < 0.2 * long
    decode = time(64, 32, 8, 128, 1, 16384, True, 0)
    assert time(64, 32, 32, 128, 1, 16384, True, 0) > 3 * decode  # four times the keys
    assert time(64, 32, 8, 128, 1, 16384, True, 1024) < 0.3 * decode
    narrow = time(64, 32, 8, 128, 1, 16384, True, 0, precision="weight=bf16,activation=bf16,kv=fp8_e4m3")
    assert 0.45 < narrow / decode < 0.85
    assert time(1, 8, 1, 128, 1, 65536, True, 0) < 0.1 * time(64, 8, 1, 128, 1, 65536, True, 0)  # split keys


def test_exponentials_are_a_limit_of_their_own():
    gpu = load_hardware("b200")
    faster = gpu.replace(**{"sm.exp_per_clock": 32})
    row = table((4, 32, 8, 64, 8192, 8192, True, 0))
    slow, fast = (attention_rows(row, BF16, d, "vllm")[0][0] for d in (gpu, faster))
    assert fast < slow


def test_no_rows():
    gpu = load_hardware("h100-sxm")
    empty = {name: np.zeros(0) for name in COLUMNS}
    assert [len(part) for part in attention_rows(empty, BF16, gpu, "vllm")] == [0] * 5
    assert run_kernel(np.zeros((0, A.WIDTH)), [], gpu).shape == (0, A.OUT_WIDTH)
    assert len(attention_device(gpu)) == A.DEVICE_WIDTH


def test_small_grids_leave_the_kernel_of_shared_heads():
    """TensorRT-LLM: 132 SMs, so 33 blocks of 128 keys are enough for the packed kernel and 32 are not."""
    gpu = load_hardware("h100-sxm")

    def time(batch, keys):
        return attention_rows(table((batch, 64, 2, 128, 1, keys, True, 0)), BF16, gpu, "trtllm")[0][0]

    assert time(1, 17 * 128) < 0.7 * time(1, 17 * 128 - 1)
    assert time(17, 2) < time(16, 2)
    assert time(1, 40_000) > time(1, 17 * 128)


def test_parts_before_a_window_cost_their_blocks():
    """TensorRT-LLM splits 16,384 keys into parts although a window of 128 leaves most of them empty."""
    gpu = load_hardware("h100-sxm")
    assert gpu.kernels.attention["trtllm"]["decode-window"].history == 1

    def time(keys):
        return attention_rows(table((8, 64, 8, 64, 1, keys, True, 128)), BF16, gpu, "trtllm")[0][0]

    assert time(16_384) > 1.5 * time(256)


def test_packing_heads_copies_them_unless_they_lie_together():
    gpu = load_hardware("a100-sxm")

    def time(batch, heads, shared):
        return attention_rows(table((batch, heads, shared, 128, 1, 16, True, 0)), BF16, gpu, "vllm")[0][0]

    copied = gpu.kernels.attention["vllm"]["decode"].repack_s
    assert 3e-6 < copied < 9e-6  # two small kernels
    assert time(2, 16, 2) - time(1, 16, 2) > 0.9 * copied
    assert time(4, 16, 1) - time(2, 16, 1) < 0.2 * copied


# Largest mean absolute error [%] of prefill and decode on held-out rows of a backend.
MEASURED = [
    ("a100-sxm", "sglang", 9, 8.5),
    ("h100-sxm", "vllm", 9, 7),
    ("b200", "trtllm", 7, 7.5),
    ("l40s", "trtllm", 9, 13),
    ("rtx-pro-6000", "vllm", 8.5, 17),
]


@pytest.mark.parametrize(("device", "backend", "prefill", "decode"), MEASURED)
def test_held_out_rows(device, backend, prefill, decode):
    pytest.importorskip("aiconfigurator_core")
    pytest.importorskip("pyarrow")
    from accelsim.calibration.splits import held_out
    from accelsim.validate.aiconfigurator import LOADERS

    gpu = load_hardware(device)
    for op, limit in (("attention_prefill", prefill), ("attention_decode", decode)):
        frame = LOADERS[op](device)
        frame = frame[(frame["backend"] == backend) & (frame["precision"] == "bf16")]
        frame = frame[held_out(frame)]
        assert len(frame) > 500
        found = attention_rows(columns(frame, op), BF16, gpu, backend, decode=op.endswith("decode"))[0]
        error = np.abs(found / frame["latency_s"].to_numpy() - 1) * 100
        assert error.mean() < limit


@pytest.mark.parametrize(
    ("op", "shape", "stack"),
    [
        ("mla_decode", {"seq_kv": 8192}, "sglang"),
        ("mla_prefill", {"seq_q": 2048, "absorbed": 1}, "sglang"),
    ],
)
def test_graphs_and_tables_cost_latent_attention_alike(op, shape, stack):
    """They differ in launches. (A graph without `kv_write` appends keys and values where they are expanded, a
    table latents.)
    """
    gpu, options = load_hardware("h100-sxm"), Options(stack=stack)
    sizes = columns(pd.DataFrame([{"op": op, "batch": 64, "heads": 16, **shape}]), op)
    found = attention_rows(sizes, BF16, gpu, stack, decode=op == "mla_decode")[0]
    graph = predict_by_graph(ARCHITECTURE, op, sizes, BF16, gpu, options)
    assert graph.latency_s[0] == pytest.approx(found[0], rel=0.1)


def test_the_absorbed_form_trades_bytes_for_work():
    """Decoding reads 576 numbers per key for all heads; expanded, 320 for each. A prompt of many heads does
    3.4 times the work absorbed.
    """
    gpu = load_hardware("h100-sxm")

    def time(**shape):
        sizes = columns(pd.DataFrame([{"op": "mla_prefill", "heads": 128, **shape}]), "mla_prefill")
        return attention_rows(sizes, BF16, gpu, "vllm", decode=False)[0][0]

    long = {"batch": 1, "seq_q": 16_384}
    assert 2.0 < time(**long, absorbed=1) / time(**long) < 6.0
    short = {"batch": 64, "seq_q": 1, "seq_kv": 4096}
    assert time(**short, absorbed=1) < 0.2 * time(**short)
