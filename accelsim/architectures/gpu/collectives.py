"""Collectives over the link between devices: protocols that trade latency for bandwidth.

Each protocol is linear in the buffer, as in Thakur et al., doi:10.1177/1094342005051521; a library takes the
one that is fastest for a size, so the time is the least of a few straight lines. Constants are data of the
device, `CollectiveModel`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.outcome import InfeasibleError
from accelsim.hardware.link_kernels import CollectiveModel, Protocol
from accelsim.workload.graph import Op

Array = npt.NDArray[np.float64]

TABLE_NAMES = {
    "all_reduce": "allreduce",
    "all_gather": "allgather",
    "reduce_scatter": "reducescatter",
    "all_to_all": "alltoall",
    "send": "sendrecv",
}
"""Kind of an op in a graph to its name in the operator table."""

SWITCH_RANKS = 8
"""Fewest devices for which libraries reduce inside the switch."""

UNKNOWN = "other"
"""Constants of links of a kind that was not measured."""


def ring_steps(op: str, ranks: Array) -> Array:
    """Sequential steps over p devices: 2 (p - 1) for an all-reduce, which is a reduce-scatter and an
    all-gather (Patarasuk and Yuan, doi:10.1016/j.jpdc.2008.09.002), p - 1 for the others, 1 for a send.
    """
    if op == "sendrecv":
        return np.ones_like(ranks)
    return (2.0 if op == "allreduce" else 1.0) * (ranks - 1.0)


@lru_cache(maxsize=128)
def collective_models(device: Any) -> tuple[tuple[float, CollectiveModel], ...]:
    """Constants for the device's link with the number of devices that each holds for, ascending: those of its
    kind of link, else of the nearest generation of the same kind, else those of `UNKNOWN`.
    """
    known = device.kernels.collective
    kind, generation = _kind(device.link.type)
    same = [name for name in known if _kind(name)[0] == kind]
    same = same or [UNKNOWN]
    name = min(same, key=lambda n: (abs(_kind(n)[1] - generation), -_kind(n)[1]))
    found = sorted((float(reach.rpartition("_")[2]), model) for reach, model in known[name].items())
    return tuple(found)


def _kind(link: str) -> tuple[str, float]:
    """Letters and generation: "PCIe 4.0 x16" is ("pcie", 4), "NVLink4" is ("nvlink", 4)."""
    match = re.match(r"([A-Za-z ]+?)\s*(\d+(?:\.\d+)?)?(?:\s|$)", link)
    if match is None:
        return link.lower(), 0.0
    return match.group(1).lower(), float(match.group(2) or 0.0)


def collective_rows(
    op: str, buffer_bytes: Array, ranks: Array, device: Any, stack: str = "graph", *, floats: bool = True
) -> Array:
    """Latency of many collectives.

    Parameters
    ----------
    op : str
        ``allreduce allgather reducescatter alltoall sendrecv``.
    buffer_bytes : ndarray
        What is reduced, gathered into, scattered or exchanged [B].
    ranks : ndarray
        Devices that take part; with one there is nothing to do.
    device : GpuDevice
    stack : str
        Frameworks have all-reduce kernels of their own; every other stack calls the vendor's library.
    floats : bool
        Whether the elements are floats, which switches can add.

    Returns
    -------
    ndarray
        [s]

    Raises
    ------
    InfeasibleError
        The device has no link.
    """
    if device.link is None:
        raise InfeasibleError(
            "link",
            f"a link between devices for {op}",
            f"{device.name} describes none",
            "add a link section or use one device",
        )
    size, count = np.broadcast_arrays(np.asarray(buffer_bytes, float), np.asarray(ranks, float))
    out = np.zeros(size.shape)
    models = collective_models(device)
    below = 1.0
    for reach, model in models:
        last = reach == models[-1][0]
        rows = (count > below) & ((count <= reach) | last)
        below = reach
        if rows.any():
            out[rows] = _fastest(op, size[rows], count[rows], device, stack, model, floats)
    return out


def _fastest(
    op: str, size: Array, ranks: Array, device: Any, stack: str, model: CollectiveModel, floats: bool
) -> Array:
    rate = float(device.link.bandwidth_bytes_per_s)
    steps = ring_steps(op, ranks)
    part = size if op == "sendrecv" else size / ranks
    best = np.full(size.shape, np.inf)
    own = model.allreduce.get(stack, {}) if op == "allreduce" else {}
    choices = own or (model.exchange if op in ("alltoall", "sendrecv") else model.ring)
    for name, protocol in choices.items():
        if name == "one_shot":  # every device reads the buffers of all others
            line = _line(protocol, ranks - 1.0, size, rate)
        else:
            line = _line(protocol, steps, part, rate)
        best = np.minimum(best, line)
    if model.switch is not None and op == "allreduce" and floats:
        line = _line(model.switch, steps, part, rate)
        best = np.where(ranks >= SWITCH_RANKS, np.minimum(best, line), best)
    return best


def _line(protocol: Protocol, steps: Array, part_bytes: Array, rate: float) -> Array:
    moved = part_bytes * (steps + protocol.copies)
    found: Array = protocol.fixed_s + protocol.step_s * steps + moved / (protocol.efficiency * rate)
    return found


def collective_s(op: Op, device: Any, stack: str) -> tuple[float, float]:
    """Link time and the rest of a collective of a graph [s]: what its bytes take at the bandwidth of one
    direction, and what `collective_rows` has beyond that.

    Raises
    ------
    InfeasibleError
        The device has no link.
    """
    ranks = np.array([float(op.attribute("devices", 1))])
    buffer = op.outputs[0] if op.kind == "all_gather" else op.inputs[0]
    size = np.array([buffer.size_bytes])
    floats = not buffer.precision.is_integer
    total = float(collective_rows(TABLE_NAMES[op.kind], size, ranks, device, stack, floats=floats)[0])
    transfer = op.work.link_bytes / device.link.bandwidth_bytes_per_s
    return transfer, max(0.0, total - transfer)
