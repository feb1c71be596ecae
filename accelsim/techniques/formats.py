"""Formats of a layer's weights and activations, and how arrays are scaled into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.precision import PRECISIONS, PrecisionPlan, plan
from accelsim.techniques.numerics import NumberFormat, fake_quantise, number_format

Array = npt.NDArray[Any]

GRANULARITIES = ("tensor", "channel")


@dataclass(frozen=True)
class Formats:
    """Formats of a layer's weights and of the activations that it reads."""

    weight: NumberFormat
    activation: NumberFormat

    @property
    def name(self) -> str:
        if self.weight == self.activation:
            return self.weight.name
        return f"weight={self.weight.name},activation={self.activation.name}"

    @property
    def reads_exactly(self) -> bool:
        """Activations stay as they are."""
        return self.activation.name == "fp32"


def formats_of(request: Any) -> Formats:
    """Read ``"int8"``, ``"weight=int4,activation=fp16"``, a mapping by role or a plan.

    Raises
    ------
    UnknownNameError, RequestError
    """
    if isinstance(request, Formats):
        return request
    if isinstance(request, PrecisionPlan):
        return Formats(number_format(request.weight.name), number_format(request.activation.name))
    if isinstance(request, str) and "=" in request:
        pairs = (part.partition("=") for part in request.split(","))
        request = {role.strip(): name.strip() for role, _, name in pairs}
    if isinstance(request, Mapping):
        roles = ("weight", "activation")
        unknown = sorted(set(request) - {*roles, "kv"})
        if unknown:
            raise RequestError(f"unknown role '{unknown[0]}'", hint=did_you_mean(unknown[0], roles))
        return Formats(*(number_format(request.get(role, "fp32")) for role in roles))
    one = number_format(request)
    return Formats(one, one)


def device_plan(formats: Formats) -> PrecisionPlan:
    """The formats as a plan that devices take.

    Raises
    ------
    RequestError
        A format that no device model knows.
    """
    for role in (formats.weight, formats.activation):
        if role.name not in PRECISIONS:
            raise RequestError(
                f"no device model knows the format {role.name}", hint=did_you_mean(role.name, PRECISIONS)
            )
    return plan({"weight": formats.weight.name, "activation": formats.activation.name})


@dataclass(frozen=True)
class Rules:
    """How arrays are scaled.

    Attributes
    ----------
    granularity : str or int
        Of weights in integers, fp8, fp6 and fp4: one scale per ``tensor``, per output ``channel``, or per
        that many elements of a channel.
    scale_rule : str
        Of power-of-two scales; see `fake_quantise`.
    """

    granularity: str | int = "channel"
    scale_rule: str = "floor"

    def weight(self, array: Array, fmt: NumberFormat, axis: int | None, name: str) -> Array:
        """Weights after quantisation."""
        if self.granularity == "tensor" and not fmt.block:
            axis = None
        block = self.granularity if isinstance(self.granularity, int) else None
        return fake_quantise(array, fmt, axis=axis, block=block, scale_rule=self.scale_rule, name=name)

    def activation(self, array: Array, fmt: NumberFormat, kind: str) -> Array:
        """What a layer reads after quantisation: blocks run along the channels."""
        if fmt.block:
            channels = 1 if kind.startswith("Conv") else -1
            moved = np.moveaxis(array, channels, -1)
            made = fake_quantise(moved, fmt, block=fmt.block, scale_rule=self.scale_rule, name="activations")
            return np.ascontiguousarray(np.moveaxis(made, -1, channels)).astype(array.dtype)
        return fake_quantise(array, fmt, symmetric=not fmt.integer, name="activations").astype(array.dtype)


def rules(granularity: str | int, scale_rule: str) -> Rules:
    number = isinstance(granularity, int) and not isinstance(granularity, bool) and granularity > 0
    if not number and granularity not in GRANULARITIES:
        raise RequestError(
            f"granularity {granularity!r} is neither a number of elements nor one of tensor, channel"
        )
    return Rules(granularity, scale_rule)
