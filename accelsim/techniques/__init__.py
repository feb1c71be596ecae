"""Techniques: transforms of a workload graph, and what they cost."""

from accelsim.core.lazy import public

__getattr__, __dir__, __all__ = public(__name__)
