"""The shape of the package: floors, module length, imports, public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import accelsim

PACKAGE = Path(accelsim.__file__).parent
MODULES = sorted(
    p
    for p in PACKAGE.rglob("*.py")
    if not {"hwconfigs", "workloads", "validation"} & set(p.relative_to(PACKAGE).parts)
)

# The lists of public names.
STUBS = sorted(PACKAGE.rglob("__init__.pyi"))
PUBLIC = [accelsim, *(getattr(accelsim, part) for part in dir(accelsim) if part not in accelsim.__all__)]

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


@pytest.mark.parametrize("path", MODULES + STUBS, ids=lambda p: str(p.relative_to(PACKAGE)))
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
    for place in PUBLIC:
        for name in place.__all__:
            value = getattr(place, name)
            assert callable(value) or isinstance(value, str), (place.__name__, name)
        folder = Path(place.__file__).parent
        modules = {p.stem for p in folder.glob("*.py")} | {p.name for p in folder.iterdir() if p.is_dir()}
        assert not modules & set(place.__all__), place.__name__


def test_public_names_are_few_and_each_has_one_place() -> None:
    assert [place.__name__ for place in PUBLIC[1:]] == [
        f"accelsim.{stub.parent.name}" for stub in STUBS if stub.parent != PACKAGE
    ]
    assert 40 <= len(accelsim.__all__) <= 60
    names = [name for place in PUBLIC for name in place.__all__]
    assert len(names) == len(set(names))
    for place in PUBLIC:
        assert set(place.__all__) <= set(dir(place))


def test_a_name_that_is_elsewhere_or_misspelt_is_pointed_out() -> None:
    for owner, name, hint in (
        (accelsim, "Fleet", "use accelsim.serving.Fleet"),
        (accelsim.serving, "Poisson", "use accelsim.Poisson"),
        (accelsim.explore, "Screen", "use accelsim.techniques.Screen"),
        (accelsim, "simulat", "did you mean simulate"),
    ):
        with pytest.raises(
            AttributeError, match=f"^module '{owner.__name__}' has no attribute '{name}'; {hint}"
        ):
            getattr(owner, name)


@pytest.mark.parametrize("place", PUBLIC, ids=lambda p: p.__name__)
def test_public_names_are_documented(place: ModuleType) -> None:
    """Sections and argument names as numpydoc has them; arguments of classes may be in a base's docstring."""
    for name in place.__all__:
        value = getattr(place, name)
        if isinstance(value, str):
            continue
        arguments = {
            p.name for p in inspect.signature(value).parameters.values() if p.kind is not p.VAR_KEYWORD
        }
        assert value.__doc__, name
        bases = value.__mro__ if inspect.isclass(value) else (value,)
        text = "\n".join(base.__doc__ or "" for base in bases if base.__module__.startswith("accelsim"))
        heads = set(re.findall(r"^ *(\w+)\n *-{4,}$", text, re.M))
        if inspect.isclass(value):
            assert not arguments or heads & {"Parameters", "Attributes"}, name
        else:
            assert not arguments or {"Parameters", "Returns"} <= heads, name
            assert arguments <= set(re.findall(r"\w+", text)), name


def test_import_is_light() -> None:
    code = (
        "import accelsim, sys; heavy = 'numba matplotlib plotly torch onnx pandas networkx'.split(); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
