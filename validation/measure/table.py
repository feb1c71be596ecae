"""The measurement table: its columns, and a CSV file that is valid at any moment."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

SHAPE_COLUMNS = (
    *("batch", "m", "n", "k"),
    *("c_in", "c_out", "kernel_h", "kernel_w", "h", "w", "stride", "padding", "groups"),
    *("heads", "kv_heads", "head_dim", "seq_q", "seq_kv", "causal", "window"),
    *("rows", "cols", "inputs"),
)
COLUMNS = (
    *("run", "op", "precision"),
    *SHAPE_COLUMNS,
    *("latency_s", "spread_s", "q25_s", "q75_s", "repeats", "calls"),
    *("device", "backend", "version", "kernel", "includes", "flag", "conditions", "l2", "timer"),
    *("power_w", "sm_clock_hz", "memory_clock_hz", "temperature_c", "throttle", "telemetry", "time_utc"),
)


class TableError(Exception):
    """The file is not a table of this harness."""


class Table:
    """A CSV file that rows are added to, each with one write.

    Parameters
    ----------
    path : Path
        Created, or continued when it is such a table; a last line that a crash cut off is dropped.

    Raises
    ------
    TableError
    """

    def __init__(self, path: Path) -> None:
        header = _line(list(COLUMNS))
        held = path.read_bytes() if path.is_file() else b""
        whole = held[: held.rfind(b"\n") + 1]
        if whole and not whole.startswith(header):
            raise TableError(f"{path} is another table; choose another file")
        if not whole and held and not header.startswith(held):
            raise TableError(f"{path} is no table; choose another file")
        self.rows = 0
        self._file: BinaryIO = path.open("r+b" if path.is_file() else "wb", buffering=0)
        self._file.truncate(len(whole))
        self._file.seek(len(whole))
        if not whole:
            self._file.write(header)

    def add(self, row: dict[str, Any]) -> None:
        """Write one row; cells that it lacks stay empty."""
        self._file.write(_line([row.get(name, "") for name in COLUMNS]))
        self.rows += 1

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _line(cells: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([f"{c:.6g}" if isinstance(c, float) else c for c in cells])
    return text.getvalue().encode()
