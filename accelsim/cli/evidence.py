"""Commands about evidence: validate, calibrate, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli.common import Json, emit
from accelsim.core.errors import RequestError
from accelsim.core.frames import records
from accelsim.report import tables

app = typer.Typer()


@app.command()
def validate(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            help="gpu, systolic, fpga, neuromorphic, techniques, serving, frontier; all by default."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the report here (Markdown).")] = None,
    deepbench: Annotated[Path | None, typer.Option(help="A checkout of DeepBench, or its sheet.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Folder for a CSV of every scored row.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for pictures of those rows (PDF).")] = None,
    as_json: Json = False,
) -> None:
    """Compare predictions with measurements that can be read here, on held-out rows."""
    from accelsim.validate.report import PARTS, collect, write

    if plots is not None and rows is None:
        raise RequestError("--plots draws the rows that --rows writes", hint="give both")
    found = {part: list(collect(part, deepbench, rows)) for part in parts or PARTS}
    if plots is not None and rows is not None:
        from accelsim.report.residuals import draw

        draw(rows, plots)
    if out is not None:
        write(out, found)
    if as_json:
        emit({part: {t.title: records(t.frame) for t in held} for part, held in found.items()})
    elif out is None:
        typer.echo("\n".join(t.markdown() for held in found.values() for t in held))
    else:
        typer.echo(f"wrote {out}")


@app.command()
def calibrate(
    device: Annotated[str, typer.Argument(help="GPU: name or file.")],
    measurements: Annotated[Path, typer.Argument(help="Table of measured operators, .csv or .parquet.")],
    out: Annotated[
        Path | None, typer.Option(help="Hardware file to write; NAME-calibrated.yaml by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses rows where there are more than a fit needs.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit a GPU's constants to measurements, and find its error band."""
    from accelsim.calibration.fit import calibrate as fit
    from accelsim.core.catalog import catalog

    if out is None and device in catalog("hardware").files():
        out = Path(f"{device}-calibrated.yaml")
    found = fit(device, measurements, out=out, seed=seed)
    if as_json:
        emit(found.to_dict())
    else:
        typer.echo(repr(found))


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this installation can do."""
    rows = tables.installation()
    if as_json:
        emit(rows)
    else:
        typer.echo(tables.text(rows))
