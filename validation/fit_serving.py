"""Fit the host constants of the serving stacks (`hwconfigs/gpu/_stacks.yaml`) on training rows.

``python validation/fit_serving.py [vllm trtllm sglang]`` prints the constants of each backend and the errors
on the training rows of the fit. Rows that are held out are never replayed.

Each row is replayed at a base point, with a few values of `delivery_tokens`, and with each host constant
moved; between these the answers are taken as linear, so the search itself replays nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from accelsim.serving.llm.policy import Host
from accelsim.validate.llm_rows import ServingRow, rows
from accelsim.validate.llm_serving import replay

Array = npt.NDArray[np.float64]

ROWS, SEED = 130, 5
MOST_TOKENS = 130_000
"""Rows with more users x output tokens take too long for a fit."""

BASE = Host(1e-4, 1e-6, 1e-4, 0.0)
MOVED = (5e-4, 2e-5, 3e-3)
"""By how much step, sequence and prompt constants are moved [s]."""

DELIVERY = (1, 5, 10, 20, 40)
STARTS = {"vllm": (4, 5, 6), "trtllm": (5, 7, 9, 11), "sglang": (16, 20, 24, 28)}
"""Values of `delivery_tokens` that are tried."""

SCALES = (0.35, 0.12)
"""Log errors of TTFT and TPOT from which on a row counts little (Welsch)."""


@dataclass(frozen=True)
class Answers:
    """Replays of the rows of a fit; axis 0 is the row, axis 1 of `delivered` and `moved` the point, the last
    axis TTFT and TPOT [s].
    """

    measured: Array
    output: Array
    delivered: Array
    moved: Array

    def at(self, x: Sequence[float]) -> Array:
        """TTFT and TPOT with step, sequence, prompt and request constants [s], and delivery tokens."""
        tokens = x[4]
        i = min(int(np.searchsorted(DELIVERY, tokens, side="right")) - 1, len(DELIVERY) - 2)
        share = (tokens - DELIVERY[i]) / (DELIVERY[i + 1] - DELIVERY[i])
        held = self.delivered[:, i] * (1 - share) + self.delivered[:, i + 1] * share
        base = self.delivered[:, 0]
        weights = [(v - b) / d for v, b, d in zip(x, BASE, MOVED)]
        change = sum(w * (self.moved[:, k] - base) for k, w in enumerate(weights))
        first = held[:, 0] + change[:, 0] + (np.minimum(tokens, self.output) - 1) * change[:, 1] + x[3]
        return np.stack([first, held[:, 1] * (1 + change[:, 1] / base[:, 1])], axis=1)

    def loss(self, x: Sequence[float]) -> float:
        """Mean Welsch loss of both log errors."""
        error = np.log(np.maximum(self.at(x), 1e-6) / self.measured) / np.array(SCALES)
        return float(np.mean(1.0 - np.exp(-0.5 * error**2)) * 2)


def training(backend: str) -> list[ServingRow]:
    """Rows of the fit."""
    known = [r for r in rows() if r.backend == backend and not r.test and r.users * r.osl < MOST_TOKENS]
    order = np.random.default_rng(SEED).permutation(len(known))[:ROWS]
    return sorted((known[i] for i in order), key=lambda r: (r.config, r.device, str(r.formats), str(r.split)))


def answers(held: Sequence[ServingRow]) -> Answers:
    """Replay every row at every point."""
    measured, output, delivered, moved = [], [], [], []
    for row in held:

        def ask(host: Host = BASE, tokens: int = 1, row: ServingRow = row) -> tuple[float, float]:
            found = replay(row, host, stream=tokens)
            return found.ttft_s, found.tpot_s

        if np.isnan(ask()[0]):
            continue
        measured.append((row.ttft_s, row.tpot_s))
        output.append(float(row.osl))
        delivered.append([ask(tokens=n) for n in DELIVERY])
        steps = zip(("step_s", "sequence_s", "prompt_s"), BASE, MOVED)
        moved.append([ask(BASE._replace(**{name: b + d})) for name, b, d in steps])
    return Answers(*(np.array(v) for v in (measured, output, delivered, moved)))


def fit(found: Answers, tokens: Sequence[int]) -> list[float]:
    """Constants with the least loss."""
    unit = np.array([1e-3, 1e-5, 1e-3, 1e-3])
    best, least = [], np.inf
    for n in tokens:
        done = minimize(
            lambda u, n=n: found.loss([*(np.abs(u) * unit), n]), (0.5, 0.5, 3.0, 2.0), method="Nelder-Mead",
            options={"maxiter": 120, "xatol": 1e-2, "fatol": 1e-4},
        )  # fmt: skip
        if done.fun < least:
            best, least = [*(np.abs(done.x) * unit).tolist(), float(n)], done.fun
    return best


def main(backends: Sequence[str]) -> None:
    """Fit and print."""
    for backend in backends or tuple(STARTS):
        found = answers(training(backend))
        x = fit(found, STARTS[backend])
        error = 100 * (found.at(x) / found.measured - 1)
        medians = [f"{v:.1f}" for v in (*np.median(np.abs(error), axis=0), *np.median(error, axis=0))]
        host = ", ".join(f"{v:.3g}" for v in x)
        sys.stdout.write(
            f"{backend}: step, sequence, prompts, request [s], delivery: {host}; {len(error)} rows, median "
            f"APE of TTFT and TPOT {medians[0]}, {medians[1]} %, bias {medians[2]}, {medians[3]} %\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
