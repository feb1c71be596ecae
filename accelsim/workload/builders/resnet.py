"""ResNet (He et al., CVPR 2016, doi:10.1109/CVPR.2016.90), version 1.5.

Bottlenecks stride in their 3x3 convolution, as the model zoos ship them; the paper strides in the first 1x1.
"""

from __future__ import annotations

from accelsim.core.errors import ConfigError
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import classifier, conv_bn, forward_only
from accelsim.workload.graph import Graph, Tensor

# Depth: blocks per stage (table 1 of the paper); from 50 on the blocks are bottlenecks.
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
EXPANSION = 4


@forward_only
def build(name: str, *, depth: int, image: int = 224, classes: int = 1000, precision: str = "fp16") -> Graph:
    """ResNet of a depth in 18, 34, 50, 101 and 152 layers."""
    if depth not in STAGES:
        raise ConfigError(f"no ResNet has depth {depth!r}", name, f"depths: {', '.join(map(str, STAGES))}")
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    x = conv_bn(b, x, 64, 7, stride=2, stem="conv1", norm="bn1")
    x = b.pool(x, "max", 3, stride=2, padding=1)
    block = bottleneck if depth >= 50 else basic
    for stage, blocks in enumerate(STAGES[depth]):
        for i in range(blocks):
            with b.scope(f"layer{stage + 1}.{i}"):
                x = block(b, x, 64 * 2**stage, 2 if stage and not i else 1)
    classifier(b, x, classes)
    return b.build(item="image")


def basic(b: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    """Two 3x3 convolutions and a shortcut."""
    y = conv_bn(b, x, width, 3, stride=stride, stem="conv1", norm="bn1")
    y = conv_bn(b, y, width, 3, function="", stem="conv2", norm="bn2")
    return _join(b, x, y, stride)


def bottleneck(b: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    """1x1, 3x3 and 1x1 convolutions and a shortcut."""
    y = conv_bn(b, x, width, 1, stem="conv1", norm="bn1")
    y = conv_bn(b, y, width, 3, stride=stride, stem="conv2", norm="bn2")
    y = conv_bn(b, y, EXPANSION * width, 1, function="", stem="conv3", norm="bn3")
    return _join(b, x, y, stride)


def _join(b: GraphBuilder, x: Tensor, y: Tensor, stride: int) -> Tensor:
    if x.shape != y.shape:
        x = conv_bn(b, x, y.shape[1], 1, stride=stride, function="", stem="downsample.0", norm="downsample.1")
    return b.activation(b.add(y, x))
