"""Held-out measured products (aiconfigurator_core, the `validation` extra) stay near docs/models.md."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

import numpy as np
import pytest

from accelsim.architectures.base import Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.core.precision import precision
from accelsim.hardware.spec import load_hardware
from accelsim.workload.graph import Graph, Op, Tensor

BF16 = precision("bf16")

# System of the tables, device, largest mean absolute error [%] of one backend's rows.
CASES = [
    ("h100_sxm", "h100-sxm", 8),
    ("h200_sxm", "h200-sxm", 9),
    ("a100_sxm", "a100-sxm", 10),
    ("b200_sxm", "b200", 11),
    ("l40s", "l40s", 15),
]


def product(name, m, n, k):
    a, w = Tensor(f"{name}a", (m, k), BF16, batch_axis=0), Tensor(f"{name}w", (k, n), BF16, "weight")
    return Op(name, "matmul", (a, w), (Tensor(f"{name}c", (m, n), BF16, batch_axis=0),))


@pytest.mark.parametrize(("system", "device", "limit"), CASES)
def test_held_out_products(system, device, limit):
    pytest.importorskip("aiconfigurator_core")
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    folder = files("aiconfigurator_core") / "systems" / "data" / system / "gemm" / "sglang"
    newest = max((f for f in folder.iterdir()), key=lambda f: [int(p) for p in re.findall(r"\d+", f.name)])
    table = pd.read_parquet(newest / "gemm_perf.parquet", columns=["gemm_dtype", "m", "n", "k", "latency"])
    table = table[table.gemm_dtype == "bfloat16"].sample(2000, random_state=0)
    held = [
        int(hashlib.sha256(f"{n}|{k}".encode()).hexdigest(), 16) % 5 == 0 for n, k in zip(table.n, table.k)
    ]
    rows = table[held]
    ops = [
        product(f"r{i}", int(m), int(n), int(k)) for i, (m, n, k) in enumerate(zip(rows.m, rows.n, rows.k))
    ]
    program = ARCHITECTURE.lower(Graph("rows", ops), load_hardware(device), Options())
    found = np.array([c.latency_s for c in ARCHITECTURE.cost(program)])
    error = np.abs(found / (rows.latency.to_numpy() * 1e-3) - 1) * 100
    assert len(rows) > 300
    assert error.mean() < limit
