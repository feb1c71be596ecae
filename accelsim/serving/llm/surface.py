"""Step time of a continuous batch as a cached surface: tables that the device model fills, engines read.

``lookup`` is plain arithmetic on arrays and scalars, so that both engines run the same lines, one of them
compiled.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.serving.llm.machine import Sum
from accelsim.serving.llm.work import StepWork

Array = npt.NDArray[np.float64]

CONTEXTS = np.unique(np.rint(2.0 ** np.arange(4, 18.01, 0.5)))
"""Grid of mean contexts of decoding sequences [tokens]."""

CHUNKS: Array = np.rint(2.0 ** np.arange(5, 17.01, 0.5))
"""Grid of new tokens of a prompt's chunk [tokens]; fewer take the time of the smallest, a tile of queries."""

PROMPTS: Array = 2.0 ** np.arange(0.0, 9.0)
"""Grid of chunks in a step."""

PASTS = np.array([0.0, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072])
"""Grid of cached tokens in front of a chunk [tokens]."""

PAST_BASE = 512.0


def token_grid(largest: int) -> Array:
    """Numbers of tokens at which products are costed: dense where tiles step, then 6 % apart."""
    dense = [*range(1, 17), *range(20, 64, 4), *range(64, 256, 8), *range(256, 1024, 32)]
    sparse = np.rint(1024 * 1.06 ** np.arange(0, 90) / 64) * 64
    grid = np.unique([*dense, *sparse.tolist()])
    below = grid[grid < largest]
    return np.append(below, float(largest))


@dataclass(frozen=True)
class Surface:
    """Tables of one model on one set of devices.

    Attributes
    ----------
    tokens_s, sampled_s : array
        By number of tokens in the step, and of sequences that get one [s].
    decode_s : array, (sequences + 1, contexts)
    prefill_s : array, (prompts, chunks, pasts)
        Attention [s].
    tokens_j, sampled_j, decode_j, prefill_j : array
        Dynamic energy of one device [J]; NaN where the device has no coefficients.
    work : StepWork
    """

    tokens_s: Array
    sampled_s: Array
    decode_s: Array
    prefill_s: Array
    tokens_j: Array
    sampled_j: Array
    decode_j: Array
    prefill_j: Array
    work: StepWork

    @property
    def max_tokens(self) -> int:
        return len(self.tokens_s) - 1

    @property
    def max_sequences(self) -> int:
        return len(self.sampled_s) - 1

    @property
    def tables_s(self) -> tuple[Array, Array, Array, Array]:
        return self.tokens_s, self.sampled_s, self.decode_s, self.prefill_s

    @property
    def tables_j(self) -> tuple[Array, Array, Array, Array]:
        return self.tokens_j, self.sampled_j, self.decode_j, self.prefill_j

    def step_s(
        self,
        decoding: int = 0,
        context: float = 0.0,
        chunks: int = 0,
        new_tokens: int = 0,
        past: float = 0.0,
        sampled: int | None = None,
    ) -> float:
        """Device time of a step [s].

        Parameters
        ----------
        decoding : int
            Sequences that get their next token.
        context : float
            Their mean context [tokens].
        chunks, new_tokens : int
            Chunks of prompts, and the tokens of all of them.
        past : float
            Mean cached tokens in front of a chunk.
        sampled : int, optional
            Sequences that get a token; all by default.
        """
        rows = decoding + chunks if sampled is None else sampled
        return lookup(
            *self.tables_s, decoding + new_tokens, rows, decoding, context, chunks, new_tokens, past
        )


_KEPT: OrderedDict[Any, Surface] = OrderedDict()
_MOST = 32


def surface(work: StepWork, max_tokens: int, max_sequences: int) -> Surface:
    """The surface of a model on devices; equal requests are answered from a cache."""
    m = work.machine
    key = (
        work.model, m.device.hash, m.options.stack, work.formats, work.split, work.skew,
        max_tokens, max_sequences,
    )  # fmt: skip
    if key not in _KEPT:
        _KEPT[key] = _build(work, max_tokens, max_sequences)
        if len(_KEPT) > _MOST:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(key)
    return _KEPT[key]


def _build(work: StepWork, max_tokens: int, max_sequences: int) -> Surface:
    def spread(grid: Array, cost: Sum) -> tuple[Array, Array]:
        """At every whole number, linear between grid points; nothing for nothing."""
        every = np.arange(grid[-1] + 1)
        low, high = np.interp(every, grid, cost.seconds), np.interp(every, grid, cost.joules)
        low[0] = high[0] = 0.0
        return low, high

    grid, rows = token_grid(max_tokens), token_grid(max_sequences)
    tokens_s, tokens_j = spread(grid, work.tokens(grid))
    sampled_s, sampled_j = spread(rows, work.sampled(rows))
    attention = work.decode(rows[:, None], CONTEXTS[None, :])
    decode = [
        np.stack([spread(rows, Sum(column))[0] for column in table.T], axis=1)
        for table in (attention.seconds, attention.joules)
    ]
    chunks = CHUNKS[: max(2, int(np.searchsorted(CHUNKS, max_tokens)) + 1)]
    prompts = PROMPTS[: max(2, int(np.searchsorted(PROMPTS, min(max_sequences, max_tokens))) + 1)]
    prefill = work.prefill(prompts[:, None, None], chunks[None, :, None], PASTS[None, None, :])
    return Surface(
        tokens_s,
        sampled_s,
        decode[0],
        prefill.seconds,
        tokens_j,
        sampled_j,
        decode[1],
        prefill.joules,
        work,
    )


def lookup(
    tokens_table: Any,
    sampled_table: Any,
    decode_table: Any,
    prefill_table: Any,
    tokens: int,
    sampled: int,
    decoding: int,
    context: float,
    chunks: int,
    new_tokens: int,
    past: float,
) -> float:
    """A step's sum of the four tables: bilinear in sequences and context, trilinear in logarithms for chunks.

    Contexts and chunks beyond the grid are taken along its last slope.
    """
    total = tokens_table[tokens] + sampled_table[sampled]
    if decoding > 0:
        x = 2.0 * math.log2(max(context, 16.0)) - 8.0
        i = min(int(x), decode_table.shape[1] - 2)
        low_c, high_c = round(2.0 ** (0.5 * i + 4.0)), round(2.0 ** (0.5 * i + 4.5))
        f = (max(context, 16.0) - low_c) / (high_c - low_c)
        total += decode_table[decoding, i] * (1.0 - f) + decode_table[decoding, i + 1] * f
    if chunks > 0:
        a = math.log2(chunks)
        ia = min(int(a), prefill_table.shape[0] - 2)
        b = 2.0 * math.log2(max(new_tokens / chunks, 32.0)) - 10.0
        ib = min(int(b), prefill_table.shape[1] - 2)
        fa, fb = a - ia, b - ib
        # pasts: 0, then doubling from PAST_BASE
        ic = 0
        fc = past / 512.0
        if past > 512.0:
            c = math.log2(past / 512.0)
            ic = min(int(c), prefill_table.shape[2] - 3)
            fc = past / (512.0 * 2.0**ic) - 1.0
            ic += 1
        value = 0.0
        for da in range(2):
            wa = fa if da else 1.0 - fa
            for db in range(2):
                wb = fb if db else 1.0 - fb
                low = prefill_table[ia + da, ib + db, ic]
                high = prefill_table[ia + da, ib + db, ic + 1]
                value += wa * wb * math.log(low + fc * (high - low))
        total += math.exp(value)
    return total
