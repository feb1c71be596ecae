"""Cost of a lowered program.

The numba kernel costs products and streams; attention and collectives have closed forms of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from accelsim.architectures.base import KernelCost, Program
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention import attention_cost, attention_model
from accelsim.architectures.gpu.host import host_bound_s, launch_gap_s
from accelsim.architectures.gpu.lower import Plan, as_arrays
from accelsim.architectures.gpu.tiles import SPLITS, TILES, shared_loads
from accelsim.core.units import si
from accelsim.hardware.kernels import AttentionModel

SPLIT_ARRAY = np.array(SPLITS, dtype=np.float64)


def device_array(device: Any) -> np.ndarray:
    """The numbers of a device that the numba kernel reads, in its order."""
    sm, memory, l2, power = device.sm, device.memory, device.l2, device.power
    headroom_w = max(0.0, (power.tdp_w or 0.0) - (power.idle_w or 0.0))
    half_rate = sm.tensor_flop_per_clock.get("fp16") or sm.vector_flop_per_clock.get("fp16", 0.0)
    values = [sm.count, memory.bandwidth_bytes_per_s, memory.latency_s, l2.capacity_bytes]
    values += [l2.bandwidth_bytes_per_s, l2.latency_s, headroom_w, memory.efficiency, half_rate]
    values.append(shared_loads(device))
    return np.array(values, dtype=np.float64)


def evaluate(plan: Plan, device: Any, governor: bool) -> np.ndarray:
    """Rows of the plan costed by the numba kernel, shape (rows, `OUT_WIDTH`)."""
    from accelsim.architectures.gpu.sm import cost_rows

    rows, tables = as_arrays(plan, device)
    out = np.zeros((len(rows), R.OUT_WIDTH))
    cost_rows(rows, tables, SPLIT_ARRAY, device_array(device), device.kernels.product.array, governor, out)
    return out


def cost(program: Program) -> tuple[KernelCost, ...]:
    """Cost of each kernel at the program's fidelity."""
    plan: Plan = program.parameters["plan"]
    writer = _Writer.of(program, plan)
    count = range(len(program.kernels))
    if program.options.fidelity == "analytic":
        return tuple(_analytic(program, plan, writer, i) for i in count)
    lines = evaluate(plan, program.device, program.options.governor).tolist()
    rows_of: dict[int, list[int]] = {}
    for position, index in enumerate(plan.owner):
        rows_of.setdefault(index, []).append(position)
    found: list[KernelCost] = []
    for i in count:
        if i in plan.link:
            found.append(_link(program, plan, i))
        elif i in plan.attention:
            found.append(_attention(program.device, plan, writer, i))
        else:
            found.append(_rows(lines, rows_of[i], plan, writer, i))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Writer:
    """What is the same for every kernel of a program, and the last step from durations to a `KernelCost`."""

    ramp_s: float
    attention: AttentionModel
    gap_s: float
    host_s: float
    mac_j: dict[str, float]
    vector_j: float
    dram_j: float
    l2_j: float

    @classmethod
    def of(cls, program: Program, plan: Plan) -> _Writer:
        device: Any = program.device
        stack, energy = program.options.stack, device.energy
        single = (energy.vector_op_j, energy.dram_byte_j, energy.sram_byte_j)
        return cls(
            device.kernels.product.ramp_s,
            attention_model(device, stack),
            launch_gap_s(device, stack),
            host_bound_s(device, stack),
            energy.mac_j,
            *(nan if v is None else float(v) for v in single),
        )

    def energy(self, plan: Plan, index: int, dram: float, l2: float) -> dict[str, float]:
        """Dynamic energy by component [J]; NaN where the device file has no coefficient."""
        flops, ops = plan.flops[index], plan.vector_ops[index]
        return {
            "mac": flops / 2.0 * self.mac_j.get(plan.names[index], nan) if flops else 0.0,
            "vector": ops * self.vector_j if ops else 0.0,
            "dram": dram * self.dram_j,
            "l2": l2 * self.l2_j,
        }

    def finish(
        self,
        plan: Plan,
        index: int,
        clock: float,
        durations: tuple[float, float, float, float],
        traffic: tuple[float, float],
        launches: float,
        bound: str,
        mapping: str,
    ) -> KernelCost:
        """Add launches and the host to (body, fixed, compute, dram) [s], and name what limits the kernel."""
        body, fixed, compute, dram_s = durations
        launch = launches * (self.gap_s + self.ramp_s)
        total = body + fixed + launch
        if total < self.host_s:
            total, bound = self.host_s, "launch"
        elif launch > 0.5 * total:
            bound = "launch"
        elif fixed > body:
            bound = "latency"
        return KernelCost(
            clock,
            compute * clock,
            dram_s * clock,
            (total - max(compute, dram_s)) * clock,
            {"dram": traffic[0], "l2": traffic[1]},
            bound,
            mapping,
            self.energy(plan, index, *traffic),
        )


def _rows(
    lines: list[list[float]], positions: list[int], plan: Plan, writer: _Writer, index: int
) -> KernelCost:
    """A product or a stream; a recurrent layer has a row for its input product and one for its steps."""
    line = lines[positions[0]]
    clock = plan.rows[positions[0]][R.CLOCK]
    sums = line[: R.OUT_SUMS]
    launches = plan.times[positions[0]]
    for p in positions[1:]:
        times = plan.times[p]
        launches += times
        sums = [a + times * b for a, b in zip(sums, lines[p])]
    tile = int(line[R.OUT_TILE])
    mapping = "stream"
    if tile >= 0:
        rows, columns = TILES[tile]
        waves, split = line[R.OUT_WAVES], int(line[R.OUT_SPLIT])
        mapping = f"{rows}x{columns} tiles, {waves:.3g} waves, split-k {split}"
    body, fixed, compute, dram_s, dram, l2 = sums
    bound = R.BOUNDS[int(line[R.OUT_BOUND])]
    return writer.finish(
        plan, index, clock, (body, fixed, compute, dram_s), (dram, l2), launches, bound, mapping
    )


def _attention(device: Any, plan: Plan, writer: _Writer, index: int) -> KernelCost:
    shape, rate, clock = plan.attention[index]
    part = attention_cost(shape, device, writer.attention, rate, clock)
    durations = (part.body_s, part.fixed_s, part.compute_s, part.dram_s)
    mapping = f"{part.tile}-row query tiles, {part.waves:.3g} waves, {part.split} key splits"
    traffic = (shape.dram_bytes, part.l2_bytes)
    return writer.finish(plan, index, clock, durations, traffic, 1.0, part.bound, mapping)


def _link(program: Program, plan: Plan, index: int) -> KernelCost:
    """A collective: its bytes cross the link, and each step of the ring waits once."""
    device: Any = program.device
    kernel = program.kernels[index]
    transfer, latency = plan.link[index]
    clock = float(device.sm.clock_hz)
    touched = kernel.bytes_compulsory
    per_byte = device.energy.dram_byte_j
    energy = {"dram": nan if per_byte is None else touched * float(per_byte)}
    levels = {"dram": touched, "l2": touched, "link": kernel.anchor.work.link_bytes}
    bound = "link" if transfer >= latency else "latency"
    return KernelCost(clock, 0.0, transfer * clock, latency * clock, levels, bound, "link", energy)


def _analytic(program: Program, plan: Plan, writer: _Writer, index: int) -> KernelCost:
    """Roofline at datasheet peaks: the longer of arithmetic and compulsory traffic, nothing else."""
    device: Any = program.device
    compute, memory = plan.analytic[index]
    clock = float(device.sm.clock_hz)
    touched = program.kernels[index].bytes_compulsory
    bound = "link" if index in plan.link else ("compute" if compute > memory else "memory")
    levels = {"dram": touched, "l2": touched}
    energy = writer.energy(plan, index, touched, touched)
    return KernelCost(clock, compute * clock, memory * clock, 0.0, levels, bound, "roofline", energy)


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
