"""From a graph to kernels: fusion, the geometry of each kernel, where its data is, whether it all fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from math import inf, prod
from typing import Any

import numpy as np

from accelsim.architectures.base import Kernel, Options, Program
from accelsim.architectures.fusion import Group, Joins, fuse
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention import AttentionShape
from accelsim.architectures.gpu.collectives import collective_s
from accelsim.architectures.gpu.host import joining_rule
from accelsim.architectures.gpu.rates import product_precision, product_rate, vector_rate
from accelsim.architectures.gpu.tiles import tile_table
from accelsim.core.units import si
from accelsim.workload.graph import Graph, Op, Tensor

RESERVE = 0.05
"""Share of the memory need added for the runtime, workspaces and fragmentation (assumed)."""

ISOLATED_COPIES = 6
"""An operator on its own is taken as one of this many identical layers in turn, so its weights return after
that many times their size; how the public tables of measured kernels were taken.
"""

CHANNEL_ALIGNMENT = 8
"""Tensor-core convolutions pad channels to multiples of this."""

SPARSE_BYTES = 0.5 + 0.0625
"""Storage of 2:4 weights over dense 16-bit ones: half the values and two bits of position for each."""


@dataclass
class Plan:
    """What `cost` needs beside the kernels: rows of the numba kernel and the parts that are costed elsewhere.

    Attributes
    ----------
    rows : list of list of float
    owner, times : list
        Kernel that a row belongs to, and how often the row runs per execution.
    operands : list of (float, float)
        Bytes per element of the tile tables, by index.
    attention : dict
        Kernel index to (shape, FLOP per SM and clock, clock).
    link : dict
        Kernel index to (transfer, latency) [s].
    analytic : list of (float, float)
        Per kernel: time at peak arithmetic and at peak bandwidth [s].
    names : list of str
        Precision that a kernel's arithmetic runs in.
    flops, vector_ops : list of float
        Arithmetic of a kernel.
    """

    rows: list[list[float]] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    operands: list[tuple[float, float]] = field(default_factory=list)
    attention: dict[int, tuple[AttentionShape, float, float]] = field(default_factory=dict)
    link: dict[int, tuple[float, float]] = field(default_factory=dict)
    analytic: list[tuple[float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    vector_ops: list[float] = field(default_factory=list)

    def table(self, bytes_a: float, bytes_b: float) -> float:
        """Index of the tile table for operands of these widths."""
        pair = (bytes_a, bytes_b)
        if pair not in self.operands:
            self.operands.append(pair)
        return float(self.operands.index(pair))

    def add(self, kernel: int, row: list[float], times: float = 1.0) -> None:
        self.rows.append(row)
        self.owner.append(kernel)
        self.times.append(times)


@dataclass(frozen=True)
class Locality:
    """Bytes that pass between two uses of a group's data; infinite when caches are cold."""

    left: float
    weights: float
    outputs: float
    extra: float

    def of(self, t: Tensor, anchor: Op) -> float:
        if t.role == "weight":
            return self.weights
        return self.left if t.name == anchor.inputs[0].name else self.extra


def lower(graph: Graph, device: Any, options: Options) -> Program:
    """Decide how a graph runs on a GPU.

    Raises
    ------
    InfeasibleError
        A product's precision is not supported.
    """
    need, kernels, bytes_of, groups = _prepared(graph, joining_rule(options.stack))
    plan = Plan()
    localities = _localities(groups, bytes_of, options.cold)
    for index, (kernel, traffic, locality) in enumerate(zip(kernels, bytes_of, localities)):
        _plan_kernel(plan, index, kernel, traffic, locality, device, options)
    evidence = device.quantities["kernels.product.ramp"]
    notes = [f"kernel constants {evidence.status}: {evidence.source}"]
    if not options.cold:
        notes.append(
            "warm: the graph runs back to back, so what still lies in the L2 is not read from memory again"
        )
    if options.stack == "eager":
        notes.append(f"eager: the host needs {si(device.launch.eager_s, 's')} per operator")
    return Program(
        graph,
        device,
        options,
        kernels,
        "sequential",
        need,
        tuple(notes),
        {"plan": plan},
    )


@lru_cache(maxsize=64)
def _prepared(
    graph: Graph, joins: Joins
) -> tuple[float, tuple[Kernel, ...], tuple[float, ...], tuple[Group, ...]]:
    """What does not depend on the device: memory need, kernels and their compulsory traffic."""
    groups = fuse(graph, joins)
    kernels = tuple(
        Kernel(
            g.anchor.name,
            g.ops,
            g.inputs,
            g.outputs,
            "link" if g.anchor.work.link_bytes else "sm",
            g.after,
            g.repeat,
        )
        for g in groups
    )
    return _memory_bytes(graph), kernels, tuple(k.bytes_compulsory for k in kernels), groups


def _memory_bytes(graph: Graph) -> float:
    """Resident bytes with the reserve [B]."""
    return (graph.weight_bytes + graph.kv_bytes + graph.peak_activation_bytes) * (1.0 + RESERVE)


def _localities(groups: tuple[Group, ...], traffic: tuple[float, ...], cold: bool) -> list[Locality]:
    """How far back each group's data was touched last, in bytes of traffic since.

    Weights and graph inputs return once per run, after all the traffic of a run. An activation returns after
    the traffic since its producer. Results overwrite a buffer that the same kernel used a kernel's traffic
    ago. Operators without edges are loops of their own.
    """
    if cold:
        return [Locality(inf, inf, inf, inf)] * len(groups)
    isolated = not any(g.after for g in groups)
    run = sum(own * g.repeat for own, g in zip(traffic, groups))
    since = list(accumulate(traffic))
    home = {t.name: i for i, g in enumerate(groups) for t in g.outputs}
    found = []
    for i, g in enumerate(groups):
        own = traffic[i]
        if isolated:
            weights = sum(t.size_bytes for t in g.inputs if t.role == "weight")
            copies = ISOLATED_COPIES if g.repeat == 1 else g.repeat
            found.append(Locality(own, own + (copies - 1) * weights, own, own))
            continue
        first = g.anchor.inputs[0].name if g.anchor.inputs else ""
        left, extra = 0.0, 0.0
        for t in g.inputs:
            if t.role == "weight":
                continue
            source = home.get(t.name)
            distance = run if source is None else since[i] - since[source] + t.size_bytes
            if t.name == first:
                left = distance
            else:
                extra = max(extra, distance)
        found.append(Locality(left, run, own, extra))
    return found


def _plan_kernel(
    plan: Plan, index: int, kernel: Kernel, traffic: float, at: Locality, device: Any, options: Options
) -> None:
    anchor = kernel.anchor
    work = anchor.work
    memory_s = traffic / device.memory.bandwidth_bytes_per_s
    vector_ops = sum(op.work.vector_ops for op in kernel.ops)
    flops = work.flops
    plan.flops.append(flops)
    plan.vector_ops.append(vector_ops)
    if work.link_bytes:
        transfer, latency = collective_s(anchor, device, options.stack)
        plan.link[index] = (transfer, latency)
        plan.analytic.append((0.0, transfer))
        plan.names.append("")
        return
    if not work.nests:
        plan.names.append(anchor.outputs[0].precision.name)
        plan.analytic.append((0.0, memory_s))
        plan.add(index, _stream_row(kernel, traffic, at, vector_ops, device))
        return
    operand = product_precision(anchor.inputs[0], anchor.inputs[1])
    rate, clock, tensor = product_rate(device, operand.name)
    plan.names.append(operand.name)
    if anchor.kind in ("attention", "mla_attention"):
        plan.attention[index] = (_attention_shape(kernel, traffic, at, device), rate, clock)
        plan.analytic.append((flops / (rate * clock * device.sm.count), memory_s))
        return
    sparse = (
        options.sparsity == "2:4"
        and tensor
        and anchor.inputs[1].role == "weight"
        and device.sm.sparse_speedup > 1
    )
    if sparse:
        rate *= device.sm.sparse_speedup
        saved = (1.0 - SPARSE_BYTES) * anchor.inputs[1].size_bytes
        traffic -= saved
        memory_s = traffic / device.memory.bandwidth_bytes_per_s
    plan.analytic.append((flops / (rate * clock * device.sm.count), memory_s))
    vector = vector_rate(device, anchor.outputs[0].precision.name)
    if anchor.kind == "conv" and _is_depthwise(anchor):
        row = _stream_row(kernel, traffic, at, vector_ops + flops / 2.0, device)
        plan.add(index, row)
        return
    if anchor.kind in ("lstm", "gru"):
        _plan_recurrent(plan, index, kernel, traffic, at, rate, clock, vector, vector_ops)
        return
    nest = work.nests[0]
    left, right = anchor.inputs[0], anchor.inputs[1]
    bytes_a, bytes_b = left.precision.bytes_per_element, right.precision.bytes_per_element
    m, n, k = nest.m, nest.n, nest.k
    if anchor.kind == "conv" and tensor:
        channels = nest.k_loops["c"]
        k = k // channels * _aligned(channels)
        n = _aligned(n)
    a_bytes = left.size_bytes
    b_bytes = right.size_bytes
    if anchor.kind == "grouped_matmul":
        b_bytes = max(0.0, work.bytes_read - a_bytes)
    if sparse:
        b_bytes *= SPARSE_BYTES
    c_bytes = sum(t.size_bytes for t in kernel.outputs)
    extra = max(0.0, traffic - a_bytes - b_bytes - c_bytes)
    bytes_c = c_bytes / max(1.0, float(nest.batch) * m * n)
    sizes = (nest.batch, m, n, k)
    widths = (bytes_a, bytes_b, bytes_c)
    moved = (a_bytes, b_bytes, c_bytes, extra)
    distances = (at.of(left, anchor), at.of(right, anchor), at.outputs, at.extra or at.outputs)
    rest = (vector_ops, vector, plan.table(bytes_a, bytes_b), nest.share)
    plan.add(index, [R.MATRIX, *sizes, *widths, rate, clock, *moved, *distances, *rest])


def _aligned(channels: int) -> int:
    return -(-channels // CHANNEL_ALIGNMENT) * CHANNEL_ALIGNMENT


def _is_depthwise(op: Op) -> bool:
    """With fewer input channels per group than a fragment is deep, a convolution runs on the vector lanes."""
    groups = op.attribute("groups", 1)
    return groups > 1 and op.inputs[0].shape[1] // groups < CHANNEL_ALIGNMENT


def _stream_row(kernel: Kernel, traffic: float, at: Locality, vector_ops: float, device: Any) -> list[float]:
    """A kernel bound by memory or vector lanes."""
    anchor = kernel.anchor
    written = sum(t.size_bytes for t in kernel.outputs)
    activations = sum(t.size_bytes for t in kernel.inputs if t.role == "activation")
    weights = sum(t.size_bytes for t in kernel.inputs if t.role == "weight")
    if activations + weights + written > traffic:  # a gather reads a few rows of its table
        weights = max(0.0, traffic - activations - written)
        activations = min(activations, max(0.0, traffic - written))
    extra = max(0.0, traffic - activations - weights - written)
    row = [0.0] * R.WIDTH
    row[R.KIND], row[R.CLOCK] = R.STREAM, float(device.sm.clock_hz)
    row[R.A_BYTES], row[R.B_BYTES], row[R.C_BYTES], row[R.EXTRA_BYTES] = activations, weights, written, extra
    row[R.A_DISTANCE], row[R.B_DISTANCE] = max(at.left, at.extra), at.weights
    row[R.C_DISTANCE], row[R.EXTRA_DISTANCE] = at.outputs, at.weights
    row[R.VECTOR_OPS], row[R.VECTOR_RATE] = vector_ops, vector_rate(device, anchor.outputs[0].precision.name)
    row[R.SHARE] = 1.0
    return row


def _plan_recurrent(
    plan: Plan,
    index: int,
    kernel: Kernel,
    traffic: float,
    at: Locality,
    rate: float,
    clock: float,
    vector: float,
    vector_ops: float,
) -> None:
    """The input product of all steps at once, then a small product per step whose weights stay in the L2."""
    x, w_ih, w_hh = kernel.anchor.inputs[:3]
    ahead, step = kernel.anchor.work.nests
    bytes_a, bytes_b = x.precision.bytes_per_element, w_ih.precision.bytes_per_element
    written = sum(t.size_bytes for t in kernel.outputs)
    extra = max(0.0, traffic - x.size_bytes - w_ih.size_bytes - written)
    widths = (bytes_a, bytes_b, bytes_a)
    table = plan.table(bytes_a, bytes_b)
    sizes = (ahead.batch, ahead.m, ahead.n, ahead.k)
    moved = (x.size_bytes, w_ih.size_bytes, written, extra)
    distances = (at.left, at.weights, at.outputs, at.weights)
    rest = (0.0, vector, table, 1.0)
    plan.add(index, [R.MATRIX, *sizes, *widths, rate, clock, *moved, *distances, *rest])
    state = step.batch * step.m * step.k * bytes_a
    sizes = (step.batch, step.m, step.n, step.k)
    moved = (state, w_hh.size_bytes, state, 0.0)
    distances = (0.0, w_hh.size_bytes + 2.0 * state, 0.0, 0.0)
    rest = (vector_ops / step.steps, vector, table, 1.0)
    plan.add(index, [R.MATRIX, *sizes, *widths, rate, clock, *moved, *distances, *rest], float(step.steps))


def _attention_shape(kernel: Kernel, traffic: float, at: Locality, device: Any) -> AttentionShape:
    """Geometry of a fused attention kernel; what its producers left in the L2 is not read from memory."""
    anchor = kernel.anchor
    scores, values = anchor.work.nests
    capacity = device.l2.capacity_bytes * device.kernels.product.l2_share
    query = anchor.inputs[0]
    cached = sum(t.size_bytes for t in anchor.inputs[1:] if t.role == "kv")
    written = sum(t.size_bytes for t in kernel.outputs)
    fresh = max(0.0, traffic - query.size_bytes - written - cached)
    cached = traffic - query.size_bytes - written - fresh
    dram = (
        query.size_bytes * (1 - resident_share(capacity, at.left))
        + fresh * (1 - resident_share(capacity, at.extra))
        + cached * (1 - resident_share(capacity, at.weights))
        + written * (1 - resident_share(capacity, at.outputs))
    )
    key_bytes = prod(anchor.inputs[1].shape) * anchor.inputs[1].precision.bytes_per_element
    return AttentionShape(
        scores.batch,
        scores.m,
        scores.n,
        scores.k,
        values.n,
        scores.share,
        anchor.inputs[1].precision.bytes_per_element,
        dram,
        key_bytes,
    )


def resident_share(capacity: float, distance: float) -> float:
    """Share of a tensor still in the L2 after `distance` bytes; the plain twin of `sm.resident`."""
    if distance <= 0.0:
        return 1.0
    return min(1.0, max(0.0, (capacity / distance - 0.8333) / 0.4167))


def as_arrays(plan: Plan, device: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows and stacked tile tables for the numba kernel."""
    rows = np.array(plan.rows, dtype=np.float64) if plan.rows else np.zeros((0, R.WIDTH))
    tables = [tile_table(device, a, b) for a, b in plan.operands] or [tile_table(device, 2.0, 2.0)]
    return rows, np.stack(tables)
