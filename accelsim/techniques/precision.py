"""Precision plans: which format each role of tensor has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.precision import PRECISIONS, Precision, precision
from accelsim.workload.graph import Graph, Tensor

ROLES = ("weight", "activation", "kv")


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """Formats by role.

    Attributes
    ----------
    weight, activation, kv : Precision
    """

    weight: Precision
    activation: Precision
    kv: Precision

    @property
    def name(self) -> str:
        """One word when all roles agree, else ``weight=int4,activation=fp16,kv=fp16``."""
        if self.weight == self.activation == self.kv:
            return self.weight.name
        return ",".join(f"{role}={getattr(self, role).name}" for role in ROLES)


def plan(request: str | Precision | Mapping[str, str] | PrecisionPlan) -> PrecisionPlan:
    """Read a plan.

    Parameters
    ----------
    request : str or mapping
        A format for all roles (``"int8"``), or formats by role: ``{"weight": "int4", "activation": "fp16"}``
        or the same as text, ``"weight=int4,activation=fp16"``. The KV cache follows the activations unless it
        is named.

    Raises
    ------
    UnknownNameError, RequestError
    """
    if isinstance(request, PrecisionPlan):
        return request
    if isinstance(request, str) and "=" in request:
        request = dict(part.split("=", 1) for part in request.split(",") if "=" in part)
    if isinstance(request, Mapping):
        unknown = sorted(set(request) - set(ROLES))
        if unknown:
            raise RequestError(
                f"unknown role '{unknown[0]}' in a precision plan", hint=did_you_mean(unknown[0], ROLES)
            )
        if "weight" not in request or "activation" not in request:
            raise RequestError(f"precision plan {dict(request)} must name weight and activation")
        activation = precision(request["activation"])
        return PrecisionPlan(
            precision(request["weight"]), activation, precision(request.get("kv", activation))
        )
    one = precision(request)
    return PrecisionPlan(one, one, one)


@lru_cache(maxsize=128)
def with_precision(graph: Graph, formats: PrecisionPlan) -> Graph:
    """The graph with its weights, activations and KV cache in other formats; indices, masks and constants
    keep theirs.
    """

    def changed(t: Tensor) -> Tensor:
        if t.role == "constant" or t.precision.name not in PRECISIONS:
            return t
        target: Precision = getattr(formats, t.role)
        return t if t.precision == target else replace(t, precision=target)

    return graph.map_tensors(changed)


def own_precision(graph: Graph) -> str:
    """The format that most of the graph's MAC work has in the file: that of its activations, weighted by
    FLOPs.
    """
    weight: dict[str, float] = {}
    for op in graph:
        if op.flops and op.inputs[0].precision.name in PRECISIONS:
            name = op.inputs[0].precision.name
            weight[name] = weight.get(name, 0.0) + op.flops * op.repeat
    return max(weight, key=lambda n: weight[n]) if weight else "fp32"


def nearest_supported(name: str, supported: tuple[str, ...]) -> str | None:
    """The supported format closest to another: itself, else the narrowest at least as wide, floats before
    integers; else the widest.
    """
    if name in supported:
        return name
    if not supported:
        return None
    wanted = PRECISIONS[name]
    ranked = sorted(
        supported,
        key=lambda s: (
            PRECISIONS[s].bits < wanted.bits,
            PRECISIONS[s].kind != wanted.kind,
            PRECISIONS[s].bits,
        ),
    )
    wider = [s for s in ranked if PRECISIONS[s].bits >= wanted.bits]
    return wider[0] if wider else max(supported, key=lambda s: PRECISIONS[s].bits)
