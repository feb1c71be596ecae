"""From a graph to a program for a systolic device: what runs together, on which unit, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterable

from accelsim.architectures.base import Kernel, Options, Program
from accelsim.architectures.fusion import Group, epilogue, fuse
from accelsim.architectures.systolic.nests import (
    Nests,
    Sparsity,
    collect,
    compute_precision,
    operands,
    totals,
)
from accelsim.architectures.systolic.residency import WEIGHT_SHARES, Residency, nothing, plan
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import PRECISIONS, Precision
from accelsim.core.units import si
from accelsim.hardware.schema import SystolicDevice
from accelsim.workload.graph import Graph

LANES = {"matrix": "array", "vector": "vector", "memory": "dma", "link": "link"}


def lower(graph: Graph, device: SystolicDevice, options: Options) -> Program:
    """Decide how a graph runs on a systolic device.

    Matrix operators run on the arrays with the elementwise work that follows them, everything else on the
    vector unit, as memory copies or on the link. Kernels run in dependency order; units work at the same time
    where the graph lets them.

    Raises
    ------
    InfeasibleError
        ``precision``: a product in a format that the arrays lack. ``sram``: one element of each operand and
        a sum do not fit. ``link``: a collective on a device without a link.
    """
    groups = fuse(graph, epilogue)
    _check_precisions(groups, device)
    memory_bytes = graph.weight_bytes + graph.kv_bytes + graph.peak_activation_bytes
    kernels = tuple(_kernel(group) for group in groups)
    if device.link is None and any(kernel.lane == "link" for kernel in kernels):
        raise InfeasibleError(
            "link", "a link between devices", "none", f"run on one device, or give {device.name} a 'link'"
        )
    sparsity, notes = _sparsity(options, device)
    cold = _program(graph, device, options, kernels, memory_bytes, notes, nothing(kernels), sparsity)
    _check_sram(cold.parameters["nests"], device)
    if options.cold:
        return cold
    room = device.sram.capacity_bytes - (device.sram.ofmap_bytes or 0.0)
    shares = (0.0, *WEIGHT_SHARES) if device.sram.keeps_weights else (0.0,)
    plans = [plan(kernels, graph, room, share) for share in shares]
    if options.fidelity == "analytic":
        # Whatever the plan, no more than all of this can stay.
        return min(
            (_program(graph, device, options, kernels, memory_bytes, notes, p, sparsity) for p in plans),
            key=lambda program: float(program.parameters["totals"].bytes_dram.sum()),
        )
    warm = [
        _program(graph, device, options, kernels, memory_bytes, notes, p, sparsity)
        for p in plans
        if p.tensors or p.weight_bytes
    ]
    # What stays takes room from tiles: keep it only where that pays.
    return min([*warm, cold], key=_seconds)


def _program(
    graph: Graph,
    device: SystolicDevice,
    options: Options,
    kernels: tuple[Kernel, ...],
    memory_bytes: float,
    notes: tuple[str, ...],
    residency: Residency,
    sparsity: Sparsity,
) -> Program:
    parameters = {
        "nests": collect(kernels, residency, sparsity, device.array.skips_zeros, device.array.accumulator),
        "totals": totals(kernels, residency, sparsity),
        "residency": residency,
    }
    notes = (*_notes(kernels, device, residency), *notes)
    return Program(graph, device, options, kernels, "sequential", memory_bytes, notes, parameters)


def _seconds(program: Program) -> float:
    from accelsim.architectures.systolic.cost import latencies

    repeats = [kernel.repeat for kernel in program.kernels]
    return float(sum(s * n for s, n in zip(latencies(program).tolist(), repeats)))


def _sparsity(options: Options, device: SystolicDevice) -> tuple[Sparsity, tuple[str, ...]]:
    if options.sparsity == "dense":
        return Sparsity(coded=device.codes_zeros), ()
    keep, block = map(int, options.sparsity.split(":"))
    if device.array.sparse_speedup == 1.0:
        return Sparsity(coded=device.codes_zeros), (
            f"{device.name} has no sparse mode: {options.sparsity} weights run as dense ones",
        )
    return Sparsity(keep, block, device.array.sparse_speedup, device.codes_zeros), ()


def _check_sram(nests: Nests, device: SystolicDevice) -> None:
    sram = device.sram
    for have, need in (
        (sram.capacity_bytes, 2 * (nests.left_element + nests.right_element) + nests.sum_element),
        (sram.ifmap_bytes, 2 * nests.left_element),
        (sram.filter_bytes, 2 * nests.right_element),
        (sram.ofmap_bytes, nests.sum_element),
    ):
        if have is not None and len(need) and need.max() > have:
            raise InfeasibleError(
                "sram",
                f"{si(float(need.max()), 'B')} for one tile",
                si(have, "B"),
                "enlarge the on-chip memory",
            )


def _kernel(group: Group) -> Kernel:
    lane = LANES[group.anchor.work.engine]
    return Kernel(group.anchor.name, group.ops, group.inputs, group.outputs, lane, group.after, group.repeat)


def _check_precisions(groups: Iterable[Group], device: SystolicDevice) -> None:
    have = device.array.macs_per_pe
    for group in groups:
        for op in group.ops:
            for _, left, right in operands(op):
                given = [t for t in (left, right) if t is not None]
                if not given:
                    continue
                wide = compute_precision(op)
                for t in given:
                    narrow = t.role in ("weight", "kv") and t.precision.bits < wide.bits
                    if t.precision.name not in have and not narrow:
                        raise InfeasibleError(
                            "precision",
                            f"{t.precision.name} products ('{op.name}')",
                            ", ".join(have),
                            f"the nearest that {device.name} has is {nearest(t.precision, have)}",
                        )


def nearest(wanted: Precision, have: Iterable[str]) -> str:
    """The format closest to a missing one: the same kind first, then the closest width, the wider of two."""

    def distance(name: str) -> tuple[bool, int, int]:
        p = PRECISIONS[name]
        return p.is_integer != wanted.is_integer, abs(p.bits - wanted.bits), -p.bits

    return min(have, key=distance)


def _notes(kernels: tuple[Kernel, ...], device: SystolicDevice, residency: Residency) -> tuple[str, ...]:
    notes = []
    if residency.tensors:
        notes.append(f"{residency.tensors} activations stay on chip between kernels")
    else:
        notes.append("every kernel reads its inputs from and writes its outputs to external memory")
    if residency.weight_bytes:
        notes.append(f"{si(residency.weight_bytes, 'B')} of weights stay on chip from run to run")
    kinds = {kernel.anchor.kind for kernel in kernels}
    if kinds & {"attention", "mla_attention"}:
        notes.append("attention scores stay on chip")
    if kinds & {"grouped_matmul"}:
        notes.append("experts are chosen evenly")
    energy = device.energy
    coefficients = {
        "mac": energy.mac_j,
        "vector_op": energy.vector_op_j,
        "dram_byte": energy.dram_byte_j,
        "sram_byte": energy.sram_byte_j,
    }
    missing = [name for name, value in coefficients.items() if value is None or value == {}]
    if missing:
        notes.append(f"no energy coefficient for {', '.join(missing)}: those parts are unknown")
    return tuple(notes)
