"""Arithmetic and compulsory traffic of single operators, by the thousand.

Traffic counts each external operand once and nothing that stays on chip, as `docs/definitions.md` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.opschema import shapes
from accelsim.core.precision import Precision, PrecisionPlan, plan

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def work(frame: pd.DataFrame) -> tuple[Array, Array, Array]:
    """FLOPs, compulsory DRAM traffic and link traffic of each row.

    Parameters
    ----------
    frame : DataFrame
        Rows that `accelsim.architectures.opschema.check` accepts.

    Returns
    -------
    flops : ndarray
        MAC arithmetic, 1 MAC = 2 [FLOP]; 0 for row-wise operators.
    dram_bytes : ndarray
        [B]
    link_bytes : ndarray
        What one device sends [B].
    """
    flops, dram, link = (np.zeros(len(frame)) for _ in range(3))
    for op, text, rows in groups(frame):
        s = shapes(frame.iloc[rows], op)
        flops[rows], dram[rows], link[rows] = op_work(op, s, plan(text))
    return flops, dram, link


def groups(frame: pd.DataFrame) -> list[tuple[str, str, npt.NDArray[np.intp]]]:
    """Positions of the rows of each op and precision, in order of appearance."""
    import pandas as pd

    ops, op_names = pd.factorize(frame["op"])
    texts, text_names = pd.factorize(frame["precision"])
    both = ops * len(text_names) + texts
    found = []
    for code in pd.unique(both).tolist():
        op, text = divmod(code, len(text_names))
        found.append((str(op_names[op]), str(text_names[text]), np.flatnonzero(both == code)))
    return found


def output_bytes(activation: Precision) -> float:
    """Bytes of one element of a product's result [B]: formats of 8 bits and fewer are written as 16 bits."""
    return max(activation.bytes_per_element, 2.0)


def visible_pairs(s: Mapping[str, Array]) -> Array:
    """Pairs of query and key that a mask lets through, per head and sequence.

    Query i of ``seq_q`` sees the ``seq_kv - seq_q + i + 1`` keys up to itself under a causal mask (all keys
    without one), the last ``window`` of these when there is a window.
    """
    q, kv = s["seq_q"], s["seq_kv"]
    window = s.get("window", np.zeros_like(q))
    limit = np.where(window > 0, np.minimum(window, kv), kv)
    first = kv - q + 1.0  # keys that the first query sees
    rising = np.clip(
        limit - first + 1.0, 0.0, q
    )  # queries that see fewer keys than the limit, or just as many
    causal = rising * first + rising * (rising - 1.0) / 2.0 + (q - rising) * limit
    return np.where(s["causal"] == 1.0, causal, q * limit)


def expected_experts(tokens: Array, experts: Array, topk: Array) -> Array:
    """Expected distinct experts that balanced routing visits, E (1 - (1 - topk / E)^tokens)."""
    return experts * (1.0 - (1.0 - topk / experts) ** tokens)


def op_work(op: str, s: Mapping[str, Array], f: PrecisionPlan) -> tuple[Any, Any, Any]:
    """FLOPs, compulsory DRAM traffic and link traffic of rows of one op, see `work`."""
    weight, activation, kv = (p.bytes_per_element for p in (f.weight, f.activation, f.kv))
    out = output_bytes(f.activation)
    if op in ("gemm", "bmm"):
        b, right = s.get("batch", 1.0), weight if op == "gemm" else activation
        m, n, k = s["m"], s["n"], s["k"]
        return 2.0 * b * m * n * k, b * (m * k * activation + k * n * right + m * n * out), 0.0
    if op == "conv2d":
        return _conv2d(s, weight, activation, out)
    if op.startswith("attention"):
        return _attention(s, activation, kv, out)
    if op.startswith("mla"):
        return _latent_attention(op, s, activation, kv, out)
    if op == "moe":
        return _moe(s, weight, activation, out)
    if op in _GATES:
        weights = _GATES[op] * s["hidden"] * (s["hidden"] + s["input"])
        vectors = s["batch"] * s["steps"]
        traffic = weights * weight + vectors * (s["input"] * activation + s["hidden"] * out)
        return 2.0 * weights * vectors, traffic, 0.0
    if "ranks" in s:
        return _collective(op, s)
    cells = s["rows"] * s["cols"]
    return 0.0, cells * activation * (1.0 + s.get("inputs", 1.0)), 0.0


def _conv2d(
    s: Mapping[str, Array], weight: float, activation: float, out: float
) -> tuple[Array, Array, float]:
    out_h = (s["h"] + 2 * s["padding"] - s["kernel_h"]) // s["stride"] + 1
    out_w = (s["w"] + 2 * s["padding"] - s["kernel_w"]) // s["stride"] + 1
    filters = s["c_out"] * s["c_in"] / s["groups"] * s["kernel_h"] * s["kernel_w"]
    pixels = s["batch"] * out_h * out_w
    rows = touched(s["h"], s["kernel_h"], s["stride"], s["padding"], out_h)
    columns = touched(s["w"], s["kernel_w"], s["stride"], s["padding"], out_w)
    image = s["batch"] * s["c_in"] * rows * columns
    return 2.0 * pixels * filters, image * activation + filters * weight + pixels * s["c_out"] * out, 0.0


def touched(size: Array, kernel: Array, stride: Array, padding: Array, out: Array) -> Array:
    """Input positions of one axis that some filter position reads: a stride wider than the filter skips
    others.
    """
    skips = kernel < stride
    read = np.zeros_like(size)
    for tap in range(int(np.max(kernel[skips], initial=0.0))):
        first = np.maximum(np.ceil((padding - tap) / stride), 0.0)
        last = np.minimum(np.floor((size - 1.0 + padding - tap) / stride), out - 1.0)
        read += np.where(tap < kernel, np.maximum(last - first + 1.0, 0.0), 0.0)
    return np.where(skips, read, size)


def _attention(
    s: Mapping[str, Array], activation: float, kv: float, out: float
) -> tuple[Array, Array, float]:
    pairs = visible_pairs(s)
    reach = np.where(s["window"] > 0, s["window"] + s["seq_q"] - 1.0, s["seq_kv"])
    keys = np.where(s["causal"] == 1.0, np.minimum(reach, s["seq_kv"]), s["seq_kv"])
    width = s["batch"] * s["head_dim"]
    queries = width * s["heads"] * s["seq_q"]
    traffic = queries * (activation + out) + 2.0 * width * s["kv_heads"] * keys * kv
    return 4.0 * width * s["heads"] * pairs, traffic, 0.0


def _latent_attention(
    op: str, s: Mapping[str, Array], activation: float, kv: float, out: float
) -> tuple[Array, Array, float]:
    """Expanded keys and values are those of one head; the absorbed form attends to the cached latents, which
    are keys and values of all heads at once (DeepSeek-V2, arXiv:2405.04434).
    """
    score, value = s["latent"] + s["rope"], s["latent"]
    cache = s["batch"] * s["seq_kv"] * score * kv
    if op == "mla_prefill":
        expanded = s["absorbed"] == 0.0
        score = np.where(expanded, s["head_dim"], score)
        value = np.where(expanded, s["value_dim"], value)
        own = s["batch"] * s["seq_kv"] * s["heads"] * (score + value) * activation
        cache = np.where(expanded, own, cache)
    rows = s["batch"] * s["heads"]
    traffic = rows * s["seq_q"] * (score * activation + value * out) + cache
    return 2.0 * rows * visible_pairs(s) * (score + value), traffic, 0.0


def _moe(s: Mapping[str, Array], weight: float, activation: float, out: float) -> tuple[Array, Array, float]:
    rows = s["tokens"] * s["topk"] / s["expert_ranks"]
    visits = np.minimum(s["tokens"], rows)
    mine = s["experts"] / s["expert_ranks"]
    rows = np.where(s["local"] > 0.0, visits * s["topk"], rows)
    matrices = np.where(s["gated"] == 1.0, 3.0, 2.0) * s["hidden"] * s["intermediate"] / s["tensor_ranks"]
    read = expected_experts(s["tokens"], s["experts"], s["topk"]) / s["expert_ranks"]
    own = expected_experts(visits, mine, np.minimum(s["topk"], mine))
    read = np.where(s["local"] > 0.0, own, read)
    return 2.0 * rows * matrices, read * matrices * weight + visits * s["hidden"] * (activation + out), 0.0


def _collective(op: str, s: Mapping[str, Array]) -> tuple[float, Array, Array]:
    """Ring algorithms move the least: 2 (p - 1) / p of the buffer for an all-reduce, half of that for its two
    halves (Patarasu and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002).
    """
    share = (s["ranks"] - 1.0) / s["ranks"]
    whole = np.ones_like(share)
    sent = {"allreduce": 2.0 * share, "sendrecv": whole}.get(op, share)
    # What one device reads and writes: the whole buffer, or the part that it contributes or keeps.
    moved = {"allgather": 2.0 - share, "reducescatter": 2.0 - share, "sendrecv": whole}.get(op, 2.0 * whole)
    return 0.0, moved * s["bytes"], sent * s["bytes"]
