"""Architectures: how a graph becomes work on a kind of device, and what that work costs.

A new architecture is one folder with a module-level `ARCHITECTURE` object and one line in `_MODULES`.
"""

from __future__ import annotations

from importlib import import_module

from accelsim.architectures.base import Architecture

_MODULES = {
    "gpu": "accelsim.architectures.gpu",
    "systolic": "accelsim.architectures.systolic",
    "fpga": "accelsim.architectures.fpga",
    "neuromorphic": "accelsim.architectures.neuromorphic",
}


def architecture_of(kind: str) -> Architecture:
    """The architecture that runs devices of a kind."""
    architecture: Architecture = import_module(_MODULES[kind]).ARCHITECTURE
    return architecture
