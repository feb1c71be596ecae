"""Operator formulas against brute force, closed forms and PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from short_ops import op

from accelsim.core.errors import UnsupportedOpError
from accelsim.workload.graph import Graph, Op
from accelsim.workload.ops import register_op, registry, work_of
from accelsim.workload.ops.conv import output_size

KINDS = [
    "matmul",
    "conv",
    "pool",
    "batch_norm",
    "layer_norm",
    "rms_norm",
    "group_norm",
    "softmax",
    "activation",
    "elementwise",
    "reduce",
    "gather",
    "attention",
    "mla_attention",
    "kv_write",
    "topk",
    "moe_dispatch",
    "grouped_matmul",
    "moe_combine",
    "lstm",
    "gru",
    "resize",
    "concat",
    "split",
    "slice",
    "pad",
    "transpose",
    "copy",
    "reshape",
    "quantize",
    "dequantize",
    "multi_threshold",
    "cast",
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "send",
    "generic",
    "gradient",
    "attention_backward",
    "mla_attention_backward",
    "grouped_weight_gradient",
]

EXAMPLES = [
    pytest.param(e, id=f"{kind}-{i}") for kind in KINDS for i, e in enumerate(registry()[kind].examples)
]


# -- the registry ----------------------------------------------------------------------------------------


def test_every_kind_of_the_contract_is_registered_and_no_other() -> None:
    assert sorted(registry()) == sorted(KINDS)
    assert all(r.summary for r in registry().values())


def test_a_kind_registers_once_and_brings_an_example() -> None:
    with pytest.raises(ValueError, match="registered already"):
        register_op("matmul", examples=[lambda: op("matmul", [], [])])(work_of)
    with pytest.raises(ValueError, match="needs an example"):
        register_op("fresh_kind", examples=[])(work_of)


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(
        UnsupportedOpError, match=r"node7: no formula for operator kind 'softmx'; did you mean softmax"
    ):
        _ = Op("node7", "softmx", (), ()).work


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_agree_with_their_nests(example: Callable[[], Op]) -> None:
    o = example()
    work = o.work
    assert work.flops == 2 * sum(nest.macs for nest in work.nests)
    assert work.bytes_read >= 0
    assert work.bytes_written >= 0
    assert work.vector_ops >= 0
    assert work.free == (work.bytes_read + work.bytes_written + work.vector_ops + work.flops == 0)
    dense = sum(t.size_bytes for t in o.inputs)
    assert work.bytes_read <= dense * (1 + 1e-12)
    for nest in work.nests:
        assert 0 < nest.share <= 1
        assert all(i is None or i < len(o.inputs) for i in (nest.left, nest.right))
        assert all(
            size >= 1
            for loops in (nest.batch_loops, nest.m_loops, nest.n_loops, nest.k_loops)
            for size in loops.values()
        )
    graph = Graph("one", [o])
    assert graph.coverage().flops_covered_pct == 100


@pytest.mark.parametrize("example", EXAMPLES)
@given(batch=st.integers(2, 32))
def test_batch_scales_work_linearly_and_leaves_weights(example: Callable[[], Op], batch: int) -> None:
    one = Graph("one", [example()])
    two, many = one.with_batch(2), one.with_batch(batch)
    assert many.flops == pytest.approx(batch * one.flops)
    assert many.vector_ops == pytest.approx(batch * one.vector_ops)
    grows = batch if one.ops[0].outputs[0].batch_axis is not None else 1  # gradients of weights do not
    assert many.ops[0].work.bytes_written == pytest.approx(grows * one.ops[0].work.bytes_written)
    assert many.ops[0].work.link_bytes == pytest.approx(batch * one.ops[0].work.link_bytes)
    assert many.parameters == one.parameters
    first, second, read = (g.ops[0].work.bytes_read for g in (one, two, many))
    if one.ops[0].kind == "grouped_matmul":  # more tokens reach more experts, ever fewer new ones
        assert first <= read <= first + (batch - 1) * (second - first) * (1 + 1e-12)
    else:
        assert read == pytest.approx(first + (batch - 1) * (second - first))
    assert many.with_batch(1).hash == one.hash


# -- convolution, matmul, pooling ------------------------------------------------------------------------


def conv_op(
    n: int,
    c: int,
    k: int,
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: int,
    pad: int,
    dilation: int,
    groups: int,
    transposed: bool,
) -> Op:
    rank = len(size)
    if transposed:
        out = tuple((s - 1) * stride - 2 * pad + dilation * (r - 1) + 1 for s, r in zip(size, kernel))
        weight = (c, k // groups, *kernel)
    else:
        out = tuple(output_size(s, r, stride, 2 * pad, dilation) for s, r in zip(size, kernel))
        weight = (k, c // groups, *kernel)
    spread = {"stride": (stride,) * rank, "padding": (pad,) * rank, "dilation": (dilation,) * rank}
    return op("conv", [(n, c, *size), weight], [(n, k, *out)], **spread, groups=groups, transposed=transposed)


convolutions = st.builds(
    lambda n, cg, kg, groups, dims, stride, pad, dilation, transposed: conv_op(
        n,
        cg * groups,
        kg * groups,
        tuple(s for s, _ in dims),
        tuple(r for _, r in dims),
        stride,
        pad,
        dilation,
        groups,
        transposed,
    ),
    n=st.integers(1, 2),
    cg=st.integers(1, 3),
    kg=st.integers(1, 3),
    groups=st.integers(1, 3),
    dims=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=2),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    dilation=st.integers(1, 2),
    transposed=st.booleans(),
).filter(lambda o: min(o.outputs[0].shape) >= 1)


def loops_run(o: Op) -> int:
    """Multiplications of a direct convolution (gather, or scatter when transposed), padding included."""
    (n, channels_in, *size), (_, _, *kernel) = o.inputs[0].shape, o.inputs[1].shape
    channels_out, out = o.outputs[0].shape[1], o.outputs[0].shape[2:]
    groups = o.attribute("groups")
    pixels = size if o.attribute("transposed") else out
    count = 0
    for _image, _pixel, k, _tap, c in product(
        range(n),
        product(*map(range, pixels)),
        range(channels_out),
        product(*map(range, kernel)),
        range(channels_in),
    ):
        count += k // (channels_out // groups) == c // (channels_in // groups)
    return count


@given(convolutions)
def test_conv_counts_what_the_loops_run(o: Op) -> None:
    assert o.macs == loops_run(o)
    whole = sum(t.size_bytes for t in (*o.inputs, *o.outputs))
    stride, kernel = o.attribute("stride")[0], min(o.inputs[1].shape[2:])
    if o.attribute("transposed") or kernel >= stride:
        assert o.bytes_compulsory == whole
    else:  # a stride wider than the kernel skips input
        assert o.bytes_compulsory == pytest.approx(whole - o.inputs[0].size_bytes + pixels_read(o) * 2)


def pixels_read(o: Op) -> int:
    """Input elements that some kernel position reads, along the axes where the stride is the wider one."""
    (n, channels, *size), kernel, out = o.inputs[0].shape, o.inputs[1].shape[2:], o.outputs[0].shape[2:]
    stride, pad, dilation = (o.attribute(name)[0] for name in ("stride", "padding", "dilation"))
    count = n * channels
    for length, taps, pixels in zip(size, kernel, out):
        read = {p * stride - pad + t * dilation for p in range(pixels) for t in range(taps)}
        count *= len(read & set(range(length))) if taps < stride else length
    return count


def test_conv_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    cases = [
        conv_op(2, 8, 12, (9,), (3,), 1, 1, 1, 1, False),
        conv_op(2, 8, 12, (9, 7), (3, 1), 2, 1, 1, 4, False),
        conv_op(1, 6, 6, (9, 9), (3, 3), 1, 2, 2, 6, False),
        conv_op(1, 4, 6, (5, 6, 7), (3, 3, 3), 1, 1, 1, 2, False),
        conv_op(2, 8, 12, (5, 7), (3, 3), 2, 1, 1, 1, True),
        conv_op(2, 8, 12, (5, 7), (2, 2), 2, 0, 1, 4, True),
    ]
    for o in cases:
        x, w = (torch.zeros(t.shape) for t in o.inputs)
        rank = len(o.inputs[0].shape) - 2
        name = f"conv_transpose{rank}d" if o.attribute("transposed") else f"conv{rank}d"
        options = {k: o.attribute(k) for k in ("stride", "padding", "dilation", "groups")}
        with FlopCounterMode(display=False) as counter:
            y = getattr(torch.nn.functional, name)(x, w, **options)
        assert tuple(y.shape) == o.outputs[0].shape
        assert counter.get_total_flops() == o.flops


def test_products_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    q, k, v = torch.zeros(2, 4, 6, 8), torch.zeros(2, 4, 10, 8), torch.zeros(2, 4, 10, 5)
    with FlopCounterMode(display=False) as counter:
        y = torch.softmax(q @ k.transpose(-1, -2), -1) @ v
    ours = op("attention", [tuple(q.shape), tuple(k.shape), tuple(v.shape)], [tuple(y.shape)], causal=False)
    assert counter.get_total_flops() == ours.flops

    a, b = torch.zeros(3, 6, 8), torch.zeros(5, 8)
    with FlopCounterMode(display=False) as counter:
        y = a @ b.T
    assert (
        counter.get_total_flops()
        == op("matmul", [(3, 6, 8), (5, 8)], [tuple(y.shape)], transpose_b=True).flops
    )


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["max", "avg"]))
def test_pool_counts_compares_and_adds(size: int, kernel: int, stride: int, mode: str) -> None:
    out = output_size(size + kernel, kernel, stride, 0, 1)
    o = op(
        "pool",
        [(2, 3, size + kernel, size + kernel)],
        [(2, 3, out, out)],
        mode=mode,
        kernel=(kernel,) * 2,
        stride=(stride,) * 2,
        padding=(0, 0),
    )
    count = 0
    for _ in range(2 * 3 * out * out):
        count += sum(1 for tap in range(kernel * kernel) if tap > 0)  # the first tap starts the running value
        count += mode == "avg"  # scale by 1 / |kernel|
    assert o.work.vector_ops == count


# -- recurrent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
@given(
    t=st.integers(1, 9),
    b=st.integers(1, 4),
    i=st.integers(1, 9),
    h=st.integers(1, 9),
    directions=st.integers(1, 2),
)
def test_recurrent_layer_counts_both_products(
    kind: str, gates: int, t: int, b: int, i: int, h: int, directions: int
) -> None:
    rows = directions * gates * h
    o = op(kind, [(t, b, i), (rows, i), (rows, h)], [(t, b, directions * h)], hidden=h, directions=directions)
    assert o.macs == t * b * rows * (i + h)
    ahead, step = o.work.nests
    assert (ahead.m, ahead.steps) == (t * b, 1)
    assert (step.m, step.steps, step.left) == (b, t, None)
    assert o.bytes_compulsory == 2 * (t * b * i + rows * (i + h) + t * b * directions * h)
