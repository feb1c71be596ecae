"""Time and tokens of one step: plain arithmetic that the readable engine runs and the fast one compiles."""

from __future__ import annotations

import math
from typing import Any

GRAPH_STEP = 8
"""Batch sizes of recorded graphs: 1, 2, 4, then multiples of eight (vLLM and SGLang, recalled)."""

BIN = math.log(1.02)
"""Width of a bin of gaps between tokens, in logarithms."""

BINS = 2048


def padded(tokens: int, largest: int) -> int:
    """Tokens of the recorded graph that a step of decoding runs."""
    if tokens <= 2 or tokens > 512:
        return tokens
    size = 4 if tokens <= 4 else (tokens + GRAPH_STEP - 1) // GRAPH_STEP * GRAPH_STEP
    return min(size, largest)


def accepted(request: int, emitted: int, drafts: int, acceptance: float) -> int:
    """Drafts accepted in a row: a hash of request and position (Weyl steps and a mixer of 32 bits) stands for
    the coin, so that the answer does not depend on what else runs.
    """
    count = 0
    for i in range(drafts):
        x = (request * 2654435761 + (emitted + i) * 40503 + 12345) & 0xFFFFFFFF
        x = ((x ^ (x >> 16)) * 73244475) & 0xFFFFFFFF
        x = ((x ^ (x >> 16)) * 73244475) & 0xFFFFFFFF
        x = x ^ (x >> 16)
        if x >= acceptance * 4294967296.0:
            break
        count += 1
    return count


def gap_bin(gap_ns: int) -> int:
    """Bin of a gap between two tokens of a sequence."""
    return min(int(math.log(max(gap_ns, 1)) / BIN), BINS - 1)


def with_host(host: Any, device_s: float, sequences: int, prompts: bool) -> float:
    """Time of a step [s]: what the device takes and what the host adds (`policy.Host`)."""
    seconds: float = device_s + host.step_s + host.sequence_s * sequences
    if prompts:
        seconds += host.prompt_share * device_s + host.prompt_s
    return seconds
