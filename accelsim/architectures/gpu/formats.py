"""Which constants a product takes: those of the stack's kernels for its formats, or of plain products."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from accelsim.core.precision import Precision
from accelsim.hardware.kernels import ProductModel


def format_key(weight: Precision, activation: Precision, scale_block: float = 0.0) -> str:
    """Name of a format in ``kernels.formats``: ``fp8_e4m3``, ``fp8_e4m3-block``, ``weight-int4``."""
    if weight.bits < activation.bits:
        return f"weight-{weight.name}"
    return f"{weight.name}-block" if scale_block else weight.name


@lru_cache(maxsize=512)
def product_constants(
    device: Any, stack: str, weight: Precision, activation: Precision, scale_block: float = 0.0
) -> tuple[ProductModel, bool]:
    """Constants of a product with weights, and whether its reduction may be split.

    Serving stacks quantise activations to narrow formats as they come, which their constants include. Stacks
    without a section take plain products: the activations of their plans are quantised statically, by the
    kernel that makes them.
    """
    base: ProductModel = device.kernels.product
    if activation.bits >= 16 and weight.bits >= activation.bits:
        return base, True
    own = device.kernels.formats.get(stack, {})
    key = format_key(weight, activation, scale_block)
    found = own.get(key) or own.get(key.removesuffix("-block"))
    return (base, True) if found is None else (found.product(base), bool(found.splits))
