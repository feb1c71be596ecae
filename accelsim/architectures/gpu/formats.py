"""Which constants a product takes: those of the stack's kernels for its formats, or of plain products."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import inf
from typing import Any

from accelsim.core.precision import Precision
from accelsim.hardware.kernels import ProductModel


def format_key(weight: Precision, activation: Precision, scale_block: float = 0.0) -> str:
    """Name of a format in ``kernels.formats``: ``fp8_e4m3``, ``fp8_e4m3-block``, ``weight-int4``."""
    if weight.bits < activation.bits:
        return f"weight-{weight.name}"
    return f"{weight.name}-block" if scale_block else weight.name


@lru_cache(maxsize=512)
def row_limits(
    device: Any, stack: str, weight: Precision, activation: Precision, scale_block: float = 0.0
) -> tuple[float, ...]:
    """Most rows of each kernel that a stack has for this format, ascending; the last one is infinite.

    Libraries pick a compiled kernel by the number of rows alone, each with its own tile and schedule.
    """
    own = device.kernels.formats.get(stack, {})
    key = _held(own, format_key(weight, activation, scale_block))
    words = (name.removeprefix(f"{key}-") for name in own if name.startswith(f"{key}-"))
    return (*sorted(float(word) for word in words if word.isdigit()), inf)


@lru_cache(maxsize=1024)
def product_constants(
    device: Any,
    stack: str,
    weight: Precision,
    activation: Precision,
    scale_block: float = 0.0,
    most_rows: float = inf,
) -> tuple[ProductModel, bool]:
    """Constants of a product with weights, and whether its reduction may be split.

    Serving stacks quantise activations to narrow formats as they come, which their constants include. Stacks
    without a section take plain products: the activations of their plans are quantised statically, by the
    kernel that makes them. `most_rows` is one of `row_limits`.
    """
    base: ProductModel = device.kernels.product
    if activation.bits >= 16 and weight.bits >= activation.bits:
        return base, True
    own = device.kernels.formats.get(stack, {})
    key = _held(own, format_key(weight, activation, scale_block))
    found = own.get(key if most_rows == inf else f"{key}-{most_rows:.0f}")
    return (base, True) if found is None else (found.product(base), bool(found.splits))


def _held(own: Mapping[str, Any], key: str) -> str:
    """The format's own kernels, or those without scales per block."""
    return key if key in own else key.removesuffix("-block")
