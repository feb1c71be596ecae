"""Random graphs and devices for the laws."""

from __future__ import annotations

from hypothesis import strategies as st

import accelsim as ax
from accelsim.workload.graph import Graph


@st.composite
def convolutional(draw: st.DrawFn) -> Graph:
    """A small network of convolutions with residual adds, pools, norms and a classifier."""
    b = ax.GraphBuilder("random-cnn", draw(st.sampled_from(["fp16", "int8"])))
    size = draw(st.sampled_from([7, 14, 28, 56]))
    x = b.input("x", 1, draw(st.sampled_from([3, 16, 64])), size, size)
    for _ in range(draw(st.integers(1, 5))):
        before = x
        channels = draw(st.sampled_from([8, 32, 48, 128]))
        groups = 1
        if draw(st.booleans()) and x.shape[1] > 3:
            channels = groups = x.shape[1]
        x = b.conv(
            x,
            channels,
            draw(st.sampled_from([1, 3, 5])),
            stride=draw(st.sampled_from([1, 1, 2])),
            groups=groups,
        )
        if draw(st.booleans()):
            x = b.batch_norm(x)
        x = b.activation(x, "relu")
        if draw(st.booleans()) and before.shape == x.shape:
            x = b.add(x, before)
        if x.shape[2] >= 4 and draw(st.booleans()):
            x = b.pool(x, "max", 2)
    x = b.flatten(b.global_pool(x))
    b.linear(x, draw(st.sampled_from([10, 1000])))
    return b.build(item="image")


@st.composite
def transformers(draw: st.DrawFn) -> Graph:
    """A stack of attention and MLP layers."""
    b = ax.GraphBuilder("random-transformer", draw(st.sampled_from(["fp16", "int8"])))
    heads, width = draw(st.sampled_from([2, 8])), draw(st.sampled_from([32, 64]))
    tokens, hidden = draw(st.sampled_from([1, 17, 128])), heads * width
    x = b.input("x", 1, tokens, hidden)
    with b.repeated(draw(st.integers(1, 4))):
        y = b.layer_norm(x)
        q, k, v = (
            b.transpose(b.reshape(b.linear(y, hidden, stem=n), 1, tokens, heads, width), 0, 2, 1, 3)
            for n in ("q", "k", "v")
        )
        a = b.attention(q, k, v, causal=draw(st.booleans()))
        y = b.reshape(b.transpose(a, 0, 2, 1, 3), 1, tokens, hidden)
        x = b.add(b.linear(y, hidden, stem="o"), x)
        y = b.activation(b.linear(b.layer_norm(x), 4 * hidden, stem="up"), "gelu")
        x = b.add(b.linear(y, hidden, stem="down"), x)
    return b.build(item="sequence")


@st.composite
def spiking(draw: st.DrawFn) -> Graph:
    """A network small enough for a chip of spiking neurons."""
    b = ax.GraphBuilder("random-spiking", "int8")
    if draw(st.booleans()):
        x = b.input("x", 1, draw(st.sampled_from([1, 3])), 16, 16)
        for _ in range(draw(st.integers(1, 3))):
            before = x
            x = b.activation(b.conv(x, draw(st.sampled_from([4, 8])), draw(st.sampled_from([1, 3]))), "relu")
            if draw(st.booleans()) and before.shape == x.shape:
                x = b.add(x, before)
        if draw(st.booleans()):
            x = b.pool(x, draw(st.sampled_from(["avg", "max"])), 2)
        x = b.flatten(x)
    else:
        x = b.input("x", 1, draw(st.sampled_from([16, 390])))
        for _ in range(draw(st.integers(0, 4))):
            x = b.activation(b.linear(x, draw(st.sampled_from([8, 100, 256]))), "relu")
    b.linear(x, 10)
    return b.build(item="image")


graphs = st.one_of(convolutional(), transformers())
