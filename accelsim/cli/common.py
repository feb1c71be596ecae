"""What the commands share: printing, reading repeated options, common option types."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from accelsim.core.errors import RequestError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Dims = Annotated[list[str] | None, typer.Option("--dim", help="Size of a named ONNX dimension, NAME=SIZE.")]


def emit(document: Any) -> None:
    from accelsim.engine.result import plain

    typer.echo(json.dumps(plain(document), allow_nan=False))


def dims(pairs: list[str] | None) -> dict[str, int]:
    result = {}
    for pair in pairs or []:
        name, _, size = pair.partition("=")
        if not name or not size.isdigit() or int(size) < 1:
            raise RequestError(f"'{pair}' is not NAME=SIZE with a positive size")
        result[name] = int(size)
    return result


def axis(name: str, values: list[str] | None) -> list[str] | None:
    """Repeated options and comma-separated lists are the same."""
    if values is None:
        return None
    # A plan by role ("weight=int4,activation=fp16") keeps its commas.
    split = [part for value in values for part in ([value] if "=" in value else value.split(","))]
    if any(not part for part in split):
        raise RequestError(f"an empty value was given for --{name}")
    return split


def counts(name: str, values: list[str]) -> list[int]:
    counts = []
    for text in axis(name, values) or []:
        try:
            counts.append(int(text))
        except ValueError:
            raise RequestError(f"--{name} '{text}' is not a whole number") from None
    return counts


def check_precisions(hardware: list[str], precisions: list[str] | None) -> None:
    """A precision that none of the devices has is a mistake in the request, not a result."""
    from accelsim.architectures import architecture_of
    from accelsim.core.precision import plan
    from accelsim.hardware.spec import load_hardware

    devices = [load_hardware(name) for name in hardware]
    for request in precisions or []:
        activation = plan(request).activation.name
        if not any(architecture_of(d.kind).supports(d, activation) for d in devices):
            have = {d.name: ", ".join(architecture_of(d.kind).precisions(d)) for d in devices}
            raise RequestError(
                f"no device given computes in {activation}",
                hint="; ".join(f"{name} has {text}" for name, text in have.items()),
            )
