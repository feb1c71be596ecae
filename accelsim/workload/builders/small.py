"""Networks for microcontrollers and triggers: a plain perceptron and the DS-CNN of keyword spotting."""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.builders.vision import classifier, forward_only
from accelsim.workload.graph import Graph


@forward_only
def build_mlp(
    name: str,
    *,
    inputs: int,
    layers: Sequence[int],
    function: str = "relu",
    item: str = "item",
    precision: str = "fp16",
) -> Graph:
    """Fully connected layers with an activation between them and a softmax at the end."""
    b = GraphBuilder(name, precision)
    x = b.input("features", 1, inputs)
    for i, width in enumerate(layers, 1):
        x = b.linear(x, width, stem=f"fc{i}")
        if i < len(layers):
            x = b.activation(x, function)
    b.softmax(x)
    return b.build(item=item)


@forward_only
def build_ds_cnn(
    name: str,
    *,
    frames: int = 49,
    coefficients: int = 10,
    width: int = 64,
    depth: int = 4,
    classes: int = 12,
    precision: str = "fp16",
) -> Graph:
    """DS-CNN (Zhang et al., arXiv:1711.07128) in the small form of MLPerf Tiny.

    Every convolution has a bias and a batch norm. The first one pads the 49 frames by 4 and 5; 5 on both
    sides gives the same 25 x 5 map.
    """
    b = GraphBuilder(name, precision)
    x = b.input("mfcc", 1, 1, frames, coefficients)
    x = b.conv(x, width, (10, 4), stride=2, padding=(5, 1), bias=True, stem="conv0")
    x = b.activation(b.batch_norm(x, "conv0.bn"))
    for i in range(1, depth + 1):
        x = b.conv(x, width, 3, groups=width, bias=True, stem=f"depthwise{i}")
        x = b.activation(b.batch_norm(x, f"depthwise{i}.bn"))
        x = b.conv(x, width, 1, bias=True, stem=f"pointwise{i}")
        x = b.activation(b.batch_norm(x, f"pointwise{i}.bn"))
    b.softmax(classifier(b, x, classes))
    return b.build(item="utterance")
