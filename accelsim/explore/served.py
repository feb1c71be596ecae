"""Points that are served: a model under traffic, where a space has a rate or arrivals."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError
from accelsim.hardware.spec import load_hardware
from accelsim.serving.arrivals import Poisson
from accelsim.serving.batching import Greedy
from accelsim.serving.fleet.document import BATCHING
from accelsim.serving.fleet.reading import one_of
from accelsim.serving.fleet.traffic import arrivals_of
from accelsim.serving.llm.policy import ContinuousBatching
from accelsim.serving.llm.serve import serve_tokens
from accelsim.serving.requests import Requests
from accelsim.serving.serve import serve
from accelsim.serving.service import DeviceService

MOST_LAWS = 64
"""Latency surfaces that are kept."""

_LAWS: dict[str, DeviceService] = {}

TRIGGERS = ("rate_per_s", "arrivals")
LENGTHS = ("prompt_tokens", "output_tokens", "prefix_tokens", "prefix_groups")


def is_served(names: Any) -> bool:
    """Whether a space with these axes asks for serving."""
    return any(name in names for name in TRIGGERS)


def arguments() -> tuple[str, ...]:
    """Axes of a served space, beside those of `simulate`."""
    found = [*TRIGGERS, *LENGTHS]
    for call in (serve, serve_tokens):
        found += [n for n in inspect.signature(call).parameters if n not in ("models", "model", "options")]
    return tuple(dict.fromkeys(found))


def check(axes: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a served space that makes no sense.

    Raises
    ------
    RequestError
        Both or neither of rate and arrivals in a point, a batch, arrivals that have no text of their own.
    ConfigError
        Arrivals or batching, written as in a fleet's file, that are not known.
    """
    if all(name in axes for name in TRIGGERS):
        raise RequestError("a served point has rate_per_s or arrivals, not both")
    if axes["batch"] != (1,):
        raise RequestError(
            "the batches of a served model are what its batching makes", hint="leave batch out"
        )
    for name in LENGTHS:
        if name in axes and "arrivals" in axes:
            raise RequestError(f"'{name}' goes with rate_per_s", hint="arrivals bring their own lengths")
    for value in axes.get("arrivals", ()):
        if isinstance(value, Requests):
            raise RequestError("arrivals of a space are processes or traces", hint="write them to a trace")
        _arrivals(value)
    for value in axes.get("batching", ()):
        _batching(value)


def summary_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The summary of one served point; `settings` are its axes, with the hardware ready."""
    given = {name: value for name, value in settings.items() if name not in ("workload", "batch")}
    lengths = {name: given.pop(name) for name in LENGTHS if name in given}
    if "rate_per_s" in given:
        given["arrivals"] = Poisson(given.pop("rate_per_s"), **lengths)
    else:
        given["arrivals"] = _arrivals(given["arrivals"])
    batching = _batching(given.pop("batching", None))
    model, device, precision = settings["workload"], given.pop("hardware"), given.pop("precision")
    if isinstance(batching, ContinuousBatching):
        outcome: Any = serve(model, device, batching=batching, precision=precision, **given)
    else:
        known = inspect.signature(serve).parameters
        options = {name: given.pop(name) for name in tuple(given) if name not in known}
        policy = Greedy() if batching is None else batching
        try:
            law = _law(model, device, policy.max_batch, {"precision": precision, **options})
            outcome = serve(law, batching=policy, **given)
        except InfeasibleError as error:
            outcome = error.outcome
    asked = {"workload": getattr(model, "name", str(model)), "hardware": load_hardware(device).name}
    return {**outcome.summary, **asked, "precision": "" if precision is None else str(precision)}


def _law(model: Any, device: Any, most: int, options: Mapping[str, Any]) -> DeviceService:
    """The latency surface of a model on a device; points that differ in traffic alone share it."""
    key = repr((getattr(model, "hash", model), load_hardware(device).hash, most, sorted(options.items())))
    if key not in _LAWS:
        _LAWS[key] = DeviceService.of(model, device, max_batch=most, **options)
        if len(_LAWS) > MOST_LAWS:
            del _LAWS[next(iter(_LAWS))]
    return _LAWS[key]


def _arrivals(value: Any) -> Any:
    return arrivals_of(value, "arrivals") if isinstance(value, Mapping | list) else value


def _batching(value: Any) -> Any:
    return one_of(value, BATCHING, "batching") if isinstance(value, Mapping | str) else value
