"""How a field of a hardware file is read: quantities with units to SI floats, and the base of every
section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from accelsim.core.errors import UnitError, UnknownNameError
from accelsim.core.precision import precision
from accelsim.core.units import parse


def _positive(dimension: str, allow_zero: bool) -> Any:
    def read(value: Any) -> float:
        try:
            number = parse(value, dimension)
        except UnitError as error:  # pydantic adds the field path to a ValueError only
            raise ValueError(f"{error.what}; {error.hint}") from None
        if number < 0 or (number == 0 and not allow_zero):
            raise ValueError(f"'{value}' must be {'zero or more' if allow_zero else 'positive'}")
        return number

    return BeforeValidator(read)


def _unit(dimension: str, *, zero: bool = False) -> Any:
    return _positive(dimension, zero)


Seconds = Annotated[float, _unit("time", zero=True)]
Hertz = Annotated[float, _unit("frequency")]
Bytes = Annotated[float, _unit("bytes")]
BytesPerSecond = Annotated[float, _unit("bandwidth")]
Watts = Annotated[float, _unit("power", zero=True)]
Joules = Annotated[float, _unit("energy", zero=True)]
SquareMetres = Annotated[float, _unit("area")]
Dollars = Annotated[float, _unit("money", zero=True)]
DollarsPerHour = Annotated[float, _unit("price_rate", zero=True)]


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"'{value}' is not a number")
    return value


Count = Annotated[int, Field(gt=0), BeforeValidator(_not_bool)]
Fraction = Annotated[float, Field(gt=0, le=1)]


def _precision_name(value: Any) -> str:
    try:
        return precision(str(value)).name
    except UnknownNameError as error:
        raise ValueError(f"{error.what}; {error.hint}") from None


def _precisions(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_precision_name(k): v for k, v in value.items()}
    return value


ByPrecision = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_precisions)]
JoulesByPrecision = Annotated[dict[str, Joules], BeforeValidator(_precisions)]
PrecisionName = Annotated[str, BeforeValidator(_precision_name)]


class Section(BaseModel):
    """A part of a device; unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, protected_namespaces=()
    )
