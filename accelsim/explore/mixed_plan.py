"""The plan that a mixed-precision search chose, and those that competed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, Any

from accelsim.core.precision import PrecisionPlan
from accelsim.core.units import si
from accelsim.engine.result import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trial:
    """A plan that was tried: the format of each layer, and what came out."""

    name: str
    choice: dict[str, str]
    plan: PrecisionPlan
    predicted_error: float
    result: Result
    cost: float
    error: float = nan


@dataclass(frozen=True)
class MixedPrecision:
    """The plan that the search chose.

    Attributes
    ----------
    choice : dict of str to str
        Format by layer.
    plan : PrecisionPlan
        For ``simulate(..., precision=plan)``.
    error, predicted_error : float
        Relative error of the output: measured with all layers quantised together, and as the root of the sum
        of squares of the layers' own.
    cost : float
        Latency [s] or energy [J] of the plan as simulated.
    bound : float
        In the sums that the search adds up no plan within the budget costs less; with a limit on the cost,
        none errs less. NaN on a streaming pipeline.
    exact : bool
        The search over these sums was exact.
    result : Result
        The simulation of the plan.
    measured_formats : tuple of str
        Formats that it chose from.
    trials : tuple of Trial
        Every plan that competed, the uniform ones included.
    layers : tuple of dict
        See `frame`.
    notes : tuple of str
    """

    objective: str
    choice: dict[str, str]
    plan: PrecisionPlan
    error: float
    predicted_error: float
    cost: float
    bound: float
    exact: bool
    result: Result
    measured_formats: tuple[str, ...]
    trials: tuple[Trial, ...]
    layers: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = field(default=())

    feasible = True

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Columns ``layer kind parameters precision output_error`` and what the search added up:
        ``latency_s``, ``energy_j``, or ``bit_operations`` on a streaming pipeline."""
        import pandas as pd

        return pd.DataFrame(list(self.layers))

    @cached_property
    def compared(self) -> pd.DataFrame:
        """The plans that competed: ``plan latency_s energy_j error predicted_error`` (NaN: not measured)."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "plan": t.name,
                    "latency_s": t.result.summary["latency_s"],
                    "energy_j": t.result.summary["energy_j"],
                    "error": t.error,
                    "predicted_error": t.predicted_error,
                }
                for t in self.trials
            ]
        )

    def __repr__(self) -> str:
        used = {name: list(self.choice.values()).count(name) for name in dict.fromkeys(self.choice.values())}
        parts = ", ".join(f"{count} layers {name}" for name, count in used.items())
        cost = si(self.cost, "s" if self.objective == "latency" else "J")
        return f"Mixed precision: {parts}; {self.objective} {cost}, output error {self.error:.3g}"
