"""The wheel carries its data: built and installed apart from the checkout, it answers."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(
    find_spec("hatchling") is None or find_spec("build") is None, reason="needs build and hatchling"
)
def test_wheel_answers_outside_the_checkout(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT],
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import accelsim, sys; from accelsim.cli import main; "
        f"assert accelsim.__file__.startswith({str(site)!r}), accelsim.__file__; "
        "sys.argv = ['accelsim', *sys.argv[1:]]; main()"
    )
    for arguments in (["hw", "list"], ["run", "resnet50", "--hardware", "h100-sxm"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": str(site), "PATH": ""},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "h100-sxm" in done.stdout
