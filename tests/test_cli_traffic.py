"""Serving and trade-offs from a shell."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from accelsim.cli import app
from accelsim.core.errors import AccelsimError

BASE = ("serve", "resnet50", "-d", "t4", "-p", "int8", "--requests", "20000")


def run(*args):
    done = CliRunner().invoke(app, list(args))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_latency_grows_with_the_rate_and_overload_is_said():
    rows = json.loads(run(*BASE, "--rate", "500", "--rate", "3000", "--rate", "90000", "--json"))
    p99 = [row["latency_p99_s"] for row in rows]
    assert p99 == sorted(p99)
    assert [row["status"] for row in rows] == ["ok", "ok", "unstable"]
    assert "unstable" in run(*BASE, "--rate", "90000")


def test_the_servers_own_file_is_read(tmp_path):
    config = tmp_path / "config.pbtxt"
    config.write_text("max_batch_size: 4\ndynamic_batching { max_queue_delay_microseconds: 100 }\n")
    rows = json.loads(run(*BASE, "--rate", "3000", "--config", str(config), "--json"))
    assert rows[0]["mean_batch"] <= 4


def test_objectives_and_shared_prefixes_have_options():
    assert (
        json.loads(run(*BASE, "--rate", "500", "--slo", "latency_s=0.5", "--json"))[0]["slo_attainment_pct"]
        == 100
    )
    tokens = (
        "serve",
        "llama-3.1-8b",
        "-d",
        "h100-sxm",
        "--server",
        "vllm",
        "--rate",
        "4",
        "--requests",
        "60",
    )
    shared = ("--prefix-tokens", "400", "--slo", "ttft_s=0.5", "--slo", "tpot_s=0.02", "--json")
    (kept,) = json.loads(run(*tokens, *shared))
    (lost,) = json.loads(run(*tokens, *shared, "--no-prefix-caching"))
    assert kept["slo"] == {"ttft_s": 0.5, "tpot_s": 0.02}
    assert kept["prefix_hit_pct"] > 70
    assert lost["prefix_hit_pct"] == 0
    assert kept["ttft_mean_s"] < lost["ttft_mean_s"]
    assert "prefix_hit_pct" in run(*tokens, *shared[:-1])


def test_a_tradeoff_is_a_table():
    rows = json.loads(run("tradeoff", "resnet18", "-d", "t4", "--json"))
    assert {"baseline", "quantisation"} & {row["technique"] for row in rows}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--rate"),
        (("--rate", "5", "--server", "tritn"), "triton"),
        (("--rate", "0"), "rate"),
        (("--rate", "5", "--instances", "0"), "instance"),
        (("--rate", "5", "--config", "none.pbtxt"), "none.pbtxt"),
        (("--rate", "5", "--slo", "ttft_s=1"), "latency_s"),
        (("--rate", "5", "--slo", "latency_s"), "NAME=NUMBER"),
        (("--rate", "5", "--prefix-tokens", "4"), "by token"),
    ],
)
def test_mistakes_are_one_line(arguments, named):
    with pytest.raises(AccelsimError) as caught:
        run(*BASE, *arguments)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fleet_is_sized():
    objective = ("size", "resnet50", "-d", "t4,l4", "--rate", "3000", "--slo", "p99_ms=15", "-p", "int8")
    found = json.loads(run(*objective, "--requests", "20000", "--json"))
    assert found["winner"]["p99_ms"] <= 15
    assert {row["hardware"] for row in found["rows"]} == {"t4", "l4"}
    with pytest.raises(AccelsimError, match="p99_ms=15"):
        run(*objective[:-4], "--slo", "p99_ms")


def test_pictures_traces_and_pages_are_files(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotly")
    saved, picture = tmp_path / "r.json", tmp_path / "r.png"
    run("run", "resnet18", "-d", "t4", "--save", str(saved), "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    run("trace", str(saved), "-o", str(tmp_path / "t.json"))
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    store, page = tmp_path / "s.db", tmp_path / "s.html"
    run("sweep", "-w", "resnet18", "-d", "t4,l4", "-b", "1,8", "--store", str(store))
    run("report", str(store), "-o", str(page), "--title", "<script>x</script>")
    assert "&lt;script&gt;x" in page.read_text()
    with pytest.raises(AccelsimError, match="none"):
        run("report", str(store), "-o", str(tmp_path / "none" / "s.html"))


def test_a_fleet_is_served_from_its_file(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(
        "pools: {pool: {replicas: [{model: {linear: {fixed_s: 0.01, per_item_s: 0.0}}, batching: none}]}}\n"
        "traffic: {arrivals: {deterministic: {rate_per_s: 50}}, requests: 500}\n"
    )
    rows = json.loads(run("serve", "--fleet", str(file), "--json"))
    assert rows[0]["latency_mean_s"] == pytest.approx(0.01)  # half the load, evenly spaced: no queue
    rows = json.loads(run("serve", "--fleet", str(file), "--rate", "80", "--json"))
    assert rows[0]["latency_mean_s"] > 0.02  # M/D/1 at 0.8: 10 ms + 20 ms
    with pytest.raises(AccelsimError, match="brings its own"):
        run("serve", "resnet50", "--fleet", str(file))


def test_a_language_model_is_served_token_by_token():
    base = ("serve", "llama-3.1-8b", "-d", "h100-sxm", "--server", "vllm", "--requests", "60", "--json")
    near, far = json.loads(run(*base, "--rate", "2", "--rate", "20"))
    assert near["tpot_p50_s"] < far["tpot_p50_s"]
    split = json.loads(run(*base, "--rate", "2", "--prefill", "1", "--decode", "1"))[0]
    assert split["status"] == "ok"
