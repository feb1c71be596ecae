"""Commands that explore: sweep, search, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.cli.common import Json, axis, check_precisions, counts, emit
from accelsim.core.errors import ConfigError, MissingExtraError, RequestError
from accelsim.core.frames import records
from accelsim.explore.study import Study
from accelsim.report import tables

app = typer.Typer()

SHOWN = 20
"""Rows of a large study that a terminal shows."""

File = Annotated[Path | None, typer.Argument(help="A study, .yaml; or give the lists as options.")]
Workload = Annotated[list[str] | None, typer.Option("--workload", "-w", help="Workload; repeat for several.")]
Hardware = Annotated[list[str] | None, typer.Option("--hardware", "-d", help="Device; repeat for several.")]
Batch = Annotated[list[str] | None, typer.Option("--batch", "-b", help="Batch; repeat for several.")]
Precision = Annotated[list[str] | None, typer.Option("--precision", "-p", help="Format; repeat for several.")]
Kept = Annotated[Path | None, typer.Option("--store", help="SQLite file that keeps every row and resumes.")]
Csv = Annotated[Path | None, typer.Option(help="Write the table as CSV.")]
Parquet = Annotated[Path | None, typer.Option(help="Write the table as Parquet.")]
Latex = Annotated[Path | None, typer.Option(help="Write a LaTeX table, booktabs and siunitx.")]


@app.command()
def sweep(
    study: File = None,
    workload: Workload = None,
    hardware: Hardware = None,
    batch: Batch = None,
    precision: Precision = None,
    where: Annotated[list[str] | None, typer.Option(help="Condition on points; repeat for several.")] = None,
    store: Kept = None,
    jobs: Annotated[int | None, typer.Option(help="Worker processes.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Dask scheduler, tcp://HOST:PORT.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Run even if it takes days.")] = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Only count the points and predict the time.")
    ] = False,
    csv: Csv = None,
    parquet: Parquet = None,
    latex: Latex = None,
    as_json: Json = False,
) -> None:
    """Simulate every point of a study, or every combination of the lists given."""
    from accelsim.explore.document import read_study
    from accelsim.explore.space import Space
    from accelsim.explore.sweep import predicted_s, run

    files = {"csv": csv, "parquet": parquet, "latex": latex}
    _writable(files)
    document = read_study(study) if study is not None else None
    if document is None:
        space = Space(_axes(workload, hardware, batch, precision), where=where or ())
    else:
        _no_lists(workload, hardware, batch, precision, where)
        space = document.space
    if dry:
        told = {"points": len(space), "predicted_s": predicted_s(space)}
        if as_json:
            emit(told)
        else:
            typer.echo(f"{space!r}, about {told['predicted_s']:.3g} s on one core")
        return
    held = _store(store)
    if document is not None and held is not None:
        held.describe(document.title, document.text)
    done = run(space, store=held, jobs=jobs, cluster=cluster, yes=yes)
    _write(done, files)
    if as_json:
        emit([tables.completed(row) for row in done.rows])
        return
    typer.echo(tables.outcomes(list(done.rows[:SHOWN])))
    if len(done) > SHOWN:
        typer.echo(f"{done!r}; the first {SHOWN} are shown, --csv writes all")


@app.command()
def search(
    study: File = None,
    workload: Workload = None,
    hardware: Hardware = None,
    batch: Batch = None,
    precision: Precision = None,
    objective: Annotated[
        list[str] | None, typer.Option("--objective", "-o", help="Column to optimise; repeat for several.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option("--constraint", "-c", help="Limit, 'COLUMN <= NUMBER'.")
    ] = None,
    budget: Annotated[int | None, typer.Option(help="Points to evaluate; 500 by default.")] = None,
    sampler: Annotated[str | None, typer.Option(help="tpe, nsga2, nsga3, random or grid.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same study.")] = None,
    store: Kept = None,
    csv: Csv = None,
    parquet: Parquet = None,
    latex: Latex = None,
    as_json: Json = False,
) -> None:
    """Look for the best points of a space that is too large to sweep."""
    from accelsim.explore.document import read_study
    from accelsim.explore.search import run
    from accelsim.explore.space import Space

    given = {
        "objective": objective,
        "constraints": constraint,
        "budget": budget,
        "sampler": sampler,
        "seed": seed,
    }
    settings: dict[str, Any] = {}
    if study is not None:
        _no_lists(workload, hardware, batch, precision)
        document = read_study(study)
        space, settings = document.space, dict(document.search)
    else:
        space = Space(_axes(workload, hardware, batch, precision))
    settings.update({name: value for name, value in given.items() if value is not None})
    if not settings.get("objective"):
        raise RequestError(
            "a search needs an objective", hint="-o latency_s, or 'search: objective:' in the study"
        )
    files = {"csv": csv, "parquet": parquet, "latex": latex}
    _writable(files)
    found = run(space, store=_store(store), **settings)
    _write(found, files)
    rows = records(found.front)
    if as_json:
        emit([tables.completed(row) for row in rows])
    else:
        typer.echo(f"{len(found)} points evaluated; those that no other beats:")
        typer.echo(tables.outcomes(rows[:SHOWN]))


@app.command()
def compare(
    workload: Annotated[str, typer.Argument(help="Workload name or file.")],
    hardware: Annotated[list[str], typer.Option("--hardware", "-d", help="Device; at least two.")],
    batch: Annotated[int, typer.Option("--batch", "-b")] = 1,
    precision: Annotated[str | None, typer.Option("--precision", "-p")] = None,
    metric: Annotated[str, typer.Option(help="latency_s or throughput_per_s.")] = "latency_s",
    as_json: Json = False,
) -> None:
    """Which device is better, and is the difference larger than the error?"""
    from accelsim.explore.compare import compare as compared

    found = compared(
        workload, axis("hardware", hardware) or [], metric=metric, batch=batch, precision=precision
    )
    if as_json:
        emit(records(found.frame))
    else:
        typer.echo(str(found))


def _axes(
    workload: list[str] | None,
    hardware: list[str] | None,
    batch: list[str] | None,
    precision: list[str] | None,
) -> dict[str, Any]:
    if not workload or not hardware:
        raise RequestError("give a study's file, or --workload and --hardware")
    devices, formats = axis("hardware", hardware) or [], axis("precision", precision)
    check_precisions(devices, formats)
    return {
        "workload": axis("workload", workload),
        "hardware": devices,
        "batch": counts("batch", batch or ["1"]),
        "precision": formats or [None],
    }


def _no_lists(*lists: list[str] | None) -> None:
    if any(lists):
        raise RequestError("a study's file brings its own lists", hint="change them in the file")


def _store(path: Path | None) -> Any:
    from accelsim.explore.store import Store

    return None if path is None else Store(path)


def _writable(files: Mapping[str, Path | None]) -> None:
    """Refuse what cannot be written before the work starts, not after it."""
    for path in files.values():
        if path is not None and path.is_dir():
            raise ConfigError("this is a folder, expected a file", str(path))
        if path is not None and not path.parent.is_dir():
            raise ConfigError("the folder does not exist", str(path.parent))
    if files["parquet"] is not None and find_spec("pyarrow") is None:
        raise MissingExtraError("pyarrow", "validation", "writing Parquet")


def _write(study: Study, files: Mapping[str, Path | None]) -> None:
    from accelsim.report import export, latex

    writers: dict[str, Callable[..., Path]] = {
        "csv": export.csv,
        "parquet": export.parquet,
        "latex": latex.study_table,
    }
    for kind, path in files.items():
        if path is not None:
            writers[kind](study, path)
