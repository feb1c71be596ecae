"""Area of a systolic device by component, from public densities; NaN with a reason where there is none.

Sources: multipliers and adders at 45 nm, W. Dally, "Hardware for deep learning" (after Horowitz), recalled;
SRAM bit cells, IEDM papers of the foundry, recalled, times 2.5 for decoders and sense amplifiers; at 7 nm the
secondary figures of the TPU v4i model of accelforge (850 um2 per bf16 multiply-accumulate with its registers,
0.875 mm2 per MiB of CMEM).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan
from typing import Any

from accelsim.hardware.schema import Device, SystolicDevice

_UM2 = 1e-12

# Multiply-accumulate, operands -> [um2] at a node.
_MAC = {("int8", 45): 282 + 137, ("fp16", 45): 1640 + 4184, ("fp32", 45): 7700 + 4184, ("bf16", 7): 850}
_BITCELL = {28: 0.127, 16: 0.074, 7: 0.027, 5: 0.021}
SRAM_OVERHEAD = 2.5
"""Area of a memory over that of its bit cells; 2 to 3 is common. Assumed."""


@dataclass(frozen=True, slots=True)
class Part:
    """Area of one component.

    Attributes
    ----------
    name : str
    area_m2 : float
        [m2]; NaN when unknown.
    basis : str
        Where it comes from, or why it is unknown.
    """

    name: str
    area_m2: float
    basis: str


def parts(device: SystolicDevice) -> tuple[Part, ...]:
    """Arrays, on-chip memory and all the rest.

    The rest is the die less the other two: control, vector unit, interfaces. It is unknown when the die or
    one of them is, or where they do not fit it (a design whose arrays grew and whose die did not).
    """
    arrays, memory = _arrays(device), _memory(device)
    die = device.silicon.area_m2
    if die is None:
        return arrays, memory, Part("rest", nan, f"{device.name} has no die area")
    rest = die - arrays.area_m2 - memory.area_m2
    if rest < 0:
        return arrays, memory, Part("rest", nan, f"arrays and memory exceed the die given for {device.name}")
    lacking = next((p.basis for p in (arrays, memory) if isnan(p.area_m2)), "die less arrays and memory")
    return arrays, memory, Part("rest", rest, lacking)


def table(device: Device) -> list[dict[str, Any]]:
    """Area of a device by component, with what each number rests on; of other than systolic devices the die.

    Returns
    -------
    list of dict
        Keys ``part area_m2 basis``; the area is NaN where ``basis`` is the reason.
    """
    die = device.silicon.area_m2
    known = device.quantities.get("silicon.area")
    basis = f"{device.name} has no die area"
    if die is not None and known is not None:
        basis = f"{known.status}: {known.source}"
    inside = parts(device) if isinstance(device, SystolicDevice) else ()
    return [
        {"part": part.name, "area_m2": part.area_m2, "basis": part.basis}
        for part in (*inside, Part("die", nan if die is None else die, basis))
    ]


def _arrays(device: SystolicDevice) -> Part:
    node, unit = device.silicon.node_nm, device.array
    if node is None:
        return Part("arrays", nan, f"{device.name} has no node")
    known = {name: _mac_um2(name, node) for name in unit.macs_per_pe}
    widest = max((v for v in known.values() if v is not None), default=None)
    if widest is None:
        return Part("arrays", nan, f"no table gives {', '.join(known)} multipliers near {node:g} nm")
    count = unit.rows * unit.cols * unit.count * max(unit.macs_per_pe.values())
    return Part("arrays", count * widest * _UM2, "multiply-accumulates, scaled by the square of the node")


def _mac_um2(name: str, node_nm: float) -> float | None:
    """Area scaled by the square of the node from the nearest entry, at most by a factor of two in length."""
    entries = [(abs(n - node_nm), n, v) for (fmt, n), v in _MAC.items() if fmt == name]
    for _, node, value in sorted(entries):
        if 0.5 <= node_nm / node <= 2:
            return value * (node_nm / node) ** 2
    return None


def _memory(device: SystolicDevice) -> Part:
    node = device.silicon.node_nm
    cell = None if node is None else _BITCELL.get(int(node)) if node == int(node) else None
    if cell is None:
        return Part("memory", nan, f"no bit cell for {device.name}'s node")
    bits = 8 * device.sram.capacity_bytes
    area_m2 = bits * cell * SRAM_OVERHEAD * _UM2
    return Part("memory", area_m2, f"bit cells of {cell:g} um2 times {SRAM_OVERHEAD:g}")
