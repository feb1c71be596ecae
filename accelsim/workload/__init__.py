"""Workload graphs: what a model computes, whatever runs it."""

from accelsim.core.lazy import public

__getattr__, __dir__, __all__ = public(__name__)
