"""Convolutions."""

from __future__ import annotations

from math import prod

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import LoopNest, Work, compulsory, register_op, require_operands

_FP16 = precision("fp16")


def output_size(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Output length of one convolution or pooling axis; `pad` is the sum of both sides."""
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1


def touched(size: int, kernel: int, stride: int, pad: int, dilation: int, out: int) -> int:
    """Input positions of one axis that some kernel position reads: a stride wider than the kernel skips
    others.
    """
    if kernel >= stride:
        return size
    read = {o * stride - pad + t * dilation for o in range(out) for t in range(kernel)}
    return sum(0 <= position < size for position in read)


def _example(transposed: bool = False, groups: int = 1, rank: int = 2) -> Op:
    size, kernel = (14,) * rank, (3,) * rank
    x = Tensor("x", (1, 32, *size), _FP16, batch_axis=0)
    w = Tensor(
        "w", (32, 64 // groups, *kernel) if transposed else (64, 32 // groups, *kernel), _FP16, role="weight"
    )
    out = (28,) * rank if transposed else size
    attributes = {
        "stride": (2 if transposed else 1,) * rank,
        "padding": (1,) * rank,
        "groups": groups,
        "transposed": transposed,
    }
    return Op("conv", "conv", (x, w), (Tensor("y", (1, 64, *out), _FP16, batch_axis=0),), attributes)


@register_op(
    "conv",
    examples=[
        lambda: _example(),
        lambda: _example(groups=32),
        lambda: _example(transposed=True),
        lambda: _example(rank=1),
        lambda: _example(rank=3),
    ],
)
def conv(op: Op) -> Work:
    """Convolution of rank 1, 2 or 3, grouped, dilated or transposed, in the logical layout N C spatial.

    ``inputs = (x, w[, bias])`` with x (n, c, ...), w (k, c/groups, r, s) and output (n, k, p, q). A
    transposed convolution has w (c, k/groups, r, s); it runs each input pixel against the kernel, so p q are
    the input's sizes and it
    counts n h w c (k/g) r s MACs, as ``torch.utils.flop_counter`` does. Attributes: stride, padding (per
    side, or
    one for both), dilation, groups, transposed.
    """
    x, w, y = op.inputs[0], op.inputs[1], op.outputs[0]
    groups = op.attribute("groups", 1)
    transposed = op.attribute("transposed", False)
    kernel = w.shape[2:]
    if len(x.shape) != len(w.shape) or len(y.shape) != len(x.shape):
        raise GraphError(f"ranks differ: input {x.shape}, weight {w.shape}, output {y.shape}", op.name)
    channels_in, channels_out = x.shape[1], y.shape[1]
    if channels_in % groups or channels_out % groups:
        raise GraphError(
            f"{channels_in} and {channels_out} channels do not divide by {groups} groups", op.name
        )
    expected = (channels_in, channels_out // groups) if transposed else (channels_out, channels_in // groups)
    if w.shape[:2] != expected:
        raise GraphError(f"weight {w.shape} does not fit input {x.shape} and output {y.shape}", op.name)
    spatial = x.shape[2:] if transposed else y.shape[2:]
    names = ("o", "p", "q")[-len(spatial) :]
    kernel_names = ("t", "r", "s")[-len(kernel) :]
    nest = LoopNest(
        {"g": groups},
        {"n": x.shape[0], **dict(zip(names, spatial))},
        {"k": channels_out // groups},
        {"c": channels_in // groups, **dict(zip(kernel_names, kernel))},
    )
    read, written = compulsory(op)
    if not transposed:
        rank = len(kernel)
        steps, dilation = (op.attribute(name, (1,) * rank) for name in ("stride", "dilation"))
        before = op.attribute("padding", (0,) * rank)
        starts = [p[0] if isinstance(p, tuple | list) else p for p in before]
        axes = zip(x.shape[2:], kernel, steps, starts, dilation, y.shape[2:])
        used = prod(touched(*axis) for axis in axes) / prod(x.shape[2:])
        read -= (1.0 - used) * x.size_bytes
    bias = y.elements if len(op.inputs) > 2 else 0
    return Work(read, written, (nest,), vector_ops=bias)


def _pool_example(mode: str, size: int, kernel: int, stride: int) -> Op:
    x = Tensor("x", (1, 16, size, size), _FP16, batch_axis=0)
    out = output_size(size, kernel, stride, 0, 1)
    attributes = {"mode": mode, "kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (0, 0)}
    return Op("pool", "pool", (x,), (Tensor("y", (1, 16, out, out), _FP16, batch_axis=0),), attributes)


@register_op(
    "pool",
    examples=[lambda: _pool_example("max", 14, 2, 2), lambda: _pool_example("avg", 7, 7, 7)],
)
def pool(op: Op) -> Work:
    """Max or average pooling; each output costs |kernel| - 1 compares, or |kernel| - 1 adds and one multiply.

    Padded positions count as if they were read, as in a convolution. Global pooling has the spatial size as
    its kernel. Attributes: mode, kernel, stride, padding.
    """
    require_operands(op, 1)
    x, y = op.inputs[0], op.outputs[0]
    kernel = tuple(op.attribute("kernel", ()))
    if len(x.shape) != len(y.shape) or len(kernel) != len(x.shape) - 2:
        raise GraphError(f"ranks differ: input {x.shape}, kernel {kernel}, output {y.shape}", op.name)
    if x.shape[:2] != y.shape[:2]:
        raise GraphError(f"pooling keeps batch and channels, got {x.shape} to {y.shape}", op.name)
    mode = op.attribute("mode", "max")
    if mode not in ("max", "avg"):
        raise GraphError(f"unknown pooling mode '{mode}'", op.name, "known modes: avg, max")
    per_output = prod(kernel) - (1 if mode == "max" else 0)
    read, written = compulsory(op)
    return Work(read, written, vector_ops=y.elements * per_output)
