"""Random inputs for a network: seeded, of the right shapes and types, described in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim.core.errors import RequestError, did_you_mean
from accelsim.techniques.network import Array, Network

CODES = 256
"""Integers that are no index of a known table are drawn below this: bytes."""


def sample_inputs(
    network: Network, model: Any, samples: int, seed: int, dims: dict[str, int]
) -> tuple[list[dict[str, Array]], str]:
    """Inputs of one or several runs, and how they were drawn.

    An open first axis is the batch: one run of `samples` items. Where the file fixes its batch, as many runs
    as it takes.

    Raises
    ------
    RequestError
        Another axis is open and `dims` does not give it.
    """
    rng = np.random.default_rng(seed)
    open_names = {d for _, shape in network.inputs.values() for d in shape if isinstance(d, str)}
    unknown = sorted(set(dims) - open_names - {"batch"})
    if unknown:
        raise RequestError(
            f"no input has an open dimension '{unknown[0]}'",
            network.where,
            did_you_mean(unknown[0], open_names) if open_names else "the file fixes all its sizes",
        )
    batches = {shape[0] for _, shape in network.inputs.values() if shape and isinstance(shape[0], str)}
    fixed = next((shape[0] for _, shape in network.inputs.values() if shape), 1)
    runs = 1 if batches or not isinstance(fixed, int) else -(-samples // fixed)
    ends = _tables(model)
    words: dict[str, str] = {}
    feeds = []
    for _ in range(runs):
        feed = {}
        for name, (dtype, axes) in network.inputs.items():
            shape = tuple(_size(d, name, k, batches, samples, dims, network) for k, d in enumerate(axes))
            feed[name], words[name] = _draw(name, np.dtype(dtype), shape, ends.get(name), rng, network.where)
        feeds.append(feed)
    said = "; ".join(f"{name} {words[name]}" for name in network.inputs)
    items = samples if batches or not isinstance(fixed, int) else runs * fixed
    return feeds, f"inputs: {items} random items, seed {seed}: {said}"


def _size(
    axis: int | str,
    name: str,
    k: int,
    batches: set[Any],
    samples: int,
    dims: dict[str, int],
    network: Network,
) -> int:
    if isinstance(axis, int):
        return axis
    if axis in batches and (k == 0 or not axis.startswith(f"{name}.")):
        return samples
    if axis in dims:
        return dims[axis]
    raise RequestError(
        f"dimension '{axis}' (axis {k} of input '{name}') is open",
        network.where,
        f"give it: dims={{'{axis}': SIZE}}",
    )


def _draw(
    name: str, dtype: Any, shape: tuple[int, ...], rows: int | None, rng: Any, where: str
) -> tuple[Array, str]:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype), "standard normal"
    if dtype.kind == "b":
        return np.ones(shape, dtype), "true"
    if dtype.kind in "iu":
        if "mask" in name.lower():
            return np.ones(shape, dtype), "ones"
        end = min(rows or CODES, int(np.iinfo(dtype).max))
        return rng.integers(0, end, shape).astype(dtype), f"uniform integers below {end}"
    raise RequestError(f"input '{name}' is of type {dtype}", where, "give it with inputs=")


def _tables(model: Any) -> dict[str, int]:
    """Rows of the table that an input indexes directly, by name of input."""
    rows = {t.name: t.dims[0] for t in model.graph.initializer if t.dims}
    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[0] in rows:
            name = node.input[1]
            found[name] = min(found.get(name, rows[node.input[0]]), rows[node.input[0]])
    return found
