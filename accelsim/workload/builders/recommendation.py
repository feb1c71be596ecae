"""Recommendation models: DLRM (arXiv:1906.00091), with dot products or a cross network (arXiv:2008.13535)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelsim.core.errors import ConfigError
from accelsim.workload.builders.checks import choice, forward_only, whole, whole_numbers
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Tensor


def dlrm(name: str, parameters: dict[str, Any], phase: str | None, context: int | None) -> Graph:
    """Deep learning recommendation model; see `build_dlrm`."""
    forward_only(name, phase, context)
    return build_dlrm(name, **parameters)


def build_dlrm(
    name: str,
    tables: Sequence[int],
    width: int,
    dense: int,
    bottom: Sequence[int],
    top: Sequence[int],
    lookups: Sequence[int] | None = None,
    interaction: str = "dot",
    cross_layers: int = 3,
    cross_rank: int = 512,
    precision: str = "fp16",
) -> Graph:
    """DLRM for one sample.

    Parameters
    ----------
    name : str
    tables : sequence of int
        Rows of each embedding table.
    width : int
        Elements of an embedding; the last bottom layer has as many.
    dense : int
        Continuous features.
    bottom, top : sequence of int
        Widths of the two multi-layer perceptrons.
    lookups : sequence of int, optional
        Rows that one sample picks from each table and sums; one each when None.
    interaction : {"dot", "cross"}
        Products of all pairs of feature vectors, or `cross_layers` low-rank cross layers of rank
        `cross_rank`.
    precision : str
    """
    rows, width = whole_numbers("tables", tables), whole("width", width)
    picks = (1,) * len(rows) if lookups is None else whole_numbers("lookups", lookups)
    if len(picks) != len(rows):
        raise ConfigError(f"{len(picks)} lookups for {len(rows)} tables", "parameters")
    bottom, top = whole_numbers("bottom", bottom), whole_numbers("top", top)
    if bottom[-1] != width:
        raise ConfigError(
            f"the last bottom layer has {bottom[-1]} units, an embedding has {width}", "parameters"
        )
    choice("interaction", interaction, ("dot", "cross"))
    b = GraphBuilder(name, precision)
    with b.scope("bottom"):
        features = _mlp(b, b.input("dense", 1, whole("dense", dense)), bottom, "relu")
    vectors = [features, *(_bag(b, i, rows[i], picks[i], width) for i in range(len(rows)))]
    if interaction == "dot":
        joined = _dot(b, features, vectors, width)
    else:
        joined = _cross(
            b, b.concat(*vectors), whole("cross_layers", cross_layers), whole("cross_rank", cross_rank)
        )
    with b.scope("top"):
        _mlp(b, joined, top, "sigmoid")
    return b.build(item="sample")


def _mlp(b: GraphBuilder, x: Tensor, widths: Sequence[int], last: str) -> Tensor:
    for i, units in enumerate(widths):
        x = b.activation(b.linear(x, units), "relu" if i < len(widths) - 1 else last)
    return x


def _bag(b: GraphBuilder, index: int, rows: int, lookups: int, width: int) -> Tensor:
    """Sum of the rows that a sample picks."""
    with b.scope(f"table{index}"):
        picked = b.embedding(b.input(f"indices{index}", 1, lookups, dtype="int64"), rows, width)
        if lookups == 1:
            return b.reshape(picked, 1, width)
        summed: Tensor = b.op(
            "reduce", [picked], (1, width), stem="sum", function="sum", axes=(1,), keepdims=False
        )
        return summed


def _dot(b: GraphBuilder, features: Tensor, vectors: Sequence[Tensor], width: int) -> Tensor:
    """Products of all pairs of vectors, of which the strict lower triangle joins the dense features."""
    count = len(vectors)
    stacked = b.reshape(b.concat(*vectors), 1, count, width)
    products = b.matmul(stacked, stacked, transpose_b=True, stem="interaction")
    pairs = b.op("slice", [products], (1, count * (count - 1) // 2), stem="triangle")
    return b.concat(features, pairs)


def _cross(b: GraphBuilder, x0: Tensor, layers: int, rank: int) -> Tensor:
    """Low-rank cross layers x <- x0 * (W (V x) + bias) + x."""
    x = x0
    for i in range(layers):
        with b.scope(f"cross{i}"):
            low = b.linear(x, rank, bias=False, stem="v")
            x = b.add(b.elementwise("mul", x0, b.linear(low, x0.shape[1], stem="w")), x)
    return x
