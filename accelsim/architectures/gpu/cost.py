"""Cost of a lowered program.

One numba kernel costs products and streams, one attention; collectives have closed forms of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.architectures.base import BOUNDS, STALLS, KernelCost, Program
from accelsim.architectures.gpu import attention_rows as A
from accelsim.architectures.gpu import power
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention import run_kernel
from accelsim.architectures.gpu.finish import of_device, timed
from accelsim.architectures.gpu.lower import Plan, as_arrays
from accelsim.architectures.gpu.moe import grouped_line
from accelsim.architectures.gpu.tiles import (
    SPLITS,
    TILES,
    half_rate,
    port_scale,
    shared_loads,
    switched_j,
    voltage,
)
from accelsim.core.units import si

SPLIT_ARRAY = np.array(SPLITS, dtype=np.float64)


def device_array(device: Any) -> np.ndarray:
    """The numbers of a device that the numba kernel reads, in its order."""
    sm, memory, l2, power = device.sm, device.memory, device.l2, device.power
    headroom_w = max(0.0, (power.tdp_w or 0.0) - (power.idle_w or 0.0))
    values = [sm.count, memory.bandwidth_bytes_per_s, memory.latency_s, l2.capacity_bytes]
    values += [l2.bandwidth_bytes_per_s, l2.latency_s, headroom_w, memory.efficiency, half_rate(device)]
    values += [shared_loads(device), port_scale(device), switched_j(device), voltage(device)[1]]
    return np.array(values, dtype=np.float64)


def evaluate(plan: Plan, device: Any, governor: bool) -> np.ndarray:
    """Rows of the plan costed by the numba kernel, shape (rows, `OUT_WIDTH`)."""
    from accelsim.architectures.gpu.sm import cost_rows

    rows, tables = as_arrays(plan, device)
    out = np.zeros((len(rows), R.OUT_WIDTH))
    numbers = device_array(device)
    cost_rows(rows, tables, SPLIT_ARRAY, numbers, device.kernels.product.array, governor, out)
    for position, model in plan.constants.items():
        at = slice(position, position + 1)
        cost_rows(rows[at], tables, SPLIT_ARRAY, numbers, model.array, governor, out[at])
    return out


def cost(program: Program) -> tuple[KernelCost, ...]:
    """Cost of each kernel at the program's fidelity."""
    plan: Plan = program.parameters["plan"]
    writer = _Writer.of(program)
    count = range(len(program.kernels))
    if program.options.fidelity == "analytic":
        return tuple(_analytic(program, plan, writer, i) for i in count)
    lines = evaluate(plan, program.device, program.options.governor).tolist()
    rows_of: dict[int, list[int]] = {}
    for position, index in enumerate(plan.owner):
        rows_of.setdefault(index, []).append(position)
    for index, model in plan.grouped.items():
        at = rows_of[index][0]
        lines[at] = grouped_line(plan.rows[at], model, program.device, program.options.governor)
    attention = dict(zip(plan.attention, _attention_lines(plan, program.device)))
    candidates: list[_Candidate] = []
    for i in count:
        if i in plan.attention:
            candidates.append(_attention(attention[i], plan, i))
        elif i not in plan.link:
            candidates += _rows(lines, rows_of[i], plan, i)
    found = {i: _link(program, plan, writer, i) for i in plan.link}
    for candidate, one in zip(candidates, writer.finish(candidates, plan)):
        best = found.get(candidate.kernel)
        if best is None or one.latency_s < best.latency_s:
            found[candidate.kernel] = one
    return tuple(found[i] for i in count)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to run a kernel: its summed output columns of `rows`, and its launches."""

    kernel: int
    clock: float
    sums: list[float]
    launches: float
    mapping: str


@dataclass(frozen=True, slots=True)
class _Writer:
    """What is the same for every kernel of a program, and the last step from durations to a `KernelCost`."""

    launch_s: float
    host_s: float
    device: Any
    cap: bool

    @classmethod
    def of(cls, program: Program) -> _Writer:
        device: Any = program.device
        return cls(*of_device(device, program.options.stack), device, program.options.governor)

    def energy(self, plan: Plan, index: int, dram: float, l2: float, taken_s: float) -> dict[str, float]:
        """Energy above idle by part [J], the L2 as ``sram``; NaN where the device file has no coefficient."""
        found = power.coefficients(self.device, plan.families[index])
        work = (plan.flops[index], plan.vector_ops[index], dram, l2)
        return found.parts(power.mac_j(self.device, plan.names[index]), work, taken_s, self.cap)

    def finish(self, candidates: list[_Candidate], plan: Plan) -> Iterator[KernelCost]:
        """Add launches and the host, and name what limits each."""
        if not candidates:
            return
        sums = np.array([c.sums for c in candidates])
        launches = np.array([c.launches for c in candidates]) * self.launch_s
        done = timed(sums, launches, self.host_s)
        lines = zip(done.latency_s.tolist(), done.bound.tolist(), done.stalls_s.tolist())
        for c, (total, bound, stalls) in zip(candidates, lines):
            _, _, compute, dram_s, dram, l2 = c.sums[: R.STALL_COMPUTE]
            yield KernelCost(
                c.clock,
                compute * c.clock,
                dram_s * c.clock,
                (total - max(compute, dram_s)) * c.clock,
                {"dram": dram, "l2": l2},
                BOUNDS[bound],
                c.mapping,
                self.energy(plan, c.kernel, dram, l2, total),
                stalls_s=dict(zip(STALLS, stalls)),
            )


def _rows(lines: list[list[float]], positions: list[int], plan: Plan, index: int) -> Iterator[_Candidate]:
    """A product, a stream, or several of them in turn, by algorithm."""
    of: dict[int, list[int]] = {}
    for p in positions:
        of.setdefault(plan.choice[p], []).append(p)
    for part in of.values():
        yield _sequence(lines, part, plan, index)


def _sequence(lines: list[list[float]], positions: list[int], plan: Plan, index: int) -> _Candidate:
    """Rows that run in turn; the longest names the mapping."""
    clock = plan.rows[positions[0]][R.CLOCK]
    sums, launches = [0.0] * R.OUT_SUMS, 0.0
    longest, line = -1.0, lines[positions[0]]
    for p in positions:
        runs = plan.times[p]
        launches += plan.launches[p]
        sums = [a + runs * b for a, b in zip(sums, lines[p])]
        spent = runs * (lines[p][R.OUT_BODY] + lines[p][R.OUT_FIXED])
        if spent > longest:
            longest, line = spent, lines[p]
    tile = int(line[R.OUT_TILE])
    mapping = "stream"
    if tile >= 0:
        rows, columns = TILES[tile]
        waves, split = line[R.OUT_WAVES], int(line[R.OUT_SPLIT])
        mapping = f"{rows}x{columns} tiles, {waves:.3g} waves, split-k {split}"
    if index in plan.algorithms:
        name = plan.algorithms[index][plan.choice[positions[0]]]
        mapping = f"{name}, {mapping}"
    if plan.choice[positions[0]] == 0:
        for column in (R.OUT_FIXED, R.STALL_LAUNCH):
            sums[column] += plan.serial_s.get(index, 0.0)
    return _Candidate(index, clock, sums, launches, mapping)


def _attention_lines(plan: Plan, device: Any) -> list[list[float]]:
    """Attention kernels of the plan, costed together."""
    models = [model for _, model in plan.attention.values()]
    rows = np.array([row for row, _ in plan.attention.values()]).reshape(len(models), A.WIDTH)
    rows[:, A.MODEL] = np.arange(len(models))
    lines: list[list[float]] = run_kernel(rows, models, device).tolist()
    return lines


def _attention(line: list[float], plan: Plan, index: int) -> _Candidate:
    tile, split, waves = line[A.OUT_TILE], line[A.OUT_SPLIT], line[A.OUT_WAVES]
    mapping = f"{tile:.0f}-row query tiles, {waves:.3g} waves, {split:.0f} key splits"
    clock = plan.attention[index][0][A.CLOCK]
    return _Candidate(index, clock, line[: R.OUT_SUMS], 1.0, mapping)


def _link(program: Program, plan: Plan, writer: _Writer, index: int) -> KernelCost:
    """A collective: its bytes cross the link, and each step of the ring waits once."""
    device: Any = program.device
    kernel = program.kernels[index]
    transfer, latency = plan.link[index]
    clock = float(device.sm.clock_hz)
    touched = kernel.bytes_compulsory
    energy = writer.energy(plan, index, touched, touched, transfer + latency)
    levels = {"dram": touched, "l2": touched, "link": kernel.anchor.work.link_bytes}
    bound = "link" if transfer >= latency else "latency"
    stalls = {"link": transfer, "latency": latency}
    return KernelCost(
        clock, 0.0, transfer * clock, latency * clock, levels, bound, "link", energy, stalls_s=stalls
    )


def _analytic(program: Program, plan: Plan, writer: _Writer, index: int) -> KernelCost:
    """Roofline at datasheet peaks: the longer of arithmetic and compulsory traffic, nothing else."""
    device: Any = program.device
    compute, memory = plan.analytic[index]
    clock = float(device.sm.clock_hz)
    touched = program.kernels[index].bytes_compulsory
    bound = "link" if index in plan.link else ("compute" if compute > memory else "memory")
    levels = {"dram": touched, "l2": touched}
    energy = writer.energy(plan, index, touched, touched, max(compute, memory))
    stalls = {{"memory": "dram"}.get(bound, bound): max(compute, memory)}
    cycles = (compute * clock, memory * clock, 0.0)
    return KernelCost(clock, *cycles, levels, bound, "roofline", energy, stalls_s=stalls)


def explain(program: Program, index: int, cost: KernelCost) -> str:
    """The formula behind a kernel's cost with its numbers in."""
    clock = cost.clock_hz
    compute, memory, rest = (
        si(v / clock, "s") for v in (cost.cycles_compute, cost.cycles_memory, cost.cycles_overhead)
    )
    plan: Plan = program.parameters["plan"]
    device: Any = program.device
    text = f"max(compute {compute}, memory {memory}) + {rest} = {si(cost.latency_s, 's')}"
    if index in plan.link:
        sent = si(program.kernels[index].anchor.work.link_bytes, "B")
        rate = si(device.link.bandwidth_bytes_per_s, "B/s")
        return f"{sent} at {rate}, the rest is protocol: {text}"
    flops = plan.flops[index]
    work = f"{si(flops, 'FLOP')} of {plan.names[index]}, " if flops else ""
    moved = f"{si(cost.bytes_by_level['dram'], 'B')} from DRAM"
    rate = si(device.memory.bandwidth_bytes_per_s, "B/s")
    return f"{text}; {work}{moved} at {rate}; {cost.mapping}"
