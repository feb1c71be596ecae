"""Operators that move, copy or rename data."""

from __future__ import annotations

from functools import partial

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import FREE, Work, bytes_of, compulsory, register_op, require_operands

_FP16 = precision("fp16")
_INT64 = precision("int64", storage=True)


def _t(name: str, *shape: int, batch_axis: int | None = 0) -> Tensor:
    return Tensor(name, shape, _FP16, batch_axis=batch_axis)


@register_op(
    "gather",
    examples=[
        lambda: Op(
            "embedding",
            "gather",
            (
                Tensor("table", (30522, 768), _FP16, role="weight"),
                Tensor("ids", (1, 128), _INT64, batch_axis=0),
            ),
            (_t("rows", 1, 128, 768),),
        )
    ],
)
def gather(op: Op) -> Work:
    """Pick slices of a table along `axis` (default 0); an embedding is this.

    Reads the indices and as many table elements as come out, at most the whole table (repeated indices hit
    what was read).
    """
    require_operands(op, 2)
    table, indices, y = op.inputs[0], op.inputs[1], op.outputs[0]
    axis = op.attribute("axis", 0)
    if not -len(table.shape) <= axis < len(table.shape):
        raise GraphError(f"axis {axis} is not an axis of {table.shape}", op.name)
    expected = indices.elements * (table.elements // table.shape[axis])
    if y.elements != expected:
        raise GraphError(f"{indices.shape} indices into {table.shape} do not give {y.shape}", op.name)
    rows = min(y.elements, table.elements) * table.precision.bytes_per_element
    return Work(rows + bytes_of(op.inputs[1:]), bytes_of(op.outputs))


def _check_join(op: Op, parts: tuple[Tensor, ...], whole: Tensor) -> None:
    if sum(t.elements for t in parts) != whole.elements:
        shapes = ", ".join(str(t.shape) for t in parts)
        raise GraphError(f"{op.kind}: {shapes} do not add up to {whole.shape}", op.name)


@register_op(
    "concat",
    examples=[
        lambda: Op(
            "cat",
            "concat",
            (_t("a", 1, 64, 7, 7), _t("b", 1, 32, 7, 7)),
            (_t("y", 1, 96, 7, 7),),
            {"axis": 1},
        )
    ],
)
def concat(op: Op) -> Work:
    """Join tensors along `axis`: every element is read and written once."""
    require_operands(op, 1)
    _check_join(op, op.inputs, op.outputs[0])
    read, written = compulsory(op)
    return Work(read, written)


@register_op(
    "split",
    examples=[
        lambda: Op(
            "split",
            "split",
            (_t("x", 1, 96, 7, 7),),
            (_t("a", 1, 64, 7, 7), _t("b", 1, 32, 7, 7)),
            {"axis": 1},
        )
    ],
)
def split(op: Op) -> Work:
    """Cut a tensor along `axis`, as copies.

    Along axis 0 the parts are contiguous and a runtime may alias them; they count as copies all the same.
    """
    require_operands(op, 1)
    _check_join(op, op.outputs, op.inputs[0])
    read, written = compulsory(op)
    return Work(read, written)


@register_op(
    "slice",
    examples=[lambda: Op("slice", "slice", (_t("x", 1, 197, 768),), (_t("y", 1, 1, 768),), {"axes": (1,)})],
)
def slice_(op: Op) -> Work:
    """Copy a part of a tensor: reads only that part.

    Along axis 0 it is contiguous and a runtime may alias it; it is counted as a copy all the same.
    """
    require_operands(op, 1)
    x, y = op.inputs[0], op.outputs[0]
    if y.elements > x.elements:
        raise GraphError(f"cannot slice {y.shape} out of {x.shape}", op.name)
    return Work(y.elements * x.precision.bytes_per_element + bytes_of(op.inputs[1:]), bytes_of(op.outputs))


@register_op(
    "pad", examples=[lambda: Op("pad", "pad", (_t("x", 1, 3, 224, 224),), (_t("y", 1, 3, 230, 230),))]
)
def pad(op: Op) -> Work:
    """Surround a tensor with a constant: reads the tensor, writes the larger one."""
    require_operands(op, 1)
    x, y = op.inputs[0], op.outputs[0]
    if y.elements < x.elements:
        raise GraphError(f"cannot pad {x.shape} to {y.shape}", op.name)
    read, written = compulsory(op)
    return Work(read, written)


@register_op(
    "transpose",
    examples=[
        lambda: Op(
            "heads",
            "transpose",
            (_t("x", 1, 128, 12, 64),),
            (_t("y", 1, 12, 128, 64),),
            {"axes": (0, 2, 1, 3)},
        ),
        lambda: Op(
            "ones", "transpose", (_t("x", 1, 64, 1, 7),), (_t("y", 1, 1, 64, 7),), {"axes": (0, 2, 1, 3)}
        ),
    ],
)
def transpose(op: Op) -> Work:
    """Permute axes: a copy, unless the axes longer than one keep their order, when it only renames memory."""
    require_operands(op, 1)
    x, y = op.inputs[0], op.outputs[0]
    axes = tuple(op.attribute("axes") or range(len(x.shape))[::-1])
    if sorted(axes) != list(range(len(x.shape))):
        raise GraphError(f"axes {axes} do not permute {x.shape}", op.name)
    if tuple(x.shape[a] for a in axes) != y.shape:
        raise GraphError(f"{x.shape} permuted by {axes} is not {y.shape}", op.name)
    moved = [a for a in axes if x.shape[a] > 1]
    if moved == sorted(moved):
        return FREE
    read, written = compulsory(op)
    return Work(read, written)


@register_op("copy", examples=[lambda: Op("copy", "copy", (_t("x", 1, 64),), (_t("y", 1, 64),))])
def copy(op: Op) -> Work:
    """Read the inputs and write the outputs; an expansion (broadcast) reads its input once."""
    require_operands(op, 1)
    read, written = compulsory(op)
    return Work(read, written)


@register_op(
    "reshape", examples=[lambda: Op("flat", "reshape", (_t("x", 1, 64, 7, 7),), (_t("y", 1, 3136),))]
)
def reshape(op: Op) -> Work:
    """A new shape for the same memory: free.

    Several outputs name parts of it, as the queries, keys and values of one fused projection.
    """
    require_operands(op, 1)
    held = sum(t.elements for t in op.inputs if t.role in ("activation", "kv"))
    if op.inputs[0].elements != op.outputs[0].elements and held != sum(t.elements for t in op.outputs):
        raise GraphError(f"cannot reshape {op.inputs[0].shape} to {op.outputs[0].shape}", op.name)
    return FREE


_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}


def _resize_example(mode: str) -> Op:
    return Op("resize", "resize", (_t("x", 1, 16, 8, 8),), (_t("y", 1, 16, 16, 16),), {"mode": mode})


@register_op("resize", examples=[partial(_resize_example, mode) for mode in ("nearest", "linear", "cubic")])
def resize(op: Op) -> Work:
    """Interpolate to a new size. Attribute mode: nearest, linear or cubic.

    With taps 1, 2 or 4 per resized axis, an output costs taps^axes multiplies and one add less; nearest
    only copies. A nearest reduction reads only the pixels that it keeps.
    """
    require_operands(op, 1)
    x, y = op.inputs[0], op.outputs[0]
    mode = op.attribute("mode", "nearest")
    if mode not in _TAPS:
        raise GraphError(f"unknown resize mode '{mode}'", op.name, f"known modes: {', '.join(_TAPS)}")
    if len(x.shape) != len(y.shape):
        raise GraphError(f"ranks differ: {x.shape} and {y.shape}", op.name)
    taps = _TAPS[mode] ** sum(a != b for a, b in zip(x.shape, y.shape))
    needed = min(x.elements, y.elements * taps) * x.precision.bytes_per_element
    arithmetic = 0 if taps == 1 else y.elements * (2 * taps - 1)
    return Work(needed + bytes_of(op.inputs[1:]), bytes_of(op.outputs), vector_ops=arithmetic)


@register_op(
    "kv_write",
    examples=[
        lambda: Op(
            "kv", "kv_write", (_t("k", 1, 8, 1, 128), _t("v", 1, 8, 1, 128)), (_t("slot", 1, 16, 1, 128),)
        )
    ],
)
def kv_write(op: Op) -> Work:
    """Append the keys and values (or latents) of new tokens to the cache: read them, write their slots."""
    require_operands(op, 1)
    if len(op.outputs) == 1:
        _check_join(op, op.inputs, op.outputs[0])
    read, written = compulsory(op)
    return Work(read, written)
