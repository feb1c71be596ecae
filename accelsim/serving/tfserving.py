"""TensorFlow Serving: the shared batch scheduler, its queue of batches and its threads."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from accelsim.core.errors import RequestError
from accelsim.serving.batching import check_sizes
from accelsim.serving.station import Moment, Request, Station


@dataclass(frozen=True)
class TensorFlowServing:
    """TensorFlow Serving with ``--enable_batching``.

    One model is one queue (the basic batch scheduler); models that are served together share the threads,
    which go round their queues in turn (the shared batch scheduler).

    Parameters
    ----------
    max_batch : int
        ``max_batch_size``.
    batch_timeout_us : int
        ``batch_timeout_micros``, from the first task of the open batch.
    max_enqueued_batches : int
        Batches that may wait, the open one included; tasks that find no room are refused.
    threads : int
        ``num_batch_threads``: batches that run at once.
    allowed_sizes : sequence of int
        ``allowed_batch_sizes``: a batch is padded to the next of them; the last must be the maximum batch.
    """

    max_batch: int = 1000
    batch_timeout_us: int = 0
    max_enqueued_batches: int = 10
    threads: int = 1
    allowed_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self.max_batch, self.threads)
        object.__setattr__(self, "allowed_sizes", tuple(self.allowed_sizes))
        if self.batch_timeout_us < 0:
            raise RequestError(f"batch_timeout_micros must not be negative, got {self.batch_timeout_us}")
        if self.max_enqueued_batches < 1:
            raise RequestError(f"max_enqueued_batches must be at least 1, got {self.max_enqueued_batches}")
        sizes = self.allowed_sizes
        if sizes and (any(b <= a for a, b in pairwise(sizes)) or sizes[0] < 1 or sizes[-1] != self.max_batch):
            raise RequestError(
                f"allowed_batch_sizes {list(sizes)} must increase and end with the maximum {self.max_batch}",
                hint="the server refuses them too",
            )

    @classmethod
    def from_config(cls, path: str, cores: int | None = None) -> TensorFlowServing:
        """The policy of a ``--batching_parameters_file``.

        Parameters
        ----------
        path : path
        cores : int, optional
            CPU cores of the server, which are its threads when the file does not say.

        Raises
        ------
        ConfigError
            A field that is not known, or that the server would refuse.
        """
        from accelsim.serving.tfserving_config import read

        return read(path, cores)

    @property
    def instances(self) -> int:
        """Threads."""
        return self.threads

    def padded(self, size: int) -> int:
        """Items that a batch of this size is paid for."""
        return self.allowed_sizes[bisect_left(self.allowed_sizes, size)] if self.allowed_sizes else size

    def scheduler(self, station: Station) -> TensorFlowServingScheduler:
        return TensorFlowServingScheduler(station, self)


class TensorFlowServingScheduler:
    """A queue of batches, the last of which is open."""

    def __init__(self, station: Station, policy: TensorFlowServing) -> None:
        self.station = station
        self.policy = policy
        self.timeout_ns = policy.batch_timeout_us * 1000
        self.batches: deque[list[Request]] = deque()
        self._timer: Moment | None = None

    def arrive(self, request: Request) -> None:
        if not self.batches or len(self.batches[-1]) == self.policy.max_batch:
            if len(self.batches) >= self.policy.max_enqueued_batches:
                self.station.refuse(request)
                return
            self.batches.append([])
        self.batches[-1].append(request)
        self._dispatch()

    def free(self, instance: int) -> None:
        self._dispatch()

    def close(self) -> None:
        """Nothing is held back for ever."""

    def _dispatch(self) -> None:
        """Idle threads take the front batch while it may run."""
        while self.station.idle and self.batches:
            front = self.batches[0]
            due = front[0].entered_ns + self.timeout_ns
            if len(self.batches) == 1 and len(front) < self.policy.max_batch and self.station.now < due:
                if self._timer is None:
                    self._timer = self.station.at(due, self._due)
                return
            self.batches.popleft()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.station.execute(front, self.policy.padded(len(front)))

    def _due(self) -> None:
        self._timer = None
        self._dispatch()
