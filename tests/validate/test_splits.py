"""Held-out rows follow the documented rule and nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from accelsim.architectures.opschema import OPS
from accelsim.calibration.splits import FAMILIES, GROUPS, held_out, siblings
from accelsim.hardware.spec import load_hardware


def _gemms(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sizes = {c: rng.integers(1, 300, n) * 32 for c in ("m", "n", "k")}
    return pd.DataFrame({"op": "gemm", "precision": "bf16", **sizes})


@pytest.mark.parametrize("seed", range(3))
def test_products_equal_the_rule_row_by_row(seed: int) -> None:
    frame = _gemms(400, seed)
    expected = [
        int(hashlib.sha256(f"{n}|{k}".encode()).hexdigest(), 16) % 5 == 0
        for n, k in zip(frame["n"], frame["k"])
    ]
    assert held_out(frame).tolist() == expected


def test_order_rows_and_formats_do_not_matter() -> None:
    frame = _gemms(2000, 7)
    found = held_out(frame)
    order = np.random.default_rng(1).permutation(len(frame))
    assert (held_out(frame.iloc[order].assign(precision="fp8_e4m3", m=1)) == found[order]).all()
    assert 0.15 < found.mean() < 0.25


def test_an_attention_shape_is_held_out_in_prefill_and_decode_at_every_length() -> None:
    shape = {"precision": "bf16", "head_dim": 128, "kv_heads": 8}
    heads = np.arange(8, 520, 8)
    prefill = pd.DataFrame({"op": "attention_prefill", "heads": heads, "seq_q": 128, **shape})
    decode = pd.DataFrame({"op": "attention_decode", "heads": heads, "seq_kv": 4096, "batch": 7, **shape})
    both = held_out(pd.concat([prefill, decode]))
    assert (both[: len(heads)] == both[len(heads) :]).all()
    assert 0 < both.sum() < len(both)


def test_a_layer_is_held_out_at_every_batch() -> None:
    layer = {"op": "conv2d", "precision": "fp16", "kernel_h": 3, "kernel_w": 3, "h": 14, "w": 14, "c_in": 64}
    frame = pd.DataFrame([layer | {"c_out": 8 * c, "batch": b} for c in range(1, 60) for b in (1, 8, 16)])
    found = held_out(frame).reshape(-1, 3)
    assert (found == found[:, :1]).all()
    assert 0.3 < found.mean() < 0.7


def test_every_op_has_a_rule_and_every_family_its_devices() -> None:
    assert set(GROUPS) == set(OPS)
    for op, (columns, divisor) in GROUPS.items():
        assert set(columns) <= set(OPS[op].columns)
        assert divisor in (2, 5)
    devices = [d for family in FAMILIES for d in family]
    assert len(set(devices)) == len(devices) == 9
    for device in devices:
        load_hardware(device)
    assert siblings("h200-sxm") == ("h100-sxm", "h200-sxm")
    assert siblings("gb300") == ("b200", "b300", "gb200", "gb300")
    assert siblings("l40s") == ("l40s",)
    assert siblings("t4") == ("t4",)
