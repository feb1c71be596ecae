"""Servers whose idle worker collects a batch: what TorchServe and Ray Serve have in common."""

from __future__ import annotations

from collections import deque

from accelsim.serving.station import Moment, Request, Station


class Collector:
    """A queue, the batch that an idle worker collects from it, and the timer that ends its patience."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.queue: deque[Request] = deque()
        self.batch: list[Request] = []
        self._timer: Moment | None = None

    def arrive(self, request: Request) -> None:
        self.queue.append(request)
        self._collect()

    def free(self, instance: int) -> None:
        self._collect()

    def close(self) -> None:
        """Nothing is held back for ever."""

    def _collect(self) -> None:
        """Fill the batch from the queue; send it, or wait for more."""
        raise NotImplementedError

    def _wait(self, until_ns: int) -> None:
        """Send what there is at a time."""
        self._stop()
        self._timer = self.station.at(until_ns, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        self._send()
        self._collect()

    def _send(self) -> None:
        self._stop()
        batch, self.batch = self.batch, []
        self.station.execute(batch)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
