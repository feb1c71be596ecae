"""Replicas that serve a language model: the numbers of `serve`, conservation, prefixes, faults, files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import AccelsimError, ConfigError, RequestError
from accelsim.serving import (
    HPA,
    Client,
    ClosedLoop,
    Crash,
    Deterministic,
    Fleet,
    LogNormalLengths,
    NoBatching,
    Pool,
    PrefixAware,
    Replica,
    Slow,
    Speculative,
    UniformLengths,
    serve_fleet,
)
from accelsim.serving.fleet.document import serve_file
from accelsim.serving.llm.policy import Host
from accelsim.serving.llm.setup import host_of

SMALL = {"max_num_seqs": 64, "max_num_batched_tokens": 4096}
VLLM = ax.ContinuousBatching("vllm", **SMALL)
CHAT = {"prompt_tokens": LogNormalLengths(700, 0.7, 4000), "output_tokens": UniformLengths(1, 80)}


def replica(batching=VLLM, **options):
    return Replica("llama-3.1-8b", "h100-sxm", batching, **options)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("closed", [False, True])
def test_a_fleet_of_one_gives_the_numbers_of_serve(engine, closed):
    batching = ax.ContinuousBatching(engine, **SMALL)
    shared = {**CHAT, "prefix_tokens": 400, "prefix_groups": 3}
    arrivals = ClosedLoop(20, 0.1, constant=True, **shared) if closed else ax.Poisson(15, **shared)
    # Users of `serve` do not wait for the transport of their requests, those of a fleet do.
    given = {"host": Host(1e-3, 1e-5, 1e-3)} if closed else {}
    common = {"arrivals": arrivals, "requests": 200, "seed": 3}
    one = ax.serve("llama-3.1-8b", "h100-sxm", batching=batching, **common, **given)
    fleet = serve_fleet(replica(batching, options=given), **common)
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        assert getattr(fleet.tokens, name) == pytest.approx(getattr(one, name), abs=3e-9)
    assert fleet.summary["prefix_hit_pct"] == pytest.approx(one.summary["prefix_hit_pct"])
    # A fleet idles until the last answer has reached its client: transport of one request, spread over all.
    host = Host() if closed else host_of(engine)
    idle_j = ax.load_hardware("h100-sxm").power.idle_w * host.request_s / 200
    assert fleet.summary["energy_per_request_j"] == pytest.approx(
        one.summary["energy_per_token_j"] * one.output_tokens.mean() + idle_j, rel=1e-4
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.sampled_from(["round_robin", "least_outstanding", "latency_aware", "prefix_aware"]),
    st.sampled_from(["vllm", "sglang"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_every_request_ends_once(seed, count, balancer, engine, hedges, crashes, scales):
    tight = ax.ContinuousBatching(
        engine, max_num_seqs=64, max_num_batched_tokens=4096, memory_utilisation=0.3
    )
    faults = [Crash(mttf_s=0.6, mttr_s=0.2), Slow(3.0, 0.2, 0.4)] if crashes else []
    client = Client(1.5, retries=2, backoff_s=0.05, hedge_after_s=0.15) if hedges else Client()
    scaler = HPA("concurrency", 8, most=4, interval_s=0.3) if scales else None
    pool = Pool(replica(tight, count=count, start_s=0.3), balancer=balancer, autoscaler=scaler)
    r = serve_fleet(
        Fleet(pool, client, faults),
        arrivals=ax.Poisson(80, **CHAT, prefix_tokens=300, prefix_groups=4), requests=100, seed=seed,
    )  # fmt: skip
    status = r.log.status
    assert (status > 0).all()
    assert (r.log.finish_ns >= r.log.arrival_ns).all()
    tokens = r.tokens
    done = status == 1
    assert (~np.isnan(tokens.ttft_s) == done).all()
    assert (tokens.ttft_s[done] <= tokens.e2e_s[done]).all()
    for server in (s for p in r._run.pools for s in p.servers):
        assert all(0 <= use <= 1 for use in server.cache_use)
        if server.station is not None and not server.station.dead and not hedges:
            assert server.station.state.free == server.kind.setup.rules.blocks
            assert server.station.sequences == 0


def test_an_aborted_request_gives_its_blocks_back():
    """A caller that gives up frees the cache at the next step; the others come sooner."""
    long = {"prompt_tokens": 2000, "output_tokens": 400}
    patient = serve_fleet(replica(), arrivals=ax.Poisson(100, **long), requests=100)
    hasty = serve_fleet(
        Fleet(Pool(replica()), Client(timeout_s=0.5)), arrivals=ax.Poisson(100, **long), requests=100
    )
    assert hasty.summary["timed_out_pct"] == 100
    assert hasty.end_ns < patient.end_ns
    assert hasty.series()["cache_use"].max() < patient.series()["cache_use"].max()


def test_slow_steps_take_as_many_times_as_long():
    traffic = Deterministic(0.5, prompt_tokens=500, output_tokens=50)
    plain = serve_fleet(replica(), arrivals=traffic, requests=5)
    slow = serve_fleet(Fleet(Pool(replica()), faults=[Slow(2.0)]), arrivals=traffic, requests=5)
    assert slow.tokens.tpot_s == pytest.approx(2 * plain.tokens.tpot_s, rel=1e-6)


def test_the_prefix_aware_balancer_finds_more_of_the_prompts():
    traffic = ax.Poisson(40, prompt_tokens=1500, output_tokens=20, prefix_tokens=1400, prefix_groups=60)
    hits = {}
    for balancer in ("round_robin", "prefix_aware"):
        pool = Pool(replica(count=4), balancer=balancer)
        r = serve_fleet(pool, arrivals=traffic, requests=300)
        hits[balancer] = r.summary["prefix_hit_pct"]
        assert r.replicas["attempts"].min() > 30  # and every replica works
    # 60 beginnings: the first of each misses once in the fleet, or once on each of four replicas.
    assert hits["prefix_aware"] == pytest.approx(100 * 1400 // 16 * 16 / 1500 * (1 - 60 / 300), abs=3)
    assert hits["round_robin"] < hits["prefix_aware"] - 25


def test_load_comes_before_prefixes():
    traffic = ax.Poisson(200, prompt_tokens=1500, output_tokens=50, prefix_tokens=1500)
    pool = Pool(replica(count=3), balancer=PrefixAware(imbalance=4))
    r = serve_fleet(pool, arrivals=traffic, requests=200)
    assert r.replicas["attempts"].min() > 40


@pytest.mark.parametrize(("prompt", "output"), [(200, 200), (2000, 50), (100, 600)])
def test_capacity_is_what_an_overloaded_engine_serves(prompt, output):
    """Fluid estimate against a run that always has work; chunks and ends cost a few percent."""
    kind = serve_fleet(
        replica(), arrivals=ax.Poisson(1, prompt_tokens=prompt, output_tokens=output), requests=2
    )
    capacity = kind.summary["capacity_per_s"]
    r = ax.serve(
        "llama-3.1-8b", "h100-sxm", batching=VLLM, requests=600,
        arrivals=ClosedLoop(128, prompt_tokens=prompt, output_tokens=UniformLengths(1, 2 * output - 1)),
    )  # fmt: skip
    assert r.summary["requests_per_s"] == pytest.approx(capacity, rel=0.12)


def test_a_pipeline_answers_with_the_first_token_of_its_last_model():
    """Encoder, then a language model: the first token waits for the encoder."""
    encoder = Pool(Replica(ax.LinearService(0.05), batching=NoBatching()), "encoder")
    chat = Pool(replica(), "chat", after=("encoder",))
    traffic = Deterministic(1, prompt_tokens=500, output_tokens=10)
    alone = serve_fleet(replica(), arrivals=traffic, requests=5)
    both = serve_fleet(Fleet((encoder, chat)), arrivals=traffic, requests=5)
    assert both.tokens.ttft_s == pytest.approx(alone.tokens.ttft_s + 0.05, abs=1e-9)
    assert both.tokens.tpot_s == pytest.approx(alone.tokens.tpot_s, abs=1e-9)


def test_objectives_of_tokens_count_for_the_goodput():
    traffic = ax.Poisson(40, **CHAT)
    r = serve_fleet(replica(), arrivals=traffic, requests=150, slo={"ttft_s": 0.06, "tpot_s": 0.02})
    good = (r.tokens.ttft_s <= 0.06) & (r.tokens.tpot_s <= 0.02)
    assert 0 < good.sum() < 150
    assert r.summary["slo_attainment_pct"] == pytest.approx(100 * good.mean())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Replica(ax.LinearService(0.1), batching=VLLM), "needs a language model"),
        (lambda: replica(overheads=ax.Overheads(0.1)), "overheads belong to other servers"),
        (lambda: serve_fleet(replica(), arrivals=ax.Poisson(1), requests=2), "need lengths"),
        (
            lambda: serve_fleet(replica(options={"paralel": 2}), arrivals=ax.Poisson(1, **CHAT), requests=2),
            "unknown option 'paralel'",
        ),
        (
            lambda: serve_fleet(
                replica(options={"parallel": {"data": 2}}), arrivals=ax.Poisson(1, **CHAT), requests=2
            ),
            "one rank",
        ),
        (
            lambda: serve_fleet(
                Replica(ax.LinearService(0.1)), arrivals=ax.Poisson(1), requests=2, slo={"ttft_s": 1}
            ),
            "no language model",
        ),
        (
            lambda: serve_fleet(replica(), arrivals=ax.Poisson(1, **CHAT), requests=2, slo={"tft_s": 1}),
            "unknown objective 'tft_s'; did you mean",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(call, words):
    with pytest.raises(RequestError, match=words):
        call()


def test_a_model_that_does_not_fit_is_an_outcome():
    r = serve_fleet(Replica("llama-3.1-70b", "h100-sxm", VLLM), arrivals=ax.Poisson(1, **CHAT), requests=2)
    assert not r.feasible
    assert r.reason == "memory"


TEXT = """
pools:
  chat:
    balancer: prefix_aware
    autoscaler: {hpa: {metric: concurrency, target: 10, most: 3}}
    replicas:
      - {model: llama-3.1-8b, hardware: h100-sxm, count: 2, options: {precision: bf16}, batching: {vllm: {
         max_num_seqs: 64, max_num_batched_tokens: 4096, speculative: {tokens: 2, acceptance: 0.7}}}}
traffic:
  arrivals: {poisson: {rate_per_s: 30, prompt_tokens: {lognormal: {mean: 700, cv: 0.5}}, output_tokens: 40,
             prefix_tokens: 300, prefix_groups: 4}}
  requests: 60
  seed: 2
  slo: {ttft_s: 0.2}
"""


def written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(text)
    return path


def test_a_file_with_its_traffic_is_the_run_that_code_makes(tmp_path):
    drafts = ax.ContinuousBatching("vllm", **SMALL, speculative=Speculative(2, 0.7))
    pool = Pool(
        replica(drafts, count=2, options={"precision": "bf16"}), "chat", "prefix_aware",
        autoscaler=HPA("concurrency", 10, most=3),
    )  # fmt: skip
    law = LogNormalLengths(700, 0.5)
    traffic = ax.Poisson(30, prompt_tokens=law, output_tokens=40, prefix_tokens=300, prefix_groups=4)
    code = serve_fleet(pool, arrivals=traffic, requests=60, seed=2, slo={"ttft_s": 0.2})
    read = serve_file(written(tmp_path))
    assert read.stamp == code.stamp
    assert (read.log.finish_ns == code.log.finish_ns).all()
    assert read.summary["goodput_per_s"] == code.summary["goodput_per_s"]
    fewer = serve_file(written(tmp_path), requests=20)
    assert fewer.summary["requests"] == 20


def test_traffic_of_streams_and_traces(tmp_path):
    (tmp_path / "chat.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,100,5\n0.5,200,5\n")
    pools = TEXT[: TEXT.index("traffic")]
    r = serve_file(written(tmp_path, pools + "traffic: {arrivals: {trace: {path: chat.csv, speed: 2}}}"))
    assert r.log.arrival_ns.tolist() == [0, 250_000_000]
    one = "{arrivals: {deterministic: {rate_per_s: 10, prompt_tokens: 100, output_tokens: 5}}, priority: 1}"
    r = serve_file(written(tmp_path, pools + f"traffic: {{arrivals: [{one}, {one}], requests: 8}}"))
    assert r.summary["completed" if "completed" in r.summary else "requests"] == 8


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rate_per_s: 30", "rate: 30", r"traffic.arrivals.poisson: unknown key 'rate'"),
        ("{poisson:", "{poison:", r"traffic.arrivals: unknown kind 'poison'; did you mean poisson"),
        ("{lognormal:", "{lognormel:", r"prompt_tokens: unknown kind 'lognormel'; did you mean lognormal"),
        ("output_tokens: 40", "output_tokens: many", r"output_tokens: 'many' is not a whole number"),
        ("seed: 2", "sed: 2", r"traffic: unknown key 'sed'; did you mean seed"),
        ("requests: 60", "requests: 1.5", r"traffic.requests: '1.5' is not a whole number"),
        ("ttft_s: 0.2", "tftt_s: 0.2", r"slo: unknown key 'tftt_s'; did you mean ttft_s"),
        (
            "max_num_seqs: 64",
            "max_seqs: 64",
            r"batching.vllm: unknown key 'max_seqs'; did you mean max_num_seqs",
        ),
        ("acceptance: 0.7", "acceptance: 7", r"speculative: acceptance must be between"),
        ("  arrivals:", "  unarrivals:", "unknown key 'unarrivals'"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, old, new, words):
    assert old in TEXT
    with pytest.raises(ConfigError, match=words):
        serve_file(written(tmp_path, TEXT.replace(old, new)))


def test_a_file_without_traffic_needs_some(tmp_path):
    path = written(tmp_path, TEXT[: TEXT.index("traffic")])
    with pytest.raises(AccelsimError, match="nothing says what arrives"):
        serve_file(path)
    r = serve_file(path, arrivals=ax.Poisson(5, prompt_tokens=100, output_tokens=5), requests=5, slo_s=1.0)
    assert r.summary["goodput_per_s"] > 0
