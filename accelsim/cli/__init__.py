"""The command line: tables for people, ``--json`` for programs, exit code 2 and one line for bad input."""

from __future__ import annotations

import sys

import typer

from accelsim.cli import evidence, hardware, pages, runs, studies, techniques, traffic, workload
from accelsim.core.errors import AccelsimError

app = typer.Typer(
    name="accelsim",
    help="Simulate AI inference on GPUs, FPGAs and systolic arrays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _commands in (runs, studies, techniques, traffic, pages, evidence):
    app.add_typer(_commands.app)
app.add_typer(hardware.app, name="hw")
app.add_typer(workload.app, name="wl")


def main() -> None:
    """Entry point of ``accelsim``."""
    try:
        app(standalone_mode=False)
    except AccelsimError as error:
        _fail(str(error))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own usage errors
            _fail(error.format_message())
        raise


def _fail(message: str, code: int = 2) -> None:
    typer.echo(f"accelsim: {' '.join(message.split())}", err=True)
    sys.exit(code)
