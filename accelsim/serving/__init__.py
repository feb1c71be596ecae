"""Serving: queues, batchers and servers in front of a device, on two engines that agree."""

from accelsim.core.lazy import public

__getattr__, __dir__, __all__ = public(__name__)
