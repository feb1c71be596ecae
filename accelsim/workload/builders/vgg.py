"""Plain stacks of convolutions and large fully connected layers: AlexNet and VGG."""

from __future__ import annotations

from accelsim.core.errors import ConfigError
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import forward_only
from accelsim.workload.graph import Graph, Tensor

# Depth: 3x3 convolutions per stage (table 1 of Simonyan and Zisserman, columns A, B, D and E).
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


@forward_only
def build(name: str, *, depth: int, image: int = 224, classes: int = 1000, precision: str = "fp16") -> Graph:
    """VGG without batch normalisation (Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556)."""
    if depth not in STAGES:
        raise ConfigError(f"no VGG has depth {depth!r}", name, f"depths: {', '.join(map(str, STAGES))}")
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    with b.scope("features"):
        for width, convs in zip(WIDTHS, STAGES[depth]):
            for _ in range(convs):
                x = b.activation(b.conv(x, width, 3, bias=True))
            x = b.pool(x, "max", 2)
    _fully_connected(b, x, classes)
    return b.build(item="image")


@forward_only
def build_alexnet(name: str, *, image: int = 224, classes: int = 1000, precision: str = "fp16") -> Graph:
    """AlexNet in one tower (Krizhevsky, arXiv:1404.5997), which is the form that model zoos ship."""
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    with b.scope("features"):
        x = b.activation(b.conv(x, 64, 11, stride=4, padding=2, bias=True))
        x = b.pool(x, "max", 3, stride=2)
        x = b.activation(b.conv(x, 192, 5, bias=True))
        x = b.pool(x, "max", 3, stride=2)
        for width in (384, 256, 256):
            x = b.activation(b.conv(x, width, 3, bias=True))
        x = b.pool(x, "max", 3, stride=2)
    _fully_connected(b, x, classes)
    return b.build(item="image")


def _fully_connected(b: GraphBuilder, x: Tensor, classes: int) -> None:
    with b.scope("classifier"):
        x = b.flatten(x)
        for _ in range(2):
            x = b.activation(b.linear(x, 4096))
        b.linear(x, classes)
