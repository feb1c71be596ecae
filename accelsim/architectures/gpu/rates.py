"""Which arithmetic a product runs in, and how fast the device does it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import PRECISIONS, Precision
from accelsim.workload.graph import Tensor


def supports(device: Any, precision: str) -> bool:
    """Whether the tensor or the vector units compute in a precision."""
    return precision in device.sm.tensor_flop_per_clock or precision in device.sm.vector_flop_per_clock


def precisions(device: Any) -> tuple[str, ...]:
    """Precisions of the tensor and the vector units, in the catalog's order."""
    return tuple(name for name in PRECISIONS if supports(device, name))


def product_precision(left: Tensor, right: Tensor) -> Precision:
    """Format that a product runs in: the wider of its operands, a float before an integer of the same width.

    Weights narrower than the activations (weight-only quantisation) are unpacked, so the product runs at the
    rate of the activations and only the bytes shrink.
    """
    return wider(left.precision, right.precision)


def wider(left: Precision, right: Precision) -> Precision:
    """The wider of two formats, a float before an integer of the same width."""
    return max((left, right), key=lambda p: (p.bits, not p.is_integer))


@lru_cache(maxsize=1024)
def product_rate(device: Any, name: str) -> tuple[float, float, bool]:
    """Rate of matrix products in a precision.

    Returns
    -------
    tuple
        FLOP per SM and clock, clock [Hz], whether tensor cores do it.

    Raises
    ------
    InfeasibleError
        Neither the tensor nor the vector units have the precision.
    """
    sm = device.sm
    if name in sm.tensor_flop_per_clock:
        return float(sm.tensor_flop_per_clock[name]), float(sm.tensor_clock_hz), True
    if name in sm.vector_flop_per_clock:
        return float(sm.vector_flop_per_clock[name]), float(sm.clock_hz), False
    have = precisions(device)
    bits = PRECISIONS[name].bits if name in PRECISIONS else 32
    wider = [p for p in have if PRECISIONS[p].bits >= bits] or list(have)
    nearest = min(wider, key=lambda p: (abs(PRECISIONS[p].bits - bits), p == "tf32"))
    raise InfeasibleError(
        "precision", f"{name} matrix arithmetic", ", ".join(have), f"use {nearest} on {device.name}"
    )


def vector_rate(device: Any, name: str) -> float:
    """Elementwise operations per SM and clock: the lanes, half the FMA rate.

    Formats without a vector pipe run as fp32, those of 8 bits and fewer as fp16 where that is faster: a half
    holds them. Dot products of narrow integers add along a reduction, which elementwise work has not.
    """
    table = device.sm.vector_flop_per_clock
    if name in PRECISIONS and PRECISIONS[name].bits <= 8:
        return float(max(table.get("fp32", 0.0), table.get("fp16", 0.0)) or max(table.values())) / 2.0
    return (
        float(table.get(name, table["fp32"])) / 2.0
        if "fp32" in table or name in table
        else float(max(table.values())) / 2.0
    )
