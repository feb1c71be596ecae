"""What users read runs: notebooks, README snippets, the names that documents mention."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"), key=lambda p: int(p.stem.split("-")[0]))
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs_and_is_stripped(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()


@pytest.mark.skipif(find_spec("onnx") is None, reason="the README reads a model of the onnx package")
def test_readme_python_runs() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, re.S))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_readme_commands_run(tmp_path: Path) -> None:
    lines = [line.split("#")[0].strip() for line in re.findall(r"^accelsim .*$", README, re.M)]
    assert len(lines) >= 5
    for line in lines:
        # Files of the user; minutes of scoring.
        if any(word in line for word in ("model.onnx", "my.cfg", "folding.json", "my-gpu", "validate")):
            continue
        done = subprocess.run(
            [sys.executable, "-m", "accelsim.cli", *shlex.split(line)[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)


def test_documents_name_no_missing_file() -> None:
    for name in re.findall(r"\]\(((?!http)[^)#]+)", README):
        assert (ROOT / name).exists(), name


def test_definitions_name_every_operator_column() -> None:
    from accelsim.architectures.opschema import COLUMNS, OPS

    text = (ROOT / "docs" / "definitions.md").read_text()
    assert [name for name in (*OPS, *COLUMNS) if f"| `{name}` |" not in text] == []


def test_documentation_builds_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs (extra [docs]) is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.glob("*.html"):
        fetched = re.findall(r'(?:src|<link[^>]*href)="(https?://[^"]+)"', page.read_text())
        assert fetched == [], page.name


def test_pages_link_to_files_that_are_there() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"\]\(((?!http)[^)#]+)", page.read_text()):
            assert (page.parent / name).exists(), (page.name, name)
