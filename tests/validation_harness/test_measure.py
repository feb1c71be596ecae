"""The measuring harness, on the processor: the table it writes, and what it does when it is stopped."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from accelsim.architectures import opschema
from accelsim.architectures.opwork import work
from accelsim.calibration.measurements import MEASURED, check_measurements, read_measurements

torch = pytest.importorskip("torch", reason="the harness measures with torch")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "validation" / "measure_gpu.py"
sys.path.insert(0, str(SCRIPT.parent))

import measure_gpu  # noqa: E402
from measure import conditions, timing  # noqa: E402
from measure.design import FORMATS, Item, design, flop, traffic_bytes  # noqa: E402
from measure.kernels import Case, build  # noqa: E402
from measure.table import COLUMNS, SHAPE_COLUMNS, Table, TableError  # noqa: E402
from measure.telemetry import Nvml, NvmlError, Sampler  # noqa: E402
from measure.timing import Timer, TooSlowError  # noqa: E402

CPU = torch.device("cpu")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
# Start of Python and torch, and the row that the end of the budget falls into.
START_S, LAST_ROW_S = 15.0, 8.0


def command(out: Path, minutes: float, *more: str) -> list[str]:
    options = ["--out", str(out), "--device", "cpu", "--quick", "--budget-minutes", str(minutes)]
    return [sys.executable, str(SCRIPT), *options, *more]


def sidecar(out: Path) -> dict[str, Any]:
    return json.loads(out.with_name(out.name + ".json").read_text())


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other make times of a busy machine useless."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """The harness in this process, without its signal handler."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    return measure_gpu.main


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame, float]:
    out = tmp_path_factory.mktemp("measured") / "rows.csv"
    start = time.monotonic()
    done = subprocess.run(command(out, 8 / 60), env=ONE_THREAD, capture_output=True, text=True)
    took = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    return out, pd.read_csv(out), took


def test_the_table_is_in_the_schema(measured: tuple[Path, pd.DataFrame, float]) -> None:
    out, frame, _ = measured
    opschema.check(frame)
    check_measurements(frame)
    assert len(read_measurements(out)) == len(frame)
    assert tuple(frame.columns) == COLUMNS
    assert set(SHAPE_COLUMNS) <= set(opschema.COLUMNS)
    assert {"latency_s", "spread_s", "repeats", "power_w", "conditions", "flag"} <= set(COLUMNS) & set(
        MEASURED
    )


def test_every_operator_is_there_and_latencies_are_seconds(
    measured: tuple[Path, pd.DataFrame, float],
) -> None:
    _, frame, _ = measured
    assert set(frame["op"]) == set(FORMATS)
    assert (np.isfinite(frame["latency_s"]) & (frame["latency_s"] > 0)).all()
    assert frame["latency_s"].max() < 2.0
    assert (frame["spread_s"] >= 0).all()
    assert (frame["spread_s"] > 0).mean() > 0.9
    assert (frame["q25_s"] <= frame["latency_s"]).all()
    assert (frame["latency_s"] <= frame["q75_s"]).all()
    assert frame["repeats"].min() >= timing.FEWEST_REPEATS


def test_power_is_empty_with_a_reason(measured: tuple[Path, pd.DataFrame, float]) -> None:
    _, frame, _ = measured
    assert frame["power_w"].isna().all()
    assert frame["sm_clock_hz"].isna().all()
    assert (frame["telemetry"] == "not a GPU").all()


def test_states_of_the_cache_and_the_one_that_is_scored(
    measured: tuple[Path, pd.DataFrame, float],
) -> None:
    _, frame, _ = measured
    layers = frame["op"].isin(["gemm", "conv2d"])
    assert set(frame.loc[layers, "l2"]) <= {"warm", "cycled", "cold"}
    assert set(frame.loc[~layers, "l2"]) == {"warm", "cold"}
    scored = frame[frame["flag"].isna()]
    assert set(scored["l2"] + (scored["op"].isin(["gemm", "conv2d"])).astype(str)) <= {
        "cycledTrue",
        "warmFalse",
    }
    whole = frame.groupby(["op", "precision", *SHAPE_COLUMNS], dropna=False)["flag"]
    assert (whole.apply(lambda flags: flags.isna().sum()) <= 1).mean() > 0.9


def test_the_budget_is_kept(measured: tuple[Path, pd.DataFrame, float]) -> None:
    out, _, took = measured
    assert took < 8.0 + START_S + LAST_ROW_S
    (run,) = sidecar(out)["runs"]
    assert run["status"] == "budget"


def test_conditions_are_complete(measured: tuple[Path, pd.DataFrame, float]) -> None:
    out, frame, _ = measured
    (run,) = sidecar(out)["runs"]
    assert run["torch"] == torch.__version__
    assert run["device_name"]
    assert run["rows"] == len(frame)
    assert set(frame["run"]) == {run["run"]}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", run["date"])
    for name in ("driver", "ecc", "power_limit_w", "max_sm_clock_hz", "sm_clock_before_hz"):
        assert run[name] is None
        assert run["unread"][name] == "not a GPU"
    assert "cuda" in run
    assert run["cache_bytes"] > 1e5
    skipped = {(s["op"], s["precision"]): s["reason"] for s in run["skipped"]}
    assert skipped["gemm", "tf32"] == "a CPU has no tf32"


def test_a_second_run_continues_the_table(tmp_path: Path, main: Callable[[list[str]], int]) -> None:
    out = tmp_path / "rows.csv"
    for seed in ("1", "2"):
        arguments = command(out, 1.5 / 60, "--ops", "softmax", "--seed", seed, "--name", "bench")
        assert main(arguments[2:]) == 0
    runs, frame = sidecar(out)["runs"], pd.read_csv(out)
    opschema.check(frame)
    assert [r["settings"]["seed"] for r in runs] == [1, 2]
    assert sum(r["rows"] for r in runs) == len(frame) > 0
    assert set(frame["device"]) == {"bench"}


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [
        (signal.SIGINT, "interrupted", 130),
        (signal.SIGTERM, "interrupted", 130),
        (signal.SIGKILL, "running", -9),
    ],
)
def test_stopping_it_leaves_a_valid_table(
    tmp_path: Path, number: signal.Signals, status: str, code: int
) -> None:
    out = tmp_path / "rows.csv"
    arguments = command(out, 2.0, "--ops", "elementwise,softmax")
    # Whoever runs the tests in the background has interrupts ignored, and children inherit that.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(arguments, env=ONE_THREAD, stderr=subprocess.DEVNULL, preexec_fn=heard) as process:
        end = time.monotonic() + 60.0
        while time.monotonic() < end and not (out.is_file() and out.read_bytes().count(b"\n") > 4):
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(120.0) == code
    frame = read_measurements(out)
    assert len(frame) >= 4
    assert out.read_bytes().endswith(b"\n")
    assert sidecar(out)["runs"][0]["status"] == status


def test_bad_requests_are_refused(
    tmp_path: Path, main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path / "rows.csv", 1.0)[2:]
    for more, words in (
        (("--ops", "gem"), "unknown operator 'gem'"),
        (("--budget-minutes", "-1"), "not a positive number of minutes"),
    ):
        with pytest.raises(SystemExit) as refused:
            main([*arguments, *more])
        assert refused.value.code == 2
        assert words in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "none" / "rows.csv")]) == 2
    assert "No such file" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main([*arguments, "--device", "cuda"]) == 2
        assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# The design.


def frame_of(items: list[Item]) -> pd.DataFrame:
    return pd.DataFrame([{"op": i.op, "precision": i.precision, **i.shape} for i in items])


def test_the_whole_design_is_in_the_schema_and_its_work_agrees() -> None:
    items = design(tuple(FORMATS), 0)
    frame = frame_of(items)
    opschema.check(frame)
    flops, dram, _ = work(frame)
    # A causal mask leaves half of the pairs and the diagonal.
    products = flops > 0
    ours = np.array([flop(i) for i in items])[products]
    assert np.all(np.abs(flops[products] / ours - 1.0) < 0.07)
    plain = frame["op"].isin(["gemm", "bmm", "softmax", "elementwise"]).to_numpy()
    assert np.allclose(np.array([traffic_bytes(i) for i in items])[plain], dram[plain])


def test_the_design_covers_the_regimes_and_sizes_that_are_no_multiples() -> None:
    gemms = [i for i in design(("gemm",), 0) if i.precision == "bf16"]
    intensity = np.array([flop(i) / traffic_bytes(i) for i in gemms])
    work_flop = np.array([flop(i) for i in gemms])
    # A GPU's ridge is near 300 FLOP/B; a launch hides 1e8 FLOP.
    for part in (intensity < 30, (intensity > 30) & (intensity < 300), intensity > 300, work_flop < 1e8):
        assert part.mean() > 0.08
    sizes = np.array([s for i in gemms for s in (i.shape["n"], i.shape["k"])])
    assert (sizes % 64 == 0).mean() > 0.3
    assert (sizes % 8 != 0).mean() > 0.15
    assert {(i.shape["n"], i.shape["k"]) for i in gemms} >= {(28672, 4096), (8192, 28672)}
    convs = [i.shape for i in design(("conv2d",), 0)]
    assert any(s["groups"] == s["c_in"] > 1 for s in convs)
    assert any(s["c_in"] == 3 and s["kernel_h"] == 7 and s["h"] == 224 for s in convs)


def test_the_order_is_random_interleaved_and_reproducible() -> None:
    items = design(tuple(FORMATS), 3)
    assert items == design(tuple(FORMATS), 3)
    assert items != design(tuple(FORMATS), 4)
    assert {i.op for i in items[: len(FORMATS)]} == set(FORMATS)
    rest = items[len(FORMATS) :]
    position = np.arange(len(rest))
    size = np.log([traffic_bytes(i) for i in rest])
    assert abs(np.corrcoef(position, size)[0, 1]) < 4.0 / math.sqrt(len(rest))
    for op in FORMATS:
        places = np.array([at for at, i in enumerate(rest) if i.op == op]) / len(rest)
        assert abs(places.mean() - 0.5) < 5.0 * math.sqrt(1 / 12 / len(places))
    distinct = {(i.op, i.precision, *i.shape.items()) for i in items}
    assert 0.03 < 1.0 - len(distinct) / len(items) < 0.08


def test_limits_and_alignment_of_eight_bit_products() -> None:
    items = design(tuple(FORMATS), 0, 1e9, 1e7)
    assert max(map(flop, items)) <= 1e9
    assert max(map(traffic_bytes, items)) <= 1e7
    for item in design(("gemm",), 0):
        if item.precision == "fp8_e4m3":
            assert item.shape["n"] % 16 == 0
            assert item.shape["k"] % 16 == 0
        if item.precision == "int8":
            assert item.shape["m"] > 16


# Operands and timing.


def test_calls_compute_the_operator() -> None:
    gemm = build(Item("gemm", "fp32", {"m": 5, "n": 7, "k": 3}), CPU)
    a, w = gemm.operands
    assert torch.allclose(gemm.call(a, w), a @ w.T)
    whole = build(Item("gemm", "int8", {"m": 32, "n": 16, "k": 64}), CPU)
    a, w = whole.operands
    assert torch.equal(whole.call(a, w).long(), a.long() @ w.long().T)
    heads = {"batch": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "seq_q": 5, "seq_kv": 5, "causal": 1}
    attention = build(Item("attention_prefill", "fp32", heads | {"window": 0}), CPU)
    q, k, v = attention.operands
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / math.sqrt(8.0)
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    expected = torch.softmax(scores, -1) @ v.repeat_interleave(2, 1)
    assert torch.allclose(attention.call(q, k, v), expected, atol=1e-5)


def test_larger_products_take_longer() -> None:
    timer = Timer(CPU, 0.02)
    found = []
    for size in (32, 640):
        case = build(Item("gemm", "fp32", {"m": size, "n": size, "k": size}), CPU)
        found.append(float(np.median(timer.samples_s(timer.prepare(case, "warm", 60.0)))))
    assert found[1] > 20.0 * found[0]  # 8000 times the arithmetic


def test_operand_copies_of_each_state() -> None:
    timer = Timer(CPU, 0.0)
    timer.cache_bytes = 1 << 16
    seen: list[tuple[int, int]] = []

    def call(x: Any, w: Any) -> Any:
        seen.append((x.data_ptr(), w.data_ptr()))
        time.sleep(2e-4)
        return x

    case = Case(call, (torch.zeros(1024), torch.zeros(2048)), weights=(1,))  # 4 and 8 KiB
    distinct = {}
    for state in timing.STATES:
        loop = timer.prepare(case, state, 60.0)
        seen.clear()
        loop.replay()
        assert len(seen) == loop.calls
        distinct[state] = len({x for x, _ in seen}), len({w for _, w in seen})
    assert distinct["warm"] == (1, 1)
    assert distinct["cycled"] == (1, timing.CYCLED_COPIES)
    assert min(distinct["cold"]) == min(9, loop.calls)  # 128 KiB take nine sets of 16 KiB with the result


def test_a_call_that_outlasts_the_budget_is_refused() -> None:
    timer = Timer(CPU, 0.1)
    slow = Case(lambda x: (time.sleep(0.01), x)[1], (torch.zeros(4),))
    with pytest.raises(TooSlowError):
        timer.prepare(slow, "warm", 0.05)


class FakeEvent:
    def __init__(self, enable_timing: bool) -> None:
        self.at = math.nan

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: FakeEvent) -> float:
        return 1e3 * (other.at - self.at)


class FakeGraph:
    replays = 0

    def replay(self) -> None:
        FakeGraph.replays += 1
        time.sleep(1e-3)


@pytest.mark.parametrize("capture_fails", [False, True])
def test_graphs_and_the_fallback_to_the_stream(monkeypatch: pytest.MonkeyPatch, capture_fails: bool) -> None:
    @contextlib.contextmanager
    def capture(graph: FakeGraph, stream: Any) -> Iterator[None]:
        yield
        if capture_fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    class FakeStream:
        def wait_stream(self, other: Any) -> None: ...

    fakes: dict[str, Any] = {
        "Stream": lambda device: FakeStream(),
        "current_stream": lambda device: FakeStream(),
        "stream": lambda stream: contextlib.nullcontext(),
        "CUDAGraph": FakeGraph,
        "graph": capture,
        "Event": FakeEvent,
        "synchronize": lambda device: None,
        "mem_get_info": lambda device: (1 << 30, 1 << 31),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    timer = Timer(CPU, 0.01)
    timer.cuda = True
    case = build(Item("softmax", "fp32", {"rows": 4, "cols": 64, "inputs": 1}), CPU)
    for state in ("warm", "cold"):
        FakeGraph.replays = 0
        loop = timer.prepare(case, state, 60.0)
        samples = timer.samples_s(loop)
        assert len(samples) == loop.repeats
        assert loop.operands[0][0] is case.operands[0]
        assert len(loop.operands) == (1 if state == "warm" else loop.calls)
        if capture_fails:
            assert loop.timer == "stream"
            assert timer.graph_failure == "operation not permitted when stream is capturing"
            assert FakeGraph.replays == 0
        else:
            assert loop.timer == "graph"
            assert np.all(samples >= 1e-3 / loop.calls)
            assert FakeGraph.replays == loop.repeats + 2  # one to upload the graph, one to choose the repeats


# Table, telemetry, names.


def test_a_torn_last_line_is_dropped_and_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with Table(path) as table:
        table.add({"op": "gemm", "kernel": 'a, "b"'})
    with path.open("ab") as file:
        file.write(b"2026-01-01T00:00:00Z,gemm,bf")
    with Table(path) as table:
        table.add({"op": "bmm", "latency_s": 1.25e-6})
    frame = pd.read_csv(path)
    assert list(frame["op"]) == ["gemm", "bmm"]
    assert frame["kernel"][0] == 'a, "b"'
    assert frame["latency_s"][1] == 1.25e-6
    for content in ("a,b\n1,2\n", "one line without an end"):
        other = tmp_path / "other.csv"
        other.write_text(content)
        with pytest.raises(TableError, match="choose another file"):
            Table(other)
        assert other.read_text() == content


class FakeNvml:
    """Answers as libnvidia-ml does, through the pointers that it is given."""

    def __init__(self, instant: bool) -> None:
        self.instant = instant

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, bus_id: Any, handle: Any) -> int:
        return 0 if bus_id.value == b"00000000:3b:00.0" else 6

    def nvmlDeviceGetClockInfo(self, handle: Any, which: Any, found: Any) -> int:
        found._obj.value = {1: 1755, 2: 2619}[which.value]
        return 0

    def nvmlDeviceGetTemperature(self, handle: Any, which: Any, found: Any) -> int:
        return 3  # not supported

    def nvmlDeviceGetPowerUsage(self, handle: Any, found: Any) -> int:
        found._obj.value = 250_000
        return 0

    def nvmlDeviceGetFieldValues(self, handle: Any, count: Any, values: Any) -> int:
        values._obj.status = 0 if self.instant else 3
        values._obj.value = 612_500 if values._obj.field == 186 else 0
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, found: Any) -> int:
        found._obj.value = 0x4 | 0x1
        return 0


@pytest.mark.parametrize(("instant", "power_w"), [(True, 612.5), (False, 250.0)])
def test_telemetry_reads_means_and_says_what_is_missing(instant: bool, power_w: float) -> None:
    sampler = Sampler(Nvml("00000000:3b:00.0", FakeNvml(instant)))
    with sampler.window() as reading:
        time.sleep(0.1)
    assert reading.power_w == pytest.approx(power_w)
    assert reading.sm_clock_hz == pytest.approx(1.755e9)
    assert reading.memory_clock_hz == pytest.approx(2.619e9)
    assert reading.throttle == "power cap"
    assert math.isnan(reading.temperature_c)
    assert reading.reason == "nvmlDeviceGetTemperature answered 3"
    with sampler.window() as short:
        pass
    assert math.isnan(short.power_w)
    assert "no sample within the row" in short.reason


def test_no_nvml_is_a_reason_and_not_an_error() -> None:
    with pytest.raises(NvmlError, match="answered 6"):
        Nvml("00000000:af:00.0", FakeNvml(True))
    with pytest.raises(NvmlError, match="is not in this NVML"):
        Nvml("00000000:3b:00.0", object())
    with Sampler(None, "no NVML: not found").window() as reading:
        pass
    assert math.isnan(reading.power_w)
    assert reading.reason == "no NVML: not found"


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "nvidia-h100-80gb-hbm3-mig-1g-10gb"),
        ("NVIDIA GeForce RTX 4070", "nvidia-geforce-rtx-4070"),
    ],
)
def test_catalog_names(driver: str, name: str) -> None:
    assert conditions.catalog_name(driver) == name


def test_catalog_names_are_in_the_catalog() -> None:
    catalog = {p.stem for p in (ROOT / "hwconfigs" / "gpu").glob("*.yaml")}
    plain = {name for _, name in conditions.CATALOG_NAMES if "\\" not in name}
    assert plain <= catalog
    assert {"a2", "a10", "a30", "a40", "l4", "l40s", "rtx-3090", "rtx-4090", "rtx-5090"} <= catalog


def test_the_document_explains_every_column() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / "measuring.md").read_text(), flags=re.DOTALL)
    words = {w for quoted in re.findall(r"`([^`]+)`", text) for w in quoted.split()}
    assert set(COLUMNS) <= words
    assert all(op in text for op in FORMATS)
