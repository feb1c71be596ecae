"""Pools for prefill and decode."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.serving import Workers
from accelsim.serving.llm import engine
from accelsim.serving.llm.disagg import Pool, Transfer, run
from accelsim.serving.llm.fast import run_pools
from accelsim.serving.llm.policy import ContinuousBatching, Host
from accelsim.serving.llm.worker import Pace
from tests.serving.test_llm_engine import TABLES, scenes


def pool(workers, blocks=500, **options):
    given = {"max_num_seqs": 16, "max_num_batched_tokens": 512, **options}
    return Pool(workers, Pace(ContinuousBatching("vllm", **given).rules(blocks), Host(1e-4), TABLES))


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
    done, _ = run(np.cumsum(gaps), prompt, output, pool(sources), pool(sinks), transfer, users=users)
    assert (done.finish_ns >= done.first_ns).all()
    assert (done.first_ns - done.arrival_ns >= [transfer.taken_ns(int(p)) for p in prompt]).all()
    assert done.tokens == output.sum()


@st.composite
def deployments(draw):
    """Requests and two pools whose rules differ; arrivals and steps often fall together."""
    arrival, prompt, output, rules, host, loop = draw(scenes())
    other = draw(scenes())[3]._replace(grain=draw(st.sampled_from([rules.grain, 0])), block=rules.block)
    longest = int((prompt + output).max()) + rules.drafts + other.drafts
    other = other._replace(blocks=-(-longest // rules.block) + draw(st.integers(0, 20)), budget=200)
    if draw(st.booleans()):
        arrival = 0 * arrival
    pools = [Pool(draw(st.integers(1, 4)), Pace(r, host, TABLES, TABLES)) for r in (rules, other)]
    return (arrival, prompt, output, *pools, Transfer(1e-4, draw(st.sampled_from([0.0, 1e-7])))), loop


@settings(max_examples=150, deadline=None)
@given(deployments(), st.sampled_from([0, 500_000]))
def test_both_engines_give_the_same_numbers(deployment, think):
    given, loop = deployment
    think_ns = np.full(len(given[0]), think)
    (a, more), (b, much) = (f(*given, think_ns=think_ns, **loop) for f in (run, run_pools))
    for name in ("arrival_ns", "first_ns", "finish_ns", "gaps", "hits"):
        assert (getattr(a, name) == getattr(b, name)).all(), name
    for name in ("steps", "busy_ns", "preemptions", "tokens", "kv_peak", "kv_ns", "energy_j"):
        assert getattr(a, name) == getattr(b, name), name
    assert more == much


def test_one_request_takes_prefill_transfer_and_decode():
    whole = engine.run(np.array([0]), np.array([200]), np.array([10]), pool(1).pace.rules, Host(1e-4), TABLES)
    parts, _ = run(np.array([0]), np.array([200]), np.array([10]), pool(1), pool(1), Transfer(1e-3, 1e-6))
    assert parts.first_ns[0] == whole.first_ns[0] + 1_200_000
    assert parts.finish_ns[0] == whole.finish_ns[0] + 1_200_000


def test_decoding_is_not_disturbed_by_prompts():
    """The longest gap between tokens shrinks when prompts run elsewhere."""
    arrival = np.arange(40) * 6_000_000
    prompt, output = np.full(40, 3000), np.full(40, 50)
    many = pool(1, 20_000, max_num_seqs=64, max_num_batched_tokens=4096)
    mixed = engine.run(arrival, prompt, output, many.pace.rules, many.pace.host, TABLES)
    apart, _ = run(arrival, prompt, output, many, many, Transfer(0.0, 0.0))
    assert np.flatnonzero(apart.gaps)[-1] < np.flatnonzero(mixed.gaps)[-1]


def test_a_pool_has_workers():
    with pytest.raises(RequestError, match="worker"):
        pool(0)


SERVED = {
    "arrivals": ax.Poisson(6, prompt_tokens=1000, output_tokens=60, prefix_tokens=500),
    "batching": ax.ContinuousBatching("vllm", max_num_seqs=64, max_num_batched_tokens=4096),
    "requests": 120,
    "slo": {"ttft_s": 0.1, "tpot_s": 0.02},
}


def test_pools_through_the_front_door():
    """Two workers of one device for prompts and one of two devices for tokens."""
    decode = Workers(1, parallel={"tensor": 2})
    r = ax.serve("llama-3.1-8b", "h100-sxm", prefill=2, decode=decode, **SERVED)
    s = r.summary
    assert (s["devices"], s["devices_prefill"], s["devices_decode"]) == (4, 2, 2)
    # The cache of 1,000 tokens of 2 x 32 layers x 8 heads x 128 in 16 bits, from one device over 50 GB/s.
    assert s["transfer_mean_s"] == pytest.approx(1e-3 + 1000 * 131072 / 50e9)
    assert s["completed"] == 120
    assert s["goodput_per_s"] <= s["requests_per_s"]
    assert s["prefix_hit_pct"] > 40
    assert r.ttft_s.min() > s["transfer_mean_s"]
    slow = ax.serve("llama-3.1-8b", "h100-sxm", prefill=2, decode=decode, link_latency_s=0.2, **SERVED)
    assert slow.summary["goodput_per_s"] == 0
    assert slow.summary["ttft_mean_s"] == pytest.approx(s["ttft_mean_s"] + 0.199, rel=1e-6)


def test_a_pool_on_other_hardware_is_billed_with_it():
    r = ax.serve("llama-3.1-8b", "h100-sxm", prefill=1, decode=Workers(1, "h200-sxm"), **SERVED)
    price = [ax.load_hardware(name).cost.hourly_usd for name in ("h100-sxm", "h200-sxm")]
    assert r.bill.usd_per_hour == pytest.approx(sum(price) / 2)
    assert r.summary["hardware"] == "h100-sxm + h200-sxm"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefill": 1}, "come together"),
        ({"prefill": 0, "decode": 1}, "at least one worker"),
        ({"prefill": Workers(1, parallel={"data": 2}), "decode": 1}, "one rank each"),
        ({"prefill": 1, "decode": 1, "link_bytes_per_s": 0.0}, "makes no sense"),
    ],
)
def test_pools_that_make_no_sense(options, words):
    with pytest.raises(RequestError, match=words):
        ax.serve("llama-3.1-8b", "h100-sxm", **{**SERVED, **options})
