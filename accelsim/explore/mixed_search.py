"""The search behind `accelsim.explore.mixed`.

Two things are taken to add up over layers, and then checked. The square of the output's error: layers err
independently (`Sensitivity` measures them one at a time). The cost: a layer's kernels cost what they cost
when the whole network runs in that format; on a streaming pipeline, its bit operations. The search over these
sums is exact (`accelsim.techniques.allocate`). What it finds is then run for real: the network with all
layers quantised together, the device with the mixed plan. Where the measured error misses the budget, the
search goes on with a smaller one. Uniform plans compete on the same terms, so the answer is never worse than
one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isnan, nan
from typing import Any

import numpy as np

from accelsim.core.errors import RequestError
from accelsim.core.frames import records
from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PrecisionPlan
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.explore.mixed_plan import MixedPrecision, Trial
from accelsim.techniques.allocate import Allocation, allocate
from accelsim.techniques.formats import Formats, device_plan
from accelsim.techniques.precision import owners
from accelsim.techniques.sensitivity import Sensitivity
from accelsim.workload.graph import Graph

ROUNDS = 6
"""Searches, each with a budget corrected by what the last plan turned out to be."""

SHARES = (1.0, 0.8, 0.6, 0.45, 0.35, 0.25, 0.15)
"""Of the budget, for which a pipeline's plans are tried: fewer bit operations are not always faster."""

CLOSE = 0.95
"""A plan whose measured error is this share of the budget is close enough to it to stop."""


class Search:
    """One question: the layers, their costs and errors by format, and the plans tried so far."""

    def __init__(
        self,
        graph: Graph,
        device: Any,
        measured: Sensitivity,
        formats: list[Formats],
        uniform: dict[str, Result],
        objective: str,
        settings: Mapping[str, Any],
        said: tuple[str, ...],
    ) -> None:
        self.graph, self.device, self.measured = graph, device, measured
        self.formats, self.uniform = formats, uniform
        self.objective, self.settings, self.said = objective, settings, said
        self.streams = any(r.summary["bound"].startswith("stage ") for r in uniform.values())
        self.base = max(formats, key=lambda f: (f.activation.bits, f.weight.bits))
        errors = [measured.errors(f) for f in formats]
        self.names = list(errors[0])
        self.ops = self._ops()
        self.squares = np.array([[e[name] ** 2 for e in errors] for name in self.names])
        self.costs, self.rest = self._costs()
        self.trials: dict[tuple[str, ...], Trial] = {}

    def _ops(self) -> dict[str, str]:
        """Op of the graph by layer of the network: the one that writes the same tensor."""
        found = {}
        for name in self.names:
            op = self.graph.producer(self.measured.outputs[name])
            if op is None:
                op = next((o for o in self.graph if o.name == name), None)
            if op is None:
                raise RequestError(f"layer '{name}' is no operator of the graph", self.measured.model)
            found[name] = op.name
        return found

    def _costs(self) -> tuple[Any, float]:
        """Cost of each layer by format, and of what no layer owns, in the base format.

        The time or energy of a layer's kernels; for a streaming pipeline, bit operations (multiplications x
        weight bits x activation bits: what its logic grows with), as its time is no sum.
        """
        place = {op: i for i, op in enumerate(self.ops.values())}
        owner = owners(self.graph, place)
        costs = np.zeros((len(self.names), len(self.formats)))
        rest = 0.0
        for k, formats in enumerate(self.formats):
            found = self.uniform[formats.name]
            if self.streams:
                bits = formats.weight.bits * formats.activation.bits
                costs[:, k] = [self.graph[op].macs * bits for op in self.ops.values()]
                continue
            idle_w = 0.0
            if self.objective == "energy":
                if "energy_j" in found.missing:
                    raise RequestError(f"the energy is not known: {found.missing['energy_j']}")
                idle_w = found.energy_parts["static"] / found.summary["latency_s"]
            for row in records(found.ops):
                cost = row["total_s"]
                if self.objective == "energy":
                    cost = row["energy_j"] + idle_w * row["total_s"]
                held = place.get(owner.get(row["op"], ""))
                if held is not None:
                    costs[held, k] += cost
                elif formats is self.base:
                    rest += cost
        return costs, rest

    # -- trials ----------------------------------------------------------------------------------------------

    def trial(self, picked: Sequence[int]) -> Trial | None:
        """A plan, simulated (known ones only once); None when the device cannot run it."""
        chosen = [self.formats[k] for k in picked]
        key = tuple(f.name for f in chosen)
        if key not in self.trials:
            predicted = float(self.squares[np.arange(len(picked)), list(picked)].sum()) ** 0.5
            if len(set(key)) == 1:
                name, held, found = key[0], device_plan(chosen[0]), self.uniform[key[0]]
            else:
                layers = tuple(
                    (op, device_plan(f)) for op, f in zip(self.ops.values(), chosen) if f != self.base
                )
                base = device_plan(self.base)
                held = PrecisionPlan(base.weight, base.activation, base.kv, layers=layers)
                name = " + ".join(f"{key.count(n)} {n}" for n in dict.fromkeys(key))
                done = simulate(self.graph, self.device, precision=held, **self.settings)
                if not isinstance(done, Result):
                    return None
                found = done
            cost = found.summary["latency_s" if self.objective == "latency" else "energy_j"]
            self.trials[key] = Trial(name, dict(zip(self.names, key)), held, predicted, found, cost)
        return self.trials[key]

    def judged(self, trial: Trial) -> Trial:
        """The trial with its measured error."""
        key = tuple(trial.choice.values())
        if isnan(self.trials[key].error):
            error = self.measured.error(trial.choice)
            self.trials[key] = Trial(**{**trial.__dict__, "error": error})
        return self.trials[key]

    def uniform_trials(self) -> list[Trial]:
        found = (self.trial([k] * len(self.names)) for k in range(len(self.formats)))
        return [trial for trial in found if trial is not None]

    # -- questions -------------------------------------------------------------------------------------------

    def within(self, budget: float) -> tuple[Trial | None, float, bool]:
        """Least cost with a measured error within the budget."""
        best, first = self._scanned(budget) if self.streams else self._corrected(budget)
        for trial in sorted(self.uniform_trials(), key=lambda t: t.cost):
            if (best is None or trial.cost < best.cost) and self.judged(trial).error <= budget:
                best = self.judged(trial)
        if self.streams or first is None:
            return best, nan, False
        return best, self.rest + first.bound, first.exact

    def _scanned(self, budget: float) -> tuple[Trial | None, None]:
        """The fastest of a pipeline's plans of fewest bit operations, for several shares of the budget."""
        best: Trial | None = None
        for share in SHARES:
            found = allocate(self.costs, self.squares, (share * budget) ** 2)
            trial = None if found is None else self.trial(found.choice)
            if trial is None or (best is not None and trial.cost >= best.cost):
                continue
            if self.judged(trial).error <= budget:
                best = self.judged(trial)
        return best, None

    def _corrected(self, budget: float) -> tuple[Trial | None, Allocation | None]:
        """Searches with the budget corrected by what the plan before turned out to err."""
        best: Trial | None = None
        first: Allocation | None = None
        aim, low, high = budget, 0.0, inf
        seen: set[tuple[int, ...]] = set()
        for _ in range(ROUNDS):
            found = allocate(self.costs, self.squares, aim**2)
            first = first or found
            if found is None or (found.choice in seen and low):
                break
            if found.choice in seen:
                aim = 0.7 * found.weight**0.5
                continue
            seen.add(found.choice)
            tried = self.trial(found.choice)
            if tried is None:
                break
            trial = self.judged(tried)
            if trial.error <= budget:
                low = max(low, aim)
                if best is None or trial.cost < best.cost:
                    best = trial
                if trial.error >= CLOSE * budget or not trial.error:
                    break
                aim = (low * high) ** 0.5 if high < inf else aim * min(budget / trial.error, 2.0)
            else:
                high = min(high, trial.predicted_error)
                aim = (low * high) ** 0.5 if low else high * max(min(budget / trial.error, 0.95), 0.25)
        return best, first

    def below(self, limit: float) -> tuple[Trial | None, float, bool]:
        """Least measured error with a simulated cost within the limit."""
        if self.streams:
            raise RequestError(
                f"{self.device.name} runs all layers at once, so its cost is no sum that a limit could split",
                hint="give a budget of error",
            )
        best: Trial | None = None
        first: Allocation | None = None
        aim = limit - self.rest
        seen: set[tuple[int, ...]] = set()
        for _ in range(ROUNDS):
            found = allocate(self.squares, self.costs, max(aim, 0.0))
            first = first or found
            if found is None or found.choice in seen:
                break
            seen.add(found.choice)
            trial = self.trial(found.choice)
            if trial is None:
                break
            if trial.cost <= limit:
                if best is None or self.judged(trial).error < best.error:
                    best = self.judged(trial)
                aim += 0.5 * (limit - trial.cost)
            else:
                aim -= 1.02 * (trial.cost - limit)
        for trial in self.uniform_trials():
            if trial.cost <= limit and (best is None or self.judged(trial).error < best.error):
                best = self.judged(trial)
        return best, (first.bound if first else 0.0) ** 0.5, first is None or first.exact

    # -- answers ---------------------------------------------------------------------------------------------

    def nothing(self, budget: float | None, limit: float | None, request: dict[str, Any]) -> Infeasible:
        tried = self.uniform_trials()
        if budget is not None:
            best = min(self.judged(t).error for t in tried)
            need, have = f"an output error of {budget:g}", f"{best:.3g} at the least"
            return Infeasible("accuracy", need, have, "allow a larger error or wider formats", request)
        cost, unit = min(t.cost for t in tried), "s" if self.objective == "latency" else "J"
        need = f"{self.objective} of {limit:g} {unit}"
        return Infeasible(self.objective, need, f"{cost:.3g} {unit} at the least", "allow more", request)

    def answer(self, best: Trial, bound: float, exact: bool) -> MixedPrecision:
        picked = [next(k for k, f in enumerate(self.formats) if f.name == n) for n in best.choice.values()]
        what = "latency_s" if self.objective == "latency" else "energy_j"
        facts = {row["layer"]: row for row in self.measured.rows}
        rows = tuple(
            {
                "layer": name,
                "kind": facts[name]["kind"],
                "parameters": facts[name]["parameters"],
                "precision": self.formats[k].name,
                "output_error": float(self.squares[i, k]) ** 0.5,
                "bit_operations" if self.streams else what: float(self.costs[i, k]),
            }
            for i, (name, k) in enumerate(zip(self.names, picked))
        )
        added = self.rest + float(self.costs[np.arange(len(picked)), picked].sum())
        notes = (
            *self.measured.notes,
            *self.said,
            f"errors were added as squares: {best.predicted_error:.3g} predicted, {best.error:.3g} measured",
            "layers run at the same time: the search added bit operations, and the plans were simulated"
            if self.streams
            else f"costs were added by layer: {added:.4g} predicted, {best.cost:.4g} simulated",
            "output error on these inputs is not task accuracy",
        )
        return MixedPrecision(
            self.objective,
            best.choice,
            best.plan,
            best.error,
            best.predicted_error,
            best.cost,
            bound,
            exact,
            best.result,
            tuple(f.name for f in self.formats),
            tuple(self.trials.values()),
            rows,
            notes,
        )
