"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from accelsim.core.errors import ConfigError


def write_whole(path: Path, text: str) -> Path:
    """Write text to a temporary neighbour and move it into place; see `write_bytes_whole`."""
    return write_bytes_whole(path, text.encode("utf-8"))


def write_bytes_whole(path: Path, content: bytes) -> Path:
    """Write bytes to a temporary neighbour and move it into place.

    Raises
    ------
    ConfigError
        The path is a folder, its folder is missing, or it cannot be written.
    """
    if path.is_dir():
        raise ConfigError("this is a folder, expected a file", str(path))
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"cannot write here ({error.strerror})", str(path)) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise ConfigError(f"cannot write ({error.strerror})", str(path)) from None
    return path
