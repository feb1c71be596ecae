"""Hostile and broken YAML ends in one line that names the file, never in a crash, a hang or executed code."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from accelsim.core.errors import ConfigError
from accelsim.core.yamlfile import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml


def _bomb(levels: int, opening: str) -> str:
    """Each level holds the one before twice, so written out it has 2^levels values."""
    first = "a0: &a0 {x: 1, y: 2}\n"
    return first + "".join(
        f"a{i}: &a{i} " + opening.format(f"*a{i - 1}", f"*a{i - 1}") + "\n" for i in range(1, levels)
    )


@pytest.mark.parametrize(
    ("text", "fragment", "line"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "duplicate key 'c'", 2),
        ("a: 1\na: 2\n", "duplicate key 'a'", 2),
        ("a: 1\nb: !!python/object/apply:os.system ['echo x']\n", "python/object/apply", 2),
        ("a: !!python/name:os.system\n", "python/name", 1),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "merge", 2),
        (_bomb(40, "{{p: {}, q: {}}}"), "aliases", None),
        (_bomb(40, "[{}, {}]"), "aliases", None),
        ("a: &a [*a]\n", "alias contains itself", 1),
        ("a: *nowhere\n", "undefined alias", 1),
        ("a: " + "[" * 500_000, "nest", 1),
        ("a: " + "{b: " * 5000, "nest", 1),
        ("- 1\n", "file is list", None),
        ("just text\n", "file is str", None),
        ("", "file is empty", None),
        ("a:\n\t- b\n", "cannot start any token", 2),
        ("a: 1\n---\nb: 2\n", "another document", 2),
        ("? [1, 2]\n: 3\n", "key must be plain text", 1),
        (b"a: \xff\xfe\x00", "not usable YAML", None),
    ],
)
def test_one_line_with_the_place(text: str | bytes, fragment: str, line: int | None) -> None:
    started = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "some.yaml")
    message = str(caught.value)
    assert fragment in message
    assert "\n" not in message
    assert message.startswith("some.yaml")
    if line is not None:
        assert message.startswith(f"some.yaml:{line}: ")
    assert time.perf_counter() - started < 5


def test_nesting_up_to_the_limit_is_fine() -> None:
    inner = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert parse_yaml(f"a: {inner}", "x") is not None
    with pytest.raises(ConfigError, match="nested"):
        parse_yaml(f"a: [{inner}]", "x")


def test_modest_aliases_are_allowed() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: [*a, *a]\n", "x") == {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}]}


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a folder"):
        read_yaml(tmp_path)
    with pytest.raises(ConfigError, match="cannot read the file"):
        read_yaml(tmp_path / "missing.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="more than"):
        read_yaml(large)
