"""Objects get the methods and the groups of methods that are registered under their name."""

from __future__ import annotations

from accelsim.core import accessors


class Views:
    """Views."""

    def __init__(self, thing) -> None:
        self.thing = thing


def test_methods_and_namespaces(monkeypatch):
    monkeypatch.setattr(accessors, "_TABLE", {})
    monkeypatch.setattr(accessors, "_NAMESPACES", {})
    accessors.register_accessor("Thing", "shown", "builtins:repr")
    accessors.register_namespace("Thing", "views", f"{__name__}:Views")

    class Thing(accessors.Accessible):
        def __repr__(self) -> str:
            return "thing"

    class Other(accessors.Accessible):
        pass

    thing = Thing()
    assert thing.shown() == "thing"
    assert thing.views.thing is thing
    assert not hasattr(Other(), "views")
