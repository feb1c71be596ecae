"""Fits of kernel constants, one kernel after the other: products, narrow formats, attention, expert layers,
convolutions.

A kernel's rows are those whose predictions its constants decide, so the fit needs to know no rule by which a
stack picks kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.calibration import constants as C
from accelsim.calibration.optimise import Problem, minimise, robust
from accelsim.calibration.rows import Sample

Array = npt.NDArray[np.float64]

FEW = 50
"""Usable rows below which a calibration warns, keeps more of the prior and widens its band."""
PRIOR_SD = 0.5
"""Standard deviation of the logarithm of a constant around what the device had: families differ by about
that."""
MOST_ROWS = 2000
"""Rows of fast operators that a fit of one kernel uses; a seeded sample where there are more."""
MOST_SLOW_ROWS = 400
"""The same of operators that are costed one by one, and of the search for choices."""
ENOUGH = 200
"""Rows of a kernel from which on choices of its library are searched too."""
BETTER = 0.01
"""A choice is taken where it makes the robust error smaller by this share."""

_SLOW = frozenset({"softmax", "layernorm", "rmsnorm", "elementwise", "embedding"})
_PROBE = 0.95
"""Factor on all constants of a kernel that shows which rows they decide."""


@dataclass(frozen=True)
class Case:
    """Measured rows of one device. Fits of several cases share their constants."""

    device: Any
    sample: Sample

    def at(self, values: Mapping[C.Path, float]) -> Case:
        """The same rows on the device with other constants."""
        return Case(C.with_constants(self.device, values), self.sample) if values else self


def fit_constants(
    cases: Sequence[Case], paths: Sequence[C.Path], prior_sd: float = PRIOR_SD, rounds: int = 12
) -> dict[C.Path, float]:
    """Constants that make the median absolute log error of the rows small, near those of the first device.

    Parameters
    ----------
    cases : sequence of Case
        Each counts alike, whatever its rows.
    paths : sequence of tuple of str
        Which constants, all above zero.
    prior_sd : float
        See `PRIOR_SD`.
    rounds : int
        Most steps of the search; few do for comparisons, and leave out the fine search at the end.
    """
    held = C.constants(cases[0].device)
    start = np.log([held[path] for path in paths])
    low, high = (np.full(len(paths), side) for side in (-np.inf, np.inf))
    for i, path in enumerate(paths):
        least, most = C.limits(cases[0].device, path)
        low[i] = np.log(least) if least > 0 else start[i] - 5.0
        high[i] = np.log(most) if np.isfinite(most) else start[i] + 5.0
    known = [np.isfinite(case.sample.log_ratio(case.device)) for case in cases]

    def residual(x: Array) -> Array:
        values = dict(zip(paths, np.exp(x).tolist()))
        parts = [c.sample.log_ratio(C.with_constants(c.device, values))[k] for c, k in zip(cases, known)]
        return np.concatenate(parts)

    total = sum(int(k.sum()) for k in known)
    weight = np.concatenate([np.full(int(k.sum()), total / len(cases) / max(int(k.sum()), 1)) for k in known])
    sd = np.full(len(paths), prior_sd)
    problem = Problem(residual, start, low, np.maximum(high, low), sd, weight)
    best = minimise(problem, rounds, fine=rounds >= 12)
    return dict(zip(paths, np.exp(best).tolist()))


def sensitive(case: Case, candidates: Sequence[C.Path]) -> list[C.Path]:
    """Constants that change the predictions of the rows, by more than a hundredth of their own change."""
    held = C.constants(case.device)
    before = case.sample.log_ratio(case.device)
    found = []
    for path in candidates:
        least, _ = C.limits(case.device, path)
        step = -0.1 if held[path] * np.exp(-0.1) >= least else 0.1
        moved = (
            case.sample.log_ratio(C.with_constants(case.device, {path: held[path] * np.exp(step)})) - before
        )
        if np.nanmean(np.abs(moved)) > 0.001:
            found.append(path)
    return found


def owners(
    device: Any, sample: Sample, among: Sequence[C.Path] | None = None
) -> dict[C.Path, npt.NDArray[np.intp]]:
    """Rows by the kernel whose constants decide them: the products' where no other kernel's do.

    Parameters
    ----------
    device : GpuDevice
    sample : Sample
    among : sequence of tuple of str, optional
        Kernels to look at; all by default.
    """
    before = sample.log_ratio(device)
    held = C.constants(device)
    left = np.isfinite(before)
    found: dict[C.Path, npt.NDArray[np.intp]] = {}
    for section in C.sections(device) if among is None else among:
        mine = [path for path in held if path[: len(section)] == section]
        if section == ("product",) or not mine:
            continue
        moved = sample.log_ratio(C.with_constants(device, {path: held[path] * _PROBE for path in mine}))
        rows = left & (np.abs(moved - before) > 1e-9)
        if rows.any():
            found[section] = np.flatnonzero(rows)
            left &= ~rows
    if left.any() and (among is None or ("product",) in among):
        found = {("product",): np.flatnonzero(left), **found}
    return found


def fitted(device: Any, sample: Sample, seed: int = 0, prior_sd: float = PRIOR_SD) -> dict[C.Path, float]:
    """Constants of a device from rows of any operators: products and streams first, then each other kernel
    with what is left, as a convolution is a product with a loader of its own.
    """
    changes: dict[C.Path, float] = {}
    for section, rows in owners(device, sample).items():
        part = sample.take(rows)
        slow = set(part.frame["op"].astype(str)) & _SLOW
        part = part.thinned(MOST_SLOW_ROWS if slow else MOST_ROWS, seed)
        case = Case(C.with_constants(device, changes), part)
        # A kernel that few rows speak for stays near its prior.
        sd = prior_sd * min(1.0, len(rows) / FEW)
        changes |= fit_section([case], section, seed=seed, prior_sd=sd)
    return changes


def fit_section(
    cases: Sequence[Case],
    section: C.Path,
    *,
    seed: int = 0,
    prior_sd: float = PRIOR_SD,
    choose: bool = True,
    like: Sequence[C.Path] = (),
) -> dict[C.Path, float]:
    """Constants of one kernel, and with enough rows the choices of its library.

    Parameters
    ----------
    cases : sequence of Case
        Rows that the kernel decides, see `owners`; each case counts alike.
    section : tuple of str
        Path of the kernel in ``device.kernels``.
    seed : int
        Chooses the rows on which choices are compared.
    prior_sd : float
    choose : bool
        Whether to search choices.
    like : sequence of tuple of str
        Kernels of the device with whose constants the search may start as well: of them that which fits best
        after a few steps. The better of both searches counts.
    """
    chosen: dict[C.Path, float] = {}
    few = [Case(c.device, c.sample.thinned(MOST_SLOW_ROWS, seed)) for c in cases]
    if choose and sum(len(c.sample) for c in cases) >= ENOUGH:
        found: list[tuple[float, dict[C.Path, float]]] = []
        for start in (chosen, _start(few, section, like, prior_sd)):
            if start or not found:
                score, values = _choices([case.at(start) for case in few], section, prior_sd)
                found.append((score, start | values))
        _, chosen = min(found, key=lambda entry: entry[0])
    at = [case.at(chosen) for case in cases]
    paths = sensitive(few[0].at(chosen), _of(section, at[0].device))
    if not paths:
        return chosen
    return chosen | fit_constants(at, paths, prior_sd)


def _of(section: C.Path, device: Any) -> list[C.Path]:
    return [path for path in C.constants(device) if path[: len(section)] == section]


def _start(
    cases: Sequence[Case], section: C.Path, like: Sequence[C.Path], prior_sd: float
) -> dict[C.Path, float]:
    """Constants of that other kernel which a few steps bring nearest to the rows."""
    best, chosen = np.inf, dict[C.Path, float]()
    held = C.numbers(cases[0].device)
    for other in like:
        values = {(*section, *p[len(other) :]): v for p, v in held.items() if p[: len(other)] == other}
        score, _ = _refitted(cases, values, section, prior_sd)
        if score < best:
            best, chosen = score, values
    return chosen


def _choices(cases: Sequence[Case], section: C.Path, prior_sd: float) -> tuple[float, dict[C.Path, float]]:
    """Robust error of the rows, and choices found one field after the other; constants follow each."""
    fields = C.choices(cases[0].device, section)
    values: dict[C.Path, float] = {}
    best, start = _refitted(cases, {}, section, prior_sd)
    # Twice, as what pays can depend on a choice that comes later.
    for path, held in [*fields.items(), *fields.items()]:
        if path[-1] in C.STARTS and path in values:
            continue
        for value in C.CHOICES.get(path[-1]) or (C.STARTS[path[-1]],):
            if value == values.get(path, held):
                continue
            score, found = _refitted(cases, start | values | {path: value}, section, prior_sd)
            if score < (1.0 - BETTER) * best:
                best, start = score, start | found
                values[path] = value
    return best, start | values


def _refitted(
    cases: Sequence[Case], values: Mapping[C.Path, float], section: C.Path, prior_sd: float
) -> tuple[float, dict[C.Path, float]]:
    """Robust error of the rows, with constants fitted by a few steps, and the constants."""
    at = [case.at(values) for case in cases]
    paths = sensitive(at[0], _of(section, at[0].device))
    found = fit_constants(at, paths, prior_sd, rounds=3) if paths else {}
    errors = [case.at(found).sample.log_ratio(case.at(found).device) for case in at]
    return float(np.mean([robust(e[np.isfinite(e)]) for e in errors])), found
