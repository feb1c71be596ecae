"""What training on a device does to the inference service beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible
from accelsim.serving.outcome import ServeResult
from accelsim.serving.serve import serve
from accelsim.serving.service import DeviceService, Floats, ServiceLaw


class Slowed:
    """A service law on a device that gives a share of its time to something else.

    Time slices are short against a service, so every service takes 1 / (1 - share) as long.

    Parameters
    ----------
    law : ServiceLaw
    share : float
        In [0, 1).
    """

    def __init__(self, law: ServiceLaw, share: float) -> None:
        if not 0 <= share < 1:
            raise RequestError(f"share {share} is not from 0 to below 1", "training beside inference")
        self.law = law
        self.factor = 1.0 / (1.0 - share)

    def service_s(self, batch: int) -> float:
        return self.factor * self.law.service_s(batch)

    def occupied_s(self, batch: int) -> float:
        """When the next batch may enter [s]."""
        return float(self.factor * getattr(self.law, "occupied_s", self.law.service_s)(batch))

    def factors(self, n: int, seed: int) -> Floats | None:
        """The law's own randomness."""
        draw = getattr(self.law, "factors", None)
        return None if draw is None else np.asarray(draw(n, seed))


@dataclass(frozen=True)
class Beside:
    """A service alone and while its device trains.

    Attributes
    ----------
    alone, training : ServeResult
    share : float
        Of the device that training gets while it runs.
    busy : float
        Share of the time in which it runs.
    """

    alone: ServeResult
    training: ServeResult
    share: float
    busy: float

    feasible = True

    @property
    def summary(self) -> dict[str, Any]:
        """Latencies ``_alone_s`` and ``_training_s``; the mean over time weighs them with `busy`."""
        a, t = self.alone.summary, self.training.summary
        row: dict[str, Any] = {"status": "ok" if self.training.stable else "unstable while it trains"}
        for name in ("latency_mean_s", "latency_p50_s", "latency_p99_s"):
            stem = name.removesuffix("_s")
            row |= {f"{stem}_alone_s": a[name], f"{stem}_training_s": t[name]}
        row["latency_mean_s"] = (1 - self.busy) * a["latency_mean_s"] + self.busy * t["latency_mean_s"]
        return row | {
            "share": self.share,
            "busy": self.busy,
            "offered_per_s": a["offered_per_s"],
            "capacity_alone_per_s": a["capacity_per_s"],
            "capacity_training_per_s": t["capacity_per_s"],
        }


def beside(
    model: Any,
    hardware: Any = None,
    *,
    arrivals: Any,
    share: float,
    busy: float = 1.0,
    precision: Any = None,
    batching: Any = None,
    **options: Any,
) -> Beside | Infeasible:
    """Serve a model on a device that trains part of the time.

    Parameters
    ----------
    model, hardware, arrivals, batching, **options
        See `accelsim.serving.serve.serve`.
    share : float
        Of the device that training gets while it runs; the service gets the rest. `Participants.share` is
        that number from the other side.
    busy : float
        Share of the time in which the device trains, 0 to 1: ``busy_pct`` of a federated run.
    precision : str, optional
        Of the served model.

    Returns
    -------
    Beside or Infeasible
        The service alone and while the device trains.

    Raises
    ------
    RequestError
        A share that leaves nothing, or what `serve` refuses.
    """
    if not 0 <= busy <= 1:
        raise RequestError(f"busy {busy} is not from 0 to 1", "training beside inference")
    law = model
    if not isinstance(model, ServiceLaw):
        if hardware is None:
            raise RequestError("a workload needs hardware", hint="pass hardware=..., or a law as the model")
        most = getattr(batching, "max_batch", 8)
        law = DeviceService.of(model, hardware, max_batch=most, precision=precision)
    slowed = Slowed(law, share)
    runs = [serve(held, arrivals=arrivals, batching=batching, **options) for held in (law, slowed)]
    for run in runs:
        if isinstance(run, Infeasible):
            return run
    alone, training = (run for run in runs if isinstance(run, ServeResult))
    return Beside(alone, training, share, busy)
