"""ATen operators as operator kinds.

The table `ATEN` is filled here and in `torch_movement`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from accelsim.core.errors import GraphError
from accelsim.workload.einsum import einsum_ops
from accelsim.workload.graph import Op, Tensor


@dataclass(frozen=True)
class Call:
    """One ATen call: its arguments by schema name (tensors resolved) and the tensors that it returns."""

    name: str
    type: str
    args: Mapping[str, Any]
    outputs: tuple[Tensor, ...]

    def tensor(self, *names: str) -> Tensor:
        """The first of the named arguments that is a tensor."""
        for name in names:
            if isinstance(self.args.get(name), Tensor):
                return self.args[name]
        raise GraphError(f"{self.type} has no tensor argument {' or '.join(names)}", self.name)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensor arguments, lists included."""
        found: list[Tensor] = []
        for value in self.args.values():
            items = value if isinstance(value, list | tuple) else [value]
            found += [t for t in items if isinstance(t, Tensor) and t.elements]
        return found

    def given(self, *names: str) -> list[Tensor]:
        return [self.args[n] for n in names if isinstance(self.args.get(n), Tensor)]

    def arg(self, name: str, default: Any = None) -> Any:
        value = self.args.get(name)
        return default if value is None else value

    @property
    def x(self) -> Tensor:
        return self.tensors[0]

    @property
    def y(self) -> Tensor:
        return self.outputs[0]

    def op(
        self,
        kind: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor] = (),
        part: str = "",
        **attributes: Any,
    ) -> Op:
        name = f"{self.name}.{part}" if part else self.name
        return Op(
            name, kind, tuple(inputs), tuple(outputs) or (self.y,), attributes, origin=f"aten.{self.type}"
        )


Mapper = Callable[[Call], list[Op]]
ATEN: dict[str, Mapper] = {}

_UNARY = {
    "abs": "abs", "acos": "acos", "asin": "asin", "atan": "atan", "bitwise_not": "not", "ceil": "ceil",
    "celu": "celu", "clamp": "clip", "clamp_max": "clip", "clamp_min": "clip", "cos": "cos", "cosh": "cosh",
    "elu": "elu", "erf": "erf", "exp": "exp", "expm1": "exp", "floor": "floor",
    "hardsigmoid": "hardsigmoid", "hardswish": "hardswish", "hardtanh": "hardtanh", "isinf": "isinf",
    "isnan": "isnan", "leaky_relu": "leaky_relu", "log": "log", "log10": "log", "log1p": "log",
    "log2": "log", "log_sigmoid": "log_sigmoid", "logical_not": "not", "mish": "mish", "neg": "neg",
    "reciprocal": "reciprocal", "relu": "relu", "relu6": "relu6", "round": "round", "rsqrt": "rsqrt",
    "selu": "selu", "sigmoid": "sigmoid", "sign": "sign", "silu": "silu", "sin": "sin", "sinh": "sinh",
    "softplus": "softplus", "sqrt": "sqrt", "square": "square", "tan": "tan", "tanh": "tanh",
    "threshold": "threshold", "cumsum": "identity",
}  # fmt: skip

_BINARY = {
    "add": "add", "bitwise_and": "bitwise_and", "bitwise_or": "bitwise_or", "bitwise_xor": "bitwise_xor",
    "div": "div", "eq": "equal", "floor_divide": "floor_div", "fmod": "mod", "ge": "greater_equal",
    "gt": "greater", "le": "less_equal", "lerp": "lerp", "logical_and": "and", "logical_or": "or",
    "logical_xor": "xor", "lt": "less", "masked_fill": "where", "maximum": "max", "minimum": "min",
    "mul": "mul", "ne": "not_equal", "pow": "pow", "remainder": "mod", "rsub": "sub", "sub": "sub",
    "tril": "where", "triu": "where", "true_divide": "div", "where": "where", "addcmul": "scale_shift",
    "__and__": "bitwise_and", "__or__": "bitwise_or",
}  # fmt: skip

_REDUCE = {
    "all": "min", "amax": "max", "amin": "min", "any": "max", "argmax": "argmax", "argmin": "argmin",
    "logsumexp": "logsumexp", "max": "max", "mean": "mean", "min": "min", "prod": "prod", "sum": "sum",
}  # fmt: skip


def aten(*names: str) -> Callable[[Mapper], Mapper]:
    """Register how calls of these ATen operators become ops."""

    def decorate(mapper: Mapper) -> Mapper:
        ATEN.update(dict.fromkeys(names, mapper))
        return mapper

    return decorate


def spread(value: Any, rank: int) -> tuple[int, ...]:
    items = (value,) if isinstance(value, int) else tuple(value)
    return items * rank if len(items) == 1 else items


# -- matrix products -----------------------------------------------------------------------------------------


@aten("linear")
def _linear(call: Call) -> list[Op]:
    return _product(call, call.tensor("input"), call.tensor("weight"), *call.given("bias"), transpose_b=True)


@aten("matmul", "mm", "bmm", "mv", "dot")
def _matmul(call: Call) -> list[Op]:
    return _product(call, call.tensor("self"), call.tensor("other", "mat2", "vec", "tensor"))


@aten("addmm", "baddbmm")
def _addmm(call: Call) -> list[Op]:
    return _product(call, call.tensor("mat1", "batch1"), call.tensor("mat2", "batch2"), call.tensor("self"))


def _product(call: Call, a: Tensor, b: Tensor, *bias: Tensor, transpose_b: bool = False) -> list[Op]:
    """A matmul op; one-dimensional operands become a row or a column first."""
    ops: list[Op] = []
    y = call.y
    if len(a.shape) == 1:
        row = replace(a, name=f"{call.name}.row", shape=(1, *a.shape), role="activation")
        ops.append(call.op("reshape", [a], [row], "row", inserted=(0,)))
        a = row
    if len(b.shape) == 1:
        column = replace(b, name=f"{call.name}.column", shape=(*b.shape, 1), role="activation")
        ops.append(call.op("reshape", [b], [column], "column", inserted=(-1,)))
        b = column
    lead = max(a.shape[:-2], b.shape[:-2], key=len)
    flat = y.with_shape(*lead, a.shape[-2], b.shape[-2 if transpose_b else -1])
    if flat.shape == y.shape or flat.elements != y.elements:
        return [*ops, call.op("matmul", [a, b, *bias], [y], transpose_b=transpose_b)]
    flat = replace(flat, name=f"{call.name}.product")
    return [
        *ops,
        call.op("matmul", [a, b, *bias], [flat], transpose_b=transpose_b),
        call.op("reshape", [flat], [y], "flat"),
    ]


@aten("einsum")
def _einsum(call: Call) -> list[Op]:
    equation = str(call.arg("equation", ""))
    ops = einsum_ops(call.name, equation, call.tensors, call.y, "aten.einsum")
    generic = replace(
        call.op("generic", call.tensors), approximated=f"einsum '{equation}' is not a matrix product"
    )
    return ops or [generic]


@aten(
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
)
def _attention(call: Call) -> list[Op]:
    """Operands of three axes get a head axis of one."""
    ops: list[Op] = []

    def four(t: Tensor, part: str) -> Tensor:
        if len(t.shape) == 4:
            return t
        shape = (prod(t.shape[:-2]), 1, *t.shape[-2:])
        wide = replace(t, name=f"{call.name}.{part}", shape=shape, role="activation")
        ops.append(call.op("reshape", [t], [wide], part))
        return wide

    q, k, v = (four(call.tensor(n), n) for n in ("query", "key", "value"))
    inputs = [q, k, v, *call.given("attn_mask")]
    held: dict[str, Any] = {"causal": bool(call.arg("is_causal", False))}
    y = call.y
    if len(y.shape) == 4:
        return [*ops, call.op("attention", inputs, [y], **held)]
    wide = replace(y, name=f"{call.name}.wide", shape=(*q.shape[:3], v.shape[3]))
    return [*ops, call.op("attention", inputs, [wide], **held), call.op("reshape", [wide], [y], "out")]


# -- windows -------------------------------------------------------------------------------------------------


@aten(
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "_convolution",
)
def _conv(call: Call) -> list[Op]:
    x, w = call.tensor("input"), call.tensor("weight")
    kernel = w.shape[2:]
    rank = len(kernel)
    dilation = spread(call.arg("dilation", 1), rank)
    padding = call.arg("padding", 0)
    if isinstance(padding, str):
        padding = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, dilation)]
    transposed = "transpose" in call.type or bool(call.arg("transposed", False))
    held: dict[str, Any] = {
        "stride": spread(call.arg("stride", 1), rank),
        "padding": spread(padding, rank),
        "dilation": dilation,
        "groups": call.arg("groups", 1),
        "transposed": transposed,
    }
    y = call.y
    if len(x.shape) == rank + 2:
        return [call.op("conv", [x, w, *call.given("bias")], **held)]
    one = replace(x, name=f"{call.name}.x", shape=(1, *x.shape), role="activation")
    out = replace(y, name=f"{call.name}.y", shape=(1, *y.shape))
    return [
        call.op("reshape", [x], [one], "x", inserted=(0,)),
        call.op("conv", [one, w, *call.given("bias")], [out], **held),
        call.op("reshape", [out], [y], "y", removed=(0,)),
    ]


@aten(
    *(
        f"{mode}_pool{rank}d{more}"
        for mode in ("max", "avg")
        for rank in "123"
        for more in ("", "_with_indices")
    )
)
def _pool(call: Call) -> list[Op]:
    rank = int(call.type.split("pool")[1][0])
    kernel = spread(call.arg("kernel_size"), rank)
    held: dict[str, Any] = {
        "stride": spread(call.arg("stride") or kernel, rank),
        "padding": spread(call.arg("padding", 0), rank),
    }
    return [call.op("pool", [call.x], call.outputs, mode=call.type[:3], kernel=kernel, **held)]


@aten(
    *(f"{head}adaptive_{mode}_pool{rank}d" for head in ("", "_") for mode in ("max", "avg") for rank in "123")
)
def _adaptive_pool(call: Call) -> list[Op]:
    """Windows of in / out elements; where this does not divide, windows overlap and the cost is close."""
    rank = int(call.type.split("pool")[1][0])
    size, out = call.x.shape[-rank:], call.y.shape[-rank:]
    kernel = tuple(-(-n // m) for n, m in zip(size, out))
    mode = "max" if "max" in call.type else "avg"
    held: dict[str, Any] = {"stride": tuple(n // m for n, m in zip(size, out)), "padding": (0,) * rank}
    return [call.op("pool", [call.x], call.outputs, mode=mode, kernel=kernel, **held)]


# -- normalisation, elementwise, reductions ------------------------------------------------------------------


@aten(
    "batch_norm",
    "_native_batch_norm_legit_no_training",
    "native_batch_norm",
    "cudnn_batch_norm",
    "_batch_norm_impl_index",
)
def _batch_norm(call: Call) -> list[Op]:
    return [
        call.op(
            "batch_norm",
            [call.x, *call.given("weight", "bias", "running_mean", "running_var")],
            call.outputs[:1],
        )
    ]


@aten("layer_norm", "native_layer_norm")
def _layer_norm(call: Call) -> list[Op]:
    return [call.op("layer_norm", [call.x, *call.given("weight", "bias")], call.outputs[:1])]


@aten("rms_norm", "_fused_rms_norm")
def _rms_norm(call: Call) -> list[Op]:
    return [call.op("rms_norm", [call.x, *call.given("weight")], call.outputs[:1])]


@aten("group_norm", "native_group_norm", "instance_norm")
def _group_norm(call: Call) -> list[Op]:
    groups = call.x.shape[1] if call.type == "instance_norm" else call.arg("num_groups", call.arg("group", 1))
    return [call.op("group_norm", [call.x, *call.given("weight", "bias")], call.outputs[:1], groups=groups)]


@aten("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
def _softmax(call: Call) -> list[Op]:
    return [call.op("softmax", [call.x], axis=call.arg("dim", -1))]


@aten(*_UNARY)
def _unary(call: Call) -> list[Op]:
    if call.type == "cumsum":
        return [call.op("elementwise", [call.x], function="add")]
    return [call.op("activation", [call.x], function=_UNARY[call.type])]


@aten("gelu")
def _gelu(call: Call) -> list[Op]:
    return [
        call.op("activation", [call.x], function="gelu_tanh" if call.arg("approximate") == "tanh" else "gelu")
    ]


@aten("prelu")
def _prelu(call: Call) -> list[Op]:
    return [call.op("activation", call.tensors, function="prelu")]


@aten("glu")
def _glu(call: Call) -> list[Op]:
    """sigmoid(b) a over the halves of one tensor."""
    halves = [replace(call.y, name=f"{call.name}.{p}") for p in ("a", "b")]
    gate = replace(call.y, name=f"{call.name}.gate")
    return [
        call.op("split", [call.x], halves, "halves", axis=call.arg("dim", -1)),
        call.op("activation", [halves[1]], [gate], "gate", function="sigmoid"),
        call.op("elementwise", [halves[0], gate], function="mul"),
    ]


@aten(*_BINARY)
def _binary(call: Call) -> list[Op]:
    exponent = call.arg("exponent")
    if call.type == "pow" and isinstance(exponent, int | float):
        function = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(exponent)
        if function:
            return [call.op("activation", [call.x], function=function)]
    return [call.op("elementwise", call.tensors, function=_BINARY[call.type])]


@aten(*_REDUCE)
def _reduce(call: Call) -> list[Op]:
    others = call.given("other")
    if others:  # max(a, b) is elementwise
        return [call.op("elementwise", [call.x, *others], function=_REDUCE[call.type])]
    dims = call.arg("dim")
    rank = len(call.x.shape)
    axes = tuple(range(rank)) if dims is None or dims == [] else spread(dims, 1)
    return [
        call.op(
            "reduce",
            [call.x],
            call.outputs,
            function=_REDUCE[call.type],
            axes=axes,
            keepdims=bool(call.arg("keepdim", False)),
        )
    ]


@aten("linalg_vector_norm", "norm", "frobenius_norm")
def _norm(call: Call) -> list[Op]:
    dims = call.arg("dim")
    axes = tuple(range(len(call.x.shape))) if not dims and dims != 0 else spread(dims, 1)
    return [call.op("reduce", [call.x], function="l2", axes=axes, keepdims=bool(call.arg("keepdim", False)))]


@aten("topk", "sort")
def _topk(call: Call) -> list[Op]:
    return [
        call.op("topk", [call.x], call.outputs, k=call.y.shape[call.arg("dim", -1)] if call.y.shape else 1)
    ]


# -- recurrent layers ----------------------------------------------------------------------------------------


@aten("lstm", "gru")
def _recurrent(call: Call) -> list[Op]:
    """One op per layer and direction; the halves of a bidirectional layer write into one tensor."""
    x, params = call.tensor("input"), list(call.arg("params"))
    directions = 2 if call.arg("bidirectional", False) else 1
    step = 4 if call.arg("has_biases", True) else 2
    hidden = params[1].shape[1]
    ops: list[Op] = []
    y = call.y
    if call.arg("batch_first", False):
        b, t, i = x.shape
        turned = replace(x, name=f"{call.name}.time_first", shape=(t, b, i), role="activation")
        ops.append(call.op("transpose", [x], [turned], "time_first", axes=(1, 0, 2)))
        x = turned
    t, b, _ = x.shape
    for layer in range(call.arg("num_layers", 1)):
        halves = []
        for direction in range(directions):
            start = (layer * directions + direction) * step
            part = f"l{layer}" + ("_reverse" if direction else "")
            out = replace(y, name=f"{call.name}.{part}", shape=(t, b, hidden))
            held: dict[str, Any] = {"hidden": hidden, "directions": 1}
            ops.append(call.op(call.type, [x, *params[start : start + step]], [out], part, **held))
            halves.append(out)
        x = halves[0]
        if directions == 2:
            x = replace(y, name=f"{call.name}.l{layer}_both", shape=(t, b, 2 * hidden))
            ops.append(call.op("reshape", halves, [x], f"l{layer}_both"))
    if call.arg("batch_first", False):
        ops.append(call.op("transpose", [x], [y], axes=(1, 0, 2)))
    else:
        ops.append(call.op("reshape", [x], [y]))
    return [
        *ops,
        *(call.op("slice", [x], [state], f"state{i}", axes=(0,)) for i, state in enumerate(call.outputs[1:])),
    ]
