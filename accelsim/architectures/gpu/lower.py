"""From a graph to kernels: fusion, the geometry of each kernel, where its data is, whether it all fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from math import inf
from typing import Any

import numpy as np

from accelsim.architectures.base import Kernel, Options, Program
from accelsim.architectures.fusion import Group, Joins, fuse
from accelsim.architectures.gpu import conv as C
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention_lower import FUSED, attention_constants, attention_row
from accelsim.architectures.gpu.collectives import collective_s
from accelsim.architectures.gpu.formats import product_constants, row_limits
from accelsim.architectures.gpu.host import host_bound_s, joining_rule
from accelsim.architectures.gpu.moe import FEW, TUNED, format_name, kinds, moe_model
from accelsim.architectures.gpu.power import DECODE, PREFILL, PRODUCT, family
from accelsim.architectures.gpu.rates import product_precision, product_rate, vector_rate
from accelsim.architectures.gpu.recurrent import plan_recurrent
from accelsim.architectures.gpu.tiles import STEP_BYTES, TILES, tile_table
from accelsim.core.sparsity import stored_share
from accelsim.core.units import si
from accelsim.hardware.expert_kernels import MoeModel
from accelsim.hardware.kernels import AttentionModel, ProductModel
from accelsim.hardware.stacks import stack_of
from accelsim.workload.graph import Graph, Op, Tensor

RESERVE = 0.05
"""Share of the memory need added for the runtime, workspaces and fragmentation (assumed)."""

ISOLATED_COPIES = 6
"""An operator on its own is taken as one of this many identical layers in turn, so its weights return after
that many times their size; how the public tables of measured kernels were taken.
"""

SPARSE_PATTERN = "2:4"
"""What sparse tensor cores take (Mishra et al., arXiv:2104.08378)."""

SPARSE_KINDS = ("conv", "matmul", "grouped_matmul")
"""Products that libraries offer on them."""


@dataclass
class Plan:
    """What `cost` needs beside the kernels: rows of the numba kernel and the parts that are costed elsewhere.

    Attributes
    ----------
    rows : list of list of float
    owner, times, launches, choice : list
        Kernel that a row belongs to, how often the row runs and is launched per execution, and which of the
        kernel's algorithms it is part of: the fastest is taken.
    algorithms : dict
        Kernel index to the names of its algorithms, where it has several or a special one.
    serial_s : dict
        Kernel index to what its first algorithm takes beside its rows [s].
    operands : list of tuple
        Arguments of the tile tables, by index.
    constants : dict
        Row to its constants, where they are not those of plain products.
    convolutions : list of (int, tuple)
        Kernel index and record of `conv.Layers`, not yet rows.
    attention : dict
        Kernel index to (row of the attention kernel, constants).
    compressed : set of int
        Kernels whose weights the tensor cores take compressed: nothing unpacks them.
    grouped : dict
        Kernel index of a grouped product to its constants.
    link : dict
        Kernel index to (transfer, latency) [s].
    analytic : list of (float, float)
        Per kernel: time at peak arithmetic and at peak bandwidth [s].
    names : list of str
        Precision that a kernel's arithmetic runs in.
    families : list of str
        Family of a kernel in ``kernels.power``.
    flops, vector_ops : list of float
        Arithmetic of a kernel.
    """

    rows: list[list[float]] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    launches: list[float] = field(default_factory=list)
    choice: list[int] = field(default_factory=list)
    algorithms: dict[int, tuple[str, ...]] = field(default_factory=dict)
    serial_s: dict[int, float] = field(default_factory=dict)
    operands: list[C.TableKey] = field(default_factory=list)
    convolutions: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    constants: dict[int, ProductModel] = field(default_factory=dict)
    attention: dict[int, tuple[list[float], AttentionModel]] = field(default_factory=dict)
    compressed: set[int] = field(default_factory=set)
    grouped: dict[int, MoeModel] = field(default_factory=dict)
    link: dict[int, tuple[float, float]] = field(default_factory=dict)
    analytic: list[tuple[float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    families: list[str] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    vector_ops: list[float] = field(default_factory=list)

    def table(self, *keys: C.TableKey) -> float:
        """Index of the first of some tile tables that stand next to each other."""
        count = len(keys)
        for start in range(len(self.operands) - count + 1):
            if tuple(self.operands[start : start + count]) == keys:
                return float(start)
        self.operands += keys
        return float(len(self.operands) - count)

    def add(
        self,
        kernel: int,
        row: list[float],
        times: float = 1.0,
        *,
        launches: float | None = None,
        choice: int = 0,
    ) -> None:
        """Add a row that runs `times` per execution, each with a launch unless `launches` says otherwise."""
        self.rows.append(row)
        self.owner.append(kernel)
        self.times.append(times)
        self.launches.append(times if launches is None else launches)
        self.choice.append(choice)


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
    need, kernels, bytes_of, localities = _prepared(graph, joining_rule(options.stack), options.cold)
    plan = Plan()
    appends = any(op.kind == "kv_write" for op in graph.ops)
    for index, (kernel, traffic, locality) in enumerate(zip(kernels, bytes_of, localities)):
        _plan_kernel(plan, index, kernel, traffic, locality, device, options, appends)
    _plan_convolutions(plan, device, options)
    if any(k.after for k in kernels):
        for row in plan.rows:
            row[R.STEADY] = 1.0
    for position, owner in enumerate(plan.owner):
        if owner in plan.compressed:
            constants = plan.constants.get(position, device.kernels.product)
            plan.constants[position] = constants.model_copy(update={"unpack_cycles": 0.0})
    evidence = device.quantities["kernels.product.launch_cycles"]
    notes = [f"kernel constants {evidence.status}: {evidence.source}"]
    if not options.cold:
        notes.append(
            "warm: the graph runs back to back, so what still lies in the L2 is not read from memory again"
        )
    stack = stack_of(options.stack)
    notes.append(f"stack {options.stack}: {stack.title}")
    if stack.host_operators:
        notes.append(
            f"{options.stack}: the host needs {si(host_bound_s(device, options.stack), 's')} per operator"
        )
    if stack.host_per_step_s:
        notes.append(f"{options.stack}: the host adds {si(stack.host_per_step_s, 's')} to each run")
    return Program(
        graph,
        device,
        options,
        kernels,
        "sequential",
        need - compressed_bytes(graph, device, options),
        tuple(notes),
        {"plan": plan},
        host_s=stack.host_per_step_s,
    )


@lru_cache(maxsize=64)
def _prepared(
    graph: Graph, joins: Joins, cold: bool
) -> tuple[float, tuple[Kernel, ...], tuple[float, ...], tuple[Locality, ...]]:
    """What does not depend on the device: memory need, kernels, their compulsory traffic and its locality."""
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
    traffic = tuple(k.bytes_compulsory for k in kernels)
    return _memory_bytes(graph), kernels, traffic, tuple(_localities(groups, traffic, cold))


def _memory_bytes(graph: Graph) -> float:
    """Resident bytes with the reserve [B]."""
    return (graph.weight_bytes + graph.kv_bytes + graph.peak_activation_bytes) * (1.0 + RESERVE)


def _stored(t: Tensor, device: Any, options: Options) -> float:
    """Storage of an operand over dense storage: weights that sparse tensor cores take lie compressed."""
    marked = SPARSE_PATTERN in (t.pattern, options.sparsity)
    if t.role != "weight" or not marked or device.sm.sparse_speedup == 1.0:
        return 1.0
    return stored_share(SPARSE_PATTERN, t.precision.bits)


def compressed_bytes(graph: Graph, device: Any, options: Options) -> float:
    """What compressed weights save of the memory need [B]."""
    if options.sparsity != SPARSE_PATTERN and not any(t.pattern for t in graph.weights):
        return 0.0
    saved = 0.0
    for op in graph:
        if op.kind in SPARSE_KINDS:
            t = op.inputs[1]
            saved += (1.0 - _stored(t, device, options)) * t.size_bytes * op.repeat
    return saved * (1.0 + RESERVE)


def _localities(groups: tuple[Group, ...], traffic: tuple[float, ...], cold: bool) -> list[Locality]:
    """How far back each group's data was touched last, in bytes of traffic since.

    Weights and graph inputs return once per run, after all the traffic of a run. An activation returns after
    the traffic since the kernel that wrote or read it last. Results overwrite a buffer that the same kernel
    used a kernel's traffic ago. Operators without edges are loops of their own.
    """
    if cold:
        return [Locality(inf, inf, inf, inf)] * len(groups)
    isolated = not any(g.after for g in groups)
    run = sum(own * g.repeat for own, g in zip(traffic, groups))
    since = list(accumulate(traffic))
    last = dict[str, int]()  # kernel that wrote or read a tensor last
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
            source = last.get(t.name)
            distance = run if source is None else since[i] - since[source] + t.size_bytes
            if t.name == first:
                left = distance
            else:
                extra = max(extra, distance)
        found.append(Locality(left, run, own, extra))
        last.update((t.name, i) for t in (*g.inputs, *g.outputs))
    return found


def _plan_kernel(
    plan: Plan,
    index: int,
    kernel: Kernel,
    traffic: float,
    at: Locality,
    device: Any,
    options: Options,
    appends: bool,
) -> None:
    anchor = kernel.anchor
    work = anchor.work
    memory_s = traffic / device.memory.bandwidth_bytes_per_s
    folded = stack_of(options.stack).folds_norms and anchor.kind in ("conv", "matmul")
    vector_ops = sum(op.work.vector_ops for op in kernel.ops if not (folded and op.kind == "batch_norm"))
    flops = work.flops
    plan.flops.append(flops)
    plan.vector_ops.append(vector_ops)
    plan.families.append(_family(anchor))
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
    if anchor.kind in FUSED:
        row = attention_row(kernel, traffic, at, rate, clock, appends)
        plan.attention[index] = (row, attention_constants(kernel, device, options.stack))
        plan.analytic.append((flops / (rate * clock * device.sm.count), memory_s))
        return
    stored = _stored(anchor.inputs[1], device, options) if tensor and anchor.kind in SPARSE_KINDS else 1.0
    if stored < 1.0:
        rate *= device.sm.sparse_speedup
        read = max(0.0, work.bytes_read - anchor.inputs[0].size_bytes)  # experts that no token chose are not
        saved = (1.0 - stored) * min(anchor.inputs[1].size_bytes, read)
        traffic -= saved
        memory_s = traffic / device.memory.bandwidth_bytes_per_s
    plan.analytic.append((flops / (rate * clock * device.sm.count), memory_s))
    vector = vector_rate(device, anchor.outputs[0].precision.name)
    if anchor.kind in ("lstm", "gru"):
        plan_recurrent(plan, index, kernel, traffic, at, (rate, clock, vector), device, options.stack)
        return
    nest = work.nests[0]
    left, right = anchor.inputs[0], anchor.inputs[1]
    # Tiles of compressed weights travel compressed, too.
    bytes_a, dense_b = left.precision.bytes_per_element, right.precision.bytes_per_element
    bytes_b = dense_b
    if stored < 1.0 and anchor.kind != "grouped_matmul":
        bytes_b *= stored
        plan.compressed.add(index)
    m, n, k = nest.m, nest.n, nest.k
    a_bytes = left.size_bytes
    b_bytes = right.size_bytes
    if anchor.kind == "conv":  # strides wider than the filter skip pixels
        a_bytes = work.bytes_read - sum(t.size_bytes for t in anchor.inputs[1:])
    if anchor.kind == "grouped_matmul":
        b_bytes = max(0.0, work.bytes_read - a_bytes)
        name = format_name(right.precision, left.precision)
        topk, experts = int(anchor.attribute("top_k")), int(anchor.attribute("experts"))
        tokens = left.shape[0] / topk
        # The width is the one side of these products that is not the model's; up and gate may be one.
        found = [str(kinds(device, options.stack, name, tokens, experts, width)) for width in (k, n, n // 2)]
        kernel_kind = TUNED if TUNED in found else found[0]
        plan.grouped[index] = moe_model(device, options.stack, name, topk < FEW, True, kernel_kind)
    b_bytes *= stored
    c_bytes = sum(t.size_bytes for t in kernel.outputs)
    extra = max(0.0, traffic - a_bytes - b_bytes - c_bytes)
    bytes_c = c_bytes / max(1.0, float(nest.batch) * m * n)
    moved = (a_bytes, b_bytes, c_bytes, extra)
    distances = (at.of(left, anchor), at.of(right, anchor), at.outputs, at.extra or at.outputs)
    if anchor.kind == "conv":
        lanes = C.lanes_of(device, operand.name)
        keys = C.table_keys(C.conv_model(device, options.stack), bytes_a, dense_b, tensor, lanes[0] > 0)
        units = (
            bytes_a,
            bytes_b,
            rate,
            clock,
            float(tensor),
            float(operand.is_integer),
            vector_ops,
            vector,
            plan.table(*keys),
        )
        tiles = _winograd_tiles(anchor) if lanes[0] else (0.0, 0.0)
        record = (*_window(anchor, m), *moved, *distances, *units, *tiles, *lanes)
        plan.convolutions.append((index, record))
        return
    sizes = (nest.batch, m, n, k)
    widths = (bytes_a, bytes_b, bytes_c)
    table = plan.table((bytes_a, dense_b, STEP_BYTES, TILES, True))
    rest = (vector_ops, vector, table, nest.share, float(operand.is_integer), 0.0)
    kind = R.MATRIX
    if anchor.kind == "matmul" and right.role == "weight":
        which = (device, options.stack, right.precision, left.precision)
        most = next(rows for rows in row_limits(*which) if m <= rows)
        constants, splits = product_constants(*which, most_rows=most)
        kind = R.MATRIX if splits else R.UNSPLIT
        if constants is not device.kernels.product:
            plan.constants[len(plan.rows)] = constants
    plan.add(index, [kind, *sizes, *widths, rate, clock, *moved, *distances, *rest])


def _window(op: Op, pixels: int) -> tuple[float, ...]:
    """Groups, pixels, filters, channels, kernel positions and stride of a convolution."""
    nest = op.work.nests[0]
    channels = nest.k_loops["c"]
    stride = max(op.attribute("stride", (1,)))
    return tuple(map(float, (nest.batch, pixels, nest.n, channels, nest.k // channels, stride)))


def _winograd_tiles(op: Op) -> tuple[float, float]:
    """Winograd tiles of a two-dimensional convolution of stride one."""
    x, w, y = op.inputs[0], op.inputs[1], op.outputs[0]
    ones = all(v == 1 for key in ("stride", "dilation") for v in op.attribute(key, (1,)))
    plain = ones and not op.attribute("transposed", False) and op.attribute("groups", 1) == 1
    if len(x.shape) != 4 or not plain:
        return 0.0, 0.0
    kernel, size = (w.shape[2], w.shape[3]), (y.shape[2], y.shape[3])
    return C.winograd_tiles_of(kernel, size, x.shape[0])


def _plan_convolutions(plan: Plan, device: Any, options: Options) -> None:
    """Rows of all convolutions of the graph at once."""
    if not plan.convolutions:
        return
    layers = C.Layers.of([record for _, record in plan.convolutions])
    indices = [index for index, _ in plan.convolutions]
    model, planar = C.conv_model(device, options.stack), stack_of(options.stack).planar
    made = C.kernels_of(layers, model, device.sm.count, planar=planar)
    columns = (made.rows.tolist(), made.owner.tolist(), made.launches.tolist(), made.algorithm.tolist())
    for row, owner, launches, algorithm in zip(*columns):
        plan.add(indices[owner], row, launches=launches, choice=algorithm)
    for index, flops in zip(indices, C.least_flops(layers).tolist()):
        plan.algorithms[index] = C.ALGORITHMS
        compute, memory = plan.analytic[index]
        plan.analytic[index] = (compute * flops / plan.flops[index], memory)


def _family(anchor: Op) -> str:
    """Family of a kernel's power: attention by phase and cache, products by their operands, streams as wide
    products."""
    if anchor.kind in ("attention", "mla_attention"):
        new = anchor.inputs[0].shape[-2]
        return family(DECODE if new == 1 else PREFILL, anchor.inputs[1].precision.bits)
    if not anchor.flops:
        return PRODUCT
    return family(PRODUCT, product_precision(anchor.inputs[0], anchor.inputs[1]).bits)


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


def as_arrays(plan: Plan, device: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows and stacked tile tables for the numba kernel."""
    rows = np.array(plan.rows, dtype=np.float64) if plan.rows else np.zeros((0, R.WIDTH))
    tables = [tile_table(device, *key) for key in plan.operands] or [tile_table(device, 2.0, 2.0)]
    return rows, np.stack(tables)
