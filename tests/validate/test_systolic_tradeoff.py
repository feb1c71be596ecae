"""A published trade-off: on TPU v1 the larger array is slower for a 600 x 600 product."""

from __future__ import annotations

import pytest

from accelsim.validate.systolic import silicon


def test_a_larger_array_is_slower_where_tiles_do_not_fit():
    rows = silicon()
    rows = rows[rows.role == "trade-off"]
    published, predicted = rows.published.to_numpy(), rows.predicted.to_numpy()
    assert published[1] > published[0]
    assert predicted[1] > predicted[0]
    # Nine tiles of 64 KiB against four of 256 KiB: the memory's time is 16/9 as long.
    assert predicted[1] / predicted[0] == pytest.approx(16 / 9, rel=0.03)
