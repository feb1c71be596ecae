"""A browser and a JupyterLab for the tests of this folder; all of them skip where one is missing."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = next((p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).exists()), None)


@dataclass
class Lab:
    """A running JupyterLab.

    ``settings`` is its folder of user settings; ``log`` what it wrote.
    """

    url: str
    settings: Path
    log: Path

    def theme(self, dark: bool) -> None:
        """Choose the theme of pages opened from now on."""
        folder = self.settings / "@jupyterlab" / "apputils-extension"
        folder.mkdir(parents=True, exist_ok=True)
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        (folder / "themes.jupyterlab-settings").write_text(json.dumps({"theme": name}))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"{url} does not answer:\n{log.read_text()[-3000:]}")


@contextmanager
def served(home: Path, app: str, *options: str) -> Iterator[Lab]:
    """A Jupyter application on the notebooks, with settings and folders of its own."""
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    found = Lab(f"http://127.0.0.1:{free_port()}", home / "settings", home / f"{app}.log")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JUPYTERLAB_SETTINGS_DIR": str(found.settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    command = [sys.executable, "-m", app, "--no-browser", f"--port={found.url.rsplit(':', 1)[1]}", *options]
    with found.log.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)
    try:
        wait_for(found.url, process, found.log)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def open_to_all(home: Path) -> tuple[str, ...]:
    """Options of a Jupyter server that asks for no token."""
    return (
        *("--allow-root", "--ip=127.0.0.1", f"--ServerApp.root_dir={home / 'notebooks'}"),
        *("--IdentityProvider.token=", "--ServerApp.password="),
    )


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if find_spec("jupyterlab") is None or find_spec("anywidget") is None:
        pytest.skip("JupyterLab and anywidget (extra [notebook]) are not installed")
    home = tmp_path_factory.mktemp("lab")
    # A dialogue about news would cover the page, and look for them outside.
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    with served(home, "jupyterlab", *open_to_all(home)) as found:
        yield found


@pytest.fixture
def notebook_app(tmp_path: Path) -> Iterator[Lab]:
    if find_spec("notebook") is None:
        pytest.skip("Notebook 7 is not installed")
    with served(tmp_path, "notebook", *open_to_all(tmp_path)) as found:
        yield found


@pytest.fixture
def voila(tmp_path: Path) -> Iterator[Lab]:
    if find_spec("voila") is None:
        pytest.skip("Voila (extra [notebook]) is not installed")
    with served(tmp_path, "voila", str(tmp_path / "notebooks" / "11-explorer.ipynb")) as found:
        yield found


@dataclass
class Browser:
    """Pages with what they complain about."""

    browser: Any
    errors: list[str] = field(default_factory=list)

    def page(self, width: int = 1280, height: int = 900, **options: Any) -> Any:
        self.errors.clear()
        page = self.browser.new_page(viewport={"width": width, "height": height}, **options)
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        return page


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser itself: playwright runs once per process."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture(scope="session")
def browser(chromium: Any) -> Browser:
    return Browser(chromium)
