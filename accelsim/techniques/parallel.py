"""How several devices share a model: tensor-parallel shards, pipeline stages, data-parallel replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.workload.graph import Graph, Op, Tensor

KINDS = ("tensor", "pipeline", "data")
MAX_DEVICES = 4096


@dataclass(frozen=True, slots=True)
class Parallel:
    """Degrees of parallelism; their product is the number of devices."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.data

    @staticmethod
    def of(devices: int, request: Mapping[str, int] | None) -> Parallel:
        """Read a request; without one, all devices are tensor-parallel.

        Raises
        ------
        RequestError
            Unknown kind, a degree that is not a positive integer, or a product other than `devices`.
        """
        for value in (devices, *(request or {}).values()):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_DEVICES:
                raise RequestError(
                    f"a degree of parallelism must be an integer from 1 to {MAX_DEVICES}, got {value!r}"
                )
        if request is None:
            return Parallel(tensor=devices)
        unknown = sorted(set(request) - set(KINDS))
        if unknown:
            raise RequestError(f"unknown parallelism '{unknown[0]}'", hint=did_you_mean(unknown[0], KINDS))
        split = Parallel(**request)
        if devices not in (1, split.devices):
            raise RequestError(
                f"parallel {dict(request)} makes {split.devices} devices, but devices={devices}"
            )
        return split


# -- pipeline
# ------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def stages(graph: Graph, count: int) -> tuple[Graph, ...]:
    """Cut a graph into consecutive stages of about equal work; each but the last sends what later stages
    need.

    Runs of ops that repeat equally often are layers: a cut falls between layers, or between ops that do not
    repeat. Work is counted as FLOPs plus 100 per byte, so that both compute- and memory-bound layers balance
    (an A100 has 150 FLOP per
    byte, an H100 295).

    Raises
    ------
    RequestError
        There are fewer layers than stages.
    """
    if count == 1:
        return (graph,)
    units = _units(graph)
    if len(units) < count:
        raise RequestError(f"{graph.name} has {len(units)} layers, too few for {count} pipeline stages")
    cuts = _balanced([sum(_weight(op) for op in ops) for ops, _ in units], count)
    parts: list[list[Op]] = []
    for low, high in zip([0, *cuts], [*cuts, len(units)]):
        layers: dict[tuple[str, ...], tuple[tuple[Op, ...], int]] = {}
        for ops, _ in units[low:high]:
            key = tuple(op.name for op in ops)
            layers[key] = (ops, layers[key][1] + 1 if key in layers else 1)
        parts.append([replace(op, repeat=times) for ops, times in layers.values() for op in ops])
    last_stage = {op.name: index for index, part in enumerate(parts) for op in part}
    result = []
    for index, part in enumerate(parts):
        if index < count - 1:
            part = [*part, _send(graph, part, last_stage, index)]
        result.append(
            Graph(
                graph.name,
                part,
                phase=graph.phase,
                batch=graph.batch,
                item=graph.item,
                metadata=graph.metadata,
            )
        )
    return tuple(result)


def _units(graph: Graph) -> list[tuple[tuple[Op, ...], int]]:
    """Layers in order: each iteration of a repeated run of ops, or one op that does not repeat."""
    units: list[tuple[tuple[Op, ...], int]] = []
    run: list[Op] = []
    for op in (*graph, None):
        if run and (op is None or (op.repeat, op.block) != (run[0].repeat, run[0].block)):
            units += (
                [(tuple(run), i) for i in range(run[0].repeat)]
                if run[0].repeat > 1
                else [((o,), 0) for o in run]
            )
            run = []
        if op is not None:
            run.append(op)
    return units


def _weight(op: Op) -> float:
    return op.flops + 100.0 * op.bytes_compulsory


def _balanced(weights: list[float], count: int) -> list[int]:
    """Cut positions that minimise the heaviest of `count` consecutive parts, by bisection on its weight."""

    def cuts_under(limit: float) -> list[int]:
        cuts, held = [], 0.0
        for i, w in enumerate(weights):
            if held and held + w > limit:
                cuts.append(i)
                held = 0.0
            held += w
        return cuts

    low, high = max(weights), sum(weights)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if len(cuts_under(middle)) < count else (middle, high)
    cuts = cuts_under(high)
    spare = [i for i in range(1, len(weights)) if i not in cuts]
    while len(cuts) < count - 1:
        cuts = sorted([*cuts, spare.pop()])
    return cuts


def _send(graph: Graph, part: list[Op], last_stage: dict[str, int], index: int) -> Op:
    """Hand the stage's outputs on to the next device."""
    written = {t.name: t for op in part for t in op.outputs}
    leaving = [
        t
        for name, t in written.items()
        if any(last_stage[c.name] > index for c in graph.consumers.get(name, ()))
    ]
    crossing = max(leaving or list(written.values()), key=lambda t: t.size_bytes)
    target = replace(crossing, name=f"{crossing.name}:sent{index}")
    return Op(f"send{index}", "send", (crossing,), (target,), {"devices": 2}, origin="pipeline parallel")


# -- tensor
# ------------------------------------------------------------------------------------------

_ELEMENTWISE = frozenset(
    {"activation", "elementwise", "quantize", "dequantize", "cast", "copy", "multi_threshold", "kv_write"}
)
_CHANNELWISE = frozenset({"pool", "resize", "batch_norm"})
_LAST_AXIS_NORM = frozenset({"layer_norm", "rms_norm"})
_ROUTING = frozenset({"softmax", "topk"})


@lru_cache(maxsize=32)
def shard(graph: Graph, degree: int) -> Graph:
    """One device's share of a tensor-parallel graph, with its collectives.

    Weight matrices alternate between column-parallel (input whole, output sharded) and row-parallel (input
    sharded, partial sums all-reduced); heads, channels and elementwise work follow their tensors; whatever
    cannot follow gathers its inputs
    (Megatron-LM, arXiv:1909.08053).
    """
    return graph if degree == 1 else _Sharder(graph, degree).run()


class _Sharder:
    """Walks a graph once, keeping for each tensor the axis that it is sharded on."""

    def __init__(self, graph: Graph, degree: int) -> None:
        self.graph = graph
        self.degree = degree
        self.axis: dict[str, int] = {}
        self.gathered: dict[str, Tensor] = {}
        self.ops: list[Op] = []

    def run(self) -> Graph:
        for op in self.graph:
            self._place(op)
        for t in self.graph.outputs:
            self._whole(t)
        g = self.graph
        return Graph(g.name, self.ops, phase=g.phase, batch=g.batch, item=g.item, metadata=g.metadata)

    # -- tensors
    # ------------------------------------------------------------------------------------------

    def _cut(self, t: Tensor, axis: int) -> Tensor:
        """A shard of a whole tensor."""
        shape = list(t.shape)
        shape[axis] //= self.degree
        return replace(t, shape=tuple(shape))

    def _fits(self, t: Tensor, axis: int) -> bool:
        return t.shape[axis] % self.degree == 0

    def _local(self, t: Tensor) -> Tensor:
        """The tensor as this device holds it."""
        return self._cut(t, self.axis[t.name]) if t.name in self.axis else t

    def _whole(self, t: Tensor) -> Tensor:
        """The whole tensor, gathered once if it is sharded."""
        if t.name not in self.axis:
            return t
        if t.name not in self.gathered:
            full = replace(t, name=f"{t.name}:gathered")
            self._collective("all_gather", f"{t.name}:all_gather", self._local(t), full, t)
            self.gathered[t.name] = full
        return self.gathered[t.name]

    def _collective(self, kind: str, name: str, source: Tensor, target: Tensor, like: Tensor) -> None:
        producer = self.graph.producer(like.name)
        repeat = producer.repeat if producer else 1
        self.ops.append(
            Op(name, kind, (source,), (target,), {"devices": self.degree}, repeat, origin="tensor parallel")
        )

    # -- ops
    # ------------------------------------------------------------------------------------------

    def _place(self, op: Op) -> None:
        handler = {
            "matmul": self._matmul,
            "grouped_matmul": self._matmul,
            "conv": self._conv,
            "gather": self._gather,
        }.get(op.kind)
        if op.kind in ("attention", "mla_attention"):
            handler = self._attention
        if handler is None or not handler(op):
            axes = self._followed(op)
            if axes is None:
                self._emit(op, [self._whole(t) for t in op.inputs], None)
            else:
                self._emit(op, axes[0], axes[1])

    def _emit(
        self, op: Op, inputs: list[Tensor], axis: int | None, partial: bool = False, **attributes: object
    ) -> None:
        """Add the op; its outputs are sharded on `axis`, or are partial sums that an all-reduce completes."""
        changed = {**op.attributes, **attributes} if attributes else op.attributes
        outputs = op.outputs
        if axis is not None:
            for t in outputs:
                self.axis[t.name] = axis
            outputs = tuple(self._local(t) for t in outputs)
        if partial:
            outputs = tuple(replace(t, name=f"{t.name}:partial") for t in outputs)
        self.ops.append(replace(op, inputs=tuple(inputs), outputs=outputs, attributes=changed))
        if partial:
            for source, target in zip(outputs, op.outputs):
                self._collective("all_reduce", f"{target.name}:all_reduce", source, target, target)

    def _matmul(self, op: Op) -> bool:
        a, b, *bias = op.inputs
        grouped = op.kind == "grouped_matmul"
        if not grouped and len(b.shape) != 2:
            return self._batched(op)
        k_axis, n_axis = (len(b.shape) - 2, len(b.shape) - 1)
        if op.attribute("transpose_b"):
            k_axis, n_axis = n_axis, k_axis
        held, last = self.axis.get(a.name), len(a.shape) - 1
        if held == last and not op.attribute("transpose_a"):
            self._emit(op, [self._local(a), self._cut(b, k_axis), *bias], None, partial=True)
            return True
        if held is not None:
            return False
        routes = any(c.kind in _ROUTING for t in op.outputs for c in self.graph.consumers.get(t.name, ()))
        if routes or not self._fits(b, n_axis):
            return False
        self._emit(
            op,
            [a, self._cut(b, n_axis), *(self._cut(t, len(t.shape) - 1) for t in bias)],
            len(op.outputs[0].shape) - 1,
        )
        return True

    def _batched(self, op: Op) -> bool:
        axes = {self.axis.get(t.name) for t in op.inputs[:2]}
        axis = axes.pop()
        if axes or axis is None or axis >= len(op.outputs[0].shape) - 2:
            return False
        self._emit(op, [self._local(t) for t in op.inputs], axis)
        return True

    def _conv(self, op: Op) -> bool:
        x, w, *bias = op.inputs
        groups, y = op.attribute("groups", 1), op.outputs[0]
        out_axis, in_axis = (1, 0) if op.attribute("transposed") else (0, 1)
        held = self.axis.get(x.name)
        if groups == 1 and held == 1:
            self._emit(op, [self._local(x), self._cut(w, in_axis), *bias], None, partial=True)
            return True
        if groups == 1 and held is None and self._fits(y, 1):
            self._emit(op, [x, self._cut(w, out_axis), *(self._cut(t, 0) for t in bias)], 1)
            return True
        if groups > 1 and held == 1 and groups % self.degree == 0:
            local = [self._local(x), self._cut(w, 0), *(self._cut(t, 0) for t in bias)]
            self._emit(op, local, 1, groups=groups // self.degree)
            return True
        return False

    def _gather(self, op: Op) -> bool:
        """An embedding table is sharded by rows; each device looks up its own and the sum is reduced."""
        table, *rest = op.inputs
        if table.role != "weight" or not self._fits(table, 0):
            return False
        self._emit(op, [self._cut(table, 0), *(self._whole(t) for t in rest)], None, partial=True)
        return True

    def _attention(self, op: Op) -> bool:
        """Heads are independent; a device with fewer KV heads than devices keeps one of them."""
        q, *rest = op.inputs
        if self.axis.get(q.name) != 1:
            return False
        inputs = [self._local(q)]
        for t in rest:
            heads = t.shape[1] if op.kind == "attention" and len(t.shape) == 4 else 0
            if heads > 1 and self.axis.get(t.name) != 1:
                whole = self._whole(t)
                inputs.append(replace(whole, shape=(t.shape[0], max(1, heads // self.degree), *t.shape[2:])))
            else:
                inputs.append(self._local(t))
        self._emit(op, inputs, 1)
        return True

    def _followed(self, op: Op) -> tuple[list[Tensor], int] | None:
        """Inputs and output axis when an op can work on shards as they are; None when it must have whole
        tensors.
        """
        sharded = [t for t in op.inputs if t.name in self.axis]
        if not sharded:
            return None
        axis = self.axis[sharded[0].name]
        x, y = sharded[0], op.outputs[0]
        from_right = len(x.shape) - axis
        if any(len(t.shape) - self.axis[t.name] != from_right for t in sharded):
            return None
        out = self._output_axis(op, x, y, axis)
        if out is None or not all(self._fits(t, out) for t in op.outputs):
            return None
        inputs = []
        for t in op.inputs:
            own = len(t.shape) - from_right
            if t.name in self.axis:
                inputs.append(self._local(t))
            elif op.kind in _ELEMENTWISE and own >= 0 and t.shape[own] == x.shape[axis]:
                inputs.append(self._cut(t, own))
            elif op.kind in ("batch_norm", "group_norm") and t.shape == (x.shape[1],):
                inputs.append(self._cut(t, 0))
            else:
                inputs.append(t)
        return inputs, out

    def _output_axis(self, op: Op, x: Tensor, y: Tensor, axis: int) -> int | None:
        last = len(x.shape) - 1
        if op.kind in _ELEMENTWISE:
            return len(y.shape) - (len(x.shape) - axis)
        if op.kind in _CHANNELWISE:
            return axis if axis == 1 else None
        if op.kind in _LAST_AXIS_NORM:
            return axis if axis != last else None
        if op.kind == "softmax":
            return axis if axis != op.attribute("axis", -1) % (last + 1) else None
        if op.kind == "transpose":
            return tuple(op.attributes["axes"]).index(axis)
        if op.kind == "reshape":
            return _reshaped_axis(x.shape, y.shape, axis)
        if op.kind in ("concat", "split", "slice"):
            return axis if len(x.shape) == len(y.shape) else None
        if op.kind in ("moe_dispatch", "moe_combine"):
            return len(y.shape) - 1 if axis == last else None
        return None


def _reshaped_axis(before: tuple[int, ...], after: tuple[int, ...], axis: int) -> int | None:
    """Where an axis goes in a reshape: the output axis that begins at the same stride from the left."""
    from math import prod

    lead = prod(before[:axis])
    held = 1
    for i, size in enumerate(after):
        if held == lead and size > 1:
            return i
        held *= size
    return None
