"""From a graph to the streaming units of a pipeline: what each computes per frame, and which streams feed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from accelsim.architectures.fusion import EPILOGUES, Group, fuse
from accelsim.core.outcome import InfeasibleError
from accelsim.workload.graph import Graph, Op, Tensor

UnitKind = Literal[
    "mvau", "vvau", "pool", "channelwise", "global_pool", "row", "reorder", "dma_in", "dma_out"
]
EdgeMode = Literal["stream", "window", "all"]


@dataclass(frozen=True, slots=True)
class Window:
    """Geometry of a sliding window, one-dimensional ones with height 1.

    Attributes
    ----------
    height, width : int
        Input rows and columns without padding [pixel].
    pad_h, pad_w : int
        Padding before the first row and column [pixel].
    extra_h, extra_w : int
        Padding after the last row and column [pixel].
    """

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    pad_h: int
    pad_w: int
    extra_h: int
    extra_w: int
    out_h: int
    out_w: int

    @property
    def taps(self) -> int:
        return self.kernel_h * self.kernel_w

    @property
    def padded_h(self) -> int:
        return self.height + self.pad_h + self.extra_h

    @property
    def padded_w(self) -> int:
        return self.width + self.pad_w + self.extra_w

    @property
    def bracket(self) -> int:
        """Pixels between the first and the last of one window, both included [pixel]."""
        return (
            (self.kernel_h - 1) * self.dilation_h * self.padded_w + (self.kernel_w - 1) * self.dilation_w + 1
        )

    @property
    def buffer(self) -> int:
        """Pixels that the generator holds: one window and what a stride brings in [pixel]."""
        return self.bracket + self.stride_w + (self.stride_h - 1) * self.padded_w


@dataclass(frozen=True, slots=True)
class Unit:
    """What determines the foldings of a stage and their cost; equal layers share one.

    Attributes
    ----------
    kind : str
        ``mvau`` matrix-vector, ``vvau`` depthwise, ``pool``, ``channelwise`` (add, thresholds), ``global_pool``, ``row`` (softmax, layer
        norm), ``reorder`` (transpose: holds a frame), ``dma_in``, ``dma_out``.
    mw, mh : int
        Matrix width (reduction) and height (output channels); for other kinds `mh` is the channels that PE folds.
    pixels : int
        Output pixels per frame.
    rounds : int
        Times that each pixel passes through (groups of a grouped convolution, steps of one direction).
    channels : int
        Input channels, which the sliding window folds.
    weights : int
        Weights that the unit holds [elements].
    weight_bits, act_bits, out_bits : int
        Widths of weights, inputs and outputs [bit].
    requantised : bool
        Thresholds or a requantiser stand behind the unit.
    dynamic : bool
        The weights are an activation that arrives anew with every frame, so they are held twice.
    pixels_in : int
        Input pixels per frame.
    bypass_bits : int
        FIFO that the shorter inputs of a join must hold while the longest is under way [bit].
    """

    kind: UnitKind
    mw: int
    mh: int
    pixels: int
    channels: int
    act_bits: int
    out_bits: int
    rounds: int = 1
    window: Window | None = None
    weights: int = 0
    weight_bits: int = 0
    requantised: bool = False
    dynamic: bool = False
    pixels_in: int = 0
    bypass_bits: int = 0


@dataclass(frozen=True, slots=True)
class Edge:
    """A stream into a stage.

    Attributes
    ----------
    source : int
        Index of the stage that writes it.
    mode : {"stream", "window", "all"}
        An output pixel needs its share of the input in order, a sliding window of it, or the whole frame.
    pixels : int
        Pixels of the stream per frame.
    """

    source: int
    mode: EdgeMode
    pixels: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A streaming stage.

    Attributes
    ----------
    name : str
    group : int
        Index of the kernel that it belongs to.
    """

    name: str
    group: int
    unit: Unit
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Network:
    """Stages in topological order, the fused groups of ops behind them, and the DRAM tensors at the ends.

    `dma` maps a group index past ``groups`` to the tensor that it moves and its direction.
    """

    stages: tuple[Stage, ...]
    groups: tuple[Group, ...]
    dma: tuple[tuple[Tensor, bool], ...]
    approximated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stream:
    stage: int
    pixels: int
    channels: int
    bits: int


_POINTWISE = EPILOGUES | {"resize", "slice", "copy", "split", "concat", "pad"}


def joins(anchor: Op, op: Op) -> bool:
    """Pointwise work with one streamed input becomes the threshold part of the stage that feeds it."""
    return op.kind in EPILOGUES and sum(t.role in ("activation", "kv") for t in op.inputs) == 1


def build(graph: Graph) -> Network:
    """Stages of a batch-1 graph.

    Raises
    ------
    InfeasibleError
        An operator has no streaming unit.
    """
    groups = fuse(graph, joins)
    return _Builder(graph, groups).network()


class _Builder:
    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.graph = graph
        self.groups = tuple(groups)
        self.stages: list[Stage] = []
        self.streams: dict[str, _Stream] = {}
        self.dma: list[tuple[Tensor, bool]] = []
        self.approximated: list[str] = []

    def network(self) -> Network:
        position = 0
        while position < len(self.groups):
            repeat = self.groups[position].repeat
            end = position + 1
            while repeat > 1 and end < len(self.groups) and self.groups[end].repeat == repeat:
                end += 1
            self._block(range(position, end), repeat)
            position = end
        for t in self.graph.outputs:
            stream = self.streams.get(t.name)
            if stream is not None:
                self._dma(t, stream)
        return Network(tuple(self.stages), self.groups, tuple(self.dma), tuple(self.approximated))

    def _block(self, members: range, repeat: int) -> None:
        """Groups that repeat together are laid out one copy after the other; what leaves a copy enters the next one."""
        inside = {t.name for i in members for op in self.groups[i].ops for t in op.outputs}
        entering = [
            t
            for i in members
            for t in self.groups[i].inputs
            if t.name not in inside and t.role == "activation"
        ]
        leaving = [t for i in members for t in self.groups[i].outputs]
        for copy in range(repeat):
            for index in members:
                self._group(index, f"[{copy}]" if repeat > 1 else "")
            if copy + 1 < repeat:
                for t in {t.name: t for t in entering}.values():
                    heir = next((u for u in reversed(leaving) if u.shape == t.shape), None)
                    if heir is not None and heir.name in self.streams:
                        self.streams[t.name] = self.streams[heir.name]

    def _group(self, index: int, suffix: str) -> None:
        group = self.groups[index]
        op = group.anchor
        maker = _MAKERS.get(op.kind)
        if maker is None:
            raise InfeasibleError(
                "operator",
                f"a streaming unit for '{op.kind}' ({op.name})",
                f"units for {', '.join(sorted(_MAKERS))}",
                "run this model on an overlay, a GPU or a systolic device",
            )
        if op.approximated:
            self.approximated.append(f"{op.name}: {op.approximated}")
        final = group.ops[-1].outputs[0]
        requantised = any(o.kind in EPILOGUES and o.kind not in ("cast", "dequantize") for o in group.ops[1:])
        context = _Context(self, index, op.name + suffix, final.precision.bits, requantised)
        maker(op, context)
        last = len(self.stages) - 1
        out = self.stages[last].unit
        for member in group.ops:
            for t in member.outputs:
                channels = max(t.elements // max(out.pixels, 1), 1)
                self.streams[t.name] = _Stream(last, out.pixels, channels, final.precision.bits)

    def source(self, t: Tensor, pixels: int) -> _Stream:
        """The stream of a tensor; a graph input gets its DMA stage when it is first read."""
        if t.name not in self.streams:
            stage = len(self.stages)
            unit = Unit(
                "dma_in", 1, 1, pixels, 1, t.precision.bits, t.precision.bits, weights=0, pixels_in=t.elements
            )
            self.stages.append(Stage(f"{t.name}.dma_in", len(self.groups) + len(self.dma), unit, ()))
            self.dma.append((t, True))
            self.streams[t.name] = _Stream(stage, pixels, max(t.elements // pixels, 1), t.precision.bits)
        return self.streams[t.name]

    def _dma(self, t: Tensor, stream: _Stream) -> None:
        unit = Unit(
            "dma_out", 1, 1, stream.pixels, 1, t.precision.bits, t.precision.bits, pixels_in=t.elements
        )
        edge = Edge(stream.stage, "stream", stream.pixels)
        self.stages.append(Stage(f"{t.name}.dma_out", len(self.groups) + len(self.dma), unit, (edge,)))
        self.dma.append((t, False))


@dataclass(frozen=True)
class _Context:
    builder: _Builder
    group: int
    name: str
    out_bits: int
    requantised: bool

    def edge(self, t: Tensor, pixels: int, mode: EdgeMode = "stream") -> Edge:
        stream = self.builder.source(t, pixels)
        return Edge(stream.stage, mode, stream.pixels)

    def add(self, unit: Unit, edges: Sequence[Edge], suffix: str = "") -> int:
        self.builder.stages.append(Stage(self.name + suffix, self.group, unit, tuple(edges)))
        return len(self.builder.stages) - 1


def _spread(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _window(op: Op, kernel: Sequence[int], x: Tensor, y: Tensor) -> Window:
    """Window of a convolution or pooling of rank 1 or 2, in the layout N C spatial."""
    rank = len(kernel)
    if rank > 2:
        raise InfeasibleError(
            "operator",
            f"a three-dimensional sliding window ({op.name})",
            "windows of one and two dimensions",
            "run this model on a GPU or a systolic device",
        )
    stride = _spread(op.attribute("stride", 1), rank)
    dilation = _spread(op.attribute("dilation", 1), rank)
    padding = _spread(op.attribute("padding", 0), rank)
    before = padding[:rank]
    size, out = x.shape[2:], y.shape[2:]
    # What the output needs beyond the input and the leading padding; importers may give one padding for both sides.
    after = tuple(
        max(0, (o - 1) * s + d * (k - 1) + 1 - i - b)
        for o, s, d, k, i, b in zip(out, stride, dilation, kernel, size, before)
    )
    lead: Callable[[Sequence[int], int], tuple[int, ...]] = lambda v, one: (
        tuple(v) if rank == 2 else (one, *v)
    )  # noqa: E731
    height, width = lead(size, 1)
    kh, kw = lead(kernel, 1)
    sh, sw = lead(stride, 1)
    dh, dw = lead(dilation, 1)
    ph, pw = lead(before, 0)
    eh, ew = lead(after, 0)
    oh, ow = lead(out, 1)
    return Window(height, width, kh, kw, sh, sw, dh, dw, ph, pw, eh, ew, oh, ow)


def _conv(op: Op, at: _Context) -> None:
    x, w, y = op.inputs[0], op.inputs[1], op.outputs[0]
    groups = op.attribute("groups", 1)
    channels, height = x.shape[1], y.shape[1]
    pixels_in, pixels = prod(x.shape[2:]), prod(y.shape[2:])
    taps = prod(w.shape[2:])
    transposed = op.attribute("transposed", False)
    window = None if transposed else _window(op, w.shape[2:], x, y)
    plain = window is None or (
        window.taps == 1 and window.stride_h == window.stride_w == 1 and pixels == pixels_in
    )
    base = Unit(
        "mvau",
        channels // groups * taps,
        height // groups,
        pixels,
        channels,
        x.precision.bits,
        at.out_bits,
        rounds=groups,
        window=None if plain else window,
        weights=w.elements,
        weight_bits=w.precision.bits,
        requantised=at.requantised,
        pixels_in=pixels_in,
    )
    if groups == channels == height:
        base = replace(base, kind="vvau", mw=taps, mh=channels, rounds=1)
    if transposed:
        at.builder.approximated.append(
            f"{op.name}: a transposed convolution as one over the zero-filled input"
        )
    at.add(base, [at.edge(x, pixels_in, "stream" if plain else "window")])


def _matmul(op: Op, at: _Context) -> None:
    a, b = op.inputs[0], op.inputs[1]
    nest = op.work.nests[0]
    vectors = nest.batch * nest.m
    dynamic = b.role in ("activation", "kv")
    unit = Unit(
        "mvau",
        nest.k,
        nest.n,
        nest.m if not dynamic else vectors,
        nest.k,
        a.precision.bits,
        at.out_bits,
        weights=nest.batch * nest.k * nest.n,
        weight_bits=b.precision.bits,
        requantised=at.requantised,
        dynamic=dynamic,
        pixels_in=vectors,
    )
    edges = [at.edge(a, vectors)]
    if dynamic:
        edges.append(at.edge(b, nest.batch * nest.n, "all"))
    at.add(unit, edges)


def _attention(op: Op, at: _Context) -> None:
    """Two streaming products with the softmax between them; scores and probabilities never leave the chip."""
    q, k, v = op.inputs[:3]
    if any(t.role == "kv" for t in op.inputs):
        raise InfeasibleError(
            "operator",
            f"a key-value cache ({op.name})",
            "pipelines whose state lies on chip",
            "run the prefill phase, or decode on a GPU",
        )
    _, heads, tokens, width = q.shape
    keys, value_width = k.shape[2], v.shape[3]
    rows, bits = heads * tokens, q.precision.bits
    scores = Unit(
        "mvau", width, keys, rows, width, bits, bits, weights=k.elements, weight_bits=bits, requantised=True, dynamic=True,
        pixels_in=rows,
    )  # fmt: skip
    first = at.add(scores, [at.edge(q, rows), at.edge(k, k.shape[1] * keys, "all")], ".scores")
    softmax = Unit("row", 1, keys, rows, keys, bits, bits, pixels_in=rows)
    second = at.add(softmax, [Edge(first, "stream", rows)], ".softmax")
    values = Unit(
        "mvau", keys, value_width, rows, keys, bits, at.out_bits, weights=v.elements, weight_bits=bits,
        requantised=True, dynamic=True, pixels_in=rows,
    )  # fmt: skip
    at.add(values, [Edge(second, "stream", rows), at.edge(v, v.shape[1] * keys, "all")], ".values")


def _recurrent(op: Op, at: _Context) -> None:
    """One matrix-vector unit over the joined input and state; a step waits for the one before it."""
    x = op.inputs[0]
    steps, directions, hidden = x.shape[0], op.attribute("directions", 1), op.attribute("hidden")
    gates = op.inputs[1].elements // (directions * hidden * x.shape[2])
    weights = sum(t.elements for t in op.inputs[1:3])
    unit = Unit(
        "mvau",
        x.shape[2] + hidden,
        gates * hidden,
        steps,
        x.shape[2] + hidden,
        x.precision.bits,
        at.out_bits,
        rounds=directions,
        weights=weights,
        weight_bits=op.inputs[1].precision.bits,
        requantised=True,
        pixels_in=steps,
    )
    at.builder.approximated.append(
        f"{op.name}: a recurrent layer as one matrix-vector unit, without the latency of its feedback loop"
    )
    at.add(unit, [at.edge(x, steps)])


def _pool(op: Op, at: _Context) -> None:
    x, y = op.inputs[0], op.outputs[0]
    channels, pixels_in, pixels = x.shape[1], prod(x.shape[2:]), prod(y.shape[2:])
    kernel = _spread(op.attribute("kernel", 1), len(x.shape) - 2)
    if pixels == 1 and prod(kernel) == pixels_in:
        unit = Unit(
            "global_pool", 1, channels, 1, channels, x.precision.bits, at.out_bits, pixels_in=pixels_in
        )
        at.add(unit, [at.edge(x, pixels_in, "all")])
        return
    window = _window(op, kernel, x, y)
    unit = Unit(
        "pool",
        window.taps,
        channels,
        pixels,
        channels,
        x.precision.bits,
        at.out_bits,
        window=window,
        pixels_in=pixels_in,
    )
    at.add(unit, [at.edge(x, pixels_in, "window")])


def _layout(op: Op, at: _Context, t: Tensor) -> tuple[int, int]:
    """(pixels, channels) of a tensor: as its producer streams it, else channels second (images) or last (sequences)."""
    stream = at.builder.streams.get(t.name)
    if stream is not None:
        return stream.pixels, stream.channels
    if len(t.shape) >= 4 or (len(t.shape) == 3 and op.kind in ("batch_norm", "group_norm")):
        return prod(t.shape[2:]), t.elements // prod(t.shape[2:])
    return max(t.elements // t.shape[-1], 1) if t.shape else 1, t.shape[-1] if t.shape else 1


def _channelwise(op: Op, at: _Context) -> None:
    """Pointwise arithmetic, joins and copies: one output element per lane and cycle."""
    streamed = [t for t in op.inputs if t.role in ("activation", "kv")]
    y = op.outputs[0]
    layouts = [_layout(op, at, t) for t in streamed]
    pixels = max((p for p, _ in layouts), default=1)
    if op.kind in ("resize", "slice", "split", "pad", "copy") and streamed:
        pixels = max(_layout_of_output(y, streamed[0], layouts[0]), 1)
    total = max(sum(t.elements for t in op.outputs), *(t.elements for t in streamed), 1)
    channels = max(-(-total // pixels), 1)
    bits = max((t.precision.bits for t in streamed), default=at.out_bits)
    unit = Unit(
        "channelwise", 1, channels, pixels, channels, bits, at.out_bits,
        requantised=at.requantised or op.kind in EPILOGUES - {"elementwise", "cast"}, pixels_in=layouts[0][0] if layouts else 1,
    )  # fmt: skip
    at.add(unit, [at.edge(t, p) for t, (p, _) in zip(streamed, layouts)])


def _layout_of_output(y: Tensor, x: Tensor, layout: tuple[int, int]) -> int:
    """Pixels of a resized, sliced or padded tensor: all axes that are not the channels of its input."""
    _, channels = layout
    if channels in y.shape and y.elements % channels == 0:
        return y.elements // channels
    return min(layout[0], y.elements)


def _row(op: Op, at: _Context) -> None:
    """Softmax and normalisation along rows: statistics, then the values, with two rows in flight."""
    x = op.inputs[0]
    image = op.kind == "group_norm" and len(x.shape) > 2
    channels = x.shape[1] if image else x.shape[-1]
    pixels = max(x.elements // channels, 1)
    unit = Unit("row", 1, channels, pixels, channels, x.precision.bits, at.out_bits, pixels_in=pixels)
    at.add(unit, [at.edge(x, pixels, "all" if image else "stream")])


def _gather(op: Op, at: _Context) -> None:
    """Rows of a weight table in DRAM enter as a stream of their own; picking from an activation is a copy."""
    table, y = op.inputs[0], op.outputs[0]
    if table.role != "weight":
        _channelwise(op, at)
        return
    channels = y.shape[-1]
    pixels = max(y.elements // channels, 1)
    bits = table.precision.bits
    at.add(Unit("dma_in", 1, 1, pixels, 1, bits, bits, pixels_in=y.elements), ())


def _reduce(op: Op, at: _Context) -> None:
    x, y = op.inputs[0], op.outputs[0]
    pixels_in, channels = _layout(op, at, x)
    if (
        y.elements >= pixels_in
        and y.elements % pixels_in == 0
        and y.elements < x.elements
        and channels not in y.shape
    ):
        unit = Unit(
            "channelwise",
            1,
            channels,
            pixels_in,
            channels,
            x.precision.bits,
            at.out_bits,
            pixels_in=pixels_in,
        )
        at.add(unit, [at.edge(x, pixels_in)])
        return
    unit = Unit("global_pool", 1, channels, 1, channels, x.precision.bits, at.out_bits, pixels_in=pixels_in)
    at.add(unit, [at.edge(x, pixels_in, "all")])


def _reorder(op: Op, at: _Context) -> None:
    """A transpose writes one frame while it reads another."""
    x, y = op.inputs[0], op.outputs[0]
    pixels_in, _ = _layout(op, at, x)
    pixels = max(y.elements // y.shape[-1], 1)
    unit = Unit(
        "reorder", 1, y.shape[-1], pixels, y.shape[-1], x.precision.bits, at.out_bits, pixels_in=pixels_in
    )
    at.add(unit, [at.edge(x, pixels_in, "all")])


_MAKERS: dict[str, Callable[[Op, _Context], None]] = {
    "conv": _conv,
    "matmul": _matmul,
    "attention": _attention,
    "lstm": _recurrent,
    "gru": _recurrent,
    "pool": _pool,
    "softmax": _row,
    "layer_norm": _row,
    "rms_norm": _row,
    "group_norm": _row,
    "reduce": _reduce,
    "gather": _gather,
    "transpose": _reorder,
    **dict.fromkeys(_POINTWISE, _channelwise),
}
