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


def test_a_device_file_comes_before_the_tables() -> None:
    device = ax.load_hardware("tpu-v4")
    assert energy.coefficient(device, "mac", "int8") == energy.mac("int8", 7)
    assert energy.coefficient(device, "sram") == energy.sram_byte(device.sram.capacity_bytes, 7)
    assert energy.coefficient(device, "dram") == energy.dram_byte("HBM2")
    given = device.replace(**{"energy.sram_byte": "3 pJ"})
    assert energy.coefficient(given, "sram").value_j == pytest.approx(3e-12)
    assert "changed" in energy.coefficient(given, "sram").basis


def test_coefficients_follow_the_size_of_the_memory() -> None:
    base = ax.load_hardware("gemmini")
    small, large = (
        base.replace(**{"sram.capacity": size, "sram.ofmap": "4 KiB"}) for size in ("16 KiB", "1 MiB")
    )
    assert energy.coefficient(small, "sram").value_j < 0.5 * energy.coefficient(large, "sram").value_j


def test_register_files_and_network_are_ratios_of_a_multiply_accumulate() -> None:
    device = ax.load_hardware("eyeriss")
    bare = device.replace(**{"silicon.node_nm": 28}).model_copy(update={"energy": type(device.energy)()})
    product = energy.mac("int16", 28).value_j
    assert energy.coefficient(bare, "register").value_j == pytest.approx(product / 2)
    assert energy.coefficient(bare, "network").value_j == pytest.approx(product)
    # 0.9 pJ at 45 nm, between int8 and int32.
    assert energy.mac("int16", 45).value_j == pytest.approx(0.89e-12, rel=0.01)


@pytest.mark.parametrize("name", ["tpu-v4", "tpu-v1", "eyeriss", "edge-tpu", "h100-sxm"])
def test_energy_is_the_sum_of_its_parts_and_what_is_unknown_has_a_reason(name: str) -> None:
    precision = {"tpu-v4": "bf16", "h100-sxm": "fp16", "eyeriss": "int16"}.get(name, "int8")
    result = ax.simulate("resnet18", name, precision=precision)
    columns = {part: result.summary[f"energy_{part}_j"] for part in energy.PARTS}
    assert {k: v for k, v in columns.items() if k in result.energy_parts} == pytest.approx(
        result.energy_parts, nan_ok=True
    )
    assert result.summary["energy_j"] == pytest.approx(sum(result.energy_parts.values()), nan_ok=True)
    for part, value in columns.items():
        assert isnan(value) == (f"energy_{part}_j" in result.missing), part
    if name == "eyeriss":
        assert "idle power" in result.missing["energy_j"]


def test_a_link_without_a_coefficient_is_unknown_and_not_free() -> None:
    result = ax.simulate("resnet18", "tpu-v4", precision="bf16", batch=4, devices=2)
    assert isnan(result.summary["energy_link_j"])
    assert isnan(result.summary["energy_j"])
    assert "link" in result.missing["energy_j"]
    priced = ax.load_hardware("tpu-v4").replace(**{"energy.link_byte": "10 pJ"})
    assert ax.simulate("resnet18", priced, precision="bf16", batch=4, devices=2).summary["energy_link_j"] > 0


def test_every_coefficient_has_a_source_or_a_reason() -> None:
    for name in ("tpu-v1", "tpu-v6e", "nvdla-64", "gemmini", "h100-sxm", "zcu104-finn"):
        for row in energy.table(ax.load_hardware(name)):
            assert row["basis"], (name, row)
            assert row["value"] >= 0 or isnan(row["value"])


def test_a_table_of_area_ends_with_the_die() -> None:
    rows = area.table(ax.load_hardware("tpu-v4"))
    *inside, die = (row["area_m2"] for row in rows)
    assert [row["part"] for row in rows] == ["arrays", "memory", "rest", "die"]
    assert sum(inside) == pytest.approx(die)
    (only,) = area.table(ax.load_hardware("h100-sxm"))
    assert only["area_m2"] == pytest.approx(814e-6)
    (none,) = area.table(ax.load_hardware("u250-finn"))
    assert isnan(none["area_m2"])
    assert none["basis"] == "u250-finn has no die area"


def test_results_carry_the_area_of_their_parts() -> None:
    summary = ax.simulate("resnet18", "tpu-v1", precision="int8").summary
    found = {part.name: part.area_m2 for part in area.parts(ax.load_hardware("tpu-v1"))}
    assert {name: summary[f"resource_area_{name}_m2"] for name in found} == found
    grown = ax.load_hardware("tpu-v1").replace(**{"array.count": 40})
    result = ax.simulate("resnet18", grown, precision="int8")
    assert isnan(result.summary["resource_area_rest_m2"])
    assert "exceed" in result.missing["resource_area_rest_m2"]


def test_partial_sums_are_priced_by_the_memory_that_holds_them() -> None:
    whole = ax.load_hardware("nvdla-2048").replace(**{"energy.sum_byte": None})
    assert energy.sum_byte(whole) == energy.coefficient(whole, "sram")
    apart = whole.replace(**{"sram.ofmap": "64 KiB"})
    assert energy.sum_byte(apart) == energy.sram_byte(2**16, 16)
    given = whole.replace(**{"energy.sum_byte": "1 pJ"})
    assert energy.sum_byte(given).value_j == pytest.approx(1e-12)
    assert [row["part"] for row in energy.table(given)][-1] == "sum"
    # Two prices are a line through the bytes of partial sums.
    doubled = whole.replace(**{"energy.sum_byte": "2 pJ"})
    free = whole.replace(**{"energy.sum_byte": "0 pJ"})
    costs = [
        ax.simulate("resnet18", d, precision="int8").energy_parts["sram"] for d in (free, given, doubled)
    ]
    assert costs[2] - costs[1] == pytest.approx(costs[1] - costs[0])
    assert costs[1] > costs[0] > 0
