"""Energy per action: the parts that a device's energy is the sum of, the coefficient of each, and what
public tables give by silicon node where a device's file gives none.

A coefficient that neither gives is NaN with a reason, and so is every sum that it enters. Values between two
nodes of a table lie on the power law through both; outside they are unknown. Sources: M. Horowitz,
"Computing's energy problem", ISSCC 2014, doi:10.1109/ISSCC.2014.6757323 (45 nm, 0.9 V); N. Jouppi et al.,
"Ten lessons from three generations shaped Google's TPUv4i", ISCA 2021, doi:10.1109/ISCA52012.2021.00010,
table 2 (7 nm); M. O'Connor et al., "Fine-grained DRAM", MICRO 2017, doi:10.1145/3123939.3124545 (DRAM);
Y.-H. Chen et al., "Eyeriss", ISCA 2016, doi:10.1109/ISCA.2016.40 (register files and network over a
multiply-accumulate). All of them are recalled or read second-hand: use them as assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import exp, isnan, log, nan
from typing import Any

import numpy as np

from accelsim.hardware.schema import Device, GpuDevice, SystolicDevice

_PJ = 1e-12

PARTS: Mapping[str, str] = {
    "mac": "multiply-accumulates",
    "vector": "elementwise operations",
    "register": "register files beside the multipliers",
    "network": "network between on-chip memory and multipliers",
    "sram": "on-chip memory",
    "dram": "external memory and its interface",
    "link": "links between devices",
    "active": "what a GPU draws above idle while kernels run, whatever they do",
    "static": "idle power from one batch to the next",
}
"""The parts of a device's energy and what each of them pays for."""

# (action, node [nm]) -> [pJ]
_ADD = {
    ("int8", 45): 0.03, ("int16", 45): 0.05, ("int32", 45): 0.1, ("fp16", 45): 0.4, ("fp32", 45): 0.9,
    ("int8", 7): 0.007, ("int32", 7): 0.03, ("bf16", 7): 0.11, ("fp16", 7): 0.16, ("fp32", 7): 0.38,
}  # fmt: skip
_MULTIPLY = {
    ("int8", 45): 0.2, ("int32", 45): 3.1, ("fp16", 45): 1.1, ("fp32", 45): 3.7,
    ("int8", 7): 0.07, ("int32", 7): 1.48, ("bf16", 7): 0.21, ("fp16", 7): 0.34, ("fp32", 7): 1.31,
}  # fmt: skip
# int16 products lie between those two formats on the power law in bits: no table gives them.
for _node in (7, 45):
    _MULTIPLY["int16", _node] = (_MULTIPLY["int8", _node] * _MULTIPLY["int32", _node]) ** 0.5
# Node -> (capacity [B], energy of a 64-bit access [pJ])
_SRAM = {
    45: ((8 * 1024, 10.0), (32 * 1024, 20.0), (1024 * 1024, 100.0)),
    7: ((8 * 1024, 7.5), (32 * 1024, 8.5), (1024 * 1024, 14.0)),
}
# 16-bit accesses over a 16-bit multiply-accumulate, Eyeriss ISCA 2016 (65 nm)
_REGISTER_RATIO, _NETWORK_RATIO = 1.0, 2.0
# Interface and array [pJ/bit]
_DRAM = {
    "DDR3": 20.0, "DDR4": 20.0, "GDDR5": 14.0, "GDDR6": 6.5, "LPDDR4": 5.0,
    "HBM2": 3.9, "HBM2e": 3.6, "HBM3": 3.6,
}  # fmt: skip
_ACCUMULATORS = {
    "int8": "int32",
    "int16": "int32",
    "bf16": "fp32",
    "fp16": "fp32",
    "fp32": "fp32",
    "int32": "int32",
}


@dataclass(frozen=True, slots=True)
class Coefficient:
    """Energy of one action.

    Attributes
    ----------
    value_j : float
        [J]; NaN when no table gives it.
    basis : str
        Where it comes from, or why it is unknown.
    """

    value_j: float
    basis: str


def coefficient(device: Device, part: str, precision: str = "") -> Coefficient:
    """What one action of a part costs on a device: its file's figure, else that of the tables here.

    Parameters
    ----------
    device : Device
    part : str
        One of `PARTS`. ``mac`` is per multiply-accumulate, ``vector`` per operation, ``static`` and
        ``active`` per second, every other part per byte.
    precision : str
        Of a ``mac``.
    """
    if part == "active":
        return _active(device)
    path, value = _given(device, part, precision)
    if value is not None:
        held = device.quantities.get(path)
        return Coefficient(value, held.source if held is not None else "set on the device")
    node = device.silicon.node_nm
    if part == "static":
        return Coefficient(nan, f"{device.name} has no idle power")
    if part == "link":
        return Coefficient(nan, f"{device.name} has no coefficient for its link")
    if part == "dram":
        return dram_byte(device.memory.type)
    if not isinstance(device, SystolicDevice):
        # Other kinds spend more on moving operands than the bare circuits of the tables.
        return Coefficient(nan, f"{device.name} has no coefficient for {PARTS[part]}{_in(precision)}")
    if node is None:
        return Coefficient(nan, f"{device.name} has no silicon node, which the tables ask for")
    if part == "mac":
        return mac(precision, node)
    if part == "vector":
        return vector_op(node)
    if part == "sram":
        return sram_byte(device.sram.capacity_bytes, node)
    if device.array.dataflow != "rs":
        return Coefficient(nan, COUNTED[part])
    return register_byte(node) if part == "register" else network_byte(node)


def sum_byte(device: SystolicDevice) -> Coefficient:
    """A byte of a partial sum read or written: by the size of its own memory where the device has one."""
    given, own = device.energy.sum_byte_j, device.sram.ofmap_bytes
    if given is not None:
        held = device.quantities.get("energy.sum_byte")
        return Coefficient(given, held.source if held is not None else "set on the device")
    if own is None or device.energy.sram_byte_j is not None or device.silicon.node_nm is None:
        return coefficient(device, "sram")
    return sram_byte(own, device.silicon.node_nm)


COUNTED = {
    "active": "only GPUs have it: other devices' parts hold all that they draw",
    "register": "counted in energy_mac_j: operands move through pipeline registers of the array; with them, "
    "accelforge's TPU v4i gives 0.084 pJ per int8 multiply-accumulate at 7 nm, the circuits alone 0.1 pJ",
    "network": "counted in energy_sram_j and energy_mac_j: operands enter at the array's edge and move from "
    "element to element",
}
"""Where the energy of a part is that has no coefficient of its own."""


def _active(device: Device) -> Coefficient:
    """What a GPU draws above idle while products run, whatever they do [W]."""
    if not isinstance(device, GpuDevice):
        return Coefficient(nan, COUNTED["active"])
    tdp_w, idle_w = device.power.tdp_w, device.power.idle_w
    if tdp_w is None or idle_w is None:
        return Coefficient(nan, f"{device.name} has no {'TDP' if tdp_w is None else 'idle power'}")
    held = device.quantities.get("kernels.power.product.active")
    share = device.kernels.power["product"].active
    return Coefficient(share * (tdp_w - idle_w), held.source if held is not None else "set on the device")


def _in(precision: str) -> str:
    return f" in {precision}" if precision else ""


def _given(device: Device, part: str, precision: str) -> tuple[str, float | None]:
    """The figure of the device's file and its dotted path."""
    e = device.energy
    if part == "mac":
        return f"energy.mac.{precision}", e.mac_j.get(precision)
    if part == "static":
        return "power.idle", device.power.idle_w
    single = {
        "vector": ("vector_op", e.vector_op_j),
        "register": ("register_byte", e.register_byte_j),
        "network": ("network_byte", e.network_byte_j),
        "sram": ("sram_byte", e.sram_byte_j),
        "dram": ("dram_byte", e.dram_byte_j),
        "link": ("link_byte", e.link_byte_j),
    }
    name, value = single[part]
    return f"energy.{name}", value


def spent(amount: Any, each: Coefficient | Any) -> Any:
    """Energy of some actions [J]: zero where there are none, NaN where there are and no coefficient is known.

    Parameters
    ----------
    amount : float or array
        Actions.
    each : Coefficient or float or array
        Energy of one [J].
    """
    value = each.value_j if isinstance(each, Coefficient) else each
    return np.where(np.asarray(amount) > 0, amount * value, 0.0)


def reasons(device: Device, parts: Mapping[str, float], precisions: tuple[str, ...]) -> dict[str, str]:
    """Why parts of an energy are NaN, and where the energy of those is that are not counted apart.

    Parameters
    ----------
    device : Device
    parts : mapping
        Energy by part [J].
    precisions : tuple of str
        Formats of the products.
    """
    found = {}
    for name in PARTS:
        if name not in parts:
            found[name] = COUNTED.get(name, f"the model of {device.name} does not count {PARTS[name]} apart")
        elif isnan(parts[name]):
            formats = precisions if name == "mac" else ("",)
            each = [coefficient(device, name, p) for p in formats]
            found[name] = next(
                (c.basis for c in each if isnan(c.value_j)),
                f"{device.name} has no coefficient for some of its {PARTS[name]}",
            )
    return found


def table(device: Device) -> list[dict[str, Any]]:
    """Every coefficient of a device with its source.

    Returns
    -------
    list of dict
        Keys ``part precision value unit basis``; the value is NaN where ``basis`` is the reason. ``sum`` is
        the memory of partial sums where it is not that of operands; its energy counts under ``sram``.
    """
    formats = tuple(device.array.macs_per_pe if isinstance(device, SystolicDevice) else device.energy.mac_j)
    rows = []
    for part in PARTS:
        for precision in formats if part == "mac" else ("",):
            found = coefficient(device, part, precision)
            unit = {"mac": "J", "vector": "J", "static": "W", "active": "W"}.get(part, "J/byte")
            rows.append(
                {
                    "part": part,
                    "precision": precision,
                    "value": found.value_j,
                    "unit": unit,
                    "basis": found.basis,
                }
            )
    if isinstance(device, SystolicDevice) and (own := sum_byte(device)) != coefficient(device, "sram"):
        value, basis = own.value_j, own.basis
        rows.append({"part": "sum", "precision": "", "value": value, "unit": "J/byte", "basis": basis})
    return rows


@lru_cache(maxsize=256)
def mac(precision: str, node_nm: float) -> Coefficient:
    """A multiplication and the addition to its accumulator.

    Parameters
    ----------
    precision : str
        Format of the operands.
    node_nm : float
        [nm]
    """
    wide = _ACCUMULATORS.get(precision)
    if wide is None:
        return Coefficient(nan, f"no table gives a {precision} multiplication")
    product, total = _at(_MULTIPLY, precision, node_nm), _at(_ADD, wide, node_nm)
    if product is None or total is None:
        return Coefficient(nan, f"no table reaches a {precision} multiply-accumulate at {node_nm:g} nm")
    return Coefficient((product + total) * _PJ, _basis(node_nm))


@lru_cache(maxsize=256)
def vector_op(node_nm: float) -> Coefficient:
    """An elementwise operation: the mean of an addition and a multiplication in fp32."""
    product, total = _at(_MULTIPLY, "fp32", node_nm), _at(_ADD, "fp32", node_nm)
    if product is None or total is None:
        return Coefficient(nan, f"no table reaches fp32 arithmetic at {node_nm:g} nm")
    return Coefficient((product + total) / 2 * _PJ, f"mean of fp32 add and multiply, {_basis(node_nm)}")


@lru_cache(maxsize=256)
def register_byte(node_nm: float) -> Coefficient:
    """A byte of a register file of half a KiB beside a multiplier."""
    return _of_a_mac(_REGISTER_RATIO, node_nm)


@lru_cache(maxsize=256)
def network_byte(node_nm: float) -> Coefficient:
    """A byte that crosses the network between on-chip memory and multipliers with register files."""
    return _of_a_mac(_NETWORK_RATIO, node_nm)


def _of_a_mac(ratio: float, node_nm: float) -> Coefficient:
    base = mac("int16", node_nm)
    if isnan(base.value_j):
        return base
    basis = f"{ratio:g} times an int16 multiply-accumulate per 16-bit word, Eyeriss ISCA 2016; {base.basis}"
    return Coefficient(ratio * base.value_j / 2, basis)


def _at(table: dict[tuple[str, int], float], name: str, node_nm: float) -> float | None:
    """Value at a node: given, or on the power law between the two nodes of the tables."""
    low, high = table.get((name, 7)), table.get((name, 45))
    if node_nm == 7:
        return low
    if node_nm == 45:
        return high
    if low is None or high is None or not 7 < node_nm < 45:
        return None
    return exp(log(low) + (log(high) - log(low)) * log(node_nm / 7) / log(45 / 7))


@lru_cache(maxsize=256)
def sram_byte(capacity_bytes: float, node_nm: float) -> Coefficient:
    """A byte read from or written to an on-chip memory of a capacity.

    Capacities between the entries of a table lie on its power law, those above 1 MiB count as banks of 1 MiB,
    those below 8 KiB as 8 KiB.
    """
    ends = [_sram_access(capacity_bytes, node) for node in (7, 45)]
    if not 7 <= node_nm <= 45:
        return Coefficient(nan, f"no table gives an SRAM access at {node_nm:g} nm")
    weight = log(node_nm / 7) / log(45 / 7)
    return Coefficient(exp(log(ends[0]) * (1 - weight) + log(ends[1]) * weight) / 8 * _PJ, _basis(node_nm))


def _sram_access(capacity_bytes: float, node: int) -> float:
    points = _SRAM[node]
    size = min(max(capacity_bytes, points[0][0]), points[-1][0])
    for (small, low), (large, high) in pairwise(points):
        if size <= large:
            return exp(log(low) + log(high / low) * log(size / small) / log(large / small))
    return points[-1][1]


@lru_cache(maxsize=256)
def dram_byte(kind: str) -> Coefficient:
    """A byte that crosses the interface of an external memory, the memory's own energy included."""
    value = _DRAM.get(kind.split(",")[0].strip())
    if value is None:
        return Coefficient(nan, f"no table gives {kind}; known are {', '.join(_DRAM)}")
    return Coefficient(
        value * 8 * _PJ, f"{kind}: {value:g} pJ/bit, O'Connor MICRO 2017 and vendors, recalled"
    )


def _basis(node_nm: float) -> str:
    if node_nm == 45:
        return "Horowitz ISSCC 2014"
    if node_nm == 7:
        return "Jouppi ISCA 2021 table 2, recalled"
    return "power law between Jouppi ISCA 2021 at 7 nm and Horowitz ISSCC 2014 at 45 nm"
