"""Backward rules: which operators compute the gradient of each kind of operator.

A rule is a function of `Gradients`, registered under the forward kind; it emits ops and gives each input
that needs one its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops.elementwise import ACTIVATION_OPS, COMPOSITE_OPS, PAIRWISE_OPS

STOPS = frozenset({"kv_write"})
"""Kinds that no gradient passes: what they put out is a cache."""


@dataclass
class Gradients:
    """What a rule sees of one forward op, and where it puts the ops of its gradient.

    Attributes
    ----------
    op : Op
        The forward op.
    dy : tuple of Tensor or None
        Gradient of each output; None where nothing that is asked for follows from it.
    wanted : tuple of bool
        Which inputs need a gradient.
    ops : list of Op
        Filled by `emit`.
    found : dict of int to Tensor
        Gradients of inputs, filled by `give`.
    """

    op: Op
    dy: tuple[Tensor | None, ...]
    wanted: tuple[bool, ...]
    ops: list[Op] = field(default_factory=list)
    found: dict[int, Tensor] = field(default_factory=dict)

    @property
    def seed(self) -> Tensor:
        """Gradient of the first output that has one."""
        return next(t for t in self.dy if t is not None)

    def wants(self, index: int) -> bool:
        return index < len(self.wanted) and self.wanted[index]

    def emit(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        *outputs: Tensor,
        repeat: int = 1,
        approximated: str = "",
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Add an op that writes tensors shaped like `outputs`, and return them under their own names."""
        name = f"{self.op.name}.grad" + (f"_{len(self.ops)}" if self.ops else "")
        written = tuple(
            replace(t, name=name if i == 0 else f"{name}:{i}", role="activation", density=1.0, pattern="")
            for i, t in enumerate(outputs)
        )
        times, origin = self.op.repeat * repeat, f"gradient of {self.op.kind}"
        self.ops.append(
            Op(name, kind, tuple(inputs), written, attributes, times, origin, approximated, self.op.block)
        )
        return written

    def pointwise(self, index: int, inputs: Sequence[Tensor], per_element: int) -> None:
        """Give an input a gradient that costs `per_element` operations per element."""
        if self.wants(index):
            like = replace(self.seed, shape=_widest(self.op.inputs[index], self.seed))
            (gradient,) = self.emit("gradient", inputs, like, per_element=per_element, of=self.op.kind)
            self.give(index, gradient)

    def view(self, t: Tensor, shape: tuple[int, ...], batch_axis: int | None) -> Tensor:
        """The same memory under another shape."""
        like = replace(t, shape=shape, batch_axis=batch_axis)
        return self.emit("reshape", (t,), like)[0]

    def give(self, index: int, gradient: Tensor) -> None:
        """Set the gradient of an input; summed over what the input was broadcast to."""
        like = self.op.inputs[index]
        summed = gradient.batch_axis if like.batch_axis is None else None
        if summed is None and gradient.shape == like.shape:
            self.found[index] = gradient
            return
        if summed is None and gradient.elements == like.elements:
            self.found[index] = self.view(gradient, like.shape, like.batch_axis)
            return
        padded = (1,) * (len(gradient.shape) - len(like.shape)) + like.shape
        axes = tuple(i for i, (g, p) in enumerate(zip(gradient.shape, padded)) if g != p or i == summed)
        total = replace(like, precision=gradient.precision)
        (self.found[index],) = self.emit("reduce", (gradient,), total, function="sum", axes=axes)


def _widest(t: Tensor, dy: Tensor) -> tuple[int, ...]:
    """Shape of a gradient before it is summed over broadcast axes."""
    return t.shape if t.elements >= dy.elements else dy.shape


Rule = Callable[[Gradients], None]
RULES: dict[str, Rule] = {}


def register_backward(*kinds: str) -> Callable[[Rule], Rule]:
    """Register the backward rule of operator kinds; a kind has one rule.

    Raises
    ------
    ValueError
        A kind has a rule already.
    """

    def decorate(rule: Rule) -> Rule:
        for kind in kinds:
            if kind in RULES:
                raise ValueError(f"operator kind '{kind}' has a backward rule already")
            RULES[kind] = rule
        return rule

    return decorate


# -- products
# ---------------------------------------------------------------------------------------------------------


@register_backward("matmul")
def _matmul(g: Gradients) -> None:
    """dA = dC B^T and dB = A^T dC: as many FLOPs each as the product itself."""
    a, b, dy = g.op.inputs[0], g.op.inputs[1], g.seed
    ta, tb = bool(g.op.attribute("transpose_a")), bool(g.op.attribute("transpose_b"))
    if len(a.shape) == 1:
        dy = g.view(dy, (1, *dy.shape), None)
    if g.wants(0):
        left, right = ((b, dy), (tb, True)) if ta else ((dy, b), (False, not tb))
        (da,) = g.emit("matmul", left, a, transpose_a=right[0], transpose_b=right[1])
        g.give(0, da)
    if g.wants(1):
        if prod(b.shape[:-2]) == 1 and not (ta and len(a.shape) == 2):
            a, dy, ta = _rows(g, a), _rows(g, dy), False
        pair, flags = ((dy, a), (True, ta)) if tb else ((a, dy), (not ta, False))
        (db,) = g.emit("matmul", pair, b, transpose_a=flags[0], transpose_b=flags[1])
        g.give(1, db)
    _bias(g, 2, dy)


def _rows(g: Gradients, t: Tensor) -> Tensor:
    """A tensor with all leading axes as rows."""
    if len(t.shape) == 2:
        return t
    shape = (1, *t.shape) if len(t.shape) == 1 else (prod(t.shape[:-1]), t.shape[-1])
    return g.view(t, shape, None if t.batch_axis is None else 0)


def _bias(g: Gradients, index: int, dy: Tensor, axis: int = -1) -> None:
    """Gradient of a bias: the sum over all axes but its own."""
    if not g.wants(index):
        return
    rank = len(dy.shape)
    bias = g.op.inputs[index]
    axes = tuple(i for i in range(rank) if i != axis % rank)
    (g.found[index],) = g.emit("reduce", (dy,), bias, function="sum", axes=axes)


@register_backward("conv")
def _conv(g: Gradients) -> None:
    """dx is the convolution with the kernel turned round; dw correlates input and output gradient. Both run
    as many products as the forward pass.
    """
    x, w, dy = g.op.inputs[0], g.op.inputs[1], g.seed
    groups, transposed = g.op.attribute("groups", 1), g.op.attribute("transposed", False)
    rank = len(w.shape) - 2
    stride, dilation = (tuple(g.op.attribute(n, (1,) * rank)) for n in ("stride", "dilation"))
    padding = g.op.attribute("padding", (0,) * rank)
    if g.wants(0):
        (dx,) = g.emit(
            "conv", (dy, w), x,
            stride=stride, dilation=dilation, padding=padding, groups=groups, transposed=not transposed,
        )  # fmt: skip
        g.give(0, dx)
    if g.wants(1):
        wide, narrow = (dy, x) if transposed else (x, dy)
        n, channels = wide.shape[:2]
        batched = 1 if wide.batch_axis is not None else None
        image = g.view(wide, (channels // groups, groups * n, *wide.shape[2:]), batched)
        kernel = g.view(narrow, (narrow.shape[1], n, *narrow.shape[2:]), batched)
        like = replace(w, shape=(channels // groups, narrow.shape[1], *w.shape[2:]), batch_axis=None)
        (turned,) = g.emit(
            "conv", (image, kernel), like,
            stride=dilation, dilation=stride, padding=padding, groups=groups, transposed=False,
        )  # fmt: skip
        g.found[1] = g.view(turned, w.shape, None)
    _bias(g, 2, dy, axis=1)


@register_backward("attention")
def _attention(g: Gradients) -> None:
    """One kernel that computes the scores again; see `accelsim.workload.ops.gradient`."""
    q, k, v = g.op.inputs[:3]
    attributes = {n: g.op.attributes[n] for n in ("causal", "window") if n in g.op.attributes}
    found = g.emit(
        "attention_backward", (g.seed, q, k, v, g.op.outputs[0], *g.op.inputs[3:]), q, k, v, **attributes
    )
    for index, gradient in enumerate(found):
        if g.wants(index):
            g.give(index, gradient)


@register_backward("mla_attention")
def _latent_attention(g: Gradients) -> None:
    """One kernel; the cache's gradient is that of keys and values together."""
    q, cache = g.op.inputs[:2]
    attributes = {n: g.op.attributes[n] for n in ("latent", "rope", "causal") if n in g.op.attributes}
    found = g.emit("mla_attention_backward", (g.seed, q, cache, g.op.outputs[0]), q, cache, **attributes)
    for index, gradient in enumerate(found):
        if g.wants(index):
            g.give(index, gradient)


@register_backward("lstm", "gru")
def _recurrent(g: Gradients) -> None:
    """Gradients of the gates step by step, each needing the next one's; then three products over all steps.

    The initial state needs no gradient, so the recurrent product runs t - 1 times; it is an operand of the
    weights' gradient all the same.
    """
    x, w_ih, w_hh = g.op.inputs[:3]
    (steps, batch, features), hidden = x.shape, g.op.attribute("hidden")
    directions = g.op.attribute("directions", 1)
    gates = w_hh.elements // (directions * hidden * hidden)
    width = gates * hidden
    y = g.op.outputs[0]
    like = replace(y, shape=(steps, batch, directions * width))
    (d_gates,) = g.emit(
        "gradient", (g.seed, y), like, per_element=6, of=g.op.kind,
        approximated="gradients of the gates of all steps as one pointwise operation",
    )  # fmt: skip
    if steps > 1:
        axis = 1 if directions > 1 else 0
        lead = (directions,) if directions > 1 else ()
        step = replace(d_gates, shape=(*lead, batch, width), batch_axis=axis, name=f"{g.op.name}.grad_step")
        recurrent = replace(w_hh, shape=(*lead, width, hidden))
        state = replace(y, shape=(*lead, batch, hidden), batch_axis=axis)
        step = g.emit("slice", (d_gates,), step)[0]
        g.emit("matmul", (step, recurrent), state, repeat=steps - 1, shared_over=steps - 1)
    rows = g.view(d_gates, (steps * batch, directions * width), 0)
    if g.wants(0):
        (dx,) = g.emit("matmul", (rows, replace(w_ih, shape=(directions * width, features))), x)
        g.give(0, dx)
    if g.wants(1):
        flat = g.view(x, (steps * batch, features), 0)
        (dw,) = g.emit(
            "matmul", (rows, flat), replace(w_ih, shape=(directions * width, features)), transpose_a=True
        )
        g.give(1, dw)
    if g.wants(2):
        count = steps * batch
        lead = (directions,) if directions > 1 else ()
        axis = 1 if directions > 1 else 0
        before = replace(y, shape=(*lead, count, hidden), batch_axis=axis)
        after = replace(y, shape=(*lead, count, width), batch_axis=axis)
        (before,), (after,) = g.emit("reshape", (y,), before), g.emit("reshape", (d_gates,), after)
        like = replace(w_hh, shape=(*lead, width, hidden))
        (dw,) = g.emit("matmul", (after, before), like, transpose_a=True)
        g.give(2, dw)
    for index in range(3, len(g.op.inputs)):
        if g.wants(index) and g.op.inputs[index].role == "weight":
            like = replace(g.op.inputs[index], shape=(directions * width,))
            (g.found[index],) = g.emit("reduce", (rows,), like, function="sum", axes=(0,))


# -- pointwise
# --------------------------------------------------------------------------------------------------------


@register_backward("activation")
def _activation(g: Gradients) -> None:
    """dx = dy f'(x): the function's own cost and one product; two where the function is a comparison."""
    cost = ACTIVATION_OPS.get(str(g.op.attribute("function")), 1)
    g.pointwise(0, (g.seed, g.op.inputs[0]), cost + 1)
    if g.wants(1):
        g.pointwise(1, (g.seed, g.op.inputs[0]), 2)


_LINEAR = frozenset({"add", "sub", "sum", "mean"})
_FLAT = frozenset(
    {
        "and", "bit_shift", "bitwise_and", "bitwise_or", "bitwise_xor", "compare", "equal", "floor_div",
        "greater", "greater_equal", "less", "less_equal", "not_equal", "or", "xor",
    }
)  # fmt: skip


@register_backward("elementwise")
def _elementwise(g: Gradients) -> None:
    """Sums hand their gradient on; products multiply it with the other factors; comparisons have none."""
    function = str(g.op.attribute("function"))
    if function in _FLAT:
        return
    for index in range(len(g.op.inputs)):
        if not g.wants(index):
            continue
        if function in _LINEAR:
            g.give(index, g.seed)
            continue
        others = tuple(t for i, t in enumerate(g.op.inputs) if i != index)
        inputs = (g.seed, *others) if function == "mul" else (g.seed, *g.op.inputs)
        cost = {**PAIRWISE_OPS, **COMPOSITE_OPS}.get(function, 1)
        g.pointwise(index, inputs, cost if function == "mul" else cost + 1)


@register_backward("quantize", "dequantize", "cast")
def _straight_through(g: Gradients) -> None:
    """Rounding passes the gradient on as it is (straight-through estimator, Bengio et al.,
    arXiv:1308.3432).
    """
    if g.wants(0):
        g.give(0, g.seed)


@register_backward("softmax")
def _softmax(g: Gradients) -> None:
    """dx = y (dy - sum(dy y)): four operations per element."""
    g.pointwise(0, (g.seed, g.op.outputs[0]), 4)


@register_backward("batch_norm")
def _batch_norm(g: Gradients) -> None:
    """With running statistics as constants: dx = dy scale; the scale's gradient also reads x."""
    x, dy = g.op.inputs[0], g.seed
    g.pointwise(0, (dy, g.op.inputs[1]) if len(g.op.inputs) > 1 else (dy,), 1)
    _scale_and_shift(g, x, dy, axis=1)


@register_backward("layer_norm", "rms_norm", "group_norm")
def _norm(g: Gradients) -> None:
    """Nine operations per element: the normalised value again, two sums over a row, and the combination."""
    x, dy = g.op.inputs[0], g.seed
    g.pointwise(0, (dy, x, *g.op.inputs[1:2]), 9)
    _scale_and_shift(g, x, dy, axis=1 if g.op.kind == "group_norm" else -1)


def _scale_and_shift(g: Gradients, x: Tensor, dy: Tensor, axis: int) -> None:
    for index in range(1, len(g.op.inputs)):
        if not g.wants(index) or g.op.inputs[index].role != "weight":
            continue
        inputs = (dy, x) if index == 1 else (dy,)
        (g.found[index],) = g.emit(
            "gradient", inputs, g.op.inputs[index], per_element=3 if index == 1 else 1, of=g.op.kind
        )


# -- movement
# ---------------------------------------------------------------------------------------------------------


@register_backward("pool", "resize", "reduce")
def _spread(g: Gradients) -> None:
    """Each output's gradient goes back to the positions that it came from."""
    x = g.op.inputs[0]
    mode = g.op.attribute("mode", g.op.attribute("function", ""))
    if mode in ("argmax", "argmin"):
        return
    picks = mode in ("max", "min", "prod", "logsumexp", "l2")
    (dx,) = g.emit("gradient", (g.seed, x) if picks else (g.seed,), x, per_element=1, of=g.op.kind)
    g.give(0, dx)


@register_backward("gather")
def _gather(g: Gradients) -> None:
    """Rows are added into a table of zeros, which is written whole, as dense gradients are."""
    if g.wants(0):
        table = g.op.inputs[0]
        (g.found[0],) = g.emit("gradient", (g.seed, *g.op.inputs[1:]), table, per_element=1, of="gather")


@register_backward("slice", "pad")
def _window(g: Gradients) -> None:
    if g.wants(0):
        (dx,) = g.emit("gradient", (g.seed,), g.op.inputs[0], per_element=0, of=g.op.kind)
        g.give(0, dx)


@register_backward("split")
def _split(g: Gradients) -> None:
    if g.wants(0):
        parts = tuple(t for t in g.dy if t is not None)
        (dx,) = g.emit("gradient", parts, g.op.inputs[0], per_element=0, of="split")
        g.give(0, dx)


@register_backward("concat")
def _concat(g: Gradients) -> None:
    """Parts of the gradient are views; whatever reads them reads the part."""
    for index, t in enumerate(g.op.inputs):
        if g.wants(index):
            (part,) = g.emit("gradient", (g.seed,), t, per_element=0, of="concat")
            g.give(index, part)


@register_backward("transpose")
def _transpose(g: Gradients) -> None:
    if g.wants(0):
        x, axes = g.op.inputs[0], g.op.attribute("axes")
        back = tuple(sorted(range(len(axes)), key=lambda i: axes[i])) if axes else None
        attributes: dict[str, Any] = {"axes": back} if back else {}
        (dx,) = g.emit("transpose", (g.seed,), x, **attributes)
        g.give(0, dx)


@register_backward("copy")
def _copy(g: Gradients) -> None:
    if g.wants(0):
        g.give(0, g.seed)


@register_backward("reshape")
def _reshape(g: Gradients) -> None:
    """A view back; views of parts are put together where the whole is needed."""
    if not g.wants(0):
        return
    x, parts = g.op.inputs[0], tuple(t for t in g.dy if t is not None)
    if len(parts) == 1 and parts[0].elements == x.elements:
        g.give(0, g.view(parts[0], x.shape, x.batch_axis))
        return
    (dx,) = g.emit("gradient", parts, x, per_element=0, of="reshape")
    g.give(0, dx)
