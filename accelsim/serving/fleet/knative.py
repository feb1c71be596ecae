"""Knative's pod autoscaler (KPA) on concurrency, with its stable and its panic window.

Formulas and defaults as in Knative Serving's documentation: target 100 requests at 70 %, stable window 60 s,
panic window 10 % of it, panic at 200 %, scale-up rate 1000, scale-down rate 2, grace of 30 s before zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.serving.fleet.autoscaler import Sample, Window, check_bounds
from accelsim.serving.fleet.checks import at_least, positive, share


@dataclass(frozen=True)
class Knative:
    """Knative's autoscaler.

    Parameters
    ----------
    target : float
        Requests in a replica, waiting or running (``container-concurrency-target-default``).
    utilisation : float
        Share of the target that is aimed at.
    stable_s : float
        Stable window [s].
    panic_share : float
        Panic window over stable window.
    panic_threshold : float
        Panic begins when the panic window wants so many times the ready replicas.
    up_rate, down_rate : float
        Replicas may at most be multiplied, or divided, by these in one step.
    grace_s : float
        How long nothing must be wanted before the last replica goes [s].
    least, most : int
        Replicas; 0 scales to zero.
    interval_s : float
        [s]
    """

    target: float = 100.0
    utilisation: float = 0.7
    stable_s: float = 60.0
    panic_share: float = 0.1
    panic_threshold: float = 2.0
    up_rate: float = 1000.0
    down_rate: float = 2.0
    grace_s: float = 30.0
    least: int = 0
    most: int = 100
    interval_s: float = 2.0

    def __post_init__(self) -> None:
        check_bounds(self.least, self.most, zero=True)
        for name in ("target", "stable_s", "interval_s", "panic_share", "utilisation", "panic_threshold"):
            positive(f"{name} of the autoscaler", getattr(self, name))
        share("the panic window's share", self.panic_share)
        at_least("the scale-up rate", self.up_rate, 1)
        at_least("the scale-down rate", self.down_rate, 1)
        at_least("the grace period", self.grace_s)

    def scaler(self) -> KnativeScaler:
        return KnativeScaler(self)


class KnativeScaler:
    """Stable mode, and panic mode in which replicas are only added."""

    def __init__(self, policy: Knative) -> None:
        self.policy = policy
        self.window = Window(policy.stable_s)
        self._panic_s: float | None = None
        self._panic_most = 0
        self._idle_s: float | None = None

    def decide(self, sample: Sample) -> int:
        p = self.policy
        self.window.add(sample)
        ready = max(1, sample.ready)
        target = p.target * p.utilisation
        stable, panic = (
            math.ceil(self.window.concurrency(length) / target)
            for length in (p.stable_s, p.stable_s * p.panic_share)
        )
        over = panic / ready >= p.panic_threshold
        up, down = math.ceil(p.up_rate * ready), math.floor(ready / p.down_rate)
        wanted = min(max(stable, down), up)
        if over:
            if self._panic_s is None:
                self._panic_most = 0
            self._panic_s = sample.time_s
        elif self._panic_s is not None and sample.time_s >= self._panic_s + p.stable_s:
            self._panic_s = None
        if self._panic_s is not None:
            self._panic_most = max(self._panic_most, wanted, min(max(panic, down), up))
            wanted = self._panic_most
        return min(max(self._after_grace(wanted, sample), p.least), p.most)

    def _after_grace(self, wanted: int, sample: Sample) -> int:
        """The last replica stays for the grace period."""
        if wanted > 0:
            self._idle_s = None
            return wanted
        if self._idle_s is None:
            self._idle_s = sample.time_s
        return 0 if sample.time_s - self._idle_s >= self.policy.grace_s else min(1, sample.replicas)
