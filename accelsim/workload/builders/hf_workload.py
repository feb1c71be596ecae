"""Workload files with the fields of a HuggingFace ``config.json`` in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelsim.core.errors import ConfigError, did_you_mean
from accelsim.workload.graph import Graph
from accelsim.workload.huggingface import from_config


def huggingface(name: str, parameters: Mapping[str, Any], phase: str | None, context: int | None) -> Graph:
    """`config` holds the fields of a ``config.json``; `precision`, `phase` and `context` replace defaults."""
    allowed = ("config", "precision", "context", "phase")
    for key in parameters:
        if key not in allowed:
            raise ConfigError(f"unknown parameter '{key}'", name, did_you_mean(str(key), allowed))
    config = parameters["config"]
    if not isinstance(config, Mapping):
        raise ConfigError("'config' must be a mapping of field names to values", name)
    default_phase = parameters.get("phase")
    default_context = parameters.get("context") if phase in (None, default_phase) else None
    return from_config(
        config,
        phase=phase or default_phase,
        context=default_context if context is None else context,
        name=name,
        where=f"{name}: config",
        precision=parameters.get("precision"),
    )
