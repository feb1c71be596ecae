"""Pointwise arithmetic, reductions, quantisers, selection and the fallback."""

from __future__ import annotations

from functools import partial

from accelsim.core.errors import GraphError, UnsupportedOpError, did_you_mean
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import TRANSCENDENTAL_OPS, Work, compulsory, register_op, require_operands

_FP16 = precision("fp16")
_INT8 = precision("int8")
_INT32 = precision("int32", storage=True)

_T = TRANSCENDENTAL_OPS

# Vector operations per element. Each add, multiply, divide, compare or rounding is one; exp, log, tanh ...
# are `_T`.
ACTIVATION_OPS: dict[str, int] = {
    "abs": 1, "acos": _T, "asin": _T, "atan": _T, "celu": _T + 4, "ceil": 1, "clip": 2, "cos": _T,
    "cosh": _T, "elu": _T + 3, "erf": _T, "exp": _T, "floor": 1, "gelu": _T + 4, "gelu_tanh": _T + 7,
    "hardsigmoid": 4, "hardswish": 5, "hardtanh": 2, "identity": 0, "isinf": 1, "isnan": 1, "leaky_relu": 2,
    "log": _T, "log_sigmoid": 2 * _T + 2, "lrn": _T + 8, "mish": 3 * _T + 2, "neg": 1, "not": 1, "prelu": 2,
    "reciprocal": 1, "relu": 1, "relu2": 2, "relu6": 2, "round": 1, "rsqrt": _T + 1, "selu": _T + 4,
    "sigmoid": _T + 2, "sign": 1, "silu": _T + 3, "sin": _T, "sinh": _T, "softplus": 2 * _T + 1,
    "softsign": 3, "sqrt": _T, "square": 1, "tan": _T, "tanh": _T, "threshold": 1,
}  # fmt: skip

# Vector operations per output element and pair of inputs (a sum of n tensors needs n - 1).
PAIRWISE_OPS: dict[str, int] = {
    "add": 1, "and": 1, "bit_shift": 1, "bitwise_and": 1, "bitwise_or": 1, "bitwise_xor": 1, "compare": 1,
    "div": 1, "equal": 1, "floor_div": 2, "greater": 1, "greater_equal": 1, "less": 1, "less_equal": 1,
    "max": 1, "mean": 1, "min": 1, "mod": 3, "mul": 1, "not_equal": 1, "or": 1, "pow": _T,
    "squared_difference": 2, "sub": 1, "sum": 1, "xor": 1,
}  # fmt: skip

# Vector operations per output element, whatever the number of inputs.
COMPOSITE_OPS: dict[str, int] = {
    "geglu": ACTIVATION_OPS["gelu"] + 1,  # gelu(a) b
    "lerp": 3,  # a + w (b - a)
    "rope": 3,  # x cos + rotate(x) sin
    "scale_shift": 2,  # x a + b
    "swiglu": ACTIVATION_OPS["silu"] + 1,  # silu(a) b
    "where": 1,
}

# Vector operations per input element.
REDUCTION_OPS: dict[str, int] = {
    "argmax": 1, "argmin": 1, "l1": 2, "l2": 2, "logsumexp": _T + 1, "max": 1, "mean": 1, "min": 1,
    "prod": 1, "sum": 1, "sum_square": 2,
}  # fmt: skip


def _lookup(op: Op, table: dict[str, int], what: str) -> int:
    function = op.attribute("function")
    try:
        return table[function]
    except KeyError:
        hint = did_you_mean(str(function), table)
        raise UnsupportedOpError(f"unknown {what} function '{function}'", op.name, hint) from None


def _same_size(op: Op) -> None:
    if op.inputs[0].elements != op.outputs[0].elements:
        raise GraphError(f"{op.kind} maps {op.inputs[0].shape} to {op.outputs[0].shape}", op.name)


def _x(*shape: int, name: str = "x") -> Tensor:
    return Tensor(name, shape, _FP16, batch_axis=0)


def _activation_example(function: str) -> Op:
    y = _x(1, 64, 7, 7, name="y")
    return Op("act", "activation", (_x(1, 64, 7, 7),), (y,), {"function": function})


@register_op("activation", examples=[partial(_activation_example, f) for f in ("relu", "gelu", "silu")])
def activation(op: Op) -> Work:
    """Function of one tensor, element by element: elements x `ACTIVATION_OPS` of the function.

    A learned slope (prelu) is a second input and adds its bytes.
    """
    require_operands(op, 1)
    _same_size(op)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=op.outputs[0].elements * _lookup(op, ACTIVATION_OPS, "activation"))


@register_op(
    "elementwise",
    examples=[
        lambda: Op(
            "add",
            "elementwise",
            (_x(1, 8, 16), _x(1, 8, 16, name="z")),
            (_x(1, 8, 16, name="y"),),
            {"function": "add"},
        ),
        lambda: Op(
            "mul",
            "elementwise",
            (_x(1, 8, 16), Tensor("s", (8, 1), _FP16, role="weight")),
            (_x(1, 8, 16, name="y"),),
            {"function": "mul"},
        ),
        lambda: Op(
            "rope", "elementwise", (_x(1, 4, 8, 64),), (_x(1, 4, 8, 64, name="y"),), {"function": "rope"}
        ),
    ],
)
def elementwise(op: Op) -> Work:
    """Broadcast arithmetic on one or more tensors.

    Vector operations = output elements x (inputs - 1) x `PAIRWISE_OPS` (at least one pair: a scalar operand
    may live in an attribute), or output elements x `COMPOSITE_OPS`. Each distinct input is read once at its
    own size, not at the broadcast size.
    """
    require_operands(op, 1)
    per_element = _lookup(op, {**PAIRWISE_OPS, **COMPOSITE_OPS}, "elementwise")
    y = op.outputs[0]
    if op.attribute("function") in PAIRWISE_OPS:
        for t in op.inputs:
            if not _broadcasts(t.shape, y.shape):
                raise GraphError(f"cannot broadcast '{t.name}' {t.shape} to {y.shape}", op.name)
        per_element *= max(1, len(op.inputs) - 1)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=y.elements * per_element)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) <= len(target) and all(a in (1, b) for a, b in zip(shape[::-1], target[::-1]))


@register_op(
    "reduce",
    examples=[
        lambda: Op(
            "mean", "reduce", (_x(1, 49, 64),), (_x(1, 64, name="y"),), {"function": "mean", "axes": (1,)}
        ),
        lambda: Op(
            "argmax",
            "reduce",
            (_x(1, 1000),),
            (_x(1, 1, name="y"),),
            {"function": "argmax", "axes": (1,), "keepdims": True},
        ),
    ],
)
def reduce(op: Op) -> Work:
    """Reduction over `axes` (all of them when the attribute is missing).

    Vector operations = (input - output elements) x `REDUCTION_OPS` of the function, and one more per output
    for a mean (the scaling), or a transcendental for l2 and logsumexp. Attributes: function, axes,
    keepdims.
    """
    require_operands(op, 1)
    x, y = op.inputs[0], op.outputs[0]
    per_element = _lookup(op, REDUCTION_OPS, "reduction")
    axes = op.attribute("axes")
    if axes is not None:
        rank = len(x.shape)
        if any(not -rank <= a < rank for a in axes):
            raise GraphError(f"axes {tuple(axes)} are not axes of {x.shape}", op.name)
        gone = {a % rank for a in axes}
        kept = [d for i, d in enumerate(x.shape) if i not in gone]
        if [d for d in y.shape if d != 1] != [d for d in kept if d != 1]:
            raise GraphError(f"reducing axes {tuple(axes)} of {x.shape} does not give {y.shape}", op.name)
    finish = {"mean": 1, "l2": _T, "logsumexp": _T}.get(op.attribute("function"), 0)
    work = max(x.elements - y.elements, 0) * per_element + y.elements * finish
    read, written = compulsory(op)
    return Work(read, written, vector_ops=work)


@register_op(
    "quantize",
    examples=[
        lambda: Op("q", "quantize", (_x(1, 64, 7, 7),), (Tensor("y", (1, 64, 7, 7), _INT8, batch_axis=0),))
    ],
)
def quantize(op: Op) -> Work:
    """Round to a grid: multiply, round, add the zero point, clip both sides: 5 operations per element."""
    require_operands(op, 1)
    _same_size(op)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=5 * op.outputs[0].elements)


@register_op(
    "dequantize",
    examples=[
        lambda: Op("d", "dequantize", (Tensor("x", (1, 64), _INT8, batch_axis=0),), (_x(1, 64, name="y"),))
    ],
)
def dequantize(op: Op) -> Work:
    """Subtract the zero point and multiply by the scale: 2 vector operations per element."""
    require_operands(op, 1)
    _same_size(op)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=2 * op.outputs[0].elements)


@register_op(
    "multi_threshold",
    examples=[
        lambda: Op(
            "mt",
            "multi_threshold",
            (_x(1, 64, 7, 7), Tensor("t", (64, 3), _FP16, role="weight")),
            (Tensor("y", (1, 64, 7, 7), precision("int2"), batch_axis=0),),
        )
    ],
)
def multi_threshold(op: Op) -> Work:
    """Count the thresholds that an element reaches, as FINN's quantised activations do.

    One compare per element and threshold.

    ``inputs = (x, thresholds)`` with thresholds (channels, steps) or (1, steps).
    """
    require_operands(op, 2)
    _same_size(op)
    x, thresholds = op.inputs[:2]
    if len(thresholds.shape) != 2 or (thresholds.shape[0] != 1 and thresholds.shape[0] not in x.shape):
        raise GraphError(f"thresholds {thresholds.shape} do not fit {x.shape}", op.name)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=x.elements * thresholds.shape[1])


@register_op(
    "cast",
    examples=[
        lambda: Op("cast", "cast", (_x(1, 64),), (Tensor("y", (1, 64), precision("fp32"), batch_axis=0),))
    ],
)
def cast(op: Op) -> Work:
    """Copy with a new precision: memory traffic only."""
    require_operands(op, 1)
    _same_size(op)
    read, written = compulsory(op)
    return Work(read, written)


@register_op(
    "topk",
    examples=[
        lambda: Op(
            "topk",
            "topk",
            (_x(16, 64),),
            (_x(16, 8, name="values"), Tensor("indices", (16, 8), _INT32, batch_axis=0)),
            {"k": 8},
        )
    ],
)
def topk(op: Op) -> Work:
    """The k largest of each row: floor(log2 k) + 1 compares per element, as a heap of k needs at most."""
    require_operands(op, 1)
    k = op.attribute("k")
    if not isinstance(k, int) or k < 1 or k > op.inputs[0].elements:
        raise GraphError(f"k is {k}, input is {op.inputs[0].shape}", op.name)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=op.inputs[0].elements * k.bit_length())


@register_op(
    "generic",
    examples=[
        lambda: Op(
            "g",
            "generic",
            (_x(1, 64),),
            (_x(1, 64, name="y"),),
            origin="Unknown",
            approximated="no formula for Unknown",
        )
    ],
)
def generic(op: Op) -> Work:
    """Fallback for operators that no formula covers: memory traffic only, so a lower bound.

    ``op.approximated`` says why.
    """
    read, written = compulsory(op)
    return Work(read, written)
