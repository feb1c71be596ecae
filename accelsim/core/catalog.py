"""Named YAML files: shipped ones, the user's folders, and those that installed packages bring."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path

from accelsim.core.errors import ConfigError, UnknownNameError, did_you_mean
from accelsim.core.paths import data_folder

_FOLDERS = {"hardware": "hwconfigs", "workloads": "workloads"}


class Catalog:
    """The names of one kind (``hardware`` or ``workloads``).

    A name is a file's stem. Folders are searched in this order, and the first match wins: those in the
    environment variable ``ACCELSIM_PATH`` (each may hold ``hwconfigs/`` and ``workloads/``), the folders that
    packages
    register under the entry-point group ``accelsim.hwconfigs`` or ``accelsim.workloads``, the shipped ones.
    """

    def __init__(self, kind: str) -> None:
        if kind not in _FOLDERS:
            raise UnknownNameError(f"unknown catalog '{kind}'", hint=did_you_mean(kind, _FOLDERS))
        self.kind = kind
        self.folder = _FOLDERS[kind]

    def folders(self) -> list[Path]:
        """Folders that are searched, nearest first."""
        user = [
            Path(p).expanduser() / self.folder
            for p in os.environ.get("ACCELSIM_PATH", "").split(os.pathsep)
            if p
        ]
        return [
            f
            for f in [*user, *_entry_point_folders(f"accelsim.{self.folder}"), data_folder(self.folder)]
            if f.is_dir()
        ]

    def files(self) -> dict[str, Path]:
        """Every name with its file. A file whose name starts with ``_`` is a family that others extend."""
        found: dict[str, Path] = {}
        for folder in self.folders():
            found = {**_listed(folder), **found}
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        return list(self.files())

    def find(self, name: str) -> Path:
        """File of a name.

        Raises
        ------
        UnknownNameError
            With the nearest names.
        """
        files = self.files()
        if name not in files:
            what, other, hint = (
                ("hardware", "workloads", "that is a workload, which comes first")
                if self.kind == "hardware"
                else ("workload", "hardware", "that is hardware, which comes second")
            )
            if name not in Catalog(other):
                hint = did_you_mean(name, files)
            raise UnknownNameError(f"unknown {what} '{name}'", hint=hint)
        return files[name]

    def resolve(self, name_or_path: str | Path) -> Path:
        """File of a name, or of a path when the text looks like one (a separator or a ``.yaml`` ending)."""
        text = str(name_or_path)
        path = Path(text).expanduser()
        if isinstance(name_or_path, Path) or os.sep in text or text.endswith((".yaml", ".yml")):
            if path.is_dir():
                raise ConfigError("this is a folder, expected a YAML file", text)
            if not path.exists():
                raise ConfigError("no such file", text)
            return path
        return self.find(text)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.files()

    def __repr__(self) -> str:
        return f"{self.kind} ({len(self)}): {', '.join(self.names())}"


_LISTED: dict[Path, tuple[dict[Path, int], dict[str, Path]]] = {}


def _listed(folder: Path) -> dict[str, Path]:
    """Names of one folder; walked again only when one of its directories has changed."""
    times, names = _LISTED.get(folder, ({}, {}))
    if not times or any(not d.is_dir() or d.stat().st_mtime_ns != then for d, then in times.items()):
        directories = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
        times = {d: d.stat().st_mtime_ns for d in directories}
        names = {}
        for path in sorted(folder.rglob("*.yaml")):
            if not path.name.startswith("_"):
                names.setdefault(path.stem, path)
        _LISTED[folder] = (times, names)
    return names


@lru_cache(maxsize=8)
def _entry_point_folders(group: str) -> tuple[Path, ...]:
    """Folders that installed packages register; each entry point is a function that returns its folder."""
    return tuple(Path(entry.load()()) for entry in entry_points(group=group))


def catalog(kind: str) -> Catalog:
    """What is there by name: shipped files, those of installed packages and of your own folders.

    Parameters
    ----------
    kind : {"hardware", "workloads"}

    Returns
    -------
    Catalog
        Iterate it for the names; ``.find(name)`` is the file of one.
    """
    return Catalog(kind)
