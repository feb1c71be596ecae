"""Standard ONNX node types as operator kinds."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod
from typing import Any

from accelsim.core.errors import GraphError
from accelsim.workload.einsum import einsum_ops
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.onnx_node import MICROSOFT, Node, maps

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "log", "Asin": "asin", "Asinh": "log", "Atan": "atan",
    "Atanh": "log", "BitwiseNot": "not", "Ceil": "ceil", "Celu": "celu", "Clip": "clip", "Cos": "cos",
    "Cosh": "cosh", "Elu": "elu", "Erf": "erf", "Exp": "exp", "Floor": "floor",
    "HardSigmoid": "hardsigmoid", "HardSwish": "hardswish", "IsInf": "isinf", "IsNaN": "isnan",
    "LeakyRelu": "leaky_relu", "Log": "log", "Mish": "mish", "Neg": "neg", "Not": "not",
    "Reciprocal": "reciprocal", "Relu": "relu", "Round": "round", "Selu": "selu", "Shrink": "hardtanh",
    "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Softplus": "softplus",
    "Softsign": "softsign", "Sqrt": "sqrt", "Swish": "silu", "Tan": "tan", "Tanh": "tanh",
    "ThresholdedRelu": "threshold",
}  # fmt: skip

_BINARY = {
    "Add": "add", "And": "and", "BitShift": "bit_shift", "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor", "Div": "div", "Equal": "equal",
    "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less", "LessOrEqual": "less_equal",
    "Max": "max", "Mean": "mean", "Min": "min", "Mod": "mod", "Mul": "mul", "Or": "or", "Pow": "pow",
    "Sub": "sub", "Sum": "sum", "Where": "where", "Xor": "xor",
}  # fmt: skip

_REDUCE = {
    "ReduceL1": "l1", "ReduceL2": "l2", "ReduceLogSum": "logsumexp", "ReduceLogSumExp": "logsumexp",
    "ReduceMax": "max", "ReduceMean": "mean", "ReduceMin": "min", "ReduceProd": "prod", "ReduceSum": "sum",
    "ReduceSumSquare": "sum_square",
}  # fmt: skip


# -- matrix products -----------------------------------------------------------------------------------------


@maps("MatMul")
def matmul(node: Node) -> list[Op]:
    return product(node, node.x, node.tensor(1))


def product(node: Node, a: Tensor, b: Tensor, *bias: Tensor, **attributes: Any) -> list[Op]:
    """A matmul op; one-dimensional operands become a row or a column first."""
    y = node.y
    ops: list[Op] = []
    if len(a.shape) > 1 and len(b.shape) > 1:
        return [node.op("matmul", [a, b, *bias], [y], **attributes)]
    rows, columns = a.shape, b.shape
    if len(a.shape) == 1:
        row = replace(a, name=f"{node.name}.row", shape=(1, *a.shape), role="activation")
        ops.append(node.free(a, row, "row"))
        a, rows = row, row.shape
    if len(b.shape) == 1:
        if b.role == "weight":
            b = b.with_shape(*b.shape, 1)
        else:
            column = replace(b, name=f"{node.name}.column", shape=(*b.shape, 1), role="activation")
            ops.append(node.free(b, column, "column"))
            b = column
        columns = b.shape
    lead = rows[:-2] if len(rows) >= len(columns) else columns[:-2]
    flat = replace(y, name=f"{node.name}.product", shape=(*lead, rows[-2], columns[-1]))
    return [*ops, node.op("matmul", [a, b, *bias], [flat], **attributes), node.free(flat, y, "flat")]


@maps("Gemm")
def gemm(node: Node) -> list[Op]:
    flags: dict[str, Any] = {
        "transpose_a": bool(node.attr("transA", 0)),
        "transpose_b": bool(node.attr("transB", 0)),
    }
    return [node.op("matmul", node.tensors(0, 1, 2), **flags)]


@maps("Einsum")
def einsum(node: Node) -> list[Op]:
    equation = _text(node.attr("equation", ""))
    ops = einsum_ops(node.name, equation, node.tensors(), node.y, "Einsum")
    return ops or [
        node.op("generic", node.tensors(), approximated=f"einsum '{equation}' is not a matrix product")
    ]


# -- windows -------------------------------------------------------------------------------------------------


def window(node: Node, kernel: tuple[int, ...], x: Tensor, transposed: bool = False) -> dict[str, Any]:
    """Stride, padding and dilation; asymmetric padding is given by its leading side."""
    rank = len(kernel)
    stride = tuple(node.attr("strides", (1,) * rank))
    dilation = tuple(node.attr("dilations", (1,) * rank))
    padding = tuple(node.attr("pads", (0,) * 2 * rank))[:rank]
    auto = _text(node.attr("auto_pad", "NOTSET"))
    if auto.startswith("SAME") and not transposed:
        sizes = zip(x.shape[2:], kernel, stride, dilation)
        total = [max((ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0) for n, k, s, d in sizes]
        padding = tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total)
    return {"stride": stride, "padding": padding, "dilation": dilation}


def convolution(
    node: Node, x: Tensor, w: Tensor, *bias: Tensor, transposed: bool = False, approximated: str = ""
) -> list[Op]:
    """A conv op."""
    held = window(node, w.shape[2:], x, transposed)
    groups = node.attr("group", 1)
    return [
        node.op(
            "conv",
            [x, w, *bias],
            [node.y],
            approximated=approximated,
            groups=groups,
            transposed=transposed,
            **held,
        )
    ]


@maps("Conv")
def conv(node: Node) -> list[Op]:
    return convolution(node, node.x, node.tensor(1), *node.tensors(2))


@maps("ConvTranspose")
def conv_transpose(node: Node) -> list[Op]:
    return convolution(node, node.x, node.tensor(1), *node.tensors(2), transposed=True)


@maps("DeformConv")
def deform_conv(node: Node) -> list[Op]:
    return convolution(
        node, node.x, node.tensor(1), *node.tensors(3), approximated="the sampling of offsets is not counted"
    )


@maps("MaxPool", "AveragePool", "LpPool")
def pool(node: Node) -> list[Op]:
    kernel = tuple(node.attr("kernel_shape"))
    held = window(node, kernel, node.x)
    del held["dilation"]
    near = "counted as average pooling" if node.type == "LpPool" else ""
    mode = "max" if node.type == "MaxPool" else "avg"
    return [node.op("pool", [node.x], node.written, approximated=near, mode=mode, kernel=kernel, **held)]


@maps("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(node: Node) -> list[Op]:
    near = "counted as average pooling" if node.type == "GlobalLpPool" else ""
    mode = "max" if node.type == "GlobalMaxPool" else "avg"
    kernel = node.x.shape[2:]
    held: dict[str, Any] = {"kernel": kernel, "stride": kernel, "padding": (0,) * len(kernel)}
    return [node.op("pool", [node.x], approximated=near, mode=mode, **held)]


# -- normalisation -------------------------------------------------------------------------------------------


@maps("BatchNormalization")
def batch_norm(node: Node) -> list[Op]:
    """Running mean and variance are constants, so parameters count as in the training framework."""
    statistics = [replace(t, role="constant") if t.role == "weight" else t for t in node.tensors(3, 4)]
    return [node.op("batch_norm", [*node.tensors(0, 1, 2), *statistics])]


@maps("LayerNormalization")
@maps("LayerNormalization", domain=MICROSOFT)
def layer_norm(node: Node) -> list[Op]:
    return [node.op("layer_norm", node.tensors(0, 1, 2))]


@maps("RMSNormalization", "SimplifiedLayerNormalization")
@maps("SimplifiedLayerNormalization", domain=MICROSOFT)
def rms_norm(node: Node) -> list[Op]:
    return [node.op("rms_norm", node.tensors(0, 1))]


@maps("InstanceNormalization")
def instance_norm(node: Node) -> list[Op]:
    return [node.op("group_norm", node.tensors(0, 1, 2), groups=node.x.shape[1])]


@maps("GroupNormalization")
def group_norm(node: Node) -> list[Op]:
    groups = node.attr("num_groups", 1)
    vectors = node.tensors(1, 2)
    if any(t.elements != node.x.shape[1] for t in vectors):  # opset 18: one scale per group
        return [
            node.op("group_norm", [node.x], approximated="the scales per group are left out", groups=groups)
        ]
    return [node.op("group_norm", [node.x, *vectors], groups=groups)]


@maps("LpNormalization")
def lp_norm(node: Node) -> list[Op]:
    return [node.op("rms_norm", [node.x], approximated="counted as rms_norm")]


@maps("MeanVarianceNormalization")
def mean_variance_norm(node: Node) -> list[Op]:
    return [node.op("layer_norm", [node.x], approximated="counted as layer_norm")]


@maps("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node) -> list[Op]:
    axis = node.attr("axis", -1 if node.opset >= 13 else 1)
    near = "counted as softmax" if node.type == "Hardmax" else ""
    return [node.op("softmax", [node.x], approximated=near, axis=axis)]


# -- elementwise ---------------------------------------------------------------------------------------------


@maps(*_UNARY)
def unary(node: Node) -> list[Op]:
    return [node.op("activation", [node.x], function=_UNARY[node.type])]


@maps("Gelu")
@maps("Gelu", "FastGelu", "BiasGelu", "QuickGelu", domain=MICROSOFT)
def gelu(node: Node) -> list[Op]:
    tanh = node.type == "FastGelu" or _text(node.attr("approximate", "none")) == "tanh"
    function = "silu" if node.type == "QuickGelu" else "gelu_tanh" if tanh else "gelu"
    return [node.op("activation", node.tensors(0, 1), function=function)]


@maps("PRelu")
def prelu(node: Node) -> list[Op]:
    return [node.op("activation", [node.x, node.tensor(1)], function="prelu")]


@maps("LRN")
def lrn(node: Node) -> list[Op]:
    """Local response normalisation; the cost is that of the usual window of five channels."""
    return [node.op("activation", [node.x], function="lrn")]


@maps(*_BINARY)
def binary(node: Node) -> list[Op]:
    if node.type == "Pow" and node.data(1) is not None and node.data(1).size == 1:
        function = {2.0: "square", 0.5: "sqrt", 1.0: "identity", -1.0: "reciprocal"}.get(
            float(node.data(1).reshape(-1)[0])
        )
        if function and node.x.shape == node.y.shape:
            return [node.op("activation", [node.x], function=function)]
    return [node.op("elementwise", node.tensors(), function=_BINARY[node.type])]


@maps("CumSum", "CumProd")
def cumulative(node: Node) -> list[Op]:
    return [node.op("elementwise", [node.x], function="add" if node.type == "CumSum" else "mul")]


@maps("Trilu")
def trilu(node: Node) -> list[Op]:
    return [node.op("elementwise", [node.x], function="where")]


@maps("Cast", "CastLike")
def cast(node: Node) -> list[Op]:
    kind = "reshape" if node.x.precision == node.y.precision else "cast"
    return [node.op(kind, [node.x])]


@maps(*_REDUCE)
def reduce(node: Node) -> list[Op]:
    axes = node.ints("axes", 1)
    keep = bool(node.attr("keepdims", 1))
    if axes is None and node.has(1):  # computed at run time; the shapes say enough for the cost
        return [node.op("reduce", [node.x], function=_REDUCE[node.type], keepdims=keep)]
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return [node.free(node.x, node.y)]
        axes = tuple(range(len(node.x.shape)))
    return [node.op("reduce", [node.x], function=_REDUCE[node.type], axes=axes, keepdims=keep)]


@maps("ArgMax", "ArgMin")
def arg(node: Node) -> list[Op]:
    held: dict[str, Any] = {"axes": (node.attr("axis", 0),), "keepdims": bool(node.attr("keepdims", 1))}
    return [node.op("reduce", [node.x], function=node.type.lower(), **held)]


@maps("TopK")
def topk(node: Node) -> list[Op]:
    axis = node.attr("axis", -1)
    first = next(iter(node.written))
    return [node.op("topk", [node.x], node.written, k=first.shape[axis])]


# -- movement ------------------------------------------------------------------------------------------------


@maps("Reshape", "Flatten", "Identity", "Dropout", "Optional", "OptionalGetElement")
def reshape(node: Node) -> list[Op]:
    return [node.free(node.x, node.y)]


@maps("Squeeze", "Unsqueeze")
def squeeze(node: Node) -> list[Op]:
    axes = node.ints("axes", 1)
    name = "removed" if node.type == "Squeeze" else "inserted"
    if axes is None:
        axes = tuple(i for i, n in enumerate(node.x.shape) if n == 1)
    held: dict[str, Any] = {name: axes}
    return [node.op("reshape", [node.x], **held)]


@maps("Transpose")
def transpose(node: Node) -> list[Op]:
    axes = tuple(node.attr("perm", range(len(node.x.shape))[::-1]))
    return [node.op("transpose", [node.x], axes=axes)]


@maps("Concat")
def concat(node: Node) -> list[Op]:
    return [node.op("concat", node.tensors(), axis=node.attr("axis", 1))]


@maps("Split")
def split(node: Node) -> list[Op]:
    if len(node.written) == len(node.outputs):
        return [node.op("split", [node.x], node.written, axis=node.attr("axis", 0))]
    axes = (node.attr("axis", 0),)
    return [
        node.op("slice", [node.x], [t], part=f"{i}" if i else "", axes=axes)
        for i, t in enumerate(node.written)
    ]


@maps("Slice")
def slice_(node: Node) -> list[Op]:
    if node.x.shape == node.y.shape:
        return [node.free(node.x, node.y)]
    axes = node.ints("axes", 3) or tuple(range(len(node.x.shape)))
    return [node.op("slice", [node.x], axes=axes)]


@maps("Pad", "CenterCropPad")
def pad(node: Node) -> list[Op]:
    if node.x.shape == node.y.shape:
        return [node.free(node.x, node.y)]
    kind = "pad" if node.y.elements > node.x.elements else "slice"
    return [node.op(kind, [node.x])]


@maps("Expand", "Tile")
def expand(node: Node) -> list[Op]:
    if node.x.elements == node.y.elements and node.x.role not in ("weight", "constant"):
        return [node.free(node.x, node.y)]
    return [node.op("copy", [node.x])]


@maps(
    "DepthToSpace",
    "SpaceToDepth",
    "ReverseSequence",
    "OneHot",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "MaxUnpool",
    "Col2Im",
)
def copy(node: Node) -> list[Op]:
    """Permutations that no axis order expresses, and updates that write a whole new tensor."""
    count = {
        "DepthToSpace": 1,
        "SpaceToDepth": 1,
        "OneHot": 1,
        "ReverseSequence": 2,
        "MaxUnpool": 2,
        "Col2Im": 1,
    }.get(node.type, 3)
    return [node.op("copy", node.tensors(*range(count)))]


@maps("Gather")
def gather(node: Node) -> list[Op]:
    return [node.op("gather", node.tensors(0, 1), axis=node.attr("axis", 0))]


@maps("GatherElements")
def gather_elements(node: Node) -> list[Op]:
    """One index per element, into the flattened table."""
    return [node.op("gather", [node.x.with_shape(node.x.elements), node.tensor(1)], axis=0, elements=True)]


@maps("GatherND")
def gather_nd(node: Node) -> list[Op]:
    """An index tuple per slice, into a table whose indexed axes are flattened."""
    indices = node.tensor(1)
    axes = indices.shape[-1] + node.attr("batch_dims", 0)
    table = node.x.with_shape(prod(node.x.shape[:axes]), *node.x.shape[axes:])
    return [node.op("gather", [table, indices.with_shape(*indices.shape[:-1])], axis=0)]


@maps("Resize", "Upsample")
def resize(node: Node) -> list[Op]:
    if node.x.shape == node.y.shape:
        return [node.free(node.x, node.y)]
    return [node.op("resize", [node.x], mode=_text(node.attr("mode", "nearest")))]


# -- recurrent layers ----------------------------------------------------------------------------------------


@maps("LSTM", "GRU")
def recurrent(node: Node) -> list[Op]:
    """The layer writes (t, b, directions h); Y (t, directions, b, h) and the last states come from it."""
    ops, x, seq, hidden, directions = _sequence(node)
    gates = 4 if node.type == "LSTM" else 3
    w, r = (t.with_shape(directions * gates * hidden, t.shape[-1]) for t in (node.weight(1), node.weight(2)))
    states = [t for t in node.tensors(5, 6) if t.role == "activation"]
    inputs = [x, w, r, *node.tensors(3), *states]
    ops.append(node.op(node.type.lower(), inputs, [seq], hidden=hidden, directions=directions))
    return [*ops, *_sequence_outputs(node, seq, hidden, directions)]


@maps("RNN")
def rnn(node: Node) -> list[Op]:
    """A plain recurrence: the product of all inputs at once, then one small product per step."""
    ops, x, seq, hidden, directions = _sequence(node)
    steps, batch, _ = x.shape
    width = directions * hidden
    w = node.weight(1).with_shape(width, x.shape[-1])
    r = node.weight(2).with_shape(width, hidden)
    ahead, step, state = (
        replace(seq, name=f"{node.name}.{part}", shape=shape)
        for part, shape in (("ahead", seq.shape), ("step", (batch, hidden)), ("state", (batch, width)))
    )
    ops += [
        node.op("matmul", [x, w], [ahead], part="ahead", transpose_b=True),
        node.op("slice", [ahead], [step], part="step", repeat=steps, removed=(0,), axes=(0,)),
        node.op(
            "matmul", [step, r], [state], part="state", repeat=steps, transpose_b=True, shared_over=steps
        ),
        node.op("elementwise", [ahead, state], [seq], function="add"),
    ]
    return [*ops, *_sequence_outputs(node, seq, hidden, directions)]


def _sequence(node: Node) -> tuple[list[Op], Tensor, Tensor, int, int]:
    """The time-first input and output of a recurrent layer, with the ops that turn a batch-first input."""
    if len(node.x.shape) != 3 or len(node.tensor(2).shape) != 3:
        raise GraphError(f"{node.type} needs x (t, b, i), got {node.x.shape}", node.name)
    hidden, directions = node.tensor(2).shape[-1], node.tensor(2).shape[0]
    ops: list[Op] = []
    x = node.x
    if node.attr("layout", 0):
        b, t, i = x.shape
        x = replace(x, name=f"{node.name}.time_first", shape=(t, b, i), role="activation")
        ops.append(node.op("transpose", [node.x], [x], part="time_first", axes=(1, 0, 2)))
    like = node.written[0]
    return (
        ops,
        x,
        replace(like, name=f"{node.name}.sequence", shape=(*x.shape[:2], directions * hidden)),
        hidden,
        directions,
    )


def _sequence_outputs(node: Node, seq: Tensor, hidden: int, directions: int) -> list[Op]:
    t, b, _ = seq.shape
    ops: list[Op] = []
    parts = list(zip(("y", "state", "cell"), node.outputs))
    for part, out in parts:
        if out is None:
            continue
        if part != "y":
            ops.append(node.op("slice", [seq], [out], part=part, axes=(0,)))
        elif directions == 1 and not node.attr("layout", 0):
            ops.append(node.op("reshape", [seq], [out], part=part, inserted=(1,)))
        else:
            wide = seq.with_shape(t, b, directions, hidden)
            axes = (1, 0, 2, 3) if node.attr("layout", 0) else (0, 2, 1, 3)
            ops.append(node.op("transpose", [wide], [out], part=part, axes=axes))
    return ops


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
