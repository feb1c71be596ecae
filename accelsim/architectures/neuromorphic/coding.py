"""How a network becomes spikes: the code, the time steps, and how often neurons fire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.hardware.schema import NeuromorphicDevice

CODES = ("rate", "ttfs", "sigma_delta")
INPUT = "input"
"""Name of the input among the layers of `Coding.rates`."""

_KEYS = ("code", "steps", "rates")


@dataclass(frozen=True)
class Coding:
    """A conversion to spikes.

    Attributes
    ----------
    code : {"rate", "ttfs", "sigma_delta"}
        ``rate``: the number of spikes is the value. ``ttfs``: each neuron fires once at most, the earlier the
        larger. ``sigma_delta``: graded spikes carry changes of the value.
    steps : int
        Time steps of one inference.
    rate : float
        Spikes per neuron and step where a layer has none of its own; with ``ttfs`` the share of neurons that
        fire at all.
    rates : tuple of (str, float)
        The same of single layers; `INPUT` is the input.
    """

    code: str
    steps: int
    rate: float
    rates: tuple[tuple[str, float], ...] = ()

    def per_step(self, layer: str) -> float:
        """Spikes per neuron and time step of a layer."""
        held = dict(self.rates).get(layer, self.rate)
        return held / self.steps if self.code == "ttfs" else held

    @property
    def graded(self) -> bool:
        return self.code == "sigma_delta"


def coding_for(source: Mapping[str, Any] | None, device: Any) -> Coding | None:
    """What a run asks of a device; None leaves it to the device.

    Raises
    ------
    RequestError
        The device has no spiking neurons, or see `read`.
    """
    if source is None:
        return None
    if device.kind != "neuromorphic":
        raise RequestError("only devices of spiking neurons have a coding", device.name)
    return read(source, device)


def read(source: Mapping[str, Any] | Coding, device: NeuromorphicDevice) -> Coding:
    """A coding over the device's own.

    Parameters
    ----------
    source : mapping
        ``code``, ``steps``, and ``rates``: one rate, or rates by layer.
    device : NeuromorphicDevice

    Raises
    ------
    RequestError
        An unknown key or code, no time step, or a rate that is negative or above one per step.
    """
    if isinstance(source, Coding):
        return source
    for key in source:
        if key not in _KEYS:
            raise RequestError(f"unknown key '{key}' in a coding", hint=did_you_mean(str(key), _KEYS))
    code = source.get("code", device.coding.code)
    if code not in CODES:
        raise RequestError(f"unknown spike code '{code}'", hint=did_you_mean(str(code), CODES))
    steps = source.get("steps", device.coding.steps)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise RequestError(f"{steps!r} time steps: an inference takes at least one")
    given = source.get("rates", device.coding.rate)
    layers = dict(given) if isinstance(given, Mapping) else {}
    base = device.coding.rate if isinstance(given, Mapping) else given
    for name, rate in (("every layer", base), *layers.items()):
        _check_rate(str(name), rate)
    return Coding(str(code), steps, float(base), tuple((str(k), float(v)) for k, v in layers.items()))


def _check_rate(name: str, rate: Any) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate >= 0:
        raise RequestError(f"firing rate {rate!r} of '{name}' is not a number from 0 to 1")
    if rate > 1:
        raise RequestError(
            f"firing rate {rate:g} of '{name}' is above one spike per step",
            hint="take more time steps, or divide the rate by the steps",
        )
