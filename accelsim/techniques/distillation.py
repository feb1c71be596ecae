"""Students and teachers: known pairs, and the arithmetic of cascades and of speculative decoding.

The formulas take latencies (or energies, or prices) as plain numbers; `accelsim.explore.pairs` measures them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from accelsim.core.errors import GraphError, RequestError, UnknownNameError, did_you_mean
from accelsim.core.paths import data_folder
from accelsim.workload.graph import Graph, Op, Tensor

MAX_DRAFT = 16
"""Longest draft that is considered."""


# -- pairs
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A small model that stands in for a large one.

    Attributes
    ----------
    name, student, teacher : str
        Names in the workload catalog.
    distilled : bool
        The student was trained on the teacher's outputs; otherwise both were trained alone.
    metric : str
        What the two values are; empty where none is known.
    teacher_value, student_value : float
        NaN where unknown.
    published : str
        What the publication claims beside the score; shown, not scored.
    source : str
    """

    name: str
    student: str
    teacher: str
    distilled: bool = False
    metric: str = ""
    teacher_value: float = math.nan
    student_value: float = math.nan
    published: str = ""
    source: str = "given by the caller"


@lru_cache(maxsize=1)
def pairs() -> tuple[Pair, ...]:
    """The pairs that ship, ``workloads/pairs.csv``."""

    def number(text: str) -> float:
        return float(text) if text else math.nan

    with (data_folder("workloads") / "pairs.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Pair(
                row["name"],
                row["student"],
                row["teacher"],
                row["distilled"] == "yes",
                row["metric"],
                number(row["teacher_value"]),
                number(row["student_value"]),
                row["published"],
                row["source"],
            )
            for row in csv.DictReader(file)
        )


def find_pair(student: str, teacher: str) -> Pair:
    """The shipped pair of two models, or one whose scores are unknown."""
    found = next((p for p in pairs() if (p.student, p.teacher) == (student, teacher)), None)
    unknown = Pair(
        f"{student}/{teacher}", student, teacher, source="no published score of this pair is at hand"
    )
    return found or unknown


def named_pair(name: str) -> Pair:
    """A shipped pair by its name, ``student/teacher``.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    held = {p.name: p for p in pairs()}
    if name not in held:
        raise UnknownNameError(f"unknown pair '{name}'", hint=did_you_mean(name, held))
    return held[name]


def rate(name: str, value: float) -> float:
    """A probability.

    Raises
    ------
    RequestError
        Outside [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise RequestError(f"{name} {value!r} is not in [0, 1]")
    return float(value)


# -- cascades
# ----------------------------------------------------------------------------------------------------------


def cascade_mean(student: float, teacher: float, acceptance: float) -> float:
    """Expected latency, energy or price of an item when the student answers first.

    The teacher runs for those that the student is not sure of: s + (1 - a) t (Viola and Jones, CVPR 2001,
    doi:10.1109/CVPR.2001.990517).
    """
    return student + (1.0 - rate("acceptance", acceptance)) * teacher


def cascade_break_even(student: float, teacher: float) -> float:
    """Acceptance above which a cascade costs less than the teacher alone: s / t. Above 1 it never does."""
    return student / teacher if teacher > 0 else math.inf


# -- speculative decoding
# ----------------------------------------------------------------------------------------------------------


def expected_tokens(acceptance: float, draft: int) -> float:
    """Tokens that one pass of the teacher yields: (1 - a^(k+1)) / (1 - a), and k + 1 at a = 1.

    Each of k drafted tokens is accepted with probability a while all before it were; the teacher adds one of
    its own (Leviathan et al., ICML 2023, arXiv:2211.17192, eq. 1; acceptances are taken as independent).
    """
    a = rate("acceptance", acceptance)
    if isinstance(draft, bool) or not isinstance(draft, int) or draft < 0:
        raise RequestError(f"draft length {draft!r} is not a whole number of at least 0")
    return float(draft + 1) if a == 1.0 else (1.0 - a ** (draft + 1)) / (1.0 - a)


def seconds_per_token(acceptance: float, draft: int, student_s: float, verify_s: float) -> float:
    """Time per token [s]: k passes of the student and one of the teacher over k + 1 tokens, per token
    yielded.
    """
    return (draft * student_s + verify_s) / expected_tokens(acceptance, draft)


def speculation_break_even(draft: int, student_s: float, verify_s: float, teacher_s: float) -> float:
    """Acceptance at which speculation is as fast as the teacher alone; NaN where it never is.

    The yield grows with the acceptance, from 1 to k + 1, so bisection finds the one root.
    """
    needed = (draft * student_s + verify_s) / teacher_s
    if needed > draft + 1:
        return math.nan
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if expected_tokens(middle, draft) >= needed else (middle, high)
    return high if needed > 1 else 0.0


def best_draft(
    acceptance: float, student_s: float, verify_s: Callable[[int], float], longest: int = MAX_DRAFT
) -> int:
    """Draft length with the least time per token; 0 is the teacher alone, ``verify_s(k)`` its pass over k + 1
    tokens [s].
    """
    return min(
        range(longest + 1), key=lambda k: (seconds_per_token(acceptance, k, student_s, verify_s(k)), k)
    )


# -- a pass over several new tokens
# ----------------------------------------------------------------------------------------------------------


def verification(graph: Graph, tokens: int) -> Graph:
    """The decode step of a model over several new tokens of each sequence at once.

    Products see `tokens` rows per sequence; the cache is read once for all of them. `graph` is for one
    sequence.

    Raises
    ------
    GraphError
        It is not a decode graph.
    """
    if graph.phase != "decode" or graph.batch != 1:
        raise GraphError("only a decode step of one sequence verifies several tokens", graph.name)
    if tokens == 1:
        return graph
    grown = graph.with_batch(tokens)
    ops: list[Op] = []
    for op in grown:
        if op.kind in ("attention", "mla_attention"):
            ops.extend(_shared_cache(op, tokens))
        else:
            ops.append(op)
    made = Graph(graph.name, ops, phase="decode", batch=1, item=f"{tokens} tokens", metadata=graph.metadata)
    return made


def _shared_cache(op: Op, tokens: int) -> list[Op]:
    """An attention whose queries are tokens of one sequence: (tokens, h, 1, d) become (1, h, tokens, d)."""
    query, *rest = op.inputs
    out = op.outputs[0]
    if query.shape[2] != 1:
        raise GraphError("attention has more than one query per sequence", op.name)

    def turned(t: Tensor, name: str) -> Tensor:
        return replace(t, name=name, shape=(1, t.shape[1], tokens, t.shape[3]))

    q, y = turned(query, f"{op.name}.queries"), turned(out, f"{op.name}.values")
    caches = [
        replace(t, shape=(t.shape[0] // tokens, *t.shape[1:])) if t.batch_axis == 0 else t for t in rest
    ]
    return [
        Op(q.name, "reshape", (query,), (q,), {}, op.repeat, origin="view"),
        replace(op, inputs=(q, *caches), outputs=(y,)),
        Op(f"{op.name}.tokens", "reshape", (y,), (out,), {}, op.repeat, origin="view"),
    ]
