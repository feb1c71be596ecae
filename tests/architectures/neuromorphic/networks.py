"""Small networks for chips of spiking neurons."""

from __future__ import annotations

import accelsim as ax
from accelsim.workload.graph import Graph


def perceptron(*sizes: int, precision: str = "int8", function: str = "relu") -> Graph:
    """Fully connected layers with an activation between them."""
    b = ax.GraphBuilder("perceptron", precision)
    x = b.input("x", 1, sizes[0])
    for i, width in enumerate(sizes[1:], 1):
        x = b.linear(x, width, stem=f"fc{i}")
        if i + 1 < len(sizes):
            x = b.activation(x, function)
    return b.build(item="window")


def convolutional(size: int = 12) -> Graph:
    """Two convolutions, a pool, a residual sum and a classifier."""
    b = ax.GraphBuilder("small-cnn", "int8")
    x = b.activation(b.conv(b.input("x", 1, 2, size, size), 8, 3, stem="conv1"))
    y = b.activation(b.conv(x, 8, 3, stem="conv2"))
    x = b.pool(b.add(x, y), "avg", 2)
    b.softmax(b.linear(b.flatten(x), 10, stem="fc"))
    return b.build(item="image")
