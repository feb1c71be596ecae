"""Where on the array the work happens: every multiply-accumulate, once."""

from __future__ import annotations

import numpy as np
import pytest

import accelsim as ax
from accelsim.architectures.systolic.utilisation import _reached, _tiles, element_macs


@pytest.mark.parametrize("hardware", ["tpu-v4", "tpu-v1", "gemmini", "nvdla-256", "eyeriss"])
@pytest.mark.parametrize("workload", ["resnet18", "bert-base"])
def test_elements_do_all_products(hardware, workload):
    result = ax.simulate(workload, hardware, batch=3)
    if not result.feasible:
        pytest.skip(f"{hardware} does not run {workload}")
    found = element_macs(result.programs[0])
    assert found.sum() == pytest.approx(result.summary["flops"] / 2)
    assert found.min() >= 0.0


def test_elements_by_hand():
    # 10 rows of a product on 4: tiles of 4, 4 and 2, so the last two rows of elements work in two of three.
    assert _reached(10, 4).tolist() == [3.0, 3.0, 2.0, 2.0]
    assert _tiles(10, 2, 5, 1, 4, 4).tolist() == [
        [15, 15, 0, 0], [15, 15, 0, 0], [10, 10, 0, 0], [10, 10, 0, 0]
    ]  # fmt: skip
    # Five products of 2 x 2, two on the diagonal at a time: three turns for the first block, two for the next
    packed = _tiles(2, 2, 5, 2, 4, 4)
    assert np.diag(packed).tolist() == [3, 3, 2, 2]
    assert packed.sum() == 5 * 4
