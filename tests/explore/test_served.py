"""Points that are served: the numbers of `serve`, as rows of a study."""

import pytest

import accelsim as ax
from accelsim.core.errors import AccelsimError
from accelsim.serving import DeviceService

SMALL = {"max_num_seqs": 32, "max_num_batched_tokens": 4096}
CHAT = {"prompt_tokens": 300, "output_tokens": 20}


def test_a_served_point_is_what_serve_says():
    batching = ax.ContinuousBatching("vllm", **SMALL)
    study = ax.sweep(
        "llama-3.1-8b", "h100-sxm", rate_per_s=[5, 20], **CHAT, batching=batching, requests=100,
        slo={"ttft_s": 0.1},
    )  # fmt: skip
    for row in study.rows:
        one = ax.serve(
            "llama-3.1-8b", "h100-sxm", arrivals=ax.Poisson(row["rate_per_s"], **CHAT), batching=batching,
            requests=100, slo={"ttft_s": 0.1},
        )  # fmt: skip
        for name in ("ttft_p99_s", "tpot_mean_s", "goodput_per_s"):
            assert row[name] == one.summary[name]


def test_text_stands_for_batching_and_arrivals():
    """As in a fleet's file, so that a study can be one."""
    study = ax.sweep(
        "llama-3.1-8b", "h100-sxm", requests=50, seed=3,
        arrivals={"poisson": {"rate_per_s": 10, **CHAT, "prefix_tokens": 200}},
        batching=[{"vllm": SMALL}, {"sglang": SMALL}],
    )  # fmt: skip
    traffic = ax.Poisson(10, **CHAT, prefix_tokens=200)
    for row, engine in zip(study.rows, ("vllm", "sglang")):
        batching = ax.ContinuousBatching(engine, **SMALL)
        one = ax.serve("llama-3.1-8b", "h100-sxm", arrivals=traffic, batching=batching, requests=50, seed=3)
        assert row["e2e_mean_s"] == one.summary["e2e_mean_s"]
        assert row["prefix_hit_pct"] > 50


def test_other_models_are_served_on_their_latency_surface():
    study = ax.sweep(
        "resnet50", ["h100-sxm", "l4"], precision=["fp16", "int8"], rate_per_s=[500], requests=2000,
        batching={"triton": {"max_batch": 4, "max_queue_delay_us": 500}},
    )  # fmt: skip
    assert len(study.rows) == 4
    law = DeviceService.of("resnet50", "l4", max_batch=4, precision="int8")
    one = ax.serve(
        law, arrivals=ax.Poisson(500), batching=ax.Triton(4, max_queue_delay_us=500), requests=2000
    )
    assert study.rows[-1]["latency_p99_s"] == one.summary["latency_p99_s"]


def test_a_trace_that_changes_is_another_point(tmp_path):
    trace, store = tmp_path / "trace.csv", tmp_path / "study.db"
    found = []
    for tokens in (5, 9):
        trace.write_text(f"arrival_s,prompt_tokens,output_tokens\n0,100,{tokens}\n1,100,{tokens}\n")
        study = ax.sweep(
            "llama-3.1-8b", "h100-sxm", arrivals=ax.Trace(trace), batching={"vllm": SMALL}, store=store
        )
        found.append(study.rows[0]["steps"])
    assert found == [10, 18]


def test_a_model_that_does_not_fit_is_a_row():
    study = ax.sweep("llama-3.1-70b", "h100-sxm", rate_per_s=1, **CHAT, batching={"vllm": SMALL}, requests=5)
    assert study.rows[0]["status"] == "infeasible"
    assert study.rows[0]["reason"] == "memory"


def test_a_hardware_parameter_changes_the_server():
    study = ax.sweep(
        "llama-3.1-8b", "h100-sxm", rate_per_s=2, **CHAT, batching={"vllm": SMALL}, requests=30,
        **{"memory.bandwidth": ["3.35 TB/s", "6.7 TB/s"]},
    )  # fmt: skip
    slow, fast = study.rows
    assert fast["tpot_mean_s"] < 0.75 * slow["tpot_mean_s"]


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"rate_per_s": 1, "arrivals": ax.Poisson(1)}, "not both"),
        ({"rate_per_s": 1, "batch": [1, 2]}, "what its batching makes"),
        ({"arrivals": ax.Poisson(1), "prompt_tokens": 5}, "goes with rate_per_s"),
        ({"arrivals": ax.Poisson(1).generate(3)}, "write them to a trace"),
        ({"rate_per_s": 1, "batching": {"vlm": {}}}, "unknown kind 'vlm'; did you mean vllm"),
        ({"rate_per_s": 1, "bathing": "greedy"}, "unknown parameter 'bathing'; did you mean batching"),
        ({"slo_s": 1}, "unknown parameter 'slo_s'"),
    ],
)
def test_spaces_that_make_no_sense(axes, words):
    with pytest.raises(AccelsimError, match=words):
        ax.sweep("llama-3.1-8b", "h100-sxm", **axes)
