"""TorchServe: one idle worker at a time collects a batch; the delay starts with its first job."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.batching import check_sizes
from accelsim.serving.collecting import Collector
from accelsim.serving.station import Request, Station

NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class TorchServe:
    """TorchServe, one model.

    ``Model.pollBatch``: a worker takes the model's lock, waits for a first job, then polls for up to
    ``max_batch - 1`` more. What is left of the delay shrinks by whole milliseconds of the system clock; a
    poll with nothing left still returns a job that waits, and ends the batch. A delay of 0
    therefore caps batches at 2.

    Parameters
    ----------
    max_batch : int
        ``batchSize``.
    max_batch_delay_ms : int
        ``maxBatchDelay`` [ms].
    workers : int
        Workers of the model.
    job_queue_size : int
        Jobs that may wait; further ones are refused with 503.
    """

    max_batch: int = 1
    max_batch_delay_ms: int = 100
    workers: int = 1
    job_queue_size: int = 100

    def __post_init__(self) -> None:
        check_sizes(self.max_batch, self.workers)
        if self.max_batch_delay_ms < 0:
            raise RequestError(f"maxBatchDelay must not be negative, got {self.max_batch_delay_ms} ms")
        if self.job_queue_size < 1:
            raise RequestError(f"job_queue_size must be at least 1, got {self.job_queue_size}")

    @classmethod
    def from_config(
        cls, properties: str, model_config: str | None = None, model: str | None = None
    ) -> TorchServe:
        """The policy of a ``config.properties`` and a model's ``model-config.yaml``.

        Raises
        ------
        ConfigError
            A field that is not known, or that the server would refuse.
        """
        from accelsim.serving.torchserve_config import read

        return read(properties, model_config, model)

    @property
    def instances(self) -> int:
        """Workers."""
        return self.workers

    def scheduler(self, station: Station) -> TorchServeScheduler:
        return TorchServeScheduler(station, self)


class TorchServeScheduler(Collector):
    """The job queue, and the worker that holds the lock."""

    def __init__(self, station: Station, policy: TorchServe) -> None:
        super().__init__(station)
        self.policy = policy
        self.left_ms = 0
        self.begin_ms = 0

    def arrive(self, request: Request) -> None:
        if len(self.queue) >= self.policy.job_queue_size:
            self.station.refuse(request)
        else:
            super().arrive(request)

    def _collect(self) -> None:
        """The lock's holder polls: the lowest idle worker, as long as there is one."""
        while self.station.idle and (self.queue or self.batch):
            if not self.batch:
                self.batch.append(self.queue.popleft())
                self.left_ms = self.policy.max_batch_delay_ms
                self.begin_ms = self.station.now // NS_PER_MS
            elif self.queue:
                self.batch.append(self.queue.popleft())
                end_ms = self.station.now // NS_PER_MS
                self.left_ms -= end_ms - self.begin_ms
                self.begin_ms = end_ms
                if self.left_ms <= 0:
                    self._send()
                    continue
            if len(self.batch) == self.policy.max_batch:
                self._send()
            elif not self.queue:
                if self.left_ms <= 0:
                    self._send()
                    continue
                self._wait(self.station.now + self.left_ms * NS_PER_MS)
                return
