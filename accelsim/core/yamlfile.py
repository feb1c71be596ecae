"""Safe YAML with line numbers: no tags, no duplicate keys, no alias bombs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from accelsim.core.errors import ConfigError

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 64
MAX_NODES = 1_000_000

_Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc, valid-type]
    """SafeLoader that refuses duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be plain text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key '{key}'", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file.

    Raises
    ------
    ConfigError
        With file and line: unreadable, a folder, too large, tagged (``!!python``), duplicate key, alias bomb,
        not a mapping.
    """
    if path.is_dir():
        raise ConfigError("this is a folder, expected a YAML file", str(path))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the file ({error.strerror})", str(path)) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"the file has {len(raw)} bytes, more than {MAX_BYTES}", str(path))
    return parse_yaml(raw, str(path))


def _refuse_deep(text: str | bytes) -> None:
    """Refuse deep nesting from the flat stream of events: the composer recurses and could exhaust the C
    stack.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.events.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.events.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            mark: Any = event.start_mark
            problem = f"nested more than {MAX_DEPTH} levels deep"
            raise yaml.constructor.ConstructorError(None, None, problem, mark)


def _refuse_bomb(root: yaml.Node | None) -> None:
    """Refuse a document whose aliases, written out, make it huge or endless (the "billion laughs")."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_nodes:
            raise yaml.constructor.ConstructorError(None, None, "an alias contains itself", node.start_mark)
        if key not in sizes:
            open_nodes.add(key)
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            else:
                children = node.value if isinstance(node, yaml.SequenceNode) else []
            sizes[key] = 1 + sum(size(child) for child in children)
            open_nodes.discard(key)
            if sizes[key] > MAX_NODES:
                raise yaml.constructor.ConstructorError(
                    None, None, f"aliases blow it up to more than {MAX_NODES} values", node.start_mark
                )
        return sizes[key]

    if root is not None:
        size(root)


def parse_yaml(text: str | bytes, where: str) -> dict[str, Any]:
    """Read a mapping from YAML text; `where` names it in errors."""
    try:
        _refuse_deep(text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            _refuse_bomb(root)
            document = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"not usable YAML: {problem}", f"{where}{line}") from None
    if not isinstance(document, dict):
        kind = "empty" if document is None else type(document).__name__
        raise ConfigError(f"expected a mapping of names to values, the file is {kind}", where)
    return document
