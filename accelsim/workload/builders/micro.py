"""Single operators as workloads."""

from __future__ import annotations

from typing import Any

from accelsim.workload.builders.checks import forward_only, whole
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Phase


def gemm(name: str, parameters: dict[str, Any], phase: str | None, context: int | None) -> Graph:
    """One matrix product, C (m, n) = A (m, k) B (k, n) with B a weight; see `build_gemm`."""
    forward_only(name, phase, context)
    return build_gemm(name, **parameters)


def build_gemm(name: str, m: int, n: int, k: int, bias: bool = False, precision: str = "fp16") -> Graph:
    """One matrix product. A batch of b multiplies the rows: (b m, k) times (k, n)."""
    b = GraphBuilder(name, precision)
    a = b.input("a", whole("m", m), whole("k", k))
    b.linear(a, whole("n", n), bias=bias, stem="gemm")
    return b.build(item="product")


def conv(name: str, parameters: dict[str, Any], phase: str | None, context: int | None) -> Graph:
    """One convolution; see `build_conv`."""
    forward_only(name, phase, context)
    return build_conv(name, **parameters)


def build_conv(
    name: str,
    channels: int,
    filters: int,
    size: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    width: int | None = None,
    padding: int | str = "same",
    bias: bool = False,
    precision: str = "fp16",
) -> Graph:
    """One two-dimensional convolution of an image.

    Parameters
    ----------
    name : str
    channels, filters : int
        Input and output channels.
    size : int
        Height of the input [pixel]; `width` is the same when None.
    kernel, stride, groups : int
    padding : int or "same"
        Pixels on each side; ``same`` is (kernel - 1) // 2.
    bias : bool
    precision : str
    """
    b = GraphBuilder(name, precision)
    height = whole("size", size)
    x = b.input(
        "x", 1, whole("channels", channels), height, height if width is None else whole("width", width)
    )
    pad = padding if padding == "same" else whole("padding", padding, 0)
    b.conv(
        x,
        whole("filters", filters),
        whole("kernel", kernel),
        stride=whole("stride", stride),
        padding=pad,
        groups=whole("groups", groups),
        bias=bias,
    )
    return b.build(item="image")


def attention(name: str, parameters: dict[str, Any], phase: str | None, context: int | None) -> Graph:
    """One attention operator; see `build_attention`. `context` replaces the file's number of tokens.

    The phase ``decode`` has one query against that many cached tokens, others as many queries as tokens.
    """
    chosen: Phase = "decode" if phase == "decode" else "prefill" if phase == "prefill" else "forward"
    fields = dict(parameters)
    if context is not None:
        fields["tokens"] = context
    return build_attention(name, phase=chosen, **fields)


def build_attention(
    name: str,
    heads: int,
    tokens: int,
    width: int,
    kv_heads: int | None = None,
    causal: bool = True,
    window: int | None = None,
    phase: Phase = "forward",
    precision: str = "fp16",
) -> Graph:
    """One attention operator over `tokens` tokens with `heads` query heads of `width` elements.

    Fewer `kv_heads` is grouped-query attention. In decode the keys and values are a cache and there is one
    query.
    """
    b = GraphBuilder(name, precision)
    decode = phase == "decode"
    tokens, width, heads = whole("tokens", tokens), whole("width", width), whole("heads", heads)
    shared = heads if kv_heads is None else whole("kv_heads", kv_heads)
    q = b.input("q", 1, heads, 1 if decode else tokens, width)
    k, v = (
        b.input(part, 1, shared, tokens, width, role="kv" if decode else "activation") for part in ("k", "v")
    )
    b.attention(q, k, v, causal=causal, window=None if window is None else whole("window", window))
    return b.build(phase=phase, item="token" if decode else "sequence")
