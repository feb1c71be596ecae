"""Commands on devices: list, show, diff, energy, area, prices, new, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.cli.common import Json, axis, emit
from accelsim.core.errors import ConfigError
from accelsim.core.frames import records
from accelsim.report import tables

app = typer.Typer(help="Devices: list, show, diff, energy, area, prices, new, check.", no_args_is_help=True)


def _print(rows: list[dict[str, Any]], as_json: bool, empty: str = "") -> None:
    if as_json:
        emit(rows)
    else:
        typer.echo(tables.text(rows) if rows else empty)


@app.command("list")
def hw_list(as_json: Json = False) -> None:
    """All devices."""
    _print(tables.devices(), as_json)


@app.command("show")
def hw_show(
    name: str,
    sources: Annotated[bool, typer.Option("--sources", help="Show where each number comes from.")] = False,
    as_json: Json = False,
) -> None:
    """The numbers of a device, with their status."""
    from accelsim.hardware.spec import load_hardware
    from accelsim.hardware.spec import sources as table_of

    rows = records(table_of(load_hardware(name)))
    if not sources and not as_json:
        rows = [{k: r[k] for k in ("parameter", "value", "status")} for r in rows]
    _print(rows, as_json)


@app.command("prices")
def hw_prices(
    hardware: Annotated[
        list[str] | None, typer.Option("--hardware", "-d", help="Device; repeat for several, all by default.")
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="Your own dated prices, .yaml.")] = None,
    as_json: Json = False,
) -> None:
    """Every price that costs are made of, with its date, status and source."""
    from accelsim.core.catalog import catalog
    from accelsim.hardware.cost import price_table
    from accelsim.hardware.spec import load_hardware

    names = axis("hardware", hardware) or list(catalog("hardware").names())
    _print(price_table(map(load_hardware, names), prices), as_json, "no price is known")


@app.command("diff")
def hw_diff(first: str, second: str, as_json: Json = False) -> None:
    """The parameters in which two devices differ."""
    from accelsim.hardware.spec import load_hardware

    _print(records(load_hardware(first).diff(second)), as_json, "no difference")


@app.command("energy")
def hw_energy(name: str, as_json: Json = False) -> None:
    """What each action costs a device, and where that is from."""
    from accelsim.hardware.energy import table
    from accelsim.hardware.spec import load_hardware

    _print(table(load_hardware(name)), as_json)


@app.command("area")
def hw_area(name: str, as_json: Json = False) -> None:
    """Area of the die; of a systolic device its arrays and on-chip memory too."""
    from accelsim.hardware.area import table
    from accelsim.hardware.spec import load_hardware

    _print(table(load_hardware(name)), as_json)


@app.command("new")
def hw_new(
    path: Path, like: Annotated[str, typer.Option(help="Device to start from.")], as_json: Json = False
) -> None:
    """Write a file for your own device, starting from one that exists."""
    from accelsim.core.files import write_whole
    from accelsim.hardware.template import template

    if path.suffix != ".yaml":
        raise ConfigError("a device's file ends in .yaml", str(path))
    if path.exists():
        raise ConfigError("the file exists already", str(path))
    write_whole(path, template(like))
    if as_json:
        emit({"file": str(path), "like": like})
    else:
        typer.echo(f"wrote {path}; edit it, then: accelsim hw check {path}")


@app.command("check")
def hw_check(path: str, as_json: Json = False) -> None:
    """Check a device's file."""
    from accelsim.hardware.spec import load_hardware

    device = load_hardware(path)
    report = {
        "file": path,
        "kind": device.kind,
        "numbers": len(device.numbers),
        "assumed": len(device.assumed),
        "assumed_parameters": device.assumed,
    }
    if as_json:
        emit(report)
    else:
        typer.echo(
            f"{path}: a {device.kind} with {report['numbers']} numbers, {report['assumed']} of them assumed"
        )
