"""Neuromorphic chips: grids of event-driven cores of spiking neurons."""

from accelsim.architectures.neuromorphic.lower import ARCHITECTURE

__all__ = ["ARCHITECTURE"]
