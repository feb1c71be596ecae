"""The held-out rule, under the name that it had before calibration needed it too."""

from accelsim.calibration.splits import FAMILIES, GROUPS, divides, held_out, siblings

__all__ = ["FAMILIES", "GROUPS", "divides", "held_out", "siblings"]
