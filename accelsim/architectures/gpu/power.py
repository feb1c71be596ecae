"""Energy of GPU kernels above idle, and the board power that caps it.

E = active P_head t + flops / 2 e_mac f_mac + dram e_dram f_dram + l2 e_sram + vector e_vector, at most
P_head t with P_head = TDP - idle: beyond it voltage and clock fall until the board keeps its limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, isnan, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.hardware.power_kernels import PowerModel

Array = npt.NDArray[np.float64]

PRODUCT, PREFILL, DECODE = "product", "prefill", "decode"


def family(kind: str, bits: float, blocks: bool = False) -> str:
    """Name in ``kernels.power`` of a family in a format.

    Parameters
    ----------
    kind : str
        ``product``, ``prefill`` or ``decode``.
    bits : float
        Of the operands of a product, or of the cache of an attention kernel.
    blocks : bool
        One scale per block of elements.
    """
    if bits > 8:
        return kind
    return f"{kind}-8-block" if blocks and kind == PRODUCT else f"{kind}-8"


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Energies of one family on one device; NaN where the device file has no number.

    Attributes
    ----------
    head_w : float
        What the board may draw above idle [W]; infinite where TDP or idle power is unknown.
    active_w : float
        Drawn whenever a kernel runs [W].
    mac : float
        Factor on ``energy.mac``.
    dram_j, l2_j, vector_j : float
        [J/B], [J/B], [J/operation]
    """

    head_w: float
    active_w: float
    mac: float
    dram_j: float
    l2_j: float
    vector_j: float

    def parts(
        self, mac_j: float, work: tuple[float, float, float, float], taken_s: float, cap: bool
    ) -> dict[str, float]:
        """Energy of one kernel by component [J].

        Parameters
        ----------
        mac_j : float
            Bare energy of a multiply-accumulate in the kernel's format [J].
        work : tuple of float
            FLOP, elementwise operations, DRAM bytes, L2 bytes.
        taken_s : float
            Its latency [s].
        cap : bool
            Keep to the board's limit.
        """
        flops, ops, dram, l2 = work
        parts = {
            "active": self.active_w * taken_s,
            "mac": flops / 2.0 * mac_j * self.mac if flops else 0.0,
            "vector": ops * self.vector_j if ops else 0.0,
            "dram": dram * self.dram_j if dram else 0.0,
            "sram": l2 * self.l2_j if l2 else 0.0,
        }
        total = sum(parts.values())
        limit = self.head_w * taken_s
        if not cap or isnan(total) or total <= limit:
            return parts
        return {name: value * limit / total for name, value in parts.items()}

    def total(self, mac_j: float, work: tuple[Any, Any, Any, Any], taken_s: Array, cap: bool) -> Array:
        """Sum of `parts` for many kernels [J]."""
        flops, ops, dram, l2 = work
        energy = self.active_w * taken_s
        for amount, each in (
            (flops, 0.5 * mac_j * self.mac), (ops, self.vector_j), (dram, self.dram_j), (l2, self.l2_j)
        ):  # fmt: skip
            energy = energy + np.where(np.asarray(amount) > 0, np.asarray(amount) * each, 0.0)
        capped: Array = np.minimum(energy, self.head_w * taken_s)
        return capped if cap else energy


@lru_cache(maxsize=1024)
def coefficients(device: Any, name: str) -> Coefficients:
    """Coefficients of a family: its own, else those of the family without its format, else of products."""
    models = device.kernels.power
    model: PowerModel = next(
        models[key]
        for key in (name, name.removesuffix("-block"), name.split("-")[0], PRODUCT)
        if key in models
    )
    power, energy = device.power, device.energy
    known = power.tdp_w is not None and power.idle_w is not None
    head_w = max(0.0, power.tdp_w - power.idle_w) if known else inf
    dram, l2, vector = (
        nan if v is None else float(v) for v in (energy.dram_byte_j, energy.sram_byte_j, energy.vector_op_j)
    )
    active_w = model.active * head_w if known else nan
    return Coefficients(head_w, active_w, model.mac, dram * model.dram, l2, vector)


def mac_j(device: Any, name: str) -> float:
    """Bare energy of a multiply-accumulate in a format [J]; NaN where the device file has none."""
    return float(device.energy.mac_j.get(name, nan))
