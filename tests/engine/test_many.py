"""Many batches at once answer exactly as one simulation after another."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.engine.answer import COLUMNS
from accelsim.engine.many import simulate_batches
from accelsim.engine.simulate import simulate
from tests.strategies import convolutional, transformers

GPUS = ("a100-sxm", "h100-sxm", "b200", "t4", "v100-sxm", "p100", "mi300x", "l4", "jetson-orin")
STACKS = ("eager", "graph", "tensorrt", "vllm", "trtllm", "sglang")
BATCHES = (1, 2, 3, 7, 8, 16, 31, 64, 100, 128, 200, 512)


def rows_of(tables):
    """Rows by batch."""
    found = {}
    for table in tables:
        for i, batch in enumerate(table["batch"].tolist()):
            found[batch] = {name: _at(values, i) for name, values in table.items()}
            assert found[batch]["batch"] == batch
    return found


def _at(values, i):
    if not getattr(values, "shape", ()):
        return values
    return values.tolist()[i]


def check(workload, device, batches, **options):
    """Every column of every batch, its type too; False where a case is not covered."""
    tables = simulate_batches(workload, device, batches, **options)
    if tables is None:
        return False
    rows = rows_of(tables)
    assert sorted(rows) == sorted(batches)
    for batch in batches:
        expected = simulate(workload, device, batch=batch, **options).summary
        assert list(rows[batch]) == list(expected)
        for name, value in expected.items():
            found = rows[batch][name]
            assert type(found) is type(value), name
            if isinstance(value, float) and not math.isnan(value):
                assert found == pytest.approx(value, rel=1e-12, abs=0.0), (batch, name)
            elif not isinstance(value, float):
                assert found == value, (batch, name)
            else:
                assert math.isnan(found), (batch, name)
    return True


@pytest.mark.parametrize(
    ("workload", "device", "options"),
    [
        ("resnet50", "h100-sxm", {"precision": "fp16"}),
        ("resnet50", "t4", {"precision": "fp32", "stack": "eager"}),
        ("resnet50", "a100-sxm", {"precision": "int8", "sparsity": "2:4", "cold": True}),
        ("mobilenet-v2", "v100-sxm", {"stack": "tensorrt", "governor": False}),
        ("bert-base", "l4", {"precision": "fp16"}),
        ("bert-base", "h100-sxm", {"precision": "fp8_e4m3", "stack": "vllm"}),
        ("gpt2", "a100-sxm", {"phase": "decode", "context": 1024}),
    ],
)
def test_every_column_is_that_of_a_single_simulation(workload, device, options):
    assert check(workload, device, list(BATCHES), **options)


@pytest.mark.parametrize(
    ("workload", "device", "options"),
    [
        ("resnet18", "tpu-v4", {"precision": "bf16"}),
        ("resnet18", "tpu-v1", {"precision": "int8"}),
        ("mobilenet-v2", "edge-tpu", {"precision": "int8"}),
        ("resnet18", "eyeriss", {"precision": "int16", "cold": True}),
        ("lstm-512", "tpu-v4", {"precision": "bf16"}),
    ],
)
def test_systolic_columns_are_those_of_a_single_simulation(workload, device, options):
    assert check(workload, device, [1, 2, 7, 16], **options)


def test_points_that_lie_between_lowered_batches():
    batches = list(range(1, 600))
    rows = rows_of(simulate_batches("resnet18", "a10", batches, precision="int8"))
    for batch in (5, 77, 301, 598):
        expected = simulate("resnet18", "a10", batch=batch, precision="int8").summary
        assert rows[batch]["latency_s"] == pytest.approx(expected["latency_s"], rel=1e-14)
        assert rows[batch]["bound"] == expected["bound"]


def test_what_does_not_fit_is_a_row_in_words():
    assert check("resnet50", "t4", [1, 64, 2048, 4096, 8192], precision="fp32")
    statuses = {b: r["status"] for b, r in rows_of(simulate_batches("resnet50", "t4", [1, 8192])).items()}
    assert statuses == {1: "ok", 8192: "infeasible"}


def test_a_format_that_the_device_lacks_is_a_row_for_each_batch():
    assert check("resnet50", "v100-sxm", [1, 2, 5], precision="fp8_e4m3")


@pytest.mark.parametrize(
    ("workload", "device", "options"),
    [
        ("resnet50", "h100-sxm", {"fidelity": "event"}),
        ("resnet50", "h100-sxm", {"fidelity": "analytic"}),
        ("bert-base", "h100-sxm", {"devices": 2}),
        ("mixtral-8x7b", "b200", {"precision": "fp8_e4m3", "phase": "decode", "context": 128}),
        ("resnet50", "u250-finn", {}),
    ],
)
def test_what_is_not_covered_says_so(workload, device, options):
    assert simulate_batches(workload, device, [1, 2, 3], **options) is None


def test_the_order_of_columns_is_that_of_answers():
    row = simulate("resnet18", "t4", batch=2).summary
    assert [name for name in COLUMNS if name in row] == list(row)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    graph=st.one_of(convolutional(), transformers()),
    device=st.sampled_from(GPUS),
    precision=st.sampled_from([None, "fp32", "fp16", "int8"]),
    stack=st.sampled_from(STACKS),
    batches=st.lists(st.integers(1, 4000), min_size=1, max_size=9, unique=True).map(sorted),
    cold=st.booleans(),
)
def test_random_networks_on_random_devices(graph, device, precision, stack, batches, cold):
    assert check(graph, device, batches, precision=precision, stack=stack, cold=cold)
