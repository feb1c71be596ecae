"""SCALE-Sim 3.0.0's stalls and traffic: its own output, a slow Python twin, and its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from accelsim.architectures.systolic import scalesim_run
from accelsim.architectures.systolic.scalesim_files import ScaleSimConfig, ScaleSimLayer
from accelsim.architectures.systolic.scalesim_layout import BankModel, BlockOrder, ScaleSimLayout
from tests.architectures.systolic.scalesim_twin import twin

TABLE = Path(__file__).parents[3] / "validation" / "scalesim" / "layers.csv"


def _config(r, **changes) -> ScaleSimConfig:
    ifmap, weights, ofmap = (int(v) for v in r.sram_kb.split("/"))
    fields = {
        "run_name": r.run, "bounded": r["mode"] == "USER", "rows": int(r.rows), "cols": int(r.cols),
        "ifmap_kb": ifmap, "filter_kb": weights, "ofmap_kb": ofmap, "dataflow": r.dataflow,
        "read_widths": (int(r.read_bw), int(r.read_bw)), "sparse": "",
        "write_width": int(r.ofmap_bw) if r["mode"] == "USER" else int(r.cols),
    }  # fmt: skip
    return ScaleSimConfig(**{**fields, **changes})


def _layer(r) -> ScaleSimLayer:
    if r.kind == "gemm":
        return ScaleSimLayer("gemm", int(r.m), int(r.k), 1, int(r.k), 1, int(r.n), 1, 1, 1)
    h, w, fh, fw, c, n, s = (int(r[name]) for name in ("h", "w", "fh", "fw", "c", "n", "stride"))
    return ScaleSimLayer("conv", h, w, fh, fw, c, n, s, 1, 1)


def test_every_measured_row() -> None:
    """Cycles, stalls, shares, SRAM and DRAM counts of all rows that SCALE-Sim 3.0.0 gave."""
    if not TABLE.is_file():
        pytest.skip("validation/scalesim/layers.csv is not in this installation")
    frame = pd.read_csv(TABLE)
    for (_, _), group in frame.groupby(["run", "sram_kb"], sort=False):
        reports = scalesim_run.run(_config(group.iloc[0]), [_layer(r) for _, r in group.iterrows()])
        for found, (_, r) in zip(reports, group.iterrows()):
            assert [found.total, found.stall] == [r.total_cycles, r.stall_cycles], r.run
            assert [found.utilisation_pct, found.mapping_pct] == [r.overall_util_pct, r.mapping_eff_pct]
            counts = [count for _, _, count in (*found.sram, *found.dram)]
            assert counts == [
                r.sram_ifmap_reads, r.sram_filter_reads, r.sram_ofmap_writes,
                r.dram_ifmap_reads, r.dram_filter_reads, r.dram_ofmap_writes,
            ], r.run  # fmt: skip


def _random(rng: np.random.Generator) -> tuple[ScaleSimConfig, ScaleSimLayer]:
    kernel = int(rng.integers(1, 4))
    image = int(rng.integers(kernel, 9))
    sparse = str(rng.choice(["", "", "csr", "csc", "ellpack_block"]))
    keep, block = (int(rng.integers(1, 4)), 4) if sparse else (1, 1)
    layer = ScaleSimLayer(
        "x", image, int(rng.integers(kernel, 9)), kernel, kernel, int(rng.integers(1, 9)),
        int(rng.integers(1, 20)), int(rng.integers(1, 4)), keep, block,
    )  # fmt: skip
    width = int(rng.integers(1, 20))
    rows, cols = (int(v) for v in rng.integers(1, 9, 2))
    config = ScaleSimConfig(
        "x", bool(rng.integers(0, 2)), rows, cols, 1, 1, 1,
        str(rng.choice(["ws", "os", "is"])), (width, int(rng.integers(1, 20))), width, sparse,
    )  # fmt: skip
    return config, layer


@pytest.mark.parametrize("seed", range(150))
def test_kernels_equal_the_slow_twin(seed: int) -> None:
    config, layer = _random(np.random.default_rng(seed))
    if not config.bounded:
        config = ScaleSimConfig(
            **{**{f: getattr(config, f) for f in config.__slots__}, "write_width": config.cols}
        )
    found = scalesim_run.run(config, [layer])[0]
    expected = twin(config, layer)
    assert (found.total, found.stall) == (expected["total"], expected["stall"])
    assert [list(row) for row in found.sram] == expected["sram"]
    assert [list(row) for row in found.dram] == expected["dram"]


def test_row_wise_sparsity_equals_the_tool() -> None:
    """All that SCALE-Sim 3.0.0 reported for filters that each keep a number of their own of every block."""
    table = TABLE.parent / "row_wise.csv"
    if not table.is_file():
        pytest.skip("validation/scalesim/row_wise.csv is not in this installation")
    sides = ("ifmap", "filter", "ofmap")
    for r in pd.read_csv(table).to_dict("records"):
        bounded = r["mode"] == "USER"
        config = ScaleSimConfig(
            "x", bounded, r["rows"], r["cols"], r["ifmap_kb"], r["filter_kb"], r["ofmap_kb"], "ws",
            (r["ifmap_bw"], r["filter_bw"]), r["write_bw"] if bounded else r["cols"], r["form"],
            r["block_size"], r["seed"],
        )  # fmt: skip
        sizes = (r[name] for name in ("h", "w", "fh", "fw", "c", "n", "stride", "keep", "block"))
        found = scalesim_run.run(config, [ScaleSimLayer("x", *sizes)])[0]
        assert (found.total, found.stall) == (r["total_cycles"], r["stall_cycles"]), r
        assert (found.mapping_pct, found.compute_pct) == (r["mapping_eff_pct"], r["compute_util_pct"])
        for memory, rows in (("sram", found.sram), ("dram", found.dram)):
            expected = [
                tuple(r[f"{memory}_{side}_{what}"] for what in ("start", "stop", "count")) for side in sides
            ]
            assert list(rows) == expected, (memory, r)
        assert found.sparse == (r["dense_words"], r["stored_words"], r["metadata_words"])


def _random_layout(rng: np.random.Generator) -> tuple[ScaleSimConfig, ScaleSimLayer, ScaleSimLayout]:
    """A bounded run with a custom layout of inputs, filters or both; blocks may hang over the edges."""
    config, layer = _random(rng)
    orders, widths, models = [], [], []
    for depth in (3, 4):
        block = tuple(int(v) for v in rng.integers(1, 4, depth))
        axes = tuple(int(v) for v in rng.permutation(2 * depth))
        width = int(np.prod(block)) + (int(rng.integers(0, 4)) if depth == 3 else 0)
        banks = int(rng.choice([d for d in range(1, width + 1) if width % d == 0]))
        offset = int(rng.integers(0, 10**6)) if depth == 4 else 0
        orders.append(BlockOrder(block, axes))
        widths.append(width)
        models.append(BankModel(banks, int(rng.integers(1, 4)), offset))
    which = int(rng.integers(0, 3))
    layouts = (None if which == 1 else models[0], None if which == 2 else models[1])
    fields = {f: getattr(config, f) for f in config.__slots__}
    fields.update(bounded=True, read_widths=tuple(widths), layouts=layouts)
    return ScaleSimConfig(**fields), layer, ScaleSimLayout(*orders)


@pytest.mark.parametrize("seed", range(100))
def test_custom_layouts_equal_the_slow_twin(seed: int) -> None:
    config, layer, layout = _random_layout(np.random.default_rng(seed))
    found = scalesim_run.run(config, [layer], layout)[0]
    expected = twin(config, layer, layout)
    assert (found.total, found.stall) == (expected["total"], expected["stall"])
    assert [list(row) for row in found.sram] == expected["sram"]
    assert [list(row) for row in found.dram] == expected["dram"]


def test_custom_layouts_equal_the_tool() -> None:
    """Cycles, stalls and accesses that SCALE-Sim 3.0.0 reported with a layout of inputs, filters or both."""
    table = TABLE.parent / "custom_layouts.csv"
    if not table.is_file():
        pytest.skip("validation/scalesim/custom_layouts.csv is not in this installation")
    sides = ("ifmap", "filter", "ofmap")
    frame = pd.read_csv(table, keep_default_na=False)
    for r in frame.to_dict("records"):
        models = tuple(
            BankModel(r[f"{side}_banks"], r[f"{side}_ports"], offset) if r[f"{side}_custom"] else None
            for side, offset in (("ifmap", 0), ("filter", r["filter_offset"]))
        )
        numbers = [int(cell) for cell in r["layout"].split()]
        layout = ScaleSimLayout(
            BlockOrder((numbers[0], numbers[1], numbers[4]), (*numbers[9:12], *numbers[6:9])),
            BlockOrder((*numbers[5:3:-1], *numbers[2:4]), (*numbers[16:20], *numbers[12:16])),
        )
        config = ScaleSimConfig(
            "x", True, r["rows"], r["cols"], r["ifmap_kb"], r["filter_kb"], r["ofmap_kb"], r["dataflow"],
            (r["ifmap_bw"], r["filter_bw"]), r["write_bw"], r["form"], r["block_size"], r["seed"], models,
        )  # fmt: skip
        sizes = (r[name] for name in ("h", "w", "fh", "fw", "c", "n", "stride", "keep", "block"))
        found = scalesim_run.run(config, [ScaleSimLayer("x", *sizes)], layout)[0]
        assert (found.total, found.stall) == (r["total_cycles"], r["stall_cycles"]), r
        for memory, rows in (("sram", found.sram), ("dram", found.dram)):
            expected = [
                tuple(r[f"{memory}_{side}_{what}"] for what in ("start", "stop", "count")) for side in sides
            ]
            assert list(rows) == expected, (memory, r)
