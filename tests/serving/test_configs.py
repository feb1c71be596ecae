"""Servers' own configuration files are read as they are, and refused where the server refuses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.errors import ConfigError
from accelsim.serving import Deterministic, Ensemble, Greedy, Offline, QueuePolicy, Stage
from accelsim.serving.textproto import parse
from accelsim.serving.triton_config import from_text

FULL = """
# a comment
name: "m"
backend: "python"
max_batch_size: 16
input [ { name: "ID" data_type: TYPE_INT64 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_INT64 dims: [ -1 ] } ]
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { count: 1 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 500
  preserve_ordering: true
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 30000 max_queue_size: 64 }
  priority_queue_policy { key: 1 value { allow_timeout_override: true default_timeout_microseconds: 9 } }
}
version_policy: { latest: { num_versions: 2 } }
parameters { key: "a" value: { string_value: "0.004" } }
"""


def test_every_field_of_a_triton_model_arrives() -> None:
    model = from_text(FULL)
    policy = model.policy
    assert (policy.max_batch, policy.max_queue_delay_us, policy.preferred) == (16, 500, (4, 8))
    assert policy.instances == 5
    assert policy.preserve_ordering
    assert (policy.priority_levels, policy.default_priority) == (2, 2)
    assert policy.queue_policy == QueuePolicy("DELAY", 30000, max_queue_size=64)
    assert policy.policies[0] == QueuePolicy("REJECT", 9, allow_timeout_override=True)
    assert model.parameters == {"a": "0.004"}
    assert model.versions == "latest 2"
    assert model.inputs == ("ID",)


def test_a_config_file_becomes_a_policy(tmp_path: Path) -> None:
    (tmp_path / "config.pbtxt").write_text(FULL)
    assert ax.Triton.from_config(str(tmp_path / "config.pbtxt")) == from_text(FULL).policy


def test_without_dynamic_batching_requests_run_alone() -> None:
    policy = from_text('name: "m" max_batch_size: 8').policy
    r = ax.serve(ax.LinearService(0.01), arrivals=Offline(), batching=policy, requests=20)
    assert set(r.executions["size"]) == {1}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (
            'name: "m"\nmax_batch_sizes: 8',
            2,
            "unknown field 'max_batch_sizes' of a model; did you mean",
        ),
        (
            "max_batch_size: 8\ndynamic_batching {\n  max_queue_delay: 5 }",
            3,
            "unknown field 'max_queue_delay'",
        ),
        (
            "max_batch_size: 8\ndynamic_batching { preferred_batch_size: [ 16 ] }",
            2,
            "preferred batch size 16",
        ),
        ("dynamic_batching { }", 1, "needs max_batch_size"),
        ("max_batch_size: -1", 1, "must not be negative"),
        ("max_batch_size: 8\ndynamic_batching { }\nensemble_scheduling { }", 3, "one scheduler"),
        ("max_batch_size: 8\ninstance_group { count: 0 }", 2, "at least 1"),
        ("max_batch_size: 8\ndynamic_batching { priority_levels: 2 }", 2, "default priority level"),
        ("max_batch_size: 8\ndynamic_batching { default_queue_policy { timeout_action: DROP } }", 2, "DROP"),
        ("max_batch_size: many", 1, "whole number"),
        ("max_batch_size 8", 1, "expected ':'"),
        ("max_batch_size: 8\n}", 2, "expected 'a field'"),
        ('name: "m\n', 1, "cannot read"),
    ],
)
def test_what_triton_would_refuse_names_the_line(text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        from_text(text)
    assert f":{line}" in raised.value.where


def test_text_form_has_many_spellings() -> None:
    message = parse("a: 1, b < c: 'x' \"y\" > d: [1, 2] d: 0x10; e: -1.5e3 f: true g { }")
    assert message.integer("a") == 1
    assert message.messages("b")[0].text("c") == "xy"
    assert message.integers("d") == [1, 2, 16]
    assert message.all("e")[0][0] == -1500.0
    assert message.flag("f")
    assert message.messages("g")[0].fields == []


def test_tensorflow_serving_file(tmp_path: Path) -> None:
    path = tmp_path / "batching.txt"
    path.write_text(
        "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 5000 }\n"
        "max_enqueued_batches { value: 100 }\n"
        "num_batch_threads { value: 2 }\nallowed_batch_sizes: 8\nallowed_batch_sizes: 32\n"
    )
    assert ax.TensorFlowServing.from_config(str(path)) == ax.TensorFlowServing(32, 5000, 100, 2, (8, 32))
    path.write_text("max_batch_size { value: 32 }\n")
    with pytest.raises(ConfigError, match="a thread per CPU core"):
        ax.TensorFlowServing.from_config(str(path))
    assert ax.TensorFlowServing.from_config(str(path), cores=6).threads == 6
    path.write_text("max_batch_size { value: 32 }\nallowed_batch_sizes: 16\nnum_batch_threads { value: 1 }\n")
    with pytest.raises(ConfigError, match="must increase and end with"):
        ax.TensorFlowServing.from_config(str(path))
    path.write_text("max_batch { value: 32 }\n")
    with pytest.raises(ConfigError, match="unknown field 'max_batch'"):
        ax.TensorFlowServing.from_config(str(path))


def test_torchserve_files(tmp_path: Path) -> None:
    properties, model = tmp_path / "config.properties", tmp_path / "model-config.yaml"
    properties.write_text(
        "# TorchServe\ninference_address=http://127.0.0.1:8080\njob_queue_size=250\n"
        'models={\\\n  "r": {"1.0": {"batchSize": 4, "maxBatchDelay": 7, "minWorkers": 3}}\\\n}\n'
    )
    assert ax.TorchServe.from_config(str(properties)) == ax.TorchServe(4, 7, 3, 250)
    model.write_text("minWorkers: 2\nmaxWorkers: 2\nbatchSize: 8\nmaxBatchDelay: 50\nresponseTimeout: 120\n")
    assert ax.TorchServe.from_config(str(properties), str(model)) == ax.TorchServe(8, 50, 2, 250)
    model.write_text("batch_sizes: 8\n")
    with pytest.raises(ConfigError, match="unknown field 'batch_sizes'"):
        ax.TorchServe.from_config(str(properties), str(model))
    properties.write_text("a=1\njob_que_size=250\n")
    with pytest.raises(ConfigError, match="unknown property 'a'"):
        ax.TorchServe.from_config(str(properties))


STEP = 'step { model_name: "%s" input_map { key: "I" value: "%s" } output_map { key: "O" value: "%s" } }'


def _ensemble(*steps: tuple[str, str, str]) -> str:
    body = " ".join(STEP % s for s in steps)
    return (
        f'name: "e" input [ {{ name: "in" }} ] output [ {{ name: "out" }} ] ensemble_scheduling {{ {body} }}'
    )


def test_an_ensemble_is_read_from_its_repository(tmp_path: Path) -> None:
    for name, text in (
        ("a", 'name: "a" max_batch_size: 8 dynamic_batching { }'),
        ("b", 'name: "b" max_batch_size: 4 dynamic_batching { }'),
        ("e", _ensemble(("b", "mid", "out"), ("a", "in", "mid"))),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(text)
    laws = {"a": ax.LinearService(0.004), "b": ax.LinearService(0.002)}
    whole = Ensemble.from_config(tmp_path / "e" / "config.pbtxt", laws)
    assert [(s.name, s.after, s.batching.max_batch) for s in whole.stages] == [("a", (), 8), ("b", ("a",), 4)]
    r = ax.serve(whole, arrivals=Deterministic(10), requests=50)
    assert r.latency_s == pytest.approx(np.full(50, 0.006), abs=1e-9)


def test_a_cap_on_requests_in_flight_is_read() -> None:
    parts = {"a": from_text('name: "a" max_batch_size: 8 dynamic_batching { }')}
    text = _ensemble(("a", "in", "out")).replace("scheduling {", "scheduling { max_inflight_requests: %d")
    whole = Ensemble.of(from_text(text % 3), parts, {"a": ax.LinearService(0.004)})
    assert whole.max_inflight == 3
    with pytest.raises(ConfigError, match="max_inflight_requests must not be negative"):
        from_text(text % -1)


def test_a_cycle_and_an_unknown_input_are_refused() -> None:
    parts = {n: from_text(f'name: "{n}" max_batch_size: 8 dynamic_batching {{ }}') for n in "ab"}
    laws = {n: ax.LinearService(0.004) for n in "ab"}
    with pytest.raises(ax.AccelsimError, match="cycle through a, b"):
        Ensemble.of(from_text(_ensemble(("a", "y", "x"), ("b", "x", "y"))), parts, laws)
    with pytest.raises(ConfigError, match="no step makes the tensor 'z'"):
        Ensemble.of(from_text(_ensemble(("a", "z", "x"))), parts, laws)
    with pytest.raises(ax.AccelsimError, match="cycle"):
        Ensemble(Stage("a", laws["a"], Greedy(), ("b",)), Stage("b", laws["b"], Greedy(), ("a",)))
