"""What a training step takes on a device, and what training costs with attacks or with privacy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accelsim.core.outcome import Infeasible
from accelsim.engine.simulate import simulate

BACKWARD_OVER_FORWARD = 2.0
"""Gradients of inputs and of weights are each about as much work as the forward pass (assumed)."""


@dataclass(frozen=True)
class Step:
    """One training step of a batch.

    Attributes
    ----------
    hardware : str
    batch : int
    forward_s, backward_s : float
        [s]
    energy_j : float
        [J]; NaN where unknown.
    notes : tuple of str
    """

    hardware: str
    batch: int
    forward_s: float
    backward_s: float
    energy_j: float
    notes: tuple[str, ...]

    @property
    def latency_s(self) -> float:
        """The whole step [s]."""
        return self.forward_s + self.backward_s


def local_step(
    workload: Any, hardware: Any, *, batch: int = 1, precision: Any = None, **settings: Any
) -> Step | Infeasible:
    """Forward and backward pass of a batch on a device.

    Parameters
    ----------
    workload, hardware, batch, precision, **settings
        See `simulate`.
    """
    run = simulate(workload, hardware, batch=batch, precision=precision, **settings)
    if isinstance(run, Infeasible):
        return run
    s = run.summary
    note = f"assumed: the backward pass takes {BACKWARD_OVER_FORWARD:g} times the forward pass"
    forward = float(s["latency_s"])
    energy = (1.0 + BACKWARD_OVER_FORWARD) * float(s["energy_j"])
    return Step(s["hardware"], batch, forward, BACKWARD_OVER_FORWARD * forward, energy, (note,))
