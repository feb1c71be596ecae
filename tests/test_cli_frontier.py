"""What surrounds an inference, and the files of a sweep, from a shell."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from accelsim.cli import app
from accelsim.core.errors import AccelsimError


def run(*args):
    done = CliRunner().invoke(app, list(args))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_parts_of_a_composition_add_up():
    base = ("compose", "resnet18", "-d", "zcu104-dpu", "-p", "int8", "--json")
    plain = json.loads(run(*base))
    assert plain["overhead_pct"] == 0
    whole = json.loads(run(*base, "--screen", "checks", "--confidential", "--explain", "occlusion"))
    parts = ("input_validation_s", "model_s", "explanation_s", "encrypted_transfers_s")
    assert whole["latency_s"] == pytest.approx(sum(whole[name] for name in parts))
    assert whole["model_s"] == plain["latency_s"]


def test_encrypted_transfers_weigh_less_in_longer_prompts():
    base = ("confidential", "llama-3.1-8b", "-d", "h100-sxm", "--output", "16", "--json")
    short, long = (json.loads(run(*base, "--prompt", size))["overhead_pct"] for size in ("128", "4096"))
    assert 0 < long < short


def test_every_selected_device_of_a_round_is_accounted_for():
    base = ("federated", "mobilenet-v2", "-d", "jetson-orin=40", "-d", "t4=10", "--rounds", "3", "--json")
    told = json.loads(run(*base, "--dropout", "0.2", "--accept", "30", "--secure", "--bits", "8"))
    for row in told["rounds"]:
        fates = sum(row[name] for name in ("accepted", "late", "dropped", "discarded"))
        assert row["selected"] == fates == 50
        assert row["accepted"] <= 30
    assert [row["devices"] for row in told["devices"]] == [40, 10]


def test_a_spiking_run_takes_its_coding_from_options():
    base = ("run", "keyword-spotting", "-d", "loihi", "--code", "rate", "--json")
    t = [json.loads(run(*base, "--steps", n, "--rate", "0.1"))[0]["latency_s"] for n in ("8", "16", "24")]
    assert t[0] < t[1]
    assert t[2] - t[1] == pytest.approx(t[1] - t[0], rel=1e-3)


def test_a_sweep_writes_the_same_points_in_every_form(tmp_path):
    csv, parquet, latex = (tmp_path / f"points.{end}" for end in ("csv", "parquet", "tex"))
    files = ("--csv", str(csv), "--parquet", str(parquet), "--latex", str(latex))
    run("sweep", "-w", "resnet18", "-d", "t4", "-b", "1,8", *files)
    assert list(pd.read_csv(csv)["latency_s"]) == list(pd.read_parquet(parquet)["latency_s"])
    assert latex.read_text().count(r"resnet18 & t4") == 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("federated", "resnet18", "-d", "t4"), "not DEVICE=COUNT"),
        (("federated", "resnet18", "-d", "t4=5", "--uplink", "10"), "10"),
        (("run", "keyword-spotting", "-d", "loihi", "--rate", "much"), "not a rate"),
        (("run", "keyword-spotting", "-d", "loihi", "--rate", "0.1", "--rate", "a=0.2"), "one --rate"),
        (("run", "resnet18", "-d", "t4", "--steps", "8"), "spiking"),
        (("sweep", "-w", "resnet18", "-d", "t4", "--csv", "/no/such/folder/x.csv"), "does not exist"),
        (("compose", "resnet18", "-d", "t4", "--encrypted", "caesar"), "caesar"),
    ],
)
def test_mistakes_are_named(args, says):
    with pytest.raises(AccelsimError, match=says):
        run(*args)


def test_prices_have_dates_and_sources():
    rows = json.loads(run("hw", "prices", "-d", "h100-sxm", "--json"))
    assert {row["kind"] for row in rows} >= {"purchase", "rent"}
    assert all(row["date"] and row["source"] and row["status"] for row in rows)
