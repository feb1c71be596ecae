"""Replaying recorded requests: Azure, Vidur, Mooncake and BurstGPT files, and plain arrival times."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.core.errors import ModelFileError, RequestError
from accelsim.serving.requests import Requests


@dataclass(frozen=True)
class _Form:
    """One way to write a trace: column names and how to read the clock.

    `column` names are compared in lower case. The clock is counted from the first row unless it is relative
    to the start of the trace already.
    """

    name: str
    time: str
    prompt: str
    output: str
    seconds: Callable[[str], float]
    relative: bool = False


def _moment(text: str) -> float:
    """Seconds since 1970 of a date and time; fractions beyond the microsecond count."""
    whole, dot, rest = text.strip().partition(".")
    digits, zone = rest, ""
    for mark in ("+", "-", "Z"):
        if mark in rest:
            digits, _, tail = rest.partition(mark)
            zone = "+00:00" if mark == "Z" else mark + tail
    stamp = datetime.fromisoformat(whole + (zone or "+00:00"))
    return stamp.timestamp() + (float(f"0.{digits}") if dot else 0.0)


_FORMS = (
    _Form("Azure LLM", "timestamp", "contexttokens", "generatedtokens", _moment),
    _Form("Vidur", "arrived_at", "num_prefill_tokens", "num_decode_tokens", float, relative=True),
    _Form("BurstGPT", "timestamp", "request tokens", "response tokens", float),
    _Form("plain", "arrival_s", "prompt_tokens", "output_tokens", float, relative=True),
)
_COLUMNS = {
    "priority": "priority", "model_index": "model", "sequence": "sequence", "timeout_s": "timeout_s",
    "prefix_tokens": "prefix", "prefix_group": "group",
}  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """Requests of a file, as they were recorded.

    The form is told from the header: ``TIMESTAMP,ContextTokens,GeneratedTokens`` (Azure LLM 2023),
    ``arrived_at,num_prefill_tokens,num_decode_tokens`` (Vidur), ``Timestamp,Request tokens,Response tokens``
    (BurstGPT), one JSON object a line with ``timestamp`` [ms], ``input_length``, ``output_length`` and
    ``hash_ids`` (Mooncake), or ``arrival_s`` with optional ``prompt_tokens, output_tokens, priority,
    timeout_s, sequence, prefix_tokens, prefix_group``. Files may be compressed with gzip.

    Parameters
    ----------
    path : str or Path
    speed : float
        Times are divided by this: 2 doubles the rate.
    """

    path: str | Path
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise RequestError(f"the speed of a trace must be positive, got {self.speed}")

    @cached_property
    def requests(self) -> Requests:
        """All requests of the file."""
        read = _read(Path(self.path))
        return replace(read, arrival_s=read.arrival_s / self.speed)

    @property
    def rate_per_s(self) -> float:
        """Mean rate [1/s]."""
        return self.requests.rate_per_s

    def __len__(self) -> int:
        return len(self.requests)

    def generate(self, n: int | None = None, seed: int = 0) -> Requests:
        """The first `n` requests of the file, all of them by default; the seed has nothing to decide."""
        if n is not None and n > len(self.requests):
            raise RequestError(
                f"the trace has {len(self.requests)} requests, asked for {n}",
                str(self.path),
                "ask for fewer, or leave the number out",
            )
        return self.requests if n is None else self.requests.first(n)


def _open(path: Path) -> Any:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return open(path, encoding="utf-8", newline="")
    except OSError as error:
        raise ModelFileError(f"cannot read ({error.strerror})", str(path)) from None


def _read(path: Path) -> Requests:
    with _open(path) as file:
        try:
            first = file.readline()
            lines = [first, *file]
        except (OSError, UnicodeDecodeError, EOFError) as error:
            raise ModelFileError(f"cannot read ({error})", str(path)) from None
    if first.lstrip().startswith("{"):
        return _requests(path, _mooncake(path, lines))
    header = [c.strip().lower() for c in next(csv.reader([first.lstrip("\ufeff")]), [])]
    for form in _FORMS:
        if form.time in header and (form.prompt in header or form.name == "plain"):
            return _requests(path, _table(path, form, header, lines[1:]), relative=form.relative)
    raise ModelFileError(
        "not a trace that is known",
        str(path),
        "known headers: TIMESTAMP,ContextTokens,GeneratedTokens; arrived_at,num_prefill_tokens,"
        "num_decode_tokens; Timestamp,Request tokens,Response tokens; arrival_s; Mooncake's JSON lines",
    )


def _table(path: Path, form: _Form, header: list[str], lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(csv.reader(lines), start=2):
        if not row:
            continue
        cells = dict(zip(header, row))
        try:
            item: dict[str, Any] = {"line": number, "time": form.seconds(cells[form.time])}
            for key, column in (("prompt", form.prompt), ("output", form.output)):
                if column in cells:
                    item[key] = int(float(cells[column]))
            item.update({key: float(cells[c]) for c, key in _COLUMNS.items() if c in cells})
        except (ValueError, KeyError) as error:
            raise ModelFileError(f"cannot read this row ({error})", f"{path}:{number}") from None
        yield item


def _mooncake(path: Path, lines: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield {
                "line": number,
                "time": float(row["timestamp"]) / 1e3,
                "prompt": int(row["input_length"]),
                "output": int(row["output_length"]),
                "hash_ids": tuple(row.get("hash_ids", ())),
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFileError(f"cannot read this row ({error})", f"{path}:{number}") from None


def _requests(path: Path, rows: Iterable[dict[str, Any]], relative: bool = False) -> Requests:
    held = list(rows)
    if not held:
        raise ModelFileError("the trace is empty", str(path))
    before = -np.inf
    for row in held:
        where = f"{path}:{row['line']}"
        if not np.isfinite(row["time"]) or row["time"] < (0 if relative else -np.inf):
            raise ModelFileError(f"arrival time {row['time']} makes no sense", where)
        if row["time"] < before:
            raise ModelFileError("out of order: this request arrives before the one above", where)
        before = row["time"]
        for key in ("prompt", "output"):
            if row.get(key, 0) < 0:
                raise ModelFileError(f"negative length: {key} of {row[key]} tokens", where)
        if not 0 <= row.get("prefix", 0) <= row.get("prompt", 0):
            raise ModelFileError(
                f"a prefix of {row['prefix']:g} tokens of a prompt of {row.get('prompt', 0)}", where
            )
    times = np.array([row["time"] for row in held])

    def column(key: str, kind: type) -> Any:
        return np.array([row[key] for row in held], dtype=kind) if key in held[0] else None

    return Requests(
        times if relative else times - times[0],
        column("prompt", np.int64),
        column("output", np.int64),
        column("priority", np.int64),
        column("timeout_s", np.float64),
        column("model", np.int64),
        column("sequence", np.int64),
        [row["hash_ids"] for row in held] if "hash_ids" in held[0] else None,
        column("prefix", np.int64),
        column("group", np.int64),
    )
