"""Twenty kills at random moments: a resumed sweep is the one that was never interrupted."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress

import pytest

import accelsim as ax

GPUS = ["h100-sxm", "a100-sxm", "t4", "l4"]
BATCHES = list(range(1, 2501))
PRECISIONS = ["fp16", "int8"]
POINTS = len(GPUS) * len(BATCHES) * len(PRECISIONS)
KILLS = 20
RUN = "batch=list(range(1, 2501)), precision=['fp16', 'int8'], store=sys.argv[1]"
JOBLIB = f"""
import sys, accelsim as ax
ax.sweep("resnet18", {GPUS}, jobs=2, {RUN})
"""
DASK = f"""
import sys, accelsim as ax
ax.sweep("resnet18", {GPUS}, cluster=sys.argv[2], {RUN})
"""


@pytest.fixture(scope="module")
def whole():
    return ax.sweep("resnet18", GPUS, batch=BATCHES, precision=PRECISIONS, jobs=1).frame


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_group(process):
    """A process and its children, which may have ended by themselves."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kept(path):
    if not path.exists():
        return 0
    with sqlite3.connect(path) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        return db.execute("SELECT count(*) FROM points").fetchone()[0] if "points" in tables else 0


def check(path, whole):
    assert kept(path) <= POINTS
    resumed = ax.sweep("resnet18", GPUS, batch=BATCHES, precision=PRECISIONS, jobs=1, store=path).frame
    assert resumed.equals(whole)
    with sqlite3.connect(path) as db:
        counts = db.execute("SELECT count(*), count(DISTINCT key) FROM points").fetchone()
        assert counts == (POINTS, POINTS)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
def test_killed_workers_and_writer_of_one_machine(tmp_path, whole):
    path, chance, seen = tmp_path / "s.db", random.Random(1), []
    for kill in range(KILLS):
        child = start(JOBLIB, path)
        _wait(child, chance, path, kill)
        kill_group(child)
        seen.append(kept(path))
        if seen[-1] == POINTS:
            path = tmp_path / f"s{kill}.db"  # done before the twentieth: the next ones start anew
    assert any(0 < count < POINTS for count in seen)
    check(path, whole)


@pytest.mark.slow
def test_killed_workers_of_a_cluster(tmp_path, whole):
    """Workers die under a running sweep, and the sweep itself in its turn; new workers take over."""
    pytest.importorskip("distributed")
    path, chance = tmp_path / "s.db", random.Random(2)
    scheduler = start(
        "from distributed.cli.dask_scheduler import main; main()",
        *("--port", "0", "--no-dashboard", "--scheduler-file", tmp_path / "scheduler.json"),
    )
    workers = []

    def worker():
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60")
        script = "from distributed.cli.dask_worker import main; main()"
        workers.append(start(script, "--scheduler-file", tmp_path / "scheduler.json", *options))

    try:
        address = _address(tmp_path / "scheduler.json")
        for _ in range(3):
            worker()
        for kill in range(KILLS):
            child = start(DASK, path, address)
            _wait(child, chance, path, kill)
            if kill % 2:  # the sweep goes on with the workers that are left
                kill_group(workers.pop(0))
                worker()
                time.sleep(chance.uniform(0.0, 2.0))
            kill_group(child)
            if kept(path) == POINTS and kill < KILLS - 1:
                path = tmp_path / f"s{kill}.db"
        last = start(DASK, path, address)
        time.sleep(3.0)
        kill_group(workers.pop(0))
        worker()
        assert last.wait(timeout=300) == 0  # it ends although a worker died
        assert kept(path) == POINTS
        check(path, whole)
    finally:
        for process in (*workers, scheduler):
            kill_group(process)


def _wait(child, chance, path, kill):
    """Some moment of the run: while it starts, or after rows have arrived."""
    before = kept(path)
    deadline = time.monotonic() + (chance.uniform(0.5, 3.0) if kill % 4 == 0 else 60.0)
    while time.monotonic() < deadline and child.poll() is None and kept(path) == before:
        time.sleep(0.05)
    time.sleep(chance.uniform(0.0, 1.0))


def _address(file):
    import json

    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if file.exists() and file.read_text().strip():
            return json.loads(file.read_text())["address"]
        time.sleep(0.1)
    raise TimeoutError("the scheduler did not start")
