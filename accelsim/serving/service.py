"""How long a batch occupies an instance: service laws and the overheads that a server adds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.serving.requests import to_ns

Floats = NDArray[np.float64]


@runtime_checkable
class ServiceLaw(Protocol):
    """Time of a batch on one instance.

    A law may also have ``occupied_s(batch)`` (when the next batch may enter, shorter than the service in a
    pipeline), ``factors(n, seed)`` (random multipliers with mean 1, one per execution in order of start),
    ``energy_j(batch)`` and ``usd_per_hour``; `Times` and `ServeResult` use what is there.
    """

    def service_s(self, batch: int) -> float:
        """From the start of a batch to its answers [s]."""
        ...


@dataclass(frozen=True)
class LinearService:
    """``s(b) = fixed + per_item * b``.

    Parameters
    ----------
    fixed_s, per_item_s : float
        [s]
    """

    fixed_s: float
    per_item_s: float = 0.0

    def __post_init__(self) -> None:
        if not (self.fixed_s >= 0 and self.per_item_s >= 0 and self.fixed_s + self.per_item_s > 0):
            raise RequestError(f"service times must be positive, got {self.fixed_s} + {self.per_item_s} b")

    def service_s(self, batch: int) -> float:
        return self.fixed_s + self.per_item_s * batch


@dataclass(frozen=True)
class TableService:
    """Measured times at some batches, straight lines between them; the last line goes on beyond.

    Parameters
    ----------
    seconds : mapping of int to float
        Batch to time [s].
    """

    seconds: Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise RequestError("a table of service times needs at least one batch")
        for batch, value in self.seconds.items():
            if batch < 1 or not (value > 0 and math.isfinite(value)):
                raise RequestError(f"service time of batch {batch} must be positive, got {value}")

    def service_s(self, batch: int) -> float:
        return interpolate(self.seconds, batch)


def interpolate(table: Mapping[int, float], batch: int) -> float:
    """Straight lines between the batches of a table; beyond the last, its last slope goes on."""
    known = sorted(table)
    if batch in table:
        return float(table[batch])
    if len(known) == 1 or batch < known[0]:
        return float(table[known[0]]) * max(1.0, batch / known[0])
    high = next((k for k in known if k > batch), known[-1])
    low = known[known.index(high) - 1]
    slope = (table[high] - table[low]) / (high - low)
    return float(table[low] + slope * (batch - low))


@dataclass(frozen=True)
class RandomService:
    """A law whose executions vary: gamma-distributed with the law's mean.

    Parameters
    ----------
    law : ServiceLaw
    cv : float
        Standard deviation over mean: 0 is deterministic, 1 exponential.
    """

    law: ServiceLaw
    cv: float = 1.0

    def __post_init__(self) -> None:
        if not self.cv >= 0:
            raise RequestError(f"a coefficient of variation must not be negative, got {self.cv}")

    def service_s(self, batch: int) -> float:
        return self.law.service_s(batch)

    def factors(self, n: int, seed: int) -> Floats | None:
        if self.cv == 0:
            return None
        shape = 1.0 / self.cv**2
        return np.random.default_rng([seed, 3]).gamma(shape, 1.0 / shape, n)


def ExponentialService(mean_s: float) -> RandomService:
    """Exponential service, whatever the batch (the M of M/M/1).

    Parameters
    ----------
    mean_s : float
        [s]

    Returns
    -------
    RandomService
    """
    return RandomService(LinearService(mean_s), cv=1.0)


@dataclass(frozen=True)
class SampledService:
    """Executions drawn with replacement from observed times, whatever the batch (the G of M/G/1).

    Parameters
    ----------
    observed_s : sequence of float
        [s]
    """

    observed_s: Sequence[float]

    def __post_init__(self) -> None:
        if not len(self.observed_s) or min(self.observed_s) <= 0:
            raise RequestError("observed service times must be positive, and at least one")

    def service_s(self, batch: int) -> float:
        return float(np.mean(self.observed_s))

    def factors(self, n: int, seed: int) -> Floats:
        observed = np.asarray(self.observed_s, dtype=np.float64)
        return np.random.default_rng([seed, 3]).choice(observed / observed.mean(), n)


class DeviceService:
    """A model on a simulated device: `simulate` at a grid of batches, straight lines between.

    Parameters
    ----------
    simulate_batch : callable
        Batch to `Result` or `Infeasible`.
    grid : sequence of int
        Batches that are simulated, each when first needed.
    """

    def __init__(self, simulate_batch: Callable[[int], Any], grid: Sequence[int]) -> None:
        self.grid = tuple(sorted(set(grid)))
        self._simulate = simulate_batch

    @classmethod
    def of(cls, model: Any, hardware: Any, *, max_batch: int = 1, **options: Any) -> DeviceService:
        """The surface of a model on a device up to `max_batch`; `options` go to `simulate`."""
        from accelsim.engine.simulate import simulate

        grid = [1 << k for k in range(max_batch.bit_length()) if 1 << k < max_batch] + [max_batch]
        return cls(lambda batch: simulate(model, hardware, batch=batch, **options), grid)

    @cached_property
    def results(self) -> dict[int, Any]:
        """`Result` at each batch of the grid.

        Raises
        ------
        InfeasibleError
            The device cannot run one of the batches.
        """
        found = {batch: self._simulate(batch) for batch in self.grid}
        for result in found.values():
            if isinstance(result, Infeasible):
                raise InfeasibleError(result.reason, result.need, result.have, result.hint)
        return found

    def _column(self, name: str) -> dict[int, float]:
        return {batch: float(r.summary[name]) for batch, r in self.results.items()}

    def service_s(self, batch: int) -> float:
        return interpolate(self._column("latency_s"), batch)

    def occupied_s(self, batch: int) -> float:
        """Time until the next batch may enter [s]: shorter than the latency in a pipeline."""
        table = {
            b: min(b / r.summary["throughput_per_s"], r.summary["latency_s"]) for b, r in self.results.items()
        }
        return interpolate(table, batch)

    def energy_j(self, batch: int) -> float:
        """Energy of a batch, static power while it occupies the device included [J]; NaN when unknown."""
        return interpolate(self._column("energy_j"), batch)

    def interval(self, batch: int) -> tuple[float, float]:
        """Error band of the service time [s]."""
        low = {b: r.intervals["latency_s"].low for b, r in self.results.items()}
        high = {b: r.intervals["latency_s"].high for b, r in self.results.items()}
        return interpolate(low, batch), interpolate(high, batch)

    def bounded(self, end: str) -> TableService:
        """The law at the ``low`` or ``high`` end of the error band."""
        return TableService({b: getattr(r.intervals["latency_s"], end) for b, r in self.results.items()})

    @property
    def name(self) -> str:
        """Name of the device."""
        return str(self.results[self.grid[0]].summary["hardware"])

    @property
    def usd_per_hour(self) -> float:
        """Price of the device [USD/h]; NaN when unknown."""
        result = self.results[self.grid[0]]
        return result.summary["usd_per_million_items"] / 1e6 * result.summary["throughput_per_s"] * 3600


@dataclass(frozen=True)
class Overheads:
    """What a server adds around the executions.

    Parameters
    ----------
    gap_fixed_s, gap_per_item_s : float
        From the end of a batch to the start of the next on a busy instance: fixed, and per item of the batch
        that ended [s].
    input_output_s : float
        Client to queue and answer to client, together [s].
    wake_s : float
        What a batch waits more when its instance was idle and has to wake up [s].
    answer_per_item_s : float
        Answers of a batch go out one after the other, this far apart [s].
    dispatch_fixed_s, dispatch_per_item_s : float
        From the closing of a batch to the start of its execution: fixed, and per item [s].
    """

    gap_fixed_s: float = 0.0
    gap_per_item_s: float = 0.0
    input_output_s: float = 0.0
    wake_s: float = 0.0
    answer_per_item_s: float = 0.0
    dispatch_fixed_s: float = 0.0
    dispatch_per_item_s: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value >= 0 and math.isfinite(value)):
                raise RequestError(f"{name} must not be negative, got {value}")

    def gap_s(self, batch: int) -> float:
        """Pause after a batch [s]."""
        return self.gap_fixed_s + self.gap_per_item_s * batch

    def dispatch_s(self, batch: int) -> float:
        """From the closing of a batch to the start of its execution [s]."""
        return self.dispatch_fixed_s + self.dispatch_per_item_s * batch


@dataclass(frozen=True)
class Times:
    """A service law and its overheads on the engines' clock, by batch (index 0 is unused).

    Attributes
    ----------
    service_ns : array
        Closing of a batch to its answers, dispatch included.
    held_ns : array
        Closing of a batch to when the instance may take the next, without the gap.
    gap_ns : array
        Pause after that.
    wake_ns, answer_ns : int
        See `Overheads`.
    factors : array, optional
        Random multipliers of service and held times, by execution.
    """

    service_ns: NDArray[np.int64]
    held_ns: NDArray[np.int64]
    gap_ns: NDArray[np.int64]
    wake_ns: int = 0
    answer_ns: int = 0
    factors: Floats | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls, law: ServiceLaw, overheads: Overheads, max_batch: int, executions: int = 0, seed: int = 0
    ) -> Times:
        """Tables for batches up to `max_batch`, and multipliers for so many executions."""
        sizes = range(1, max_batch + 1)
        occupied = getattr(law, "occupied_s", law.service_s)
        draw = getattr(law, "factors", None)
        return cls(
            to_ns([0.0, *(law.service_s(b) + overheads.dispatch_s(b) for b in sizes)]),
            to_ns([0.0, *(occupied(b) + overheads.dispatch_s(b) for b in sizes)]),
            to_ns([0.0, *(overheads.gap_s(b) for b in sizes)]),
            int(to_ns(overheads.wake_s)),
            int(to_ns(overheads.answer_per_item_s)),
            draw(executions, seed) if draw is not None else None,
        )

    def of_execution(self, index: int, batch: int) -> tuple[int, int]:
        """Service time and time until the instance is free, of one execution [ns]."""
        service, held = int(self.service_ns[batch]), int(self.held_ns[batch])
        if self.factors is not None:
            factor = float(self.factors[index])
            service, held = int(service * factor + 0.5), int(held * factor + 0.5)
        return service, held + int(self.gap_ns[batch])

    def capacity_per_s(self, max_batch: int, instances: int) -> float:
        """Largest sustained rate: batches of the best size on every instance [1/s]."""
        sizes = np.arange(1, max_batch + 1)
        cycle = (self.held_ns + self.gap_ns)[1 : max_batch + 1]
        return float(np.max(instances * sizes * 1e9 / np.maximum(cycle, 1)))
