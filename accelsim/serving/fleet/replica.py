"""A kind of replica, as users name it: a model on hardware with its batching, its place and its price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from accelsim.core.errors import RequestError
from accelsim.hardware.spec import load_hardware
from accelsim.serving.batching import Greedy
from accelsim.serving.fleet.checks import at_least, finite
from accelsim.serving.fleet.place import Place
from accelsim.serving.service import DeviceService, Overheads, ServiceLaw, Times
from accelsim.serving.station import Policy


@dataclass(frozen=True)
class Replica:
    """A kind of replica, and how many of it there are at the start.

    Parameters
    ----------
    model : ServiceLaw, or a workload
        As in `serve`.
    hardware : str, Path or Device, optional
        Needed for a workload; also names the price and the idle power of a law.
    batching : Policy
        How each replica batches.
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
        For `simulate`: precision, stack, devices ...
    """

    model: Any
    hardware: Any = None
    batching: Policy = field(default_factory=Greedy)
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


class Kind:
    """A `Replica` with its latency surface computed: what all servers of the kind share."""

    def __init__(self, spec: Replica, seed: int) -> None:
        self.spec = spec
        self.seed = seed
        policy = spec.batching
        most = policy.max_batch
        if isinstance(spec.model, ServiceLaw):
            if spec.options:
                raise RequestError("a service law brings its own times", hint="leave the options out")
            self.law: ServiceLaw = spec.model
        else:
            self.law = DeviceService.of(spec.model, spec.hardware, max_batch=most, **spec.options)
        self.times = Times.of(self.law, spec.overheads, most)
        self.capacity_per_s = self.times.capacity_per_s(most, policy.instances)
        self.weight = spec.weight if spec.weight is not None else self.capacity_per_s
        energy = getattr(self.law, "energy_j", None)
        self.energy_j = np.array([0.0, *(energy(b) for b in range(1, most + 1))]) if energy else None

    @cached_property
    def _device(self) -> Any:
        return load_hardware(self.spec.hardware) if self.spec.hardware is not None else None

    @cached_property
    def usd_per_hour(self) -> float:
        """[USD/h]; NaN when unknown."""
        if self.spec.usd_per_hour is not None:
            return self.spec.usd_per_hour
        price = getattr(self.law, "usd_per_hour", math.nan)
        if math.isnan(price) and self._device is not None and self._device.cost.hourly_usd is not None:
            return float(self._device.cost.hourly_usd) * int(self.spec.options.get("devices", 1))
        return float(price)

    @cached_property
    def idle_w(self) -> float:
        """[W]; NaN when unknown."""
        if self.spec.idle_w is not None:
            return self.spec.idle_w
        idle = self._device.power.idle_w if self._device is not None else None
        return math.nan if idle is None else float(idle) * int(self.spec.options.get("devices", 1))


class Clock:
    """`Times` of one server: its own random factors, drawn as they are needed, and its present slowness."""

    def __init__(self, kind: Kind, number: int) -> None:
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
