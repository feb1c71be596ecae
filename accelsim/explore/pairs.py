"""A student beside its teacher on a device: alone, in a cascade, and as the draft of speculative decoding."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.techniques import distillation as d
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

Outcome = Result | Infeasible


@dataclass(frozen=True)
class Distillation:
    """A student and its teacher on one device.

    Attributes
    ----------
    pair : Pair
        With the scores and where they were published.
    student, teacher : Result or Infeasible
    student_parameters, teacher_parameters : int
    notes : tuple of str
    """

    pair: d.Pair
    student: Outcome
    teacher: Outcome
    student_parameters: int
    teacher_parameters: int
    notes: tuple[str, ...]

    @property
    def feasible(self) -> bool:
        return self.student.feasible and self.teacher.feasible

    def ratio(self, name: str) -> float:
        """Teacher's over student's value of a summary column; NaN where one is unknown or infeasible."""
        if not self.feasible:
            return math.nan
        return float(self.teacher.summary[name] / self.student.summary[name])

    @cached_property
    def summary(self) -> dict[str, Any]:
        """One row: speed-up with its range, memory, energy, size and score.

        The range divides the ends of the two error bands, as if the errors were independent; on one device
        they mostly are not, so it is wide.
        """
        low, high = math.nan, math.nan
        if self.feasible:
            s, t = self.student.summary, self.teacher.summary
            low = t["latency_low_s"] / s["latency_high_s"]
            high = t["latency_high_s"] / s["latency_low_s"]
        return {
            "pair": self.pair.name,
            "hardware": self.student.summary["hardware"],
            "batch": self.student.summary["batch"],
            "status": "ok" if self.feasible else "infeasible",
            "reason": "" if self.feasible else self._reason(),
            "speedup": self.ratio("latency_s"),
            "speedup_low": low,
            "speedup_high": high,
            "memory_ratio": self.ratio("memory_bytes"),
            "energy_ratio": self.ratio("energy_per_item_j"),
            "parameters_ratio": self.teacher_parameters / max(1, self.student_parameters),
            "metric": self.pair.metric or "unknown",
            "teacher_value": self.pair.teacher_value,
            "student_value": self.pair.student_value,
            "value_drop": self.pair.teacher_value - self.pair.student_value,
            "published": self.pair.published,
            "source": self.pair.source,
        }

    def _reason(self) -> str:
        lost = self.teacher if not self.teacher.feasible else self.student
        which = "teacher" if not self.teacher.feasible else "student"
        summary = lost.summary
        return f"the {which} needs {summary['need']}, there is {summary['have']}"


def distill(
    student: Any,
    teacher: Any = None,
    hardware: Any = None,
    *,
    phase: str | None = None,
    context: int | None = None,
    **settings: Any,
) -> Distillation:
    """Simulate a student and its teacher alike.

    Parameters
    ----------
    student, teacher : str or Path or Graph
        See `load_workload`; without a teacher, `student` is the name of a shipped pair, such as
        ``distilbert/bert-base``.
    hardware : str or Path or Device
    phase, context
        Of both models.
    **settings
        Further arguments of `simulate`.

    Returns
    -------
    Distillation
        Both results, their ratios, and the published scores of the pair.

    Raises
    ------
    AccelsimError
        An unknown name or pair, or a setting that makes no sense.
    """
    small, large, pair = _models(student, teacher, phase, context)
    outcomes = [simulate(g, _device(hardware), **settings) for g in (small, large)]
    return Distillation(
        pair, outcomes[0], outcomes[1], small.parameters, large.parameters, _notes(small, large, pair)
    )


@dataclass(frozen=True)
class Cascade:
    """A student that answers first and a teacher for what it is not sure of.

    Attributes
    ----------
    acceptance : float
        Share of items that the student's answer settles.
    break_even : float
        Acceptance above which the cascade's mean latency is below the teacher's alone.
    summary : dict
        Mean and worst latency [s], items/s, energy per item [J] and price, beside the teacher's alone.
    notes : tuple of str
    """

    acceptance: float
    break_even: float
    summary: dict[str, Any]
    notes: tuple[str, ...]


def cascade(
    student: Any,
    teacher: Any = None,
    hardware: Any = None,
    *,
    acceptance: float,
    phase: str | None = None,
    context: int | None = None,
    **settings: Any,
) -> Cascade | Infeasible:
    """A cascade on one device: the student for all items, the teacher for 1 - `acceptance` of them.

    Both models stay resident, and the teacher waits until its batches are full. Its score depends on which
    items the student keeps, so it is unknown.

    Parameters
    ----------
    student, teacher, hardware, phase, context, **settings
        As in `distill`.
    acceptance : float
        In [0, 1].

    Returns
    -------
    Cascade or Infeasible
    """
    d.rate("acceptance", acceptance)
    both = distill(student, teacher, hardware, phase=phase, context=context, **settings)
    for outcome in (both.teacher, both.student):
        if isinstance(outcome, Infeasible):
            return outcome
    s, t = both.student.summary, both.teacher.summary

    def mean(name: str, invert: bool = False) -> float:
        small, large = (1 / s[name], 1 / t[name]) if invert else (s[name], t[name])
        value = d.cascade_mean(small, large, acceptance)
        return 1 / value if invert else value

    even = d.cascade_break_even(s["latency_s"], t["latency_s"])
    notes = list(both.notes)
    memory = s["memory_bytes"] + t["memory_bytes"]
    if memory > t["memory_capacity_bytes"]:
        notes.append("the two models do not fit the memory together; swapping them is not in these numbers")
    if even >= 1:
        notes.append("the student is no faster than the teacher here, so no acceptance pays")
    summary = {
        "pair": both.pair.name,
        "hardware": t["hardware"],
        "batch": t["batch"],
        "acceptance": acceptance,
        "break_even_acceptance": even,
        "latency_mean_s": mean("latency_s"),
        "latency_worst_s": s["latency_s"] + t["latency_s"],
        "teacher_latency_s": t["latency_s"],
        "speedup": t["latency_s"] / mean("latency_s"),
        "throughput_per_s": mean("throughput_per_s", invert=True),
        "energy_per_item_j": mean("energy_per_item_j"),
        "teacher_energy_per_item_j": t["energy_per_item_j"],
        "usd_per_million_items": mean("usd_per_million_items"),
        "memory_bytes": memory,
        "score": "unknown",
    }
    return Cascade(acceptance, even, summary, tuple(notes))


@dataclass(frozen=True)
class Speculation:
    """Speculative decoding: a student drafts, the teacher checks.

    Attributes
    ----------
    acceptance : float
    rows : tuple of dict
        One per draft length, 0 (the teacher alone) first.
    best_draft : int
        Draft length with the least time per token.
    notes : tuple of str
    """

    acceptance: float
    rows: tuple[dict[str, Any], ...]
    best_draft: int
    notes: tuple[str, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per draft length: ``draft tokens_per_pass student_s verify_s seconds_per_token speedup
        break_even_acceptance``; energy per token where the device has the coefficients.
        """
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @property
    def summary(self) -> dict[str, Any]:
        """The row of the best draft length."""
        return next(row for row in self.rows if row["draft"] == self.best_draft)


def speculative(
    student: Any,
    teacher: Any = None,
    hardware: Any = None,
    *,
    acceptance: float,
    drafts: Iterable[int] | None = None,
    batch: int = 1,
    context: int | None = None,
    **settings: Any,
) -> Speculation | Infeasible:
    """Speculative decoding on one device (Leviathan et al., ICML 2023, arXiv:2211.17192).

    A round is k decode steps of the student and one step of the teacher over k + 1 tokens, whose products
    see k + 1 rows per sequence while the cache is read once. Sampling and the rejected tokens' cache entries
    cost nothing.

    Parameters
    ----------
    student, teacher, hardware, context, **settings
        As in `distill`; both models decode.
    acceptance : float
        Probability that a drafted token is accepted when those before it were, in [0, 1].
    drafts : iterable of int, optional
        Draft lengths to compare; 1 to `MAX_DRAFT` by default. 0 is always there.
    batch : int
        Sequences.

    Returns
    -------
    Speculation or Infeasible
    """
    d.rate("acceptance", acceptance)
    lengths = sorted({0, *(drafts if drafts is not None else range(1, d.MAX_DRAFT + 1))})
    if any(isinstance(k, bool) or not isinstance(k, int) or k < 0 for k in lengths):
        raise RequestError(f"draft lengths {lengths} are not whole numbers of at least 0")
    small, large, pair = _models(student, teacher, "decode", context)
    device = _device(hardware)
    drafted = simulate(small, device, batch=batch, **settings)
    checks = {k: simulate(d.verification(large, k + 1), device, batch=batch, **settings) for k in lengths}
    for outcome in (drafted, *checks.values()):
        if isinstance(outcome, Infeasible):
            return outcome
    rows = [_round(k, acceptance, drafted, checks[k], checks[0]) for k in lengths]
    best = min(rows, key=lambda row: (row["seconds_per_token"], row["draft"]))
    notes = list(_notes(small, large, pair))
    if best["draft"] == 0:
        notes.append(f"no draft length pays at an acceptance of {acceptance:.0%}")
    together = drafted.summary["memory_bytes"] + checks[best["draft"]].summary["memory_bytes"]
    if together > drafted.summary["memory_capacity_bytes"]:
        notes.append("the two models do not fit the memory together")
    return Speculation(acceptance, tuple(rows), best["draft"], tuple(notes))


def _round(k: int, acceptance: float, drafted: Outcome, check: Outcome, alone: Outcome) -> dict[str, Any]:
    s, v, t = drafted.summary, check.summary, alone.summary
    seconds = d.seconds_per_token(acceptance, k, s["latency_s"], v["latency_s"])
    energy = (k * s["energy_per_item_j"] + v["energy_per_item_j"]) / d.expected_tokens(acceptance, k)
    return {
        "draft": k,
        "acceptance": acceptance,
        "tokens_per_pass": d.expected_tokens(acceptance, k),
        "student_s": s["latency_s"],
        "verify_s": v["latency_s"],
        "seconds_per_token": seconds,
        "speedup": t["latency_s"] / seconds,
        "energy_per_token_j": energy,
        "break_even_acceptance": d.speculation_break_even(k, s["latency_s"], v["latency_s"], t["latency_s"]),
    }


# -- both models
# ----------------------------------------------------------------------------------------------------------


def _models(
    student: Any, teacher: Any, phase: str | None, context: int | None
) -> tuple[Graph, Graph, d.Pair]:
    if teacher is None:
        pair = d.named_pair(str(student))
        student, teacher = pair.student, pair.teacher
    small, large = (load_workload(source, phase=phase, context=context) for source in (student, teacher))
    return small, large, d.find_pair(small.name, large.name)


def _device(hardware: Any) -> Any:
    if hardware is None:
        raise RequestError("no hardware was given", hint='such as hardware="h100-sxm"')
    return hardware


def _notes(small: Graph, large: Graph, pair: d.Pair) -> tuple[str, ...]:
    found = []
    if small.parameters > large.parameters:
        found.append(
            f"warning: the student {small.name} has {small.parameters:,} parameters, more than the teacher's "
            f"{large.parameters:,}"
        )
    if math.isnan(pair.student_value):
        found.append(f"score unknown: {pair.source}")
    elif not pair.distilled:
        found.append("both models were trained alone: the score is not one of distillation")
    return tuple(found)
