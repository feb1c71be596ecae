"""The order of a data flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from accelsim.core.errors import RequestError


class Node(Protocol):
    """A part of a data flow."""

    @property
    def name(self) -> str: ...

    @property
    def after(self) -> tuple[str, ...]: ...


N = TypeVar("N", bound=Node)


def in_order(nodes: Sequence[N], what: str) -> tuple[N, ...]:
    """Nodes with those that they need in front, as few steps from the beginning as can be.

    Parameters
    ----------
    nodes : sequence
        Names in ``after`` must exist.
    what : str
        What has a cycle, in the words of an error.

    Raises
    ------
    RequestError
        There is a cycle.
    """
    left, done = list(nodes), list[N]()
    while left:
        known = {node.name for node in done}
        ready = [node for node in left if known.issuperset(node.after)]
        if not ready:
            raise RequestError(f"{what} has a cycle through {', '.join(node.name for node in left)}")
        done += ready
        left = [node for node in left if not known.issuperset(node.after)]
    return tuple(done)
