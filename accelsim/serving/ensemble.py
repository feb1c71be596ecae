"""Ensembles: models in a data flow, each with its own scheduler and instances."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import ConfigError, RequestError, did_you_mean
from accelsim.serving.limiter import RateLimiter
from accelsim.serving.log import Log
from accelsim.serving.requests import Requests
from accelsim.serving.service import Times
from accelsim.serving.station import (
    ARRIVAL,
    COMPLETED,
    Moment,
    Policy,
    Request,
    Station,
    environment,
    requests_of,
)

if TYPE_CHECKING:
    from accelsim.serving.triton_config import TritonModel


@dataclass(frozen=True)
class Stage:
    """One model of an ensemble.

    Parameters
    ----------
    name : str
    model : ServiceLaw, or a workload
        As in `serve`.
    batching : Policy
    after : sequence of str
        Stages whose answers it needs; none for those that take the request itself.
    """

    name: str
    model: Any
    batching: Policy
    after: tuple[str, ...] = ()


class Ensemble:
    """Stages of a data flow; a stage fires when its inputs exist, a request is done when all stages are.

    Parameters
    ----------
    *stages : Stage
    name : str
    max_inflight : int
        Requests inside a stage at most, further ones wait in front of it in their order
        (``max_inflight_requests`` of Triton); 0 is no cap.

    Raises
    ------
    RequestError
        No stages, two of one name, an unknown input, or a cycle.
    """

    def __init__(self, *stages: Stage, name: str = "ensemble", max_inflight: int = 0) -> None:
        if not stages:
            raise RequestError("an ensemble needs at least one stage")
        if max_inflight < 0:
            raise RequestError(f"requests in flight must not be negative, got {max_inflight}")
        names = [s.name for s in stages]
        for s in stages:
            if names.count(s.name) > 1:
                raise RequestError(f"two stages of the ensemble are called '{s.name}'")
            for needed in s.after:
                if needed not in names:
                    hint = did_you_mean(needed, names)
                    raise RequestError(f"stage '{s.name}' needs '{needed}', which is no stage", hint=hint)
        self.name = name
        self.max_inflight = max_inflight
        self.stages = _in_order(stages)

    def __repr__(self) -> str:
        return f"Ensemble({', '.join(map(repr, self.stages))}, max_inflight={self.max_inflight})"

    @classmethod
    def from_config(cls, path: str | Path, models: Mapping[str, Any]) -> Ensemble:
        """The ensemble of a ``config.pbtxt``; its models lie in sibling folders of the model repository.

        Parameters
        ----------
        path : path
            ``config.pbtxt`` of the ensemble.
        models : mapping of str to ServiceLaw or workload
            What each composing model is.
        """
        from accelsim.serving.triton_config import read

        whole = read(path)
        repository = Path(path).parent.parent
        parts = {
            step.model: read(repository / step.model / "config.pbtxt")
            for step in whole.steps
            if (repository / step.model / "config.pbtxt").exists()
        }
        return cls.of(whole, parts, models)

    @classmethod
    def of(cls, whole: TritonModel, parts: Mapping[str, TritonModel], models: Mapping[str, Any]) -> Ensemble:
        """The ensemble of a configuration that has been read, with those of its models."""
        maker: dict[str, str] = {}
        labels = _labels([step.model for step in whole.steps])
        for label, step in zip(labels, whole.steps):
            for tensor in step.outputs:
                if tensor in maker:
                    raise ConfigError(f"two steps of '{whole.name}' make the tensor '{tensor}'", whole.name)
                maker[tensor] = label
        stages = []
        for label, step in zip(labels, whole.steps):
            if step.model not in parts or step.model not in models:
                known = sorted(set(parts) & set(models))
                raise ConfigError(
                    f"nothing known of the model '{step.model}'", whole.name, did_you_mean(step.model, known)
                )
            for tensor in step.inputs:
                if tensor not in maker and tensor not in whole.inputs:
                    raise ConfigError(f"no step makes the tensor '{tensor}'", whole.name)
            after = tuple(dict.fromkeys(maker[t] for t in step.inputs if t in maker))
            stages.append(Stage(label, models[step.model], parts[step.model].policy, after))
        return cls(*stages, name=whole.name, max_inflight=whole.max_inflight)


def _labels(names: Sequence[str]) -> list[str]:
    """Names made unique: the second step of one model is ``model#2``."""
    return [n if names[:i].count(n) == 0 else f"{n}#{names[:i].count(n) + 1}" for i, n in enumerate(names)]


def _in_order(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Stages with those that they need in front.

    Raises
    ------
    RequestError
        There is a cycle.
    """
    left, done = list(stages), list[Stage]()
    while left:
        ready = [s for s in left if all(n in {d.name for d in done} for n in s.after)]
        if not ready:
            raise RequestError(f"the ensemble has a cycle through {', '.join(s.name for s in left)}")
        done += ready
        left = [s for s in left if s not in ready]
    return tuple(done)


def run(
    requests: Requests,
    ensemble: Ensemble,
    times: Mapping[str, Times],
    limiter: RateLimiter | None = None,
) -> tuple[Log, dict[str, Log]]:
    """Serve requests through all stages, on the simpy engine.

    Returns
    -------
    Log, dict of str to Log
        The requests from end to end (without executions), and each stage's own.
    """
    env = environment()
    whole = requests_of(requests)
    sent: dict[str, list[Request]] = {s.name: [] for s in ensemble.stages}
    owner: dict[str, list[int]] = {s.name: [] for s in ensemble.stages}
    missing = [{s.name: set(s.after) for s in ensemble.stages} for _ in whole]
    open_stages = [len(ensemble.stages)] * len(whole)
    stations: dict[str, Station] = {}
    inside = dict.fromkeys(sent, 0)
    queued: dict[str, deque[int]] = {name: deque() for name in sent}

    def fire(name: str, index: int) -> None:
        queued[name].append(index)
        let_in(name)

    def let_in(name: str) -> None:
        """Those that wait in front of a stage enter it while there is room."""
        while queued[name] and not 0 < ensemble.max_inflight <= inside[name]:
            index = queued[name].popleft()
            if whole[index].finish_ns < 0:
                inside[name] += 1
                submit(name, index)

    def submit(name: str, index: int) -> None:
        first = whole[index]
        copy = Request(len(sent[name]), env.now, first.priority, first.timeout_ns, first.sequence)
        sent[name].append(copy)
        owner[name].append(index)
        stations[name].submit(copy)

    def answered(name: str, part: Request) -> None:
        index = owner[name][part.index]
        request = whole[index]
        inside[name] -= 1
        if queued[name]:  # by way of the clock: the stage is in the middle of an answer or a refusal
            Moment(env, 0, ARRIVAL, partial(let_in, name))
        if part.status != COMPLETED:
            # A refused step ends the request; what other steps still do for it is lost.
            if request.finish_ns < 0:
                request.status, request.finish_ns = part.status, env.now
            return
        open_stages[index] -= 1
        if open_stages[index] == 0 and request.finish_ns < 0:
            request.status, request.finish_ns = COMPLETED, env.now
        for other, needs in missing[index].items():
            if name in needs:
                needs.remove(name)
                if not needs and request.finish_ns < 0:
                    fire(other, index)

    def enter(request: Request) -> None:
        for stage in ensemble.stages:
            if not stage.after:
                fire(stage.name, request.index)

    for stage in ensemble.stages:
        policy, clock = stage.batching, times[stage.name]
        stations[stage.name] = Station(env, policy, clock, partial(answered, stage.name))
        limit = getattr(policy, "rate_limit", None)
        if limiter is not None and limit is not None:
            limiter.join(stations[stage.name], limit)
    for request in whole:
        Moment(env, request.arrival_ns, ARRIVAL, partial(enter, request))
    env.run()
    while any(held := [s for s in stations.values() if not s.closed]):
        held[0].close()
        env.run()
    log = Log.of(whole, None)
    return log, {name: Log.of(sent[name], station) for name, station in stations.items()}
