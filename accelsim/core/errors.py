"""Errors that say what went wrong, where, and what to do, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AccelsimError(Exception):
    """Base of every error that a user can cause.

    Parameters
    ----------
    what : str
        What is wrong, with the offending text.
    where : str, optional
        File and line, field path or operator name.
    hint : str, optional
        What to do about it.
    """

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what, where, hint)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by state, because subclasses take other arguments: worker processes send errors back."""
        return _restored, (type(self), self.args, self.__dict__.copy())

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text


def _restored(kind: type[AccelsimError], args: tuple[str, ...], state: dict[str, object]) -> AccelsimError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UnitError(AccelsimError):
    """A quantity whose text cannot be read or has the wrong dimension."""


class UnknownNameError(AccelsimError):
    """A name that no catalog knows."""


class ConfigError(AccelsimError):
    """A hardware or workload file that cannot be used."""


class GraphError(AccelsimError):
    """A workload graph that is not well formed (cycle, shape mismatch, missing tensor)."""


class ModelFileError(AccelsimError):
    """A model file that cannot be read."""


class UnsupportedOpError(AccelsimError):
    """An operator that no registered formula covers."""


class RequestError(AccelsimError):
    """An argument of a run that makes no sense (batch 0, unknown phase, ...)."""


class MissingExtraError(AccelsimError):
    """An optional package that a feature needs and that is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}'",
            hint=f"install it with: pip install 'accelsim-dse[{extra}]'",
        )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest known names, or lists them all when few."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    near += [n for n in names if name.lower() in n and n not in near][: 3 - len(near)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    if len(names) <= 24:
        return f"known names: {', '.join(names)}"
    return f"there are {len(names)} known names"
