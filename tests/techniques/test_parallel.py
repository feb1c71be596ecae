"""Sharding and stages keep the work: nothing is lost, nothing is done twice."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.techniques.parallel import Parallel, _balanced, shard, stages
from tests.strategies import transformers

QUIET = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def _mlp(batch_tokens: int = 8, hidden: int = 64) -> ax.Graph:
    b = ax.GraphBuilder("mlp")
    x = b.input("x", 1, batch_tokens, hidden)
    y = b.activation(b.linear(x, 4 * hidden, stem="up"), "gelu")
    b.add(b.linear(y, hidden, stem="down"), x)
    return b.build()


def test_an_mlp_is_column_then_row_parallel_with_one_all_reduce():
    sharded = shard(_mlp(), 4)
    assert [op.kind for op in sharded] == ["matmul", "activation", "matmul", "all_reduce", "elementwise"]
    up, gelu, down, reduce, _ = sharded
    assert up.inputs[1].shape == (64, 64)
    assert gelu.outputs[0].shape == (1, 8, 64)
    assert down.inputs[1].shape == (64, 64)
    # Ring all-reduce sends 2 (p - 1) / p of the tensor.
    assert reduce.work.link_bytes == pytest.approx(2 * 3 / 4 * 8 * 64 * 2)


@QUIET
@given(transformers(), st.sampled_from([2, 4]))
def test_matrix_work_is_divided_exactly_when_every_size_divides(graph, degree):
    if (
        graph.ops[2].kind
        and min(t.shape[1] for op in graph if op.kind == "attention" for t in op.inputs[:1]) % degree
    ):
        return
    sharded = shard(graph, degree)
    assert sharded.flops * degree == pytest.approx(graph.flops)
    collectives = [op for op in sharded if op.kind.startswith("all_")]
    assert {op.kind for op in collectives} == {"all_reduce"}
    # One all-reduce after attention and one after the MLP of each layer (Megatron-LM).
    assert sum(op.repeat for op in collectives) == 2 * graph.ops[0].repeat


def test_a_convolutional_network_shards_and_keeps_its_work():
    graph = ax.load_workload("resnet50")
    for degree in (2, 4):
        sharded = shard(graph, degree)
        assert sharded.flops * degree == pytest.approx(graph.flops, rel=0.01)
        assert sharded.weight_bytes * degree == pytest.approx(graph.weight_bytes, rel=0.02)


def test_llama_shards_heads_and_kv():
    graph = ax.load_workload("llama-3.1-8b", phase="decode", context=1024)
    sharded = shard(graph, 8)
    assert sharded.kv_bytes * 8 == pytest.approx(graph.kv_bytes)
    assert sharded.flops * 8 == pytest.approx(graph.flops, rel=0.01)
    assert sharded.weight_bytes * 8 == pytest.approx(graph.weight_bytes, rel=0.01)


@QUIET
@given(transformers(), st.integers(1, 4))
def test_stages_partition_the_work(graph, count):
    try:
        parts = stages(graph, count)
    except RequestError:
        return
    assert sum(p.flops for p in parts) == pytest.approx(graph.flops)
    assert sum(p.parameters for p in parts) == graph.parameters
    assert [sum(op.kind == "send" for op in p) for p in parts] == [1] * (count - 1) + [0]


@QUIET
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=9), st.data())
def test_the_heaviest_stage_is_as_light_as_brute_force_makes_it(weights, data):
    from itertools import combinations

    count = data.draw(st.integers(1, len(weights)))

    def heaviest(cuts):
        return max(sum(weights[a:b]) for a, b in zip([0, *cuts], [*cuts, len(weights)]))

    best = min(heaviest(cuts) for cuts in combinations(range(1, len(weights)), count - 1))
    cuts = _balanced(weights, count)
    assert len(cuts) == count - 1
    assert heaviest(cuts) == pytest.approx(best)


@pytest.mark.parametrize(
    ("devices", "request_"),
    [(0, None), (2, {"tensor": 3}), (1, {"expert": 2}), (1, {"tensor": -1}), (True, None)],
)
def test_bad_requests_are_refused(devices, request_):
    with pytest.raises(RequestError):
        Parallel.of(devices, request_)
