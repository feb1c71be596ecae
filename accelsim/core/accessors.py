"""Accessors: methods of data objects that a higher floor provides.

A `Result` is data and knows nothing of pictures. ``accelsim/__init__.py`` registers by name where each
accessor lives, before any class exists; the class gets a method for each, and the first call imports its
home.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

_TABLE: dict[tuple[str, str], str] = {}
_NAMESPACES: dict[tuple[str, str], str] = {}


def register_namespace(owner: str, name: str, target: str) -> None:
    """Make ``object.name`` the object ``module:class`` made of it, for class `owner`: methods that belong
    together, such as ``result.plot.roofline()``.
    """
    _NAMESPACES[(owner, name)] = target


def register_accessor(owner: str, name: str, target: str) -> None:
    """Make ``object.name(...)`` call ``module:function`` with the object first, for class `owner`."""
    _TABLE[(owner, name)] = target


class Accessible:
    """Base of classes that get the accessors registered under their name."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for (owner, name), target in _TABLE.items():
            if owner == cls.__name__:
                setattr(cls, name, _method(name, target))
        for (owner, name), target in _NAMESPACES.items():
            if owner == cls.__name__:
                setattr(cls, name, _namespace(target))


def _namespace(target: str) -> property:
    module, kind = target.split(":")

    def held(self: Any) -> Any:
        return getattr(import_module(module), kind)(self)

    return property(held, doc=f"See `{module}.{kind}`.")


def _method(name: str, target: str) -> Callable[..., Any]:
    module, function = target.split(":")

    def accessor(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), function)(self, *args, **kwargs)

    accessor.__name__ = name
    accessor.__doc__ = f"See `{module}.{function}`."
    return accessor
