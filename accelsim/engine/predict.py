"""Predicting single operators by the thousand: a table of shapes in, the same table with latencies out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.architectures import architecture_of
from accelsim.architectures.base import Options
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.frames import records
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import precision
from accelsim.hardware.schema import Device
from accelsim.hardware.spec import load_hardware
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Op

if TYPE_CHECKING:
    import pandas as pd


def _gemm(b: GraphBuilder, row: Mapping[str, Any]) -> None:
    batch, m, n, k = row.get("batch", 1), row["m"], row["n"], row["k"]
    if batch == 1:
        b.linear(b.input(b.unique("a"), m, k), n, bias=False, stem="gemm")
    else:
        b.matmul(b.input(b.unique("a"), batch, m, k), b.input(b.unique("b"), batch, k, n), stem="gemm")


def _conv(b: GraphBuilder, row: Mapping[str, Any]) -> None:
    x = b.input(b.unique("x"), row.get("batch", 1), row["c"], row["h"], row["w"])
    padding = row.get("padding")
    pad: Any = "same" if padding is None else padding
    b.conv(
        x,
        row["k"],
        (row["r"], row["s"]),
        stride=row.get("stride", 1),
        padding=pad,
        groups=row.get("groups", 1),
    )


def _attention(b: GraphBuilder, row: Mapping[str, Any]) -> None:
    batch, heads, kv, width = (
        row.get("batch", 1),
        row["heads"],
        row.get("kv_heads", row["heads"]),
        row["head_dim"],
    )
    keys, tokens = row["context"], row.get("tokens", row["context"])
    role: Any = "kv" if tokens < keys else "activation"
    q = b.input(b.unique("q"), batch, heads, tokens, width)
    k, v = (b.input(b.unique(name), batch, kv, keys, width, role=role) for name in "kv")
    b.attention(q, k, v, causal=bool(row.get("causal", True)), window=row.get("window"))


OPS: dict[str, tuple[Callable[[GraphBuilder, Mapping[str, Any]], None], tuple[str, ...], tuple[str, ...]]] = {
    "gemm": (_gemm, ("m", "n", "k"), ("batch",)),
    "conv": (_conv, ("c", "h", "w", "k", "r", "s"), ("batch", "stride", "padding", "groups")),
    "attention": (
        _attention,
        ("heads", "head_dim", "context"),
        ("batch", "kv_heads", "tokens", "window", "causal"),
    ),
}
"""Operator name to its builder, its required and its optional columns."""


def predict_ops(
    frame: pd.DataFrame, hardware: str | Path | Device, *, stack: str = "graph", cold: bool = False
) -> pd.DataFrame:
    """Predict the latency of single operators.

    Parameters
    ----------
    frame : DataFrame
        Column ``op`` (``gemm``, ``conv``, ``attention``), column ``precision``, and the operator's shape
        columns: gemm m n k [batch]; conv c h w k r s [batch stride padding groups]; attention heads head_dim
        context [batch kv_heads tokens window
        causal]. Missing optional values are left empty.
    hardware : str or Path or Device
        A device whose program is sequential (GPU, systolic array, overlay).
    stack, cold
        See `simulate`.

    Returns
    -------
    DataFrame
        The same rows with ``latency_s low_s high_s bound``; an operator that the device cannot run has NaN
        and the reason as its bound.

    Raises
    ------
    RequestError
        A column is missing, or a value is not usable.
    """
    import pandas as pd

    for column in ("op", "precision"):
        if column not in frame.columns:
            raise RequestError(
                f"the table has no column '{column}'",
                hint=f"columns are: {', '.join(map(str, frame.columns))}",
            )
    device: Any = load_hardware(hardware)
    architecture = architecture_of(device.kind)
    options = Options(stack=stack, cold=cold)
    answers: dict[int, tuple[float, float, float, str]] = {}
    for name, rows in frame.groupby("precision", sort=False):
        positions = [int(p) for p in frame.index.get_indexer(rows.index)]
        ops = [_build(row, str(name), p) for p, row in zip(positions, records(rows))]
        try:
            program = architecture.lower(Graph("operators", ops), device, options)
        except InfeasibleError as error:
            answers |= {
                p: (float("nan"), float("nan"), float("nan"), error.outcome.reason) for p in positions
            }
            continue
        for kernel, cost in zip(program.kernels, architecture.cost(program)):
            band = architecture.interval(program, cost.latency_s)
            answers[int(kernel.name)] = (cost.latency_s, band.low, band.high, cost.bound)
    columns = ("latency_s", "low_s", "high_s", "bound")
    table = pd.DataFrame([answers[p] for p in range(len(frame))], columns=list(columns), index=frame.index)
    return pd.concat([frame.drop(columns=[c for c in columns if c in frame.columns]), table], axis=1)


def _build(row: dict[str, Any], fmt: str, position: int) -> Op:
    """One row as an op named by its position."""
    where = f"row {position}"
    kind = str(row["op"])
    if kind not in OPS:
        raise RequestError(f"unknown operator '{kind}'", where, did_you_mean(kind, OPS))
    build, required, optional = OPS[kind]
    given: dict[str, Any] = {}
    for column in (*required, *optional):
        value = row.get(column)
        if value is None or value != value:  # empty cells are NaN
            if column in required:
                raise RequestError(f"{kind} needs a value in column '{column}'", where)
            continue
        if isinstance(value, bool) or column == "causal":
            given[column] = bool(value)
            continue
        if value != int(value) or int(value) < (0 if column in ("padding", "window") else 1):
            raise RequestError(f"column '{column}' has {value!r}, expected a positive whole number", where)
        given[column] = int(value)
    builder = GraphBuilder("operators", precision(fmt))
    build(builder, given)
    (op,) = builder.ops
    return _renamed(op, position)


def _renamed(op: Op, position: int) -> Op:
    """Give the op and its tensors names that no other row has."""
    from dataclasses import replace

    def fresh(tensors: Any) -> tuple[Any, ...]:
        return tuple(replace(t, name=f"{position}:{t.name}") for t in tensors)

    return replace(op, name=str(position), inputs=fresh(op.inputs), outputs=fresh(op.outputs))
