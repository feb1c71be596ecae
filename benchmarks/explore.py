"""How fast points are explored: ``python benchmarks/explore.py [--json] [--points 1000000]``.

Distinct points, warm, two worker processes and a store on disk. Seconds are wall-clock; "CPU" adds the
processor time of this process and its workers, which another load on the machine does not change.

Peers, per point, as published or measured on two shared cores: SCALE-Sim 3.0.0 takes 205 CPU seconds for
ResNet-50 on one array, LLMCompass 4 to 43 for one matmul, Vidur simulates 100 to 170 requests per second.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelsim as ax

GPUS = (
    "h100-sxm", "h200-sxm", "a100-sxm", "a100-40-sxm", "a100-pcie", "v100-sxm", "t4", "l4", "l40s", "a10",
    "a30", "a40", "rtx-4090", "rtx-3090", "b200", "gb200", "h100-pcie", "mi300x", "mi210", "rtx-2080-ti",
)  # fmt: skip
PRECISIONS = ("fp16", "fp32", "int8")
ARRAYS = {
    "array.rows": [32, 64, 96, 128, 192, 256],
    "array.cols": [32, 64, 96, 128, 192, 256],
    "sram.capacity": ["4 MB", "8 MB", "16 MB", "32 MB"],
    "memory.bandwidth": ["150 GB/s", "300 GB/s", "600 GB/s", "1.2 TB/s"],
    "array.dataflow": ["ws", "os", "is"],
}
SCALE_SIM_S, LLMCOMPASS_S, VIDUR_PER_S = 205.0, 4.0, 170.0
BARS = {"gpu": 10_000.0, "systolic": 1_000.0, "llama": 100.0}


def gpu(points: int) -> dict[str, Any]:
    """ResNet-50 on twenty GPUs in three formats, as many batches as it takes."""
    batches = max(1, points // (len(GPUS) * len(PRECISIONS)))
    axes = {"batch": list(range(1, batches + 1)), "precision": list(PRECISIONS)}
    return {"workload": "resnet50", "hardware": list(GPUS), **axes}


def systolic(points: int) -> dict[str, Any]:
    """ResNet-50 on arrays of many shapes, memories and dataflows."""
    return {"workload": "resnet50", "hardware": "tpu-v4i", "precision": "int8", **ARRAYS}


def llama(points: int) -> dict[str, Any]:
    """Steps of a Llama decoder: cache lengths, batches, formats, devices."""
    contexts = [128 * i for i in range(1, 11)]
    axes = {"batch": list(range(1, 26)), "precision": ["fp16", "fp8_e4m3"], "context": contexts}
    return {"workload": "llama-3.1-8b", "hardware": ["h100-sxm", "b200"], "phase": "decode", **axes}


def measured(name: str, axes: dict[str, Any]) -> dict[str, Any]:
    """One sweep with a store, run in a process of its own so that its memory is its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", json.dumps(axes), str(Path(folder) / "s.db")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    row = json.loads(done.stdout)
    return {"space": name, **row, "points_per_s": row["points"] / row["wall_s"]}


def one(axes: dict[str, Any], path: str) -> dict[str, Any]:
    small = {n: v[:2] if isinstance(v, list) else v for n, v in axes.items()}
    ax.sweep(**small, jobs=2)  # compiles, loads models and starts the workers
    start, before = time.perf_counter(), _cpu_s()
    study = ax.sweep(**axes, store=path, jobs=2)
    return {
        "points": len(study),
        "infeasible": study.infeasible,
        "wall_s": time.perf_counter() - start,
        "cpu_s": _cpu_s() - before,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "store_mb": os.path.getsize(path) / 1e6,
    }


def _cpu_s() -> float:
    """Processor time of this process and its living children [s]."""
    own = os.getpid()
    return sum(_cpu_of(pid) for pid in (own, *_children(own)))


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _fields(int(folder.name))
        if fields and int(fields[1]) == parent:
            found += [int(folder.name), *_children(int(folder.name))]
    return found


def _cpu_of(pid: int) -> float:
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _fields(pid: int) -> list[str]:
    """Fields of a process after its name: state, parent ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def rows(most: int) -> list[dict[str, Any]]:
    sizes = [n for n in (1_000, 10_000, 100_000, 1_000_000) if n <= most]
    plan: list[tuple[str, Callable[[int], dict[str, Any]], int]] = [("gpu", gpu, n) for n in sizes]
    plan += [("systolic", systolic, 0), ("llama", llama, 0)]
    found = []
    for name, space, points in plan:
        row = measured(name, space(points))
        each_s = row["cpu_s"] / row["points"]
        peer = {"systolic": SCALE_SIM_S / each_s, "gpu": LLMCOMPASS_S / each_s}
        row["over_peer"] = peer.get(name, 1.0 / each_s / VIDUR_PER_S)
        row["two_cores_per_s"] = 2.0 / each_s
        row["bar_per_s"] = BARS[name]
        found.append(row)
        if "--json" not in sys.argv:
            print(
                f"{name:<10}{row['points']:>9,} points{row['points_per_s']:>9,.0f}/s wall"
                f"{row['two_cores_per_s']:>9,.0f}/s on two cores by CPU time (bar {row['bar_per_s']:,.0f})"
                f"{row['wall_s']:>8.1f} s wall{row['cpu_s']:>8.1f} s CPU{row['peak_mib']:>7.0f} MiB"
                f"{row['store_mb']:>7.1f} MB store   {row['over_peer']:.1e} x "
                f"{ {'gpu': 'LLMCompass, one matmul', 'systolic': 'SCALE-Sim'}.get(name, 'Vidur') }",
                flush=True,
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(json.loads(given.one[0]), given.one[1])))
        return
    found = rows(given.points)
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
