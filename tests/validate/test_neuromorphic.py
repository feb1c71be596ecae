"""The keyword spotter of Blouw et al. 2019: what the report shows, and the order of hardware."""

from __future__ import annotations

import pytest

from accelsim.validate import neuromorphic, report


def test_the_network_is_the_published_one() -> None:
    graph = neuromorphic.network()
    assert graph.macs == 390 * 256 + 256 * 256 + 256 * 29
    assert graph.outputs[0].shape == (1, 29)


def test_published_rows_agree_with_themselves() -> None:
    """Dynamic energy is (running - idle) / rate, to the digits that are given; no row claims to be read."""
    frame = neuromorphic.published()
    again = 1e3 * (frame.running_w - frame.idle_w) / frame.inferences_per_s
    assert again.to_numpy() == pytest.approx(frame.dynamic_mj.to_numpy(), rel=0.03)
    assert set(frame.status) == {"assumed"}


def test_order_of_energy_is_the_published_one_where_there_is_a_model() -> None:
    frame = neuromorphic.order()
    assert frame.hardware.tolist()[0] == "Loihi"
    modelled = frame.dropna(subset=["predicted_mj"])
    assert modelled.hardware.tolist() == ["Loihi", "Jetson TX1", "Quadro K4000 (GPU)"]
    assert modelled.predicted_mj.is_monotonic_increasing


def test_misses_are_shown_as_misses() -> None:
    frame = neuromorphic.accuracy()
    for row in frame.itertuples():
        assert row.error_pct == pytest.approx(100 * (row.predicted / row.published - 1))
        assert (row.within_target == "yes") == (abs(row.error_pct) <= 25)
        assert row.status == "assumed"
    titles = [table.title for table in report.collect("neuromorphic")]
    assert titles == ["Keyword spotter on Loihi", "Energy per inference of the keyword spotter"]
