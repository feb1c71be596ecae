"""Board power of measured operators: what they do, and what that draws in the time that they took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.gpu import power
from accelsim.architectures.gpu.attention import attention_rows
from accelsim.architectures.gpu.moe import moe_flops, moe_rows
from accelsim.architectures.gpu.rates import wider
from accelsim.architectures.opwork import op_work
from accelsim.core.errors import RequestError
from accelsim.core.precision import PrecisionPlan

Array = npt.NDArray[np.float64]
OPS = ("attention_prefill", "attention_decode", "moe")


@dataclass(frozen=True)
class Activity:
    """What rows of one operator and format do.

    Attributes
    ----------
    family : str
        In ``kernels.power``.
    mac_j : float
        Bare energy of a multiply-accumulate [J].
    flops, dram_bytes, l2_bytes : ndarray
    """

    family: str
    mac_j: float
    flops: Array
    dram_bytes: Array
    l2_bytes: Array

    def power_w(self, device: Any, duration_s: Array) -> Array:
        """Mean board power while the rows run for so long [W]."""
        found = power.coefficients(device, self.family)
        work = (self.flops, 0.0, self.dram_bytes, self.l2_bytes)
        above: Array = found.total(self.mac_j, work, duration_s, cap=True) / duration_s
        return above + float(device.power.idle_w)


def activity(
    op: str, shapes: Mapping[str, Array], formats: PrecisionPlan, device: Any, stack: str
) -> Activity:
    """Work and traffic of rows of an operator in `OPS`.

    Raises
    ------
    RequestError
        Another operator.
    """
    if op == "moe":
        product = wider(formats.activation, formats.weight)
        found = moe_rows(shapes, formats, device, stack)
        name = power.family(power.PRODUCT, product.bits, bool((shapes["scale_block"] > 0).any()))
        return Activity(
            name, power.mac_j(device, product.name), moe_flops(shapes), found.dram_bytes, found.l2_bytes
        )
    if op not in OPS:
        raise RequestError(f"no power model is fitted on '{op}'", hint=f"operators are {', '.join(OPS)}")
    decode = op == "attention_decode"
    found = attention_rows(shapes, formats, device, stack, decode=decode)
    product = wider(formats.activation, formats.kv)
    name = power.family(power.DECODE if decode else power.PREFILL, formats.kv.bits)
    return Activity(
        name,
        power.mac_j(device, product.name),
        np.asarray(op_work(op, shapes, formats)[0]),
        found.dram_bytes,
        found.l2_bytes,
    )
