"""Board power of kernels: parts, the cap, the measured ranges that the fit must reproduce."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures.gpu import power
from accelsim.architectures.gpu.power_rows import activity
from accelsim.core.errors import RequestError
from accelsim.core.precision import plan

amount = st.floats(0, 1e15, allow_nan=False)


@settings(deadline=None)
@given(amount, amount, amount, amount, st.floats(1e-6, 1.0), st.sampled_from(["product", "prefill-8"]))
def test_energy_sums_its_parts_up_to_what_the_board_gives(flops, ops, dram, l2, time_s, name):
    found = power.coefficients(ax.load_hardware("b200"), name)
    work = (flops, ops, dram, l2)
    parts = found.parts(0.43e-12, work, time_s, cap=True)
    total = sum(parts.values())
    assert total <= found.head_w * time_s * (1 + 1e-12)
    each = found.total(0.43e-12, work, np.array([time_s]), cap=True)
    assert each[0] == pytest.approx(total)
    free = found.parts(0.43e-12, work, time_s, cap=False)
    assert sum(free.values()) >= total * (1 - 1e-12)


def test_board_power_lies_between_idle_and_tdp():
    for name in ("b200", "h100-sxm", "t4"):
        device = ax.load_hardware(name)
        for batch in (1, 64):
            result = ax.simulate("resnet50", device, batch=batch, precision="fp16")
            assert device.power.idle_w < result.summary["power_w"] <= device.power.tdp_w * (1 + 1e-9)


def test_more_work_in_the_same_time_draws_more():
    device = ax.load_hardware("b200")
    found = power.coefficients(device, "product")
    drawn = [found.parts(0.43e-12, (f, 0, 1e9, 0), 1e-3, cap=True) for f in (0, 1e11, 5e11)]
    totals = [sum(p.values()) for p in drawn]
    assert totals == sorted(totals)
    assert totals[0] < totals[1]


def test_an_unknown_coefficient_makes_the_energy_unknown():
    device = ax.load_hardware("b200")
    found = power.coefficients(device, "product")
    assert math.isnan(sum(found.parts(math.nan, (1.0, 0, 0, 0), 1e-3, cap=True).values()))
    bare = device.model_copy(
        update={"power": device.power.model_copy(update={"idle_w": None}), "hash": "no idle"}
    )
    assert math.isnan(power.coefficients(bare, "product").active_w)
    result = ax.simulate("resnet50", bare, precision="fp16")
    assert math.isnan(result.summary["energy_j"])
    assert "static" in result.missing["energy_j"]


def test_families_fall_back_on_their_kind_and_then_on_products():
    device = ax.load_hardware("h100-sxm")
    assert power.family("product", 8, blocks=True) == "product-8-block"
    assert power.family("decode", 4) == "decode-8"
    assert power.coefficients(device, "prefill-8-block") == power.coefficients(device, "prefill-8")
    assert power.coefficients(device, "unheard-of") == power.coefficients(device, "product")


def test_a_memory_bound_expert_layer_draws_what_it_was_measured_to():
    """32 tokens, 6144 x 2048, 160 experts in bf16 move DRAM near its peak: readings are 880 to 990 W."""
    device = ax.load_hardware("b200")
    shape = {"tokens": 64, "hidden": 6144, "intermediate": 2560, "experts": 160, "topk": 8, "tensor_ranks": 1}
    shape |= {"expert_ranks": 1, "gated": 1, "skew": 0, "scale_block": 0, "local": 0}
    what = activity("moe", {k: np.array([float(v)]) for k, v in shape.items()}, plan("bf16"), device, "vllm")
    duration_s = what.dram_bytes / 6.3e12
    assert 850 < what.power_w(device, duration_s)[0] <= 1000
    assert what.power_w(device, 4 * duration_s)[0] < 0.7 * what.power_w(device, duration_s)[0]


def test_an_operator_without_measured_power_is_refused():
    with pytest.raises(RequestError, match="softmax"):
        activity("softmax", {}, plan("bf16"), ax.load_hardware("b200"), "vllm")
