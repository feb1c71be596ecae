"""From a graph to a program for a systolic device: what runs together, on which unit, and whether it fits."""

from __future__ import annotations

from collections.abc import Iterable

from accelsim.architectures.base import Kernel, Options, Program
from accelsim.architectures.fusion import Group, epilogue, fuse
from accelsim.architectures.systolic.nests import collect, operands, totals
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import PRECISIONS, Precision
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
        ``precision``: a product in a format that the arrays lack. ``link``: a collective on a device without
        a link.
    """
    groups = fuse(graph, epilogue)
    _check_precisions(groups, device)
    memory_bytes = graph.weight_bytes + graph.kv_bytes + graph.peak_activation_bytes
    kernels = tuple(_kernel(group) for group in groups)
    if device.link is None and any(kernel.lane == "link" for kernel in kernels):
        raise InfeasibleError(
            "link", "a link between devices", "none", f"run on one device, or give {device.name} a 'link'"
        )
    notes = _notes(kernels, device)
    parameters = {"nests": collect(kernels), "totals": totals(kernels)}
    return Program(graph, device, options, kernels, "sequential", memory_bytes, notes, parameters)


def _kernel(group: Group) -> Kernel:
    lane = LANES[group.anchor.work.engine]
    return Kernel(group.anchor.name, group.ops, group.inputs, group.outputs, lane, group.after, group.repeat)


def _check_precisions(groups: Iterable[Group], device: SystolicDevice) -> None:
    have = device.array.macs_per_pe
    for group in groups:
        for op in group.ops:
            for _, left, right in operands(op):
                for t in (left, right):
                    if t is not None and t.precision.name not in have:
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


def _notes(kernels: tuple[Kernel, ...], device: SystolicDevice) -> tuple[str, ...]:
    notes = ["every kernel reads its inputs from and writes its outputs to external memory"]
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
