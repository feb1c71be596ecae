"""How far the energy of an FPGA can be from its estimate: no measured power is at hand, so all is assumed."""

from __future__ import annotations

from typing import Any

STATIC = (0.6, 1.6)  # leakage differs by grade and temperature, and boards by what else they carry
DYNAMIC = (1 / 3, 3.0)  # switching activity and routing are not in the coefficients per action


def band() -> dict[str, Any]:
    """Factors on the static and the dynamic part that 8 of 10 builds are assumed to stay within."""
    return {
        "static": STATIC,
        "dynamic": DYNAMIC,
        "level": 0.8,
        "basis": f"assumed: static part x {STATIC[0]:g} to {STATIC[1]:g}, dynamic part x {DYNAMIC[0]:.2g} to "
        f"{DYNAMIC[1]:g}; no measured power of FPGAs is at hand",
    }
