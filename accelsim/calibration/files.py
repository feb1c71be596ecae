"""Kernel constants written into hardware files, in place: the rest of a file stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelsim.calibration import constants as C
from accelsim.core.errors import ConfigError

_WIDTH = 108


def fields(device: Any, section: C.Path) -> dict[str, str]:
    """One kernel's constants by name, as a hardware file has them."""
    node = C.value_at(device, section)
    found = {}
    for name in type(node).model_fields:
        value = getattr(node, name)
        if name == "layers":
            if value:
                found[name] = "[" + ", ".join(f"[{experts}, {width}]" for experts, width in value) + "]"
            continue
        text = C.written((*section, name), value if isinstance(value, tuple) else float(value))
        if isinstance(text, list):
            text = "[" + ", ".join(f"{v:g}" for v in text) + "]"
        elif isinstance(text, float):
            text = f"{text:.0f}" if text >= 1e4 else f"{text:g}"
        found[C.alias(device, (*section, name))[-1]] = str(text)
    return found


def section_text(device: Any, section: C.Path, indent: int) -> str:
    """One kernel's constants as a flow mapping, wrapped."""
    lines, line = [], " " * (indent + 2)
    for name, text in fields(device, section).items():
        # Lists break at their commas, so that lines stay short.
        for word in f"{name}: {text},".split(", ") if text.startswith("[") else (f"{name}: {text},",):
            piece = word if word.endswith(",") else f"{word},"
            if len(line) + len(piece) > _WIDTH:
                lines.append(line.rstrip())
                line = " " * (indent + 2)
            line += f"{piece} "
    return "{\n" + "\n".join([*lines, line.rstrip().rstrip(",")]) + "\n" + " " * indent + "}"


def with_section(text: str, path: Sequence[str], body: str, evidence: Mapping[str, str]) -> str:
    """The text of a hardware file with another body for the mapping at `path`.

    Parameters
    ----------
    text : str
        The file.
    path : sequence of str
        Keys from the top, two spaces deeper each; those that are missing are added at the end of the deepest
        that is there.
    body : str
        A flow mapping, ``{...}``.
    evidence : mapping of str to str
        ``status`` and ``source`` of keys that are added.

    Raises
    ------
    ConfigError
        The file has no such first key.
    """
    lines = text.rstrip("\n").split("\n")
    start, stop = 0, len(lines)
    for depth, key in enumerate(path):
        head = f"{'  ' * depth}{key}:"
        at = next((i for i in range(start, stop) if _is_key(lines[i], head)), None)
        if at is None:
            if depth == 0:
                raise ConfigError(f"no section '{key}' to write constants into", hint="add it to the file")
            added = [f"{'  ' * (depth + i)}{name}:" for i, name in enumerate(path[depth:])]
            added[-1] += f" {body}"
            if len(added) > 1:
                pad = "  " * (len(path) - 1)
                added[-1:-1] = [f"{pad}{name}: {value}" for name, value in evidence.items()]
            while stop > start and not lines[stop - 1].strip():
                stop -= 1
            return "\n".join([*lines[:stop], *added, *lines[stop:]]) + "\n"
        end = at + 1
        while end < stop and (not lines[end].strip() or _deeper(lines[end], depth)):
            end += 1
        start, stop = at + 1, end
    head = lines[start - 1].split(":")[0]
    return "\n".join([*lines[: start - 1], f"{head}: {body}", *lines[stop:]]) + "\n"


def _is_key(line: str, head: str) -> bool:
    return line == head or line.startswith(f"{head} ")


def _deeper(line: str, depth: int) -> bool:
    pad = len(line) - len(line.lstrip())
    return pad > 2 * depth or (pad == 2 * depth and line.lstrip().startswith("}"))
