"""DenseNet-121 (Huang et al., CVPR 2017, doi:10.1109/CVPR.2017.243): layers read all before them."""

from __future__ import annotations

from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import classifier, conv_bn, forward_only
from accelsim.workload.graph import Graph, Tensor

BLOCKS = (6, 12, 24, 16)
GROWTH = 32
BOTTLENECK = 4


@forward_only
def build(name: str, *, image: int = 224, classes: int = 1000, precision: str = "fp16") -> Graph:
    """DenseNet-121: bottlenecks of four times the growth, and transitions that halve channels and sizes."""
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    x = conv_bn(b, x, 2 * GROWTH, 7, stride=2, stem="conv0", norm="norm0")
    x = b.pool(x, "max", 3, stride=2, padding=1)
    for block, layers in enumerate(BLOCKS, 1):
        for layer in range(1, layers + 1):
            with b.scope(f"denseblock{block}.denselayer{layer}"):
                y = _norm_conv(b, x, BOTTLENECK * GROWTH, 1, 1)
                y = _norm_conv(b, y, GROWTH, 3, 2)
                x = b.concat(x, y)
        if block < len(BLOCKS):
            with b.scope(f"transition{block}"):
                x = _norm_conv(b, x, x.shape[1] // 2, 1, 1)
                x = b.pool(x, "avg", 2)
    x = b.activation(b.batch_norm(x, "norm5"))
    classifier(b, x, classes, "classifier")
    return b.build(item="image")


def _norm_conv(b: GraphBuilder, x: Tensor, channels: int, kernel: int, index: int) -> Tensor:
    """Normalisation and activation before the convolution."""
    x = b.activation(b.batch_norm(x, f"norm{index}"))
    return b.conv(x, channels, kernel, stem=f"conv{index}")
