"""SageMaker's target tracking on invocations per instance and minute.

Two alarms on one-minute data: above the target for three minutes in a row adds instances, below 90 % of it
for 15 minutes in a row removes some; the new number is ``ceil(current * metric / target)``. After either,
nothing is removed for the scale-in cooldown; after an addition nothing is added for the scale-out cooldown.
The alarms' lengths and the cooldowns of 300 s are from general knowledge of AWS Application Auto Scaling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.core.errors import RequestError
from accelsim.serving.fleet.autoscaler import Sample, check_bounds
from accelsim.serving.fleet.checks import at_least, positive, share


@dataclass(frozen=True)
class TargetTracking:
    """``SageMakerVariantInvocationsPerInstance`` kept at a target.

    Parameters
    ----------
    target : float
        Requests per instance and minute.
    out_cooldown_s, in_cooldown_s : float
        [s]
    out_minutes, in_minutes : int
        Data points in a row that raise the alarms.
    in_share : float
        Share of the target below which the alarm for scaling in looks.
    least, most : int
    interval_s : float
        Length of a data point [s].
    """

    target: float
    out_cooldown_s: float = 300.0
    in_cooldown_s: float = 300.0
    out_minutes: int = 3
    in_minutes: int = 15
    in_share: float = 0.9
    least: int = 1
    most: int = 10
    interval_s: float = 60.0

    def __post_init__(self) -> None:
        check_bounds(self.least, self.most, zero=False)
        positive("the target of the autoscaler", self.target)
        positive("the interval of the autoscaler", self.interval_s)
        share("the share of the target for scaling in", self.in_share)
        at_least("the scale-out cooldown", self.out_cooldown_s)
        at_least("the scale-in cooldown", self.in_cooldown_s)
        if min(self.out_minutes, self.in_minutes) < 1:
            raise RequestError("an alarm needs at least one data point")

    def scaler(self) -> TargetTrackingScaler:
        return TargetTrackingScaler(self)


class TargetTrackingScaler:
    """Two alarms and two cooldowns."""

    def __init__(self, policy: TargetTracking) -> None:
        self.policy = policy
        self._above = self._below = 0
        self._out_s = self._any_s = -math.inf

    def decide(self, sample: Sample) -> int:
        p, now, current = self.policy, sample.time_s, sample.replicas
        metric = sample.arrivals * 60.0 / sample.span_s / max(1, sample.ready)
        self._above = self._above + 1 if metric > p.target else 0
        self._below = self._below + 1 if metric < p.in_share * p.target else 0
        wanted = min(max(math.ceil(round(sample.ready * metric / p.target, 9)), p.least), p.most)
        if self._above >= p.out_minutes and wanted > current and now >= self._out_s + p.out_cooldown_s:
            self._out_s = self._any_s = now
            return wanted
        if self._below >= p.in_minutes and wanted < current and now >= self._any_s + p.in_cooldown_s:
            self._any_s = now
            return wanted
        return min(max(current, p.least), p.most)
