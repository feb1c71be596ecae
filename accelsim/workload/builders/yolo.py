"""One-stage detectors of the YOLO line: v3-tiny and v8-nano."""

from __future__ import annotations

from typing import Any

from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import check_multiple, conv_bn, forward_only
from accelsim.workload.graph import Graph, Tensor

BINS = 16  # YOLOv8 predicts each box side as a distribution over this many distances


@forward_only
def build_v3_tiny(name: str, *, image: int = 416, classes: int = 80, precision: str = "fp16") -> Graph:
    """YOLOv3-tiny (Redmon and Farhadi, arXiv:1804.02767), in the layer order of its darknet configuration.

    Raw maps leave the graph; decoding and non-maximum suppression are not part of it.
    """
    check_multiple(name, "image", image, 32)
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    for width in (16, 32, 64, 128):
        x = b.pool(_leaky(b, x, width), "max", 2)
    fine = _leaky(b, x, 256)
    x = _leaky(b, b.pool(fine, "max", 2), 512)
    # Darknet pads this stride-1 pool at the bottom and the right only, so the map keeps its size.
    attributes: dict[str, Any] = {"mode": "max", "kernel": (2, 2), "stride": (1, 1), "padding": (0, 0, 1, 1)}
    x = b.op("pool", [x], x.shape, stem="maxpool", **attributes)
    neck = _leaky(b, _leaky(b, x, 1024), 256, 1)
    _predict(b, neck, 512, classes, "coarse")
    up = b.resize(_leaky(b, neck, 128, 1), 2)
    _predict(b, b.concat(up, fine), 256, classes, "fine")
    return b.build(item="image")


def _leaky(b: GraphBuilder, x: Tensor, channels: int, kernel: int = 3) -> Tensor:
    return conv_bn(b, x, channels, kernel, function="leaky_relu")


def _predict(b: GraphBuilder, x: Tensor, width: int, classes: int, label: str) -> Tensor:
    """Three anchors, each with four sides, one objectness and the classes."""
    with b.scope(label):
        return b.conv(_leaky(b, x, width), 3 * (5 + classes), 1, bias=True, stem="predict")


@forward_only
def build_v8n(name: str, *, image: int = 640, classes: int = 80, precision: str = "fp16") -> Graph:
    """YOLOv8-nano as defined by Ultralytics, with its decoding but without non-maximum suppression."""
    check_multiple(name, "image", image, 32)
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    with b.scope("backbone"):
        x = _silu(b, x, 16, stride=2)
        x = _c2f(b, _silu(b, x, 32, stride=2), 32, 1)
        fine = x = _c2f(b, _silu(b, x, 64, stride=2), 64, 2)
        middle = x = _c2f(b, _silu(b, x, 128, stride=2), 128, 2)
        x = _c2f(b, _silu(b, x, 256, stride=2), 256, 1)
        coarse = _sppf(b, x)
    with b.scope("neck"):
        middle = _c2f(b, b.concat(b.resize(coarse, 2), middle), 128, 1, shortcut=False)
        fine = _c2f(b, b.concat(b.resize(middle, 2), fine), 64, 1, shortcut=False)
        middle = _c2f(b, b.concat(_silu(b, fine, 64, stride=2), middle), 128, 1, shortcut=False)
        coarse = _c2f(b, b.concat(_silu(b, middle, 128, stride=2), coarse), 256, 1, shortcut=False)
    with b.scope("detect"):
        _detect(b, (fine, middle, coarse), classes)
    return b.build(item="image")


def _silu(b: GraphBuilder, x: Tensor, channels: int, kernel: int = 3, stride: int = 1) -> Tensor:
    return conv_bn(b, x, channels, kernel, stride=stride, function="silu")


def _c2f(b: GraphBuilder, x: Tensor, channels: int, depth: int, shortcut: bool = True) -> Tensor:
    """Two halves; bottlenecks refine the second one, and all of them join at the end."""
    half = channels // 2
    parts = list(b.views(_silu(b, x, channels, 1), 2, axis=1))
    for _ in range(depth):
        y = _silu(b, _silu(b, parts[-1], half), half)
        parts.append(b.add(parts[-1], y) if shortcut else y)
    return _silu(b, b.concat(*parts), channels, 1)


def _sppf(b: GraphBuilder, x: Tensor) -> Tensor:
    """Three 5x5 pools in a row, joined with their input: fields of 5, 9 and 13 pixels."""
    channels = x.shape[1]
    parts = [_silu(b, x, channels // 2, 1)]
    for _ in range(3):
        parts.append(b.pool(parts[-1], "max", 5, stride=1, padding=2))
    return _silu(b, b.concat(*parts), channels, 1)


def _detect(b: GraphBuilder, features: tuple[Tensor, ...], classes: int) -> None:
    """Decoupled heads per scale, then the expected distance of each box side from its distribution."""
    first = features[0].shape[1]
    box_width = max(16, first // 4, 4 * BINS)
    class_width = max(first, min(classes, 100))
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    for i, x in enumerate(features):
        places = x.shape[2] * x.shape[3]
        with b.scope(f"box{i}"):
            y = _silu(b, _silu(b, x, box_width), box_width)
            boxes.append(b.reshape(b.conv(y, 4 * BINS, 1, bias=True), 1, 4 * BINS, places))
        with b.scope(f"class{i}"):
            y = _silu(b, _silu(b, x, class_width), class_width)
            scores.append(b.reshape(b.conv(y, classes, 1, bias=True), 1, classes, places))
    b.activation(b.concat(*scores, axis=2), "sigmoid")
    sides = b.concat(*boxes, axis=2)
    places = sides.shape[2]
    sides = b.transpose(b.reshape(sides, 1, 4, BINS, places), 0, 2, 1, 3)
    distances = b.conv(b.softmax(sides, axis=1), 1, 1, stem="expectation")
    # Distances become corners and sizes in pixels: an offset and the stride of the map.
    b.elementwise("scale_shift", b.reshape(distances, 1, 4, places))
