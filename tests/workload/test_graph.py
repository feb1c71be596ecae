"""Graphs: structure, totals and transforms, against slow twins."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.core.errors import GraphError, RequestError, UnknownNameError
from accelsim.core.precision import precision
from accelsim.workload.builders.layers import GraphBuilder
from accelsim.workload.graph import MAX_BATCH, Graph, Op, Role, Tensor

FP16 = precision("fp16")


def tensor(name: str, *shape: int, role: Role = "activation", batch_axis: int | None = 0) -> Tensor:
    return Tensor(name, shape or (1, 8), FP16, role, batch_axis=batch_axis)


def relu(name: str, source: str, *, repeat: int = 1, shape: tuple[int, ...] = (1, 8)) -> Op:
    outs = (tensor(name, *shape),)
    return Op(name, "activation", (tensor(source, *shape),), outs, {"function": "relu"}, repeat)


def network() -> Graph:
    b = GraphBuilder("net")
    x = b.activation(b.conv(b.input("x", 1, 3, 16, 16), 8, 3))
    with b.repeated(3):
        y = b.activation(b.batch_norm(b.conv(x, 8, 3, bias=True, stem="body")))
    y = b.linear(b.flatten(b.global_pool(b.add(x, y))), 10)
    b.softmax(y)
    return b.build(item="image")


# Each node sums some of those before it; node i is named n<i> and has its own size.
random_dags = st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(1, 9)), min_size=1, max_size=14)


def dag(spec: list[tuple[int, int]], kind: str = "generic") -> list[Op]:
    sizes = [tensor("in", 1, 4)]
    ops: list[Op] = []
    for i, (bits, size) in enumerate(spec):
        sources = [t for j, t in enumerate(sizes) if bits >> j & 1] or [sizes[0]]
        out = tensor(f"n{i}", 1, size)
        ops.append(Op(f"n{i}", kind, tuple(sources), (out,), approximated="a test node"))
        sizes.append(out)
    return ops


# -- structure -------------------------------------------------------------------------------------------


def test_a_cycle_is_named() -> None:
    after = [relu("a", "x"), relu("end", "c"), relu("b", "d"), relu("c", "b"), relu("d", "c")]
    with pytest.raises(GraphError, match=r"loop: the graph has a cycle through (b, c, d|c, d, b|d, b, c)$"):
        Graph("loop", after)
    with pytest.raises(GraphError, match=r"cycle through a$"):
        Graph("self", [relu("a", "a")])


def test_names_are_unique() -> None:
    with pytest.raises(GraphError, match="two operators are named 'a'"):
        Graph("twins", [relu("a", "x"), relu("a", "y")])


def test_a_tensor_has_one_producer() -> None:
    again = replace(relu("b", "x"), outputs=(tensor("a"),))
    with pytest.raises(GraphError, match="tensor 'a' is written by 'a' and 'b'"):
        Graph("clash", [relu("a", "x"), again])


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_are_positive(size: int) -> None:
    with pytest.raises(
        GraphError, match=rf"net: a: tensor 'x' has shape \(1, {size}\); sizes must be positive"
    ):
        Graph("net", [relu("a", "x", shape=(1, size))])


def test_repeats_are_positive_and_a_graph_has_an_op() -> None:
    with pytest.raises(GraphError, match="repeat 0"):
        Graph("net", [relu("a", "x", repeat=0)])
    with pytest.raises(GraphError, match="no operator"):
        Graph("net", [])


@given(random_dags, st.randoms(use_true_random=False))
def test_order_respects_edges_whatever_order_ops_come_in(spec: list[tuple[int, int]], random: object) -> None:
    ops = dag(spec)
    shuffled = list(ops)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    graph = Graph("random", shuffled)
    position = {op.name: i for i, op in enumerate(graph)}
    assert sorted(position) == sorted(op.name for op in ops)
    for op in ops:
        assert all(position[t.name] < position[op.name] for t in op.inputs if t.name in position)
        assert {p.name for p in graph.predecessors(op)} == {t.name for t in op.inputs if t.name != "in"}
    assert nx.is_directed_acyclic_graph(graph.nx)
    assert Graph("given", ops).ops == tuple(ops)  # already in order: nothing moves


def test_lookup_and_ends() -> None:
    graph = network()
    assert graph["conv"].kind == "conv"
    with pytest.raises(UnknownNameError, match=r"no operator 'konv' in net; did you mean conv"):
        _ = graph["konv"]
    assert [t.name for t in graph.inputs] == ["x"]
    assert [t.name for t in graph.outputs] == ["softmax"]
    assert graph.producer("conv") is graph["conv"]
    assert graph.producer("x") is None
    assert [op.name for op in graph.consumers["relu"]] == ["body", "add"]


# -- totals ----------------------------------------------------------------------------------------------


@given(random_dags)
def test_peak_activation_bytes_against_liveness(spec: list[tuple[int, int]]) -> None:
    graph = Graph("random", dag(spec))
    ops = graph.ops
    born = {"in": 0} | {t.name: i for i, op in enumerate(ops) for t in op.outputs}
    size = {t.name: t.size_bytes for op in ops for t in (*op.inputs, *op.outputs)}
    peak = 0.0
    for now in range(len(ops)):
        live = 0.0
        for name, start in born.items():
            uses = [i for i, op in enumerate(ops) for t in op.inputs if t.name == name]
            needed = name in size and start <= now <= max(uses, default=len(ops))
            live += size[name] if needed else 0.0
        peak = max(peak, live)
    assert graph.peak_activation_bytes == peak


def test_parameters_count_repeats_and_share_by_name() -> None:
    b = GraphBuilder("tied")
    table = b.weight("embed", 100, 8)
    ids = b.input("ids", 1, 4, dtype="int64")
    x = b.op("gather", [table, ids], (1, 4, 8))
    with b.repeated(5):
        x = b.linear(x, 8)
    b.op("matmul", [x, table], (1, 4, 100), transpose_b=True)
    graph = b.build()
    assert graph.parameters == 100 * 8 + 5 * (8 * 8 + 8)
    assert graph.weight_bytes == 2 * graph.parameters
    assert {t.name for t in graph.weights} >= {"embed"}
    assert len(graph.weights) == 3


def test_totals_multiply_repeats() -> None:
    graph = network()
    conv = 16 * 16 * 8 * 3 * 9
    body = 16 * 16 * 8 * 8 * 9
    assert graph.macs == conv + 3 * body + 8 * 10
    assert graph.flops == 2 * graph.macs
    assert graph.parameters == 8 * 3 * 9 + 3 * (8 * 8 * 9 + 8 + 2 * 8) + 8 * 10 + 10
    assert graph.bytes_compulsory == sum(op.repeat * op.bytes_compulsory for op in graph)
    assert graph.vector_ops == sum(op.repeat * op.work.vector_ops for op in graph)


def test_kv_bytes_count_each_layer_once() -> None:
    b = GraphBuilder("decode")
    q = b.input("q", 1, 8, 1, 16)
    with b.repeated(12):
        k, v = (b.input(n, 1, 2, 100, 16, role="kv") for n in ("k", "v"))
        b.attention(q, k, v, causal=True)
        b.op("copy", [k], k.shape)  # a second reader of the same cache
    graph = b.build(phase="decode")
    assert graph.kv_bytes == 12 * 2 * (2 * 100 * 16) * 2
    assert graph.with_batch(3).kv_bytes == 3 * graph.kv_bytes
    assert graph.parameters == 0


# -- hash ------------------------------------------------------------------------------------------------


def test_hash_is_content_not_identity() -> None:
    assert network().hash == network().hash
    graph = network()
    named = graph.map_ops(lambda op: op, name="other", metadata={"task": "vision"})
    assert named.hash == graph.hash  # the graph's name and free facts cost nothing


def test_hash_is_equal_in_another_process() -> None:
    folders = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {folders}; import test_graph; print(test_graph.network().hash)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == network().hash


@pytest.mark.parametrize(
    "change",
    [
        lambda op: replace(op, repeat=op.repeat + 1),
        lambda op: replace(op, attributes={**op.attributes, "extra": 1}),
        lambda op: replace(op, name=op.name + "x"),
        lambda op: replace(op, inputs=tuple(replace(t, precision=precision("int8")) for t in op.inputs)),
        lambda op: replace(op, inputs=tuple(replace(t, density=0.5) for t in op.inputs)),
    ],
)
def test_hash_sees_every_change(change: object) -> None:
    graph = network()
    first = graph.ops[0].name
    changed = graph.map_ops(lambda op: change(op) if op.name == first else op)  # type: ignore[operator]
    assert changed.hash != graph.hash


def test_hash_sees_batch_and_phase() -> None:
    graph = network()
    hashes = {graph.hash, graph.with_batch(2).hash, graph.map_ops(lambda op: op, phase="prefill").hash}
    assert len(hashes) == 3


# -- batch -----------------------------------------------------------------------------------------------


@given(st.integers(1, 64), st.integers(1, 64))
def test_batch_round_trip(first: int, second: int) -> None:
    one = network()
    many = one.with_batch(first)
    assert many.batch == first
    assert many.with_batch(1).hash == one.hash
    assert many.with_batch(second).hash == one.with_batch(second).hash
    assert many.flops == first * one.flops
    assert many.parameters == one.parameters
    assert many.peak_activation_bytes == first * one.peak_activation_bytes


@pytest.mark.parametrize("batch", [0, -3, True, 2.0, "8", None])
def test_batch_is_a_positive_integer(batch: object) -> None:
    with pytest.raises(RequestError, match="is not a positive integer"):
        network().with_batch(batch)  # type: ignore[arg-type]


def test_batch_has_a_bound_and_needs_an_axis() -> None:
    with pytest.raises(RequestError, match="larger than"):
        network().with_batch(MAX_BATCH + 1)
    fixed = network().map_tensors(lambda t: replace(t, batch_axis=None))
    with pytest.raises(GraphError, match="no input has a batch axis"):
        fixed.with_batch(2)


def test_map_tensors_changes_each_distinct_tensor_once() -> None:
    seen: list[str] = []

    def change(t: Tensor) -> Tensor:
        seen.append(t.name)
        return replace(t, precision=precision("int8"))

    graph = network()
    half = graph.map_tensors(change)
    assert len(seen) == len(set(seen))
    assert half.weight_bytes == graph.weight_bytes / 2
    assert half.flops == graph.flops
    assert graph.weight_bytes == network().weight_bytes  # the original is untouched
