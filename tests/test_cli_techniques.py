"""Techniques from a shell: tables for people, one JSON document for programs."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from accelsim.cli import app
from accelsim.core.errors import AccelsimError


def run(*args):
    done = CliRunner().invoke(app, list(args))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_a_batch_curve_has_a_knee():
    found = json.loads(run("batch", "resnet18", "-d", "t4", "-b", "1,4,16,64", "--json"))
    assert [row["batch"] for row in found["rows"]] == [1, 4, 16, 64]
    top = max(row["throughput_per_s"] for row in found["rows"])
    knee = next(row for row in found["rows"] if row["batch"] == found["knee"])
    assert knee["throughput_per_s"] >= 0.9 * top
    assert "knee" in run("batch", "resnet18", "-d", "t4", "-b", "1,4")


def test_pruning_shows_both():
    dense, pruned = json.loads(run("prune", "resnet18", "-d", "t4", "--amount", "0.5", "--json"))
    assert pruned["flops"] < 0.5 * dense["flops"]
    assert "pruned by 'channel'" in run("prune", "resnet18", "-d", "t4")


def test_pairs_cascades_and_drafts():
    pair = json.loads(run("distill", "distilbert/bert-base", "-d", "t4", "--json"))
    assert pair["speedup"] > 1.5
    cascade = json.loads(run("cascade", "distilbert/bert-base", "-d", "t4", "--acceptance", "0.9", "--json"))
    assert 0 < cascade["break_even"] < 1
    drafts = ["qwen3-8b", "qwen3-32b", "-d", "h100-sxm", "--acceptance", "0.8", "--precision", "fp8_e4m3"]
    found = json.loads(run("speculate", *drafts, "--json"))
    assert found["best_draft"] > 0
    assert "times as fast" in run("speculate", *drafts)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("prune", "resnet18", "-d", "t4", "--amount", "1.0"), "amount"),
        (("prune", "resnet18", "-d", "t4", "--method", "chanel"), "channel"),
        (("cascade", "distilbert/bert-base", "-d", "t4", "--acceptance", "1.2"), "1.2"),
        (("mixed", "none.onnx", "-d", "t4", "--budget", "0.1"), "none.onnx"),
        (("sensitivity", "none.onnx"), "none.onnx"),
    ],
)
def test_mistakes_are_one_line(arguments, named):
    with pytest.raises(AccelsimError) as caught:
        run(*arguments)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
