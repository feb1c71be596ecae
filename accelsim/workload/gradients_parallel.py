"""Backward rules of expert layers and of collectives."""

from __future__ import annotations

from dataclasses import replace

from accelsim.workload.gradients import Gradients, register_backward

# -- experts
# -----------------------------------------------------------------------------------------------------------


@register_backward("grouped_matmul")
def _grouped_matmul(g: Gradients) -> None:
    """dA = dC W^T and dW = A^T dC expert by expert: as many FLOPs each as the product itself."""
    a, w, dy = g.op.inputs[0], g.op.inputs[1], g.seed
    routing = {n: g.op.attributes[n] for n in ("experts", "top_k")}
    if g.wants(0):
        turned = replace(w, shape=(w.shape[0], w.shape[2], w.shape[1]))
        (da,) = g.emit("grouped_matmul", (dy, turned), a, **routing)
        g.give(0, da)
    if g.wants(1):
        like = replace(w, batch_axis=None)
        (g.found[1],) = g.emit("grouped_weight_gradient", (a, dy), like, **routing)
    if g.wants(2):
        (g.found[2],) = g.emit("gradient", (dy,), g.op.inputs[2], per_element=1, of=g.op.kind)


@register_backward("moe_dispatch")
def _dispatch(g: Gradients) -> None:
    """The rows of a token are added up."""
    if g.wants(0):
        (dx,) = g.emit("gradient", (g.seed, g.op.inputs[1]), g.op.inputs[0], per_element=1, of=g.op.kind)
        g.give(0, dx)


@register_backward("moe_combine")
def _combine(g: Gradients) -> None:
    """A row gets its gate times its token's gradient, a gate the dot product of its row with that."""
    x, gates = g.op.inputs[:2]
    if g.wants(0):
        (dx,) = g.emit("gradient", (g.seed, gates), x, per_element=1, of=g.op.kind)
        g.give(0, dx)
    if g.wants(1):
        (d_gates,) = g.emit("gradient", (g.seed, x), gates, per_element=2, of=g.op.kind)
        g.give(1, d_gates)


@register_backward("topk")
def _topk(g: Gradients) -> None:
    """Chosen values hand their gradient to where they came from, the others get zeros; indices have none."""
    values = g.dy[0]
    if values is not None and g.wants(0):
        inputs = (values, *g.op.outputs[1:])
        (dx,) = g.emit("gradient", inputs, g.op.inputs[0], per_element=1, of="topk")
        g.give(0, dx)


# -- collectives
# -----------------------------------------------------------------------------------------------------------

_CONJUGATE = {
    "all_reduce": "all_reduce",
    "all_gather": "reduce_scatter",
    "reduce_scatter": "all_gather",
    "all_to_all": "all_to_all",
    "send": "send",
}


@register_backward(*_CONJUGATE)
def _collective(g: Gradients) -> None:
    """What was gathered is scattered and the other way round. Gradients of a layer whose results are reduced
    are reduced as well, where its devices read the same input (Megatron-LM, arXiv:1909.08053: operators f
    and g, of which a graph has one).
    """
    if g.wants(0):
        kind, devices = _CONJUGATE[g.op.kind], g.op.attribute("devices")
        (dx,) = g.emit(kind, (g.seed,), g.op.inputs[0], devices=devices)
        g.give(0, dx)
