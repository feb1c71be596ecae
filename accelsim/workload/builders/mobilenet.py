"""MobileNet v1, v2 and v3: depthwise separable convolutions and inverted residuals."""

from __future__ import annotations

from accelsim.core.errors import ConfigError
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import classifier, conv_bn, depthwise_bn, forward_only, squeeze_excite
from accelsim.workload.graph import Graph, Tensor

# v1: output channels and stride of each depthwise separable layer (table 1).
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))

# v2: expansion, channels, repeats, first stride (table 2).
V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# v3 large: kernel, expanded channels, channels, squeeze and excite, activation, stride (table 1).
V3 = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)


@forward_only
def build(
    name: str, *, version: int, image: int = 224, classes: int = 1000, precision: str = "fp16"
) -> Graph:
    """MobileNet of version 1, 2 or 3 (large).

    Howard et al., arXiv:1704.04861; Sandler et al., CVPR 2018, doi:10.1109/CVPR.2018.00474; Howard et al.,
    ICCV 2019, doi:10.1109/ICCV.2019.00140.
    """
    heads = {1: _head_v1, 2: _head_v2, 3: _head_v3}
    if version not in heads:
        raise ConfigError(f"no MobileNet has version {version!r}", name, "versions: 1, 2, 3")
    b = GraphBuilder(name, precision)
    heads[version](b, b.input("image", 1, 3, image, image), classes)
    return b.build(item="image")


def separable(b: GraphBuilder, x: Tensor, channels: int, stride: int, function: str = "relu") -> Tensor:
    """Depthwise 3x3, then pointwise, each with normalisation and activation."""
    x = depthwise_bn(b, x, 3, stride=stride, function=function)
    return conv_bn(b, x, channels, 1, function=function, stem="pointwise", norm="pointwise.bn")


def inverted_residual(
    b: GraphBuilder,
    x: Tensor,
    channels: int,
    *,
    expanded: int,
    stride: int,
    function: str,
    kernel: int = 3,
    squeezed: int = 0,
    gate: str = "hardsigmoid",
    inner: str = "relu",
) -> Tensor:
    """Expand, filter each channel, gate if `squeezed`, project without activation, add where shapes agree."""
    y = x
    if expanded != x.shape[1]:
        y = conv_bn(b, y, expanded, 1, function=function, stem="expand", norm="expand.bn")
    y = depthwise_bn(b, y, kernel, stride=stride, function=function)
    if squeezed:
        y = squeeze_excite(b, y, squeezed, inner, gate)
    y = conv_bn(b, y, channels, 1, function="", stem="project", norm="project.bn")
    return b.add(x, y) if x.shape == y.shape else y


def features_v1(b: GraphBuilder, x: Tensor, function: str = "relu") -> list[Tensor]:
    """Outputs of the first convolution and of the 13 separable layers of MobileNet v1."""
    with b.scope("conv0"):
        taps = [conv_bn(b, x, 32, 3, stride=2, function=function)]
    for i, (channels, stride) in enumerate(V1, 1):
        with b.scope(f"conv{i}"):
            taps.append(separable(b, taps[-1], channels, stride, function))
    return taps


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor` that is at least nine tenths of `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _head_v1(b: GraphBuilder, x: Tensor, classes: int) -> None:
    classifier(b, features_v1(b, x)[-1], classes)


def _head_v2(b: GraphBuilder, x: Tensor, classes: int) -> None:
    with b.scope("features.0"):
        x = conv_bn(b, x, 32, 3, stride=2, function="relu6")
    index = 1
    for expansion, channels, repeats, first in V2:
        for i in range(repeats):
            with b.scope(f"features.{index}"):
                x = inverted_residual(
                    b,
                    x,
                    channels,
                    expanded=expansion * x.shape[1],
                    stride=1 if i else first,
                    function="relu6",
                )
            index += 1
    with b.scope(f"features.{index}"):
        x = conv_bn(b, x, 1280, 1, function="relu6")
    classifier(b, x, classes)


def _head_v3(b: GraphBuilder, x: Tensor, classes: int) -> None:
    with b.scope("features.0"):
        x = conv_bn(b, x, 16, 3, stride=2, function="hardswish")
    for i, (kernel, expanded, channels, gated, function, stride) in enumerate(V3, 1):
        with b.scope(f"features.{i}"):
            x = inverted_residual(
                b,
                x,
                channels,
                expanded=expanded,
                stride=stride,
                function=function,
                kernel=kernel,
                squeezed=round_channels(expanded / 4) if gated else 0,
            )
    with b.scope(f"features.{len(V3) + 1}"):
        x = conv_bn(b, x, 6 * x.shape[1], 1, function="hardswish")
    x = b.activation(b.linear(b.flatten(b.global_pool(x)), 1280, stem="fc1"), "hardswish")
    b.linear(x, classes, stem="fc2")
