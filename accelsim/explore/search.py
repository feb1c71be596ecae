"""Search: the good points of a space that is too large to sweep, by Optuna's samplers.

The sampler only chooses; points are evaluated, kept and counted as in a sweep. A step of each dimension is an
integer when its values are ordered numbers and a category otherwise, so that a sampler can learn from
neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import MissingExtraError, RequestError, did_you_mean
from accelsim.core.frames import records
from accelsim.explore.evaluate import evaluate, keys_of
from accelsim.explore.pareto import maximised
from accelsim.explore.space import Space
from accelsim.explore.store import Store
from accelsim.explore.study import Study

if TYPE_CHECKING:
    import pandas as pd

SAMPLERS = ("tpe", "nsga2", "nsga3", "random", "grid")
BATCH = 16
"""Points that a sampler proposes before it learns of their outcome."""

STALE = 20
"""Proposals of known points in a row after which an unknown point is drawn at random."""

Outcome = tuple[list[float], dict[str, float]]
"""Values of the objectives, less is better, and by how much each constraint is violated."""

_SIGNS: dict[str, Callable[[float, float], float]] = {
    "<=": lambda value, limit: value - limit,
    ">=": lambda value, limit: limit - value,
    "<": lambda value, limit: value - limit,
    ">": lambda value, limit: limit - value,
}


@dataclass(frozen=True)
class Limit:
    """A constraint on a column, such as ``latency_s <= 0.01``."""

    column: str
    sign: str
    bound: float

    @classmethod
    def of(cls, text: str) -> Limit:
        """Read ``COLUMN <= NUMBER`` (or ``< >= >``).

        Raises
        ------
        RequestError
            It is something else.
        """
        for sign in _SIGNS:
            left, found, right = text.partition(sign)
            if found:
                try:
                    return cls(left.strip(), sign, float(right))
                except ValueError:
                    break
        raise RequestError(f"the constraint '{text}' is not COLUMN <= NUMBER", hint="use <=, <, >= or >")

    def violation(self, row: Mapping[str, Any]) -> float:
        """How far a row is beyond the limit, relative to it; unknown (NaN) counts as beyond."""
        value = row.get(self.column)
        if not isinstance(value, int | float) or math.isnan(value):
            return math.inf
        beyond = _SIGNS[self.sign](value, self.bound) / (abs(self.bound) or 1.0)
        strict = len(self.sign) == 1
        return 1e-12 if strict and beyond == 0.0 else beyond

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.bound!r}"


class Search(Study):
    """What a search evaluated, in the order in which it did.

    Attributes
    ----------
    objectives : tuple of str
    constraints : tuple of Limit
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        axes: Sequence[str],
        objectives: Sequence[str],
        constraints: Sequence[Limit],
    ) -> None:
        super().__init__(frame, axes)
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)

    @property
    def condition(self) -> str | None:
        """The constraints as a condition for `Study.where`."""
        return " and ".join(f"{c.column} {c.sign} {c.bound!r}" for c in self.constraints) or None

    @property
    def front(self) -> pd.DataFrame:
        """Points that meet the constraints and that no other beats."""
        return self.pareto(*self.objectives, where=self.condition)

    @property
    def best(self) -> pd.Series:
        """The best point of a single objective, the knee of several.

        Raises
        ------
        RequestError
            No point found meets the constraints.
        """
        return self.knee(*self.objectives, where=self.condition)


def search(
    workload: Any,
    hardware: Any,
    *,
    objective: str | Sequence[str],
    constraints: str | Sequence[str] = (),
    budget: int = 500,
    sampler: str | None = None,
    seed: int = 0,
    start: Study | None = None,
    store: str | Path | Store | None = None,
    zipped: Sequence[Sequence[str]] = (),
    where: str | Sequence[str] = (),
    **axes: Any,
) -> Search:
    """Look for the best points of a space.

    Parameters
    ----------
    workload, hardware, zipped, where, store, **axes
        The space and where its rows are kept; see `sweep`.
    objective : str or sequence of str
        Columns; more of a throughput, an accuracy or a utilisation is better, less of anything else.
    constraints : str or sequence of str
        Limits that points must meet, such as ``"latency_s <= 0.01"``.
    budget : int
        Points to evaluate; one that the store has counts as well, so that a resumed search takes the same
        way.
    sampler : {"tpe", "nsga2", "nsga3", "random", "grid"}, optional
        By default ``tpe`` (tree-structured Parzen estimator, Bergstra et al. 2011) for one objective and
        ``nsga2`` (Deb et al. 2002) for several.
    seed : int
        The same seed gives the same study.
    start : Study, optional
        Earlier points of this space to learn from; they cost nothing of the budget.

    Returns
    -------
    Search

    Raises
    ------
    MissingExtraError
        Optuna is not installed.
    RequestError
        A name, a constraint or a budget is wrong.
    """
    space = Space({"workload": workload, "hardware": hardware, **axes}, zipped=zipped, where=where)
    return run(
        space,
        objective=objective,
        constraints=constraints,
        budget=budget,
        sampler=sampler,
        seed=seed,
        start=start,
        store=store,
    )


def run(
    space: Space,
    *,
    objective: str | Sequence[str],
    constraints: str | Sequence[str] = (),
    budget: int = 500,
    sampler: str | None = None,
    seed: int = 0,
    start: Study | None = None,
    store: str | Path | Store | None = None,
) -> Search:
    """Look for the best points of a space; see `search`."""
    objectives = (objective,) if isinstance(objective, str) else tuple(objective)
    limits = [Limit.of(t) for t in ((constraints,) if isinstance(constraints, str) else constraints)]
    if not objectives:
        raise RequestError("a search needs an objective", hint="such as 'latency_s'")
    if budget < 1:
        raise RequestError(f"budget {budget} is not a positive number of points")
    held = store if isinstance(store, Store) else Store(store)
    keys = keys_of(space)
    chooser = _Chooser(
        space,
        objectives,
        limits,
        sampler or ("tpe" if len(objectives) == 1 else "nsga2"),
        seed,
        min(budget, len(space)),
    )
    if start is not None:
        chooser.learn(start)
    visited: list[int] = []
    for positions in chooser.proposals():
        _complete(held, space, keys, positions)
        frame = held.frame([keys[i] for i in positions])
        for name in (*objectives, *(limit.column for limit in limits)):
            if name not in frame.columns:
                raise RequestError(f"no column '{name}'", hint=did_you_mean(name, frame.columns))
        chooser.tell(positions, records(frame))
        visited += positions
    found = Search(held.frame([keys[i] for i in visited]), space.varied, objectives, limits)
    if not isinstance(store, Store):
        held.close()
    return found


def _complete(held: Store, space: Space, keys: Sequence[bytes], positions: Sequence[int]) -> None:
    """Evaluate the points that the store does not have."""
    wanted = [keys[i] for i in positions]
    lacking = held.missing(wanted)
    if lacking:
        held.add([wanted[j] for j in lacking], evaluate([space.point(positions[j]) for j in lacking]))


class _Chooser:
    """Optuna's ask and tell over the positions of a space."""

    def __init__(
        self,
        space: Space,
        objectives: Sequence[str],
        limits: Sequence[Limit],
        sampler: str,
        seed: int,
        budget: int,
    ) -> None:
        import numpy as np

        try:
            import optuna
        except ImportError:
            raise MissingExtraError("optuna", "search", "searching") from None
        if sampler not in SAMPLERS:
            raise RequestError(f"unknown sampler '{sampler}'", hint=did_you_mean(sampler, SAMPLERS))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._space, self._objectives, self._limits, self._budget = space, objectives, limits, budget
        self._random = np.random.default_rng(seed)
        self._grid = sampler == "grid"
        beyond = dict.fromkeys(("runs", *map(str, limits)), 1.0)
        self._impossible: Outcome = ([_WORST] * len(objectives), beyond)
        self._distributions = {
            name: self._distribution(values) for name, values in space.dimensions.items() if len(values) > 1
        }
        self._study = optuna.create_study(
            directions=["minimize"] * len(objectives), sampler=self._sampler(sampler, seed)
        )
        self._asked: dict[int, Any] = {}
        self._known: dict[int, Outcome] = {}

    def _distribution(self, values: Sequence[Any]) -> Any:
        d = self._optuna.distributions
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numbers and list(values) == sorted(values):
            return d.IntDistribution(0, len(values) - 1)
        return d.CategoricalDistribution(tuple(range(len(values))))

    def _sampler(self, name: str, seed: int) -> Any:
        s = self._optuna.samplers
        if name == "tpe":
            return s.TPESampler(seed=seed, multivariate=True, n_startup_trials=3 * BATCH)
        if name in ("nsga2", "nsga3"):
            kind = s.NSGAIISampler if name == "nsga2" else s.NSGAIIISampler
            return kind(seed=seed, population_size=2 * BATCH)
        return s.RandomSampler(seed=seed)

    def learn(self, start: Study) -> None:
        """Take the rows of an earlier study that belong to this space as trials."""
        names = self._space.varied
        lacking = [n for n in names if n not in start.frame.columns]
        if lacking:
            raise RequestError(f"the study to start from has no column '{lacking[0]}'")
        rows = {tuple(row.get(n) for n in names): row for row in start.rows}
        for position, point in enumerate(self._space.points()):
            row = rows.get(tuple(point[n] for n in names))
            if row is not None:
                self._finish(position, self._outcome(row))

    def proposals(self) -> Iterator[list[int]]:
        """Batches of positions to evaluate next."""
        left = self._budget
        while left > 0 and len(self._known) < len(self._space):
            batch = self._batch(min(BATCH, left, len(self._space) - len(self._known)))
            left -= len(batch)
            yield batch

    def _batch(self, count: int) -> list[int]:
        chosen: list[int] = []
        stale = 0
        while len(chosen) < count:
            if self._grid or stale >= STALE:
                chosen.append(self._fresh(chosen))
                continue
            trial = self._study.ask(self._distributions)
            position = self._space.position({n: trial.params.get(n, 0) for n in self._space.dimensions})
            if position is None:  # a combination that the conditions leave out
                self._told(trial, *self._impossible)
                stale += 1
            elif position in self._known:
                self._told(trial, *self._known[position])
                stale += 1
            elif position in self._asked:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                stale += 1
            else:
                self._asked[position] = trial
                chosen.append(position)
                stale = 0
        return chosen

    def _fresh(self, chosen: Sequence[int]) -> int:
        """A position that nobody has seen: the next of a grid, or any."""
        size = len(self._space)
        if self._grid:
            return next(i for i in range(len(self._known), size) if i not in self._known and i not in chosen)
        while True:  # the budget never exceeds the space, so one is left
            position = int(self._random.integers(size))
            if position not in self._known and position not in chosen:
                return position

    def tell(self, positions: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> None:
        """Give the sampler the outcome of points."""
        for position, row in zip(positions, rows):
            self._finish(position, self._outcome(row))

    def _outcome(self, row: Mapping[str, Any]) -> Outcome:
        values = [float(row.get(n, math.nan)) * (-1.0 if maximised(n) else 1.0) for n in self._objectives]
        runs = row["status"] == "ok" and not any(map(math.isnan, values))
        if not runs:
            return self._impossible
        return values, {"runs": 0.0, **{str(c): min(c.violation(row), 1.0) for c in self._limits}}

    def _finish(self, position: int, outcome: Outcome) -> None:
        self._known[position] = outcome
        trial = self._asked.pop(position, None)
        if trial is not None:
            self._told(trial, *outcome)
            return
        steps = self._space.steps(position)
        self._study.add_trial(
            self._optuna.trial.create_trial(
                params={name: steps[name] for name in self._distributions},
                distributions=self._distributions,
                values=outcome[0],
                constraints=outcome[1],
            )
        )

    def _told(self, trial: Any, values: list[float], violations: Mapping[str, float]) -> None:
        for name, value in violations.items():
            trial.set_constraint(name, value)
        self._study.tell(trial, values)


_WORST = 1e30
"""Value of an objective where a point cannot run; its violation is what samplers rank it by."""
