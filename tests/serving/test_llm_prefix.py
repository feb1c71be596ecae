"""Prefix caching: what requests share, what is skipped, what is forgotten first."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import AccelsimError, RequestError
from accelsim.serving import Superposition, UniformLengths
from accelsim.serving.llm import engine, fast
from accelsim.serving.llm.policy import ContinuousBatching, Host
from accelsim.serving.llm.prefix import grain_of, prefixes_of
from accelsim.serving.requests import Requests
from tests.serving.test_llm_engine import TABLES, scenes

TIGHT = {"max_num_seqs": 4, "max_num_batched_tokens": 512}


def asked(prompt, prefix, group=None, **more):
    prompt = np.array(prompt)
    group = None if group is None else np.array(group)
    return Requests(
        np.zeros(len(prompt)), prompt, np.ones_like(prompt), prefix_tokens=np.array(prefix),
        prefix_group=group, **more,
    )  # fmt: skip


def serve(requests, blocks=1000, kind="vllm", gap_ns=10**9, output=1, **options):
    """Requests one after the other on both engines."""
    rules = ContinuousBatching(kind, **{**TIGHT, **options}).rules(blocks)
    n = len(requests)
    arrival, out = np.arange(n) * gap_ns, np.full(n, output)
    given = (arrival, requests.prompt_tokens, out, rules, Host(), TABLES)
    runs = [e.run(*given, prefixes=prefixes_of(requests, rules.grain)) for e in (engine, fast)]
    assert (runs[0].finish_ns == runs[1].finish_ns).all()
    assert (runs[0].hits == runs[1].hits).all()
    return runs[0]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "trtllm"])
def test_whole_pieces_of_what_others_computed_are_skipped(kind):
    """100 of 300 tokens are shared: whole pieces of them, and those only, are not computed again."""
    run = serve(asked([300, 300, 300], [100, 100, 100], [7, 7, 8]), kind=kind)
    grain = ContinuousBatching(kind).rules(1).grain
    assert run.hits.tolist() == [0, 100 // grain * grain, 0]
    alone = serve(asked([300], [0]), kind=kind)
    assert run.finish_ns[1] - run.arrival_ns[1] < alone.finish_ns[0]
    assert run.finish_ns[2] - run.arrival_ns[2] == alone.finish_ns[0]


def test_a_hit_costs_a_chunk_with_a_past():
    """What is left of the prompt takes the time of a chunk behind the cached tokens."""
    run = serve(asked([512, 512], [256, 256]))
    direct = TABLES[0][256] + TABLES[1][1] + 1e-8 * 256 + 1e-12 * 256 * (256 + 256)
    assert run.finish_ns[1] - run.arrival_ns[1] == pytest.approx(direct * 1e9, rel=2e-3)


def test_one_token_is_always_computed():
    run = serve(asked([64, 64], [64, 64]))
    assert run.hits.tolist() == [0, 48]


def test_without_prefix_caching_nothing_is_shared():
    plain = serve(asked([300] * 4, [200] * 4), prefix_caching=False)
    none = serve(asked([300] * 4, [0] * 4))
    assert plain.hits.sum() == 0
    assert (plain.finish_ns == none.finish_ns).all()


def test_the_longest_unused_is_forgotten_first():
    """Room for two prompts of 10 blocks: the third takes the place of the first, whose end goes first."""
    requests = asked([160] * 6, [160] * 6, [0, 1, 0, 2, 0, 1])
    run = serve(requests, blocks=20)
    assert run.hits.tolist() == [0, 0, 144, 0, 144, 0]


def test_the_end_of_a_prompt_is_forgotten_before_its_beginning():
    """A newcomer of 4 blocks takes the last four of the ten that lie idle."""
    run = serve(asked([160, 64, 160], [160, 64, 160], [0, 1, 0]), blocks=10)
    assert run.hits.tolist() == [0, 0, 96]


def test_vllm_shares_within_a_step_and_sglang_after_it():
    both = asked([100, 100], [96, 96])
    assert serve(both, kind="vllm", gap_ns=0).hits.tolist() == [0, 96]
    assert serve(both, kind="sglang", gap_ns=0).hits.tolist() == [0, 0]


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_requests_that_share_nothing_meet_the_same_server(scene):
    arrival, prompt, output, rules, host, loop = scene
    n = len(prompt)
    apart = Requests(np.zeros(n), prompt, output, prefix_tokens=prompt, prefix_group=np.arange(n))
    users = loop["users"]
    a = fast.run(arrival, prompt, output, rules, host, TABLES, users=users)
    b = fast.run(
        arrival, prompt, output, rules, host, TABLES, users=users, prefixes=prefixes_of(apart, rules.grain)
    )
    if a.preemptions == 0:  # a preempted sequence finds its own prompt again
        assert (a.finish_ns == b.finish_ns).all()
        assert b.hits.sum() == 0


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 3)), min_size=1, max_size=12))
def test_hashes_and_groups_say_the_same(pairs):
    """Prompts wholly shared within a group, told by hashes of 512 tokens: pieces are equal alike."""
    prompt, group = (np.array(x) for x in zip(*pairs))
    grain = grain_of(16)
    ids = [tuple(100 * g + i for i in range(-(-p // 512))) for p, g in pairs]
    hashed = prefixes_of(Requests(np.zeros(len(pairs)), prompt, prompt, hash_ids=ids), grain)
    named = prefixes_of(asked(prompt, prompt, group), grain)
    for i in range(len(pairs)):
        assert len(hashed.of(i)) == len(named.of(i)) == prompt[i] // grain
        assert len(set(hashed.of(i))) == len(hashed.of(i))
        for j in range(i):
            common = min(len(hashed.of(i)), len(hashed.of(j))) if group[i] == group[j] else 0
            for kind in (hashed, named):
                assert list(kind.of(i)[:common]) == list(kind.of(j)[:common])
                assert not set(kind.of(i)[common:]) & set(kind.of(j)[common:])


@pytest.fixture
def mooncake(tmp_path):
    path = tmp_path / "trace.jsonl"
    rows = [(0, 1200, 10, [1, 2, 3]), (4000, 1300, 10, [1, 2, 9]), (8000, 1200, 10, [1, 2, 3])]
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    path.write_text("\n".join(json.dumps(dict(zip(keys, row))) for row in rows))
    return path


def test_a_mooncake_trace_through_the_front_door(mooncake):
    """The second prompt shares two hashes of 512 tokens, the third all but its last token's piece."""
    runs = [
        ax.serve(
            "llama-3.1-8b", "h100-sxm", arrivals=ax.Trace(mooncake), engine=kind,
            batching=ax.ContinuousBatching("vllm", **TIGHT),
        )
        for kind in ("simpy", "numba")
    ]  # fmt: skip
    for run in runs:
        assert run.requests["hit_tokens"].tolist() == [0, 1024, 1184]
        assert run.summary["prefix_hit_pct"] == pytest.approx(100 * 2208 / 3700)
    assert (runs[0].run.finish_ns == runs[1].run.finish_ns).all()


def test_drawn_prefixes_are_seeded_and_no_longer_than_the_prompt():
    law = ax.Poisson(
        10, prompt_tokens=UniformLengths(10, 100), output_tokens=5, prefix_tokens=60, prefix_groups=3
    )
    a, b = law.generate(200, 4), law.generate(200, 4)
    assert (a.prefix_tokens <= a.prompt_tokens).all()
    assert set(a.prefix_group) == {0, 1, 2}
    assert (a.prefix_group == b.prefix_group).all()
    plain = ax.Poisson(10, prompt_tokens=UniformLengths(10, 100), output_tokens=5).generate(200, 4)
    assert (plain.prompt_tokens == a.prompt_tokens).all()
    assert (plain.arrival_s == a.arrival_s).all()


def test_streams_do_not_share_their_beginnings():
    one = ax.Poisson(5, prompt_tokens=50, output_tokens=5, prefix_tokens=40)
    both = Superposition(one, one).generate(50, 1)
    assert set(both.prefix_group) == {0, 1}


def test_a_prefix_longer_than_its_prompt_is_refused(tmp_path):
    with pytest.raises(RequestError, match="request 1 shares 30 tokens of a prompt of 20"):
        asked([20, 20], [10, 30])
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens,prefix_tokens\n0,9,1,4\n1,9,1,12\n")
    with pytest.raises(AccelsimError, match="prefix of 12 tokens"):
        len(ax.Trace(path))
