"""Constants of expert layers (mixture of experts) in the kernels of one software stack."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from accelsim.hardware.section import Fraction, Seconds, Section

Ratio = Annotated[float, Field(ge=0)]


class MoeModel(Section):
    """Expert layers of one software stack and weight format; the formulas are in docs/models.md, GPU."""

    fixed_s: Seconds = Field(alias="fixed")
    """All launches, routing and sorting of one layer."""
    ungated_s: Seconds = Field(default=0.0, alias="ungated")
    """More of it where experts have no gate."""
    sort_s: Seconds = Field(default=0.0, alias="sort")
    """More of it for many routed rows r: all of it times r / (r + 256)."""
    row_bytes: Ratio
    """Traffic around the products per routed row and element of its widths [B]: copies, activation, sum."""
    other_rows: Ratio
    """The same traffic per row of another rank, over that of an own row: kernels that skip such rows late
    still make room for them or write zeros."""
    tensor_efficiency: Ratio
    """Rate of the products' main loops over that of plain products; the peak bounds it."""
    dram_efficiency: Fraction
    """Share of the DRAM bandwidth that the experts' weights get."""
    step_share: Ratio
    """Latency of a step of the main loop over that of plain products."""
    pad_rows: Annotated[float, Field(ge=1)]
    """Fewest rows of a tile."""
    largest_tile: Annotated[float, Field(ge=16)]
    """Most rows and columns of a tile."""
    overlap: Annotated[float, Field(ge=1)]
    """Exponent with which compute and memory time of a grouped product add, as in `ProductModel`."""
    expert_s: Seconds = Field(alias="expert")
    """Cost per expert of the rank (offsets, descriptors)."""
    foreign: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the rows of other ranks' experts that are multiplied all the same and masked afterwards."""
    layers: tuple[tuple[int, int], ...] = ()
    """Of kernels with tuned block sizes (``-tuned``): experts of a rank and their width on it, of the layers
    that the stack ships sizes for on this device."""

    @property
    def array(self) -> Any:
        """The numbers in the order of the fields, for the numba kernels."""
        return _array(self)


@lru_cache(maxsize=256)
def _array(model: MoeModel) -> Any:
    names = [name for name in MoeModel.model_fields if name != "layers"]
    values = np.array([getattr(model, name) for name in names], dtype=np.float64)
    values.setflags(write=False)
    return values
