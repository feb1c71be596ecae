"""Fusion groups partition the graph, keep its order, and exchange exactly what crosses their border."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

import accelsim as ax
from accelsim.architectures.base import group_bytes
from accelsim.architectures.fusion import alone, epilogue, fuse
from tests.strategies import graphs

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def _resnet_block() -> ax.Graph:
    b = ax.GraphBuilder("block")
    x = b.input("x", 1, 64, 8, 8)
    y = b.activation(b.batch_norm(b.conv(x, 64, 3, stem="a")), "relu")
    y = b.batch_norm(b.conv(y, 64, 3, stem="b"))
    b.activation(b.add(y, x), "relu")
    return b.build()


def test_a_residual_block_is_two_kernels():
    first, second = fuse(_resnet_block(), epilogue)
    assert [op.kind for op in first.ops] == ["conv", "batch_norm", "activation"]
    assert [op.kind for op in second.ops] == ["conv", "batch_norm", "elementwise", "activation"]
    assert second.after == (0,)
    activation = 64 * 8 * 8 * 2
    weights = 64 * 64 * 9 * 2
    # conv b reads a's output, its weights, the norm's vectors and the shortcut, and writes one tensor.
    norm = sum(t.size_bytes for t in second.ops[1].inputs[1:])
    assert group_bytes(second.ops, second.inputs, second.outputs) == 3 * activation + weights + norm


def test_a_tensor_that_two_ops_read_is_written():
    b = ax.GraphBuilder("fork")
    y = b.linear(b.input("x", 1, 4, 8), 8, bias=False)
    b.add(b.activation(y), y)
    linear, *rest = fuse(b.build(), epilogue)
    assert [t.name for t in linear.outputs] == [y.name]
    assert len(rest) == 2


def test_slices_of_a_fused_product_count_their_own_bytes():
    b = ax.GraphBuilder("qkv")
    x = b.input("x", 1, 16, 64)
    qkv = b.linear(x, 192, bias=False)
    q, k, v = b.op("reshape", [qkv], *[(1, 4, 16, 16)] * 3)
    b.attention(q, k, v)
    product, attention = fuse(b.build(), epilogue)
    assert [t.name for t in product.outputs] == [qkv.name]
    assert attention.after == (0,)
    assert sum(t.size_bytes for t in attention.inputs) == qkv.size_bytes
    assert group_bytes(attention.ops, attention.inputs, attention.outputs) == qkv.size_bytes * 4 / 3


def test_a_reshape_between_product_and_epilogue_does_not_part_them():
    b = ax.GraphBuilder("view")
    y = b.linear(b.input("x", 1, 16, 64), 64)
    b.activation(b.reshape(y, 1, 4, 4, 64))
    (group,) = fuse(b.build(), epilogue)
    assert len(group.ops) == 2


@QUIET
@given(graphs)
def test_groups_partition_the_work_in_dependency_order(graph):
    for rule in (alone, epilogue):
        groups = fuse(graph, rule)
        names = [op.name for g in groups for op in g.ops]
        assert sorted(names) == sorted(op.name for op in graph if not op.work.free)
        assert all(i < index for index, g in enumerate(groups) for i in g.after)
        assert sum(op.flops * op.repeat for g in groups for op in g.ops) == graph.flops
    separate = sum(group_bytes(g.ops, g.inputs, g.outputs) * g.repeat for g in fuse(graph, alone))
    fused = sum(group_bytes(g.ops, g.inputs, g.outputs) * g.repeat for g in fuse(graph, epilogue))
    external = sum(t.size_bytes for t in graph.inputs) + sum(t.size_bytes for t in graph.outputs)
    assert external <= fused <= separate
