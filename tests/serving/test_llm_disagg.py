"""Pools for prefill and decode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.core.errors import RequestError
from accelsim.serving.llm import engine
from accelsim.serving.llm.disagg import Pool, Transfer, run
from accelsim.serving.llm.policy import ContinuousBatching, Host
from tests.serving.test_llm_engine import TABLES


def pool(workers, blocks=500, **options):
    given = {"max_num_seqs": 16, "max_num_batched_tokens": 512, **options}
    return Pool(workers, ContinuousBatching("vllm", **given).rules(blocks), Host(1e-4), TABLES)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(0, 10**7)), min_size=1, max_size=40
    ),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0, 2, 7]),
)
def test_every_request_ends_with_all_its_tokens(requests, sources, sinks, users):
    prompt, output, gaps = (np.array(x) for x in zip(*requests))
    transfer = Transfer(1e-4, 1e-7)
    done = run(np.cumsum(gaps), prompt, output, pool(sources), pool(sinks), transfer, users=users)
    assert (done.finish_ns >= done.first_ns).all()
    assert (done.first_ns - done.arrival_ns >= [transfer.taken_ns(int(p)) for p in prompt]).all()
    assert done.tokens == output.sum()


def test_one_request_takes_prefill_transfer_and_decode():
    whole = engine.run(np.array([0]), np.array([200]), np.array([10]), pool(1).rules, Host(1e-4), TABLES)
    parts = run(np.array([0]), np.array([200]), np.array([10]), pool(1), pool(1), Transfer(1e-3, 1e-6))
    assert parts.first_ns[0] == whole.first_ns[0] + 1_200_000
    assert parts.finish_ns[0] == whole.finish_ns[0] + 1_200_000


def test_decoding_is_not_disturbed_by_prompts():
    """The longest gap between tokens shrinks when prompts run elsewhere."""
    arrival = np.arange(40) * 6_000_000
    prompt, output = np.full(40, 3000), np.full(40, 50)
    many = pool(1, 20_000, max_num_seqs=64, max_num_batched_tokens=4096)
    mixed = engine.run(arrival, prompt, output, many.rules, many.host, TABLES)
    apart = run(arrival, prompt, output, many, many, Transfer(0.0, 0.0))
    assert np.flatnonzero(apart.gaps)[-1] < np.flatnonzero(mixed.gaps)[-1]


def test_a_pool_has_workers():
    with pytest.raises(RequestError, match="worker"):
        pool(0)
