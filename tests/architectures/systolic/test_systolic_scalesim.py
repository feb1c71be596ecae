"""SCALE-Sim 3.0.0 in closed form against the tool's own output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from accelsim.architectures.systolic import folds, scalesim
from accelsim.core.errors import RequestError

TABLE = Path(__file__).parents[3] / "validation" / "scalesim" / "layers.csv"

# rows, cols, dataflow, m, n, k, total cycles, ifmap reads, filter reads, ofmap writes: rows of the tool's
# output that a pencil checks.
GOLDEN = [
    # one element: 2 * 16 + 4 + 1 - 2 = 35 cycles, counted from zero
    (16, 4, "is", 1, 1, 1, 34, 1, 1, 1),
    # 8x8x8 on 16x4: two column folds of 2 * 16 + 4 + 8 - 2 = 42
    (16, 4, "is", 8, 8, 8, 83, 64, 128, 64),
    # 1x1 convolution of 56x56x64 to 64: one fold of 2 * 128 + 128 + 3136 - 2
    (128, 128, "ws", 3136, 64, 64, 3517, 200704, 4096, 200704),
    # 3x3 convolution of the same: ceil(576 / 128) = 5 folds of 3298 (padded input 56x56: 54x54 outputs)
    (128, 128, "ws", 2916, 64, 576, 16489, 1679616, 36864, 933120),
    # 3x3 convolution of 14x14x4 to 10: 9 * 3 folds of 16 + 4 + 36 - 2, and 27 * 20 extra writes
    (16, 4, "os", 144, 10, 36, 1457, 15552, 3240, 1980),
]


@pytest.mark.parametrize("row", GOLDEN)
def test_golden_layers(row: tuple) -> None:
    rows, cols, dataflow, m, n, k, *expected = row
    found = scalesim.layer(m, n, k, rows, cols, dataflow)
    assert [found.total_cycles, found.ifmap_reads, found.filter_reads, found.ofmap_writes] == expected


def _products(frame: pd.DataFrame) -> list[tuple[int, int, int]]:
    def product(r: pd.Series) -> tuple[int, int, int]:
        if r.kind == "gemm":
            return int(r.m), int(r.n), int(r.k)
        return scalesim.conv_as_gemm(*(int(r[c]) for c in ("h", "w", "fh", "fw", "c", "n", "stride")))

    return [product(r) for _, r in frame.iterrows()]


def test_every_measured_layer() -> None:
    if not TABLE.is_file():
        pytest.skip("validation/scalesim/layers.csv is not in this installation")
    frame = pd.read_csv(TABLE)
    products = _products(frame)
    assert len(frame) > 600
    for (m, n, k), (_, r) in zip(products, frame.iterrows()):
        found = scalesim.layer(m, n, k, r.rows, r.cols, r.dataflow)
        # Bounded bandwidth adds stalls to the same folds; the SRAM counts do not depend on it.
        assert found.total_cycles == r.total_cycles - r.stall_cycles, r.run
        assert found.ifmap_reads == r.sram_ifmap_reads, r.run
        assert found.filter_reads == r.sram_filter_reads, r.run
        assert found.ofmap_writes == r.sram_ofmap_writes, r.run
        assert found.mapping_efficiency_pct == pytest.approx(r.mapping_eff_pct, rel=1e-9)
        if r.stall_cycles == 0:
            assert found.overall_utilisation_pct == pytest.approx(r.overall_util_pct, rel=1e-9)


def test_vectorised_equals_plain() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 400, (3, 200))
    arrays = rng.integers(1, 64, (2, 200))
    codes = rng.integers(0, 3, 200)
    names = {code: name for name, code in folds.CODES.items()}
    table = folds.scalesim_layers(*sizes, *arrays, codes)
    for i in range(200):
        plain = scalesim.layer(
            *(int(v) for v in sizes[:, i]), *(int(v) for v in arrays[:, i]), names[codes[i]]
        )
        assert table[i].tolist() == [
            plain.total_cycles,
            plain.ifmap_reads,
            plain.filter_reads,
            plain.ofmap_writes,
        ]


def test_unknown_dataflow_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'rs'.*did you mean"):
        scalesim.layer(1, 1, 1, 8, 8, "rs")
