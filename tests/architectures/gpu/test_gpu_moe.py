"""Expert layers: loads, a slow twin of the kernel, laws, and the same numbers from graphs and tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.base import Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.architectures.gpu.host import launch_gap_s, ramp_s
from accelsim.architectures.gpu.moe import LAUNCHES, device_numbers, format_name, kinds, moe_model, moe_rows
from accelsim.architectures.gpu.rates import product_rate
from accelsim.architectures.gpu.tiles import tile_table
from accelsim.architectures.opwork import work
from accelsim.architectures.single import ops_of
from accelsim.core.precision import plan, precision
from accelsim.hardware.spec import load_hardware
from accelsim.workload.graph import Graph

COLUMNS = (
    "tokens", "hidden", "intermediate", "experts", "topk", "tensor_ranks", "expert_ranks", "gated", "skew",
    "local", "scale_block",
)  # fmt: skip


def layer(tokens=64, hidden=1024, intermediate=512, experts=16, topk=2, **more):
    values = {"tensor_ranks": 1, "expert_ranks": 1, "gated": 1, "skew": 0.0, "local": 0, "scale_block": 0}
    values |= more
    values |= {
        "tokens": tokens,
        "hidden": hidden,
        "intermediate": intermediate,
        "experts": experts,
        "topk": topk,
    }
    return {name: np.array([float(values[name])]) for name in COLUMNS}


def took(device, stack="vllm", fmt="bf16", cold=False, **shape):
    latency, _, dram, *_ = moe_rows(layer(**shape), plan(fmt), device, stack, cold)
    return float(latency[0]), float(dram[0])


def test_names_of_formats():
    assert format_name(precision("bf16"), precision("bf16")) == "bf16"
    assert format_name(precision("fp8_e4m3"), precision("fp8_e4m3"), 128) == "fp8_e4m3-block"
    assert format_name(precision("int4"), precision("bf16")) == "int4"
    assert format_name(precision("int4"), precision("fp8_e4m3")) == "int4-fp8_e4m3"


def test_constants_fall_back_to_bf16_and_to_plain_products():
    device = load_hardware("h100-sxm")
    assert moe_model(device, "vllm", "int8", False, True) == moe_model(device, "vllm", "bf16", False, True)
    assert moe_model(device, "eager", "bf16", False, True).tensor_efficiency == 1.0
    assert moe_model(device, "sglang", "mxfp4", True, True) != moe_model(
        device, "sglang", "mxfp4", False, True
    )


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 5000),
    log_experts=st.integers(1, 9),
    topk=st.integers(1, 8),
    exponent=st.sampled_from([0.5, 1.0, 1.01, 1.2, 2.0]),
)
def test_power_law_loads(tokens, log_experts, topk, exponent):
    from accelsim.architectures.gpu.moe_kernel import power_law_loads

    experts = 2**log_experts
    topk = min(topk, experts)
    loads = power_law_loads(tokens, experts, topk, exponent)
    assert (loads == np.floor(loads)).all()
    assert (loads >= 0).all()
    assert (loads <= tokens).all()
    assert (np.diff(loads) <= 0).all()
    assert abs(loads.sum() - tokens * topk) <= max(4.0, 0.02 * tokens * topk)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 5000),
    log_experts=st.integers(1, 8),
    topk=st.integers(1, 8),
    log_ranks=st.integers(0, 8),
    skew=st.sampled_from([0.0, 1.01, 1.2]),
    local=st.booleans(),
)
def test_classes_hold_the_rows_of_the_heaviest_rank(tokens, log_experts, topk, log_ranks, skew, local):
    from accelsim.architectures.gpu.moe_kernel import CLASSES, load_classes

    experts, ranks = 2**log_experts, 2 ** min(log_ranks, log_experts)
    topk = min(topk, experts)
    out = np.empty((CLASSES, 2))
    load_classes(np.array([tokens, experts, topk, ranks, skew, local]), out)
    rows, active = float((out[:, 0] * out[:, 1]).sum()), float(out[:, 1].sum())
    assert 0 < active <= experts / ranks + 1e-9
    assert active <= rows + 1e-9
    # The heaviest rank has at least the mean, whatever the skew.
    assert rows >= 0.95 * tokens * topk / ranks - 4
    even = math.ceil(tokens * topk / ranks)
    if local:  # each token that visits the rank is topk rows, and no more tokens visit it than there are
        assert rows <= tokens * topk * (1 + 1e-9)
        even = min(tokens, even) * topk
    if skew == 0.0:
        assert rows == even


def _twin(classes, n, k, bytes_a, bytes_b, bytes_c, missed, table, d, c):
    """`moe_kernel.grouped_product` in plain Python, from the formulas of docs/models.md."""
    from accelsim.architectures.gpu import moe_kernel as M

    def joined(a, b, p):
        return (a**p + b**p) ** (1 / p)

    loads = [(load, count) for load, count in classes if count > 0]
    rows, most = sum(a * b for a, b in loads), max(a for a, _ in loads)
    latency = d[M.DRAM_LATENCY] * d[M.CLOCK]
    dram_s = missed / (d[M.DRAM_RATE] * c[M.DRAM])
    rate = d[M.RATE] * min(1.0, d[M.TENSOR] * c[M.EFFICIENCY])
    options = []
    for t, (tile_m, tile_n, step_k, stages, fit, _) in enumerate(table):
        if stages < 1 or tile_n >= 4 * max(n, 16) or max(tile_m, tile_n) > c[M.CAP]:
            continue
        if tile_m < c[M.PAD] or (tile_m > c[M.PAD] and tile_m >= 4 * max(most, 16)):
            continue
        blocks = sum(count * math.ceil(load / tile_m) for load, count in loads) * math.ceil(n / tile_n)
        steps = math.ceil(k / step_k)
        queue = max(1, math.ceil(blocks / d[M.SMS]))
        together = min(fit, queue)
        rounds = math.ceil(queue / together)
        step_bytes = (tile_m * bytes_a + tile_n * bytes_b) * step_k
        issue = 2 * tile_m * tile_n * step_k / rate
        supply = step_k * tile_m * tile_n * (bytes_a / min(tile_n, 128) + bytes_b / min(tile_m, 64))
        longest = max(issue, supply / d[M.SHARED], step_bytes / d[M.PORT])
        step = longest * d[M.TILE_COSTS + t] + d[M.OVERHEAD]
        wait = max(d[M.STEP], d[M.LATENCIES] * latency / stages) * d[M.TILE_COSTS + t] * c[M.STEP_SHARE]
        epilogue = tile_m * tile_n * (d[M.EPILOGUE] / 16384 + bytes_c / d[M.PORT])
        l2 = blocks * steps * step_bytes / d[M.SHARED_LOADS]
        main = max(queue * steps * step / d[M.CLOCK], l2 / d[M.L2_RATE], rounds * steps * wait / d[M.CLOCK])
        main += (rounds - 1) * epilogue / d[M.CLOCK]
        fixed = (d[M.PROLOGUE] * latency + epilogue) / d[M.CLOCK]
        options.append((joined(main, dram_s, c[M.JOIN]) + fixed, main, fixed))
    total, main, fixed = min(options)
    if d[M.HEADROOM] > 0:
        busy = 2 * rows * n * k / total / (d[M.RATE] * d[M.SMS] * d[M.CLOCK])
        power = busy * d[M.HALF] * d[M.SMS] * d[M.CLOCK] * d[M.FLOP_J] + missed / total * d[M.BYTE_J]
        over = max(1.0, power / d[M.HEADROOM])
        low, slow = 0.0, 1.0  # bisection of slow (v + (1 - v) slow)^2 = 1 / over
        v = d[M.LEAST_VOLTS]
        for _ in range(60):
            middle = (low + slow) / 2
            low, slow = (low, middle) if middle * (v + (1 - v) * middle) ** 2 * over > 1 else (middle, slow)
        main /= slow if over > 1 else 1.0
    return joined(main, dram_s, c[M.JOIN]) + fixed


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["h100-sxm", "l40s", "b200"]),
    loads=st.lists(st.tuples(st.floats(1, 4000), st.floats(0.1, 64)), min_size=1, max_size=5),
    n=st.sampled_from([32, 512, 3072, 14336]),
    k=st.sampled_from([64, 1024, 7168]),
    cold=st.booleans(),
)
def test_the_kernel_equals_its_slow_twin(name, loads, n, k, cold):
    from accelsim.architectures.gpu import moe_kernel as M

    device = load_hardware(name)
    rate, clock, _ = product_rate(device, "bf16")
    d, c = device_numbers(device, rate, clock), moe_model(device, "vllm", "bf16", False, True).array
    table, classes = tile_table(device, 2.0, 2.0), np.array(loads)
    missed = sum(b for _, b in loads) * n * k * 2.0 if cold else 0.0
    out = np.zeros(M.OUT)
    M.grouped_product(classes, 1.0, float(n), float(k), 2.0, 2.0, 2.0, missed, table, d, c, out)
    assert out[M.OUT_S] + out[M.OUT_FIXED] == pytest.approx(
        _twin(loads, n, k, 2.0, 2.0, 2.0, missed, table, d, c), rel=1e-9
    )


@pytest.mark.parametrize("name", ["a100-sxm", "h100-sxm", "l40s", "b200", "t4"])
@pytest.mark.parametrize("stack", ["graph", "vllm", "trtllm", "sglang"])
@settings(max_examples=15, deadline=None)
@given(tokens=st.integers(1, 8192), experts=st.sampled_from([8, 64, 256]), skew=st.sampled_from([0.0, 1.2]))
def test_no_layer_beats_the_datasheet(name, stack, tokens, experts, skew):
    import pandas as pd

    device = load_hardware(name)
    shape = {
        "tokens": tokens,
        "hidden": 2048,
        "intermediate": 1024,
        "experts": experts,
        "topk": 2,
        "skew": skew,
    }
    fmt = "fp16"
    latency, dram = took(device, stack, fmt, cold=True, **shape)
    flops, _, _ = work(pd.DataFrame([{"op": "moe", "precision": fmt, **shape}]))
    rate, clock, _ = product_rate(device, fmt)
    assert latency >= flops[0] / (rate * clock * device.sm.count) * (1 - 1e-9)
    assert latency >= dram / device.memory.bandwidth_bytes_per_s * (1 - 1e-9)


def test_block_sizes_follow_tokens_experts_and_what_was_tuned():
    device = load_hardware("rtx-pro-6000")
    assert kinds(device, "sglang", "bf16", [256, 257], 256, 1024).tolist() == ["thin", ""]
    assert kinds(device, "sglang", "bf16", [1, 16384], 256, 512).tolist() == ["tuned", "tuned"]
    models = [moe_model(device, "sglang", "bf16", False, True, kind) for kind in ("", "thin", "tuned")]
    assert len({model.array.tobytes() for model in models}) == 3
    assert [256, 512] in [list(pair) for pair in models[2].layers]
    # A stack without such kernels has one for all.
    assert moe_model(device, "vllm", "bf16", False, True, "thin") is moe_model(
        device, "vllm", "bf16", False, True
    )


def test_blocks_are_small_up_to_one_token_per_expert_of_the_rank():
    device = load_hardware("l40s")
    shape = {"hidden": 4096, "intermediate": 1536, "experts": 128, "topk": 8}
    for ranks in (1, 4):
        few, more = (
            took(device, "sglang", tokens=t, expert_ranks=ranks, **shape)[0] for t in (128 // ranks, 129)
        )
        # Every expert of the rank is read in both, by blocks that use the DRAM worse from there on.
        assert 1.2 < more / few < 1.8


@settings(max_examples=40, deadline=None)
@given(tokens=st.integers(1, 3000), log_ranks=st.integers(1, 6), skew=st.sampled_from([0.0, 1.2]))
def test_tokens_that_stay_on_a_rank_visit_no_more_of_its_experts(tokens, log_ranks, skew):
    from accelsim.architectures.gpu.moe_kernel import CLASSES, load_classes

    share, local = (np.empty((CLASSES, 2)) for _ in range(2))
    load_classes(np.array([tokens, 128, 8, 2**log_ranks, skew, 0.0]), share)
    load_classes(np.array([tokens, 128, 8, 2**log_ranks, skew, 1.0]), local)
    assert local[:, 1].sum() == pytest.approx(share[:, 1].sum())
    assert (local[:, 0] * local[:, 1]).sum() >= (share[:, 0] * share[:, 1]).sum() * (1 - 1e-9)


def test_masked_rows_cost_as_much_as_own_ones():
    device = load_hardware("rtx-pro-6000")
    assert moe_model(device, "trtllm", "fp8_e4m3-block", False, True).foreign == 1.0
    shape = {"tokens": 16384, "hidden": 6144, "intermediate": 2048, "experts": 256, "topk": 8}
    one, many = (
        took(device, "trtllm", "fp8_e4m3", expert_ranks=ranks, scale_block=128, **shape)[0]
        for ranks in (1, 64)
    )
    assert many == pytest.approx(one, rel=0.1)


def test_imbalance_costs_when_experts_are_spread():
    device = load_hardware("h100-sxm")
    shape = {
        "tokens": 16384,
        "hidden": 4096,
        "intermediate": 1536,
        "experts": 128,
        "topk": 8,
        "expert_ranks": 16,
    }
    even, skewed = (took(device, skew=s, **shape)[0] for s in (0.0, 1.2))
    assert 1.3 * even < skewed < 8 * even


def test_few_tokens_read_few_experts():
    device = load_hardware("h100-sxm")
    shape = {"hidden": 4096, "intermediate": 1536, "experts": 128, "topk": 8}
    one = 3 * 4096 * 1536 * 2
    _, dram = took(device, tokens=1, cold=True, **shape)
    assert dram == pytest.approx(8 * one, rel=0.01)
    _, all_of_them = took(device, tokens=64, cold=True, **shape)
    assert all_of_them == pytest.approx(128 * one, rel=0.05)


@pytest.mark.parametrize("name", ["a100-sxm", "h100-sxm", "b200"])
@pytest.mark.parametrize(("tokens", "experts", "topk"), [(512, 8, 2), (4096, 64, 4), (2048, 128, 8)])
def test_graph_and_table_agree_apart_from_launches(name, tokens, experts, topk):
    """Kernels of a graph against one row. They differ in what stays in the L2 between kernels and in the
    traffic around the products, 8 B per element in the table."""
    device = load_hardware(name)
    options = Options(stack="graph")
    shape = {k: int(v[0]) for k, v in layer(tokens, 4096, 2048, experts, topk).items()}
    program = ARCHITECTURE.lower(Graph("g", ops_of("moe", shape, plan("bf16"), "0")), device, options)
    costs = ARCHITECTURE.cost(program)
    launch = ramp_s(device) + launch_gap_s(device, "graph")
    kernels = sum(c.latency_s for c in costs) - len(costs) * launch
    table = ARCHITECTURE.predict(
        "moe", layer(tokens, 4096, 2048, experts, topk), plan("bf16"), device, options
    )
    assert kernels == pytest.approx(table.latency_s[0] - LAUNCHES * launch, rel=0.25)
    products = [i for i, k in enumerate(program.kernels) if k.anchor.kind == "grouped_matmul"]
    assert len(products) == 2
    assert all("tiles" in costs[i].mapping for i in products)


@pytest.mark.parametrize("family", ["_ampere", "_hopper", "_ada", "_blackwell", "_blackwell-rtx"])
def test_families_take_no_constant_of_a_kernel_from_the_means(family):
    import yaml

    from accelsim.core.paths import data_folder
    from accelsim.hardware.expert_kernels import MoeModel

    text = (data_folder("hwconfigs") / "gpu" / f"{family}.yaml").read_text(encoding="utf-8")
    names = {field.alias or name for name, field in MoeModel.model_fields.items()} - {"layers"}
    for stack in yaml.safe_load(text)["kernels"]["moe"].values():
        for kernel in stack.values() if isinstance(stack, dict) else ():
            assert names <= set(kernel)
