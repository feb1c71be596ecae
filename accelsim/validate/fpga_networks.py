"""Networks of the Vitis AI model zoo that the workload catalog has not, or not at that size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from accelsim.core.precision import precision
from accelsim.workload.builders.families import BUILDERS
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.mobilenet import V1, V2, inverted_residual, round_channels, separable
from accelsim.workload.builders.resnet import EXPANSION, STAGES, basic, bottleneck
from accelsim.workload.builders.vision import classifier, conv_bn
from accelsim.workload.graph import Graph, Tensor

# GoogLeNet's nine modules (Szegedy et al., CVPR 2015, doi:10.1109/CVPR.2015.7298594, table 1): 1x1, 3x3
# behind its squeeze, 5x5 behind its squeeze, projection of the pool; a pool stands before the modules with
# True.
_INCEPTION_V1 = (
    (False, 64, (96, 128), (16, 32), 32), (False, 128, (128, 192), (32, 96), 64),
    (True, 192, (96, 208), (16, 48), 64), (False, 160, (112, 224), (24, 64), 64),
    (False, 128, (128, 256), (24, 64), 64), (False, 112, (144, 288), (32, 64), 64),
    (False, 256, (160, 320), (32, 128), 128), (True, 256, (160, 320), (32, 128), 128),
    (False, 384, (192, 384), (48, 128), 128),
)  # fmt: skip

# SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360): squeeze and expand channels, a pool before those with
# True.
_FIRE = (
    (True, 16, 64), (False, 16, 64), (True, 32, 128), (False, 32, 128), (True, 48, 192), (False, 48, 192),
    (False, 64, 256), (False, 64, 256),
)  # fmt: skip

# Darknet-19 (Redmon and Farhadi, CVPR 2017, doi:10.1109/CVPR.2017.690, table 6): channels, kernel; None is a
# pool.
_DARKNET19 = (
    (32, 3), None, (64, 3), None, (128, 3), (64, 1), (128, 3), None, (256, 3), (128, 1), (256, 3), None,
    (512, 3), (256, 1), (512, 3), (256, 1), (512, 3), None, (1024, 3), (512, 1), (1024, 3), (512, 1),
    (1024, 3),
)  # fmt: skip
_YOLOV2_TAP = 16  # the last 512-channel layer before the last pool


def network(builder: str, **parameters: Any) -> Graph:
    """A network in int8, one image.

    Parameters
    ----------
    builder : str
        A key of `NETWORKS`, or of `accelsim.workload.builders.families.BUILDERS`.
    **parameters
        Of the builder.
    """
    if builder not in NETWORKS:
        return BUILDERS[builder](builder, {**parameters, "precision": "int8"}, None, None)
    b = GraphBuilder(builder, precision("int8"))
    NETWORKS[builder](b, parameters)
    return b.build(item="image")


def _image(b: GraphBuilder, parameters: Mapping[str, Any], default: int) -> Tensor:
    """Input of ``image`` pixels: a side, or rows and columns."""
    size = parameters.get("image", default)
    rows, columns = size if isinstance(size, list | tuple) else (size, size)
    return b.input("image", 1, 3, rows, columns)


def _resnet(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    """ResNet with its stride in the first 1x1 convolution, as its paper has it, or of any image size."""
    depth = parameters["depth"]
    x = conv_bn(b, _image(b, parameters, 224), 64, 7, stride=2)
    x = b.pool(x, "max", 3, stride=2, padding=1)
    for stage, blocks in enumerate(STAGES[depth]):
        for i in range(blocks):
            with b.scope(f"layer{stage + 1}.{i}"):
                width, stride = 64 * 2**stage, 2 if stage and not i else 1
                if depth < 50:
                    x = basic(b, x, width, stride)
                elif parameters.get("first_strides"):
                    x = _first_strides(b, x, width, stride)
                else:
                    x = bottleneck(b, x, width, stride)
    if parameters.get("classes", 1000):
        classifier(b, x, parameters.get("classes", 1000))
    else:
        b.global_pool(x)


def _first_strides(b: GraphBuilder, x: Tensor, width: int, stride: int) -> Tensor:
    y = conv_bn(b, x, width, 1, stride=stride)
    y = conv_bn(b, conv_bn(b, y, width, 3), EXPANSION * width, 1, function="")
    if x.shape != y.shape:
        x = conv_bn(b, x, y.shape[1], 1, stride=stride, function="")
    return b.activation(b.add(y, x))


def _resnet_v2(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    """Normalisation and activation first (He et al., ECCV 2016, doi:10.1007/978-3-319-46493-0_38); a stage
    strides in its last block, as TensorFlow's slim networks do."""
    x = b.conv(_image(b, parameters, 299), 64, 7, stride=2)
    x = b.pool(x, "max", 3, stride=2, padding=1)
    for stage, blocks in enumerate(STAGES[parameters["depth"]]):
        for i in range(blocks):
            width, stride = 64 * 2**stage, 2 if stage < 3 and i == blocks - 1 else 1
            ready = b.activation(b.batch_norm(x))
            y = conv_bn(b, conv_bn(b, ready, width, 1), width, 3, stride=stride)
            y = b.conv(y, EXPANSION * width, 1)
            if x.shape[1] != y.shape[1]:
                x = b.conv(ready, y.shape[1], 1, stride=stride)
            elif stride == 2:
                x = b.pool(x, "max", 1, stride=2)
            x = b.add(y, x)
    classifier(b, b.activation(b.batch_norm(x)), 1001)


def _mobilenet_v1(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    width = parameters["width"]
    x = conv_bn(b, _image(b, parameters, 224), max(8, int(32 * width)), 3, stride=2)
    for channels, stride in V1:
        x = separable(b, x, int(channels * width), stride, "relu6")
    classifier(b, x, 1001)


def _mobilenet_v2(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    width = parameters["width"]
    x = conv_bn(b, _image(b, parameters, 224), round_channels(32 * width), 3, stride=2)
    for expansion, channels, repeats, first in V2:
        for i in range(repeats):
            x = inverted_residual(
                b,
                x,
                round_channels(channels * width),
                expanded=expansion * x.shape[1],
                stride=1 if i else first,
                function="relu6",
            )
    classifier(b, conv_bn(b, x, round_channels(1280 * max(width, 1.0)), 1), 1001)


def _inception_v1(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    x = conv_bn(b, _image(b, parameters, 224), 64, 7, stride=2)
    x = b.pool(x, "max", 3, stride=2, padding=1)
    x = conv_bn(b, conv_bn(b, x, 64, 1), 192, 3)
    x = b.pool(x, "max", 3, stride=2, padding=1)
    for pooled, direct, three, five, projected in _INCEPTION_V1:
        if pooled:
            x = b.pool(x, "max", 3, stride=2, padding=1)
        x = b.concat(
            conv_bn(b, x, direct, 1),
            conv_bn(b, conv_bn(b, x, three[0], 1), three[1], 3),
            conv_bn(b, conv_bn(b, x, five[0], 1), five[1], 5),
            conv_bn(b, b.pool(x, "max", 3, stride=1, padding=1), projected, 1),
        )
    classifier(b, x, 1000)


def _branches(b: GraphBuilder, x: Tensor, *branches: tuple[tuple[int, Any], ...]) -> list[Tensor]:
    """Chains of (channels, kernel) convolutions side by side; kernel 0 is an average pool by 3 first."""
    ends = []
    for branch in branches:
        y = x
        for channels, kernel in branch:
            y = b.pool(y, "avg", 3, stride=1, padding=1) if kernel == 0 else conv_bn(b, y, channels, kernel)
        ends.append(y)
    return ends


def _inception_v4(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    """Inception v4 (Szegedy et al., AAAI 2017, arXiv:1602.07261, figures 3 to 9)."""
    x = conv_bn(b, _image(b, parameters, 299), 32, 3, stride=2, padding=0)
    x = conv_bn(b, conv_bn(b, x, 32, 3, padding=0), 64, 3)
    x = b.concat(b.pool(x, "max", 3, stride=2), conv_bn(b, x, 96, 3, stride=2, padding=0))
    left = conv_bn(b, conv_bn(b, x, 64, 1), 96, 3, padding=0)
    right = conv_bn(b, conv_bn(b, conv_bn(b, x, 64, 1), 64, (7, 1)), 64, (1, 7))
    x = b.concat(left, conv_bn(b, right, 96, 3, padding=0))
    x = b.concat(conv_bn(b, x, 192, 3, stride=2, padding=0), b.pool(x, "max", 3, stride=2))
    for _ in range(4):
        x = b.concat(
            *_branches(b, x, ((0, 0), (96, 1)), ((96, 1),), ((64, 1), (96, 3)), ((64, 1), (96, 3), (96, 3)))
        )
    long = conv_bn(b, conv_bn(b, x, 192, 1), 224, 3)
    x = b.concat(
        b.pool(x, "max", 3, stride=2),
        conv_bn(b, x, 384, 3, stride=2, padding=0),
        conv_bn(b, long, 256, 3, stride=2, padding=0),
    )
    row, column = (1, 7), (7, 1)
    for _ in range(7):
        x = b.concat(
            *_branches(
                b,
                x,
                ((0, 0), (128, 1)),
                ((384, 1),),
                ((192, 1), (224, row), (256, column)),
                ((192, 1), (192, row), (224, column), (224, row), (256, column)),
            )
        )
    short = conv_bn(b, x, 192, 1)
    long = conv_bn(b, conv_bn(b, conv_bn(b, x, 256, 1), 256, row), 320, column)
    x = b.concat(
        b.pool(x, "max", 3, stride=2),
        conv_bn(b, short, 192, 3, stride=2, padding=0),
        conv_bn(b, long, 320, 3, stride=2, padding=0),
    )
    for _ in range(3):
        single, double = conv_bn(b, x, 384, 1), conv_bn(b, x, 384, 1)
        double = conv_bn(b, conv_bn(b, double, 448, (1, 3)), 512, (3, 1))
        sides = [conv_bn(b, y, 256, kernel) for y in (single, double) for kernel in ((1, 3), (3, 1))]
        x = b.concat(*_branches(b, x, ((0, 0), (256, 1)), ((256, 1),)), *sides)
    classifier(b, x, 1001)


def _squeezenet(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    x = b.activation(b.conv(_image(b, parameters, 224), 64, 3, stride=2, padding=0))
    for pooled, squeezed, expanded in _FIRE:
        if pooled:
            x = b.pool(x, "max", 3, stride=2)
        s = b.activation(b.conv(x, squeezed, 1))
        x = b.concat(*(b.activation(b.conv(s, expanded, kernel)) for kernel in (1, 3)))
    b.global_pool(b.activation(b.conv(x, 1000, 1)))


def _leaky(b: GraphBuilder, x: Tensor, channels: int, kernel: int, stride: int = 1) -> Tensor:
    return conv_bn(b, x, channels, kernel, stride=stride, function="leaky_relu")


def _yolov3(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    """YOLOv3 on Darknet-53 (Redmon and Farhadi, arXiv:1804.02767, table 1)."""
    x = _leaky(b, _image(b, parameters, 416), 32, 3)
    taps = []
    for channels, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        x = _leaky(b, x, channels, 3, stride=2)
        for _ in range(blocks):
            x = b.add(x, _leaky(b, _leaky(b, x, channels // 2, 1), channels, 3))
        taps.append(x)
    outputs = 3 * (5 + parameters["classes"])
    for width, tap in ((512, None), (256, taps[3]), (128, taps[2])):
        if tap is not None:
            x = b.concat(b.resize(_leaky(b, x, width, 1), 2), tap)
        for kernel_width, kernel in ((width, 1), (2 * width, 3)) * 2 + ((width, 1),):
            x = _leaky(b, x, kernel_width, kernel)
        b.conv(_leaky(b, x, 2 * width, 3), outputs, 1)


def _yolov2(b: GraphBuilder, parameters: Mapping[str, Any]) -> None:
    x = tap = _image(b, parameters, 448)
    for i, layer in enumerate(_DARKNET19):
        x = b.pool(x, "max", 2) if layer is None else _leaky(b, x, *layer)
        tap = x if i == _YOLOV2_TAP else tap
    x = _leaky(b, _leaky(b, x, 1024, 3), 1024, 3)
    side = _leaky(b, tap, 64, 1)
    folded = b.reshape(side, 1, side.shape[1] * 4, side.shape[2] // 2, side.shape[3] // 2)
    x = _leaky(b, b.concat(folded, x), 1024, 3)
    b.conv(x, 5 * (5 + parameters["classes"]), 1)


NETWORKS: Mapping[str, Callable[[GraphBuilder, Mapping[str, Any]], None]] = {
    "resnet-zoo": _resnet,
    "resnet-v2": _resnet_v2,
    "mobilenet-v1": _mobilenet_v1,
    "mobilenet-v2": _mobilenet_v2,
    "inception-v1": _inception_v1,
    "inception-v4": _inception_v4,
    "squeezenet": _squeezenet,
    "yolov3": _yolov3,
    "yolov2": _yolov2,
}
