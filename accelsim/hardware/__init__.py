"""Hardware: what a device is, whatever runs on it."""

from accelsim.core.lazy import public

__getattr__, __dir__, __all__ = public(__name__)
