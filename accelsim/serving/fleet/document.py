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
    traffic: {arrivals: {poisson: {rate_per_s: 300}}, requests: 20000, slo_s: 0.1}

A language model takes ``batching: {vllm: {max_num_seqs: 128}}`` (or ``sglang``, ``trtllm``), ``options:
{parallel: {tensor: 2}}``, arrivals with ``prompt_tokens`` and ``output_tokens``, and ``slo: {ttft_s: 0.5}``.

Keys are the parameters of the classes that they become.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelsim.core.errors import ConfigError, RequestError, did_you_mean
from accelsim.core.outcome import Infeasible
from accelsim.core.yamlfile import read_yaml
from accelsim.serving.arrivals import Arrivals, ClosedLoop
from accelsim.serving.batching import Greedy, NoBatching, StaticBatch
from accelsim.serving.fleet.admission import LatencyLimit, QueueLimit, TokenBucket
from accelsim.serving.fleet.balancers import BALANCERS
from accelsim.serving.fleet.client import Client
from accelsim.serving.fleet.faults import Crash, LinkDelay, LinkLoss, Restart, Slow
from accelsim.serving.fleet.hpa import HPA
from accelsim.serving.fleet.knative import Knative
from accelsim.serving.fleet.outcome import FleetResult
from accelsim.serving.fleet.place import Place
from accelsim.serving.fleet.reading import Kinds, call, check_keys, listed, make, mapping, one_of
from accelsim.serving.fleet.replica import Replica
from accelsim.serving.fleet.serve import serve_fleet
from accelsim.serving.fleet.spec import Fleet, Pool
from accelsim.serving.fleet.tracking import TargetTracking
from accelsim.serving.fleet.traffic import read_traffic
from accelsim.serving.fleet.versions import Shift, Swap
from accelsim.serving.llm.policy import ENGINES, ContinuousBatching, Host, Speculative
from accelsim.serving.rayserve import RayServe
from accelsim.serving.requests import Requests
from accelsim.serving.service import LinearService, Overheads, TableService
from accelsim.serving.tfserving import TensorFlowServing
from accelsim.serving.torchserve import TorchServe
from accelsim.serving.triton import Triton

BATCHING: Kinds = {
    "greedy": Greedy, "none": NoBatching, "static": StaticBatch, "triton": Triton, "torchserve": TorchServe,
    "tfserving": TensorFlowServing, "rayserve": RayServe,
    **{engine: partial(ContinuousBatching, engine) for engine in ENGINES},
}  # fmt: skip
LAWS: Kinds = {"linear": LinearService, "table": TableService}
ADMISSION: Kinds = {"queue": QueueLimit, "latency": LatencyLimit, "tokens": TokenBucket}
AUTOSCALERS: Kinds = {"knative": Knative, "hpa": HPA, "target_tracking": TargetTracking}
FAULTS: Kinds = {
    "crash": Crash, "restart": Restart, "slow": Slow, "link_loss": LinkLoss, "link_delay": LinkDelay,
}  # fmt: skip
TOP = ("name", "places", "client", "pools", "faults", "changes", "traffic")


def serve_file(
    path: str | Path,
    *,
    arrivals: Arrivals | ClosedLoop | Requests | None = None,
    requests: int | None = None,
    seed: int | None = None,
    warmup: float | None = None,
    slo_s: float | None = None,
    slo: Mapping[str, float] | None = None,
) -> FleetResult | Infeasible:
    """Serve the traffic of a file, or another, with the fleet of the file.

    Parameters
    ----------
    path : str or Path
        See above; ``traffic:`` has the parameters of `serve_fleet`.
    arrivals, requests, seed, warmup, slo_s, slo
        As in `serve_fleet`; instead of those of the file.

    Raises
    ------
    ConfigError
        A key or kind that is not known, a missing or wrong value; the message names the place in the file.
    RequestError
        Neither the file nor the call says what arrives.
    """
    fleet = read_fleet(path)
    document = read_yaml(Path(path))
    given = read_traffic(document.get("traffic", {}), Path(path))
    asked: dict[str, Any] = {"arrivals": arrivals, "requests": requests, "seed": seed, "warmup": warmup}
    asked |= {"slo_s": slo_s, "slo": slo}
    given |= {name: value for name, value in asked.items() if value is not None}
    if "arrivals" not in given:
        hint = "add traffic: {arrivals: {poisson: {rate_per_s: 10}}}, or pass arrivals"
        raise RequestError("nothing says what arrives", str(path), hint)
    return serve_fleet(fleet, **given)


def read_fleet(path: str | Path) -> Fleet:
    """Read a fleet from a YAML file.

    Raises
    ------
    ConfigError
        A key or kind that is not known, a missing or wrong value; the message names the place in the file.
    """
    where = str(path)
    document = read_yaml(Path(path))
    check_keys(document, TOP, where)
    places = {
        name: _place(name, options, f"{where}: places.{name}")
        for name, options in mapping(document.get("places", {}), f"{where}: places").items()
    }
    pools = tuple(
        _pool(name, options, places, f"{where}: pools.{name}")
        for name, options in mapping(document.get("pools", {}), f"{where}: pools").items()
    )
    faults = [
        one_of(entry, FAULTS, f"{where}: faults[{i}]")
        for i, entry in enumerate(listed(document.get("faults", []), f"{where}: faults"))
    ]
    changes = [
        _change(entry, places, f"{where}: changes[{i}]")
        for i, entry in enumerate(listed(document.get("changes", []), f"{where}: changes"))
    ]
    made = {"pools": pools, "faults": faults, "changes": changes, "name": str(document.get("name", "fleet"))}
    if "client" in document:
        made["client"] = make(Client, document["client"], f"{where}: client")
    return call(Fleet, made, where)


def _place(name: str, options: Any, where: str) -> Place:
    return make(Place, {"name": name, **mapping(options, where)}, where)


def _pool(name: str, options: Any, places: Mapping[str, Place], where: str) -> Pool:
    given = {"name": name, **mapping(options, where)}
    replicas = listed(given.get("replicas", []), f"{where}.replicas")
    given["replicas"] = tuple(
        _replica(entry, places, f"{where}.replicas[{i}]") for i, entry in enumerate(replicas)
    )
    for key, kinds in (("admission", ADMISSION), ("autoscaler", AUTOSCALERS)):
        if key in given:
            given[key] = one_of(given[key], kinds, f"{where}.{key}")
    if isinstance(given.get("balancer"), Mapping):
        given["balancer"] = one_of(given["balancer"], BALANCERS, f"{where}.balancer")
    if "client" in given:
        given["client"] = make(Client, given["client"], f"{where}.client")
    return make(Pool, given, where)


def _replica(options: Any, places: Mapping[str, Place], where: str) -> Replica:
    given = dict(mapping(options, where))
    if isinstance(given.get("model"), Mapping):
        law = dict(given["model"])
        if "table" in law:
            law["table"] = {"seconds": mapping(law["table"], f"{where}.model.table")}
        given["model"] = one_of(law, LAWS, f"{where}.model")
    if "batching" in given:
        given["batching"] = _batching(given["batching"], f"{where}.batching")
    host = given["options"].get("host") if isinstance(given.get("options"), Mapping) else None
    if isinstance(host, Mapping):
        given["options"] = {**given["options"], "host": make(Host, host, f"{where}.options.host")}
    if "overheads" in given:
        given["overheads"] = make(Overheads, given["overheads"], f"{where}.overheads")
    if "place" in given:
        if given["place"] not in places:
            hint = did_you_mean(str(given["place"]), places)
            raise ConfigError(f"unknown place '{given['place']}'", f"{where}.place", hint)
        given["place"] = places[given["place"]]
    if "version" in given:
        given["version"] = str(given["version"])
    return make(Replica, given, where)


def _batching(entry: Any, where: str) -> Any:
    """A way of batching; of an engine of language models with speculative decoding in it."""
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, options),) = entry.items()
        if isinstance(options, Mapping) and isinstance(options.get("speculative"), Mapping):
            drafts = make(Speculative, options["speculative"], f"{where}.{name}.speculative")
            entry = {name: {**options, "speculative": drafts}}
    return one_of(entry, BATCHING, where)


def _change(entry: Any, places: Mapping[str, Place], where: str) -> Shift | Swap:
    given = mapping(entry, where)
    if set(given) == {"swap"}:
        options = dict(mapping(given["swap"], f"{where}.swap"))
        if "replica" in options:
            options["replica"] = _replica(options["replica"], places, f"{where}.swap.replica")
        return make(Swap, options, f"{where}.swap")
    return one_of(given, {"shift": Shift, "swap": Swap}, where)
