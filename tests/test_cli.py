"""The command line as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def accelsim(*args, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "accelsim.cli", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def ok(*args, **kw):
    done = accelsim(*args, **kw)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*args, **kw):
    """Exit code 2, one line, no traceback; returns the line."""
    done = accelsim(*args, **kw)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_run_gives_all_combinations_as_one_document():
    rows = json.loads(
        ok(
            *("run", "resnet50", "--hardware", "h100-sxm", "--hardware", "tpu-v4", "--hardware", "u250-finn"),
            *(
                "--batch",
                1,
                "--batch",
                8,
                "--batch",
                64,
                "--precision",
                "fp16",
                "--precision",
                "int8",
                "--json",
            ),
        )
    )
    assert len(rows) == 18
    point = {"workload", "hardware", "batch", "precision", "status", "reason", "need", "have", "hint"}
    assert all(point <= set(row) for row in rows)
    bad = [row for row in rows if row["status"] == "infeasible"]
    assert {(row["hardware"], row["precision"]) for row in bad} == {("tpu-v4", "fp16"), ("u250-finn", "fp16")}
    assert all(row["need"] and row["have"] and row["hint"] for row in bad)
    assert all(row["latency_s"] > 0 for row in rows if row["status"] == "ok")


def test_a_card_for_one_run_and_kernels_on_request():
    out = ok("run", "resnet50", "-d", "h100-sxm", "--ops")
    assert "latency" in out
    assert "error band" in out
    assert "mapping" in out


def test_sweep_writes_csv(tmp_path):
    out = tmp_path / "study.csv"
    ok("sweep", "-w", "resnet18", "-d", "l4,t4", "-b", "1,8", "--csv", out)
    assert len(out.read_text().splitlines()) == 5


def test_catalogs_and_doctor():
    names = {row["name"] for row in json.loads(ok("hw", "list", "--json"))}
    assert {"h100-sxm", "tpu-v4", "u250-finn"} <= names
    assert {"resnet50", "llama-3.1-8b"} <= {row["name"] for row in json.loads(ok("wl", "list", "--json"))}
    assert json.loads(ok("hw", "energy", "h100-sxm", "--json"))[0]["part"] == "mac"
    assert "die" in ok("hw", "area", "tpu-v4")
    rows = json.loads(ok("hw", "show", "h100-sxm", "--json"))
    assert all(row["source"] for row in rows)
    assert "memory.bandwidth" in {
        r["parameter"] for r in json.loads(ok("hw", "diff", "h100-sxm", "h200-sxm", "--json"))
    }
    shown = json.loads(ok("wl", "show", "resnet50", "--json"))
    assert shown["macs"] == pytest.approx(4.0892e9, rel=1e-3)
    assert any(row["what"] == "numba" for row in json.loads(ok("doctor", "--json")))


def test_a_device_of_ones_own(tmp_path):
    mine = tmp_path / "mine.yaml"
    ok("hw", "new", mine, "--like", "l4")
    assert "gpu" in ok("hw", "check", mine)
    mine.write_text(mine.read_text().replace("24 GB", "48 GB"))
    assert json.loads(ok("run", "resnet50", "-d", mine, "--json"))[0]["memory_capacity_bytes"] == 48e9
    assert "exists" in refused("hw", "new", mine, "--like", "l4")


def test_a_model_too_large_is_an_infeasible_row():
    (row,) = json.loads(ok("run", "llama-3.1-70b", "-d", "t4", "--precision", "fp16", "--json"))
    assert row["status"] == "infeasible"
    assert row["reason"] == "memory"


GOOD = """\
kind: systolic
source: a test
title: t
vendor: v
family: f
placement: [edge]
memory: {type: DDR4, capacity: 8 GB, bandwidth: 25 GB/s}
array: {rows: 16, cols: 16, clock: 1 GHz, dataflow: ws, macs_per_pe: {int8: 1}}
sram: {capacity: 1 MiB}
vector: {ops_per_clock: 64}
"""

BROKEN = {
    "unit missing": ("8 GB", "8", "no unit"),
    "wrong dimension": ("25 GB/s", "25 GHz", "frequency"),
    "negative": ("rows: 16", "rows: -16", "rows"),
    "zero": ("8 GB", "0 GB", "positive"),
    "unsourced": ("source: a test\n", "", "no source"),
    "duplicate key": ("family: f\n", "family: f\nfamily: g\n", "duplicate key"),
    "unknown field": ("title: t\n", "title: t\ncolour: red\n", "colour"),
    "python tag": ("title: t", "title: !!python/object/apply:os.system ['true']", "YAML"),
    "unknown precision": ("int8: 1", "int9: 1", "int9"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_bad_device_file_is_one_line(case, tmp_path):
    old, new, word = BROKEN[case]
    assert old in GOOD
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace(old, new))
    assert word in refused("run", "resnet50", "-d", path, "--precision", "int8")


def test_a_yaml_bomb_is_refused(tmp_path):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi")
    )
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb)
    assert "alias" in refused("hw", "check", path)


def test_bad_requests_are_one_line(tmp_path):
    assert "h100-sxm" in refused("run", "resnet50", "-d", "h100-smx")
    assert "resnet50" in refused("run", "resnet5", "-d", "h100-sxm")
    assert "fp16" in refused("run", "resnet50", "-d", "h100-sxm", "--precision", "fp17")
    assert "int8" in refused("run", "resnet50", "-d", "u250-finn", "--precision", "fp16")
    assert "batch" in refused("run", "resnet50", "-d", "h100-sxm", "--batch", 0)
    assert "batch" in refused("run", "resnet50", "-d", "h100-sxm", "--batch", 10**12)
    assert "whole number" in refused("run", "resnet50", "-d", "h100-sxm", "--batch", "many")
    assert "folder" in refused("run", tmp_path, "-d", "h100-sxm")
    assert "folder" in refused("run", "resnet50", "-d", tmp_path)
    assert "no such file" in refused("run", tmp_path / "none.onnx", "-d", "h100-sxm")
    assert "folder" in refused("run", "resnet50", "-d", "h100-sxm", "--save", tmp_path)
    assert refused("run", "resnet50")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("onnx") is None, reason="needs the onnx package")
def test_bad_model_files_are_one_line(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    light = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    (tmp_path / "cut.onnx").write_bytes(light.read_bytes()[:5000])
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("cut.onnx", "text.onnx", "empty.onnx"):
        assert name in refused("run", tmp_path / name, "-d", "h100-sxm")

    def model(nodes, shape):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        path = tmp_path / "model.onnx"
        graph = helper.make_graph(nodes, "g", [x], [y])
        path.write_bytes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
        )
        return path

    path = model([helper.make_node("Frobnicate", ["x"], ["y"], name="odd")], [1, 4])
    line = refused("run", path, "-d", "h100-sxm")
    assert "Frobnicate" in line
    assert "odd" in line
    path = model([helper.make_node("Relu", ["x"], ["y"])], [1, "length"])
    assert "length" in refused("run", path, "-d", "h100-sxm")
    ok("run", path, "-d", "h100-sxm", "--dim", "length=7")
    path = model([helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])], [1, 4])
    assert "cycle" in refused("run", path, "-d", "h100-sxm")
