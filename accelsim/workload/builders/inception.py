"""Inception v3 (Szegedy et al., CVPR 2016, doi:10.1109/CVPR.2016.308), without its auxiliary head."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import classifier, conv_bn, forward_only
from accelsim.workload.graph import Graph, Tensor

# One convolution of a branch: channels, kernel, stride. Strided ones have no padding.
Conv = tuple[int, int | tuple[int, int], int]

ROW, COLUMN = (1, 7), (7, 1)


@forward_only
def build(name: str, *, image: int = 299, classes: int = 1000, precision: str = "fp16") -> Graph:
    """Inception v3."""
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    x = conv_bn(b, x, 32, 3, stride=2, padding=0, stem="Conv2d_1a", norm="Conv2d_1a.bn")
    x = conv_bn(b, x, 32, 3, padding=0, stem="Conv2d_2a", norm="Conv2d_2a.bn")
    x = conv_bn(b, x, 64, 3, stem="Conv2d_2b", norm="Conv2d_2b.bn")
    x = b.pool(x, "max", 3, stride=2)
    x = conv_bn(b, x, 80, 1, stem="Conv2d_3b", norm="Conv2d_3b.bn")
    x = conv_bn(b, x, 192, 3, padding=0, stem="Conv2d_4a", norm="Conv2d_4a.bn")
    x = b.pool(x, "max", 3, stride=2)
    for label, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        with b.scope(label):
            x = _mixed_5(b, x, pooled)
    with b.scope("Mixed_6a"):
        x = _reduce(b, x, [(384, 3, 2)], [(64, 1, 1), (96, 3, 1), (96, 3, 2)])
    for label, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        with b.scope(label):
            x = _mixed_6(b, x, width)
    with b.scope("Mixed_7a"):
        x = _reduce(
            b, x, [(192, 1, 1), (320, 3, 2)], [(192, 1, 1), (192, ROW, 1), (192, COLUMN, 1), (192, 3, 2)]
        )
    for label in ("Mixed_7b", "Mixed_7c"):
        with b.scope(label):
            x = _mixed_7(b, x)
    classifier(b, x, classes)
    return b.build(item="image")


def _branch(b: GraphBuilder, x: Tensor, label: str, convs: Sequence[Conv]) -> Tensor:
    for i, (channels, kernel, stride) in enumerate(convs, 1):
        stem = f"{label}_{i}"
        padding: int | str = "same" if stride == 1 else 0
        x = conv_bn(b, x, channels, kernel, stride=stride, padding=padding, stem=stem, norm=f"{stem}.bn")
    return x


def _pooled(b: GraphBuilder, x: Tensor, channels: int) -> Tensor:
    return _branch(b, b.pool(x, "avg", 3, stride=1, padding=1), "branch_pool", [(channels, 1, 1)])


def _mixed_5(b: GraphBuilder, x: Tensor, pooled: int) -> Tensor:
    return b.concat(
        _branch(b, x, "branch1x1", [(64, 1, 1)]),
        _branch(b, x, "branch5x5", [(48, 1, 1), (64, 5, 1)]),
        _branch(b, x, "branch3x3dbl", [(64, 1, 1), (96, 3, 1), (96, 3, 1)]),
        _pooled(b, x, pooled),
    )


def _reduce(b: GraphBuilder, x: Tensor, short: Sequence[Conv], long: Sequence[Conv]) -> Tensor:
    """Two strided branches beside a pool: sizes halve."""
    return b.concat(_branch(b, x, "short", short), _branch(b, x, "long", long), b.pool(x, "max", 3, stride=2))


def _mixed_6(b: GraphBuilder, x: Tensor, width: int) -> Tensor:
    """7x7 convolutions as rows and columns."""
    return b.concat(
        _branch(b, x, "branch1x1", [(192, 1, 1)]),
        _branch(b, x, "branch7x7", [(width, 1, 1), (width, ROW, 1), (192, COLUMN, 1)]),
        _branch(
            b,
            x,
            "branch7x7dbl",
            [(width, 1, 1), (width, COLUMN, 1), (width, ROW, 1), (width, COLUMN, 1), (192, ROW, 1)],
        ),
        _pooled(b, x, 192),
    )


def _mixed_7(b: GraphBuilder, x: Tensor) -> Tensor:
    """3x3 branches that end in a row and a column side by side."""
    single = _branch(b, x, "branch3x3", [(384, 1, 1)])
    double = _branch(b, x, "branch3x3dbl", [(448, 1, 1), (384, 3, 1)])
    sides = [
        _branch(b, y, f"{label}_{side}", [(384, kernel, 1)])
        for y, label in ((single, "branch3x3"), (double, "branch3x3dbl"))
        for side, kernel in (("row", (1, 3)), ("column", (3, 1)))
    ]
    return b.concat(_branch(b, x, "branch1x1", [(320, 1, 1)]), *sides, _pooled(b, x, 192))
