"""A starting point for a user's own device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from accelsim.core.quantity import Quantity
from accelsim.hardware.spec import load_hardware

_HEADER = """\
# A device of your own, copied from {like}.
# Change what differs. Give each number its own source and status (cited, measured or assumed) like this:
#   bandwidth: {{value: 3.35 TB/s, status: cited, source: data sheet of 2026-01}}
# A number without them takes the source and status below.
source: copied from {like}
status: assumed
"""


def template(like: str) -> str:
    """YAML text of a device with every number of `like`, all assumed until their owner says otherwise."""
    device = load_hardware(like)
    body: dict[str, Any] = _values(device.document)
    return _HEADER.format(like=device.name) + yaml.safe_dump(body, sort_keys=False, allow_unicode=True)


def _values(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {k: _values(v) for k, v in node.items()}
    return node.value if isinstance(node, Quantity) else node
