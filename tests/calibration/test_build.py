"""The shipped bands are made of training rows, and unmeasured devices learn nothing from their own family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from accelsim.architectures.base import STALLS
from accelsim.calibration import constants as C
from accelsim.calibration.rows import Sample
from accelsim.calibration.splits import held_out
from accelsim.core.errors import MissingExtraError
from accelsim.hardware.spec import load_hardware
from accelsim.validate import aiconfigurator, bands


@pytest.fixture(scope="module")
def training() -> bands.Measured:
    try:
        aiconfigurator.root()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return bands.gathered(False, rows=250, devices=("a100-sxm", "l40s"))


def test_training_rows_alone_make_bands(training: bands.Measured) -> None:
    for sample in training.samples.values():
        assert not held_out(sample.frame).any()


def test_left_out_devices_take_the_constants_of_others(training: bands.Measured) -> None:
    strange = bands.left_out(training)
    own = C.constants(load_hardware("a100-sxm"))
    taken, other = C.constants(strange["a100-sxm"]), C.constants(load_hardware("l40s"))
    path = ("attention", "default", "softmax_cycles")
    if path in taken:
        assert taken[path] == pytest.approx(other[path])
    product = [p for p in taken if p[0] == "product" and own[p] != other[p]]
    assert all(taken[p] != own[p] for p in product)
    frame = bands.residuals(training, strange)
    assert set(frame["device"]) == {"a100-sxm", "l40s"}


def test_the_table_reads_back(training: bands.Measured, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from accelsim.architectures.gpu.intervals import LEFT_OUT, MEASURED, shipped_bands

    table = bands.table(training)
    assert len(table.to_csv()) < 60_000
    path = tmp_path / "t.csv"
    path.write_text("# a comment\n" + table.to_csv(index=False))
    shares, cells = shipped_bands(path)
    assert set(shares) == {MEASURED, LEFT_OUT}
    assert set(cells) == {(MEASURED, "a100-sxm"), (MEASURED, "l40s"), (LEFT_OUT, "")}
    own, other = cells[MEASURED, "a100-sxm"]["gemm/half"], cells[LEFT_OUT, ""]["gemm/half"]
    assert other.high / other.low > own.high / own.low


def test_left_out_bands_have_not_seen_the_family(training: bands.Measured) -> None:
    """Rows of the family that take ten times as long, or none at all, give the same bands."""
    slow = {**training.samples}
    frame = slow["a100-sxm"].frame
    slow["a100-sxm"] = Sample.of(frame.assign(latency_s=10.0 * frame["latency_s"]))
    changed = bands.Measured(slow)
    found = [bands.bands_without(m, bands.residuals(m), ("a100-sxm",)) for m in (training, changed)]
    assert found[0]
    assert found[0] == found[1]
    rest = bands.Measured({"l40s": training.samples["l40s"]})
    assert bands.bands_without(rest, bands.residuals(rest), ()) == found[0]


def test_families_count_alike() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "op": "gemm",
            "formats": "half",
            "device": ["a"] * 3000 + ["b"] * 300,
            "family": [0] * 3000 + [1] * 300,
            "predicted_s": 1e-4,
            "bound": "memory",
            "stack": "graph",
            **{f"stall_{name}_s": 0.0 for name in STALLS},
            "group": np.arange(3300),
            "log_ratio": np.concatenate([rng.normal(0.0, 0.01, 3000), rng.normal(0.5, 0.01, 300)]),
        }
    )
    band = bands.left_out_cells(frame)["gemm"]
    assert band.high > np.exp(0.5)
    assert band.low < 1.0
