"""From a graph to a program for a systolic device: what runs together, on which unit, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import isnan

from accelsim.architectures.base import Kernel, Options, Program
from accelsim.architectures.fusion import Group, epilogue, fuse
from accelsim.architectures.systolic.bands import banded
from accelsim.architectures.systolic.nests import (
    Nests,
    Sparsity,
    Totals,
    collect,
    compute_precision,
    keep_on_chip,
    operands,
    totals,
)
from accelsim.architectures.systolic.residency import WEIGHT_SHARES, Residency, Usage, nothing, plan, usage
from accelsim.core.errors import AccelsimError
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import PRECISIONS, Precision
from accelsim.core.sparsity import split_pattern
from accelsim.core.units import si
from accelsim.hardware import area, energy
from accelsim.hardware.schema import SystolicDevice
from accelsim.workload.graph import Graph

LANES = {"matrix": "array", "vector": "vector", "memory": "dma", "link": "link"}


def lower(graph: Graph, device: SystolicDevice, options: Options) -> Program:
    """Decide how a graph runs on a systolic device.

    Matrix operators run on the arrays with the elementwise work that follows them, everything else on the
    vector unit, as memory copies or on the link. Kernels run in dependency order; units work at the same time
    where the graph lets them. A batch whose activations do not stay on chip may run in turns of fewer items.

    Raises
    ------
    InfeasibleError
        ``precision``: a product in a format that the arrays lack. ``sram``: one element of each operand and
        a sum do not fit. ``link``: a collective on a device without a link.
    """
    best = _at_once(graph, device, options)
    if options.cold or graph.batch == 1:
        return best
    rank = _least if options.fidelity == "analytic" else _worth
    kept = WEIGHT_SHARES[-1] * device.sram.capacity_bytes if device.sram.keeps_weights else 0.0
    streamed = max(0.0, graph.weight_bytes - kept)
    ends = sum(t.size_bytes for t in (*graph.inputs, *graph.outputs))
    spare = rank(best)[-1] - streamed - ends
    halves = [2**i for i in range(1, graph.batch.bit_length()) if graph.batch % 2**i == 0]
    for count in dict.fromkeys([*halves, graph.batch]):
        # Each turn reads the weights again: no use where that is more than what else crosses.
        if (count - 1) * streamed < spare:
            part = _turns(graph, device, options, count)
            if part is not None and rank(part) < rank(best):
                best = part
    return best


def _least(program: Program) -> tuple[float, ...]:
    """Bytes that must cross the memory interface in a run."""
    work: Totals = program.parameters["totals"]
    return (float((work.bytes_dram * work.repeats).sum()),)


def _turns(graph: Graph, device: SystolicDevice, options: Options, count: int) -> Program | None:
    """The program of a batch in `count` turns, None where the graph cannot be cut."""
    try:
        part = graph.with_batch(graph.batch // count)
    except AccelsimError:
        return None
    one = _at_once(part, device, options)
    work: Totals = one.parameters["totals"]
    parameters = {**one.parameters, "totals": replace(work, repeats=work.repeats * count)}
    kernels = tuple(replace(kernel, repeat=kernel.repeat * count) for kernel in one.kernels)
    notes = (f"the batch runs in {count} turns of {part.batch}", *one.notes)
    held = graph.weight_bytes + graph.kv_bytes + graph.peak_activation_bytes
    return replace(one, graph=graph, kernels=kernels, memory_bytes=held, notes=notes, parameters=parameters)


def _at_once(graph: Graph, device: SystolicDevice, options: Options) -> Program:
    """The program of all items together."""
    lacking = _lacking(graph, tuple(device.array.macs_per_pe))
    if lacking is not None:
        name, wanted = lacking
        have = device.array.macs_per_pe
        raise InfeasibleError(
            "precision",
            f"{wanted.name} products ('{name}')",
            ", ".join(have),
            f"the nearest that {device.name} has is {nearest(wanted, have)}",
        )
    sparsity, sparse_notes = _sparsity(graph, options, device)
    ready = _prepared(graph, sparsity, device.array.skips_zeros, device.array.accumulator)
    if device.link is None and ready.linked:
        raise InfeasibleError(
            "link", "a link between devices", "none", f"run on one device, or give {device.name} a 'link'"
        )
    _check_sram(ready.largest, device)
    sizes = area.parts(device)
    shared = _Shared(
        device,
        options,
        sparsity,
        (*_energy_notes(device), *sparse_notes),
        {f"area_{part.name}_m2": part.area_m2 for part in sizes},
        {f"resource_area_{part.name}_m2": part.basis for part in sizes if isnan(part.area_m2)},
    )
    cold = _program(ready, shared, None)
    if options.cold:
        return cold
    room = device.sram.capacity_bytes - (device.sram.ofmap_bytes or 0.0)
    shares = (0.0, *WEIGHT_SHARES) if device.sram.keeps_weights else (0.0,)
    plans = [ready.plan(room, share) for share in shares]
    warm = [_program(ready, shared, p) for p in plans if p.tensors or p.weight_bytes]
    whole = [*warm, cold]
    sliced = [_in_bands(p, ready, room, shared) for p in whole] if device.sram.bands else []
    if options.fidelity == "analytic":
        # Whatever the plan, no more than this can stay.
        return min([*whole, *sliced], key=_least)
    # What stays takes room from tiles: keep it only where that pays.
    best = warm[0] if len(warm) == 1 and _tiles_free(warm[0]) else min(whole, key=_worth)
    return (
        min([best, *(p for p in sliced if _worth(p)[1] <= _worth(best)[1])], key=_worth) if sliced else best
    )


@dataclass(frozen=True)
class _Prepared:
    """All of a program that does not depend on the device's sizes."""

    graph: Graph
    kernels: tuple[Kernel, ...]
    nests: Nests
    totals: Totals
    usage: Usage
    memory_bytes: float
    plans: dict[tuple[float, float], Residency] = field(default_factory=dict)
    kept: dict[Residency, tuple[Nests, Totals]] = field(default_factory=dict)

    @cached_property
    def largest(self) -> tuple[float, ...]:
        """Bytes of the smallest tiles: of all operands, of a left one, of a right one, of sums [B]."""
        n = self.nests
        pairs = 2 * (n.left_element + n.right_element) + n.sum_element
        needs = (pairs, 2 * n.left_element, 2 * n.right_element, n.sum_element)
        return tuple(float(need.max(initial=0.0)) for need in needs)

    @cached_property
    def kinds(self) -> frozenset[str]:
        """Kinds of the operators that kernels are named after."""
        return frozenset(kernel.anchor.kind for kernel in self.kernels)

    @cached_property
    def linked(self) -> bool:
        """Whether devices exchange data."""
        return any(kernel.lane == "link" for kernel in self.kernels)

    def plan(self, room: float, share: float) -> Residency:
        """The residency plan of a memory: designs of a sweep share a few sizes."""
        held = self.plans.get((room, share))
        if held is None:
            held = self.plans[room, share] = plan(self.usage, room, share)
        return held

    def keep(self, residency: Residency, sparsity: Sparsity) -> tuple[Nests, Totals]:
        """Nests and totals of a plan."""
        held = self.kept.get(residency)
        if held is None:
            held = keep_on_chip(self.kernels, self.nests, self.totals, residency, sparsity)
            self.kept[residency] = held
        return held


@lru_cache(maxsize=32)
def _prepared(graph: Graph, sparsity: Sparsity, skips: bool, sums: str | None) -> _Prepared:
    kernels = tuple(_kernel(group) for group in fuse(graph, epilogue))
    work = totals(kernels, sparsity)
    memory_bytes = graph.weight_bytes + graph.kv_bytes + graph.peak_activation_bytes
    return _Prepared(
        graph,
        kernels,
        collect(kernels, sparsity, skips, sums),
        work,
        usage(kernels, graph, work.bytes_compulsory.tolist()),
        memory_bytes,
    )


@dataclass(frozen=True)
class _Shared:
    """What the programs of all residency plans of a network on a device have in common."""

    device: SystolicDevice
    options: Options
    sparsity: Sparsity
    notes: tuple[str, ...]
    resources: dict[str, float]
    missing: dict[str, str]


def _program(ready: _Prepared, shared: _Shared, residency: Residency | None) -> Program:
    """The program of a residency plan; None is a cold device."""
    nests, work = ready.nests, ready.totals
    if residency is not None:
        nests, work = ready.keep(residency, shared.sparsity)
    else:
        residency = nothing(len(ready.kernels))
    parameters = {
        "nests": nests,
        "totals": work,
        "residency": residency,
        "resources": shared.resources,
        "missing": shared.missing,
    }
    notes = (*_notes(ready.kinds, residency), *shared.notes)
    return Program(
        ready.graph,
        shared.device,
        shared.options,
        ready.kernels,
        "sequential",
        ready.memory_bytes,
        notes,
        parameters,
    )


def _in_bands(program: Program, ready: _Prepared, room: float, shared: _Shared) -> Program:
    """The program of a plan with chains of layers in bands of rows."""
    nests = ready.nests
    rows = nests.m * (nests.k * nests.left_element + nests.n * nests.sum_element)
    workspace = [0.0] * len(ready.kernels)
    for index, size in zip(nests.kernel.tolist(), rows.tolist()):
        workspace[index] = max(workspace[index], size)
    held: Residency = program.parameters["residency"]
    plan = banded(held, ready.usage, ready.kernels, workspace, room)
    if max(plan.bands, default=1) == 1:
        return program
    return _program(ready, shared, plan)


def _tiles_free(program: Program) -> bool:
    """Whether tiles cost no traffic beyond what must move: then keeping tensors cannot be slower than not."""
    from accelsim.architectures.systolic.cost import extra_bytes

    return extra_bytes(program) == 0.0


def _worth(program: Program) -> tuple[float, ...]:
    """Seconds of a run; between equals, traffic decides [B]."""
    # numba is imported by the kernels: only runs that need them pay for it.
    from accelsim.architectures.systolic.cost import worth

    return worth(program)


def _sparsity(graph: Graph, options: Options, device: SystolicDevice) -> tuple[Sparsity, tuple[str, ...]]:
    """The pattern that all weights are assumed to carry, or that of those that carry one."""
    marked = next((t.pattern for t in graph.weights if t.pattern), "")
    pattern = marked if options.sparsity == "dense" else options.sparsity
    if not pattern:
        return Sparsity(coded=device.codes_zeros), ()
    keep, block = split_pattern(pattern)
    if device.array.sparse_speedup == 1.0:
        return Sparsity(coded=device.codes_zeros), (
            f"{device.name} has no sparse mode: {pattern} weights run as dense ones",
        )
    only = pattern if options.sparsity == "dense" else ""
    return Sparsity(keep, block, device.array.sparse_speedup, device.codes_zeros, only), ()


def _check_sram(needs: tuple[float, ...], device: SystolicDevice) -> None:
    sram = device.sram
    for have, need in zip(
        (sram.capacity_bytes, sram.ifmap_bytes, sram.filter_bytes, sram.ofmap_bytes), needs
    ):
        if have is not None and need > have:
            raise InfeasibleError(
                "sram", f"{si(need, 'B')} for one tile", si(have, "B"), "enlarge the on-chip memory"
            )


def _kernel(group: Group) -> Kernel:
    lane = LANES[group.anchor.work.engine]
    return Kernel(group.anchor.name, group.ops, group.inputs, group.outputs, lane, group.after, group.repeat)


@lru_cache(maxsize=64)
def _lacking(graph: Graph, have: tuple[str, ...]) -> tuple[str, Precision] | None:
    """The first op with a product in a format that the arrays lack, and the format."""
    for group in fuse(graph, epilogue):
        for op in group.ops:
            for _, left, right in operands(op):
                given = [t for t in (left, right) if t is not None]
                if not given:
                    continue
                wide = compute_precision(op)
                for t in given:
                    narrow = t.role in ("weight", "kv") and t.precision.bits < wide.bits
                    if t.precision.name not in have and not narrow:
                        return op.name, t.precision
    return None


def nearest(wanted: Precision, have: Iterable[str]) -> str:
    """The format closest to a missing one: the same kind first, then the closest width, the wider of two."""

    def distance(name: str) -> tuple[bool, int, int]:
        p = PRECISIONS[name]
        return p.is_integer != wanted.is_integer, abs(p.bits - wanted.bits), -p.bits

    return min(have, key=distance)


def _notes(kinds: frozenset[str], residency: Residency) -> tuple[str, ...]:
    notes = []
    if residency.tensors:
        notes.append(f"{residency.tensors} activations stay on chip between kernels")
    else:
        notes.append("every kernel reads its inputs from and writes its outputs to external memory")
    if max(residency.bands, default=1) > 1:
        inside = sum(1 for count in residency.bands if count > 1)
        notes.append(f"{inside} kernels run in bands of rows, up to {max(residency.bands)} of them")
    if residency.weight_bytes:
        notes.append(f"{si(residency.weight_bytes, 'B')} of weights stay on chip from run to run")
    if kinds & {"attention", "mla_attention"}:
        notes.append("attention scores stay on chip")
    if kinds & {"grouped_matmul"}:
        notes.append("experts are chosen evenly")
    return tuple(notes)


def _energy_notes(device: SystolicDevice) -> tuple[str, ...]:
    notes = []
    e = device.energy
    own = {"mac": e.mac_j, "vector": e.vector_op_j, "sram": e.sram_byte_j, "dram": e.dram_byte_j}
    tables = [part for part, value in own.items() if value is None or value == {}]
    if tables:
        notes.append(f"energy of {', '.join(tables)}: assumed, from public tables by node and size")
    unknown = [part for part in ("vector", "sram", "dram") if isnan(energy.coefficient(device, part).value_j)]
    if unknown:
        notes.append(f"no energy coefficient for {', '.join(unknown)}: those parts are unknown")
    return tuple(notes)
