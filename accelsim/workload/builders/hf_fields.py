"""Typed access to the fields of a HuggingFace ``config.json``; errors name the file and the field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelsim.core.errors import ModelFileError, RequestError, did_you_mean
from accelsim.workload.graph import Graph, Phase

MAX_SIZE = 2**31
MAX_LAYERS = 4096

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "silu",
    "swish": "silu",
    "relu2": "relu2",
    "gelu": "gelu",
    "silu": "silu",
    "relu": "relu",
    "tanh": "tanh",
}

_MISSING = object()


class Fields:
    """The fields of one model.

    Parameters
    ----------
    values : mapping
    where : str
        File (and section) for errors.
    multimodal : bool
        They are the language part of a model with more parts.
    """

    def __init__(self, values: Mapping[str, Any], where: str, *, multimodal: bool = False) -> None:
        self.values = values
        self.where = where
        self.multimodal = multimodal

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def _present(self, name: str, default: Any) -> Any:
        found = self.values.get(name)
        if found is not None:
            return found
        if default is _MISSING:
            near = did_you_mean(name, map(str, self.values))
            raise ModelFileError(
                f"field '{name}' is missing", self.where, near if near.startswith("did") else ""
            )
        return default

    def size(self, name: str, default: Any = _MISSING, *, minimum: int = 1, maximum: int = MAX_SIZE) -> int:
        """A whole number from `minimum` to `maximum`."""
        found = self._present(name, default)
        if isinstance(found, bool) or not isinstance(found, int) or not minimum <= found <= maximum:
            raise ModelFileError(
                f"{name} is {found!r}, expected a whole number from {minimum} to {maximum}", self.where
            )
        return found

    def layers(self, name: str, default: Any = _MISSING) -> int:
        return self.size(name, default, maximum=MAX_LAYERS)

    def flag(self, name: str, default: bool) -> bool:
        found = self._present(name, default)
        if not isinstance(found, bool):
            raise ModelFileError(f"{name} is {found!r}, expected true or false", self.where)
        return found

    def activation(self, name: str, default: Any = _MISSING) -> str:
        """Operator function of an activation name."""
        found = str(self._present(name, default))
        if found not in ACTIVATIONS:
            raise ModelFileError(
                f"{name} is '{found}', an unknown activation", self.where, did_you_mean(found, ACTIVATIONS)
            )
        return ACTIVATIONS[found]

    def pattern(self, name: str, length: int) -> list[Any] | None:
        """A list with one entry per layer; None when the field is not a list."""
        found = self.values.get(name)
        if not isinstance(found, list):
            return None
        if len(found) < length:
            raise ModelFileError(f"{name} has {len(found)} entries for {length} layers", self.where)
        return found[:length]

    def divides(self, whole: int, part: int, what: str, by: str) -> None:
        """Check that `part` divides `whole`."""
        if whole % part:
            raise ModelFileError(f"{what} {whole} does not divide by {part} {by}", self.where)


@dataclass(frozen=True)
class Request:
    """What the caller asks of a model: phase and context (None for the model's default), and the format."""

    name: str
    phase: str | None
    context: int | None
    precision: str

    def resolve(self, phases: Mapping[str, int], default: str, limit: int = 0) -> tuple[Phase, int]:
        """Phase and context, checked against the phases with their default contexts and a position table."""
        phase: Any = self.phase or default
        if phase not in phases:
            raise RequestError(f"no phase '{phase}'", self.name, f"this model has: {', '.join(phases)}")
        context = phases[phase] if self.context is None else self.context
        if isinstance(context, bool) or not isinstance(context, int) or context < 1:
            raise RequestError(f"context {context!r} is not a positive number of tokens", self.name)
        if limit and context > limit:
            raise RequestError(
                f"context {context} is longer than the {limit} positions that the model has", self.name
            )
        return phase, context


@dataclass(frozen=True)
class Reading:
    """A graph read from fields, with what its ops alone do not tell.

    Attributes
    ----------
    graph : Graph
    parameters_total : int
        Of the whole model, where the graph is a part of it.
    context : int
    kv_elements_per_token : int
        Elements that one token adds to the cache.
    notes : tuple of str
        What was assumed or left out.
    """

    graph: Graph
    parameters_total: int
    context: int
    kv_elements_per_token: int = 0
    notes: tuple[str, ...] = ()
