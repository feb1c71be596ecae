"""Where points are kept: one SQLite file per study or per project.

A point's row is found by the hash of everything it depends on and by the model version, so a study resumes by
asking which of its keys are there, and a newer model keeps the older numbers beside its own. Every batch of
rows is one transaction in write-ahead mode: a killed process loses the batch in hand and nothing else, and
two processes that write the same file take turns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import AccelsimError
from accelsim.core.version import MODEL_VERSION
from accelsim.engine.answer import COLUMNS
from accelsim.explore.study import FIRST_COLUMNS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SCHEMA = 1
WAIT_S = 60.0
"""How long a writer waits for another process's transaction."""

CHUNK = 50_000
"""Rows in hand while a table is read."""

Columns = Mapping[str, Sequence[Any]]
"""Rows as columns of equal length."""


class StoreError(AccelsimError):
    """A study's file that cannot be read or written."""


class Store:
    """Rows of points by key.

    Parameters
    ----------
    path : path-like, optional
        The file, made when it is not there; without it the rows live in memory.

    Raises
    ------
    StoreError
        The file is not a store, has another schema version, or cannot be written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        where = str(self.path) if self.path else ""
        if self.path is not None and (self.path.is_dir() or not self.path.parent.is_dir()):
            what = "this is a folder, expected a file" if self.path.is_dir() else "its folder does not exist"
            raise StoreError(what, where)
        try:
            self._db = sqlite3.connect(":memory:" if self.path is None else self.path, timeout=WAIT_S)
            if self.path is not None:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")  # of two processes that make the file, one is first
                self._open(where)
        except sqlite3.Error as error:
            raise StoreError(*_told(error, where)) from None
        self._known = {row[1] for row in self._db.execute("PRAGMA table_info(points)")}

    def _open(self, where: str) -> None:
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        if not tables:
            self._db.execute("CREATE TABLE accelsim (schema INTEGER)")
            self._db.execute("INSERT INTO accelsim VALUES (?)", (SCHEMA,))
            self._db.execute(
                # Keys are random: with a table of its own only their index is written all over the place.
                "CREATE TABLE points (key BLOB, model_version TEXT, PRIMARY KEY (key, model_version))"
            )
            self._db.execute("CREATE TABLE studies (name TEXT PRIMARY KEY, document TEXT)")
            return
        if "accelsim" not in tables:
            raise StoreError("this database is not a study of accelsim", where)
        (found,) = self._db.execute("SELECT schema FROM accelsim").fetchone()
        if found != SCHEMA:
            raise StoreError(
                f"the store has schema {found}, this version reads {SCHEMA}",
                where,
                "export it with the version that wrote it, or start a new file",
            )

    # -- writing
    # ------------------------------------------------------------------------------------------------------

    def add(self, keys: Sequence[bytes], columns: Columns) -> None:
        """Keep rows; a row that is already there stays.

        Raises
        ------
        StoreError
            The disk is full, the folder is read-only, or another process holds the file for too long.
        """
        fresh = [name for name in columns if name not in self._known]
        names = ", ".join(f'"{name}"' for name in ("key", "model_version", *columns))
        marks = ", ".join("?" * (len(columns) + 2))
        rows = zip(keys, [MODEL_VERSION] * len(keys), *columns.values())
        try:
            with self._db:
                for name in fresh:
                    self._add_column(name)
                self._db.executemany(f"INSERT OR IGNORE INTO points ({names}) VALUES ({marks})", rows)
        except sqlite3.Error as error:
            raise StoreError(*_told(error, str(self.path or "memory"))) from None

    def _add_column(self, name: str) -> None:
        try:
            self._db.execute(f'ALTER TABLE points ADD COLUMN "{name}"')
        except sqlite3.OperationalError as error:
            if "duplicate column" not in str(error):  # another process was first
                raise
        self._known.add(name)

    def describe(self, name: str, document: str) -> None:
        """Keep the text that describes a study, so that a report can be made from the file alone."""
        try:
            with self._db:
                self._db.execute("INSERT OR REPLACE INTO studies VALUES (?, ?)", (name, document))
        except sqlite3.Error as error:
            raise StoreError(*_told(error, str(self.path or "memory"))) from None

    @property
    def studies(self) -> dict[str, str]:
        """Descriptions of the studies kept here, by name, the newest last."""
        return dict(self._db.execute("SELECT name, document FROM studies ORDER BY rowid"))

    # -- reading
    # ------------------------------------------------------------------------------------------------------

    def missing(self, keys: Iterable[bytes], version: str = MODEL_VERSION) -> list[int]:
        """Positions of the keys that have no row of a model version."""
        self._want(keys)
        query = (
            "SELECT position FROM wanted WHERE NOT EXISTS "
            "(SELECT 1 FROM points WHERE points.key = wanted.key AND model_version = ?) ORDER BY position"
        )
        return [row[0] for row in self._db.execute(query, (version,))]

    def frame(self, keys: Iterable[bytes] | None = None, version: str = MODEL_VERSION) -> pd.DataFrame:
        """Rows as a table: those of the keys, in their order, or all rows of a model version."""
        names = _ordered(row[1] for row in self._db.execute("PRAGMA table_info(points)"))
        fields = ", ".join(f'points."{name}"' for name in names) or "points.key"
        if keys is None:
            query = f"SELECT {fields} FROM points WHERE model_version = ? ORDER BY key"
        else:
            self._want(keys)
            query = (
                f"SELECT {fields} FROM wanted JOIN points ON points.key = wanted.key "
                "WHERE model_version = ? ORDER BY wanted.position"
            )
        return _table(names, self._db.execute(query, (version,)))

    @property
    def versions(self) -> dict[str, int]:
        """Rows by model version."""
        return dict(self._db.execute("SELECT model_version, count(*) FROM points GROUP BY model_version"))

    def _want(self, keys: Iterable[bytes]) -> None:
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (position INTEGER PRIMARY KEY, key BLOB)")
        with self._db:
            self._db.execute("DELETE FROM wanted")
            self._db.executemany("INSERT INTO wanted VALUES (?, ?)", enumerate(keys))

    def close(self) -> None:
        self._db.close()


def _told(error: sqlite3.Error, where: str) -> tuple[str, str, str]:
    """What, where and hint of a database error."""
    text = str(error)
    if "full" in text:
        return (
            "the disk is full; the rows kept before are intact",
            where,
            "free space, then run again to resume",
        )
    if "readonly" in text or "unable to open" in text:
        return f"cannot write the study ({text})", where, "choose a folder that you can write to"
    if "locked" in text:
        return (
            "another process has been writing this study for too long",
            where,
            "wait for it, or use another file",
        )
    if "not a database" in text or "malformed" in text:
        return f"not a usable study ({text})", where, ""
    return f"the study cannot be used ({text})", where, ""


def _ordered(names: Iterable[str]) -> list[str]:
    """Columns in the order of answers, whichever was kept first; others follow by name."""
    place = {name: i for i, name in enumerate(dict.fromkeys((*FIRST_COLUMNS, *COLUMNS)))}
    columns = [name for name in names if name not in ("key", "model_version")]
    return sorted(columns, key=lambda name: (place.get(name, len(place)), name))


def _table(names: Sequence[str], cursor: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Rows as a table with one dtype per column, a chunk of rows in hand at a time."""
    import numpy as np
    import pandas as pd

    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    held: dict[str, str] = {}
    for chunk in _chunks(cursor):
        for name, values in zip(names, zip(*chunk)):
            parts[name].append(_array(values, held))
    columns = {}
    for name, arrays in parts.items():
        if any(a.dtype == object for a in arrays):
            arrays = [a.astype(object) for a in arrays]
        columns[name] = np.concatenate(arrays) if arrays else np.zeros(0)
        parts[name] = []
    return pd.DataFrame(columns, copy=False)


def _chunks(cursor: Any) -> Iterator[list[Sequence[Any]]]:
    while chunk := cursor.fetchmany(CHUNK):
        yield chunk


def _array(values: Sequence[Any], held: dict[str, str]) -> np.ndarray:
    import numpy as np

    kinds = set(map(type, values))
    if kinds == {int}:
        return np.array(values, dtype=np.int64)
    if kinds <= {int, float, type(None)}:
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    text = np.empty(len(values), dtype=object)
    text[:] = [np.nan if v is None else held.setdefault(v, v) if isinstance(v, str) else v for v in values]
    return text
