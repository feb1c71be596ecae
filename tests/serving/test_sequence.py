"""Sequences keep their order, their slots and their instance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.serving import TritonSequence
from accelsim.serving.engine import run_open
from accelsim.serving.requests import Requests
from accelsim.serving.service import Times
from accelsim.serving.station import COMPLETED
from accelsim.serving.triton_config import from_text

LAW = ax.LinearService(0.004, 0.0005)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["direct", "oldest"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([0, 1000, 6000]),
    st.integers(0, 4),
    st.integers(1, 120),
    st.integers(0, 10_000),
)
def test_sequences_end_in_order(strategy, most, instances, delay, candidates, n, seed) -> None:
    policy = TritonSequence(most, strategy, delay, 0.5, candidates, instances=instances)
    base = ax.Poisson(800).generate(n, seed)
    keys = np.random.default_rng(seed).integers(-1, 6, n)
    requests = Requests(base.arrival_s, sequence=keys)
    log = run_open(requests, policy, Times.of(LAW, ax.Overheads(), most))
    assert (log.status == COMPLETED).all()
    assert log.size.max() <= most
    for key in range(6):
        mine = np.flatnonzero(keys == key)
        runs = log.execution[mine]
        # One request of a sequence at a time, each after the answer to the one before.
        assert (np.diff(runs) > 0).all()
        assert (log.start_ns[runs][1:] >= log.finish_ns[mine][:-1]).all()
        if strategy == "direct":
            assert len(np.unique(log.instance[runs])) <= 1


def test_direct_fills_its_slots() -> None:
    requests = Requests(np.zeros(8), sequence=np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    r = ax.serve(LAW, arrivals=requests, batching=TritonSequence(4, "direct", 10_000, 1.0))
    # The first runs alone, because no other sequence is there yet; then one request of every slot.
    assert r.executions["size"].tolist() == [1, 4, 3]
    assert any("simpy" in note for note in r.notes)


def test_sequence_batching_is_read_from_the_config() -> None:
    text = "max_batch_size: 8 sequence_batching { %s }"
    assert from_text(text % "").policy == TritonSequence(8)
    direct = text % "direct { max_queue_delay_microseconds: 7 minimum_slot_utilization: 0.5 }"
    assert from_text(direct).policy == TritonSequence(8, "direct", 7, 0.5)
    oldest = text % "oldest { max_candidate_sequences: 4 preferred_batch_size: [ 2 ] }"
    wanted = TritonSequence(8, "oldest", max_candidate_sequences=4, preferred=(2,))
    assert from_text(oldest).policy == wanted
    for bad in ("direct { } oldest { }", "direct { slots: 3 }", "direct { minimum_slot_utilization: 2 }"):
        with pytest.raises(ax.AccelsimError):
            from_text(text % bad)
