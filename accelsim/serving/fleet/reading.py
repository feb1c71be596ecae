"""Objects from the mappings of a file: keys are the parameters of the classes that they become."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from accelsim.core.errors import ConfigError, RequestError, did_you_mean

Kinds = Mapping[str, Callable[..., Any]]


def one_of(entry: Any, kinds: Kinds, where: str) -> Any:
    """``{kind: {options}}``, or a kind alone, as an object."""
    given = {entry: {}} if isinstance(entry, str) else mapping(entry, where)
    if len(given) != 1:
        raise ConfigError("expected one kind with its options", where, f"known are {', '.join(kinds)}")
    ((kind, options),) = given.items()
    if kind not in kinds:
        raise ConfigError(f"unknown kind '{kind}'", where, did_you_mean(str(kind), kinds))
    return make(kinds[kind], options or {}, f"{where}.{kind}")


def make(made: Callable[..., Any], options: Any, where: str) -> Any:
    """An object from a mapping of its parameters."""
    given = mapping(options, where)
    parameters = inspect.signature(made).parameters
    check_keys(given, tuple(parameters), where)
    for name, parameter in parameters.items():
        if name not in given:
            if parameter.default is inspect.Parameter.empty:
                raise ConfigError(f"'{name}' is missing", where)
            continue
        number = isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
        value = given[name]
        if number and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigError(f"'{value}' is not a number", f"{where}.{name}")
    return call(made, given, where)


def call(made: Callable[..., Any], given: Mapping[str, Any], where: str) -> Any:
    """An object; what its class refuses is named with the place in the file."""
    try:
        return made(**given)
    except RequestError as error:
        raise ConfigError(error.what, where, error.hint) from None
    except (TypeError, ValueError, AttributeError):
        raise ConfigError("a value has the wrong type", where, "see the class's parameters") from None


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A value that has keys."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"expected keys and values, got '{value}'", where)
    return value


def listed(value: Any, where: str) -> list[Any]:
    """A value that is a list."""
    if not isinstance(value, list):
        raise ConfigError(f"expected a list, got '{value}'", where)
    return value


def check_keys(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse keys that are not known, with the nearest that is."""
    for key in given:
        if key not in known:
            raise ConfigError(f"unknown key '{key}'", where, did_you_mean(str(key), known))
