"""Elementwise arithmetic, normalisation and movement: closed forms, and what misfits say."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_ops import op, tensor

from accelsim.core.errors import GraphError, UnsupportedOpError
from accelsim.workload.graph import Op
from accelsim.workload.ops import TRANSCENDENTAL_OPS, Work

# -- elementwise, normalisation, movement ----------------------------------------------------------------


def test_vector_arithmetic_closed_forms() -> None:
    n, rows = 6 * 32, 6
    x, v = (6, 32), (32,)
    transcendental = TRANSCENDENTAL_OPS
    expected = [
        (op("activation", [x], [x], function="relu"), n),
        (op("activation", [x], [x], function="silu"), n * (transcendental + 3)),
        (op("elementwise", [x, v, ()], [x], function="add"), 2 * n),
        (op("elementwise", [x], [x], function="mul"), n),
        (op("elementwise", [(6, 64)], [x], function="swiglu"), n * (transcendental + 4)),
        (op("reduce", [x], [(6,)], function="sum", axes=(-1,)), n - rows),
        (op("reduce", [x], [(6, 1)], function="mean", axes=(1,)), n),
        (op("reduce", [x], [()], function="max"), n - 1),
        (op("batch_norm", [x, v, v, v, v], [x]), 2 * n),
        (op("layer_norm", [x, v, v], [x]), 7 * n + rows * (transcendental + 3)),
        (op("rms_norm", [x, v], [x]), 4 * n + rows * (transcendental + 2)),
        (op("group_norm", [(6, 32), v, v], [x], groups=8), 7 * n + 6 * 8 * (transcendental + 3)),
        (op("softmax", [x], [x], axis=-1), n * (transcendental + 4)),
        (op("quantize", [x], [x]), 5 * n),
        (op("dequantize", [x], [x]), 2 * n),
        (op("multi_threshold", [x, (32, 15)], [x]), 15 * n),
        (op("topk", [x], [(6, 4), (6, 4)], k=4), 3 * n),
        (op("resize", [(1, 2, 4, 4)], [(1, 2, 8, 8)], mode="linear"), 2 * 64 * 7),
        (op("resize", [(1, 2, 4, 4)], [(1, 2, 8, 4)], mode="linear"), 2 * 32 * 3),
    ]
    for o, count in expected:
        assert o.work.vector_ops == count, o
        assert o.flops == 0


@pytest.mark.parametrize(
    ("o", "elements_read", "elements_written"),
    [
        (op("gather", [(1000, 8), (3,)], [(3, 8)]), 3 * 8 + 3, 24),
        (op("gather", [(4, 8), (30,)], [(30, 8)]), 4 * 8 + 30, 240),
        (op("gather", [(5, 7, 8), (2,)], [(5, 2, 8)], axis=1), 5 * 2 * 8 + 2, 80),
        (op("slice", [(10, 8)], [(2, 8)]), 16, 16),
        (op("split", [(10, 8)], [(2, 8), (8, 8)]), 80, 80),
        (op("concat", [(2, 8), (8, 8)], [(10, 8)], axis=0), 80, 80),
        (op("pad", [(10, 8)], [(12, 8)]), 80, 96),
        (op("copy", [(1, 8)], [(5, 8)]), 8, 40),
        (op("resize", [(1, 1, 8, 8)], [(1, 1, 4, 4)], mode="nearest"), 16, 16),
        (op("kv_write", [(1, 2, 3, 4), (1, 2, 3, 4)], [(1, 4, 3, 4)]), 48, 48),
    ],
)
def test_movement_reads_only_what_it_needs(o: Op, elements_read: int, elements_written: int) -> None:
    assert (o.work.bytes_read, o.work.bytes_written) == (2 * elements_read, 2 * elements_written)
    assert o.work.engine == "memory"


def test_the_same_tensor_twice_is_read_once() -> None:
    x = tensor("x", 4, 4)
    square = Op("square", "elementwise", (x, x), (tensor("y", 4, 4),), {"function": "mul"})
    assert square.work.bytes_read == 2 * 16


@given(st.permutations(range(4)), st.tuples(*[st.integers(1, 3)] * 4))
def test_transpose_is_free_exactly_when_memory_order_stays(axes: list[int], shape: tuple[int, ...]) -> None:
    numbers = {index: i for i, index in enumerate(product(*map(range, shape)))}
    moved_shape = tuple(shape[a] for a in axes)
    order = []
    for index in product(*map(range, moved_shape)):
        source = [0] * 4
        for position, axis in zip(index, axes):
            source[axis] = position
        order.append(numbers[tuple(source)])
    o = op("transpose", [shape], [moved_shape], axes=tuple(axes))
    assert o.work.free == (order == sorted(order))


# -- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("o", "message"),
    [
        (op("matmul", [(4, 5), (6, 7)], [(4, 7)]), "inner sizes differ"),
        (op("conv", [(1, 3, 8, 8), (4, 5, 3, 3)], [(1, 4, 8, 8)]), "does not fit"),
        (op("conv", [(1, 3, 8, 8), (4, 3, 3)], [(1, 4, 8, 8)]), "ranks differ"),
        (op("conv", [(1, 3, 8, 8), (4, 3, 3, 3)], [(1, 4, 8, 8)], groups=2), "do not divide by 2 groups"),
        (op("pool", [(1, 3, 8, 8)], [(1, 3, 4, 4)], kernel=(2,), mode="max"), "ranks differ"),
        (op("pool", [(1, 3, 8, 8)], [(1, 4, 4, 4)], kernel=(2, 2), mode="max"), "keeps batch and channels"),
        (op("pool", [(1, 3, 8, 8)], [(1, 3, 4, 4)], kernel=(2, 2), mode="median"), "known modes: avg, max"),
        (op("attention", [(1, 6, 4, 8), (1, 4, 4, 8), (1, 4, 4, 8)], [(1, 6, 4, 8)]), "shapes do not fit"),
        (op("attention", [(1, 4, 8), (1, 4, 4, 8), (1, 4, 4, 8)], [(1, 4, 8)]), "needs"),
        (
            op("attention", [(1, 4, 8, 8), (1, 4, 4, 8), (1, 4, 4, 8)], [(1, 4, 8, 8)], causal=True),
            "8 queries are more than 4",
        ),
        (op("attention", [(1, 4, 4, 8)] * 3, [(1, 4, 4, 8)], causal=True, window=0), "window 0"),
        (op("attention", [(1, 4, 4, 8)] * 2, [(1, 4, 4, 8)]), "needs 3 inputs and 1 outputs, has 2 inputs"),
        (
            op("mla_attention", [(1, 4, 1, 9), (1, 5, 9)], [(1, 4, 1, 8)], latent=8, rope=2),
            "latent 8 and rope 2",
        ),
        (op("grouped_matmul", [(7, 8), (4, 8, 9)], [(7, 9)], experts=4, top_k=2), "do not divide"),
        (op("grouped_matmul", [(8, 8), (3, 8, 9)], [(8, 9)], experts=4, top_k=2), "4 experts"),
        (op("grouped_matmul", [(8, 8), (4, 8, 9)], [(8, 9)], experts=4, top_k=5), "top_k 5 of 4"),
        (op("moe_combine", [(8, 8), (4, 3)], [(4, 8)], experts=4, top_k=2), "do not combine"),
        (op("lstm", [(5, 1, 8), (32, 8), (32, 9)], [(5, 1, 8)], hidden=8), "weights"),
        (op("gru", [(5, 1, 8), (24, 8), (24, 8)], [(5, 1, 9)], hidden=8), "output"),
        (op("gather", [(10, 8), (3,)], [(4, 8)]), "do not give"),
        (op("concat", [(2, 8), (2, 8)], [(5, 8)], axis=0), "do not add up"),
        (op("transpose", [(2, 8)], [(2, 8)], axes=(1, 0)), "is not"),
        (op("transpose", [(2, 8)], [(8, 2)], axes=(1, 1)), "do not permute"),
        (op("reshape", [(2, 8)], [(15,)]), "cannot reshape"),
        (op("softmax", [(2, 8)], [(2, 8)], axis=2), "axis 2"),
        (op("layer_norm", [(2, 8), (4,)], [(2, 8)]), "trailing"),
        (op("batch_norm", [(2, 8), (4,)], [(2, 8)]), "8 channels"),
        (op("group_norm", [(2, 8)], [(2, 8)], groups=3), "3 groups"),
        (op("reduce", [(2, 8)], [(8,)], function="sum", axes=(1,)), "does not give"),
        (op("elementwise", [(2, 8), (3,)], [(2, 8)], function="add"), "cannot broadcast"),
        (op("topk", [(2, 8)], [(2, 3)], k=0), "k is 0"),
        (op("all_gather", [(8,)], [(24,)], devices=4), "over 4 devices"),
        (op("all_reduce", [(8,)], [(8,)]), "devices is None"),
        (op("multi_threshold", [(2, 8), (5, 3)], [(2, 8)]), "thresholds"),
        (op("resize", [(1, 2, 4)], [(1, 2, 8)], mode="bicubic"), "known modes"),
    ],
)
def test_misfits_are_refused_in_one_line(o: Op, message: str) -> None:
    with pytest.raises(GraphError, match=message) as caught:
        _ = o.work
    assert "\n" not in str(caught.value)
    assert o.name in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "near"), [("activation", "gelu"), ("elementwise", "mul"), ("reduce", "mean")]
)
def test_unknown_functions_name_the_nearest(kind: str, near: str) -> None:
    with pytest.raises(UnsupportedOpError, match=f"did you mean.*{near}"):
        _ = op(kind, [(2, 8)], [(2, 8)], function=f"{near}x").work


def test_work_knows_its_engine() -> None:
    assert Work(1, 1).engine == "memory"
    assert Work(1, 1, vector_ops=1).engine == "vector"
    assert op("matmul", [(4, 5), (5, 7)], [(4, 7)]).work.engine == "matrix"
    assert op("reshape", [(2, 8)], [(16,)]).work.engine == "free"
