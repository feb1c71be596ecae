"""A kind of replica, as users name it: a model on hardware with its batching, its place and its price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError
from accelsim.hardware.spec import load_hardware
from accelsim.serving.batching import Greedy
from accelsim.serving.fleet.checks import at_least, finite
from accelsim.serving.fleet.place import Place
from accelsim.serving.llm.policy import ContinuousBatching
from accelsim.serving.service import DeviceService, Overheads, ServiceLaw, Times
from accelsim.serving.station import Policy

DRAWS = 16
"""Random factors of a law that count for its identity."""


@dataclass(frozen=True)
class Replica:
    """A kind of replica, and how many of it there are at the start.

    Parameters
    ----------
    model : ServiceLaw, or a workload
        As in `serve`.
    hardware : str, Path or Device, optional
        Needed for a workload; also names the price and the idle power of a law.
    batching : Policy or ContinuousBatching
        How each replica batches; with the latter it serves a language model token by token.
    count : int
        Replicas at the start; 0 only where an autoscaler adds them.
    name : str
        The hardware's name by default.
    version : str
        Version of the model, for traffic splits.
    place : Place
        Where it stands.
    weight : float, optional
        For the weighted balancer; its capacity by default.
    start_s : float
        Cold start: from the decision to the first request [s].
    overheads : Overheads
        What its server adds around executions.
    usd_per_hour : float, optional
        Price of one replica [USD/h]; the hardware's by default, NaN when unknown.
    idle_w : float, optional
        Power while it runs nothing [W]; the hardware's by default, NaN when unknown.
    options : mapping
        For `simulate`: precision, stack, devices ...; of a language model ``parallel``, ``precision``,
        ``host`` and ``skew``, see `accelsim.serving.llm.serve.serve_tokens`.
    """

    model: Any
    hardware: Any = None
    batching: Policy | ContinuousBatching = field(default_factory=Greedy)
    count: int = 1
    name: str = ""
    version: str = "1"
    place: Place = field(default_factory=Place)
    weight: float | None = None
    start_s: float = 0.0
    overheads: Overheads = field(default_factory=Overheads)
    usd_per_hour: float | None = None
    idle_w: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise RequestError(f"the number of replicas must not be negative, got {self.count}")
        finite("the cold start", self.start_s)
        if self.weight is not None:
            at_least("the weight of a replica", self.weight)
        if not self.name:
            kind = getattr(self.hardware, "name", self.hardware)
            object.__setattr__(self, "name", str(kind) if kind is not None else "replica")
        if not isinstance(self.model, ServiceLaw) and self.hardware is None:
            raise RequestError("a workload needs hardware", hint="pass hardware=..., or a law as the model")
        if isinstance(self.batching, ContinuousBatching):
            if isinstance(self.model, ServiceLaw):
                raise RequestError("continuous batching needs a language model, not a law")
            if self.overheads != Overheads():
                raise RequestError(
                    "overheads belong to other servers", hint="pass options={'host': Host(...)}"
                )


class Kind:
    """A `Replica` with what all servers of the kind share.

    Attributes
    ----------
    spec : Replica
    instances, max_batch : int
        Of each server.
    capacity_per_s : float
        Largest sustained rate of one server [1/s].
    devices : int
        Of each server.
    input_output_s : float
        Client to queue and answer to client, together [s].
    """

    instances: int
    max_batch: int
    capacity_per_s: float
    devices: int
    input_output_s: float

    def __init__(self, spec: Replica) -> None:
        self.spec = spec

    @property
    def weight(self) -> float:
        """For the weighted balancer."""
        return self.spec.weight if self.spec.weight is not None else self.capacity_per_s

    @cached_property
    def device(self) -> Any:
        """The hardware, None where a law has none."""
        return load_hardware(self.spec.hardware) if self.spec.hardware is not None else None

    @cached_property
    def usd_per_hour(self) -> float:
        """[USD/h]; NaN when unknown."""
        if self.spec.usd_per_hour is not None:
            return self.spec.usd_per_hour
        hourly = None if self.device is None else self.device.cost.hourly_usd
        return math.nan if hourly is None else float(hourly) * self.devices

    @cached_property
    def idle_w(self) -> float:
        """[W]; NaN when unknown."""
        if self.spec.idle_w is not None:
            return self.spec.idle_w
        idle = self.device.power.idle_w if self.device is not None else None
        return math.nan if idle is None else float(idle) * self.devices

    def clock(self, number: int) -> Any:
        """What a server's executions take, with its present slowness."""
        raise NotImplementedError

    def joules(self, server: Any) -> NDArray[np.float64] | None:
        """Energy of each execution of a server [J], None when unknown."""
        raise NotImplementedError

    def identity(self) -> bytes:
        """Its numbers, for the stamp."""
        raise NotImplementedError

    def hashes(self) -> tuple[str, str]:
        """Of the hardware and the workload; empty for a law."""
        raise NotImplementedError


class BatchKind(Kind):
    """A kind whose servers run a batch at a time: its latency surface is computed."""

    def __init__(self, spec: Replica, seed: int) -> None:
        super().__init__(spec)
        self.seed = seed
        policy: Any = spec.batching
        most = self.max_batch = policy.max_batch
        self.instances = policy.instances
        if isinstance(spec.model, ServiceLaw):
            if spec.options:
                raise RequestError("a service law brings its own times", hint="leave the options out")
            self.law: ServiceLaw = spec.model
        else:
            self.law = DeviceService.of(spec.model, spec.hardware, max_batch=most, **spec.options)
        self.times = Times.of(self.law, spec.overheads, most)
        self.capacity_per_s = self.times.capacity_per_s(most, policy.instances)
        self.devices = int(spec.options.get("devices", 1))
        self.input_output_s = spec.overheads.input_output_s
        energy = getattr(self.law, "energy_j", None)
        self.energy_j = np.array([0.0, *(energy(b) for b in range(1, most + 1))]) if energy else None

    @cached_property
    def usd_per_hour(self) -> float:
        """[USD/h]; NaN when unknown."""
        price = getattr(self.law, "usd_per_hour", math.nan)
        known = self.spec.usd_per_hour is None and not math.isnan(price)
        return float(price) if known else super().usd_per_hour

    def clock(self, number: int) -> Clock:
        return Clock(self, number)

    def joules(self, server: Any) -> NDArray[np.float64] | None:
        if self.energy_j is None:
            return None
        found: NDArray[np.float64] = self.energy_j[
            np.array([x.padded for x in server.executions], dtype=np.int64)
        ]
        return found

    def identity(self) -> bytes:
        times = self.times
        draw = getattr(self.law, "factors", None)
        drawn = draw(DRAWS, self.seed) if draw is not None else None
        tables = times.service_ns.tobytes() + times.held_ns.tobytes() + times.gap_ns.tobytes()
        return tables + (b"-" if drawn is None else drawn.tobytes())

    def hashes(self) -> tuple[str, str]:
        if not isinstance(self.law, DeviceService):
            return "", ""
        stamp = self.law.results[self.law.grid[0]].stamp
        return stamp.hardware_hash, stamp.workload_hash


class Clock:
    """`Times` of one server: its own random factors, drawn as they are needed, and its present slowness."""

    def __init__(self, kind: BatchKind, number: int) -> None:
        times = kind.times
        self.wake_ns, self.answer_ns = times.wake_ns, times.answer_ns
        self.slow = 1.0
        self._service = [int(t) for t in times.service_ns]
        self._held = [int(t) for t in times.held_ns]
        self._gap = [int(t) for t in times.gap_ns]
        self._draw = getattr(kind.law, "factors", None)
        self._seed = kind.seed + 7919 * number
        self._factors: list[float] | None = None
        if self._draw is not None:
            self._grow(1024)

    def _grow(self, n: int) -> None:
        drawn = self._draw(n, self._seed)  # type: ignore[misc]
        self._factors = None if drawn is None else drawn.tolist()

    def of_execution(self, index: int, batch: int) -> tuple[int, int]:
        """Service time and time until the instance is free, of one execution [ns]; see `Times`."""
        service, held, factor = self._service[batch], self._held[batch], self.slow
        if self._factors is not None:
            if index >= len(self._factors):
                self._grow(2 * index + 1)
            factor *= self._factors[index]
        if factor != 1.0:
            service, held = int(service * factor + 0.5), int(held * factor + 0.5)
        return service, held + self._gap[batch]
