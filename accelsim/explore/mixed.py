"""Mixed precision: a format per layer that meets an error budget at the least latency or energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from accelsim.architectures import architecture_of
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PRECISIONS
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.explore.mixed_plan import MixedPrecision
from accelsim.explore.mixed_search import Search
from accelsim.hardware.spec import load_hardware
from accelsim.techniques.formats import Formats, device_plan, formats_of
from accelsim.techniques.numerics import FORMATS
from accelsim.techniques.sensitivity import SAMPLES, Sensitivity, sensitivity
from accelsim.workload.load import load_workload

OBJECTIVES = ("latency", "energy")

CANDIDATES = ("fp16", "bf16", "fp8_e4m3", "int8", "mxfp8", "nvfp4", "mxfp4", "int4", "int2")
"""Formats that the search tries where the device computes in them; of fp16 and bf16 the first."""

NARROW_WEIGHTS = ("int8", "int4")
"""Weight-only formats that it tries where the device widens weights."""


def mixed_precision(
    model: Any,
    hardware: Any,
    *,
    budget: float | None = None,
    limit: float | None = None,
    objective: str = "latency",
    formats: Sequence[Any] | None = None,
    sensitivity_of: Sensitivity | None = None,
    inputs: Mapping[str, Any] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    **settings: Any,
) -> MixedPrecision | Infeasible:
    """Choose a format per layer.

    Parameters
    ----------
    model : str or Path
        An ``.onnx`` file with its weights.
    hardware : str or Path or Device
    budget : float, optional
        Largest relative error of the network's output; the plan meets it at the least cost.
    limit : float, optional
        Largest latency [s] or energy [J]; the plan meets it with the least error. Exactly one of both.
    objective : {"latency", "energy"}
    formats : sequence, optional
        Formats to choose from; by default those that the device computes in, and narrower weights.
    sensitivity_of : Sensitivity, optional
        Of the same model, with all these formats; measured here when None.
    inputs, samples, seed, dims
        See `sensitivity`.
    **settings
        Further arguments of `simulate` (batch, stack ...).

    Returns
    -------
    MixedPrecision or Infeasible
        Infeasible when no plan meets the budget or the limit, or the device runs none of the formats.

    Raises
    ------
    AccelsimError
    """
    _check(budget, limit, objective)
    device: Any = load_hardware(hardware)
    graph = load_workload(model, dims=dims)
    wanted = [formats_of(f) for f in formats] if formats is not None else _candidates(device)
    if not wanted:
        raise RequestError("the list of formats is empty")
    request = {"workload": graph.name, "hardware": device.name}
    uniform: dict[str, Result] = {}
    refused: dict[str, Infeasible] = {}
    for choice in wanted:
        found = simulate(graph, device, precision=device_plan(choice), **settings)
        if isinstance(found, Result):
            uniform[choice.name] = found
        else:
            refused[choice.name] = found
    if not uniform:
        return next(iter(refused.values()))
    wanted = [choice for choice in wanted if choice.name in uniform]
    measured = sensitivity_of or sensitivity(
        model, wanted, inputs=inputs, samples=samples, seed=seed, dims=dims
    )
    if not measured.ran:
        raise RequestError(
            "mixed precision needs output errors, and only weights were measured", measured.model
        )
    said = tuple(f"{name} left out: {why}" for name, why in refused.items())
    search = Search(graph, device, measured, wanted, uniform, objective, settings, said)
    best, bound, exact = search.within(budget) if budget is not None else search.below(limit or 0.0)
    if best is None:
        return search.nothing(budget, limit, request)
    return search.answer(best, bound, exact)


def _check(budget: float | None, limit: float | None, objective: str) -> None:
    if objective not in OBJECTIVES:
        raise RequestError(f"unknown objective '{objective}'", hint=did_you_mean(objective, OBJECTIVES))
    if (budget is None) == (limit is None):
        raise RequestError("give either budget (output error) or limit (latency or energy)")
    for name, value in (("budget", budget), ("limit", limit)):
        if value is not None and not 0 < value < inf:
            raise RequestError(f"{name} {value!r} is not a positive number")


def _candidates(device: Any) -> list[Formats]:
    """Formats that a device computes in, and narrow weights where it widens them."""
    architecture = architecture_of(device.kind)
    have = [f for f in CANDIDATES if architecture.supports(device, f) and f in FORMATS]
    wide = next((f for f in ("fp16", "bf16") if f in have), None)
    if wide == "fp16" and "bf16" in have:
        have.remove("bf16")
    found = [formats_of(f) for f in have]
    if wide is not None and architecture.widens:
        found += [formats_of({"weight": f, "activation": wide}) for f in NARROW_WEIGHTS]
    if not architecture.widens:  # a multiplier for each pair of widths
        pairs = [(w, a) for w in have for a in have if PRECISIONS[w].bits < PRECISIONS[a].bits]
        found += [formats_of({"weight": w, "activation": a}) for w, a in pairs]
    return found or [formats_of(f) for f in architecture.precisions(device) if f in FORMATS]
