"""A small reader of protocol buffers in text form: fields with their lines, no schema."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from accelsim.core.errors import ConfigError, did_you_mean

_TOKEN = re.compile(
    r"""(?P<space>[\s]+|\#[^\n]*)|(?P<name>[A-Za-z_][\w.]*)|(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|\d*\.?\d+(?:[eE][-+]?\d+)?))f?
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<mark>[{}\[\]<>:,;])""",
    re.VERBOSE,
)


@dataclass
class Message:
    """Fields in the order of the file.

    Attributes
    ----------
    where : str
        File and line where the message starts.
    fields : list of tuple
        Name, value and place of each. A value is a `Message`, an int, a float, a bool or text.
    """

    where: str
    fields: list[tuple[str, Value, str]] = field(default_factory=list)

    def check(self, known: set[str], what: str) -> None:
        """Refuse fields that are not known.

        Raises
        ------
        ConfigError
            Names the field and its line.
        """
        for name, _, where in self.fields:
            if name not in known:
                raise ConfigError(f"unknown field '{name}' of {what}", where, did_you_mean(name, known))

    def all(self, name: str) -> list[tuple[Value, str]]:
        """Values of a repeated field, each with its place."""
        return [(value, where) for found, value, where in self.fields if found == name]

    def messages(self, name: str) -> list[Message]:
        """Messages of a repeated field."""
        found = []
        for value, where in self.all(name):
            if not isinstance(value, Message):
                raise ConfigError(f"'{name}' must be a message in braces", where)
            found.append(value)
        return found

    def message(self, name: str) -> Message | None:
        """The message of a field, None if it is not there."""
        held = self.messages(name)
        return held[-1] if held else None

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number."""
        return self.integers(name)[-1] if self.all(name) else default

    def integers(self, name: str) -> list[int]:
        """Whole numbers of a repeated field."""
        found = []
        for value, where in self.all(name):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"'{name}' must be a whole number, got {value!r}", where)
            found.append(value)
        return found

    def number(self, name: str, default: float = 0.0) -> float:
        """A number."""
        for value, where in self.all(name)[-1:]:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"'{name}' must be a number, got {value!r}", where)
            return float(value)
        return default

    def flag(self, name: str) -> bool:
        """A truth value, false by default."""
        for value, where in self.all(name)[-1:]:
            if not isinstance(value, bool):
                raise ConfigError(f"'{name}' must be true or false, got {value!r}", where)
            return value
        return False

    def text(self, name: str, default: str = "") -> str:
        """A string or an enumeration's name."""
        for value, where in self.all(name)[-1:]:
            if not isinstance(value, str):
                raise ConfigError(f"'{name}' must be text, got {value!r}", where)
            return value
        return default

    def place(self, name: str) -> str:
        """Where a field is, or where the message starts."""
        held = self.all(name)
        return held[-1][1] if held else self.where


Value = Message | int | float | bool | str


def read_file(path: str | Path) -> Message:
    """The message in a text file.

    Raises
    ------
    ConfigError
        The file cannot be read, or its syntax is wrong (the line is named).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read ({getattr(error, 'strerror', error)})", str(path)) from None
    return parse(text, str(path))


def parse(text: str, source: str = "text") -> Message:
    """The message in a text."""
    tokens = _tokens(text, source)
    return _message(tokens, 0, f"{source}:1", "")[0]


def _tokens(text: str, source: str) -> list[tuple[str, str, str]]:
    """Kind, text and place of each token."""
    found, at, line = [], 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ConfigError(f"cannot read {text[at : at + 20].splitlines()[0]!r}", f"{source}:{line}")
        kind = str(match.lastgroup)
        if kind != "space":
            found.append((kind, match[kind], f"{source}:{line}"))
        line += match[0].count("\n")
        at = match.end()
    return [*found, ("end", "", f"{source}:{line}")]


def _message(tokens: list[tuple[str, str, str]], at: int, where: str, closing: str) -> tuple[Message, int]:
    message = Message(where)
    while True:
        kind, text, place = tokens[at]
        if kind == "end" or (kind == "mark" and text in "}>"):
            if text != closing:
                raise ConfigError(f"expected {closing or 'a field'!r}, found {text or 'the end'!r}", place)
            return message, at + 1
        if kind == "mark" and text in ",;":
            at += 1
            continue
        if kind != "name":
            raise ConfigError(f"expected the name of a field, found {text!r}", place)
        at += 1
        colon = tokens[at][1] == ":"
        at += colon
        values, at = _values(tokens, at, text, colon)
        message.fields += [(text, value, spot) for value, spot in values]


def _values(
    tokens: list[tuple[str, str, str]], at: int, name: str, colon: bool
) -> tuple[list[tuple[Value, str]], int]:
    kind, text, place = tokens[at]
    if kind == "mark" and text in "{<":
        inner, at = _message(tokens, at + 1, place, "}" if text == "{" else ">")
        return [(inner, place)], at
    if kind == "mark" and text == "[":
        found: list[tuple[Value, str]] = []
        at += 1
        while tokens[at][1] != "]":
            if tokens[at][1] == ",":
                at += 1
                continue
            more, at = _values(tokens, at, name, True)
            found += more
        return found, at + 1
    if not colon:
        raise ConfigError(f"expected ':' or a message after '{name}'", place)
    if kind == "text":
        pieces = []
        while tokens[at][0] == "text":
            pieces.append(re.sub(r"\\(.)", r"\1", tokens[at][1][1:-1]))
            at += 1
        return [("".join(pieces), place)], at
    if kind == "number":
        number: Value = (
            int(text, 0) if re.fullmatch(r"[-+]?(0[xX][0-9a-fA-F]+|[1-9]\d*|0)", text) else float(text)
        )
        return [(number, place)], at + 1
    if kind == "name":
        return [({"true": True, "false": False}.get(text, text), place)], at + 1
    raise ConfigError(f"'{name}' has no value", place)
