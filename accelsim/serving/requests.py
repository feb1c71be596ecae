"""Requests as arrays: when each arrives and what it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError

NS_PER_S = 1_000_000_000


def to_ns(seconds: Any) -> Any:
    """Seconds as whole nanoseconds, the clock of both engines: integers make them agree to the last bit."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * NS_PER_S).astype(np.int64)


@dataclass(frozen=True)
class Requests:
    """Requests in order of arrival; every array has one entry per request, absent ones are None.

    Attributes
    ----------
    arrival_s : array
        Arrival times [s], not decreasing.
    prompt_tokens, output_tokens : array of int, optional
        Lengths of a language-model request.
    priority : array of int, optional
        1 is the highest; 0 asks for the server's default.
    timeout_s : array, optional
        Time after which a request that has not started is given up [s]; 0 is none.
    model : array of int, optional
        Index of the model that is asked for.
    sequence : array of int, optional
        Requests of one number belong together (sequence batching, sessions).
    hash_ids : sequence of tuples, optional
        Hashes of the prompt's blocks of 512 tokens, each with all before it, for prefix caches.
    prefix_tokens, prefix_group : array of int, optional
        Tokens at the beginning of the prompt that it shares with the others of its group; one group by
        default.
    """

    arrival_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64] | None = None
    output_tokens: NDArray[np.int64] | None = None
    priority: NDArray[np.int64] | None = None
    timeout_s: NDArray[np.float64] | None = None
    model: NDArray[np.int64] | None = None
    sequence: NDArray[np.int64] | None = None
    hash_ids: Sequence[tuple[int, ...]] | None = None
    prefix_tokens: NDArray[np.int64] | None = None
    prefix_group: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        late = np.flatnonzero(np.diff(self.arrival_s) < 0)
        if late.size:
            raise RequestError(
                f"request {late[0] + 1} arrives before the one in front of it", hint="sort by arrival time"
            )
        if len(self) and self.arrival_s[0] < 0:
            raise RequestError("the first request arrives before time 0")
        if self.prefix_tokens is not None:
            if self.prompt_tokens is None:
                raise RequestError("a shared prefix needs a prompt", hint="pass prompt_tokens too")
            wrong = np.flatnonzero((self.prefix_tokens < 0) | (self.prefix_tokens > self.prompt_tokens))
            if wrong.size:
                i = wrong[0]
                raise RequestError(
                    f"request {i} shares {self.prefix_tokens[i]} tokens of a prompt of "
                    f"{self.prompt_tokens[i]}"
                )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def arrival_ns(self) -> NDArray[np.int64]:
        """Arrival times on the engines' clock [ns]."""
        ns: NDArray[np.int64] = to_ns(self.arrival_s)
        return ns

    @property
    def rate_per_s(self) -> float:
        """Mean rate over the span of arrivals [1/s]; infinite when all arrive at once."""
        span = float(self.arrival_s[-1] - self.arrival_s[0]) if len(self) > 1 else 0.0
        return (len(self) - 1) / span if span > 0 else float("inf")

    def first(self, n: int) -> Requests:
        """The first `n` requests."""
        return self.take(slice(0, n))

    def take(self, index: Any) -> Requests:
        """Requests chosen by a slice, mask or index array (order of arrival is kept by the caller)."""
        chosen = {}
        for f in fields(self):
            values = getattr(self, f.name)
            if values is None:
                continue
            if isinstance(values, np.ndarray):
                chosen[f.name] = values[index]
            else:
                chosen[f.name] = [values[i] for i in np.arange(len(self))[index]]
        return replace(self, **chosen)
