"""Catalogs: names, nearest names, and which folder wins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from accelsim.core.catalog import catalog
from accelsim.core.errors import ConfigError, UnknownNameError
from accelsim.hardware.spec import load_hardware

_DEVICE = """
kind: systolic
title: mine
vendor: me
family: mine
placement: [edge]
source: made up
memory: {type: DDR4, capacity: 1 GB, bandwidth: 1 GB/s}
array: {rows: 4, cols: 4, clock: 1 GHz, dataflow: ws, macs_per_pe: {int8: 1}}
sram: {capacity: 1 MiB}
vector: {ops_per_clock: 4}
"""


def _folder(root: Path, **files: str) -> Path:
    (root / "hwconfigs" / "deep").mkdir(parents=True)
    for name, text in files.items():
        (root / "hwconfigs" / "deep" / f"{name}.yaml").write_text(text)
    return root


def test_unknown_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalog("hardware").find("h100-smx")
    assert str(caught.value).startswith("unknown hardware 'h100-smx'; did you mean h100-sxm")
    with pytest.raises(UnknownNameError, match="did you mean hardware"):
        catalog("hardwares")


def test_families_are_not_devices() -> None:
    names = catalog("hardware").names()
    assert names == sorted(names)
    assert not [n for n in names if n.startswith("_")]
    with pytest.raises(UnknownNameError):
        catalog("hardware").find("_hopper")


def test_paths_and_names_are_told_apart(tmp_path: Path) -> None:
    hardware = catalog("hardware")
    with pytest.raises(ConfigError, match="this is a folder"):
        hardware.resolve(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        hardware.resolve("h100-sxm.yaml")
    assert hardware.resolve("h100-sxm").name == "h100-sxm.yaml"
    assert "h100-sxm" in hardware
    assert len(hardware) == len(list(hardware))


def test_user_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_hardware("h100-sxm")
    first = _folder(tmp_path / "first", mine=_DEVICE, **{"h100-sxm": _DEVICE})
    second = _folder(tmp_path / "second", mine=_DEVICE.replace("rows: 4", "rows: 8"))
    monkeypatch.setenv("ACCELSIM_PATH", f"{first}{os.pathsep}{second}{os.pathsep}{tmp_path / 'missing'}")
    assert load_hardware("mine").array.rows == 4
    assert load_hardware("h100-sxm").kind == "systolic"
    assert "tpu-v4" in catalog("hardware")
    monkeypatch.setenv("ACCELSIM_PATH", str(second))
    assert load_hardware("mine").array.rows == 8
    assert load_hardware("h100-sxm") == shipped


def test_user_device_extends_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "extends: h100-sxm\nsource: a wish\nmemory: {bandwidth: 4 TB/s}\n"
    monkeypatch.setenv("ACCELSIM_PATH", str(_folder(tmp_path / "mine", wish=text)))
    wish = load_hardware("wish")
    assert wish.memory.bandwidth_bytes_per_s == 4e12
    assert wish.quantities["memory.bandwidth"].source == "a wish"
    assert wish.quantities["memory.capacity"].status == "cited"
    assert wish.sm == load_hardware("h100-sxm").sm
