"""Continuous batching: laws that every schedule keeps, and two engines with the same numbers."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.serving.llm import engine, fast
from accelsim.serving.llm.policy import ContinuousBatching, Host, Speculative
from accelsim.serving.llm.prefix import prefixes_of
from accelsim.serving.llm.steptime import accepted, padded
from accelsim.serving.llm.surface import CHUNKS, CONTEXTS, PASTS, PROMPTS
from accelsim.serving.requests import Requests


def tables(tokens: int = 4096, sequences: int = 64):
    """A device on which all is linear: 1 ms, 1 us a token, 2 us a sample, cache and prompts by size."""
    rows = np.arange(sequences + 1.0)
    decode = 1e-6 * rows[:, None] + 1e-9 * rows[:, None] * CONTEXTS[None, :]
    size = PROMPTS[:, None, None] * CHUNKS[None, :, None]
    prefill = 1e-8 * size + 1e-12 * size * (CHUNKS[None, :, None] + PASTS[None, None, :])
    return 1e-3 + 1e-6 * np.arange(tokens + 1.0), 2e-6 * rows, decode, prefill


TABLES = tables()


@st.composite
def scenes(draw):
    """Requests, rules and a host."""
    n = draw(st.integers(1, 40))
    numbers = st.lists(st.integers(1, 120), min_size=n, max_size=n)
    prompt, output = (
        np.array(draw(numbers)),
        np.array(draw(st.lists(st.integers(1, 60), min_size=n, max_size=n))),
    )
    drafts = draw(st.integers(0, 3))
    batching = ContinuousBatching(
        draw(st.sampled_from(["vllm", "sglang", "trtllm"])),
        max_num_seqs=draw(st.integers(1, 16)),
        max_num_batched_tokens=draw(st.integers(8, 200)),
        chunked_prefill=draw(st.booleans()),
        block_size=draw(st.sampled_from([1, 4, 16])),
        capacity_policy=draw(st.sampled_from([None, "max_utilization", "guaranteed_no_evict"])),
        preemption=draw(st.sampled_from(["recompute", "swap"])),
        speculative=Speculative(drafts, 0.6, 1e-4) if drafts else None,
        stream_interval=draw(st.integers(1, 5)),
    )
    longest = int((prompt + output).max()) + drafts
    blocks = -(-longest // batching.block) + draw(st.integers(0, 40))
    rules = batching.rules(blocks, 1e-7)
    if not rules.chunked:
        rules = rules._replace(budget=max(rules.budget, int(prompt.max())))
    gaps = draw(st.lists(st.integers(0, 3_000_000), min_size=n, max_size=n))
    group = np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    asked = Requests(
        np.zeros(n), prompt, output, prefix_tokens=(share * prompt).astype(int), prefix_group=group
    )
    loop = {
        "users": draw(st.sampled_from([0, 0, 1, 5])),
        "prefixes": prefixes_of(asked, rules.grain) if draw(st.booleans()) else None,
    }
    rules = rules._replace(poll=draw(st.sampled_from([1, 1, 3, 20])), ahead=draw(st.booleans()))
    return np.cumsum(gaps), prompt, output, rules, Host(1e-4, 1e-6, 2e-4, prompt_share=0.3), loop


@settings(max_examples=120, deadline=None)
@given(scenes())
def test_both_engines_give_the_same_numbers(scene):
    arrival, prompt, output, rules, host, loop = scene
    think = np.full(len(prompt), 500_000)
    a = engine.run(arrival, prompt, output, rules, host, TABLES, TABLES, think_ns=think, **loop)
    b = fast.run(arrival, prompt, output, rules, host, TABLES, TABLES, think_ns=think, **loop)
    for name in ("arrival_ns", "first_ns", "finish_ns", "gaps", "hits"):
        assert (getattr(a, name) == getattr(b, name)).all(), name
    for name in ("steps", "busy_ns", "preemptions", "tokens", "kv_peak", "kv_ns", "energy_j"):
        assert getattr(a, name) == getattr(b, name), name


@settings(max_examples=120, deadline=None)
@given(scenes())
def test_laws(scene):
    arrival, prompt, output, rules, host, loop = scene
    admitted: list[int] = []

    def watch(clock, state, step):
        piece = rules.grain // rules.block
        users = Counter(key for s in state.running for key in s.keys[: s.shared])
        assert users == {key: n for key, n in state.cache.users.items() if n}
        held = sum(s.held for s in state.running) + piece * len(users)
        assert held + state.free == rules.blocks
        assert 0 <= piece * len(state.cache.idle) <= state.free
        assert all(s.held >= 0 for s in state.running)
        assert all(s.held == s.shared == 0 for s in state.waiting)
        assert len(state.running) <= rules.max_seqs
        prompts = sum(n for s, n in step.work if not s.decoding)
        every = sum(n for _, n in step.work)
        if rules.style == 0:
            assert every <= rules.budget
        else:
            assert prompts <= rules.budget
        assert len({s.number for s, _ in step.work}) == len(step.work)
        admitted.extend(s.number for s, _ in step.work if s.number not in admitted)

    run = engine.run(arrival, prompt, output, rules, host, TABLES, watch=watch, **loop)
    assert (run.finish_ns >= 0).all()
    assert run.tokens == output.sum()
    assert (run.first_ns > run.arrival_ns).all()
    assert (run.finish_ns >= run.first_ns).all()
    assert admitted == sorted(admitted)  # first come, first admitted
    assert run.kv_peak <= rules.blocks
    assert (run.hits < prompt).all()  # one token is always computed
    if rules.reserve >= 1 and not rules.drafts:
        assert run.preemptions == 0


def test_one_request_takes_its_steps():
    """One prompt step, then a step per further token, each as long as the tables and the host say."""
    rules = ContinuousBatching("vllm", max_num_seqs=4, max_num_batched_tokens=512).rules(1000)
    host = Host(1e-4, 1e-6, 2e-4)
    run = engine.run(np.array([0]), np.array([300]), np.array([3]), rules, host, TABLES)
    first = TABLES[0][300] + TABLES[1][1] + 1e-8 * 300 + 1e-12 * 300**2 + 1e-4 + 1e-6 + 2e-4
    assert run.first_ns[0] == pytest.approx(first * 1e9, rel=2e-3)
    later = sum(TABLES[0][1] + TABLES[1][1] + 1e-6 + 1e-9 * c + 1e-4 + 1e-6 for c in (301, 302))
    assert run.finish_ns[0] - run.first_ns[0] == pytest.approx(later * 1e9, rel=2e-3)
    assert run.steps == 3


def test_steps_with_prompts_take_their_share_more():
    rules = ContinuousBatching("vllm", max_num_seqs=4, max_num_batched_tokens=512).rules(1000)
    plain, longer = (
        engine.run(np.array([0]), np.array([300]), np.array([3]), rules, host, TABLES)
        for host in (Host(1e-4), Host(1e-4, prompt_share=0.5))
    )
    device_ns = plain.first_ns[0] - 1e5
    assert longer.first_ns[0] - plain.first_ns[0] == pytest.approx(0.5 * device_ns, abs=2)
    assert longer.finish_ns[0] - longer.first_ns[0] == plain.finish_ns[0] - plain.first_ns[0]


@pytest.mark.parametrize("poll", [1, 10, 30])
def test_requests_wait_for_the_next_look_at_the_queue(poll):
    """A request that comes while another decodes is seen after at most `poll` steps, half of them on average;
    an idle engine sees it at once.
    """
    rules = ContinuousBatching("sglang", max_num_seqs=8).rules(100_000)._replace(poll=poll, ahead=False)
    waited, first, own = waits_beside_decoding(rules)
    assert waited.min() >= -0.05
    assert waited.max() <= poll + 0.1
    assert waited.mean() == pytest.approx(poll / 2, abs=0.08 * poll + 0.1)
    assert first == pytest.approx(own, rel=0.1)


@pytest.mark.parametrize("engine_name", ["sglang", "trtllm"])
@pytest.mark.parametrize("ahead", [False, True])
def test_steps_that_are_planned_ahead_keep_requests_waiting_for_one_more(engine_name, ahead):
    """A request waits for the rest of the step that runs, half of it on average, and for the planned one; an
    idle engine starts at once.
    """
    rules = ContinuousBatching(engine_name, max_num_seqs=8).rules(100_000)._replace(ahead=ahead)
    waited, first, own = waits_beside_decoding(rules)
    assert waited.min() >= ahead - 0.05
    assert waited.max() <= ahead + 1.15
    assert waited.mean() == pytest.approx(ahead + 0.5, abs=0.18)
    assert first == pytest.approx(own, rel=0.1)


def waits_beside_decoding(rules):
    """Waits of short requests in steps, TTFT of the first, and the time of a step with a prompt [s]: one long
    request decodes all the time; short ones come one by one, far apart.
    """
    n = 200
    arrival = np.concatenate([[0], 5_000_000 + np.arange(n) * 71_234_567])
    prompt, output = np.full(n + 1, 40), np.concatenate([[20_000], np.ones(n, int)])
    tables = tables_without_context()
    run = engine.run(arrival, prompt, output, rules, Host(), tables)
    step = tables[0][1] + tables[1][1] + tables[2][1, 0]
    own = tables[0][40] + tables[1][1] + tables[3][0, 0, 0]
    return ((run.first_ns - run.arrival_ns)[1:] / 1e9 - own) / step, run.first_ns[0] / 1e9, own


def tables_without_context():
    """As `tables`, with decoding that does not depend on the context."""
    first, second, decode, prefill = tables()
    return first, second, np.repeat(decode[:, :1], decode.shape[1], axis=1), np.full_like(prefill, 4e-7)


def test_chunked_prefill_cuts_prompts_to_the_budget():
    rules = ContinuousBatching("vllm", max_num_seqs=4, max_num_batched_tokens=100).rules(1000)
    sizes = []
    engine.run(
        np.array([0]), np.array([250]), np.array([1]), rules, Host(), TABLES,
        watch=lambda clock, state, step: sizes.append([n for _, n in step.work]),
    )  # fmt: skip
    assert sizes == [[100], [100], [50]]


def test_sglang_stops_decoding_for_prompts():
    rules = ContinuousBatching("sglang", max_num_seqs=8, max_num_batched_tokens=100).rules(10_000)
    mixed = []
    engine.run(
        np.array([0, 1_500_000]), np.array([50, 80]), np.array([20, 20]), rules, Host(), TABLES,
        watch=lambda clock, state, step: mixed.append(len({s.decoding for s, _ in step.work})),
    )  # fmt: skip
    assert max(mixed) == 1


def test_speculation_yields_the_tokens_of_the_closed_form():
    """(1 - a^(k + 1)) / (1 - a) tokens per pass (Leviathan et al.)."""
    a, k = 0.7, 4
    got = [1 + accepted(r, e, k, a) for r in range(400) for e in range(1, 60)]
    assert np.mean(got) == pytest.approx((1 - a ** (k + 1)) / (1 - a), rel=0.01)


def test_recorded_graphs_have_batch_sizes():
    assert [padded(n, 4096) for n in (1, 2, 3, 5, 8, 9, 64, 65, 600)] == [1, 2, 4, 8, 8, 16, 64, 72, 600]


def test_preemption_by_recompute_costs_more_steps_than_room():
    prompt, output = np.full(8, 60), np.full(8, 60)
    base = ContinuousBatching("vllm", max_num_seqs=8, max_num_batched_tokens=512)
    wide = engine.run(np.zeros(8, int), prompt, output, base.rules(100), Host(), TABLES)
    tight = engine.run(np.zeros(8, int), prompt, output, base.rules(20), Host(), TABLES)
    assert wide.preemptions == 0
    assert tight.preemptions > 0
    assert tight.finish_ns.max() > wide.finish_ns.max()
