"""Fleets as files: what the command line reads.

.. code-block:: yaml

    name: vision
    places: {edge: {delay_s: 0.002, bytes_per_s: 1.0e8}, cloud: {delay_s: 0.02}}
    client: {timeout_s: 0.2, retries: 1, hedge_after_s: 0.05}
    pools:
      detector:
        balancer: nearest
        replicas:
          - {model: yolov8n, hardware: l4, count: 2, place: edge, batching: {triton: {max_batch: 8}}}
          - {model: yolov8n, hardware: h100-sxm, place: cloud, options: {precision: int8}}
      classifier:
        after: [detector]
        fan_out: 3
        autoscaler: {knative: {target: 20}}
        replicas: [{model: {linear: {fixed_s: 0.004, per_item_s: 0.0005}}, count: 1, name: measured}]
    faults: [{crash: {replica: l4-0, at_s: 5, for_s: 10}}]

Keys are the parameters of the classes that they become.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelsim.core.errors import ConfigError, RequestError, did_you_mean
from accelsim.core.yamlfile import read_yaml
from accelsim.serving.batching import Greedy, NoBatching, StaticBatch
from accelsim.serving.fleet.admission import LatencyLimit, QueueLimit, TokenBucket
from accelsim.serving.fleet.balancers import BALANCERS
from accelsim.serving.fleet.client import Client
from accelsim.serving.fleet.faults import Crash, LinkDelay, LinkLoss, Restart, Slow
from accelsim.serving.fleet.hpa import HPA
from accelsim.serving.fleet.knative import Knative
from accelsim.serving.fleet.place import Place
from accelsim.serving.fleet.replica import Replica
from accelsim.serving.fleet.spec import Fleet, Pool
from accelsim.serving.fleet.tracking import TargetTracking
from accelsim.serving.fleet.versions import Shift, Swap
from accelsim.serving.rayserve import RayServe
from accelsim.serving.service import LinearService, Overheads, TableService
from accelsim.serving.tfserving import TensorFlowServing
from accelsim.serving.torchserve import TorchServe
from accelsim.serving.triton import Triton

Kinds = Mapping[str, Callable[..., Any]]

BATCHING: Kinds = {
    "greedy": Greedy, "none": NoBatching, "static": StaticBatch, "triton": Triton, "torchserve": TorchServe,
    "tfserving": TensorFlowServing, "rayserve": RayServe,
}  # fmt: skip
LAWS: Kinds = {"linear": LinearService, "table": TableService}
ADMISSION: Kinds = {"queue": QueueLimit, "latency": LatencyLimit, "tokens": TokenBucket}
AUTOSCALERS: Kinds = {"knative": Knative, "hpa": HPA, "target_tracking": TargetTracking}
FAULTS: Kinds = {
    "crash": Crash, "restart": Restart, "slow": Slow, "link_loss": LinkLoss, "link_delay": LinkDelay,
}  # fmt: skip
TOP = ("name", "places", "client", "pools", "faults", "changes")


def read_fleet(path: str | Path) -> Fleet:
    """Read a fleet from a YAML file.

    Raises
    ------
    ConfigError
        A key or kind that is not known, a missing or wrong value; the message names the place in the file.
    """
    where = str(path)
    document = read_yaml(Path(path))
    _known(document, TOP, where)
    places = {
        name: _place(name, options, f"{where}: places.{name}")
        for name, options in _mapping(document.get("places", {}), f"{where}: places").items()
    }
    pools = tuple(
        _pool(name, options, places, f"{where}: pools.{name}")
        for name, options in _mapping(document.get("pools", {}), f"{where}: pools").items()
    )
    faults = [
        _kind(entry, FAULTS, f"{where}: faults[{i}]")
        for i, entry in enumerate(_list(document.get("faults", []), f"{where}: faults"))
    ]
    changes = [
        _change(entry, places, f"{where}: changes[{i}]")
        for i, entry in enumerate(_list(document.get("changes", []), f"{where}: changes"))
    ]
    made = {"pools": pools, "faults": faults, "changes": changes, "name": str(document.get("name", "fleet"))}
    if "client" in document:
        made["client"] = _make(Client, document["client"], f"{where}: client")
    return _call(Fleet, made, where)


def _place(name: str, options: Any, where: str) -> Place:
    return _make(Place, {"name": name, **_mapping(options, where)}, where)


def _pool(name: str, options: Any, places: Mapping[str, Place], where: str) -> Pool:
    given = {"name": name, **_mapping(options, where)}
    replicas = _list(given.get("replicas", []), f"{where}.replicas")
    given["replicas"] = tuple(
        _replica(entry, places, f"{where}.replicas[{i}]") for i, entry in enumerate(replicas)
    )
    for key, kinds in (("admission", ADMISSION), ("autoscaler", AUTOSCALERS)):
        if key in given:
            given[key] = _kind(given[key], kinds, f"{where}.{key}")
    if isinstance(given.get("balancer"), Mapping):
        given["balancer"] = _kind(given["balancer"], BALANCERS, f"{where}.balancer")
    if "client" in given:
        given["client"] = _make(Client, given["client"], f"{where}.client")
    return _make(Pool, given, where)


def _replica(options: Any, places: Mapping[str, Place], where: str) -> Replica:
    given = dict(_mapping(options, where))
    if isinstance(given.get("model"), Mapping):
        law = dict(given["model"])
        if "table" in law:
            law["table"] = {"seconds": _mapping(law["table"], f"{where}.model.table")}
        given["model"] = _kind(law, LAWS, f"{where}.model")
    if "batching" in given:
        given["batching"] = _kind(given["batching"], BATCHING, f"{where}.batching")
    if "overheads" in given:
        given["overheads"] = _make(Overheads, given["overheads"], f"{where}.overheads")
    if "place" in given:
        if given["place"] not in places:
            hint = did_you_mean(str(given["place"]), places)
            raise ConfigError(f"unknown place '{given['place']}'", f"{where}.place", hint)
        given["place"] = places[given["place"]]
    if "version" in given:
        given["version"] = str(given["version"])
    return _make(Replica, given, where)


def _change(entry: Any, places: Mapping[str, Place], where: str) -> Shift | Swap:
    given = _mapping(entry, where)
    if set(given) == {"swap"}:
        options = dict(_mapping(given["swap"], f"{where}.swap"))
        if "replica" in options:
            options["replica"] = _replica(options["replica"], places, f"{where}.swap.replica")
        return _make(Swap, options, f"{where}.swap")
    return _kind(given, {"shift": Shift, "swap": Swap}, where)


def _kind(entry: Any, kinds: Kinds, where: str) -> Any:
    """``{kind: {options}}``, or a kind alone, as an object."""
    given = {entry: {}} if isinstance(entry, str) else _mapping(entry, where)
    if len(given) != 1:
        raise ConfigError("expected one kind with its options", where, f"known are {', '.join(kinds)}")
    ((kind, options),) = given.items()
    if kind not in kinds:
        raise ConfigError(f"unknown kind '{kind}'", where, did_you_mean(str(kind), kinds))
    return _make(kinds[kind], options or {}, f"{where}.{kind}")


def _make(made: Callable[..., Any], options: Any, where: str) -> Any:
    """An object from a mapping of its parameters."""
    given = _mapping(options, where)
    parameters = inspect.signature(made).parameters
    _known(given, tuple(parameters), where)
    for name, parameter in parameters.items():
        if name not in given:
            if parameter.default is inspect.Parameter.empty:
                raise ConfigError(f"'{name}' is missing", where)
            continue
        number = isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
        value = given[name]
        if number and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"'{value}' is not a number", f"{where}.{name}")
    return _call(made, given, where)


def _call(made: Callable[..., Any], given: Mapping[str, Any], where: str) -> Any:
    try:
        return made(**given)
    except RequestError as error:
        raise ConfigError(error.what, where, error.hint) from None
    except (TypeError, ValueError, AttributeError):
        raise ConfigError("a value has the wrong type", where, "see the class's parameters") from None


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"expected keys and values, got '{value}'", where)
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"expected a list, got '{value}'", where)
    return value


def _known(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"unknown key '{key}'", where, did_you_mean(str(key), known))
