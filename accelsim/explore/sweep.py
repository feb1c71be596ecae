"""Sweeps: the same question for every point of a space, resumed, in parallel, kept."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelsim.core.errors import RequestError
from accelsim.explore.evaluate import Group, Loaded, evaluate, groups_of, keys_of, rows_of
from accelsim.explore.space import Space
from accelsim.explore.store import Columns, Store
from accelsim.explore.study import Study

WORKERS_S = 2.5
"""What starting worker processes takes: they import the package and load its compiled kernels [s]."""

JUDGED_S = 0.2
"""Work after which the speed of a sweep is known well enough to decide on workers [s]."""

TASK_POINTS = 512
"""Least points that a worker takes at once where there are more."""

MOST_POINTS = 16_384
"""Most points that a worker takes at once; also what a killed process can lose."""

KEPT_POINTS = 256
KEPT_S = 1.0
"""Rows that are kept at once, and how long the first of them waits at most [s]: a transaction takes as long
as a small simulation."""

SAMPLE = 5
"""Points simulated to predict how long a sweep takes."""

LONG_S = 24 * 3600.0
"""A sweep predicted to take longer needs ``yes=True``."""

CONNECT_S = 5.0
"""How long a cluster's scheduler may take to answer."""


def sweep(
    workload: Any,
    hardware: Any,
    *,
    batch: Any = 1,
    precision: Any = None,
    zipped: Sequence[Sequence[str]] = (),
    where: str | Sequence[str] = (),
    store: str | Path | Store | None = None,
    jobs: int | None = None,
    cluster: Any = None,
    progress: bool | None = None,
    yes: bool = False,
    **settings: Any,
) -> Study:
    """Simulate every point of a space.

    Parameters
    ----------
    workload, hardware, batch, precision
        One value or a list of them.
    zipped : sequence of sequences of str
        Axes that advance together.
    where : str or sequence of str
        Conditions that points must meet, such as ``"precision != 'int4' or computes(hardware, precision)"``.
    store : path or Store, optional
        SQLite file that keeps every row. Points that it has are not computed again.
    jobs : int, optional
        Worker processes; by default all cores once the points that are left are seen to take so long that
        starting them pays, and none before.
    cluster : str or distributed.Client, optional
        A Dask scheduler (``"tcp://host:8786"``) that runs the points instead.
    progress : bool, optional
        Show a progress bar; by default when the output is a terminal or a notebook.
    yes : bool
        Run even if it is predicted to take more than a day.
    **settings
        Further arguments of `simulate`; with ``rate_per_s`` (Poisson arrivals, of language models with
        ``prompt_tokens`` and ``output_tokens``) or ``arrivals`` the points are served, and these are the
        arguments of `serve`, `batching` among them; or hardware parameters by dotted path
        (``**{"memory.bandwidth": ["1 TB/s", "2 TB/s"]}``); a list there is an axis too.

    Returns
    -------
    Study

    Raises
    ------
    AccelsimError
        A name, file or value is wrong, found before the first point runs; the store cannot be written; the
        cluster does not answer. A combination that a device cannot run is a row, not an error.
    """
    axes = {"workload": workload, "hardware": hardware, "batch": batch, "precision": precision, **settings}
    space = Space(axes, zipped=zipped, where=where)
    return run(space, store=store, jobs=jobs, cluster=cluster, progress=progress, yes=yes)


def run(
    space: Space,
    *,
    store: str | Path | Store | None = None,
    jobs: int | None = None,
    cluster: Any = None,
    progress: bool | None = None,
    yes: bool = False,
) -> Study:
    """Simulate the points of a space that a store does not have yet; see `sweep`."""
    held = store if isinstance(store, Store) else Store(store)
    keys = keys_of(space)
    todo = held.missing(keys)
    # Points that differ only in how they are written have one key.
    todo = list({keys[i]: i for i in reversed(todo)}.values())[::-1]
    if len(todo) > TASK_POINTS and not yes:
        _refuse_long(space, todo, -1 if jobs is None else jobs)
    with _backend(cluster), _bar(len(todo), progress) as bar:
        for positions, columns in _computed(space, todo, jobs, cluster is not None):
            held.add([keys[i] for i in positions], columns)
            bar.set_postfix(infeasible=bar.infeasible(columns), refresh=False)
            bar.update(len(positions))
    study = Study(held.frame(keys), space.varied)
    if not isinstance(store, Store):
        held.close()
    return study


def predicted_s(space: Space, workers: int = 1) -> float:
    """Time that the points of a space will take [s], from a few of them."""
    return _predicted_s(space, list(range(len(space))), workers)


def _predicted_s(space: Space, todo: Sequence[int], workers: int) -> float:
    step = max(1, len(todo) // SAMPLE)
    sample = [space.point(i) for i in todo[::step][:SAMPLE]]
    evaluate(sample[:1])  # compiles and loads what every point shares
    start = time.perf_counter()
    evaluate(sample)
    spent = time.perf_counter() - start
    return spent / len(sample) * len(todo) / max(1, _cores(workers))


def _cores(workers: int) -> int:
    from joblib import effective_n_jobs

    return int(effective_n_jobs(workers))


def _refuse_long(space: Space, todo: Sequence[int], workers: int) -> None:
    expected_s = _predicted_s(space, todo, workers)
    if expected_s > LONG_S:
        raise RequestError(
            f"{len(todo)} points would take about {expected_s / 86400:.1f} days here",
            hint="pass yes=True (--yes) to run them, or use fewer points or a cluster",
        )


def _computed(
    space: Space, todo: Sequence[int], jobs: int | None, remote: bool
) -> Iterator[tuple[list[int], Columns]]:
    """Positions and rows of the points, in the order in which workers finish them."""
    import numpy as np

    groups = groups_of(space, np.array(todo, dtype=np.int64))
    if jobs is None and not remote:
        left: list[Group] = []
        yield from _gathered(_here(groups, left))
        if not left:
            return
        groups = left
    workers = -1 if jobs is None else jobs
    share = -(-sum(len(group.batches) for group in groups) // (4 * max(1, _cores(workers))))
    tasks = _tasks(groups, min(share, MOST_POINTS))
    if workers == 1 and not remote:
        yield from _gathered(table for task in tasks for table in _rows(task))
        return
    from joblib import Parallel, delayed

    parallel = Parallel(
        n_jobs=workers, return_as="generator_unordered", pre_dispatch="3*n_jobs", batch_size=1
    )
    for tables in parallel(delayed(_run)(task) for task in tasks):
        yield from tables


def _here(groups: Sequence[Group], left_over: list[Group]) -> Iterator[tuple[list[int], Columns]]:
    """Rows of the points that run in this process before workers pay; the others go to `left_over`."""
    waiting = deque(groups)
    left = sum(len(group.batches) for group in groups)
    loaded, size = Loaded(), TASK_POINTS
    done, start = 0, math.inf
    while waiting:
        spent = time.perf_counter() - start
        if done and spent > JUDGED_S and spent / done * left * (1.0 - 1.0 / _cores(-1)) > WORKERS_S:
            break
        group, *rest = waiting.popleft().parts(size)
        yield from rows_of(group, loaded)
        left -= len(group.batches)
        if start == math.inf:  # the first points compile and load what all share
            start = time.perf_counter()
        else:
            done += len(group.batches)
        waiting.extendleft(reversed(rest))
        size = min(2 * size, MOST_POINTS)
    left_over.extend(waiting)


def _gathered(tables: Iterable[tuple[list[int], Columns]]) -> Iterator[tuple[list[int], Columns]]:
    """Tables of the same columns joined, up to `KEPT_POINTS` rows and as long as none waits for `KEPT_S`."""
    waiting: dict[tuple[str, ...], tuple[list[int], dict[str, list[Any]]]] = {}
    since = time.perf_counter()
    for positions, columns in tables:
        names = tuple(columns)
        places, held = waiting.setdefault(names, ([], {name: [] for name in names}))
        places.extend(positions)
        for name, values in columns.items():
            held[name].extend(values)
        if len(places) >= KEPT_POINTS or time.perf_counter() - since > KEPT_S:
            yield from waiting.values()
            waiting, since = {}, time.perf_counter()
    yield from waiting.values()


def _tasks(groups: Sequence[Group], points: int) -> Iterator[list[Group]]:
    """Groups, or parts of large ones, by the task that evaluates them."""
    task: list[Group] = []
    held = 0
    for group in groups:
        for part in group.parts(max(TASK_POINTS, points)):
            if task and held + len(part.batches) > max(1, points):
                yield task
                task, held = [], 0
            task.append(part)
            held += len(part.batches)
    if task:
        yield task


def _run(task: Sequence[Group]) -> list[tuple[list[int], Columns]]:
    return list(_gathered(_rows(task)))


def _rows(task: Sequence[Group]) -> Iterator[tuple[list[int], Columns]]:
    loaded = Loaded()
    for group in task:
        yield from rows_of(group, loaded)


@contextmanager
def _backend(cluster: Any) -> Iterator[None]:
    """Where joblib's tasks run: here, or on a Dask cluster."""
    if cluster is None:
        yield
        return
    from joblib import parallel_config

    client, own = _client(cluster)
    with parallel_config(backend="dask", client=client):
        try:
            yield
        finally:
            if own:
                client.close()


def _client(cluster: Any) -> tuple[Any, bool]:
    from accelsim.core.errors import MissingExtraError

    try:
        from distributed import Client
    except ImportError:
        raise MissingExtraError("distributed", "cluster", "running on a cluster") from None
    if isinstance(cluster, Client):
        return cluster, False
    try:
        client = Client(cluster, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"no Dask scheduler answers at {cluster} ({reason})") from None
    versions = {w["host"]: w for w in client.scheduler_info()["workers"].values()}
    if not versions:
        client.close()
        raise RequestError(
            f"the Dask scheduler at {cluster} has no workers", hint="start some: dask worker ADDRESS"
        )
    return client, True


class _Progress:
    """A bar that counts infeasible points."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._infeasible = bar, 0

    def infeasible(self, columns: Mapping[str, Sequence[Any]]) -> int:
        self._infeasible += sum(s != "ok" for s in columns["status"])
        return self._infeasible

    def set_postfix(self, **values: Any) -> None:
        self._bar.set_postfix(**values)

    def update(self, count: int) -> None:
        self._bar.update(count)


@contextmanager
def _bar(total: int, progress: bool | None) -> Iterator[_Progress]:
    from tqdm.auto import tqdm

    hidden = not progress if progress is not None else not (sys.stderr.isatty() or "ipykernel" in sys.modules)
    with tqdm(total=total, disable=hidden, unit="point") as bar:
        yield _Progress(bar)
