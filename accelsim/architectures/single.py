"""Single operators as ops of a graph: how a row of the operator table runs on any sequential architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import BOUNDS, STALLS
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import Precision, PrecisionPlan
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Op, Tensor

if TYPE_CHECKING:
    from accelsim.architectures.base import KernelCost, Options, Program


class Lowering(Protocol):
    """The part of an architecture that runs kernels in turn."""

    def lower(self, graph: Graph, device: Any, options: Options) -> Program: ...

    def cost(self, program: Program) -> tuple[KernelCost, ...]: ...


Array = npt.NDArray[np.float64]
Row = Mapping[str, int]


@dataclass(frozen=True)
class OpTable:
    """Predictions of many rows of one operator.

    Attributes
    ----------
    latency_s, dram_bytes, energy_j : ndarray
        Of each row; energy is dynamic, NaN where the device lacks a coefficient.
    bound : ndarray of str
        What limits it.
    stalls_s : ndarray, shape (rows, len(STALLS)), or None
        What its latency is spent on, in the order of `base.STALLS` [s]; None where a model has no such
        breakdown.
    """

    latency_s: Array
    dram_bytes: Array
    energy_j: Array
    bound: Any
    stalls_s: Array | None = None


def predict_by_graph(
    architecture: Lowering,
    op: str,
    shapes: Mapping[str, Array],
    formats: PrecisionPlan,
    device: Any,
    options: Options,
) -> OpTable:
    """Predict rows by lowering each distinct shape as ops of one graph; rows of several kernels are summed.

    Raises
    ------
    InfeasibleError
        The device cannot run the operator.
    """
    table = np.stack(list(shapes.values()), axis=1)
    distinct, position = np.unique(table, axis=0, return_inverse=True)
    ops: list[Op] = []
    for index, values in enumerate(distinct.tolist()):
        ops += ops_of(op, dict(zip(shapes, map(int, values))), formats, str(index))
    program = architecture.lower(Graph("operators", ops), device, options)
    count = len(distinct)
    latency, dram, energy = np.zeros(count), np.zeros(count), np.zeros(count)
    longest, bound = np.zeros(count), np.full(count, "nothing", dtype=object)
    stalls = np.zeros((count, len(STALLS)))
    costs = architecture.cost(program)
    for kernel, cost in zip(program.kernels, costs):
        i = int(kernel.name.split(":")[0])
        latency[i] += cost.latency_s
        dram[i] += cost.bytes_by_level["dram"]
        energy[i] += sum(cost.energy_j.values())
        if cost.latency_s > longest[i]:
            longest[i], bound[i] = cost.latency_s, cost.bound
        stalls[i] += [cost.stalls_s.get(name, 0.0) for name in STALLS]
    at = position.reshape(-1)
    known = all(cost.stalls_s for cost in costs)
    if known:
        bound = np.array(BOUNDS, dtype=object)[np.argmax(stalls, axis=1)]
    return OpTable(latency[at], dram[at], energy[at], bound[at], stalls[at] if known else None)


def ops_of(op: str, row: Row, formats: PrecisionPlan, name: str) -> list[Op]:
    """The ops of one row of the operator table, their names and tensors prefixed by ``name:``."""
    if op not in _BUILD:
        raise InfeasibleError("operator", f"a model of {op}", "none", "leave these rows out")
    b = _Builder(name, formats)
    _BUILD[op](b, row)
    return b.ops


class _Builder(GraphBuilder):
    """A builder whose ops and tensors carry a prefix, so that many rows share a graph."""

    def __init__(self, name: str, formats: PrecisionPlan) -> None:
        super().__init__(name, formats.activation)
        self.formats = formats

    @property
    def result(self) -> str:
        """Format that a product writes: libraries write 16 bits for inputs of 8 bits and fewer."""
        return self.precision.name if self.precision.bits >= 16 else "bf16"

    def unique(self, stem: str) -> str:
        return f"{self.name}:{super().unique(stem)}"

    def array(self, stem: str, *shape: int, fmt: Precision | None = None, role: Any = "activation") -> Tensor:
        return Tensor(self.unique(stem), shape, fmt or self.precision, role)

    def weight(self, name: str, *shape: int) -> Tensor:
        return self.array(name, *shape, fmt=self.formats.weight, role="weight")


def _gemm(b: _Builder, r: Row) -> None:
    a, w = b.array("a", r["m"], r["k"]), b.weight("b", r["k"], r["n"])
    b.op("matmul", [a, w], (r["m"], r["n"]), dtype=b.result)


def _bmm(b: _Builder, r: Row) -> None:
    a, w = b.array("a", r["batch"], r["m"], r["k"]), b.array("b", r["batch"], r["k"], r["n"])
    b.op("matmul", [a, w], (r["batch"], r["m"], r["n"]), dtype=b.result)


def _conv2d(b: _Builder, r: Row) -> None:
    x = b.array("x", r["batch"], r["c_in"], r["h"], r["w"])
    kernel = (r["kernel_h"], r["kernel_w"])
    b.conv(x, r["c_out"], kernel, stride=r["stride"], padding=r["padding"], groups=r["groups"])


def _attention(b: _Builder, r: Row) -> None:
    cached = r["seq_q"] < r["seq_kv"]
    fmt, role = (b.formats.kv, "kv") if cached else (b.precision, "activation")
    q = b.array("q", r["batch"], r["heads"], r["seq_q"], r["head_dim"])
    k, v = (
        b.array(part, r["batch"], r["kv_heads"], r["seq_kv"], r["head_dim"], fmt=fmt, role=role)
        for part in "kv"
    )
    b.attention(q, k, v, causal=bool(r["causal"]), window=r["window"] or None)


def _mla_prefill(b: _Builder, r: Row) -> None:
    if r["absorbed"]:
        _mla_decode(b, r)
        return
    q = b.array("q", r["batch"], r["heads"], r["seq_q"], r["head_dim"])
    k = b.array("k", r["batch"], r["heads"], r["seq_kv"], r["head_dim"])
    v = b.array("v", r["batch"], r["heads"], r["seq_kv"], r["value_dim"])
    b.attention(q, k, v, causal=bool(r["causal"]))


def _mla_decode(b: _Builder, r: Row) -> None:
    width = r["latent"] + r["rope"]
    q = b.array("q", r["batch"], r["heads"], r["seq_q"], width)
    cache = b.array("cache", r["batch"], r["seq_kv"], width, fmt=b.formats.kv, role="kv")
    shape = (*q.shape[:3], r["latent"])
    causal = bool(r["causal"])
    b.op("mla_attention", [q, cache], shape, latent=r["latent"], rope=r["rope"], causal=causal)


def _moe(b: _Builder, r: Row) -> None:
    experts, width = r["experts"], r["intermediate"] // r["tensor_ranks"]
    rows = r["tokens"] * r["topk"]
    x = b.array("x", r["tokens"], r["hidden"])
    chosen = b.array("chosen", r["tokens"], r["topk"])
    gates = b.array("gates", r["tokens"], r["topk"])
    share: dict[str, Any] = {"experts": experts, "top_k": r["topk"]}
    y = b.op("moe_dispatch", [x, chosen], (rows, r["hidden"]), **share)
    wide = 2 * width if r["gated"] else width
    y = b.op("grouped_matmul", [y, b.weight("up", experts, r["hidden"], wide)], (rows, wide), **share)
    y = b.op("activation", [y], (rows, width), function="silu") if not r["gated"] else _gated(b, y, width)
    down = b.weight("down", experts, width, r["hidden"])
    y = b.op("grouped_matmul", [y, down], (rows, r["hidden"]), **share)
    b.op("moe_combine", [y, gates], (r["tokens"], r["hidden"]), **share)


def _gated(b: _Builder, y: Tensor, width: int) -> Tensor:
    gate, up = b.op("reshape", [y], (y.shape[0], width), (y.shape[0], width))
    return b.elementwise("mul", b.activation(gate, "silu"), up)


def _rowwise(kind: str) -> Any:
    def build(b: _Builder, r: Row) -> None:
        x = b.array("x", r["rows"], r["cols"])
        for _ in range(r["inputs"] - 1):
            x = b.add(x, b.array("more", r["rows"], r["cols"]))
        if kind == "softmax":
            b.softmax(x)
        elif kind == "layernorm":
            b.layer_norm(x)
        elif kind == "rmsnorm":
            b.rms_norm(x)
        elif r["inputs"] == 1:
            b.activation(x, "relu")

    return build


def _embedding(b: _Builder, r: Row) -> None:
    b.embedding(b.array("ids", r["rows"]), r["rows"], r["cols"])


def _recurrent(kind: str) -> Any:
    def build(b: _Builder, r: Row) -> None:
        gates, hidden, width = (4 if kind == "lstm" else 3), r["hidden"], r["input"] or r["hidden"]
        x = b.array("x", r["steps"], r["batch"], width)
        held = [b.weight("w_ih", gates * hidden, width), b.weight("w_hh", gates * hidden, hidden)]
        b.op(kind, [x, *held], (r["steps"], r["batch"], hidden), hidden=hidden, directions=1)

    return build


def _collective(kind: str) -> Any:
    def build(b: _Builder, r: Row) -> None:
        size = max(1, int(r["bytes"] / b.precision.bytes_per_element))
        part = -(-size // r["ranks"])
        before = part if kind == "all_gather" else size
        after = {"reduce_scatter": part, "all_gather": part * r["ranks"]}.get(kind, size)
        b.op(kind, [b.array("x", before)], (after,), devices=r["ranks"])

    return build


_BUILD: dict[str, Any] = {
    "gemm": _gemm,
    "bmm": _bmm,
    "conv2d": _conv2d,
    "attention_prefill": _attention,
    "attention_decode": _attention,
    "mla_prefill": _mla_prefill,
    "mla_decode": _mla_decode,
    "moe": _moe,
    "softmax": _rowwise("softmax"),
    "layernorm": _rowwise("layernorm"),
    "rmsnorm": _rowwise("rmsnorm"),
    "elementwise": _rowwise("elementwise"),
    "embedding": _embedding,
    "lstm": _recurrent("lstm"),
    "gru": _recurrent("gru"),
    "allreduce": _collective("all_reduce"),
    "allgather": _collective("all_gather"),
    "reducescatter": _collective("reduce_scatter"),
    "alltoall": _collective("all_to_all"),
    "sendrecv": _collective("send"),
}
