"""Quantised ONNX node types: QLinear and integer operators, and the arbitrary-precision nodes of QONNX.

A tensor that a quantiser writes carries the precision of its bit width; a quantiser on a weight is folded
away and leaves a weight of that precision (see `onnx_walk`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from accelsim.core.errors import UnsupportedOpError
from accelsim.core.precision import Precision, precision
from accelsim.workload.graph import Op
from accelsim.workload.onnx_node import (
    FLOAT32,
    INT8,
    MICROSOFT,
    Node,
    Shape,
    broadcast,
    integer_format,
    like_first,
    maps,
    shapes,
)
from accelsim.workload.onnx_ops import convolution, product

# Domains under which QONNX, Brevitas and FINN exporters write the same nodes.
QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")

QUANTISERS = frozenset({"Quant", "IntQuant", "BipolarQuant", "FloatQuant", "Trunc"})

# (exponent bits, mantissa bits) of the float formats that accelerators have.
_FLOATS = {
    (4, 3): "fp8_e4m3",
    (5, 2): "fp8_e5m2",
    (3, 2): "fp6",
    (2, 3): "fp6",
    (2, 1): "mxfp4",
    (5, 10): "fp16",
    (8, 7): "bf16",
}


def quantiser_format(node: Node) -> Precision:
    """Format of the tensor that a QONNX quantiser writes."""
    if node.type == "BipolarQuant":
        return precision("int1")
    if node.type == "FloatQuant":
        exponent, mantissa = _number(node, 2, "exponent bits"), _number(node, 3, "mantissa bits")
        name = _FLOATS.get((int(exponent), int(mantissa)))
        if name is None:
            return (
                precision("fp32")
                if exponent + mantissa > 15
                else integer_format(1 + exponent + mantissa, node.name)
            )
        return precision(name)
    index = 3 if node.type in ("Quant", "IntQuant") else 4
    if node.type == "Trunc" and len(node.inputs) > 5:  # later versions: in_bitwidth, out_scale, out_bitwidth
        index = 5
    return integer_format(_number(node, index, "bit width"), node.name)


def _number(node: Node, index: int, what: str) -> float:
    data = node.data(index)
    if data is None:
        raise UnsupportedOpError(f"the {what} of {node.type} is not a constant", node.name)
    return float(data.max())


def _quantiser(node: Node) -> list[Op]:
    return [node.op("quantize", [node.x], [replace(node.y, precision=quantiser_format(node))])]


def _multi_threshold(node: Node) -> list[Op]:
    """The attribute out_dtype names the output: UINT2, INT4, BIPOLAR ..."""
    dtype = node.attr("out_dtype", b"FLOAT32")
    text = dtype.decode() if isinstance(dtype, bytes) else str(dtype)
    bits = re.fullmatch(r"U?INT(\d+)", text)
    if text in ("BIPOLAR", "BINARY"):
        fmt = precision("int1")
    elif text == "TERNARY":
        fmt = precision("int2")
    else:
        fmt = integer_format(int(bits.group(1)), node.name) if bits else node.y.precision
    return [node.op("multi_threshold", [node.x, node.weight(1)], [replace(node.y, precision=fmt)])]


def _threshold_shape(node: Node) -> list[tuple[int, Shape]]:
    return [(FLOAT32, node.x.shape)]


for _domain in QONNX:
    maps(*QUANTISERS, domain=_domain)(_quantiser)
    shapes(*QUANTISERS, domain=_domain)(like_first)
    maps("MultiThreshold", domain=_domain)(_multi_threshold)
    shapes("MultiThreshold", domain=_domain)(_threshold_shape)


@maps("QuantizeLinear")
@maps("QuantizeLinear", domain=MICROSOFT)
def quantize(node: Node) -> list[Op]:
    return [node.op("quantize", [node.x])]


@maps("DequantizeLinear")
@maps("DequantizeLinear", domain=MICROSOFT)
def dequantize(node: Node) -> list[Op]:
    return [node.op("dequantize", [node.x])]


@maps("DynamicQuantizeLinear")
def dynamic_quantize(node: Node) -> list[Op]:
    """Range of the tensor, then rounding; scale and zero point come out of the reduction."""
    ops = [node.op("quantize", [node.x], node.written[:1])]
    for part, t in zip(("scale", "zero_point"), node.written[1:]):
        axes = tuple(range(len(node.x.shape)))
        ops.append(node.op("reduce", [node.x], [t], part=part, function="max", axes=axes, keepdims=False))
    return ops


@maps("QLinearConv")
def qlinear_conv(node: Node) -> list[Op]:
    bias = [node.weight(8)] if node.has(8) else []
    return convolution(node, node.x, node.weight(3), *bias)


@maps("ConvInteger")
def conv_integer(node: Node) -> list[Op]:
    return convolution(node, node.x, node.weight(1))


@maps("QLinearMatMul")
def qlinear_matmul(node: Node) -> list[Op]:
    return product(node, node.x, node.weight(3))


@maps("MatMulInteger")
def matmul_integer(node: Node) -> list[Op]:
    return product(node, node.x, node.weight(1))


@maps("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=MICROSOFT)
def matmul_integer_to_float(node: Node) -> list[Op]:
    return product(node, node.x, node.weight(1))


@shapes("MatMulIntegerToFloat", "DynamicQuantizeMatMul", domain=MICROSOFT)
def _matmul_float_shape(node: Node) -> list[tuple[int, Shape]]:
    return [(FLOAT32, (*node.x.shape[:-1], node.tensor(1).shape[-1]))]


@maps("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: Node) -> list[Op]:
    """Weights of a few bits, packed as (n, blocks, bytes); the scale per block is left out."""
    k, n = node.attr("K"), node.attr("N")
    w = replace(node.weight(1), shape=(n, k), precision=integer_format(node.attr("bits", 4), node.name))
    return [node.op("matmul", [node.x, w], transpose_b=True)]


@shapes("MatMulNBits", domain=MICROSOFT)
def _matmul_nbits_shape(node: Node) -> list[tuple[int, Shape]]:
    return [(node.value(0).dtype, (*node.x.shape[:-1], node.attr("N")))]


@maps("QGemm", domain=MICROSOFT)
def qgemm(node: Node) -> list[Op]:
    """Inputs: a, a_scale, a_zero_point, b, b_scale, b_zero_point, bias ..."""
    bias = [node.weight(6)] if node.has(6) else []
    flags: dict[str, Any] = {
        "transpose_a": bool(node.attr("transA", 0)),
        "transpose_b": bool(node.attr("transB", 0)),
    }
    return [node.op("matmul", [node.x, node.weight(3), *bias], **flags)]


@shapes("QGemm", domain=MICROSOFT)
def _qgemm_shape(node: Node) -> list[tuple[int, Shape]]:
    rows = node.x.shape[1 if node.attr("transA", 0) else 0]
    columns = node.tensor(3).shape[0 if node.attr("transB", 0) else 1]
    return [(node.value(0).dtype if node.has(7) else FLOAT32, (rows, columns))]


@maps("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(node: Node) -> list[Op]:
    return [node.op("elementwise", node.tensors(0, 3), function=node.type.removeprefix("QLinear").lower())]


@shapes("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def _qlinear_binary_shape(node: Node) -> list[tuple[int, Shape]]:
    return [(node.value(0).dtype, broadcast(node.x.shape, node.tensor(3).shape))]


@maps("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_unary(node: Node) -> list[Op]:
    function = "sigmoid" if node.type == "QLinearSigmoid" else "leaky_relu"
    return [node.op("activation", [node.x], function=function)]


@maps("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(node: Node) -> list[Op]:
    return [node.op("softmax", [node.x], axis=node.attr("axis", -1))]


@maps("QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_global_pool(node: Node) -> list[Op]:
    first = 1 if node.attr("channels_last", 0) else 2
    kernel = node.x.shape[first : first + len(node.x.shape) - 2]
    if first == 1:
        return [
            node.op(
                "reduce",
                [node.x],
                function="mean",
                axes=tuple(range(1, len(node.x.shape) - 1)),
                keepdims=True,
            )
        ]
    return [node.op("pool", [node.x], mode="avg", kernel=kernel, stride=kernel, padding=(0,) * len(kernel))]


@shapes("QLinearGlobalAveragePool", domain=MICROSOFT)
def _qlinear_global_pool_shape(node: Node) -> list[tuple[int, Shape]]:
    n, *rest = node.x.shape
    if node.attr("channels_last", 0):
        return [(node.value(0).dtype, (n, *(1,) * (len(rest) - 1), rest[-1]))]
    return [(node.value(0).dtype, (n, rest[0], *(1,) * (len(rest) - 1)))]


@maps("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: Node) -> list[Op]:
    """Inputs: y_scale, y_zero_point, then tensor, scale, zero point of each part."""
    return [node.op("concat", node.tensors(*range(2, len(node.inputs), 3)), axis=node.attr("axis", 1))]


@shapes("QLinearConcat", domain=MICROSOFT)
def _qlinear_concat_shape(node: Node) -> list[tuple[int, Shape]]:
    parts = [node.tensor(i).shape for i in range(2, len(node.inputs), 3)]
    axis = node.attr("axis", 1) % len(parts[0])
    whole = (*parts[0][:axis], sum(p[axis] for p in parts), *parts[0][axis + 1 :])
    return [(node.value(2).dtype, whole)]


@shapes("QuantizeLinear", domain=MICROSOFT)
def _quantize_shape(node: Node) -> list[tuple[int, Shape]]:
    return [(node.value(2).dtype if node.has(2) else INT8, node.x.shape)]


@shapes("DequantizeLinear", domain=MICROSOFT)
def _dequantize_shape(node: Node) -> list[tuple[int, Shape]]:
    return [(node.value(1).dtype, node.x.shape)]


shapes("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", domain=MICROSOFT)(like_first)
