"""Answers, remembered: runs by what was asked, and the rows of the curves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from accelsim.architectures import architecture_of
from accelsim.core.errors import AccelsimError
from accelsim.core.outcome import Infeasible
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.hardware.spec import load_hardware
from accelsim.report.explorer.choice import BATCHES, Choice, Facts, facts

RUNS = 64
"""Whole results that are kept; each holds its kernels."""

ROWS = 20_000
"""Summaries that are kept."""


class Memory:
    """The latest values by key."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        self._held[key] = value
        self._held.move_to_end(key)
        if len(self._held) > self._most:
            self._held.popitem(last=False)

    def __len__(self) -> int:
        return len(self._held)


class Answers:
    """Runs `simulate` once per question."""

    def __init__(self) -> None:
        self._runs, self._rows = Memory(RUNS), Memory(ROWS)

    def run(self, choice: Choice, device: str) -> Result | Infeasible:
        """The result on one device at the batch asked.

        A request that makes no sense for this model or device is infeasible here, with the error's words.
        """
        key = _key(choice, device)
        found = self._runs.get(key)
        if found is None:
            found = _simulated(choice, device)
            self._runs.put(key, found)
            self._rows.put(key, found.summary)
        answer: Result | Infeasible = found
        return answer

    def row(self, choice: Choice, device: str) -> dict[str, Any]:
        """The summary on one device at the batch asked."""
        known = self.known(choice, device)
        if known is None:
            known = dict(_simulated(choice, device).summary)
            self._rows.put(_key(choice, device), known)
        return known

    def known(self, choice: Choice, device: str) -> dict[str, Any] | None:
        """The summary if it is there already."""
        found: dict[str, Any] | None = self._rows.get(_key(choice, device))
        return found

    def curve(self, choice: Choice, device: str) -> list[dict[str, Any]]:
        """Known feasible summaries over the batch."""
        rows = [self.known(choice.at(batch), device) for batch in BATCHES]
        return [row for row in rows if row is not None and row["status"] == "ok"]

    def missing(self, choice: Choice) -> Iterator[tuple[Choice, str]]:
        """Points of the curves that are not known yet: those at the batch asked first, then by batch.

        A batch that a device cannot run ends its curve.
        """
        for device in choice.hardware:
            if self.known(choice, device) is None:
                yield choice, device
        ended: set[str] = set()
        for batch in BATCHES:
            at = choice.at(batch)
            for device in choice.hardware:
                if device in ended:
                    continue
                if self.known(at, device) is None:
                    yield at, device
                row = self.known(at, device)
                if row is not None and row["status"] != "ok":
                    ended.add(device)


def _key(choice: Choice, device: str) -> Hashable:
    return replace(choice, hardware=(), focus=device)


def _simulated(choice: Choice, device: str) -> Result | Infeasible:
    try:
        return simulate(choice.workload, device, **choice.settings)
    except AccelsimError as error:
        point = {"workload": choice.workload, "hardware": device, "batch": choice.batch}
        return Infeasible("request", error.what, "what this model and device take", error.hint, point)


@lru_cache(maxsize=256)
def facts_of(workload: str) -> Facts:
    """What a workload can be asked, remembered."""
    return facts(workload)


@lru_cache(maxsize=256)
def device_of(name: str) -> Any:
    """A device, remembered."""
    return load_hardware(name)


def precisions(hardware: tuple[str, ...]) -> list[str]:
    """Formats that at least one of the devices has, in the order of the first that has them."""
    found: dict[str, None] = {}
    for name in hardware:
        device = device_of(name)
        found.update(dict.fromkeys(architecture_of(device.kind).precisions(device)))
    return list(found)
