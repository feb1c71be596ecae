"""Kubernetes' horizontal pod autoscaler.

``desired = ceil(current * metric / target)``, nothing within the tolerance of 0.1; of the wishes of the
stabilisation window (300 s down, 0 s up) the highest counts when shrinking and the lowest when growing. The
default policies: up by 4 replicas or 100 % in 15 s, whichever is more; down by 100 % (Kubernetes'
documentation of HorizontalPodAutoscaler v2).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.serving.fleet.autoscaler import Sample, check_bounds
from accelsim.serving.fleet.checks import at_least, positive

METRICS = ("utilisation", "concurrency", "rate")


@dataclass(frozen=True)
class HPA:
    """Horizontal pod autoscaler.

    Parameters
    ----------
    metric : {"utilisation", "concurrency", "rate"}
        Per ready replica: busy share, requests inside, requests per second.
    target : float
        Of the metric.
    tolerance : float
        Relative distance from the target at which nothing changes.
    up_window_s, down_window_s : float
        Stabilisation windows [s].
    up_replicas, up_share : int, float
        Growth in one interval at most: the larger of the two.
    least, most : int
    interval_s : float
        [s]
    """

    metric: str = "utilisation"
    target: float = 0.8
    tolerance: float = 0.1
    up_window_s: float = 0.0
    down_window_s: float = 300.0
    up_replicas: int = 4
    up_share: float = 1.0
    least: int = 1
    most: int = 10
    interval_s: float = 15.0

    def __post_init__(self) -> None:
        check_bounds(self.least, self.most, zero=False)
        if self.metric not in METRICS:
            hint = did_you_mean(self.metric, METRICS)
            raise RequestError(f"unknown metric '{self.metric}' of the autoscaler", hint=hint)
        positive("the target of the autoscaler", self.target)
        positive("the interval of the autoscaler", self.interval_s)
        for name in ("tolerance", "up_window_s", "down_window_s", "up_replicas", "up_share"):
            at_least(f"{name} of the autoscaler", getattr(self, name))

    def scaler(self) -> HPAScaler:
        return HPAScaler(self)


class HPAScaler:
    """Wishes and their stabilisation."""

    def __init__(self, policy: HPA) -> None:
        self.policy = policy
        self._wishes: deque[tuple[float, int]] = deque()

    def _metric(self, sample: Sample) -> float:
        if self.policy.metric == "utilisation":
            return sample.utilisation
        total = sample.concurrency if self.policy.metric == "concurrency" else sample.arrivals / sample.span_s
        return total / max(1, sample.ready)

    def decide(self, sample: Sample) -> int:
        p, now, current = self.policy, sample.time_s, sample.replicas
        if sample.ready == 0:
            return min(max(current, p.least), p.most)
        ratio = self._metric(sample) / p.target
        wish = current if abs(ratio - 1) <= p.tolerance else math.ceil(round(sample.ready * ratio, 9))
        wish = min(max(wish, p.least), p.most)
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - max(p.up_window_s, p.down_window_s):
            self._wishes.popleft()
        if wish > current:
            lowest = min(w for t, w in self._wishes if t >= now - p.up_window_s)
            room = max(p.up_replicas, math.floor(current * p.up_share))
            return min(max(current, lowest), current + room)
        highest = max(w for t, w in self._wishes if t >= now - p.down_window_s)
        return min(current, highest)
