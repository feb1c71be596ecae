"""How fast the FPGA models are, in one command: ``python benchmarks/fpga.py [--json]``.

Medians of several warm runs on this machine, beside the project's own targets; nothing fails here.
"""

from __future__ import annotations

import numpy as np
from timing import call_s, show

import accelsim as ax
from accelsim.architectures.base import Options
from accelsim.architectures.fpga import ARCHITECTURE, design, fifo, folding
from accelsim.architectures.fpga.resources import Budget
from accelsim.core.precision import plan
from accelsim.techniques.precision import with_precision

CANDIDATES = 1_000_000


def cold_search_s(workload: str, device: str) -> float:
    """Lowering with the caches of designs and foldings emptied; numba kernels are compiled [s]."""
    graph = with_precision(ax.load_workload(workload), plan("int8"))
    board = ax.load_hardware(device)

    def search() -> None:
        for cache in (
            design._candidates,
            design._simulated,
            design._built,
            folding.plans,
            folding._table,
            folding._space,
            fifo._depths,
        ):
            cache.cache_clear()
        ARCHITECTURE.lower(graph, board, Options())

    return call_s(search, 3)


def candidates_per_s(workload: str, device: str) -> float:
    """Folded designs whose interval and fit are found in a second on one core."""
    board = ax.load_hardware(device)
    graph = ax.load_workload(workload)
    stages = design._network(design.Point(graph, board)).stages
    technology = board.fabric.technology
    sizes = [len(folding._table(s.unit, technology).every) for s in stages]
    choices = np.random.default_rng(0).integers(0, sizes, (CANDIDATES, len(stages)))
    budget = Budget.of(board.fabric)
    return CANDIDATES / call_s(lambda: folding.scored(stages, choices, budget, technology), 3)


def feasibility_s(workload: str, device: str, pairs: list[tuple[int, int]]) -> float:
    """One design point, another one each time so that no cache answers: fits, or what overflows [s]."""
    boards = iter([ax.load_hardware(device).replace(**{"fabric.lut": 200000 + i}) for i in range(50)])
    graph = ax.load_workload(workload)
    return call_s(lambda: ARCHITECTURE.lower(graph, next(boards), Options(folding=pairs)), 30)


def figures() -> list[dict[str, object]]:
    vgg10 = [(32, 6), (16, 96), (8, 96), (4, 96), (2, 96), (1, 96), (1, 96), (2, 32), (1, 32), (1, 8)]
    rows = [
        ("folding search, resnet50 int8 on u250-finn [s]", cold_search_s("resnet50", "u250-finn"), 2.0),
        (
            "pipelines in turn, resnet50 int8 on zcu104-finn [s]",
            cold_search_s("resnet50", "zcu104-finn"),
            None,
        ),
        (
            "design point, finn-vgg10 on zcu104-finn [s]",
            feasibility_s("finn-vgg10", "zcu104-finn", vgg10),
            0.01,
        ),
        ("design candidates per second, finn-cnv", candidates_per_s("finn-cnv", "pynq-z2-finn"), 1e6),
        (
            "simulate resnet50 on zcu104-dpu, warm [s]",
            call_s(lambda: ax.simulate("resnet50", "zcu104-dpu")),
            None,
        ),
    ]
    return [{"what": what, "value": value, "target": target} for what, value, target in rows]


def line(row: dict[str, object]) -> str:
    target = f"target {row['target']:g}" if row["target"] else ""
    return f"{row['what']:<55}{row['value']:>16,.6g}  {target}"


if __name__ == "__main__":
    show(figures(), line)
