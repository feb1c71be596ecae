"""The streaming units of each kind of operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from accelsim.architectures.fpga.network import Edge, EdgeMode, Stage, Stream, Unit, Window
from accelsim.architectures.fusion import EPILOGUES
from accelsim.core.outcome import InfeasibleError
from accelsim.workload.graph import Op, Tensor

_POINTWISE = EPILOGUES | {"resize", "slice", "copy", "split", "concat", "pad"}

FEEDBACK_CYCLES = 32  # assumed: sigmoid and tanh tables, two products and the way back of a recurrent step


@dataclass(frozen=True)
class Context:
    """Where a maker puts the stages of one group of ops.

    Attributes
    ----------
    stages : list of Stage
        Filled in topological order.
    streams : dict
        Tensor name to its stream.
    approximated : list of str
        Filled with what a maker only approximates.
    source : callable
        ``source(tensor, pixels)``: the stream of a tensor, with a DMA stage for a graph input.
    part : int
    name : str
    out_bits : int
        Of the group's last output [bit].
    requantised : bool
        Thresholds or a requantiser end the group.
    """

    stages: list[Stage]
    streams: dict[str, Stream]
    approximated: list[str]
    source: Callable[[Tensor, int], Stream]
    part: int
    name: str
    out_bits: int
    requantised: bool

    def edge(self, t: Tensor, pixels: int, mode: EdgeMode = "stream") -> Edge:
        stream = self.source(t, pixels)
        return Edge(stream.stage, mode, stream.pixels)

    def add(self, unit: Unit, edges: Sequence[Edge], suffix: str = "") -> int:
        self.stages.append(Stage(self.name + suffix, self.part, unit, tuple(edges)))
        return len(self.stages) - 1


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
    # What the output needs beyond the input and the leading padding; importers may give one padding for both
    # sides.
    after = tuple(
        max(0, (o - 1) * s + d * (k - 1) + 1 - i - b)
        for o, s, d, k, i, b in zip(out, stride, dilation, kernel, size, before)
    )
    pairs = [_plane(v, 1) for v in (size, kernel, stride, dilation)]
    pairs += [_plane(v, 0) for v in (before, after)] + [_plane(out, 1)]
    return Window(*(value for pair in pairs for value in pair))


def _plane(values: Sequence[int], missing: int) -> tuple[int, ...]:
    """Rows and columns; a one-dimensional frame has one row."""
    return tuple(values) if len(values) == 2 else (missing, *values)


def _conv(op: Op, at: Context) -> None:
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
        density=w.density,
    )
    if groups == channels == height:
        base = replace(base, kind="vvau", mw=taps, mh=channels, rounds=1)
    if transposed:
        at.approximated.append(f"{op.name}: a transposed convolution as one over the zero-filled input")
    at.add(base, [at.edge(x, pixels_in, "stream" if plain else "window")])


def _matmul(op: Op, at: Context) -> None:
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
        density=1.0 if dynamic else b.density,
    )
    edges = [at.edge(a, vectors)]
    if dynamic:
        edges.append(at.edge(b, nest.batch * nest.n, "all"))
    at.add(unit, edges)


def _attention(op: Op, at: Context) -> None:
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
        "mvau", width, keys, rows, width, bits, bits, weights=k.elements, weight_bits=bits,
        requantised=True, dynamic=True, pixels_in=rows,
    )  # fmt: skip
    first = at.add(scores, [at.edge(q, rows), at.edge(k, k.shape[1] * keys, "all")], ".scores")
    softmax = Unit("row", 1, keys, rows, keys, bits, bits, pixels_in=rows)
    second = at.add(softmax, [Edge(first, "stream", rows)], ".softmax")
    values = Unit(
        "mvau", keys, value_width, rows, keys, bits, at.out_bits, weights=v.elements, weight_bits=bits,
        requantised=True, dynamic=True, pixels_in=rows,
    )  # fmt: skip
    at.add(values, [Edge(second, "stream", rows), at.edge(v, v.shape[1] * keys, "all")], ".values")


def _recurrent(op: Op, at: Context) -> None:
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
        feedback=FEEDBACK_CYCLES,
    )
    at.approximated.append(
        f"{op.name}: a recurrent layer as one matrix-vector unit with {FEEDBACK_CYCLES} cycles of feedback"
    )
    at.add(unit, [at.edge(x, steps)])


def _pool(op: Op, at: Context) -> None:
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


def _layout(op: Op, at: Context, t: Tensor) -> tuple[int, int]:
    """(pixels, channels) of a tensor: as its producer streams it, else channels second (images) or last
    (sequences)."""
    stream = at.streams.get(t.name)
    if stream is not None:
        return stream.pixels, stream.channels
    if len(t.shape) >= 4 or (len(t.shape) == 3 and op.kind in ("batch_norm", "group_norm")):
        return prod(t.shape[2:]), t.elements // prod(t.shape[2:])
    return max(t.elements // t.shape[-1], 1) if t.shape else 1, t.shape[-1] if t.shape else 1


def _channelwise(op: Op, at: Context) -> None:
    """Pointwise arithmetic, joins and copies: one output element per lane and cycle."""
    streamed = [t for t in op.inputs if t.role in ("activation", "kv")]
    y = op.outputs[0]
    layouts = [_layout(op, at, t) for t in streamed]
    pixels = max((p for p, _ in layouts), default=1)
    if op.kind in ("resize", "slice", "split", "pad", "copy") and streamed:
        pixels = max(_layout_of_output(y, layouts[0]), 1)
    elif op.kind == "concat" and layouts and pixels * sum(c for _, c in layouts) != y.elements:
        pixels = max(_layout_of_output(y, layouts[0]), 1)  # along rows or tokens, not along channels
    total = max(sum(t.elements for t in op.outputs), *(t.elements for t in streamed), 1)
    channels = max(-(-total // pixels), 1)
    bits = max((t.precision.bits for t in streamed), default=at.out_bits)
    unit = Unit(
        "channelwise",
        1,
        channels,
        pixels,
        channels,
        bits,
        at.out_bits,
        requantised=at.requantised or op.kind in EPILOGUES - {"elementwise", "cast"},
        pixels_in=layouts[0][0] if layouts else 1,
    )
    at.add(unit, [at.edge(t, p) for t, (p, _) in zip(streamed, layouts)])


def _layout_of_output(y: Tensor, layout: tuple[int, int]) -> int:
    """Pixels of a resized, sliced or padded tensor: all axes that are not the channels of its input."""
    _, channels = layout
    if channels in y.shape and y.elements % channels == 0:
        return y.elements // channels
    return min(layout[0], y.elements)


def _row(op: Op, at: Context) -> None:
    """Softmax and normalisation along rows: statistics, then the values, with two rows in flight."""
    x = op.inputs[0]
    image = op.kind == "group_norm" and len(x.shape) > 2
    channels = x.shape[1] if image else x.shape[-1]
    pixels = max(x.elements // channels, 1)
    unit = Unit("row", 1, channels, pixels, channels, x.precision.bits, at.out_bits, pixels_in=pixels)
    at.add(unit, [at.edge(x, pixels, "all" if image else "stream")])


def _gather(op: Op, at: Context) -> None:
    """Rows of a weight table in DRAM enter as a stream of their own; picking from an activation is a copy."""
    table, y = op.inputs[0], op.outputs[0]
    if table.role != "weight":
        _channelwise(op, at)
        return
    channels = y.shape[-1]
    pixels = max(y.elements // channels, 1)
    bits = table.precision.bits
    at.add(Unit("dma_in", 1, 1, pixels, 1, bits, bits, pixels_in=y.elements), ())


def _reduce(op: Op, at: Context) -> None:
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


def _reorder(op: Op, at: Context) -> None:
    """A transpose writes one frame while it reads another."""
    x, y = op.inputs[0], op.outputs[0]
    pixels_in, _ = _layout(op, at, x)
    pixels = max(y.elements // y.shape[-1], 1)
    unit = Unit(
        "reorder", 1, y.shape[-1], pixels, y.shape[-1], x.precision.bits, at.out_bits, pixels_in=pixels_in
    )
    at.add(unit, [at.edge(x, pixels_in, "all")])


MAKERS: dict[str, Callable[[Op, Context], None]] = {
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
