"""A number with its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["cited", "measured", "assumed"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A hardware number, where it comes from and how far to trust it.

    Attributes
    ----------
    value : float or str
        As written in the file, for example ``"3.35 TB/s"``.
    source : str
        Reference that a reader can follow.
    status : {"cited", "measured", "assumed"}
        ``cited`` was read in the source; ``measured`` was measured; everything else is ``assumed``.
    """

    value: float | int | str | bool
    source: str
    status: Status
