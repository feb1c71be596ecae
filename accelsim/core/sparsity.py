"""N:M patterns: of every M neighbouring weights at most N are not zero."""

from __future__ import annotations

from accelsim.core.errors import RequestError


def split_pattern(pattern: str) -> tuple[int, int]:
    """N and M of a pattern such as ``2:4``.

    Raises
    ------
    RequestError
        Not two positive integers with N < M.
    """
    keep, _, block = pattern.partition(":")
    if not (keep.isdecimal() and block.isdecimal() and 0 < int(keep) < int(block)):
        raise RequestError(f"'{pattern}' is not a pattern N:M", hint="such as 2:4, with 0 < N < M")
    return int(keep), int(block)


def stored_share(pattern: str, bits: int) -> float:
    """Storage of N:M weights over dense ones: the kept values, each with its position in the block in whole
    bits.

    2:4 at 16 bits takes 0.5 (1 + 2 / 16) = 0.5625. An empty pattern is dense storage.
    """
    if not pattern:
        return 1.0
    keep, block = split_pattern(pattern)
    return keep / block * (1 + (block - 1).bit_length() / bits)
