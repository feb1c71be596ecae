"""What the benchmarks share: times of warm calls, and a table or ``--json``."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any


def times_s(function: Callable[[], object], number: int) -> list[float]:
    """Times of calls after a first one that fills caches [s]."""
    function()
    times = []
    for _ in range(number):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def call_s(function: Callable[[], object], number: int = 7) -> float:
    """Median time of a warm call [s]."""
    return statistics.median(times_s(function, number))


def show(rows: list[dict[str, Any]], line: Callable[[dict[str, Any]], str]) -> None:
    """Print rows as JSON when the command line asks for it, else a line each."""
    print(json.dumps(rows) if "--json" in sys.argv else "\n".join(map(line, rows)))
