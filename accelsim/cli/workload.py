"""Commands on workloads: list, show, import."""

from __future__ import annotations

from typing import Annotated

import typer

from accelsim.cli.common import Dims, Json, dims, emit
from accelsim.report import tables

app = typer.Typer(help="Workloads: list, show, import.", no_args_is_help=True)


@app.command("list")
def wl_list(as_json: Json = False) -> None:
    """All workloads."""
    rows = tables.workloads()
    if as_json:
        emit(rows)
    else:
        typer.echo(tables.text(rows))


@app.command("show")
def wl_show(
    name: str,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    as_json: Json = False,
) -> None:
    """What a workload computes."""
    _show(name, None, phase, context, False, as_json)


@app.command("import")
def wl_import(
    path: str,
    dim: Dims = None,
    phase: Annotated[str | None, typer.Option(help="forward, prefill or decode.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of prompt or cache.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse operators that are only approximated.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read a model file and say how well it is covered."""
    _show(path, dim, phase, context, strict, as_json)


def _show(
    source: str, dim: list[str] | None, phase: str | None, context: int | None, strict: bool, as_json: bool
) -> None:
    from accelsim.workload.load import load_workload

    graph = load_workload(source, dims=dims(dim), phase=phase, context=context, strict=strict)
    if as_json:
        emit(tables.workload(graph))
    else:
        typer.echo(f"{graph!r}\n{graph.coverage()!r}")
