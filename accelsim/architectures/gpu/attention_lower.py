"""Attention operators of a graph as rows of the attention kernel, forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelsim.architectures.gpu import attention_rows as A
from accelsim.architectures.gpu.attention import attention_model, is_few
from accelsim.hardware.kernels import AttentionModel
from accelsim.workload.graph import Op, Tensor

if TYPE_CHECKING:
    from accelsim.architectures.base import Kernel
    from accelsim.architectures.gpu.lower import Locality

FUSED = frozenset({"attention", "mla_attention", "attention_backward", "mla_attention_backward"})
"""Kinds that are one attention kernel."""


def _operands(op: Op) -> tuple[Tensor, Tensor, int, bool]:
    """Queries, keys, width of the values, and whether keys and values are latents that all heads share."""
    backward = op.kind.endswith("_backward")
    query, keys = op.inputs[1:3] if backward else op.inputs[:2]
    values = op.inputs[0] if backward else op.outputs[0]
    return query, keys, values.shape[3], op.kind.startswith("mla")


def attention_row(
    kernel: Kernel, traffic: float, at: Locality, rate: float, clock: float, appends: bool
) -> list[float]:
    """Geometry of a fused attention kernel; a graph with `kv_write` operators appends to its cache there.

    A backward kernel has three products of the score's width and two of the values' in place of one each, and
    more work per score (FlashAttention-2, arXiv:2307.08691): a forward kernel's work takes it as much longer.
    """
    anchor = kernel.anchor
    query, keys, out_width, latent = _operands(anchor)
    batch, heads, tokens, width = query.shape
    shared = 1 if latent else keys.shape[1]
    backward = anchor.kind.endswith("_backward")
    cached = any(t.role == "kv" for t in anchor.inputs[1:])
    written = sum(t.size_bytes for t in kernel.outputs)
    widths = width if latent else width + out_width
    fresh = float(batch * shared * tokens * widths) * query.precision.bytes_per_element
    asked = query.size_bytes
    if backward:
        clock *= (width + out_width) / (3.0 * width + 2.0 * out_width)
        asked += anchor.inputs[0].size_bytes + anchor.inputs[4 - latent].size_bytes
    row = [0.0] * A.WIDTH
    row[A.BATCH], row[A.KV_HEADS], row[A.GROUP] = batch, shared, heads / shared
    row[A.QUERIES], row[A.KEYS] = tokens, keys.shape[-2]
    row[A.SCORE_WIDTH], row[A.VALUE_WIDTH] = width, out_width
    row[A.CAUSAL] = float(bool(anchor.attribute("causal", False)))
    row[A.WINDOW] = float(anchor.attribute("window") or 0)
    row[A.KEY_BYTES], row[A.RATE], row[A.CLOCK] = widths * keys.precision.bytes_per_element, rate, clock
    row[A.Q_BYTES], row[A.FRESH_Q_BYTES] = asked, query.size_bytes
    row[A.FRESH_KV_BYTES] = 0.0 if appends or backward else fresh
    row[A.KV_BYTES] = max(0.0, traffic - asked - written)
    row[A.OUT_BYTES] = written
    row[A.Q_DISTANCE], row[A.KV_DISTANCE] = at.left, at.weights if cached else at.extra
    row[A.OUT_DISTANCE] = at.outputs
    return row


def attention_constants(kernel: Kernel, device: Any, stack: str) -> AttentionModel:
    """Constants of the kernel; a backward pass has those of a prompt."""
    query, keys, out_width, latent = _operands(kernel.anchor)
    decode = query.shape[2] == 1 and not kernel.anchor.kind.endswith("_backward")
    units = query.shape[0] * keys.shape[1]
    form = "latent" if latent else "expanded" if query.shape[3] != out_width else ""
    return attention_model(
        device,
        stack,
        decode=decode,
        format_bits=(float(query.precision.bits), float(keys.precision.bits)),
        group=query.shape[1] / (1 if latent else keys.shape[1]),
        width=query.shape[3],
        window=kernel.anchor.attribute("window") is not None,
        form=form,
        few=decode and not latent and bool(is_few(units, keys.shape[-2], device.sm.count)),
    )
