"""From YAML to a device: what is refused and how, inheritance, changes, differences and the hash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.core.errors import AccelsimError, ConfigError, UnknownNameError
from accelsim.hardware.schema import DEVICES, SystolicDevice
from accelsim.hardware.spec import build, load_hardware, sources

_GOOD = """
kind: systolic
title: a device
vendor: me
family: mine
placement: [edge]
source: a data sheet
status: cited
memory: {type: DDR4, capacity: 8 GB, bandwidth: 25.6 GB/s}
array:
  rows: 16
  cols: 16
  clock: 1 GHz
  dataflow: ws
  macs_per_pe: {int8: 1, bf16: 0.5}
sram: {capacity: 1 MiB}
vector: {ops_per_clock: {value: 16, source: a guess, status: assumed}}
"""


def _load(folder: Path, text: str, name: str = "dev") -> SystolicDevice:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    os.utime(path, ns=(hash(text) % 10**18,) * 2)  # two writes within the clock's resolution must differ
    return load_hardware(path)


def test_good_file(tmp_path: Path) -> None:
    device = _load(tmp_path, _GOOD)
    assert device.memory.bandwidth_bytes_per_s == 25.6e9
    assert device.sram.capacity_bytes == 2**20
    assert device.array.macs_per_pe == {"int8": 1, "bf16": 0.5}
    assert device.assumed == ["vector.ops_per_clock"]
    assert load_hardware(device) is device
    table = sources(device).set_index("parameter")
    assert table.loc["array.rows", "source"] == "a data sheet"
    assert table.loc["vector.ops_per_clock", "status"] == "assumed"


@pytest.mark.parametrize(
    ("old", "new", "fragments"),
    [
        ("25.6 GB/s", "25.6", ["memory.bandwidth", "'25.6' has no unit", "write it like '1.5 GB/s'"]),
        ("25.6 GB/s", "25", ["memory.bandwidth", "has no unit"]),
        ("25.6 GB/s", "25.6 GB", ["memory.bandwidth", "is in units of bytes, expected bandwidth"]),
        ("25.6 GB/s", "25.6 furlongs", ["memory.bandwidth", "unknown unit 'furlongs'"]),
        ("25.6 GB/s", "-25.6 GB/s", ["memory.bandwidth", "must be positive"]),
        ("25.6 GB/s", "0 GB/s", ["memory.bandwidth", "must be positive"]),
        ("25.6 GB/s", ".nan", ["memory.bandwidth", "has no unit"]),
        ("8 GB", "[8 GB]", ["memory.capacity"]),
        ("rows: 16", "rows: 0", ["array.rows", "greater than 0"]),
        ("rows: 16", "rows: -16", ["array.rows", "greater than 0"]),
        ("rows: 16", "rows: 16.5", ["array.rows"]),
        ("rows: 16", "rows: true", ["array.rows", "not a number"]),
        ("rows: 16", "", ["array.rows", "missing"]),
        ("bf16: 0.5", "bf16: .inf", ["array.macs_per_pe.bf16"]),
        ("bf16: 0.5", "bf17: 0.5", ["array.macs_per_pe", "unknown precision 'bf17'", "did you mean bf16"]),
        ("dataflow: ws", "dataflow: sw", ["array.dataflow", "(got 'sw')"]),
        ("capacity: 1 MiB", "capcity: 1 MiB", ["sram", "missing"]),
        ("sram:", "speed: 3\nsram:", ["speed: unknown field 'speed'"]),
        ("type: DDR4", "type: DDR4, bandwith: 3 GB/s", ["memory.bandwith", "did you mean memory.bandwidth"]),
        (
            "source: a data sheet\n",
            "",
            ["the number '8 GB' has no source", "memory.capacity", "add 'source:'"],
        ),
        ("source: a guess, ", "source: '', ", ["the number '16' has no source", "vector.ops_per_clock"]),
        ("status: assumed", "status: sure", ["status 'sure' is not one of cited, measured, assumed"]),
        ("status: cited", "status: sure", ["status 'sure' is not one of"]),
        ("source: a guess", "source: a guess, unit: W", ["unknown key 'unit' beside a value"]),
        ("kind: systolic", "kind: cpu", ["kind 'cpu' is not one of gpu, systolic, fpga"]),
        ("kind: systolic\n", "", ["kind 'None'"]),
        ("placement: [edge]", "placement: [moon]", ["placement", "(got 'moon')"]),
        ("title: a device", "title: !!python/object/apply:os.getcwd []", ["not usable YAML", "python"]),
        ("vendor: me", "vendor: me\nvendor: you", ["duplicate key 'vendor'"]),
        (
            "kind: systolic",
            "extends: nowhere\nkind: systolic",
            ["'extends' names no file", "unknown hardware 'nowhere'"],
        ),
        ("kind: systolic", "extends: [a]\nkind: systolic", ["'extends' must be a name"]),
    ],
)
def test_bad_files_end_in_one_line(tmp_path: Path, old: str, new: str, fragments: list[str]) -> None:
    assert old in _GOOD
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, _GOOD.replace(old, new, 1))
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "dev.yaml"))
    assert "\n" not in message
    assert len(message) < 400
    for fragment in fragments:
        assert fragment in message


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a folder"):
        load_hardware(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        load_hardware(tmp_path / "none.yaml")
    with pytest.raises(UnknownNameError, match="did you mean tpu-v4"):
        load_hardware("tpu-v44")


def test_text_may_begin_with_a_digit(tmp_path: Path) -> None:
    """A part like 10AX115 or a technology like 7series is a name, not a number without a source."""
    text = "title: 3 arrays\nnote: 7 notes\nkind: systolic\n" + _GOOD.replace(
        "title: a device\n", ""
    ).replace("kind: systolic\n", "")
    device = _load(tmp_path, text)
    assert device.title == "3 arrays"
    assert "title" not in device.quantities
    assert "note" not in device.quantities


def test_extends_merges_and_keeps_each_source(tmp_path: Path) -> None:
    _load(tmp_path, _GOOD, "_family")
    child = _load(
        tmp_path, "extends: _family\nsource: child\nstatus: measured\narray: {clock: 2 GHz}\n", "child"
    )
    grandchild = _load(
        tmp_path, "extends: child\nsource: grandchild\nmemory: {capacity: 9 GB}\n", "grandchild"
    )
    assert grandchild.array.clock_hz == 2e9
    assert grandchild.array.rows == 16
    evidence = {p: (q.source, q.status) for p, q in grandchild.quantities.items()}
    assert evidence["array.rows"] == ("a data sheet", "cited")
    assert evidence["array.clock"] == ("child", "measured")
    assert evidence["memory.capacity"] == ("grandchild", "assumed")
    assert child.name == "child"


def test_an_edited_family_is_read_again(tmp_path: Path) -> None:
    _load(tmp_path, _GOOD, "_family")
    assert _load(tmp_path, "extends: _family\n", "child").array.rows == 16
    (tmp_path / "_family.yaml").write_text(_GOOD.replace("rows: 16", "rows: 32"))
    os.utime(tmp_path / "_family.yaml", ns=(1, 1))
    assert load_hardware(tmp_path / "child.yaml").array.rows == 32


def test_extends_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: c\n")
    (tmp_path / "c.yaml").write_text("extends: b\n")
    with pytest.raises(ConfigError, match="goes in a circle: b -> c -> b"):
        load_hardware(tmp_path / "a.yaml")
    (tmp_path / "self.yaml").write_text("extends: self\n")
    with pytest.raises(ConfigError, match="goes in a circle: self -> self"):
        load_hardware(tmp_path / "self.yaml")


def test_replace_by_dotted_path() -> None:
    h100 = load_hardware("h100-sxm")
    fast = h100.replace(**{"memory.bandwidth": "4.8 TB/s", "memory.capacity": "141 GB"})
    assert fast.memory.bandwidth_bytes_per_s == 4.8e12
    assert fast.memory.capacity_bytes == 141e9
    assert fast.name == "h100-sxm[memory.bandwidth=4.8 TB/s,memory.capacity=141 GB]"
    assert fast.quantities["memory.bandwidth"].status == "assumed"
    assert "h100-sxm" in fast.quantities["memory.bandwidth"].source
    assert h100.memory.bandwidth_bytes_per_s == 3.35e12
    again = fast.replace(**{"sm.count": 100})
    assert again.name == "h100-sxm[memory.bandwidth=4.8 TB/s,memory.capacity=141 GB,sm.count=100]"
    assert again.memory == fast.memory
    assert h100.replace(**{"sm.tensor_flop_per_clock.fp16": 8192}).peak_flop_per_s(
        "fp16"
    ) == 2 * h100.peak_flop_per_s("fp16")


def test_replace_what_the_file_leaves_out() -> None:
    v5p = load_hardware("tpu-v5p")
    assert v5p.power.tdp_w is None
    assert v5p.replace(**{"power.tdp": "350 W"}).power.tdp_w == 350
    assert v5p.replace(**{"sram.bandwidth": "10 TB/s"}).sram.bandwidth_bytes_per_s == 1e13
    assert v5p.replace(**{"array.double_buffered": False}).array.double_buffered is False
    assert load_hardware("tpu-v1").replace(**{"array.dataflow": "os"}).array.dataflow == "os"


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"memory.bandwith": "4.8 TB/s"}, "no parameter 'memory.bandwith'; did you mean memory.bandwidth"),
        ({"bandwidth": "4.8 TB/s"}, "did you mean"),
        ({"memory.bandwidth": "4.8 TB"}, "expected bandwidth"),
        ({"memory.bandwidth": 4.8e12}, "has no unit"),
        ({"sm.count": 0}, "greater than 0"),
        ({"sm.tensor_flop_per_clock.fp17": 1}, "no parameter"),
        ({"memory": "fast"}, "memory"),
        ({"memory.bandwidth.x": 1}, "no parameter 'memory.bandwidth.x'"),
    ],
)
def test_replace_refuses(changes: dict[str, object], fragment: str) -> None:
    with pytest.raises(AccelsimError) as caught:
        load_hardware("h100-sxm").replace(**changes)
    assert str(caught.value).startswith("h100-sxm")
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_diff() -> None:
    h100 = load_hardware("h100-sxm")
    table = h100.diff("h200-sxm").set_index("parameter")
    assert list(table.columns) == ["h100-sxm", "h200-sxm"]
    assert table.loc["memory.bandwidth"].tolist() == ["3.35 TB/s", "4.8 TB/s"]
    assert "sm.count" not in table.index
    assert h100.diff(h100).empty
    one = h100.diff(h100.replace(**{"sm.count": 100}))
    assert one["parameter"].tolist() == ["sm.count"]
    assert one.iloc[0, 1:].tolist() == [132, 100]
    other = h100.diff("tpu-v4")
    assert {"array.rows", "sm.count", "kind"} <= set(other["parameter"])


_QUIET = [
    ("title: a device", "title: another title"),
    ("vendor: me", "vendor: you\nnote: a note  # and a comment"),
    ("source: a data sheet", "source: another data sheet"),
    ("status: cited", "status: measured"),
    ("25.6 GB/s", "0.0256 TB/s"),
    ("capacity: 1 MiB", "capacity: 1024 KiB"),
    ("  rows: 16\n  cols: 16\n", "  cols: 16\n  rows: 16\n"),
    ("clock: 1 GHz", "clock: {value: 1000 MHz, source: elsewhere}"),
]


@pytest.mark.parametrize(("old", "new"), _QUIET)
def test_hash_ignores_words(tmp_path: Path, old: str, new: str) -> None:
    assert old in _GOOD
    device = _load(tmp_path, _GOOD)
    other = _load(tmp_path, _GOOD.replace(old, new, 1))
    assert device.hash == other.hash
    assert device == other
    assert len({device, other}) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("25.6 GB/s", "25.7 GB/s"),
        ("8 GB", "8 GiB"),
        ("rows: 16", "rows: 17"),
        ("clock: 1 GHz", "clock: 1.001 GHz"),
        ("dataflow: ws", "dataflow: os"),
        ("int8: 1", "int8: 2"),
        ("bf16: 0.5", "fp16: 0.5"),
        ("sram: {", "sram: {ofmap: 1 KiB, "),
        ("sram:", "dispatch: 1 us\nsram:"),
        ("sram:", "cost: {hourly: 1 USD/h}\nsram:"),
        ("sram:", "energy: {mac: {int8: 1 pJ}}\nsram:"),
    ],
)
def test_hash_sees_numbers(tmp_path: Path, old: str, new: str) -> None:
    assert old in _GOOD
    device = _load(tmp_path, _GOOD)
    assert _load(tmp_path, _GOOD.replace(old, new, 1)).hash != device.hash


@given(st.floats(min_value=0.01, max_value=100).map(lambda f: round(f, 4)))
def test_replace_changes_the_hash_with_the_number_only(factor: float) -> None:
    v4 = load_hardware("tpu-v4")
    clock = f"{1.05 * factor:.6g} GHz"
    first, second = v4.replace(**{"array.clock": clock}), v4.replace(**{"array.clock": clock})
    assert first.hash == second.hash
    assert first.peak_flop_per_s("bf16") == pytest.approx(factor * v4.peak_flop_per_s("bf16"), rel=1e-5)


def test_devices_are_frozen() -> None:
    device = load_hardware("tpu-v4")
    with pytest.raises(ValueError, match="frozen"):
        device.memory.bandwidth_bytes_per_s = 1.0
    with pytest.raises(ValueError, match="frozen"):
        device.name = "x"
    assert set(DEVICES) == {"gpu", "systolic", "fpga", "neuromorphic"}


def test_a_changed_device_is_the_one_that_its_document_makes() -> None:
    changes = {
        "array.rows": 32,
        "array.dataflow": "os",
        "sram.ofmap": "64 KiB",
        "energy.sram_byte": "0.1 pJ",
        "power.idle": "2 W",
    }
    for name in ("tpu-v4", "eyeriss", "edge-tpu"):
        changed = load_hardware(name).replace(**changes, **({"link": None} if name == "tpu-v4" else {}))
        built = build(dict(changed.document), changed.name, name)
        assert changed == built
        assert changed.model_dump() == built.model_dump()
        assert changed.quantities == built.quantities
        assert changed.document["array"]["rows"].source.startswith("changed from")
        assert load_hardware(name).array.rows != 32, "the device itself must stay"
