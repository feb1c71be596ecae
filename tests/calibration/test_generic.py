"""Constants of GPUs that nobody measured."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.calibration import constants as C
from accelsim.calibration.generic import STACKED, general_sections, unmeasured
from accelsim.calibration.splits import FAMILIES
from accelsim.hardware.spec import load_hardware

OTHERS = [load_hardware(family[0]) for family in FAMILIES]


def test_the_generic_file_has_the_means_of_the_measured_families() -> None:
    shipped = load_hardware("t4")
    made = unmeasured(shipped, OTHERS)
    for section in general_sections(OTHERS):
        held, expected = (C.value_at(device, section) for device in (shipped, made))
        for name in type(held).model_fields:
            written, exact = np.asarray(getattr(held, name)), np.asarray(getattr(expected, name))
            assert np.allclose(written, exact, rtol=1e-3, atol=1e-15), (section, name)


def test_kernels_of_special_shapes_are_general_only_if_all_families_have_them() -> None:
    found = general_sections(OTHERS)
    assert ("attention", "trtllm", "decode-many") in found  # of all that have a kernel of grouped heads
    assert ("attention", "trtllm", "decode-few") not in found  # not of the B200
    assert ("attention", "vllm", "decode-window") in found
    assert ("moe", "vllm", "mxfp4-few") not in found
    assert ("formats", "trtllm", "fp8_e4m3-block") in found
    assert ("attention", "trtllm", "decode-few") in general_sections([d for d in OTHERS if d.name != "b200"])


def test_what_a_device_assumes_is_not_its_own() -> None:
    a100 = OTHERS[0]
    assert ("attention", "vllm", "decode") in C.own_sections(a100)
    assert ("attention", "vllm", "decode-kv8") in C.sections(a100)
    assert ("attention", "vllm", "decode-kv8") not in C.own_sections(a100)
    taken = C.transferred(load_hardware("h100-sxm"), [a100])
    assert not [path for path in taken if path[:3] == ("attention", "vllm", "decode-kv8")]


@pytest.mark.parametrize("top", STACKED)
def test_an_unmeasured_device_takes_nothing_of_its_own(top: str) -> None:
    device = load_hardware("h100-sxm")
    made = unmeasured(device, [d for d in OTHERS if d.name != device.name])
    known = {s for d in OTHERS if d.name != device.name for s in C.own_sections(d)}
    held = {s for s in C.sections(made) if s[0] == top and s[1] != "default"}
    assert held
    assert held <= known
