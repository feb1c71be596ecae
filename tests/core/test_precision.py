"""Number formats: storage per element and names."""

from __future__ import annotations

import pytest

from accelsim.core.errors import UnknownNameError
from accelsim.core.precision import PRECISIONS, STORAGE, precision


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("fp32", 32), ("tf32", 32), ("bf16", 16), ("fp16", 16), ("fp8_e4m3", 8), ("fp8_e5m2", 8), ("fp6", 6),
        ("int8", 8), ("int4", 4), ("int2", 2), ("int1", 1),
        ("mxfp8", 8.25),  # one 8-bit scale per 32 elements
        ("mxfp4", 4.25),
        ("nvfp4", 4.5),  # one 8-bit scale per 16 elements
    ],
)  # fmt: skip
def test_bits_per_element(name: str, bits: float) -> None:
    assert precision(name).bytes_per_element * 8 == bits


def test_all_formats_are_covered() -> None:
    floats = "fp32 tf32 bf16 fp16 fp8_e4m3 fp8_e5m2 fp6"
    assert " ".join(PRECISIONS) == f"{floats} mxfp8 mxfp4 nvfp4 int16 int8 int4 int2 int1"


def test_a_block_of_elements_is_whole_bytes() -> None:
    for p in PRECISIONS.values():
        if p.block:
            assert (p.bytes_per_element * p.block) == p.bits * p.block // 8 + p.scale_bits // 8


def test_accumulators_hold_the_products() -> None:
    wide = {**PRECISIONS, **STORAGE}
    for p in PRECISIONS.values():
        assert wide[p.accumulate].bits >= p.bits
        assert wide[p.accumulate].is_integer == p.is_integer


def test_aliases_and_case() -> None:
    assert precision("fp8") is precision("FP8_E4M3")
    assert precision("half") is precision("float16") is precision("fp16")
    assert precision(precision("int4")) is precision("int4")


def test_unknown_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown precision 'fp61'; did you mean .*fp6"):
        precision("fp61")


def test_storage_formats_are_not_for_computing() -> None:
    assert precision("int64", storage=True).bytes_per_element == 8
    with pytest.raises(UnknownNameError):
        precision("int64")
