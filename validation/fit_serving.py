"""Fit the host constants of the serving stacks (`hwconfigs/gpu/_stacks.yaml`) on training rows.

``python validation/fit_serving.py [vllm trtllm sglang]`` prints the constants of each backend and the errors
on the training rows that the search did not see. Rows that are held out are never opened.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np

from accelsim.serving.llm.policy import Host
from accelsim.serving.llm.surface import Surface
from accelsim.validate.llm_rows import ServingRow, rows
from accelsim.validate.llm_serving import Replay, frame_of, replay, surface_of

ROWS = 80
"""Rows of the search and of the check, each."""

MOST_TOKENS = 600_000
"""Longer replays (users x tokens x rounds) are left out of the search."""

TTFT_SCALE, TPOT_SCALE = 0.35, 0.12
"""Log errors from which on a row counts little (Welsch)."""

START = (2e-4, 2e-6, 1e-3, 5e-3)
DELIVERY = {"vllm": 6.0, "trtllm": 10.0, "sglang": 30.0}
"""Where the search starts."""
FLOOR = (1e-5, 1e-7, 1e-4, 1e-3, 1.0)
STEPS = (2.0, 1.3)


def chosen(backend: str, seed: int) -> tuple[list[ServingRow], list[ServingRow]]:
    """Training rows of a backend for the search and for the check."""
    known = [r for r in rows() if r.backend == backend and not r.test and r.users * r.osl * 10 < MOST_TOKENS]
    order = np.random.default_rng(seed).permutation(len(known))
    half = min(ROWS, len(known) // 2)
    return [known[i] for i in order[:half]], [known[i] for i in order[half : 2 * half]]


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def host_of(x: Sequence[float]) -> Host:
    """Constants below their floor are none."""
    return Host(*(v if v > low else 0.0 for v, low in zip(x[:4], FLOOR)))


def replays(x: Sequence[float], held: Sequence[tuple[ServingRow, Surface]]) -> list[Replay]:
    """All rows with constants `x`."""
    return [replay(r, host_of(x), stream=max(1, round(x[4])), table=table) for r, table in held]


def loss(x: Sequence[float], held: Sequence[tuple[ServingRow, Surface]]) -> float:
    """Mean Welsch loss of both log errors."""
    total = []
    for r in replays(x, held):
        if r.reason:
            continue
        for model, measured, scale in (
            (r.ttft_s, r.row.ttft_s, TTFT_SCALE),
            (r.tpot_s, r.row.tpot_s, TPOT_SCALE),
        ):
            total.append(1.0 - math.exp(-0.5 * (math.log(model / measured) / scale) ** 2))
    return float(np.mean(total))


def search(start: Sequence[float], held: Sequence[tuple[ServingRow, Surface]]) -> list[float]:
    """Pattern search along each constant, by ever smaller factors."""
    x = list(start)
    best = loss(x, held)
    for factor in STEPS:
        moved = True
        while moved:
            moved = False
            for i in range(len(x)):
                for f in (factor, 1.0 / factor):
                    trial = [*x[:i], max(x[i] * f, 0.6 * FLOOR[i]), *x[i + 1 :]]
                    if trial[i] == x[i] or (i == 4 and round(trial[4]) == round(x[4])):
                        continue
                    value = loss(trial, held)
                    if value < best - 1e-4:
                        x, best, moved = trial, value, True
                        break
        say(f"  factor {factor}: loss {best:.4f} at {x}")
    return x


def main(backends: Sequence[str]) -> None:
    """Fit and print."""
    for backend in backends or ("vllm", "trtllm", "sglang"):
        seen, other = ([(r, surface_of(r)) for r in part] for part in chosen(backend, 1))
        say(f"{backend}: {len(seen)} rows")
        x = search((*START, DELIVERY[backend]), seen)
        frame = frame_of(replays(x, other))
        errors = frame.loc[frame["reason"] == "", ["ttft_error", "tpot_error"]]
        say(f"{backend}: {host_of(x)}, delivery {round(x[4])}")
        say(f"  unseen training rows: median APE {errors.abs().median().round(1).to_dict()}, "
              f"bias {errors.median().round(1).to_dict()}")  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
