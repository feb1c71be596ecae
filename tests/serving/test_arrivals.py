"""Arrival processes have the rate and burstiness that they are named for; traces say which line is bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.errors import ModelFileError, RequestError
from accelsim.serving import MMPP, ClosedLoop, Deterministic, Diurnal, Gamma, Server, Stream, Superposition
from accelsim.serving.arrivals import EmpiricalLengths, LogNormalLengths

N = 200_000


@pytest.mark.parametrize(
    ("arrivals", "cv"),
    [
        (ax.Poisson(100), 1.0),
        (Gamma(100, cv=2.5), 2.5),
        (Gamma(100, cv=0.4), 0.4),
        (Deterministic(100), 0.0),
        (Server(100), 1.0),
    ],
)
def test_renewal_processes_have_their_rate_and_variation(arrivals, cv: float) -> None:
    gaps = np.diff(arrivals.generate(N, seed=3).arrival_s)
    assert gaps.mean() == pytest.approx(0.01, rel=4 * max(cv, 1e-9) / np.sqrt(N) + 1e-9)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_mmpp_is_poisson_in_each_state_and_bursty_over_all() -> None:
    arrivals = MMPP(rates_per_s=(20, 180), dwell_s=(5, 5))
    times = arrivals.generate(N, seed=1).arrival_s
    counts = np.histogram(times, np.arange(0, times[-1], 1.0))[0]
    assert arrivals.rate_per_s == 100
    assert counts.mean() == pytest.approx(100, rel=0.1)
    # Most windows of 1 s lie in one state, so the variance is far above Poisson's.
    assert counts.var() > 20 * counts.mean()


def test_diurnal_rate_follows_the_sine() -> None:
    times = Diurnal(100, swing=0.8, period_s=100).generate(N, seed=2).arrival_s
    phase = np.histogram(times % 100, 4, range=(0, 100))[0] / N
    swing = 0.8 * 2 / np.pi / 4
    quarter = np.array([swing, swing, -swing, -swing]) + 0.25
    assert phase == pytest.approx(quarter, abs=0.01)


def test_equal_seeds_give_equal_requests_and_others_do_not() -> None:
    a, b, c = (ax.Poisson(10).generate(100, seed=s).arrival_s for s in (7, 7, 8))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_superposition_keeps_shares_and_labels() -> None:
    both = Superposition(Stream(ax.Poisson(30), priority=1), Stream(ax.Poisson(70), priority=2, model=1))
    requests = both.generate(N, seed=5)
    assert requests.rate_per_s == pytest.approx(100, rel=0.02)
    assert np.mean(requests.priority == 1) == pytest.approx(0.3, abs=0.01)
    assert np.array_equal(requests.model, requests.priority - 1)


def test_lengths_are_attached() -> None:
    law = LogNormalLengths(mean=500, cv=0.8)
    requests = ax.Poisson(5, prompt_tokens=law, output_tokens=EmpiricalLengths([1, 3])).generate(N)
    assert requests.prompt_tokens.mean() == pytest.approx(500, rel=0.02)
    assert set(np.unique(requests.output_tokens)) == {1, 3}


@pytest.mark.parametrize(
    ("text", "prompt", "gap_s"),
    [
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"
            "2023-11-16 18:17:04.0319600,110,27\n",
            [4808, 110],
            0.052,
        ),
        ("arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,10,2\n0.75,11,3\n", [10, 11], 0.25),
        (
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,x\n"
            "45,ChatGPT,1087,230,1317,x\n",
            [472, 1087],
            40.0,
        ),
        (
            '{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}\n'
            '{"timestamp": 3052, "input_length": 90, "output_length": 5, "hash_ids": [0]}\n',
            [6758, 90],
            3.052,
        ),
    ],
)
def test_traces_are_read(tmp_path: Path, text: str, prompt: list[int], gap_s: float) -> None:
    path = tmp_path / "trace.txt"
    path.write_text(text)
    requests = ax.Trace(path).generate()
    assert requests.prompt_tokens.tolist() == prompt
    assert np.diff(requests.arrival_s) == pytest.approx([gap_s], abs=1e-6)
    assert np.diff(ax.Trace(path, speed=2).generate().arrival_s) == pytest.approx([gap_s / 2], abs=1e-6)


def test_plain_times_may_carry_priorities(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("arrival_s,finish_s,priority\n0.0,0.1,2\n0.2,0.3,1\n")
    requests = ax.Trace(path).generate()
    assert requests.arrival_s.tolist() == [0.0, 0.2]
    assert requests.priority.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("rows", "line", "says"),
    [
        ("1,5,5\n0.5,5,5\n", 3, "out of order"),
        ("0,5,5\n1,-5,5\n", 3, "negative length"),
        ("0,5,5\n1,x,5\n", 3, "cannot read"),
        ("-1,5,5\n", 2, "makes no sense"),
    ],
)
def test_bad_traces_name_the_line(tmp_path: Path, rows: str, line: int, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows)
    with pytest.raises(ModelFileError, match=says) as raised:
        ax.Trace(path).generate()
    assert str(raised.value).startswith(f"{path}:{line}")


def test_unknown_trace_lists_the_forms(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ModelFileError, match="not a trace"):
        ax.Trace(path).generate()
    with pytest.raises(ModelFileError, match="cannot read"):
        ax.Trace(tmp_path / "none.csv").generate()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ax.Poisson(0),
        lambda: Gamma(1, cv=0),
        lambda: Deterministic(-1),
        lambda: Diurnal(1, swing=2),
        lambda: MMPP((1,), (1, 2)),
        lambda: ClosedLoop(0),
        lambda: ax.Poisson(1).generate(0),
        lambda: ClosedLoop(1).generate(5),
    ],
)
def test_senseless_arrivals_are_refused(make) -> None:
    with pytest.raises(RequestError):
        make()
