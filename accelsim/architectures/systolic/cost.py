"""Cost of a systolic program: fold cycles against vector work and memory traffic, all kernels at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np

from accelsim.architectures.base import KernelCost, Program
from accelsim.architectures.systolic.nests import Nests, Totals
from accelsim.core.units import si
from accelsim.hardware import energy
from accelsim.hardware.schema import SystolicDevice


def cost(program: Program) -> tuple[KernelCost, ...]:
    """Cost of each kernel at the program's fidelity; ``event`` uses the costs of ``tile``.

    Notes
    -----
    ``analytic`` is max(MACs / peak, compulsory bytes / peak bandwidth), a lower bound. ``tile`` is max(fold
    cycles, vector cycles, DRAM bytes of the best tiling / sustained bandwidth) + dispatch and memory latency.
    """
    nests: Nests = program.parameters["nests"]
    work: Totals = program.parameters["totals"]
    if program.options.fidelity == "analytic":
        return _analytic(program, nests, work)
    return _tiled(program, nests, work)


def _rates(nests: Nests, device: SystolicDevice) -> Any:
    """Multiply-accumulates per element and cycle of each nest."""
    table = device.array.macs_per_pe
    return np.array([table[name] for name in nests.formats], np.float64) * nests.faster


def _link_seconds(device: SystolicDevice, work: Totals) -> tuple[Any, Any]:
    """Transfer time and latency of each kernel's collective [s]; zero for all others."""
    if device.link is None:
        return np.zeros_like(work.link_bytes), np.zeros_like(work.link_bytes)
    return work.link_bytes / device.link.bandwidth_bytes_per_s, work.link_hops * device.link.latency_s


def _energies(
    device: SystolicDevice, nests: Nests, work: Totals, sram: Any, dram: Any, ports: Any, sums: Any
) -> list[dict[str, float]]:
    """`energy_parts` of each kernel."""
    parts = energy_parts(device, nests, work, sram, dram, ports, sums)
    return [dict(zip(parts, row)) for row in np.stack(list(parts.values()), axis=1).tolist()]


def energy_parts(
    device: SystolicDevice, nests: Nests, work: Totals, sram: Any, dram: Any, ports: Any, sums: Any
) -> dict[str, Any]:
    """Dynamic energy of all kernels by part [J]; NaN where there is work and no coefficient. `sums` is the
    part of the bytes `sram` that belongs to partial sums.

    A multiply-accumulate reads two operands and a sum and writes the sum: four register accesses. Register
    files and network are parts of their own on row-stationary arrays and where the device's file gives their
    coefficients.
    """
    count = len(dram)
    formats = {name: energy.coefficient(device, "mac", name).value_j for name in set(nests.formats)}
    per_mac = np.array([formats[name] for name in nests.formats], np.float64)
    apart = ("mac", "static", "active")
    each = {part: energy.coefficient(device, part) for part in energy.PARTS if part not in apart}
    dearer = energy.sum_byte(device).value_j - each["sram"].value_j
    parts = {
        "mac": np.bincount(nests.kernel, energy.spent(nests.macs, per_mac), count),
        "vector": energy.spent(work.vector_ops, each["vector"]),
        "sram": energy.spent(sram, each["sram"]) + energy.spent(sums, dearer),
        "dram": energy.spent(dram, each["dram"]),
    }
    if device.link is not None:
        parts["link"] = energy.spent(work.link_bytes, each["link"])
    if _apart(device, each["register"]):
        touched = nests.macs * (nests.left_width + nests.right_width + 2 * nests.sum_element)
        parts["register"] = energy.spent(np.bincount(nests.kernel, touched, count), each["register"])
    if _apart(device, each["network"]):
        parts["network"] = energy.spent(ports, each["network"])
    return parts


def _apart(device: SystolicDevice, each: energy.Coefficient) -> bool:
    """Whether a part is counted on its own: always on row-stationary arrays, else where it has a figure."""
    return device.array.dataflow == "rs" or not math.isnan(each.value_j)


def _bounds(parts: dict[str, Any]) -> list[str]:
    """Name of the largest part for each kernel; ties go to the first."""
    names = list(parts)
    return [names[i] for i in np.argmax(np.stack(list(parts.values())), axis=0).tolist()]


def bound_parts(parts: Parts) -> tuple[tuple[str, ...], Any]:
    """Names of what can limit a kernel, and the index of what does; ties go to the first."""
    of = {
        "compute": parts.array,
        "vector": parts.vector,
        "memory": parts.dram,
        "sram": parts.sram,
        "link": parts.link,
        "launch": parts.overhead,
    }
    return tuple(of), np.argmax(np.stack(list(of.values())), axis=0)


def _analytic(program: Program, nests: Nests, work: Totals) -> tuple[KernelCost, ...]:
    device = cast(SystolicDevice, program.device)
    clock, elements = device.array.clock_hz, device.array.rows * device.array.cols * device.array.count
    array = np.bincount(nests.kernel, nests.macs / (elements * _rates(nests, device)), len(program.kernels))
    bandwidth = device.memory.bandwidth_bytes_per_s
    moved = work.bytes_dram
    dram = moved / bandwidth * clock
    energies = _energies(device, nests, work, moved, moved, moved, np.zeros_like(moved))
    bounds = _bounds({"compute": array, "memory": dram})
    costs = []
    for joules, bound, a, d, size in zip(energies, bounds, array.tolist(), dram.tolist(), moved.tolist()):
        costs.append(KernelCost(clock, a, d, 0.0, {"dram": size, "sram": size}, bound, "peak", joules))
    return tuple(costs)


@dataclass(frozen=True)
class Parts:
    """What a kernel's time is made of: one entry per kernel, one execution.

    Attributes
    ----------
    array, vector, dram, sram, link, overhead : array of float
        Cycles of each resource.
    serial : array of bool
        Array and vector unit take turns (a recurrent step needs the gates of the one before).
    dram_bytes, sram_bytes : array of float
    sum_bytes : array of float
        Part of `sram_bytes` that is partial sums.
    ahead : array of float
        Cycles of the transfers that the arrays wait for, before them or after (`_ahead`).
    """

    array: Any
    vector: Any
    dram: Any
    sram: Any
    link: Any
    overhead: Any
    serial: Any
    dram_bytes: Any
    sram_bytes: Any
    sum_bytes: Any
    ahead: Any

    @cached_property
    def compute(self) -> Any:
        return np.where(self.serial, self.array + self.vector, np.maximum(self.array, self.vector))

    @cached_property
    def traffic(self) -> Any:
        return np.maximum(np.maximum(self.dram, self.sram), self.link)

    @property
    def exposed(self) -> Any:
        """Cycles that nothing hides."""
        return self.cycles - np.maximum(self.compute, self.traffic)

    @cached_property
    def cycles(self) -> Any:
        """Cycles of one execution."""
        ahead = np.minimum(self.ahead, self.traffic)
        return np.maximum(self.compute, self.traffic - ahead) + ahead + self.overhead


def _stored_weights(nests: Nests, device: SystolicDevice) -> Any:
    """Right operands as they lie in memory [B]: weights in whole tiles where the device wants them so."""
    unit = device.array
    if not unit.whole_tiles:
        return nests.right_bytes
    depth, width = -(-nests.k // unit.rows) * unit.rows, -(-nests.n // unit.cols) * unit.cols
    return np.where(nests.swap, 1.0, depth * width / (nests.k * nests.n)) * nests.right_bytes


@lru_cache(maxsize=8)
def parts_of(program: Program) -> tuple[Parts, Any, Any]:
    """The parts of all kernels, with the fold and the tile tables behind them."""
    # numba is imported by the kernels: only runs that need them pay for it.
    from accelsim.architectures.systolic import folds, memory

    nests: Nests = program.parameters["nests"]
    work: Totals = program.parameters["totals"]
    device: SystolicDevice = program.device
    unit, clock, count = device.array, device.array.clock_hz, len(program.kernels)
    # A band of rows is a product of its own that meets the same weights again.
    height, turns = nests.height, nests.turns
    fold = folds.fold_table(
        nests.batch, height, nests.n, nests.k, nests.share, _rates(nests, device), nests.sets,
        unit.rows, unit.cols, unit.count, folds.CODES[unit.dataflow], unit.double_buffered,
        nests.swaps & unit.swaps_operands,
    )  # fmt: skip
    weights = _stored_weights(nests, device)
    repeated = weights - nests.right_bytes if unit.whole_tiles else 0.0
    tile = memory.tile_table(
        nests.batch, height, nests.n, nests.k, turns, nests.left_bytes / nests.bands, weights,
        nests.left_element, nests.right_element, nests.sum_element, nests.held, _room(device),
    )  # fmt: skip

    array = np.bincount(nests.kernel, fold[:, folds.CYCLES] * turns, count)
    vector = work.vector_ops / device.vector.ops_per_clock
    array, vector = _grouped_on_vector(nests, device, array, vector)
    extra = tile[:, memory.EXTRA_BYTES] + repeated
    dram_bytes = work.bytes_dram + np.bincount(nests.kernel, extra, count)
    ports, sums = _sram_bytes(nests, fold, folds)
    ports = np.bincount(nests.kernel, ports, count)
    sums = np.where(array > 0, np.bincount(nests.kernel, sums, count), 0.0)
    speed = device.sram.bandwidth_bytes_per_s
    link, hops = _link_seconds(device, work)
    parts = Parts(
        array=array,
        vector=vector,
        dram=dram_bytes / _sustained(device) * clock,
        sram=ports / speed * clock if speed else np.zeros(count),
        link=link * clock,
        overhead=(device.dispatch_s + device.memory.latency_s * work.waits + hops + _host(program)) * clock,
        serial=nests.serial,
        dram_bytes=dram_bytes,
        sram_bytes=dram_bytes + np.where(array > 0, ports + sums, work.bytes_compulsory),
        sum_bytes=sums,
        ahead=_ahead(device, nests, dram_bytes) / _sustained(device) * clock,
    )
    return parts, fold, tile


def _ahead(device: SystolicDevice, nests: Nests, moved: Any) -> Any:
    """Bytes of each kernel that no computation hides, of those that it moves.

    None where transfers overlap, for the kernels before and after hide them. Otherwise all, or where the
    device has a window: operands until it is full (the rest streams behind the arrays), then the results.
    """
    if device.transfers_overlap:
        return np.zeros_like(moved)
    window = device.sram.window_bytes
    if window is None:
        return np.full_like(moved, np.inf)
    results = np.bincount(nests.kernel, nests.results * nests.output_width * nests.turns, len(moved))
    results = np.minimum(results, moved)
    return results + np.minimum(moved - results, window)


def _host(program: Program) -> Any:
    """Host time of the run, all of it at the first kernel [s]."""
    seconds = np.zeros(len(program.kernels))
    seconds[:1] = program.device.host_s / program.kernels[0].repeat
    return seconds


def _grouped_on_vector(nests: Nests, device: SystolicDevice, array: Any, vector: Any) -> tuple[Any, Any]:
    """Cycles of arrays and vector unit when convolutions in groups run where they are faster.

    A multiply-accumulate takes the vector unit two operations; it never counts as faster than the arrays'
    peak.
    """
    count = len(array)
    grouped = nests.in_groups
    if not grouped.any():
        return array, vector
    elements = device.array.rows * device.array.cols * device.array.count
    speed = np.minimum(device.vector.ops_per_clock / 2, elements * _rates(nests, device))
    alone = vector + np.bincount(nests.kernel, nests.macs / speed, count)
    moves = grouped & (alone < np.maximum(array, vector))
    return np.where(moves, 0.0, array), np.where(moves, alone, vector)


def extra_bytes(program: Program) -> float:
    """Traffic of the tiles of one execution of each nest beyond the compulsory [B]."""
    from accelsim.architectures.systolic import memory

    return float(parts_of(program)[2][:, memory.EXTRA_BYTES].sum())


def worth(program: Program) -> tuple[float, float]:
    """Seconds of a run and bytes that cross the memory interface, without the words that `cost` adds."""
    parts, _, _ = parts_of(program)
    repeats = program.parameters["totals"].repeats
    cycles, moved = float((parts.cycles * repeats).sum()), float((parts.dram_bytes * repeats).sum())
    return cycles / program.device.array.clock_hz, moved


def occupancy(program: Program) -> dict[str, Any]:
    """What the arrays of a weight-stationary device do in each cycle of each kernel, one execution [cycle].

    Returns
    -------
    dict of array
        ``active`` operands stream; ``shift`` a weight tile moves in and nothing streams; ``drain`` the last
        results leave; ``stall`` the arrays wait for transfers; ``other`` dispatch, latencies, the vector unit
        alone. They sum to the kernel's cycles.

    Notes
    -----
    A tile that memory delivers late shifts in after it arrived, so its whole shift is exposed. Otherwise it
    hides behind the tile before, but for what is longer than that one streams. These are the counters of
    table 3 of N. Jouppi et al., ISCA 2017, doi:10.1145/3079856.3080246.
    """
    from accelsim.architectures.systolic import folds

    nests: Nests = program.parameters["nests"]
    unit, count = program.device.array, len(program.kernels)
    parts, fold, _ = parts_of(program)
    turns = nests.turns
    depth = np.ceil(nests.k / np.maximum(_rates(nests, program.device), 1.0))
    down = np.ceil(depth / unit.rows)

    def summed(each: Any) -> Any:
        return np.where(parts.array > 0, np.bincount(nests.kernel, each * turns, count), 0.0)

    total = np.maximum(parts.compute, parts.traffic)
    active = summed(fold[:, folds.FOLDS] * fold[:, folds.STREAM])
    loads = summed(fold[:, folds.FOLDS] / down * depth)
    drain = summed(np.minimum(depth, unit.rows) + np.minimum(nests.n, unit.cols) - 2.0)
    waits = parts.traffic > parts.compute
    idle = np.maximum(total - active - drain, 0.0)
    shift = np.where(waits, np.minimum(loads, idle), np.clip(parts.array - active - drain, 0.0, idle))
    stall = np.where(waits, idle - shift, 0.0)
    other = total + parts.exposed - active - drain - shift - stall
    return {"active": active, "shift": shift, "drain": drain, "stall": stall, "other": other}


def _sustained(device: SystolicDevice) -> float:
    """External bandwidth that long transfers reach [B/s]."""
    return device.memory.bandwidth_bytes_per_s * device.memory.efficiency


def _tiled(program: Program, nests: Nests, work: Totals) -> tuple[KernelCost, ...]:
    device: SystolicDevice = program.device
    parts, fold, tile = parts_of(program)
    names, codes = bound_parts(parts)
    bounds = [names[code] for code in codes.tolist()]
    ports = parts.sram_bytes - parts.dram_bytes
    energies = _energies(device, nests, work, parts.sram_bytes, parts.dram_bytes, ports, parts.sum_bytes)
    mappings = _mappings(nests, fold, tile, len(program.kernels), device.array.dataflow)
    columns = (parts.compute, parts.traffic, parts.exposed, parts.dram_bytes, parts.sram_bytes)
    clock = device.array.clock_hz
    return tuple(
        KernelCost(clock, busy, moved, fixed, {"dram": dram, "sram": sram}, bound, mapping, joules)
        for joules, bound, mapping, (busy, moved, fixed, dram, sram) in zip(
            energies, bounds, mappings, zip(*(c.tolist() for c in columns))
        )
    )


def explain(program: Program, index: int, cost: KernelCost) -> str:
    """The formula behind a kernel's cost, with its numbers in."""
    device: SystolicDevice = program.device
    clock, size = si(cost.clock_hz, "Hz"), si(cost.bytes_by_level["dram"], "B")
    if program.options.fidelity == "analytic":
        peak = si(device.memory.bandwidth_bytes_per_s, "B/s")
        return (
            f"max(MACs at peak {cost.cycles_compute:.4g}, {size} at {peak} = {cost.cycles_memory:.4g}) "
            f"cycles at {clock}"
        )
    parts, _, _ = parts_of(program)
    join = " + vector" if parts.serial[index] else ", vector"
    others = "".join(
        f", {name} {cycles[index]:.4g}"
        for name, cycles in (("SRAM", parts.sram), ("link", parts.link))
        if cycles[index] > 0
    )
    return (
        f"max(array {parts.array[index]:.4g}{join} {parts.vector[index]:.4g}, DRAM {size} at "
        f"{si(_sustained(device), 'B/s')} = {parts.dram[index]:.4g}{others}) + {cost.cycles_overhead:.4g} "
        f"cycles at {clock}"
    )


def _room(device: SystolicDevice) -> Any:
    """On-chip capacity: in all, for the left operand, the right operand, the sums [B]."""
    sram = device.sram
    parts = (sram.ifmap_bytes, sram.filter_bytes, sram.ofmap_bytes)
    return np.array([sram.capacity_bytes, *(math.inf if p is None else p for p in parts)], np.float64)


def _sram_bytes(nests: Nests, fold: Any, folds: Any) -> tuple[Any, Any]:
    """Traffic of each nest between SRAM and arrays: operands and results, and partial sums [B]."""
    results, turns = nests.results, nests.turns
    partial = np.maximum(fold[:, folds.OUTPUT_ACCESSES] - results, 0.0) * nests.sum_element
    operands = fold[:, folds.LEFT_READS] * nests.left_width + fold[:, folds.RIGHT_READS] * nests.right_width
    return (operands + results * nests.output_width) * turns, partial * turns


def _mappings(nests: Nests, fold: Any, tile: Any, count: int, dataflow: str) -> list[str]:
    """The mapping of each kernel in words."""
    from accelsim.architectures.systolic import folds, memory

    words: list[list[str]] = [[] for _ in range(count)]
    orders = [memory.ORDERS[i] for i in tile[:, memory.ORDER].astype(int).tolist()]
    picked = fold[:, [folds.FOLDS, folds.STREAM, folds.PACKED, folds.SPLIT]].tolist()
    sizes = tile[:, [memory.TILE_M, memory.TILE_N, memory.TILE_K]].astype(int).tolist()
    for index, (number, stream, packed, split), (tm, tn, tk), order, steps in zip(
        nests.kernel.tolist(), picked, sizes, orders, nests.steps.tolist()
    ):
        side = f", {packed:.0f} side by side" if packed > 1 else ""
        cut = f", stream in {split:.0f}" if split > 1 else ""
        turn = f", {steps} steps" if steps > 1 else ""
        words[index].append(
            f"{dataflow} {number:.0f} folds of {stream:.4g} beats{side}{cut}{turn}, "
            f"tile {tm}x{tn}x{tk} {order}"
        )
    return ["; ".join(w) for w in words]
