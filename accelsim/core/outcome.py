"""Infeasible is a result, not a crash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import AccelsimError


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Why a device cannot run a workload as asked.

    Attributes
    ----------
    reason : str
        Short and fixed enough to group by: ``memory``, ``precision``, ``resources``, ``operator`` ...
    need, have : str
        What the request needs and what the device has, in words with units.
    hint : str
        What would make it feasible.
    request : dict
        The point that was asked for (workload, hardware, batch, precision).
    """

    reason: str
    need: str
    have: str
    hint: str
    request: dict[str, Any] = field(default_factory=dict)

    feasible = False

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What a `Result` would have, missed: say why there is none."""
            if name.startswith("_"):
                raise AttributeError(name)
            raise AttributeError(f"there is no '{name}': {self}")

    @property
    def summary(self) -> dict[str, Any]:
        """The row that a table of results shows for this point."""
        return {
            **self.request,
            "status": "infeasible",
            "reason": self.reason,
            "need": self.need,
            "have": self.have,
            "hint": self.hint,
        }

    def __str__(self) -> str:
        point = " on ".join(str(self.request[k]) for k in ("workload", "hardware") if k in self.request)
        lead = f"{point}: infeasible" if point else "infeasible"
        return f"{lead} ({self.reason}): needs {self.need}, has {self.have}; {self.hint}"


class InfeasibleError(AccelsimError):
    """Carries an `Infeasible` from the depth of a model to the orchestrator, which returns it."""

    def __init__(self, reason: str, need: str, have: str, hint: str) -> None:
        self.outcome = Infeasible(reason, need, have, hint)
        super().__init__(f"infeasible ({reason}): needs {need}, has {have}", hint=hint)
