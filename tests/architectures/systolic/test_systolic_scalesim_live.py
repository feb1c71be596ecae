"""SCALE-Sim 3.0.0 itself on random layers, when an interpreter that has it is named.

Set ``ACCELSIM_SCALESIM_PYTHON`` to the Python of an environment of its own (``pip install scalesim==3.0.0
numpy==1.26.4``); ``ACCELSIM_SCALESIM_LAYERS`` is how many layers to compare (default 500).
"""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from accelsim.report.scalesim import scalesim_run

PYTHON = os.environ.get("ACCELSIM_SCALESIM_PYTHON", "")
LAYERS = int(os.environ.get("ACCELSIM_SCALESIM_LAYERS", "500"))
PER_RUN = 5
PATIENCE_S = 60
REPORTS = ("COMPUTE_REPORT.csv", "BANDWIDTH_REPORT.csv", "DETAILED_ACCESS_REPORT.csv")

DRIVER = """
import sys
from scalesim.scale_sim import scalesim
folder, gemm = sys.argv[1], sys.argv[2] == "gemm"
scalesim(save_disk_space=True, verbose=False, config=folder + "/c.cfg", topology=folder + "/t.csv",
         layout=folder + "/l.csv", input_type_gemm=gemm).run_scale(top_path=folder + "/tool")
"""

CONFIG = """[general]
run_name = run
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {cols}
IfmapSramSzkB = {ifmap}
FilterSramSzkB = {filter}
OfmapSramSzkB = {ofmap}
IfmapOffset = 0
FilterOffset = {offset}
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = {write}
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = {lefts}
IfmapSRAMBankBandwidth = {left}
IfmapSRAMBankNum = {leftn}
IfmapSRAMBankPort = {leftp}
FilterCustomLayout = {rights}
FilterSRAMBankBandwidth = {right}
FilterSRAMBankNum = {rightn}
FilterSRAMBankPort = {rightp}
[sparsity]
SparsitySupport = {sparse}
SparseRep = {form}
OptimizedMapping = {rowwise}
BlockSize = {block}
RandomNumberGeneratorSeed = {seed}
[run_presets]
InterfaceBandwidth = {mode}
UseRamulatorTrace = False
"""


def _layout(r: random.Random, values: dict[str, object]) -> list[int]:
    """Custom layouts of either operand or both: 20 numbers of a layout file, and the banks that fit them."""
    x, y, c, k = (r.choice([1, 1, 2, 3, 4, 8]) for _ in range(4))
    kr, ks = (r.choice([1, 1, 2, 3]) for _ in range(2))
    left, right = x * y * c * r.choice([1, 1, 2]) + r.choice([0, 0, 3]), k * c * kr * ks
    sides = r.choice([(True, True), (True, False), (False, True)])
    values.update(mode="USER", lefts=sides[0], rights=sides[1], left=left, right=right)
    values["offset"] = r.choice([0, 10**7, r.randint(1, 10**6)])
    if values["sparse"] == "true" and not values["offset"]:
        values["offset"] = 1  # refused at 0, where the tool takes a weight for a zero
    for side, width in (("left", left), ("right", right)):
        values[side + "n"] = r.choice([d for d in range(1, width + 1) if width % d == 0])
        values[side + "p"] = r.randint(1, 3)
    whole = r.random() < 0.8  # axes of blocks outside, those inside them inside
    orders = []
    for d in (3, 4):
        axes = (
            r.sample(range(d), d) + r.sample(range(d, 2 * d), d) if whole else r.sample(range(2 * d), 2 * d)
        )
        orders += [*axes[d:], *axes[:d]]
    return [x, y, kr, ks, c, k, *orders]


def case(seed: int, folder: Path) -> str:
    """Write the files of one run: an array, a memory and layers that fit each other; returns their kind."""
    r = random.Random(seed)
    sides = [4, 8, 12, 16, 32, 64, 128, 256]
    memories = [1, 1, 2, 4, 16, 64, 256, 1024, 4096]
    sparse = r.random() < 0.15
    values = {
        "rows": r.choice(sides), "cols": r.choice(sides), "dataflow": r.choice(["ws", "os", "is"]),
        "ifmap": r.choice(memories), "filter": r.choice(memories), "ofmap": r.choice(memories),
        "write": r.randint(1, 64), "left": r.randint(1, 64), "right": r.randint(1, 64),
        "mode": r.choice(["USER", "CALC"]), "sparse": str(sparse).lower(),
        "form": r.choice(["csr", "csc", "ellpack_block"]), "rowwise": "false", "block": 8, "seed": 40,
        "lefts": False, "rights": False, "leftn": 1, "rightn": 1, "leftp": 2, "rightp": 2, "offset": 10**7,
    }  # fmt: skip
    kind = r.choice(["gemm", "conv"])
    if seed % 5 == 4:
        values.update(dataflow="ws", sparse="true", rowwise="true", seed=r.randint(0, 10**6))
        values.update(rows=r.choice([4, 8, 12, 16, 32]), cols=r.choice([4, 8, 12, 16, 32]))
        values["block"] = r.choice(
            [b for b in (2, 3, 4, 8, 16) if 2 * values["rows"] % b == 0 and b <= values["rows"]]
        )
    order = [1] * 20
    if seed % 5 == 3:
        order = _layout(r, values)
    ratio = r.choice(["1:4", "2:4", "3:4"]) if sparse else "1:1"
    rows = []
    for i in range(PER_RUN):
        if kind == "gemm":
            m, n, k = (min(r.choice([1, 3, 7, 20, 64, 150]), r.randint(1, 100)) for _ in range(3))
            rows.append(f"L{i}, {m}, {n}, {k}, {ratio},")
        else:
            kernel = r.choice([1, 1, 2, 3, 5])
            image = r.randint(kernel, 16), r.randint(kernel, 16)
            rows.append(
                f"L{i}, {image[0]}, {image[1]}, {kernel}, {kernel}, {r.randint(1, 12)}, {r.randint(1, 40)}, "
                f"{r.randint(1, 3)}, {ratio},"
            )
    header = "Layer, M, N, K, Sparsity," if kind == "gemm" else "Layer, H, W, FH, FW, C, N, S, Sparsity,"
    (folder / "c.cfg").write_text(CONFIG.format(**values))
    (folder / "t.csv").write_text("\n".join([header, *rows]) + "\n")
    layout = ["Layer" + ", x" * 20 + ",", *(f"L{i}, {', '.join(map(str, order))}," for i in range(PER_RUN))]
    (folder / "l.csv").write_text("\n".join(layout) + "\n")
    return kind


@pytest.mark.skipif(not PYTHON, reason="ACCELSIM_SCALESIM_PYTHON names no interpreter with scalesim")
@pytest.mark.parametrize("seed", range(-(-LAYERS // PER_RUN)))
def test_reports_equal_the_tool(seed: int, tmp_path: Path) -> None:
    kind = case(seed, tmp_path)
    try:
        done = subprocess.run(
            [PYTHON, "-c", DRIVER, str(tmp_path), kind],
            capture_output=True, text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"the tool took more than {PATIENCE_S} s")
    if done.returncode:
        pytest.skip(f"the tool failed: {done.stderr.strip().splitlines()[-1]}")
    files = scalesim_run(
        tmp_path / "c.cfg", tmp_path / "t.csv", tmp_path / "l.csv", tmp_path / "mine", gemm=kind == "gemm"
    )
    for name in [*REPORTS, "SPARSE_REPORT.csv"]:
        expected = tmp_path / "tool" / "run" / name
        assert expected.is_file() == (name[:-4] in files)
        if expected.is_file():
            assert files[name[:-4]].read_text() == expected.read_text(), name
