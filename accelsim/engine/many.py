"""Many batches of one question at once: the same columns that `simulate` answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from accelsim.architectures.base import BatchCosts, CostsBatches
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.engine.answer import Figures, static_j, summary
from accelsim.engine.request import Request, check_memory


def simulate_batches(
    workload: Any, hardware: Any, batches: Sequence[int], **settings: Any
) -> list[dict[str, Any]] | None:
    """Simulate a workload on a device at many batches.

    Parameters
    ----------
    workload, hardware, **settings
        See `simulate`.
    batches : sequence of int
        Ascending, each once.

    Returns
    -------
    list of dict or None
        Tables of columns, each with ``batch``, that hold every batch once; a value that is no array is
        that of all rows. None where the model has no way to cost many batches: ask `simulate` for each.

    Raises
    ------
    AccelsimError
        See `simulate`.
    """
    settings.pop("seed", None)
    asked = Request.of(workload, hardware, **settings)
    whole = asked.split.devices == 1 and asked.options.fidelity == "tile"
    if not whole or not isinstance(asked.architecture, CostsBatches):
        return None
    order = np.array(batches, dtype=np.int64)
    try:
        asked.check_accumulators()
        found = asked.architecture.cost_batches(asked.sized, asked.device, asked.options, batches)
    except InfeasibleError as error:
        return [replace(error.outcome, request=asked.named(order)).summary]
    if found is None:
        return None
    fits = found.memory_bytes <= asked.device.memory.capacity_bytes
    tables = []
    if fits.any():
        tables.append(_feasible(asked, order, found, fits))
    if not fits.all():
        tables.append(_infeasible(asked, order, found, ~fits))
    return tables


def _feasible(asked: Request, order: Any, found: BatchCosts, chosen: Any) -> dict[str, Any]:
    batch = order[chosen]
    latency_s = found.latency_s[chosen]
    energy = {name: values[chosen] for name, values in found.energy_j.items()}
    energy["static"] = static_j(asked.device, latency_s, 1)
    figures = Figures(
        batch,
        latency_s,
        found.low_s[chosen],
        found.high_s[chosen],
        latency_s,
        energy,
        found.bound[chosen],
        found.flops[chosen] / batch * batch,
        found.dram_bytes[chosen],
        found.memory_bytes[chosen],
    )
    row = summary(
        asked.named(batch),
        asked.device,
        asked.formats.activation.name,
        1,
        asked.graph.item,
        asked.accuracy.summary,
        asked.options.fidelity,
        figures,
    )
    row.update({f"resource_{name}": value for name, value in found.resources.items()})
    return row


def _infeasible(asked: Request, order: Any, found: BatchCosts, chosen: Any) -> dict[str, Any]:
    """Rows of batches that do not fit the memory; only their need differs."""
    columns = (found.memory_bytes, found.weight_bytes, found.kv_bytes, found.activation_bytes)
    lacks = [_lack(asked.device, line) for line in zip(*(c[chosen].tolist() for c in columns))]
    row = replace(lacks[0], request=asked.named(order[chosen])).summary
    differ = {n: np.array([getattr(lack, n) for lack in lacks], dtype=object) for n in ("need", "hint")}
    return {**row, **differ}


def _lack(device: Any, figures: tuple[float, ...]) -> Infeasible:
    """Why a batch does not fit."""
    try:
        check_memory(device, *figures)
    except InfeasibleError as error:
        return error.outcome
    raise ValueError(f"{device.name} holds {figures[0]:g} bytes")
