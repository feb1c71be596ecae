"""Communication between devices.

Bytes on the link are what one device sends in a bandwidth-optimal algorithm (ring, or pairwise exchange),
which equals what it receives. P. Patarasuk and X. Yuan, J. Parallel Distrib. Comput. 69 (2009),
doi:10.1016/j.jpdc.2008.09.002.
"""

from __future__ import annotations

from accelsim.core.errors import GraphError
from accelsim.core.precision import precision
from accelsim.workload.graph import Op, Tensor
from accelsim.workload.ops import FREE, Work, compulsory, register_op, require_operands

_FP16 = precision("fp16")


def _example(kind: str, rows_in: int, rows_out: int, devices: int = 4) -> Op:
    x, y = (Tensor(n, (1, rows, 64), _FP16, batch_axis=0) for n, rows in (("x", rows_in), ("y", rows_out)))
    return Op(kind, kind, (x,), (y,), {"devices": devices})


def _devices(op: Op) -> int:
    require_operands(op, 1)
    devices = op.attribute("devices")
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise GraphError(f"devices is {devices!r}, expected a positive number", op.name)
    return devices


def _sizes(op: Op, factor_in: int, factor_out: int) -> None:
    x, y = op.inputs[0], op.outputs[0]
    if x.elements * factor_in != y.elements * factor_out:
        raise GraphError(
            f"{op.kind} over {op.attribute('devices')} devices does not map {x.shape} to {y.shape}", op.name
        )


def _work(op: Op, link_bytes: float, additions: float = 0.0) -> Work:
    read, written = compulsory(op)
    return Work(read, written, vector_ops=additions, link_bytes=link_bytes)


@register_op("all_reduce", examples=[lambda: _example("all_reduce", 16, 16)])
def all_reduce(op: Op) -> Work:
    """Sum over p devices, result everywhere: a device sends 2 (p - 1) / p of the tensor, adds (p - 1) / p."""
    p = _devices(op)
    _sizes(op, 1, 1)
    if p == 1:
        return FREE
    part = (p - 1) / p
    return _work(op, 2 * part * op.inputs[0].size_bytes, part * op.inputs[0].elements)


@register_op("all_gather", examples=[lambda: _example("all_gather", 4, 16)])
def all_gather(op: Op) -> Work:
    """Join the shards of p devices, result everywhere: a device sends (p - 1) / p of the output."""
    p = _devices(op)
    _sizes(op, p, 1)
    return FREE if p == 1 else _work(op, (p - 1) / p * op.outputs[0].size_bytes)


@register_op("reduce_scatter", examples=[lambda: _example("reduce_scatter", 16, 4)])
def reduce_scatter(op: Op) -> Work:
    """Sum over p devices, each keeps a shard: a device sends and adds (p - 1) / p of the input."""
    p = _devices(op)
    _sizes(op, 1, p)
    if p == 1:
        return FREE
    part = (p - 1) / p
    return _work(op, part * op.inputs[0].size_bytes, part * op.inputs[0].elements)


@register_op("all_to_all", examples=[lambda: _example("all_to_all", 16, 16)])
def all_to_all(op: Op) -> Work:
    """Each device sends another shard to each other one: (p - 1) / p of the input."""
    p = _devices(op)
    _sizes(op, 1, 1)
    return FREE if p == 1 else _work(op, (p - 1) / p * op.inputs[0].size_bytes)


@register_op("send", examples=[lambda: _example("send", 16, 16, devices=2)])
def send(op: Op) -> Work:
    """Pass a tensor to the next device (a pipeline stage): all of it crosses the link."""
    p = _devices(op)
    _sizes(op, 1, 1)
    return FREE if p == 1 else _work(op, op.inputs[0].size_bytes)
