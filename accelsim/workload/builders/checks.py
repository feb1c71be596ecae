"""Checks of the parameters in a workload file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelsim.core.errors import ConfigError, RequestError, did_you_mean


def whole(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises
    ------
    ConfigError
        With the parameter and its value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number of at least {least}", "parameters")
    return value


def whole_numbers(name: str, values: Any, least: int = 1) -> tuple[int, ...]:
    """A list of whole numbers, with at least one entry."""
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"{name} is {values!r}, expected a list of whole numbers", "parameters")
    return tuple(whole(f"{name}[{i}]", v, least) for i, v in enumerate(values))


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """One of some words."""
    if value not in known:
        raise ConfigError(f"{name} is {value!r}", "parameters", did_you_mean(str(value), known))
    return str(value)


def forward_only(name: str, phase: str | None, context: int | None = None) -> None:
    """Refuse what only sequence models have.

    Raises
    ------
    RequestError
        The phase is prefill or decode, or there is a context length.
    """
    if phase not in (None, "forward"):
        raise RequestError(f"{name} has no {phase} phase", hint="leave the phase out")
    if context is not None:
        raise RequestError(f"{name} has no context length", hint="leave the context out")
