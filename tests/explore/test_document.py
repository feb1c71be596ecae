"""Studies as files, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from accelsim.core.errors import AccelsimError
from accelsim.explore.document import read_study

STUDY = """
title: Bandwidth against array size
question: Which array is fastest?
space:
  workload: resnet18
  hardware: tpu-v4
  batch: {pow2: [1, 4]}
  precision: [int8, bf16]
  memory.bandwidth: {log: ["0.3 TB/s", "1.2 TB/s", 3]}
where: ["batch > 1 or precision == 'bf16'"]
search: {objective: latency_s, budget: 4, seed: 1}
"""


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "accelsim.cli", *map(str, args)], capture_output=True, text=True, check=False
    )


def test_a_study_reads_ranges_and_conditions(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    found = read_study(path)
    assert found.space.axes["batch"] == (1, 2, 4)
    assert found.space.axes["memory.bandwidth"] == ("0.3 TB/s", "0.6 TB/s", "1.2 TB/s")
    assert len(found.space) == 15
    assert found.objectives == ("latency_s",)


def test_sweep_search_and_compare_from_a_shell(tmp_path):
    path, store = tmp_path / "study.yaml", tmp_path / "study.db"
    path.write_text(STUDY)
    dry = json.loads(run("sweep", path, "--dry-run", "--json").stdout)
    assert dry["points"] == 15
    assert dry["predicted_s"] > 0
    rows = json.loads(run("sweep", path, "--store", store, "--json").stdout)
    assert len(rows) == 15
    front = json.loads(run("search", path, "--store", store, "--json").stdout)
    assert front[0]["latency_s"] >= min(r["latency_s"] for r in rows if r["status"] == "ok")
    verdict = run("compare", "resnet18", "-d", "h100-sxm,t4")
    assert "best" in verdict.stdout


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("title: x", "space"),
        (STUDY.replace("pow2", "pow3"), "pow2"),
        (STUDY.replace("memory.bandwidth", "memory.bandwith"), "memory.bandwidth"),
        (STUDY.replace("question", "qestion"), "question"),
        (STUDY.replace("[1, 4]", "[1, x]"), "pow2"),
        (STUDY.replace("budget", "bugdet"), "budget"),
        (STUDY.replace("resnet18", "resnet19"), "resnet18"),
        (
            STUDY.replace("batch > 1", "batch > 9 and batch < 9").replace("or precision == 'bf16'", ""),
            "no point",
        ),
    ],
)
def test_mistakes_in_a_study_are_named_with_the_file(tmp_path, text, named):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(AccelsimError) as caught:
        read_study(path)
    assert named in str(caught.value)
    assert "study.yaml" in str(caught.value)
