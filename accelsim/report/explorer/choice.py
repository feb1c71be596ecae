"""What is asked: the state of the controls as plain data, and the code that asks the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from accelsim.core.errors import RequestError
from accelsim.workload.load import PHASES, load_workload

BATCHES = tuple(2**i for i in range(11))
CONTEXTS = tuple(2**i for i in range(5, 18))
COUNTS = (1, 2, 4, 8)
DEFAULTS: Mapping[str, Any] = {
    "batch": 1,
    "precision": None,
    "sparsity": "dense",
    "stack": "graph",
    "devices": 1,
    "phase": None,
    "context": None,
}
"""Values that need not be written, because `simulate` takes them anyway."""

MOST_DEVICES = 6
"""As many as there are colours."""


@dataclass(frozen=True)
class Choice:
    """A question about one workload on some devices.

    Attributes
    ----------
    workload : str
    hardware : tuple of str
        Devices side by side, at most `MOST_DEVICES`.
    focus : str
        The one whose kernels are shown.
    batch, precision, sparsity, stack, devices, phase, context
        Of `simulate`.
    """

    workload: str
    hardware: tuple[str, ...]
    focus: str
    batch: int = 1
    precision: str | None = None
    sparsity: str = "dense"
    stack: str = "graph"
    devices: int = 1
    phase: str | None = None
    context: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `simulate` that differ from its own defaults."""
        return {name: getattr(self, name) for name in DEFAULTS if getattr(self, name) != DEFAULTS[name]}

    def at(self, batch: int) -> Choice:
        """The same with another batch."""
        return replace(self, batch=batch)

    def code(self, device: str) -> str:
        """The line that repeats a run."""
        return f"ax.simulate({self._arguments(device)})"

    def explanation(self, device: str, op: str) -> str:
        """The line that explains one kernel."""
        return f"print({self.code(device)}.explain({op!r}))"

    def _arguments(self, device: str) -> str:
        named = [f"{name}={_literal(value)}" for name, value in self.settings.items()]
        return ", ".join([_literal(self.workload), _literal(device), *named])

    def service_code(self, device: str, max_batch: int) -> str:
        """The line that makes the device's service law."""
        named = [f"{k}={_literal(v)}" for k, v in self.settings.items() if k != "batch"]
        words = [_literal(self.workload), _literal(device), f"max_batch={max_batch}", *named]
        return f"ax.serving.DeviceService.of({', '.join(words)})"


def _literal(value: Any) -> str:
    """A value as code; texts in double quotes."""
    if not isinstance(value, str):
        return repr(value)
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


@dataclass(frozen=True)
class Facts:
    """What a workload can be asked.

    Attributes
    ----------
    phases : tuple of str
    has_context : bool
    """

    phases: tuple[str, ...]
    has_context: bool


def facts(workload: str) -> Facts:
    """Phases of a workload, and whether it takes a context length."""

    def takes(**settings: Any) -> bool:
        try:
            load_workload(workload, **settings)
        except RequestError:
            return False
        return True

    load_workload(workload)  # a name or file that cannot be read says so here
    return Facts(tuple(p for p in PHASES if takes(phase=p)), takes(context=128))
