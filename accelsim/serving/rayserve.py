"""Ray Serve's ``@serve.batch``: a replica collects one batch at a time, from its first request on."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.batching import check_sizes
from accelsim.serving.collecting import Collector
from accelsim.serving.station import Station


@dataclass(frozen=True)
class RayServe:
    """Ray Serve, one deployment whose replicas share a queue.

    Parameters
    ----------
    max_batch : int
        ``max_batch_size``.
    wait_s : float
        ``batch_wait_timeout_s`` [s].
    replicas : int
    """

    max_batch: int = 10
    wait_s: float = 0.01
    replicas: int = 1

    def __post_init__(self) -> None:
        check_sizes(self.max_batch, self.replicas)
        if not self.wait_s >= 0:
            raise RequestError(f"the wait must not be negative, got {self.wait_s} s")

    @property
    def instances(self) -> int:
        """Replicas."""
        return self.replicas

    def scheduler(self, station: Station) -> RayServeScheduler:
        return RayServeScheduler(station, self)


class RayServeScheduler(Collector):
    """Takes what waits; with room left, waits for more until the first request's time is up."""

    def __init__(self, station: Station, policy: RayServe) -> None:
        super().__init__(station)
        self.max_batch = policy.max_batch
        self.wait_ns = round(policy.wait_s * 1e9)

    def _collect(self) -> None:
        while self.station.idle and self.queue:
            starts = not self.batch
            while self.queue and len(self.batch) < self.max_batch:
                self.batch.append(self.queue.popleft())
            if len(self.batch) == self.max_batch or self.wait_ns == 0:
                self._send()
            elif starts:
                self._wait(self.station.now + self.wait_ns)
