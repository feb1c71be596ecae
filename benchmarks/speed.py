"""How fast accelsim is, in one command: ``python benchmarks/speed.py [--json]``.

Each figure is the median of several runs on this machine; whole processes use a filled numba cache. Targets
are printed beside the figures; nothing fails here.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from timing import call_s, show

REPEATS = 7

TRADEOFFS = """
import accelsim as ax
for model in ("resnet50", "bert-base", "llama-3.1-8b", "lstm-1024", "finn-cnv"):
    ax.tradeoff(model, ["h100-sxm", "t4", "tpu-v4", "edge-tpu", "zcu104-finn", "zcu104-dpu"])
"""


def process_s(*arguments: str, repeats: int = REPEATS) -> float:
    """Median wall time of a Python process [s]."""
    command = [sys.executable, *arguments]
    return call_s(lambda: subprocess.run(command, capture_output=True, check=True), repeats)


def import_s() -> float:
    """Time that ``import accelsim`` adds to a bare interpreter, as ``-X importtime`` reports it [s]."""
    times = []
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", "import accelsim"],
            capture_output=True,
            text=True,
            check=True,
        )
        line = next(row for row in done.stderr.splitlines() if row.endswith("| accelsim"))
        times.append(int(line.split("|")[1]) / 1e6)
    return statistics.median(times)


def figures() -> list[dict[str, object]]:
    import accelsim as ax

    rows: list[tuple[str, float, float | None]] = [
        ("import accelsim", import_s(), 0.3),
        (
            "accelsim run resnet50, whole process",
            process_s("-m", "accelsim.cli", "run", "resnet50", "-d", "h100-sxm"),
            4.0,
        ),
        (
            "trade-off tables, 5 models on 6 devices, whole process",
            process_s("-c", TRADEOFFS, repeats=3),
            10.0,
        ),
    ]
    for device in ("h100-sxm", "tpu-v4", "zcu104-dpu", "u250-finn"):
        seconds = call_s(lambda device=device: ax.simulate("resnet50", device, precision="int8"), 20)
        rows.append(
            (f"simulate resnet50 on {device}, warm", seconds, 0.005 if device == "h100-sxm" else None)
        )
    event = call_s(lambda: ax.simulate("resnet50", "tpu-v4", precision="int8", fidelity="event"), 20)
    rows.append(("simulate resnet50 on tpu-v4, event, warm", event, None))
    decode = call_s(
        lambda: ax.simulate("llama-3.1-70b", "h100-sxm", phase="decode", context=4096, devices=8), 20
    )
    rows.append(("simulate llama-3.1-70b decode on 8 h100-sxm, warm", decode, None))
    if find_spec("onnx"):
        from accelsim.workload.onnx import from_onnx

        folder = Path(str(find_spec("onnx").origin)).parent / "backend/test/data/light"  # type: ignore[union-attr]
        rows.append(
            ("import light_resnet50.onnx", call_s(lambda: from_onnx(folder / "light_resnet50.onnx"), 5), None)
        )
    return [{"what": what, "seconds": seconds, "target_s": target} for what, seconds, target in rows]


def line(row: dict[str, object]) -> str:
    target = f"target {row['target_s']} s" if row["target_s"] else ""
    return f"{row['what']:<55}{row['seconds']:>12.6f} s  {target}"


if __name__ == "__main__":
    show(figures(), line)
