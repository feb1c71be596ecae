"""Networks of the Edge TPU's published latencies that the workload catalog has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from accelsim.core.precision import precision
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.mobilenet import inverted_residual
from accelsim.workload.builders.vision import classifier, conv_bn
from accelsim.workload.graph import Graph, Tensor

# SqueezeNet of its paper (Iandola et al., arXiv:1602.07360, table 1): squeeze and expand channels, a pool
# before those with True.
_FIRE = (
    (True, 16, 64), (False, 16, 64), (False, 32, 128), (True, 32, 128), (False, 48, 192), (False, 48, 192),
    (False, 64, 256), (True, 64, 256),
)  # fmt: skip

# EfficientNet-EdgeTPU (Gupta and Akin, arXiv:2003.02838; tensorflow/tpu efficientnet_edgetpu_builder.py,
# recalled): repeats, kernel, stride, expansion, channels, whether expansion and depthwise are one.
_EDGE_BLOCKS = (
    (1, 3, 1, 4, 24, True), (2, 3, 2, 8, 32, True), (4, 3, 2, 8, 48, True), (5, 5, 2, 8, 96, False),
    (4, 5, 1, 8, 144, False), (2, 5, 2, 8, 192, False),
)  # fmt: skip


def network(builder: str, **parameters: Any) -> Graph:
    """A network in int8, one image; `builder` is a key of `NETWORKS`."""
    b = GraphBuilder(builder, precision("int8"))
    NETWORKS[builder](b, parameters)
    return b.build(item="image")


def _image(b: GraphBuilder, size: int) -> Tensor:
    return b.input("image", 1, 3, size, size)


def _squeezenet(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    x = b.activation(b.conv(_image(b, 224), 96, 7, stride=2, padding=0))
    for pooled, squeezed, expanded in _FIRE:
        if pooled:
            x = b.pool(x, "max", 3, stride=2)
        s = b.activation(b.conv(x, squeezed, 1))
        x = b.concat(*(b.activation(b.conv(s, expanded, kernel)) for kernel in (1, 3)))
    b.global_pool(b.activation(b.conv(x, 1000, 1)))


def _efficientnet_edge(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    x = conv_bn(b, _image(b, parameters["image"]), 32, 3, stride=2)
    for repeats, kernel, first, expansion, channels, fused in _EDGE_BLOCKS:
        for i in range(-int(-repeats * parameters["depth"] // 1)):
            stride, expanded = 1 if i else first, expansion * x.shape[1]
            if not fused:
                x = inverted_residual(
                    b, x, channels, expanded=expanded, stride=stride, function="relu", kernel=kernel
                )
                continue
            y = conv_bn(b, conv_bn(b, x, expanded, kernel, stride=stride), channels, 1, function="")
            x = b.add(x, y) if x.shape == y.shape else y
    classifier(b, conv_bn(b, x, 1280, 1), 1001)


def _residual(b: GraphBuilder, x: Tensor, *branches: tuple[tuple[int, Any], ...]) -> Tensor:
    """An Inception-ResNet block: branches of (channels, kernel), a projection, the sum."""
    ends = []
    for branch in branches:
        y = x
        for channels, kernel in branch:
            y = conv_bn(b, y, channels, kernel)
        ends.append(y)
    return b.activation(b.add(x, b.conv(b.concat(*ends), x.shape[1], 1)), "relu")


def _reduced(b: GraphBuilder, x: Tensor, *branches: tuple[tuple[int, int, int], ...]) -> Tensor:
    """Branches of (channels, kernel, stride) and a pool, all at half the size."""
    ends = []
    for branch in branches:
        y = x
        for channels, kernel, stride in branch:
            y = conv_bn(b, y, channels, kernel, stride=stride, padding=0 if stride == 2 else "same")
        ends.append(y)
    return b.concat(*ends, b.pool(x, "max", 3, stride=2))


def _inception_resnet_v2(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    """Szegedy et al., AAAI 2017, arXiv:1602.07261, with the channels of TensorFlow's slim models."""
    x = conv_bn(b, _image(b, 299), 32, 3, stride=2, padding=0)
    x = conv_bn(b, conv_bn(b, x, 32, 3, padding=0), 64, 3)
    x = conv_bn(b, b.pool(x, "max", 3, stride=2), 80, 1, padding=0)
    x = b.pool(conv_bn(b, x, 192, 3, padding=0), "max", 3, stride=2)
    ends = [conv_bn(b, x, 96, 1), conv_bn(b, conv_bn(b, x, 48, 1), 64, 5)]
    ends.append(conv_bn(b, conv_bn(b, conv_bn(b, x, 64, 1), 96, 3), 96, 3))
    x = b.concat(*ends, conv_bn(b, b.pool(x, "avg", 3, stride=1, padding=1), 64, 1))
    for _ in range(10):
        x = _residual(b, x, ((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))
    x = _reduced(b, x, ((384, 3, 2),), ((256, 1, 1), (256, 3, 1), (384, 3, 2)))
    for _ in range(20):
        x = _residual(b, x, ((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1))))
    x = _reduced(
        b, x, ((256, 1, 1), (384, 3, 2)), ((256, 1, 1), (288, 3, 2)), ((256, 1, 1), (288, 3, 1), (320, 3, 2))
    )
    for _ in range(10):
        x = _residual(b, x, ((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1))))
    classifier(b, conv_bn(b, x, 1536, 1), 1001)


NETWORKS: Mapping[str, Callable[[GraphBuilder, Mapping[str, Any]], None]] = {
    "squeezenet-1.0": _squeezenet,
    "efficientnet-edge": _efficientnet_edge,
    "inception-resnet-v2": _inception_resnet_v2,
}
