"""Collectives over the link between devices: rings, with a latency per step."""

from __future__ import annotations

from typing import Any

from accelsim.core.outcome import InfeasibleError
from accelsim.workload.graph import Op

# Steps of a ring over p devices (Patarasuk and Yuan, doi:10.1016/j.jpdc.2008.09.002): an all-reduce is a
# reduce-scatter and an all-gather.
_STEPS = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}


def ring_steps(kind: str, devices: int) -> int:
    """Sequential steps of a collective; a send is one."""
    return _STEPS[kind] * (devices - 1) if kind in _STEPS else 1


def collective_s(op: Op, device: Any) -> tuple[float, float]:
    """Link time and latency of a collective [s]: bytes sent by a device over the bandwidth of one direction,
    and steps times latency.

    Raises
    ------
    InfeasibleError
        The device has no link.
    """
    link = device.link
    if link is None:
        raise InfeasibleError(
            "link",
            f"a link between devices for '{op.name}'",
            f"{device.name} describes none",
            "add a link section or use one device",
        )
    steps = ring_steps(op.kind, int(op.attribute("devices", 1)))
    return op.work.link_bytes / link.bandwidth_bytes_per_s, steps * link.latency_s
