"""SSD with a MobileNet v1 backbone: six feature maps, each with box and class predictors."""

from __future__ import annotations

from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.mobilenet import features_v1
from accelsim.workload.builders.vision import conv_bn, forward_only
from accelsim.workload.graph import Graph, Tensor

# Squeeze and output channels of the four extra feature maps.
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))
ANCHORS = (3, 6, 6, 6, 6, 6)
BACKBONE_TAPS = (11, 13)


@forward_only
def build(name: str, *, image: int = 300, classes: int = 91, precision: str = "fp16") -> Graph:
    """SSD-MobileNet v1 (Liu et al., ECCV 2016, doi:10.1007/978-3-319-46448-0_2), with 1x1 predictors.

    `classes` includes the background. Boxes leave the graph undecoded; non-maximum suppression depends on the
    image and is not part of it.
    """
    b = GraphBuilder(name, precision)
    x = b.input("image", 1, 3, image, image)
    with b.scope("backbone"):
        taps = features_v1(b, x, "relu6")
    maps = [taps[i] for i in BACKBONE_TAPS]
    for i, (squeezed, channels) in enumerate(EXTRAS, 1):
        with b.scope(f"extra{i}"):
            y = conv_bn(b, maps[-1], squeezed, 1, function="relu6", stem="squeeze", norm="squeeze.bn")
            maps.append(conv_bn(b, y, channels, 3, stride=2, function="relu6"))
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    for i, (feature, anchors) in enumerate(zip(maps, ANCHORS)):
        with b.scope(f"predictor{i}"):
            places = anchors * feature.shape[2] * feature.shape[3]
            box = b.conv(feature, anchors * 4, 1, bias=True, stem="box")
            score = b.conv(feature, anchors * classes, 1, bias=True, stem="class")
            boxes.append(b.reshape(box, 1, places, 4))
            scores.append(b.reshape(score, 1, places, classes))
    b.concat(*boxes)
    b.activation(b.concat(*scores), "sigmoid")
    return b.build(item="image")
