"""Commands that write files to look at: report, trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.")]


@app.command()
def report(
    store: Annotated[Path, typer.Argument(help="SQLite file of a sweep or search.")],
    out: Out,
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
    question: Annotated[str | None, typer.Option(help="The question that the study answers.")] = None,
    objective: Annotated[
        list[str] | None, typer.Option("--objective", help="Column to trade off; two of them.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="Condition that a candidate must meet.")] = None,
) -> None:
    """One HTML file about a study: question, candidates, verdict with error bands, evidence."""
    from accelsim.report.page.assemble import report_store

    given = {"title": title, "question": question, "objectives": objective, "where": where}
    typer.echo(str(report_store(store, out, **{n: v for n, v in given.items() if v is not None})))


@app.command()
def trace(
    run: Annotated[Path, typer.Argument(help="Result that 'accelsim run --save' wrote.")],
    out: Out,
) -> None:
    """A saved run as a Perfetto trace: one track per lane, and counters."""
    from accelsim.report.trace import trace_file

    typer.echo(str(trace_file(run, out)))
