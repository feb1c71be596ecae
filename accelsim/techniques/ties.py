"""What each operator ties: the rules by which sizes of axes spread through a graph (see `axes`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import gcd

from accelsim.techniques.axes import Axis, axis_of, copies, cut, expand, freeze, length, nested, tie
from accelsim.techniques.reshapes import heads, row_major
from accelsim.workload.graph import Graph, Op, Tensor

Axes = tuple[Axis, ...]

_HALVED = ("swiglu", "geglu")


class Ties:
    """Axes of every tensor of a graph.

    Attributes
    ----------
    axes : dict
        Tensor name to its axes.
    made_by : dict
        Weight name to the positions of its axes that make an output size.
    """

    def __init__(self, graph: Graph) -> None:
        self.axes: dict[str, Axes] = {}
        self.made_by: dict[str, list[int]] = {}
        self._written: list[tuple[Axis, Axis]] = []  # heads of keys and of values that the cache took last
        for op in graph:
            _RULES.get(op.kind, Ties._unknown)(self, op)
        self._loops(graph)
        for t in graph.outputs:
            source = graph.producer(t.name)
            if source is None or source.kind != "kv_write":
                freeze(self.axes[t.name])

    # -- bookkeeping ----------------------------------------------------------------------------------------

    def of(self, t: Tensor) -> Axes:
        """Axes of a tensor; what the graph is given keeps its sizes, weights follow what reads them."""
        if t.name not in self.axes:
            fixed = t.role == "activation"
            self.axes[t.name] = tuple(axis_of(n, fixed=fixed) for n in t.shape)
        return self.axes[t.name]

    def set(self, t: Tensor, axes: Sequence[Axis | None]) -> None:
        """Axes of an output; None, or one of another length, is a size of its own that stays."""
        self.axes[t.name] = tuple(
            axis if axis is not None and length(axis) == n else axis_of(n, fixed=True)
            for axis, n in zip(axes, t.shape)
        )
        for given, kept in zip(axes, self.axes[t.name]):
            if given is not None and given is not kept:
                freeze([given])

    def make(self, axis: Axis, op: Op, weight: Tensor, position: int) -> None:
        """The weights of `op` make this axis."""
        for size, _ in expand(axis):
            size.owners = tuple(dict.fromkeys((*size.owners, op.name)))
        self.made_by.setdefault(weight.name, []).append(position)

    def _unknown(self, op: Op) -> None:
        for t in op.inputs:
            freeze(self.of(t))
        for t in op.outputs:
            self.set(t, [None] * len(t.shape))

    def _loops(self, graph: Graph) -> None:
        """A run of ops that repeats feeds itself: what enters it and what leaves it have the same sizes."""
        for repeat, run in groupby(graph, key=lambda op: op.repeat):
            if repeat == 1:
                continue
            ops = tuple(run)
            inside = {op.name for op in ops}
            outputs = [
                t
                for op in ops
                for t in op.outputs
                if op.kind != "kv_write"
                and any(o.name not in inside for o in graph.consumers.get(t.name, (_OUTSIDE,)))
            ]
            written = {t.name for op in ops for t in op.outputs}
            entering = {
                t.name: t for op in ops for t in op.inputs if t.role == "activation" and t.name not in written
            }
            for source in entering.values():
                for t in outputs:
                    if source.shape == t.shape:
                        self.tie_all(source, t)

    def tie_all(self, one: Tensor, other: Tensor) -> None:
        for a, b in zip(self.of(one), self.of(other)):
            tie(a, b)

    def vectors(self, tensors: Iterable[Tensor], axis: Axis) -> None:
        """One value per element of an axis, in each of some vectors."""
        for t in tensors:
            if len(t.shape) == 1 and t.shape[0] == length(axis):
                tie(self.of(t)[0], axis)
            else:
                freeze([*self.of(t), axis])

    # -- rules ----------------------------------------------------------------------------------------------

    def same(self, op: Op) -> None:
        """Outputs have the axes of the first input, where the sizes agree."""
        x = self.of(op.inputs[0])
        for t in op.inputs[1:]:
            if len(t.shape) == 1 < len(x) and t.shape[0] == length(x[1]) > 1:  # a scale per channel
                tie(self.of(t)[0], x[1])
            else:
                freeze(self.of(t))
        for t in op.outputs:
            if len(t.shape) == len(x):
                self.set(t, x)
            else:
                freeze(x)
                self.set(t, [None] * len(t.shape))

    def slice(self, op: Op) -> None:
        """A slice keeps the axes that it does not shorten; a selection loses those in ``removed``."""
        x = self.of(op.inputs[0])
        gone = {a % len(x) for a in op.attribute("removed", ())}
        kept = [axis for i, axis in enumerate(x) if i not in gone]
        if not gone or any(len(t.shape) != len(kept) for t in op.outputs):
            self.same(op)
            return
        freeze(x[i] for i in gone)
        for t in op.outputs:
            self.set(t, kept)

    def spatial(self, op: Op) -> None:
        """Pools and resizes change what lies behind the channels."""
        x, y = self.of(op.inputs[0]), op.outputs[0]
        self.set(y, [*x[:2], *(axis_of(n) for n in y.shape[2:])])

    def norm(self, op: Op) -> None:
        x = self.of(op.inputs[0])
        channels = op.kind in ("batch_norm", "group_norm")
        axis = x[1 if channels else -1]
        self.vectors(op.inputs[1:], axis)
        if op.kind == "group_norm":
            for size, inner in expand(axis):
                groups = int(op.attribute("groups", 1))
                size.require(groups // gcd(groups, inner))
        elif not channels:
            for size, _ in expand(axis):
                size.stream = True
        self.set(op.outputs[0], x)

    def softmax(self, op: Op) -> None:
        x = self.of(op.inputs[0])
        freeze([x[int(op.attribute("axis", -1))]])
        self.set(op.outputs[0], x)

    def thresholds(self, op: Op) -> None:
        x, table = self.of(op.inputs[0]), op.inputs[1]
        if len(table.shape) == 2 and table.shape[0] == op.inputs[0].shape[1]:
            tie(self.of(table)[0], x[1])
        elif len(table.shape) != 2 or table.shape[0] != 1:
            freeze([x[1]])
        self.set(op.outputs[0], x)

    def elementwise(self, op: Op) -> None:
        y = op.outputs[0]
        if len(op.inputs) == 1 and op.attribute("function") in _HALVED:
            *rest, last = self.of(op.inputs[0])
            first, second = cut(last, y.shape[-1])
            tie(first, second)
            self.set(y, [*rest, first])
            return
        found: list[Axis | None] = []
        for back in range(len(y.shape), 0, -1):
            size = y.shape[-back]
            matching = [
                self.of(t)[-back] for t in op.inputs if len(t.shape) >= back and t.shape[-back] == size
            ]
            for axis in matching[1:]:
                tie(matching[0], axis)
            found.append(matching[0] if matching else None)
        self.set(y, found)

    def concat(self, op: Op) -> None:
        y = op.outputs[0]
        at = int(op.attribute("axis", 0)) % len(y.shape)
        parts = [self.of(t) for t in op.inputs]
        if any(len(p) != len(y.shape) for p in parts):
            self._unknown(op)
            return
        joined = tuple(segment for p in parts for segment in expand(p[at]))
        for p in parts[1:]:
            for i, axis in enumerate(p):
                if i != at and length(axis) == length(parts[0][i]):
                    tie(parts[0][i], axis)
        self.set(y, [joined if i == at else axis for i, axis in enumerate(parts[0])])

    def split(self, op: Op) -> None:
        """Cuts one after the other along the axis in which the outputs are shorter."""
        if op.attribute("removed"):
            self.slice(op)
            return
        x = self.of(op.inputs[0])
        shapes = [t.shape for t in op.outputs]
        whole = op.inputs[0].shape
        changed = [i for i, n in enumerate(whole) if any(len(s) != len(whole) or s[i] != n for s in shapes)]
        if len(changed) != 1 or sum(s[changed[0]] for s in shapes) != whole[changed[0]]:
            self.same(op)
            return
        at, rest = changed[0], x[changed[0]]
        for t in op.outputs:
            part, rest = cut(rest, t.shape[at])
            self.set(t, [part if i == at else axis for i, axis in enumerate(x)])

    def gather(self, op: Op) -> None:
        table, rows, y = op.inputs[0], op.inputs[1], op.outputs[0]
        at = int(op.attribute("axis", 0)) % len(table.shape)
        held, chosen = self.of(table), self.of(rows)
        axes = [*held[:at], *chosen, *held[at + 1 :]]
        if op.attribute("elements") or len(axes) != len(y.shape):
            self._unknown(op)
            return
        freeze([held[at]])
        if table.role == "weight":
            for axis in (*held[:at], *held[at + 1 :]):
                for size, _ in expand(axis):
                    size.stream = True
        self.set(y, axes)

    def transpose(self, op: Op) -> None:
        x = self.of(op.inputs[0])
        order = op.attribute("axes", tuple(range(len(x)))[::-1])
        self.set(op.outputs[0], [x[a] for a in order])

    def reduce(self, op: Op) -> None:
        x, y = self.of(op.inputs[0]), op.outputs[0]
        axes = op.attribute("axes")
        gone = (
            set(range(len(x)))
            if axes is None
            else {a % len(x) for a in ((axes,) if isinstance(axes, int) else axes)}
        )
        kept = [axis for i, axis in enumerate(x) if i not in gone]
        if len(y.shape) == len(x):
            self.set(y, [axis_of(1) if i in gone else axis for i, axis in enumerate(x)])
        elif len(y.shape) == len(kept):
            self.set(y, kept)
        else:
            self._unknown(op)

    def reshape(self, op: Op) -> None:
        if len(op.inputs) > 1:
            self._unknown(op)
            return
        if len(op.outputs) > 1:
            self.split(op)
            return
        x, y = op.inputs[0], op.outputs[0]
        axes = self.of(x)
        self.set(y, heads(axes, x.shape, y.shape, op.origin == "view") or row_major(axes, x.shape, y.shape))

    def matmul(self, op: Op) -> None:
        a, b, y = op.inputs[0], op.inputs[1], op.outputs[0]
        left, right = self.of(a), self.of(b)
        if len(a.shape) < 2 or len(y.shape) < 2:
            self._unknown(op)
            return
        rows, inner = (left[-1], left[-2]) if op.attribute("transpose_a") else (left[-2], left[-1])
        k, columns = (right[-1], right[-2]) if op.attribute("transpose_b") else (right[-2], right[-1])
        tie(inner, k)
        if b.role == "weight":
            self.make(columns, op, b, len(right) - (2 if op.attribute("transpose_b") else 1))
        if a.role == "weight":
            self.make(rows, op, a, len(left) - (1 if op.attribute("transpose_a") else 2))
        if len(op.inputs) > 2:
            self.vectors(op.inputs[2:3], columns)
        lead: list[Axis | None] = []
        for back in range(len(y.shape), 2, -1):
            matching = [
                axes[-back]
                for axes in (left, right)
                if len(axes) >= back and length(axes[-back]) == y.shape[-back]
            ]
            for axis in matching[1:]:
                tie(matching[0], axis)
            lead.append(matching[0] if matching else None)
        self.set(y, [*lead, rows, columns])

    def conv(self, op: Op) -> None:
        x, w, y = op.inputs[0], op.inputs[1], op.outputs[0]
        channels, filters = self.of(x)[1], self.of(w)
        groups, transposed = int(op.attribute("groups", 1)), bool(op.attribute("transposed", False))
        out = filters[1] if transposed else filters[0]
        if groups == 1:
            tie(channels, filters[0] if transposed else filters[1])
        elif groups == x.shape[1] and not transposed:  # depthwise: its filters follow the channels
            out = nested(channels, y.shape[1] // groups)
            tie(out, filters[0])
            out = filters[0]
        else:
            for axis in (channels, filters[0]):
                for size, inner in expand(axis):
                    size.require(groups // gcd(groups, inner))
                if len(expand(axis)) > 1:  # groups would cross the seams of a concatenation
                    freeze([axis])
            if transposed:
                freeze([channels, *filters])
                out = axis_of(y.shape[1], fixed=True)
        if groups == 1 or groups != x.shape[1]:
            self.make(out, op, w, 1 if transposed else 0)
        self.vectors(op.inputs[2:3], out)
        self.set(y, [self.of(x)[0], out, *(axis_of(n) for n in y.shape[2:])])

    def attention(self, op: Op) -> None:
        q, k, v = (self.of(t) for t in op.inputs[:3])
        group = op.inputs[0].shape[1] // op.inputs[1].shape[1]
        if op.inputs[1].role == "kv" and self._written:
            keys, values = self._written.pop()
            for new, held in ((keys, k[1]), (values, v[1])):
                if length(new) == length(held):
                    tie(new, held)
        tie(k[1], v[1])
        tie(q[1], nested(k[1], group))
        for size, _ in expand(k[1]):
            size.head = True
        for t in op.inputs[3:]:
            if len(t.shape) == 1 and t.shape[0] == op.inputs[0].shape[1]:
                tie(self.of(t)[0], q[1])
            else:
                freeze(self.of(t))
                if len(t.shape) == 4 and t.shape[1] > 1:
                    freeze([q[1]])
        freeze([q[3], k[3], v[3]])
        self.set(op.outputs[0], [*q[:3], v[3]])

    def kv_write(self, op: Op) -> None:
        k, v = self.of(op.inputs[0]), self.of(op.inputs[-1])
        y = op.outputs[0]
        if len(k) != 4 or len(op.inputs) != 2 or len(y.shape) != 4:
            self._unknown(op)
            return
        self._written.append((k[1], v[1]))
        freeze([k[3], v[3]])
        tie(k[1], v[1])
        self.set(y, [*k[:3], None])

    def recurrent(self, op: Op) -> None:
        x, w_ih, w_hh = self.of(op.inputs[0]), self.of(op.inputs[1]), self.of(op.inputs[2])
        tie(x[-1], w_ih[1])
        hidden = w_hh[1]
        rows = op.inputs[2].shape[0] // op.inputs[2].shape[1]
        many = copies(hidden, rows)
        out = copies(hidden, int(op.attribute("directions", 1)))
        if many is None or out is None:
            self._unknown(op)
            return
        for axis in (w_ih[0], w_hh[0]):
            tie(many, axis)
        self.make(hidden, op, op.inputs[2], 0)
        self.vectors(op.inputs[3:5], tuple(copies(hidden, rows) or ()))
        for t in op.inputs[5:]:
            freeze([*self.of(t), hidden])
        for t in op.outputs:
            last = out if t.shape[-1] == length(out) else hidden
            self.set(t, [*x[: len(t.shape) - 1], last] if len(t.shape) == len(x) else [None] * len(t.shape))

    def dispatch(self, op: Op) -> None:
        freeze(self.of(op.inputs[1]))
        self.set(op.outputs[0], [None, self.of(op.inputs[0])[-1]])

    def topk(self, op: Op) -> None:
        x = self.of(op.inputs[0])
        freeze([x[-1]])
        for t in op.outputs:
            self.set(t, [*x[:-1], None])

    def grouped(self, op: Op) -> None:
        x, w = self.of(op.inputs[0]), self.of(op.inputs[1])
        freeze([w[0]])
        tie(x[-1], w[1])
        self.make(w[2], op, op.inputs[1], 2)
        for t in op.inputs[2:]:
            tie(self.of(t)[-1], w[2])
        self.set(op.outputs[0], [x[0], w[2]])


_OUTSIDE = Op("", "generic", (), ())


_Rule = Callable[[Ties, Op], None]

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("activation", "quantize", "dequantize", "cast", "copy", "pad"), Ties.same),
    **dict.fromkeys(("batch_norm", "layer_norm", "rms_norm", "group_norm"), Ties.norm),
    **dict.fromkeys(("pool", "resize"), Ties.spatial),
    **dict.fromkeys(("moe_dispatch", "moe_combine"), Ties.dispatch),
    **dict.fromkeys(("lstm", "gru"), Ties.recurrent),
    "slice": Ties.slice,
    "softmax": Ties.softmax,
    "multi_threshold": Ties.thresholds,
    "elementwise": Ties.elementwise,
    "concat": Ties.concat,
    "split": Ties.split,
    "gather": Ties.gather,
    "transpose": Ties.transpose,
    "reduce": Ties.reduce,
    "reshape": Ties.reshape,
    "matmul": Ties.matmul,
    "conv": Ties.conv,
    "attention": Ties.attention,
    "kv_write": Ties.kv_write,
    "topk": Ties.topk,
    "grouped_matmul": Ties.grouped,
}
