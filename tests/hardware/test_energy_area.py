"""Energy and area tables: their entries, what lies between, and what they do not know."""

from __future__ import annotations

from math import isnan

import pytest

import accelsim as ax
from accelsim.hardware import area, energy


def test_entries_come_back() -> None:
    assert energy.mac("int8", 45).value_j == pytest.approx((0.2 + 0.1) * 1e-12)
    assert energy.mac("bf16", 7).value_j == pytest.approx((0.21 + 0.38) * 1e-12)
    assert energy.sram_byte(32 * 1024, 45).value_j == pytest.approx(20e-12 / 8)
    assert energy.sram_byte(1024 * 1024, 7).value_j == pytest.approx(14e-12 / 8)
    assert energy.dram_byte("HBM2").value_j == pytest.approx(8 * 3.9e-12)


def test_between_nodes_and_sizes_is_between_values() -> None:
    at = [energy.mac("int8", node).value_j for node in (7, 16, 28, 45)]
    assert at == sorted(at)
    sizes = [energy.sram_byte(kib * 1024, 28).value_j for kib in (1, 8, 64, 512, 4096)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == energy.sram_byte(1024 * 1024, 28).value_j


@pytest.mark.parametrize(
    "found",
    [
        energy.mac("int4", 7),
        energy.mac("bf16", 28),
        energy.mac("int8", 65),
        energy.sram_byte(1024, 5),
        energy.dram_byte("HBM9"),
    ],
)
def test_what_no_table_gives_is_unknown_with_a_reason(found: energy.Coefficient) -> None:
    assert isnan(found.value_j)
    assert found.basis.startswith("no table")


def test_nvdla_area_against_the_vendor() -> None:
    """2048 int8 multipliers and 512 KiB take 3.3 mm2 in 16 nm: the parts must fit in it."""
    arrays, memory, rest = area.parts(ax.load_hardware("nvdla-2048"))
    assert isnan(arrays.area_m2)
    assert "16 nm" in arrays.basis
    assert memory.area_m2 == pytest.approx(512 * 1024 * 8 * 0.074 * 2.5e-12)
    assert isnan(rest.area_m2)


def test_tpu_v1_area_against_the_paper() -> None:
    """Buffers take about 37 % of 331 mm2, the multipliers about 25 % (Jouppi, ISCA 2017)."""
    device = ax.load_hardware("tpu-v1")
    arrays, memory, rest = area.parts(device)
    assert memory.area_m2 / device.silicon.area_m2 == pytest.approx(0.29, rel=0.35)
    assert arrays.area_m2 / device.silicon.area_m2 < 0.25
    assert arrays.area_m2 + memory.area_m2 + rest.area_m2 == pytest.approx(device.silicon.area_m2)


def test_tpu_v4i_style_arrays() -> None:
    arrays = area.parts(ax.load_hardware("tpu-v4"))[0]
    assert arrays.area_m2 == pytest.approx(8 * 128 * 128 * 850e-12)
