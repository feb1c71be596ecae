"""One federated round: what is asked of devices, and when the server closes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.techniques.federation import Compression, SecureAggregation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ACCEPTED, LATE, DROPPED = range(3)
"""What became of a selected device's update."""

NEVER = 2**62


@dataclass(frozen=True)
class Plan:
    """How a round goes, in the server's terms; see `federated`."""

    parameters: int
    local_steps: int
    select: int
    accept: int
    deadline_ns: int
    minimum: int
    compression: Compression
    secure: SecureAggregation | None
    weight_bits: int = 32

    @property
    def down_bytes(self) -> float:
        """To each device: the model, and what secure aggregation sends with it [B]."""
        keys = self.secure.received_bytes(self.select) if self.secure else 0.0
        return self.parameters * self.weight_bits / 8 + keys

    @property
    def up_bytes(self) -> float:
        """From each device [B]."""
        if self.secure:
            return self.secure.sent_bytes(self.select, self.parameters, self.compression.bits)
        return self.compression.update_bytes(self.parameters)


@dataclass(frozen=True)
class Draw:
    """The devices that a round selects, and how long each would take [ns].

    Attributes
    ----------
    device : array
        Number of each selected device; None of them was away.
    available : int
        Devices that were there.
    down_ns, train_ns, up_ns : array
    drop_ns : array
        From the start of the round to when the device leaves; `NEVER` where it stays.
    """

    device: Ints
    available: int
    down_ns: Ints
    train_ns: Ints
    up_ns: Ints
    drop_ns: Ints

    @property
    def finish_ns(self) -> Ints:
        return self.down_ns + self.train_ns + self.up_ns


@dataclass(frozen=True)
class Closed:
    """When a round closed [ns], and the fate of each selected device."""

    close_ns: int
    fate: Ints


def close_round(plan: Plan, draw: Draw) -> Closed:
    """The round as arrays: it closes at the k-th update, at the deadline, or when nobody is left."""
    n = len(draw.device)
    stays = draw.drop_ns == NEVER
    finish = np.where(stays, draw.finish_ns, NEVER)
    order = np.lexsort((np.arange(n), finish))
    reporting = int(stays.sum())
    if reporting >= plan.accept:
        close = int(finish[order[plan.accept - 1]])
    else:
        close = int(np.where(stays, finish, draw.drop_ns).max(initial=0))
    close = min(close, plan.deadline_ns)
    fate = np.full(n, LATE, np.int64)
    fate[draw.drop_ns <= close] = DROPPED
    first = order[: plan.accept]
    fate[first[finish[first] <= close]] = ACCEPTED
    return Closed(close, fate)


def expected_kth_s(mean_s: float, devices: int, accept: int) -> float:
    """Expected k-th of n independent exponential times: mean (H_n - H_(n-k)) [s].

    Parameters
    ----------
    mean_s : float
        [s]
    devices, accept : int
        n and k.
    """
    return mean_s * math.fsum(1.0 / i for i in range(devices - accept + 1, devices + 1))
