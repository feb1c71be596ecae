"""Normalisations and softmax."""

from __future__ import annotations

from math import prod

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import TRANSCENDENTAL_OPS, Work, compulsory, register_op, require_operands

_FP16 = precision("fp16")


def _example(kind: str, shape: tuple[int, ...], width: int, vectors: int, **attributes: int) -> Op:
    x = Tensor("x", shape, _FP16, batch_axis=0)
    held = tuple(Tensor(f"v{i}", (width,), _FP16, role="weight") for i in range(vectors))
    return Op(kind, kind, (x, *held), (Tensor("y", shape, _FP16, batch_axis=0),), attributes)


def _checked(op: Op) -> tuple[Tensor, int]:
    """The input and the number of learned vectors of an op that keeps its shape."""
    require_operands(op, 1)
    x, y = op.inputs[0], op.outputs[0]
    if x.shape != y.shape:
        raise GraphError(f"{op.kind} keeps the shape, got {x.shape} to {y.shape}", op.name)
    return x, len(op.inputs) - 1


def _channel_vectors(op: Op, x: Tensor) -> None:
    if len(x.shape) < 2:
        raise GraphError(f"{op.kind} needs (n, c, ...), got {x.shape}", op.name)
    for t in op.inputs[1:]:
        if t.elements != x.shape[1]:
            raise GraphError(f"vector '{t.name}' {t.shape} does not fit {x.shape[1]} channels", op.name)


def _row_length(op: Op, x: Tensor) -> int:
    """Elements that share one mean: the trailing axes that the vectors cover, or the last axis."""
    if len(op.inputs) == 1:
        return x.shape[-1] if x.shape else 1
    length = op.inputs[1].elements
    trailing = {prod(x.shape[i:]) for i in range(len(x.shape))}
    if length not in trailing:
        raise GraphError(
            f"vector '{op.inputs[1].name}' {op.inputs[1].shape} does not cover trailing axes of {x.shape}",
            op.name,
        )
    return length


@register_op("batch_norm", examples=[lambda: _example("batch_norm", (1, 64, 14, 14), 64, 4)])
def batch_norm(op: Op) -> Work:
    """Batch normalisation in inference, (x - mean) / std * weight + bias: 2 vector operations per element.

    The four vectors collapse into a scale and a shift beforehand. ``inputs = (x, weight, bias, mean,
    var)``, x (n, c, ...).
    """
    x, _ = _checked(op)
    _channel_vectors(op, x)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=2 * x.elements)


@register_op(
    "layer_norm",
    examples=[
        lambda: _example("layer_norm", (1, 128, 768), 768, 2),
        lambda: _example("layer_norm", (1, 16, 64), 64, 0),
    ],
)
def layer_norm(op: Op) -> Work:
    """Layer normalisation over the trailing axes that the weight covers.

    Per element: add into the mean, subtract it, square, add into the variance, multiply by 1/std: 5, and
    one per learned vector (weight, bias). Per row: divide twice, add epsilon, one inverse square root.
    """
    x, vectors = _checked(op)
    rows = x.elements // _row_length(op, x)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=(5 + vectors) * x.elements + (3 + TRANSCENDENTAL_OPS) * rows)


@register_op("rms_norm", examples=[lambda: _example("rms_norm", (1, 128, 4096), 4096, 1)])
def rms_norm(op: Op) -> Work:
    """Root-mean-square normalisation over the trailing axes that the weight covers.

    Per element: square, add, multiply by 1/rms: 3, and one per learned vector. Per row: divide, add
    epsilon, one inverse square root.
    """
    x, vectors = _checked(op)
    rows = x.elements // _row_length(op, x)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=(3 + vectors) * x.elements + (2 + TRANSCENDENTAL_OPS) * rows)


@register_op("group_norm", examples=[lambda: _example("group_norm", (1, 320, 16, 16), 320, 2, groups=32)])
def group_norm(op: Op) -> Work:
    """Group normalisation: as layer_norm, with one mean and variance per item and group of channels.

    Attribute: groups.
    """
    x, vectors = _checked(op)
    _channel_vectors(op, x)
    groups = op.attribute("groups", 1)
    if groups < 1 or x.shape[1] % groups:
        raise GraphError(f"{x.shape[1]} channels do not divide by {groups} groups", op.name)
    read, written = compulsory(op)
    return Work(
        read, written, vector_ops=(5 + vectors) * x.elements + (3 + TRANSCENDENTAL_OPS) * x.shape[0] * groups
    )


@register_op("softmax", examples=[lambda: _example("softmax", (1, 12, 128, 128), 0, 0, axis=-1)])
def softmax(op: Op) -> Work:
    """Stable softmax exp(x - max) / sum along `axis`.

    Per element: compare, subtract, exp, add, divide, so `TRANSCENDENTAL_OPS` + 4 vector operations.
    """
    x, _ = _checked(op)
    axis = op.attribute("axis", -1)
    if not -len(x.shape) <= axis < max(len(x.shape), 1):
        raise GraphError(f"axis {axis} is not an axis of {x.shape}", op.name)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=(TRANSCENDENTAL_OPS + 4) * x.elements)
