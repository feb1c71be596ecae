"""Write the constants that GPUs without measurements take into ``hwconfigs/gpu/_gpu.yaml``: kernels of
software stacks, as means over the measured families; and Ada's attention into ``_ga10x.yaml``, whose
multiprocessors have the same rates and shared memory.

python validation/build_generic.py

Fast: it reads hardware files alone. Run it after `fit_gpu.py` has changed a family.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from accelsim.calibration.files import section_text, with_section
from accelsim.calibration.generic import STACKED, general_sections, unmeasured
from accelsim.calibration.splits import FAMILIES
from accelsim.core.errors import ConfigError
from accelsim.core.files import write_whole
from accelsim.core.paths import data_folder
from accelsim.hardware.spec import load_hardware

LIKE = "t4"
"""The means are weighted as for this device: 1024 FLOP per clock and multiprocessor at 16 bits, as have all
families of the catalog without measurements but one."""
SOURCE = (
    "means of the families that have measurements (A100, H100, B200, L40S, RTX PRO 6000), by "
    "validation/build_generic.py"
)


def main() -> None:
    others = [load_hardware(family[0]) for family in FAMILIES]
    device = unmeasured(load_hardware(LIKE), others)
    path = data_folder("hwconfigs") / "gpu" / "_gpu.yaml"
    text = path.read_text(encoding="utf-8")
    evidence = {"status": "assumed", "source": f'"{SOURCE}"'}
    found = general_sections(others)
    # By stack, and of a stack as its family's file has them.
    for section in sorted(found, key=lambda s: (STACKED.index(s[0]), s[1])):
        body = section_text(device, section, 2 * len(section))
        text = with_section(text, ("kernels", *section), body, evidence)
    write_whole(path, text)
    sys.stdout.write(f"{path}: {len(found)} kernels\n")
    folder = data_folder("hwconfigs") / "gpu"
    lent = _attention(folder / "_ada.yaml").replace("status: measured", "status: assumed")
    lent = re.sub(r'source: "(?!as Ada)', 'source: "as Ada: ', lent)
    path = folder / "_ga10x.yaml"
    write_whole(path, path.read_text(encoding="utf-8").replace(_attention(path), lent))


def _attention(path: Path) -> str:
    """The lines of ``kernels.attention`` in a file."""
    found = re.search(r"^  attention:\n(?:    .*\n)+", path.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ConfigError(f"{path} has no kernels.attention")
    return found.group()


if __name__ == "__main__":
    main()
