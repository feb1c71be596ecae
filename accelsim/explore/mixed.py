"""Mixed precision: a format per layer that meets an error budget at the least latency or energy on a device.

Two things are taken to add up over layers, and then checked. The square of the output's error: layers err
independently (`Sensitivity` measures them one at a time). The cost: a layer's kernels cost what they cost
when the whole network runs in that format. The search over these sums is exact
(`accelsim.techniques.allocate`). What it finds is then run for real: the network with all layers quantised
together, the device with the mixed plan. Where the measured error misses the budget, the search goes on with
a smaller one. Uniform plans compete on the same terms, so the answer is never worse than one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isnan, nan
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.architectures import architecture_of
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.frames import records
from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PRECISIONS, PrecisionPlan, plan
from accelsim.core.units import si
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.hardware.spec import load_hardware
from accelsim.techniques.allocate import Allocation, allocate
from accelsim.techniques.numerics import FORMATS
from accelsim.techniques.precision import owners
from accelsim.techniques.sensitivity import SAMPLES, Formats, Sensitivity, formats_of, sensitivity
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVES = ("latency", "energy")

CANDIDATES = ("fp16", "bf16", "fp8_e4m3", "int8", "mxfp8", "nvfp4", "mxfp4", "int4", "int2")
"""Formats that the search tries where the device computes in them; of fp16 and bf16 the first."""

NARROW_WEIGHTS = ("int8", "int4")
"""Weight-only formats that it tries where the device widens weights."""

ROUNDS = 6
"""Searches, each with a budget corrected by what the last plan turned out to be."""

CLOSE = 0.95
"""A plan whose measured error is this share of the budget is close enough to it to stop."""


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
        none errs less.
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
        """Columns ``layer kind parameters precision output_error`` and ``latency_s`` or ``energy_j``."""
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


def mixed_precision(
    model: Any,
    hardware: Any,
    *,
    budget: float | None = None,
    limit: float | None = None,
    objective: str = "latency",
    formats: Sequence[Any] | None = None,
    sensitivity_of: Sensitivity | None = None,
    inputs: Mapping[str, Any] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    dims: Mapping[str, int] | None = None,
    **settings: Any,
) -> MixedPrecision | Infeasible:
    """Choose a format per layer.

    Parameters
    ----------
    model : str or Path
        An ``.onnx`` file with its weights.
    hardware : str or Path or Device
    budget : float, optional
        Largest relative error of the network's output; the plan meets it at the least cost.
    limit : float, optional
        Largest latency [s] or energy [J]; the plan meets it with the least error. Exactly one of both.
    objective : {"latency", "energy"}
    formats : sequence, optional
        Formats to choose from; by default those that the device computes in, and narrower weights.
    sensitivity_of : Sensitivity, optional
        Of the same model, with all these formats; measured here when None.
    inputs, samples, seed, dims
        See `sensitivity`.
    **settings
        Further arguments of `simulate` (batch, stack ...).

    Returns
    -------
    MixedPrecision or Infeasible
        Infeasible when no plan meets the budget or the limit, or the device runs none of the formats.

    Raises
    ------
    AccelsimError
    """
    _check(budget, limit, objective)
    device: Any = load_hardware(hardware)
    graph = load_workload(model, dims=dims)
    wanted = [formats_of(f) for f in formats] if formats is not None else _candidates(device)
    request = {"workload": graph.name, "hardware": device.name}
    uniform: dict[str, Result] = {}
    for choice in list(wanted):
        found = simulate(graph, device, precision=_plan(choice), **settings)
        if isinstance(found, Result):
            uniform[choice.name] = found
        else:
            wanted.remove(choice)
            last = found
    if not wanted:
        return last
    measured = sensitivity_of or sensitivity(
        model, wanted, inputs=inputs, samples=samples, seed=seed, dims=dims
    )
    if not measured.ran:
        raise RequestError(
            "mixed precision needs output errors, and only weights were measured", measured.model
        )
    search = _Search(graph, device, measured, wanted, uniform, objective, settings)
    best, bound, exact = search.within(budget) if budget is not None else search.below(limit or 0.0)
    if best is None:
        return search.nothing(budget, limit, request)
    return search.answer(best, bound, exact)


def _check(budget: float | None, limit: float | None, objective: str) -> None:
    if objective not in OBJECTIVES:
        raise RequestError(f"unknown objective '{objective}'", hint=did_you_mean(objective, OBJECTIVES))
    if (budget is None) == (limit is None):
        raise RequestError("give either budget (output error) or limit (latency or energy)")
    for name, value in (("budget", budget), ("limit", limit)):
        if value is not None and not 0 < value < inf:
            raise RequestError(f"{name} {value!r} is not a positive number")


def _candidates(device: Any) -> list[Formats]:
    """Formats that a device computes in, and narrow weights where it widens them."""
    architecture = architecture_of(device.kind)
    have = [f for f in CANDIDATES if architecture.supports(device, f) and f in FORMATS]
    wide = next((f for f in ("fp16", "bf16") if f in have), None)
    if wide == "fp16" and "bf16" in have:
        have.remove("bf16")
    found = [formats_of(f) for f in have]
    if wide is not None and architecture.widens:
        found += [formats_of({"weight": f, "activation": wide}) for f in NARROW_WEIGHTS]
    return found or [formats_of(f) for f in architecture.precisions(device) if f in FORMATS]


def _plan(formats: Formats) -> PrecisionPlan:
    for role in (formats.weight, formats.activation):
        if role.name not in PRECISIONS:
            raise RequestError(
                f"no device model knows the format {role.name}", hint=did_you_mean(role.name, PRECISIONS)
            )
    return plan({"weight": formats.weight.name, "activation": formats.activation.name})


class _Search:
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
    ) -> None:
        self.graph, self.device, self.measured = graph, device, measured
        self.formats, self.uniform = formats, uniform
        self.objective, self.settings = objective, settings
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
        """Cost of each layer by format, and of what no layer owns, in the base format."""
        place = {op: i for i, op in enumerate(self.ops.values())}
        owner = owners(self.graph, place)
        costs = np.zeros((len(self.names), len(self.formats)))
        rest = 0.0
        for k, formats in enumerate(self.formats):
            found = self.uniform[formats.name]
            if found.summary["bound"].startswith("stage "):
                raise RequestError(
                    f"{self.device.name} runs all layers at once: its latency is no sum over layers",
                    hint="sweep uniform precisions instead",
                )
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

    def trial(self, picked: Sequence[int]) -> Trial:
        """A plan, simulated; known plans are not simulated again."""
        chosen = [self.formats[k] for k in picked]
        key = tuple(f.name for f in chosen)
        if key not in self.trials:
            predicted = float(self.squares[np.arange(len(picked)), list(picked)].sum()) ** 0.5
            if len(set(key)) == 1:
                name, held, found = key[0], _plan(chosen[0]), self.uniform[key[0]]
            else:
                layers = tuple((op, _plan(f)) for op, f in zip(self.ops.values(), chosen) if f != self.base)
                base = _plan(self.base)
                held = PrecisionPlan(base.weight, base.activation, base.kv, layers=layers)
                name = " + ".join(f"{key.count(n)} {n}" for n in dict.fromkeys(key))
                done = simulate(self.graph, self.device, precision=held, **self.settings)
                if not isinstance(done, Result):
                    raise RequestError(f"the mixed plan does not run: {done}")
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
        return [self.trial([k] * len(self.names)) for k in range(len(self.formats))]

    # -- questions -------------------------------------------------------------------------------------------

    def within(self, budget: float) -> tuple[Trial | None, float, bool]:
        """Least cost with a measured error within the budget."""
        best: Trial | None = None
        first: Allocation | None = None
        aim, low, high = budget, 0.0, inf
        seen: set[tuple[int, ...]] = set()
        for _ in range(ROUNDS):
            found = allocate(self.costs, self.squares, aim**2)
            first = first or found
            if found is None or found.choice in seen:
                break
            seen.add(found.choice)
            trial = self.judged(self.trial(found.choice))
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
        for trial in sorted(self.uniform_trials(), key=lambda t: t.cost):
            if (best is None or trial.cost < best.cost) and self.judged(trial).error <= budget:
                best = self.judged(trial)
        return best, self.rest + (first.bound if first else 0.0), first is None or first.exact

    def below(self, limit: float) -> tuple[Trial | None, float, bool]:
        """Least measured error with a simulated cost within the limit."""
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
                what: float(self.costs[i, k]),
            }
            for i, (name, k) in enumerate(zip(self.names, picked))
        )
        added = self.rest + float(self.costs[np.arange(len(picked)), picked].sum())
        notes = (
            *self.measured.notes,
            f"errors were added as squares: {best.predicted_error:.3g} predicted, {best.error:.3g} measured",
            f"costs were added by layer: {added:.4g} predicted, {best.cost:.4g} simulated",
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
