"""Draw the pictures of the README from real runs: ``python docs/figures.py``."""

from __future__ import annotations

from pathlib import Path

import accelsim as ax
from accelsim.report.plots.style import save

FOLDER = Path(__file__).parent / "images"


def main() -> None:
    """Write the pictures into ``docs/images``."""
    FOLDER.mkdir(exist_ok=True)
    study = ax.sweep(
        "resnet50",
        ["h100-sxm", "l4", "tpu-v4", "zcu104-dpu"],
        batch=ax.pow2(1, 128),
        precision="int8",
        progress=False,
    )
    save(study.plot.pareto("latency_s", "energy_per_item_j", width="page"), FOLDER / "pareto.png", dpi=130)
    result = ax.simulate("resnet50", "h100-sxm", batch=32, precision="int8")
    save(result.plot.roofline(width="page"), FOLDER / "roofline.png", dpi=130)


if __name__ == "__main__":
    main()
