"""Number formats: how many bits a value takes and what its products accumulate in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from accelsim.core.errors import RequestError, UnknownNameError, did_you_mean


@dataclass(frozen=True, slots=True)
class Precision:
    """A number format.

    Attributes
    ----------
    name : str
    bits : int
        Bits of one element, without block scales. ``tf32`` is stored in 32 bits.
    kind : str
        ``float``, ``int`` or ``block`` (elements share a scale per block).
    accumulate : str
        Format that dot products accumulate in.
    block : int
        Elements that share one scale; 0 when there is none.
    scale_bits : int
        Bits of that scale.
    """

    name: str
    bits: int
    kind: str
    accumulate: str
    block: int = 0
    scale_bits: int = 0

    @property
    def bytes_per_element(self) -> float:
        """Storage of one element [B], its share of the block scale included."""
        overhead = self.scale_bits / self.block if self.block else 0.0
        return (self.bits + overhead) / 8.0

    @property
    def is_integer(self) -> bool:
        return self.kind == "int"

    @property
    def key(self) -> str:
        """The name, with the accumulator where that is not the format's own."""
        own = PRECISIONS.get(self.name, self)
        return self.name if self.accumulate == own.accumulate else f"{self.name}+{self.accumulate}"

    def __str__(self) -> str:
        return self.name


# Block formats: OCP Microscaling v1.0 (32 elements, E8M0 scale); NVFP4: 16 elements, E4M3 scale.
PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp32", 32, "float", "fp32"),
        Precision("tf32", 32, "float", "fp32"),
        Precision("bf16", 16, "float", "fp32"),
        Precision("fp16", 16, "float", "fp32"),
        Precision("fp8_e4m3", 8, "float", "fp32"),
        Precision("fp8_e5m2", 8, "float", "fp32"),
        Precision("fp6", 6, "float", "fp32"),
        Precision("mxfp8", 8, "block", "fp32", block=32, scale_bits=8),
        Precision("mxfp4", 4, "block", "fp32", block=32, scale_bits=8),
        Precision("nvfp4", 4, "block", "fp32", block=16, scale_bits=8),
        Precision("int16", 16, "int", "int32"),
        Precision("int8", 8, "int", "int32"),
        Precision("int4", 4, "int", "int32"),
        Precision("int2", 2, "int", "int32"),
        Precision("int1", 1, "int", "int32"),
    )
}

# Formats that tensors may carry but that no matrix unit is asked to compute in: indices, masks, accumulators.
STORAGE: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp64", 64, "float", "fp64"),
        Precision("int64", 64, "int", "int64"),
        Precision("int32", 32, "int", "int32"),
        Precision("bool", 8, "int", "int32"),
    )
}

_ALIASES = {"fp8": "fp8_e4m3", "float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}


def precision(name: str | Precision, *, storage: bool = False) -> Precision:
    """Look a format up by name (``fp8`` is ``fp8_e4m3``).

    Raises
    ------
    UnknownNameError
        With the nearest names. Storage formats count only with ``storage=True``.
    """
    if isinstance(name, Precision):
        return name
    key = _ALIASES.get(str(name).lower(), str(name).lower())
    found = PRECISIONS.get(key) or (STORAGE.get(key) if storage else None)
    if found is None:
        raise UnknownNameError(f"unknown precision '{name}'", hint=did_you_mean(key, PRECISIONS))
    return found


ROLES = ("weight", "activation", "kv")


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """Formats by role, and where layers differ, by layer.

    Attributes
    ----------
    weight, activation, kv : Precision
    accumulator : Precision or None
        Format that products are summed in; None is each format's own.
    layers : tuple of (str, PrecisionPlan)
        Plans of layers whose name matches a pattern (``*`` and ``?`` as in file names); the first that
        matches counts.
    """

    weight: Precision
    activation: Precision
    kv: Precision
    accumulator: Precision | None = None
    layers: tuple[tuple[str, PrecisionPlan], ...] = ()

    @property
    def name(self) -> str:
        """One word when all roles agree, else ``weight=int4,activation=fp16,kv=fp16``; layers follow as
        ``int8; conv1|fc*: fp16``. `plan` reads it back.
        """
        parts = [self._roles]
        if self.weight == self.activation == self.kv and self.accumulator is None:
            parts = [self.weight.name]
        by_plan: list[tuple[PrecisionPlan, list[str]]] = []
        for pattern, held in self.layers:
            if not by_plan or by_plan[-1][0] != held:
                by_plan.append((held, []))
            by_plan[-1][1].append(pattern)
        parts += [f"{'|'.join(patterns)}: {held.name}" for held, patterns in by_plan]
        return "; ".join(parts)

    @property
    def _roles(self) -> str:
        text = ",".join(f"{role}={getattr(self, role).name}" for role in ROLES)
        return text if self.accumulator is None else f"{text},accumulator={self.accumulator.name}"

    def of_layer(self, name: str) -> PrecisionPlan | None:
        """The plan of a layer, or None when no pattern names it."""
        for pattern, held in self.layers:
            if pattern == name or fnmatchcase(name, pattern):
                return held
        return None


def plan(request: str | Precision | Mapping[str, Any] | PrecisionPlan) -> PrecisionPlan:
    """Read a plan.

    Parameters
    ----------
    request : str or mapping
        A format for all roles (``"int8"``), or formats by role: ``{"weight": "int4", "activation": "fp16"}``
        or the same as text, ``"weight=int4,activation=fp16"``. The KV cache follows the activations unless it
        is named; ``accumulator`` is the format of sums. Layers that differ follow by name or pattern:
        ``"int8; conv1|fc*: fp16"``, in a mapping ``{"weight": ..., "activation": ..., "layers": {"fc*":
        "fp16"}}``.

    Raises
    ------
    UnknownNameError, RequestError
    """
    if isinstance(request, PrecisionPlan):
        return request
    if isinstance(request, str) and ";" in request:
        base, *rest = (part.strip() for part in request.split(";"))
        return replace(plan(base), layers=_layers(_entry(part) for part in rest if part))
    if isinstance(request, str) and "=" in request:
        pairs = (part.partition("=") for part in request.split(","))
        request = {role.strip(): name.strip() for role, _, name in pairs}
    if isinstance(request, Mapping):
        known = (*ROLES, "accumulator", "layers")
        unknown = sorted(set(request) - set(known))
        if unknown:
            raise RequestError(
                f"unknown role '{unknown[0]}' in a precision plan", hint=did_you_mean(unknown[0], known)
            )
        if "weight" not in request or "activation" not in request:
            raise RequestError(f"precision plan {dict(request)} must name weight and activation")
        activation = precision(request["activation"])
        sums = request.get("accumulator")
        return PrecisionPlan(
            precision(request["weight"]),
            activation,
            precision(request.get("kv", activation)),
            None if sums is None else precision(sums, storage=True),
            _layers(([name], held) for name, held in request.get("layers", {}).items()),
        )
    one = precision(request)
    return PrecisionPlan(one, one, one)


def _entry(text: str) -> tuple[list[str], str]:
    """Patterns and formats of ``conv1|fc*: fp16``; a name may hold colons itself."""
    patterns, colon, formats = text.rpartition(":")
    if not colon or not patterns.strip():
        raise RequestError(f"cannot read '{text}' in a precision plan", hint="write: PATTERN: FORMAT")
    return [p.strip() for p in patterns.split("|")], formats.strip()


def _layers(entries: Iterable[tuple[list[str], Any]]) -> tuple[tuple[str, PrecisionPlan], ...]:
    found = []
    for patterns, request in entries:
        held = plan(request)
        if held.layers:
            raise RequestError("the plan of a layer has layers of its own", hint="write one list of layers")
        found += [(pattern, held) for pattern in patterns]
    return tuple(found)
