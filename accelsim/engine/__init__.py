"""The engine: runs a program on a device's resources and makes the answer."""

from accelsim.core.lazy import public

__getattr__, __dir__, __all__ = public(__name__)
