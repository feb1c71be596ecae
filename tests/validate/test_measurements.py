"""Measurement files: seconds are seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from accelsim.calibration.measurements import (
    check_measurements,
    matrix_precision,
    read_measurements,
    roofline,
)
from accelsim.core.errors import RequestError
from accelsim.core.precision import precision
from accelsim.hardware.spec import load_hardware


def _measured() -> pd.DataFrame:
    m = np.array([1, 16, 256, 4096])
    frame = pd.DataFrame({"op": "gemm", "precision": "bf16", "m": m, "n": 4096, "k": 4096})
    frame["latency_s"] = np.max(roofline(frame, "h100-sxm"), axis=0) * 1.4 + 3e-6
    return frame


def test_roofline_is_peak_arithmetic_and_peak_bandwidth() -> None:
    gpu = load_hardware("h100-sxm")
    compute, memory, link = roofline(_measured(), "h100-sxm")
    flops = 2 * 4096 * 4096 * np.array([1, 16, 256, 4096])
    assert compute == pytest.approx(flops / gpu.peak_flop_per_s("bf16"))
    assert memory[0] == pytest.approx(2 * (4096**2 + 2 * 4096) / gpu.memory.bandwidth_bytes_per_s)
    assert not link.any()


@pytest.mark.parametrize("device", ["h100-sxm", None])
@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_milliseconds_and_microseconds_in_a_seconds_column_are_caught(
    device: str | None, factor: float
) -> None:
    frame = _measured()
    check_measurements(frame, device)
    frame["latency_s"] *= factor if device else factor * 1e3
    with pytest.raises(RequestError, match=r"'latency_s' has a median of .* expected seconds"):
        check_measurements(frame, device)


def test_the_unit_is_named() -> None:
    for factor, unit in ((1e3, "milliseconds"), (1e6, "microseconds")):
        with pytest.raises(RequestError, match=f"look like {unit}"):
            check_measurements(
                _measured().assign(latency_s=lambda f, x=factor: f["latency_s"] * x), "h100-sxm"
            )


def test_faster_than_the_device_is_caught_and_an_eager_framework_is_not() -> None:
    frame = _measured()
    with pytest.raises(RequestError, match="no device is that fast"):
        check_measurements(frame.assign(latency_s=frame["latency_s"] / 1e3), "h100-sxm")
    check_measurements(frame.assign(latency_s=frame["latency_s"] + 60e-6), "h100-sxm")


def test_each_device_of_a_file_is_judged_by_itself() -> None:
    good = _measured().assign(device="h100-sxm")
    bad = _measured().assign(device="h200-sxm", latency_s=lambda f: f["latency_s"] * 1e3)
    unknown = _measured().assign(
        device="the workstation under my desk", latency_s=lambda f: f["latency_s"] * 1e3
    )
    check_measurements(pd.concat([good, good, unknown]))
    with pytest.raises(RequestError, match="h200-sxm"):
        check_measurements(pd.concat([good, good, bad]))


def test_a_latency_must_be_there_and_positive(tmp_path: Path) -> None:
    frame = _measured()
    with pytest.raises(RequestError, match=r"no column 'latency_s'.*'latency_ms' must become"):
        check_measurements(frame.rename(columns={"latency_s": "latency_ms"}))
    frame.loc[2, "latency_s"] = np.nan
    with pytest.raises(RequestError, match="'latency_s' has nan in rows 2"):
        check_measurements(frame)
    with pytest.raises(RequestError, match="empty"):
        check_measurements(frame.iloc[:0])


def test_files(tmp_path: Path) -> None:
    frame = _measured()
    path = tmp_path / "measured.csv"
    frame.to_csv(path, index=False)
    assert read_measurements(path, "h100-sxm")["latency_s"].to_numpy() == pytest.approx(
        frame["latency_s"].to_numpy()
    )
    path.write_text("")
    with pytest.raises(RequestError, match=r"measured\.csv: not a table"):
        read_measurements(path)
    with pytest.raises(RequestError, match="no such measurement file"):
        read_measurements(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("weight", "activation", "device", "expected"),
    [
        ("int8", "bf16", "a100-sxm", "bf16"),
        ("int8", "int8", "a100-sxm", "int8"),
        ("nvfp4", "nvfp4", "b200", "nvfp4"),
        ("fp8_e4m3", "fp8_e4m3", "a100-sxm", "fp16"),
        ("mxfp4", "bf16", "h100-sxm", "bf16"),
    ],
)
def test_products_run_in_the_wider_format_that_the_device_has(
    weight: str, activation: str, device: str, expected: str
) -> None:
    gpu = load_hardware(device)
    assert gpu.peak_flop_per_s(matrix_precision(precision(weight), precision(activation), gpu)) == (
        gpu.peak_flop_per_s(expected)
    )
