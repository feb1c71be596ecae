"""What a kernel draws beside the bare energy of its arithmetic and traffic, by family of kernels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accelsim.hardware.section import Fraction, Section

Factor = Annotated[float, Field(ge=0)]


class PowerModel(Section):
    """Power of one family of kernels, see docs/models.md, GPU, Power."""

    active: Fraction
    """Share of TDP less idle that the board draws whenever such a kernel runs, whatever it does."""
    mac: Factor
    """Energy of a multiply-accumulate with all that feeds it on chip, over the bare ``energy.mac``."""
    dram: Factor
    """Energy of an external byte with its way through the chip, over the bare ``energy.dram_byte``."""
