"""Kernel constants of devices that nobody measured: means over those that were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accelsim.architectures.gpu.attention import DEFAULT_STACK, FORMS
from accelsim.calibration import constants as C

STACKED = ("formats", "attention", "moe")
"""Sections of ``kernels`` that have constants by software stack."""

_PARTS = frozenset({"window", "full", "single", "many", "few", "ungated", "thin", "tuned"})


def unmeasured(device: Any, others: Sequence[Any]) -> Any:
    """The device as if it had never been measured: its stacks have the kernels that `general_sections` lists,
    with the constants of `accelsim.calibration.constants.transferred`.

    Parameters
    ----------
    device : GpuDevice
    others : sequence of GpuDevice
        One of each measured family.
    """
    update: dict[str, Any] = {}
    for top in STACKED:
        held = getattr(device.kernels, top)
        update[top] = {"default": held["default"]} if "default" in held else {}
    for section, holder in general_sections(others).items():
        top, stack, name = section
        update[top].setdefault(stack, {})[name] = C.value_at(holder, section)
    plain = update["attention"].setdefault(DEFAULT_STACK, dict(device.kernels.attention[DEFAULT_STACK]))
    for held in update["attention"].values():
        for phase in ("prefill", "decode"):
            held.setdefault(phase, plain[phase])
    kernels = device.kernels.model_copy(update=update)
    bare = device.model_copy(update={"kernels": kernels, "hash": f"{device.hash}+unmeasured"})
    return _with_forms(C.with_constants(bare, C.transferred(bare, others)))


def _with_forms(device: Any) -> Any:
    """The device with both forms of latent attention in every stack that has one: what a stack lacks it takes
    from another, whose kernels it would call.
    """
    attention = {stack: dict(kernels) for stack, kernels in device.kernels.attention.items()}
    for form in FORMS[1:]:
        lent = {n: m for held in device.kernels.attention.values() for n, m in held.items() if form in n}
        for own in attention.values():
            forms = {other for other in FORMS[1:] for name in own if other in name}
            if forms and form not in forms:
                own.update(lent)
    kernels = device.kernels.model_copy(update={"attention": attention})
    return C.with_constants(device.model_copy(update={"kernels": kernels}), {})


def general_sections(others: Sequence[Any]) -> dict[C.Path, Any]:
    """Kernels that any device may be expected to have, each with one device that has it.

    Those of a stack and format, and of attention with a sliding window. Kernels of special shapes (``-192``,
    ``-single``, ``-few``) only if all devices have them that have the stack's kernel beside it: where some do
    without, a device that takes its plain kernel from its own rows must not take these from others.
    """
    own = [set(C.own_sections(other)) for other in others]
    found: dict[C.Path, Any] = {}
    for other, mine in zip(others, own):
        for section in sorted(s for s in mine if s[0] in STACKED and len(s) == 3):
            plain = (*section[:2], _plain(section[2]))
            special = section[2].removeprefix(plain[2]).removesuffix("-window")
            everywhere = all(section in held for held in own if plain in held)
            if not special or everywhere:
                found.setdefault(section, other)
    return found


def _plain(name: str) -> str:
    """Name of a kernel without the shapes that it is for: ``decode-kv8`` for ``decode-kv8-192-window``."""
    words = name.split("-")
    while words[-1] in _PARTS or words[-1].isdigit():
        words.pop()
    return "-".join(words)
