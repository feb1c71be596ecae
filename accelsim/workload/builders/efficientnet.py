"""EfficientNet-B0 (Tan and Le, ICML 2019, arXiv:1905.11946)."""

from __future__ import annotations

from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.mobilenet import inverted_residual
from accelsim.workload.builders.vision import classifier, conv_bn, forward_only
from accelsim.workload.graph import Graph

# Expansion, kernel, first stride, channels, repeats (table 1 of the paper).
B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@forward_only
def build(name: str, *, image: int = 224, classes: int = 1000, precision: str = "fp16") -> Graph:
    """EfficientNet-B0; the gates squeeze to a quarter of each block's input channels."""
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    with b.scope("features.0"):
        x = conv_bn(b, x, 32, 3, stride=2, function="silu")
    for stage, (expansion, kernel, first, channels, repeats) in enumerate(B0, 1):
        for i in range(repeats):
            with b.scope(f"features.{stage}.{i}"):
                x = inverted_residual(
                    b,
                    x,
                    channels,
                    expanded=expansion * x.shape[1],
                    stride=1 if i else first,
                    function="silu",
                    kernel=kernel,
                    squeezed=max(1, x.shape[1] // 4),
                    gate="sigmoid",
                    inner="silu",
                )
    with b.scope(f"features.{len(B0) + 1}"):
        x = conv_bn(b, x, 1280, 1, function="silu")
    classifier(b, x, classes)
    return b.build(item="image")
