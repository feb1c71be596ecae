"""Checks of what users pass to fleets."""

from __future__ import annotations

import math

from accelsim.core.errors import RequestError


def at_least(what: str, value: float, least: float = 0.0) -> None:
    """Refuse NaN and anything below `least`."""
    if not value >= least:
        words = "must not be negative" if least == 0 else f"must be at least {least:g}"
        raise RequestError(f"{what} {words}, got {value}")


def positive(what: str, value: float) -> None:
    """Refuse zero, what is negative, and NaN."""
    if not value > 0:
        raise RequestError(f"{what} must be positive, got {value}")


def finite(what: str, value: float) -> None:
    """Refuse what is negative or not finite."""
    if not (value >= 0 and math.isfinite(value)):
        raise RequestError(f"{what} must be a number that is not negative, got {value}")


def share(what: str, value: float) -> None:
    """Refuse what is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise RequestError(f"{what} must be between 0 and 1, got {value}")
