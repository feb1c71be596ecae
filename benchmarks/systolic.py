"""Speed of the systolic models, one command: ``python benchmarks/systolic.py``.

Set ``ACCELSIM_SCALESIM_PYTHON`` to an interpreter with SCALE-Sim 3.0.0 to run it beside on the same machine;
otherwise its 205 CPU seconds for ResNet-50 on 128 x 128 (two shared cores) stand in.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import accelsim as ax
from accelsim.architectures.systolic.scalesim_files import read_config, read_topology
from accelsim.architectures.systolic.scalesim_run import run
from accelsim.report.scalesim import scalesim_run

PEER_CPU_S = 205.0
SPACE = {
    "array.rows": [16, 32, 64, 128, 256],
    "array.cols": [16, 32, 64, 128, 256],
    "array.dataflow": ["ws", "os", "is"],
    "sram.capacity": [f"{2**i} KiB" for i in range(7, 17)],
    "memory.bandwidth": [f"{12.5 * 2 ** (i / 2)} GB/s" for i in range(14)],
}
"""Array, on-chip memory and bandwidth: 10,500 designs."""

_CONFIG = """[general]
run_name = {name}
[architecture_presets]
ArrayHeight = 128
ArrayWidth = 128
IfmapSramSzkB = 4096
FilterSramSzkB = 4096
OfmapSramSzkB = 2048
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = ws
Bandwidth = 10
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 1
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 1
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
SparseRep = ellpack_block
OptimizedMapping = false
BlockSize = 8
RandomNumberGeneratorSeed = 40
[run_presets]
InterfaceBandwidth = {mode}
UseRamulatorTrace = False
"""

_PEER = """
import sys
from scalesim.scale_sim import scalesim
f = sys.argv[1]
scalesim(save_disk_space=True, verbose=False, config=f + "/CALC.cfg", topology=f + "/t.csv",
         layout=f + "/l.csv").run_scale(top_path=f + "/peer")
"""


def resnet50() -> list[tuple[int, ...]]:
    """Image side, kernel, channels, filters and stride of ResNet-50's 54 layers, padding in the image."""
    layers = [(230, 7, 3, 64, 2)]
    channels, side = 64, 56
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            layers += [(side, 1, channels, width, 1), (side + 2, 3, width, width, step)]
            if block == 0:
                layers.append((side, 1, channels, 4 * width, step))
            side = -(-side // step)
            layers.append((side, 1, width, 4 * width, 1))
            channels = 4 * width
    return [*layers, (1, 1, 2048, 1000, 1)]


def best(work: Callable[[], object], times: int) -> float:
    """Least CPU seconds of some runs, after one to warm up."""
    work()
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [f"L{i}, {s}, {s}, {k}, {k}, {c}, {n}, {t}," for i, (s, k, c, n, t) in enumerate(resnet50())]
        (folder / "t.csv").write_text("Layer, H, W, FH, FW, C, N, Stride,\n" + "\n".join(rows) + "\n")
        (folder / "l.csv").write_text(
            "\n".join(["Layer" + ", x" * 20 + ",", *(f"L{i}" + ", 1" * 20 + "," for i in range(len(rows)))])
        )
        for mode in ("CALC", "USER"):
            (folder / f"{mode}.cfg").write_text(_CONFIG.format(name=mode, mode=mode))
        peer = _peer(folder)

        def compute() -> object:
            return run(read_config(folder / "CALC.cfg"), read_topology(folder / "t.csv"))

        count = iter(range(10**6))

        def reports(mode: str) -> object:
            return scalesim_run(
                folder / f"{mode}.cfg", folder / "t.csv", None, folder / "out" / str(next(count))
            )

        for label, seconds in (
            ("unbounded: files read, cycles and accesses", best(compute, 50)),
            ("unbounded: all report files written", best(lambda: reports("CALC"), 50)),
            ("bounded bandwidth: all report files written", best(lambda: reports("USER"), 3)),
        ):
            sys.stdout.write(f"{label:<48} {1e3 * seconds:9.2f} ms CPU {peer / seconds:12,.0f} x\n")
    seconds = best(lambda: ax.simulate("resnet50", "tpu-v4", batch=8, precision="bf16"), 20)
    sys.stdout.write(f"{'physical ResNet-50 on tpu-v4, tile search':<48} {1e3 * seconds:9.2f} ms CPU\n")
    start = time.perf_counter()
    designs = list(itertools.product(*SPACE.values()))
    base = ax.load_hardware("systolic-128x128")
    devices = [base.replace(**dict(zip(SPACE, design))) for design in designs]
    study = ax.sweep("resnet50", devices, precision="int8", jobs=2, progress=False)
    wall = time.perf_counter() - start
    label = f"design sweep of {len(study.rows)} points, two workers"
    sys.stdout.write(f"{label:<48} {wall:9.2f} s wall, {os.getloadavg()[0]:.1f} tasks at work\n")


def _peer(folder: Path) -> float:
    python = os.environ.get("ACCELSIM_SCALESIM_PYTHON")
    if not python:
        return PEER_CPU_S
    before = os.times()
    subprocess.run([python, "-c", _PEER, str(folder)], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
