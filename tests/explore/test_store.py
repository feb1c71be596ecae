"""The store: nothing lost, nothing doubled, whatever happens to the processes that write it."""

from __future__ import annotations

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError
from accelsim.explore import store as stores
from accelsim.explore.store import Store, StoreError

AXES = {"batch": ax.pow2(1, 64), "precision": ["fp16", "int8"]}


def key(i: int) -> bytes:
    return i.to_bytes(16, "big")


def test_rows_come_back_as_they_were_put_in(tmp_path):
    held = Store(tmp_path / "s.db")
    held.add([key(2), key(1)], {"status": ["ok", "no"], "x_s": [1.5, math.nan], "n": [7, 8]})
    held.add([key(3), key(1)], {"status": ["ok", "changed"], "extra": [None, 2.0]})
    table = held.frame([key(1), key(3), key(2)])
    assert table.status.tolist() == ["no", "ok", "ok"]  # the first row of a key stays
    assert math.isnan(table.x_s[0])
    assert table.x_s[2] == 1.5
    assert table.n[2] == 7
    assert held.missing([key(9), key(2), key(8)]) == [0, 2]


def test_a_study_resumes_and_another_model_keeps_both(tmp_path, monkeypatch):
    path = tmp_path / "s.db"
    first = ax.sweep("resnet18", "t4", store=path, **AXES)
    calls = []
    monkeypatch.setattr("accelsim.explore.sweep.rows_of", lambda group, loaded: calls.append(group))
    again = ax.sweep("resnet18", "t4", store=path, **AXES)
    assert not calls
    assert again.frame.equals(first.frame)
    monkeypatch.undo()
    monkeypatch.setattr(stores, "MODEL_VERSION", "next")
    held = Store(path)
    assert held.missing([key(1)], "next") == [0]
    monkeypatch.undo()
    more = ax.sweep("resnet18", ["t4", "l4"], store=path, **AXES)
    assert more.frame[more.frame.hardware == "t4"].reset_index(drop=True).equals(first.frame)


def test_memory_and_file_give_the_same_table(tmp_path):
    axes = {"batch": [1, 8], "precision": ["fp16", "int8"]}
    kept = ax.sweep("resnet18", ["t4", "u250-finn"], store=tmp_path / "s.db", **axes)
    assert ax.sweep("resnet18", ["t4", "u250-finn"], **axes).frame.equals(kept.frame)


SCRIPT = """
import sys, accelsim as ax
ax.sweep("resnet18", ["t4", "l4"], batch=list(range(1, 101)), store=sys.argv[1], jobs=int(sys.argv[2]))
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_sweeps_resume_to_the_same_table(tmp_path, jobs):
    path = tmp_path / "s.db"
    chance = random.Random(jobs)
    for _ in range(2):
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, path, str(jobs)], start_new_session=True, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(1.0, 3.0))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    axes = {"batch": list(range(1, 101))}
    resumed = ax.sweep("resnet18", ["t4", "l4"], store=path, jobs=1, **axes).frame
    assert resumed.equals(ax.sweep("resnet18", ["t4", "l4"], jobs=1, **axes).frame)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*), count(DISTINCT key) FROM points").fetchone() == (200, 200)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_writers_of_one_file_are_safe(tmp_path):
    path = tmp_path / "s.db"
    children = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, path, "1"], stderr=subprocess.PIPE) for _ in range(2)
    ]
    for child in children:
        _, problems = child.communicate()
        assert child.returncode == 0, problems.decode()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*), count(DISTINCT key) FROM points").fetchone() == (200, 200)


def test_a_full_disk_is_one_line_and_earlier_rows_stay(tmp_path):
    path = tmp_path / "s.db"
    held = Store(path)
    held.add([key(1)], {"status": ["ok"]})
    held._db.execute("PRAGMA max_page_count=8")  # what a full disk does to SQLite
    with pytest.raises(StoreError, match="disk is full") as caught:
        held.add([key(i) for i in range(2, 5000)], {"status": ["x" * 50] * 4998})
    assert "\n" not in str(caught.value)
    assert len(Store(path).frame()) == 1


def test_files_that_are_no_stores_are_named(tmp_path):
    text = tmp_path / "text.db"
    text.write_text("hello " * 100)
    with pytest.raises(StoreError, match="not a usable study"):
        Store(text)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(StoreError, match="not a study of accelsim"):
        Store(other)
    newer = tmp_path / "newer.db"
    Store(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("UPDATE accelsim SET schema = 99")
    with pytest.raises(StoreError, match="schema 99"):
        Store(newer)
    with pytest.raises(StoreError, match="folder"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        Store(tmp_path / "no" / "s.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "s.db")


def test_an_unreachable_cluster_is_said_in_seconds():
    pytest.importorskip("distributed")
    start = time.monotonic()
    with pytest.raises(AccelsimError, match="no Dask scheduler answers"):
        ax.sweep("resnet18", "t4", batch=[1, 2], cluster="tcp://127.0.0.1:9")
    assert time.monotonic() - start < 30.0  # not minutes


def test_a_sweep_of_days_is_refused(monkeypatch):
    monkeypatch.setattr("accelsim.explore.sweep._predicted_s", lambda *a: 3 * 86400.0)
    with pytest.raises(AccelsimError, match=r"3\.0 days.*yes=True"):
        ax.sweep("resnet18", "t4", batch=list(range(1, 2001)))
