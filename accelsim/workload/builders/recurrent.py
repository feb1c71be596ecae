"""Recurrent networks."""

from __future__ import annotations

from typing import Any

from accelsim.workload.builders.checks import choice, forward_only, whole
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import Graph, Tensor

GATES = {"lstm": 4, "gru": 3}


def recurrent(name: str, parameters: dict[str, Any], phase: str | None, context: int | None) -> Graph:
    """A stack of recurrent layers; `context` replaces the file's steps. See `build_recurrent`."""
    forward_only(name, phase)
    fields = dict(parameters)
    if context is not None:
        fields["steps"] = context
    return build_recurrent(name, **fields)


def build_recurrent(
    name: str,
    cell: str,
    hidden: int,
    steps: int,
    width: int | None = None,
    layers: int = 1,
    directions: int = 1,
    precision: str = "fp16",
) -> Graph:
    """A stack of recurrent layers.

    Parameters
    ----------
    name : str
    cell : {"lstm", "gru"}
    hidden : int
        Hidden units of each direction.
    steps : int
        Time steps.
    width : int, optional
        Features of the input; `hidden` when None.
    layers, directions : int
    precision : str
    """
    choice("cell", cell, tuple(GATES))
    steps, hidden = whole("steps", steps), whole("hidden", hidden)
    layers, directions = whole("layers", layers), whole("directions", directions)
    b = GraphBuilder(name, precision)
    x = b.input("x", steps, 1, hidden if width is None else whole("width", width), batch_axis=1)
    x = _layer(b, x, cell, hidden, directions)
    if layers > 1:
        with b.repeated(layers - 1):
            _layer(b, x, cell, hidden, directions)
    return b.build(item="sequence")


def _layer(b: GraphBuilder, x: Tensor, cell: str, hidden: int, directions: int) -> Tensor:
    steps, _, features = x.shape
    rows = directions * GATES[cell] * hidden
    stem = f"{cell}{len(b.ops)}"
    weights = [b.weight(f"{stem}.weight_ih", rows, features), b.weight(f"{stem}.weight_hh", rows, hidden)]
    biases = [b.weight(f"{stem}.bias_{part}", rows) for part in ("ih", "hh")]
    out: Tensor = b.op(
        cell,
        [x, *weights, *biases],
        (steps, x.shape[1], directions * hidden),
        stem=stem,
        batch_axis=1,
        hidden=hidden,
        directions=directions,
    )
    return out
