"""The columns of an answer: one definition for a single point and for many at once.

Every figure may be a number or an array with one element per point.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelsim.hardware.energy import PARTS

REQUEST = ("workload", "hardware", "batch", "precision", "phase", "stack", "devices", "pruning", "context")
INFEASIBLE = ("reason", "need", "have", "hint")
COLUMNS = (
    *REQUEST,
    "status",
    *INFEASIBLE,
    "latency_s",
    "latency_low_s",
    "latency_high_s",
    "throughput_per_s",
    "item",
    "energy_j",
    "energy_per_item_j",
    "power_w",
    *(f"energy_{name}_j" for name in PARTS),
    "power_static_w",
    "power_dynamic_w",
    "bound",
    "flops",
    "mac_utilisation",
    "dram_bytes",
    "memory_bytes",
    "memory_capacity_bytes",
    "usd_per_million_items",
    "accuracy_pct",
    "accuracy_drop_pct",
    "accuracy_metric",
    "accuracy_source",
    "accuracy_confidence",
    "assumed_numbers",
    "hardware_numbers",
    "fidelity",
)
"""Every column of a table of answers, in order; those of an architecture alone follow."""


@dataclass(frozen=True)
class Figures:
    """What the models found; numbers, or arrays of one element per point.

    Attributes
    ----------
    batch : int or array
    latency_s, low_s, high_s, interval_s : float or array
        Latency of a batch and its band; time from one batch to the next [s].
    energy_j : mapping
        Energy of a batch by part [J], ``static`` among them.
    bound : str or array
    flops : float or array
        Of the batch [FLOP].
    dram_bytes, memory_bytes : float or array
    """

    batch: Any
    latency_s: Any
    low_s: Any
    high_s: Any
    interval_s: Any
    energy_j: Mapping[str, Any]
    bound: Any
    flops: Any
    dram_bytes: Any
    memory_bytes: Any


def static_j(device: Any, interval_s: Any, devices: int) -> Any:
    """Idle power from one batch to the next, on all devices [J]; NaN where it is unknown."""
    idle = device.power.idle_w
    return interval_s * math.nan if idle is None else idle * interval_s * devices


def summary(
    fields: Mapping[str, Any],
    device: Any,
    activation: str,
    devices: int,
    item: str,
    accuracy: Mapping[str, Any],
    fidelity: str,
    found: Figures,
) -> dict[str, Any]:
    """Columns of feasible points, in their order.

    Parameters
    ----------
    fields : mapping
        What was asked for.
    activation : str
        Format whose peak the utilisation is of.
    devices : int
    item : str
        What one item of the batch is.
    accuracy : mapping
        Columns of what is known of the accuracy.
    fidelity : str
    found : Figures
    """
    energy_j = sum(found.energy_j.values())
    static = found.energy_j["static"]
    throughput = found.batch / found.interval_s
    peak = device.peak_flop_per_s(activation) * devices
    hourly = device.cost.hourly_usd
    return {
        **fields,
        "status": "ok",
        "latency_s": found.latency_s,
        "latency_low_s": found.low_s,
        "latency_high_s": found.high_s,
        "throughput_per_s": throughput,
        "item": item,
        "energy_j": energy_j,
        "energy_per_item_j": energy_j / found.batch,
        "power_w": energy_j / found.interval_s,
        **{f"energy_{name}_j": found.energy_j.get(name, math.nan) for name in PARTS},
        "power_static_w": static / found.interval_s,
        "power_dynamic_w": (energy_j - static) / found.interval_s,
        "bound": found.bound,
        "flops": found.flops,
        "mac_utilisation": found.flops / found.interval_s / peak if peak else math.nan,
        "dram_bytes": found.dram_bytes,
        "memory_bytes": found.memory_bytes,
        "memory_capacity_bytes": device.memory.capacity_bytes,
        "usd_per_million_items": math.nan if hourly is None else hourly * devices / 3600 / throughput * 1e6,
        **accuracy,
        "assumed_numbers": len(device.assumed),
        "hardware_numbers": len(device.numbers),
        "fidelity": fidelity,
    }
