"""Sums over the kernels of systolic programs, without a word on each: what sweeps over designs need."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from accelsim.architectures.base import BatchCosts, Options, Program
from accelsim.architectures.systolic.cost import bound_parts, energy_parts, parts_of
from accelsim.architectures.systolic.lower import lower
from accelsim.architectures.systolic.nests import Nests, Totals
from accelsim.workload.graph import Graph


def cost_batches(
    sized: Callable[[int], Graph],
    device: Any,
    options: Options,
    batches: Sequence[int],
    band: tuple[float, float],
) -> BatchCosts | None:
    """See `base.CostsBatches`; `band` has the ends of the error band as factors. The analytic fidelity is not
    covered.
    """
    if options.fidelity == "analytic":
        return None
    programs = [lower(sized(batch), device, options) for batch in batches]
    found = [_sums(program) for program in programs]
    latency = np.array([f["latency"] for f in found])
    parts = dict.fromkeys(name for f in found for name in f["energy"])
    graphs = [p.graph for p in programs]

    def each(read: Callable[[Graph], float]) -> Any:
        return np.array([read(g) for g in graphs], dtype=np.float64)

    return BatchCosts(
        latency,
        band[0] * latency,
        band[1] * latency,
        {name: np.array([f["energy"][name] for f in found]) for name in parts},
        np.array([f["bound"] for f in found], dtype=object),
        each(lambda g: g.flops),
        np.array([f["dram"] for f in found]),
        np.array([p.memory_bytes for p in programs], dtype=np.float64),
        each(lambda g: g.weight_bytes),
        each(lambda g: g.kv_bytes),
        each(lambda g: g.peak_activation_bytes),
        programs[0].parameters["resources"],
    )


def _sums(program: Program) -> Mapping[str, Any]:
    """Latency [s], energy by part [J], what limits most of the time, and traffic [B] of a run."""
    nests: Nests = program.parameters["nests"]
    work: Totals = program.parameters["totals"]
    device = program.device
    parts, _, _ = parts_of(program)
    times = work.repeats
    spent = (parts.cycles / device.array.clock_hz * times).tolist()
    ports = parts.sram_bytes - parts.dram_bytes
    energies = energy_parts(device, nests, work, parts.sram_bytes, parts.dram_bytes, ports, parts.sum_bytes)
    names, rows = bound_parts(parts)
    totals: dict[int, float] = {}
    for code, own in zip(rows.tolist(), spent):
        totals[code] = totals.get(code, 0.0) + own
    return {
        "latency": math.fsum(spent) + program.host_s,
        "energy": {name: float((values * times).sum()) for name, values in energies.items()},
        "bound": names[max(totals, key=lambda code: totals[code])] if totals else "nothing",
        "dram": float((parts.dram_bytes * times).sum()),
    }
