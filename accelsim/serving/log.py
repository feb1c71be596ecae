"""What an engine hands back: arrays on the clock of nanoseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.serving.station import Request, Station


@dataclass(frozen=True)
class Log:
    """Outcome of every request and every execution at one station, or across stations for the requests.

    Attributes
    ----------
    arrival_ns, finish_ns : array of int64
        Entry and answer (or refusal) of each request; a request still in flight at the end has -1.
    status : array of int8
        `IN_FLIGHT`, `COMPLETED`, `REJECTED`, `TIMED_OUT`.
    execution : array of int32
        Execution of each request, -1 if none.
    start_ns, held_ns : array of int64
        By execution: start, and time until its instance was free.
    size, padded, instance : array of int32
        By execution: requests, items that were paid for, instance.
    engine : str
        ``simpy`` or ``numba``.
    """

    arrival_ns: NDArray[np.int64]
    finish_ns: NDArray[np.int64]
    status: NDArray[np.int8]
    execution: NDArray[np.int32]
    start_ns: NDArray[np.int64]
    held_ns: NDArray[np.int64]
    size: NDArray[np.int32]
    padded: NDArray[np.int32]
    instance: NDArray[np.int32]
    engine: str = "simpy"

    @classmethod
    def whole(
        cls,
        arrival_ns: NDArray[np.int64],
        finish_ns: NDArray[np.int64],
        status: NDArray[np.int8],
        engine: str,
    ) -> Log:
        """Requests that went through several stations, whose logs have the executions."""
        none, few = np.zeros(0, np.int64), np.zeros(0, np.int32)
        nowhere = np.full(len(arrival_ns), -1, np.int32)
        return cls(arrival_ns, finish_ns, status, nowhere, none, none, few, few, few, engine)

    @classmethod
    def of(cls, requests: Sequence[Request], station: Station | None) -> Log:
        """The log of a station that has run; without one, of the requests alone."""
        e = station.executions if station is not None else []
        return cls(
            np.array([r.arrival_ns for r in requests], dtype=np.int64),
            np.array([r.finish_ns for r in requests], dtype=np.int64),
            np.array([r.status for r in requests], dtype=np.int8),
            np.array([r.execution for r in requests], dtype=np.int32),
            np.array([x.start_ns for x in e], dtype=np.int64),
            np.array([x.held_ns for x in e], dtype=np.int64),
            np.array([x.size for x in e], dtype=np.int32),
            np.array([x.padded for x in e], dtype=np.int32),
            np.array([x.instance for x in e], dtype=np.int32),
        )
