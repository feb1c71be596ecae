"""Timing one call: many calls back to back as one CUDA graph, with a chosen state of the L2 before them."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measure.kernels import Case

STATES = ("warm", "cycled", "cold")
"""States of the L2: the same operands again and again; weights in turn from several copies, as in a network
whose layers follow each other, and the same activations; only operands that the L2 has been cleared of.
"""

CYCLED_COPIES = 6
FEWEST_REPEATS, MOST_REPEATS = 5, 200
MOST_CALLS = 500
# Seconds that one replay lasts by the first estimate. Starting a graph takes some microseconds: below 1 %.
_SPAN_S = 2e-3
_PILOT_CALLS, _SHORT_S = 20, 1e-3
_FLUSH_FACTOR = 2
_UNKNOWN_CACHE_BYTES = 128 << 20


class TooSlowError(Exception):
    """What is left of the budget is too short for the fewest repeats."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Calls that are ready to be timed.

    Attributes
    ----------
    replay : callable
        Runs all the calls.
    flush : callable
        Runs before each replay, untimed.
    repeats : int
        Replays to time.
    calls : int
        Calls in a replay.
    operands : list of tuple of Tensor
        Copies of the operands that the calls take in turn; a graph does not keep them alive.
    timer : str
        ``graph``, ``stream`` (launched one by one, timed with events) or ``host`` (a CPU's own clock).
    """

    replay: Callable[[], None]
    flush: Callable[[], None]
    repeats: int
    calls: int
    operands: list[tuple[torch.Tensor, ...]]
    timer: str


class Timer:
    """Times calls on a device.

    Parameters
    ----------
    device : torch.device
    row_s : float
        Time to spend on the repeats of one row [s].

    Attributes
    ----------
    cache_bytes : int
        Size of the last cache before memory [B].
    graph_failure : str
        Why a call could not be captured as a graph, the last time.
    """

    def __init__(self, device: torch.device, row_s: float) -> None:
        self.device = device
        self.row_s = row_s
        self.cuda = device.type == "cuda"
        self.cache_bytes = _cache_bytes(device)
        self.graph_failure = ""
        self._flush = torch.zeros(_FLUSH_FACTOR * self.cache_bytes // 4, device=device)

    def prepare(self, case: Case, state: str, left_s: float) -> Loop:
        """Operand copies and a warmed-up loop that leaves the L2 in `state`.

        Parameters
        ----------
        case : Case
        state : str
            One of `STATES`.
        left_s : float
            What is left of the budget [s].

        Raises
        ------
        TooSlowError
        """
        pilot_s, result_bytes = self._pilot(case)
        calls = min(MOST_CALLS, max(1, math.ceil(_SPAN_S / pilot_s)))
        sets, calls = self._operand_sets(case, state, calls, result_bytes)
        if pilot_s * calls * (FEWEST_REPEATS + 2) > left_s:
            raise TooSlowError(f"{pilot_s:.2g} s per call")
        # Results stay alive through a cold replay, so that none is written where an earlier one lies.
        kept: deque[Any] = deque(maxlen=len(sets) if state == "cold" else 1)
        replay, timer = self._replay(case.call, sets, calls, kept)
        flush = self._read_flush if state == "cold" else _nothing
        start = time.perf_counter()
        self._durations(replay, flush, 1)
        each_s = time.perf_counter() - start
        repeats = min(MOST_REPEATS, max(FEWEST_REPEATS, int(min(self.row_s, left_s) / each_s)))
        return Loop(replay, flush, repeats, calls, sets, timer)

    def samples_s(self, loop: Loop) -> np.ndarray:
        """Mean duration of a call in each replay of the loop [s]."""
        return np.array(self._durations(loop.replay, loop.flush, loop.repeats)) / loop.calls

    def _pilot(self, case: Case) -> tuple[float, int]:
        """Duration of a call with its launch [s] and size of its result [B], after a call in which libraries
        choose their algorithms.
        """
        case.call(*case.operands)
        self._wait()
        for count in (1, _PILOT_CALLS):
            start = time.perf_counter()
            for _ in range(count):
                result = case.call(*case.operands)
            self._wait()
            each_s = max((time.perf_counter() - start) / count, 1e-7)
            if each_s > _SHORT_S:
                break
        return each_s, result.nbytes

    def _operand_sets(
        self, case: Case, state: str, calls: int, result_bytes: int
    ) -> tuple[list[tuple[torch.Tensor, ...]], int]:
        """Copies of the operands that the calls take in turn, and how many calls they allow."""
        if state == "warm":
            return [case.operands], calls
        if state == "cycled":
            weights = sum(case.operands[i].nbytes for i in case.weights)
            count = min(CYCLED_COPIES, self._copies_beyond(weights))
            others = [
                tuple(t.clone() if i in case.weights else t for i, t in enumerate(case.operands))
                for _ in range(count - 1)
            ]
            return [case.operands, *others], count * math.ceil(calls / count)
        own = sum(t.nbytes for t in case.operands) + result_bytes
        beyond = self._copies_beyond(own)
        possible = max(1, int(0.5 * self._free_bytes() / own))
        count = min(calls, beyond, possible)
        if count < beyond:  # a copy that comes around again may still be in the cache
            calls = count
        copies = [tuple(t.clone() for t in case.operands) for _ in range(count - 1)]
        return [case.operands, *copies], calls

    def _copies_beyond(self, size_bytes: int) -> int:
        """Copies of that size that the cache cannot hold together."""
        return math.ceil(_FLUSH_FACTOR * self.cache_bytes / size_bytes) + 1

    def _replay(
        self,
        call: Callable[..., torch.Tensor],
        sets: list[tuple[torch.Tensor, ...]],
        calls: int,
        kept: deque[Any],
    ) -> tuple[Callable[[], None], str]:
        def run() -> None:
            for i in range(calls):
                kept.append(call(*sets[i % len(sets)]))

        if not self.cuda:
            return run, "host"
        try:
            side = torch.cuda.Stream(self.device)
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                call(*sets[0])  # libraries allocate their workspace of this stream before the capture
            torch.cuda.current_stream(self.device).wait_stream(side)
            self._wait()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=side):
                run()
            graph.replay()
            self._wait()
            return graph.replay, "graph"
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.graph_failure = str(error).strip().splitlines()[0][:200]
            kept.clear()
            self._wait()
            run()
            return run, "stream"

    def _durations(self, replay: Callable[[], None], flush: Callable[[], None], repeats: int) -> list[float]:
        """Durations of replays [s]."""
        if not self.cuda:
            found = []
            for _ in range(repeats):
                flush()
                start = time.perf_counter()
                replay()
                found.append(time.perf_counter() - start)
            return found
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for before, after in events:
            flush()
            before.record()
            replay()
            after.record()
        self._wait()
        return [before.elapsed_time(after) * 1e-3 for before, after in events]

    def _read_flush(self) -> None:
        """Read a buffer larger than the cache; lines that are only read need no write-back when they go."""
        self._flush.sum()

    def _free_bytes(self) -> float:
        if self.cuda:
            torch.cuda.empty_cache()  # what torch holds in reserve counts as free
            return float(torch.cuda.mem_get_info(self.device)[0])
        return 1e9

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)


def _nothing() -> None:
    return


def _cache_bytes(device: torch.device) -> int:
    """Size of the last cache before memory [B]."""
    if device.type == "cuda":
        found = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        return int(found) or _UNKNOWN_CACHE_BYTES
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text.removesuffix("K")) << 10
    except (OSError, ValueError):
        return 32 << 20
