"""How fast casts run, beside ml_dtypes, in one command: ``python benchmarks/numerics.py [--json]``.

One core, contiguous float32 in, codes or float32 out, best of several warm runs.
"""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
from timing import show, times_s

from accelsim.techniques.numerics import cast, fake_quantise

VALUES = 8_000_000
REPEATS = 7
TARGET = 200.0

CASTS = {
    "int8": np.int8,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp4": ml_dtypes.float4_e2m1fn,
    "bf16": ml_dtypes.bfloat16,
}
QUANTISED = ("int8", "fp8_e4m3", "mxfp8", "mxfp4", "nvfp4")


def rate(function: Callable[[], object]) -> float:
    """Values per second in millions."""
    return VALUES / min(times_s(function, REPEATS)) / 1e6


def theirs(x: np.ndarray, name: str) -> Callable[[], object]:
    """The same cast by ml_dtypes; integers are scaled, rounded and clipped by numpy before."""
    if name == "int8":
        return lambda: np.clip(np.rint(x * np.float32(30.0)), -128, 127).astype(np.int8)
    return lambda: x.astype(CASTS[name])


def figures() -> list[dict[str, object]]:
    x = np.random.default_rng(0).standard_normal(VALUES).astype(np.float32)
    rows: list[dict[str, object]] = []
    for name in CASTS:
        mine = rate(lambda name=name: cast(x, name, scale=1 / 30 if name == "int8" else 1.0))
        target = TARGET if name in ("int8", "fp8_e4m3", "fp8_e5m2", "fp4") else None
        rows.append(
            {"what": f"cast to {name}", "value": mine, "ml_dtypes": rate(theirs(x, name)), "target": target}
        )
    for name in QUANTISED:
        mine = rate(lambda name=name: fake_quantise(x, name))
        rows.append(
            {"what": f"quantise to {name} and back", "value": mine, "ml_dtypes": None, "target": None}
        )
    return rows


def line(row: dict[str, object]) -> str:
    beside = f"ml_dtypes {row['ml_dtypes']:6,.0f}" if row["ml_dtypes"] else ""
    target = f"target {row['target']:g}" if row["target"] else ""
    return f"{row['what']:<34}{row['value']:>8,.0f} M values/s  {beside:<18}{target}"


if __name__ == "__main__":
    show(figures(), line)
