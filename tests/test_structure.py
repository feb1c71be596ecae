"""The shape of the package: floors, module length, imports, public names."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import accelsim

PACKAGE = Path(accelsim.__file__).parent
MODULES = sorted(
    p
    for p in PACKAGE.rglob("*.py")
    if not {"hwconfigs", "workloads", "validation"} & set(p.relative_to(PACKAGE).parts)
)

# Floors from the ground up; folders in one set do not know each other.
FLOORS = [
    {"core"},
    {"workload", "hardware"},
    {"techniques", "architectures"},
    {"calibration"},
    {"engine"},
    {"serving"},
    {"validate"},
    {"explore"},
    {"report"},
    {"cli"},
]
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}


def _place(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def _imported(path: Path) -> set[str]:
    """Top folders of accelsim that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [
                f"{node.module}.{a.name}" if node.module == "accelsim" else str(node.module)
                for a in node.names
            ]
        found |= {n.split(".")[1] for n in names if n.startswith("accelsim.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_climb_no_floor(path: Path) -> None:
    place = _place(path)
    if place == "__init__":
        return
    for other in _imported(path) - {place}:
        assert other in FLOOR, f"{path} imports accelsim.{other}, which is on no floor"
        assert FLOOR[other] < FLOOR[place], f"{place} imports {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_is_longer_than_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_every_submodule_imports_and_every_public_name_can_still_be_called() -> None:
    for path in MODULES:
        name = ".".join(("accelsim", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        )
        importlib.import_module(name)
    for name in accelsim.__all__:
        value = getattr(accelsim, name)
        assert callable(value) or isinstance(value, str), name
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    assert not folders & set(accelsim.__all__)


def test_import_is_light() -> None:
    code = (
        "import accelsim, sys; heavy = 'numba matplotlib plotly torch onnx pandas networkx'.split(); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
