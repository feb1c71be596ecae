"""The DeepBench sheet: a small imitation, and the public one where it is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from accelsim.architectures.opwork import work
from accelsim.calibration.measurements import check_measurements
from accelsim.calibration.splits import held_out
from accelsim.core.errors import RequestError
from accelsim.validate.deepbench import SHEET, load

openpyxl = pytest.importorskip("openpyxl")
PUBLIC = Path(__file__).parents[3] / "shared" / "measurements" / "deepbench"

CONV = [
    None,
    "Vision",
    28,
    14,
    64,
    8,
    128,
    5,
    3,
    1,
    1,
    2,
    2,
    0.25,
    "N/A*",
    0.3,
    None,
    13,
    7,
    0.5,
    1.0,
    1.0,
    1.0,
]


def _sheet(path: Path) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name in ("Results FP32", "Results - FP16 ip, Mixed math"):
        rows: list[list[Any]] = [
            [
                "Dense Matrix Multiplication",
                None,
                "M",
                "N",
                "K",
                "A Transpose",
                "B Transpose",
                None,
                "Time (msec)",
            ],
            [None, "DeepSpeech", 1760, 16, 512, "T", "N", None, 0.02, 1.0],
            [],
            ["Convolution"],
            [None, None, "W", "H", "C", "N", "K "],
            [*CONV, "LICIT_PRECOMP_GEMM"],
            [*CONV[:13], 0.35, *CONV[14:], "IMPLICIT_GEMM"],
            ["Recurrent Layers - LSTM", "Source", "Hidden Units", "N", "Timesteps"],
            [None, "Translation", 512, 16, 25, None, 0.441, 0.8, 0.1],
            ["All-Reduce", None, "Size # floats", "# chips"],
            [None, None, 100000, 2],
        ]
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_each_section_lands_in_its_columns(tmp_path: Path) -> None:
    frame = load(_sheet(tmp_path / "any.xlsx"))
    assert frame.groupby("op").size().to_dict() == {"conv2d": 2, "gemm": 2, "lstm": 2}
    gemm = frame[frame["op"] == "gemm"].iloc[0]
    assert [gemm[c] for c in ("m", "n", "k", "conditions")] == [16, 1760, 512, "TN"]
    assert gemm["latency_s"] == pytest.approx(20e-6)
    conv = frame[frame["op"] == "conv2d"].iloc[0]
    sizes = {"batch": 8, "c_in": 64, "c_out": 128, "h": 14, "w": 28, "kernel_h": 3, "kernel_w": 5}
    assert {c: conv[c] for c in sizes} == sizes
    assert (conv["stride"], conv["padding"], conv["kernel"]) == (2, 1, "IMPLICIT_PRECOMP_GEMM")
    assert conv["latency_s"] == pytest.approx(300e-6)  # the same layer twice: the median
    assert conv["repeats"] == 2
    assert frame[frame["op"] == "lstm"].iloc[0]["input"] == 0


def test_a_checkout_is_searched_and_other_files_are_refused(tmp_path: Path) -> None:
    for place in ("train", "inference/server"):
        (tmp_path / "results" / place).mkdir(parents=True)
    _sheet(tmp_path / "results" / "train" / SHEET)
    assert len(load(tmp_path)) == 6
    with pytest.raises(RequestError, match=f"no {SHEET} here"):
        load(tmp_path / "results" / "inference")
    book = openpyxl.Workbook()
    book.save(tmp_path / "other.xlsx")
    with pytest.raises(RequestError, match="no sheet 'Results FP32'"):
        load(tmp_path / "other.xlsx")


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public sheet is not beside this repository")
def test_public_sheet() -> None:
    frame = load(PUBLIC)
    check_measurements(frame)
    counts = frame.groupby(["op", "precision"]).size()
    assert counts["conv2d", "fp16"] == counts["conv2d", "fp32"] >= 90
    assert counts["gemm", "fp16"] == counts["gemm", "fp32"] >= 160
    flops, _, _ = work(frame)
    frame["rate"] = flops / frame["latency_s"] / 1e12
    first = frame[(frame["op"] == "gemm") & (frame["precision"] == "fp32")].iloc[0]
    assert (first["m"], first["n"], first["k"]) == (16, 1760, 1760)
    assert first["rate"] == pytest.approx(2.6085052631578947)  # the sheet's own TERAFLOPS
    vision = frame[
        (frame["op"] == "conv2d")
        & (frame["precision"] == "fp16")
        & (frame["c_in"] == 64)
        & (frame["h"] == 112)
    ]
    assert vision[vision["batch"] == 16]["rate"].max() == pytest.approx(83.3662226028169)
    share = held_out(frame)[frame["op"] == "conv2d"].mean()
    assert 0.4 < share < 0.6
