"""Beginnings that prompts share: how they are named, and the cache that keeps them.

A prompt is cut into pieces of `grain` tokens, a whole number of blocks. Pieces of one number have the same
tokens behind the same beginning, as a chained block hash (vLLM) or a path in a radix tree (SGLang) says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.serving.requests import Requests

LEAST_GRAIN = 16
"""Pieces are not cut finer [tokens]: SGLang's tree matches single tokens, which costs a hit 8 tokens."""

HASH_TOKENS = 512
"""Tokens that one of Mooncake's ``hash_ids`` stands for."""

Ints = npt.NDArray[np.int64]


def grain_of(block: int) -> int:
    """Tokens of a piece of a cache with such blocks."""
    return -(-LEAST_GRAIN // block) * block


@dataclass(frozen=True)
class Prefixes:
    """Shared pieces of every prompt: ``keys[begin[i] : begin[i] + count[i]]``.

    Attributes
    ----------
    keys, begin, count : array of int64
        Numbers of pieces from 0 up; requests that begin alike point to the same place or the same numbers.
    """

    keys: Ints
    begin: Ints
    count: Ints

    @property
    def pieces(self) -> int:
        """Different pieces."""
        return int(self.keys.max(initial=-1)) + 1

    def of(self, request: int) -> Sequence[int]:
        """Pieces of a request."""
        begin, count = int(self.begin[request]), int(self.count[request])
        found: list[int] = self.keys[begin : begin + count].tolist()
        return found


def prefixes_of(requests: Requests, grain: int) -> Prefixes | None:
    """What the prompts of requests share, None if nothing is known of it."""
    if requests.prompt_tokens is None or grain < 1:
        return None
    if requests.hash_ids is not None:
        return _by_hash(requests.prompt_tokens, requests.hash_ids, grain)
    if requests.prefix_tokens is not None:
        group = requests.prefix_group
        groups = np.zeros(len(requests), np.int64) if group is None else group
        return _by_group(requests.prefix_tokens, groups, grain)
    return None


def _by_group(tokens: Ints, groups: Ints, grain: int) -> Prefixes:
    """The longest beginning of a group names the pieces of all its requests."""
    place = np.unique(groups, return_inverse=True)[1]
    count = tokens // grain
    longest = np.zeros(int(place.max(initial=-1)) + 1, np.int64)
    np.maximum.at(longest, place, count)
    first = np.concatenate([[0], np.cumsum(longest)])
    return Prefixes(np.arange(first[-1]), first[:-1][place], count)


def _by_hash(prompt: Ints, ids: Sequence[tuple[int, ...]], grain: int) -> Prefixes:
    """A piece belongs to the hash in which it ends; hashes of a trace name their block with all before it."""
    every = np.concatenate([np.asarray(i, dtype=np.int64) for i in ids]) if len(ids) else np.zeros(0)
    number = np.unique(every, return_inverse=True)[1]
    lengths = np.array([len(i) for i in ids], dtype=np.int64)
    count = np.minimum(prompt, lengths * HASH_TOKENS) // grain
    begin = np.concatenate([[0], np.cumsum(count)])
    owner = np.repeat(np.arange(len(ids)), count)
    piece = np.arange(begin[-1]) - begin[owner]
    hashed = ((piece + 1) * grain - 1) // HASH_TOKENS
    within = piece - hashed * HASH_TOKENS // grain
    start = np.concatenate([[0], np.cumsum(lengths)])[owner]
    per = HASH_TOKENS // grain + 2
    return Prefixes(number[start + hashed] * per + within, begin[:-1], count)


class PrefixCache:
    """Pieces whose keys and values are on the device.

    Attributes
    ----------
    users : dict of int to int
        Running sequences that use each piece.
    idle : OrderedDict
        Pieces that nobody uses, the longest unused first.
    """

    def __init__(self) -> None:
        self.users: dict[int, int] = {}
        self.idle: OrderedDict[int, None] = OrderedDict()

    def held(self, keys: Sequence[int], most: int) -> int:
        """How many pieces in a row, from the first, are there; `most` at the most."""
        count = 0
        while count < most and keys[count] in self.users:
            count += 1
        return count

    def use(self, key: int) -> bool:
        """One more sequence uses a piece, which may be new; whether it lay idle."""
        was_idle = key in self.idle
        if was_idle:
            del self.idle[key]
        self.users[key] = self.users.get(key, 0) + 1
        return was_idle

    def leave(self, key: int) -> bool:
        """One sequence less uses a piece; whether it was the last."""
        self.users[key] -= 1
        if self.users[key]:
            return False
        self.idle[key] = None
        return True

    def evict(self) -> None:
        """Forget the piece that has not been used for the longest time."""
        key, _ = self.idle.popitem(last=False)
        del self.users[key]
