"""Public names that are imported when they are first used, so that ``import accelsim`` stays light.

The list of a package's public names is its stub, ``__init__.pyi``: one line ``from home import name as name``
each. Type checkers and editors read it as it is, and so does `public`: there is no second list to keep in
step.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

_LINE = re.compile(r"^from (\S+) import (\w+) as \2$", re.MULTILINE)


def public(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package that has a stub.

    Parameters
    ----------
    package : str
        Its ``__name__``.

    Returns
    -------
    tuple
        Sub-packages that the stub names are in ``__dir__`` and not in ``__all__``. The error for a name that
        is in another public package says so.
    """
    module = sys.modules[package]
    with open(f"{module.__file__}i", encoding="utf-8") as stub:  # pathlib would be most of the import time
        homes = {name: home for home, name in _LINE.findall(stub.read())}
    parts = [name for name, home in homes.items() if home == package]

    def find(name: str) -> Any:
        if name in parts:
            return import_module(f"{package}.{name}")
        if name in homes:
            value = getattr(import_module(homes[name]), name)
            setattr(module, name, value)
            return value
        message = f"module '{package}' has no attribute '{name}'"
        if not name.startswith("_"):
            message = f"{message}; {_elsewhere(package.partition('.')[0], name, homes)}"
        raise AttributeError(message)

    return find, lambda: sorted(homes), sorted(set(homes) - set(parts))


def _elsewhere(root: str, name: str, known: Iterable[str]) -> str:
    """What to write for a name that is not there: its place in another public package, or a similar name."""
    from accelsim.core.errors import did_you_mean

    top = import_module(root)
    for place in (top, *(getattr(top, part) for part in dir(top) if part not in top.__all__)):
        if name in place.__all__:
            return f"use {place.__name__}.{name}"
    return did_you_mean(name, known)
