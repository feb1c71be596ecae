"""Energy per action by silicon node: what public tables give, and nothing where they give nothing.

Values between two nodes of a table lie on the power law through both; outside they are unknown. Sources:
M. Horowitz, "Computing's energy problem", ISSCC 2014, doi:10.1109/ISSCC.2014.6757323 (45 nm, 0.9 V); N.
Jouppi et al., "Ten lessons from three generations shaped Google's TPUv4i", ISCA 2021,
doi:10.1109/ISCA52012.2021.00010, table 2 (7 nm); M. O'Connor et al., "Fine-grained DRAM", MICRO 2017,
doi:10.1145/3123939.3124545 (DRAM). All of them are recalled or read second-hand: use them as assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, nan

_PJ = 1e-12

# (action, node [nm]) -> [pJ]
_ADD = {
    ("int8", 45): 0.03, ("int16", 45): 0.05, ("int32", 45): 0.1, ("fp16", 45): 0.4, ("fp32", 45): 0.9,
    ("int8", 7): 0.007, ("int32", 7): 0.03, ("bf16", 7): 0.11, ("fp16", 7): 0.16, ("fp32", 7): 0.38,
}  # fmt: skip
_MULTIPLY = {
    ("int8", 45): 0.2, ("int32", 45): 3.1, ("fp16", 45): 1.1, ("fp32", 45): 3.7,
    ("int8", 7): 0.07, ("int32", 7): 1.48, ("bf16", 7): 0.21, ("fp16", 7): 0.34, ("fp32", 7): 1.31,
}  # fmt: skip
# Node -> (capacity [B], energy of a 64-bit access [pJ])
_SRAM = {
    45: ((8 * 1024, 10.0), (32 * 1024, 20.0), (1024 * 1024, 100.0)),
    7: ((8 * 1024, 7.5), (32 * 1024, 8.5), (1024 * 1024, 14.0)),
}
# Interface and array [pJ/bit]
_DRAM = {
    "DDR3": 20.0, "DDR4": 20.0, "GDDR5": 14.0, "GDDR6": 6.5, "LPDDR4": 5.0,
    "HBM2": 3.9, "HBM2e": 3.6, "HBM3": 3.6,
}  # fmt: skip
_ACCUMULATORS = {"int8": "int32", "bf16": "fp32", "fp16": "fp32", "fp32": "fp32", "int32": "int32"}


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


def dram_byte(kind: str) -> Coefficient:
    """A byte that crosses the interface of an external memory, the memory's own energy included."""
    value = _DRAM.get(kind)
    if value is None:
        return Coefficient(nan, f"no table gives {kind}; known are {', '.join(_DRAM)}")
    return Coefficient(value * 8 * _PJ, "O'Connor MICRO 2017 and vendors, recalled")


def _basis(node_nm: float) -> str:
    if node_nm == 45:
        return "Horowitz ISSCC 2014"
    if node_nm == 7:
        return "Jouppi ISCA 2021 table 2, recalled"
    return "power law between Jouppi ISCA 2021 at 7 nm and Horowitz ISSCC 2014 at 45 nm"
