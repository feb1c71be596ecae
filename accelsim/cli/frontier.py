"""Commands on what comes after inference: explain, train."""

from __future__ import annotations

from typing import Annotated

import typer

from accelsim.cli.common import Json, emit
from accelsim.core.outcome import Infeasible
from accelsim.report import tables

app = typer.Typer()

Model = Annotated[str, typer.Argument(help="Workload name or file.")]
Device = Annotated[str, typer.Option("--hardware", "-d", help="Device name or file.")]
Items = Annotated[int, typer.Option("--batch", "-b", help="Items per run.")]
Format = Annotated[str | None, typer.Option("--precision", "-p", help="Number format.")]


@app.command()
def explain(
    model: Model,
    hardware: Device,
    method: Annotated[str, typer.Option(help="Such as saliency or integrated_gradients.")] = (
        "integrated_gradients"
    ),
    steps: Annotated[int | None, typer.Option(help="Steps or samples; the method's by default.")] = None,
    items: Items = 1,
    internal_batch: Annotated[int | None, typer.Option(help="Passes that run together.")] = None,
    precision: Format = None,
    as_json: Json = False,
) -> None:
    """What explained predictions take: latency, energy, cost, and what batching saves."""
    from accelsim.explore.explain import explain as explained

    found = explained(
        model,
        hardware,
        method,
        steps=steps,
        batch=items,
        internal_batch=internal_batch,
        precision=precision,
    )
    if isinstance(found, Infeasible):
        text = str(found)
    else:
        text = "\n".join([tables.running_down(found.summary), *(f"note: {n}" for n in found.notes)])
    if as_json:
        emit(found.summary)
    else:
        typer.echo(text)


@app.command()
def train(
    model: Model,
    hardware: Device,
    items: Items = 1,
    optimiser: Annotated[str, typer.Option(help="sgd, momentum or adam.")] = "adam",
    precision: Format = None,
    as_json: Json = False,
) -> None:
    """A training step: forward and backward pass, update of the weights."""
    from accelsim.explore.training import train as trained

    found = trained(model, hardware, batch=items, optimiser=optimiser, precision=precision)
    if as_json:
        emit(tables.row(found))
    else:
        typer.echo(str(found) if isinstance(found, Infeasible) else repr(found))
