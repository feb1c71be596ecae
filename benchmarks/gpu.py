"""How fast operators are predicted on a GPU: ``python benchmarks/gpu.py [--json]``.

One core, warm, distinct shapes. LLMCompass, the published simulator closest in accuracy, takes 4 to 43 CPU
seconds per matmul (measured on two shared cores).
"""

from __future__ import annotations

import json
import resource
import sys
import time

import numpy as np
import pandas as pd

import accelsim as ax

PEER_S = 4.0
DEVICE = "h100-sxm"


def frames(rows: int) -> dict[str, pd.DataFrame]:
    """Distinct shapes of each operator."""
    rng = np.random.default_rng(0)

    def some(low: int, high: int) -> np.ndarray:
        return rng.integers(low, high, rows)

    heads = {"heads": 32, "kv_heads": 8, "head_dim": 128, "batch": some(1, 64)}
    return {
        "gemm": pd.DataFrame({"m": some(1, 8192), "n": some(16, 16384), "k": some(16, 16384)}),
        "conv2d": pd.DataFrame(
            {"c_in": some(1, 512), "c_out": some(1, 512), "h": some(7, 224), "w": some(7, 224)}
        ).assign(kernel_h=3, kernel_w=3, padding=1),
        "attention_prefill": pd.DataFrame({**heads, "seq_q": some(1, 8192)}),
        "attention_decode": pd.DataFrame({**heads, "seq_kv": some(1, 32768)}),
    }


def main() -> None:
    found = []
    for op, shapes in frames(200_000).items():
        frame = shapes.assign(op=op, precision="fp16")
        ax.predict_ops(frame.head(100), DEVICE)
        start = time.process_time()
        ax.predict_ops(frame, DEVICE)
        rate = len(frame) / (time.process_time() - start)
        found.append({"op": op, "rows_per_s": rate, "over_peer": rate * PEER_S if op == "gemm" else None})
    frame = frames(1_000_000)["gemm"].assign(op="gemm", precision="fp16")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ax.predict_ops(frame, DEVICE)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if "--json" in sys.argv:
        print(json.dumps({"rates": found, "million_rows_mib": grown}))
        return
    for row in found:
        peer = f"  {row['over_peer']:.1e} x LLMCompass" if row["over_peer"] else ""
        print(f"{row['op']:<20}{row['rows_per_s']:>12,.0f} rows/s{peer}")
    print(f"peak memory of a million gemm rows above imports and input: {grown:.0f} MiB")


if __name__ == "__main__":
    main()
