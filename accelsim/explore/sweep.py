"""Sweeps: the same question for every combination of a few lists."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.engine.simulate import simulate

if TYPE_CHECKING:
    import pandas as pd

SERIAL_POINTS = 256
"""Below this many points, starting worker processes costs more than it saves."""

FIRST_COLUMNS = ("workload", "hardware", "batch", "precision", "status", "reason", "need", "have", "hint")


def pow2(low: int, high: int) -> list[int]:
    """Powers of two from `low` to `high`, both included when they are powers of two."""
    if low < 1 or high < low:
        raise RequestError(f"pow2({low}, {high}) needs 1 <= low <= high")
    return [2**i for i in range((low - 1).bit_length(), high.bit_length()) if low <= 2**i <= high]


@dataclass(frozen=True)
class Study:
    """The points of a sweep.

    Attributes
    ----------
    rows : tuple of dict
        One per point, in the order of the lists; infeasible points are rows with ``reason need have hint``.
    """

    rows: tuple[dict[str, Any], ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The points as a table."""
        import pandas as pd

        table = pd.DataFrame(list(self.rows))
        first = [c for c in FIRST_COLUMNS if c in table.columns]
        return table[[*first, *(c for c in table.columns if c not in first)]]

    @property
    def feasible(self) -> pd.DataFrame:
        return self.frame[self.frame["status"] == "ok"]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        infeasible = sum(row["status"] != "ok" for row in self.rows)
        return f"Study of {len(self.rows)} points, {infeasible} infeasible"

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.frame.to_html(max_rows=20, notebook=True)}"


def sweep(
    workload: Any,
    hardware: Any,
    *,
    batch: Any = 1,
    precision: Any = None,
    jobs: int | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Study:
    """Simulate every combination.

    Parameters
    ----------
    workload, hardware, batch, precision
        One value or a list of them.
    jobs : int, optional
        Worker processes; by default one for small sweeps, else all cores.
    progress : bool, optional
        Show a progress bar; by default when the output is a terminal or a notebook.
    **settings
        Further arguments of `simulate`; a list there is an axis too.

    Returns
    -------
    Study

    Raises
    ------
    AccelsimError
        A name, file or value is wrong, found before the first point runs. A combination that a device cannot
        run is a row, not an error.
    """
    axes = {"workload": workload, "hardware": hardware, "batch": batch, "precision": precision, **settings}
    values = {name: _values(value) for name, value in axes.items()}
    empty = [name for name, held in values.items() if not held]
    if empty:
        raise RequestError(f"the list for '{empty[0]}' is empty")
    _check(values)
    points = [dict(zip(values, combination)) for combination in itertools.product(*values.values())]
    workers = jobs if jobs is not None else (1 if len(points) < SERIAL_POINTS else -1)
    return Study(tuple(_tracked(_run(points, workers), len(points), progress)))


def _values(value: Any) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or hasattr(value, "ops"):
        return [value]
    return list(value)


def _check(values: Mapping[str, list[Any]]) -> None:
    """Find wrong names and values before anything runs."""
    from accelsim.core.precision import plan
    from accelsim.hardware.spec import load_hardware

    for name in values["hardware"]:
        load_hardware(name)
    for request in values["precision"]:
        if request is not None:
            plan(request)
    for batch in values["batch"]:
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise RequestError(f"batch {batch!r} is not a positive integer")


def _point(point: dict[str, Any]) -> dict[str, Any]:
    return simulate(**point).summary


def _run(points: list[dict[str, Any]], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        return (_point(p) for p in points)
    from joblib import Parallel, delayed

    results: Iterator[dict[str, Any]] = Parallel(n_jobs=workers, return_as="generator")(
        delayed(_point)(p) for p in points
    )
    return results


def _tracked(rows: Iterable[dict[str, Any]], total: int, progress: bool | None) -> Iterator[dict[str, Any]]:
    """The rows, with a bar that counts infeasible ones."""
    from tqdm.auto import tqdm

    hidden = not progress if progress is not None else not (sys.stderr.isatty() or "ipykernel" in sys.modules)
    infeasible = 0
    with tqdm(total=total, disable=hidden, unit="point") as bar:
        for row in rows:
            infeasible += row["status"] != "ok"
            bar.set_postfix(infeasible=infeasible, refresh=False)
            bar.update()
            yield row
