"""Where shipped data lies: inside the installed package, or at the repository root of an editable install."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from accelsim.core.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def data_folder(name: str) -> Path:
    """Folder ``hwconfigs``, ``workloads``, ``validation`` or ``docs`` that this installation uses."""
    for root in (_PACKAGE, _PACKAGE.parent):
        if (root / name).is_dir():
            return root / name
    raise ConfigError(
        f"the data folder '{name}' is missing from this installation", hint="reinstall accelsim-dse"
    )
