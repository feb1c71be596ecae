"""The physical fold model against a walk over every fold, and the laws that it must obey."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.systolic import folds, scalesim


def cost(
    batch=1,
    m=1,
    n=1,
    k=1,
    *,
    share=1.0,
    rate=1.0,
    sets=None,
    rows=8,
    cols=8,
    arrays=1,
    dataflow="ws",
    double=True,
    swap=False,
):
    """One row of the numba table."""
    sets = sets or (1, m, k, 1)
    ints = [np.array([v], np.int64) for v in (batch, m, n, k)]
    table = folds.fold_table(
        *ints,
        np.array([share]),
        np.array([rate]),
        np.array([sets], np.int64),
        rows,
        cols,
        arrays,
        folds.CODES[dataflow],
        double,
        np.array([swap]),
    )
    return table[0]


def walk(sequence, skew, double):
    """Time of a sequence of (load, stream) folds on one array, event by event: a fold's operand may load once
    the one before started to stream, because it then sits in the other buffer."""
    time, started = 0.0, 0.0
    for index, (load, stream) in enumerate(sequence):
        begin = started if double and index else time
        loaded = begin + load
        started = max(time, loaded)
        time = started + stream
        if not double:
            time += skew(load)
    return time + (skew(sequence[-1][0]) if double else 0)


def slow_stationary(batch, stream, spread, depth, rows, cols, arrays, double):
    """Every tile and fold listed, dealt to arrays, walked."""
    best = float("inf")
    for pack in {1, max(1, min(batch, rows // depth, cols // spread))}:
        used_rows = [min(rows, depth - i) * pack for i in range(0, depth, rows)][::-1]  # the short one first
        used_cols = min(spread * pack, cols)
        tiles = [1] * (ceil(batch / pack) * ceil(spread / cols))
        for split in range(1, min(arrays, stream) + 1):
            chunk = ceil(stream / split)
            most = len(tiles[:: arrays // split])
            sequence = [(r, chunk) for _ in range(most) for r in used_rows]
            best = min(best, walk(sequence, lambda r, c=used_cols: r + c - 2, double))
    return best


def slow_output(batch, m, n, depth, rows, cols, arrays, double):
    best = float("inf")
    for pack in {1, max(1, min(batch, rows // m, cols // n))}:
        heights = [min(rows, m - i) * pack for i in range(0, m, rows)] * (ceil(batch / pack) * ceil(n / cols))
        heights.sort(reverse=True)
        used_cols = min(n * pack, cols)
        mine = heights[: ceil(len(heights) / arrays)]  # the array with the longest folds
        skew = max(heights) + used_cols - 2
        if double:
            # A fold's results leave while the next one streams; what leaves last overlaps the next layer.
            time = depth + sum(max(depth, r) for r in mine[1:]) + skew
        else:
            time = sum(depth + r + used_cols - 2 for r in mine)
        best = min(best, time)
    return best


sizes = st.integers(1, 70)
small = st.integers(1, 20)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 9),
    sizes,
    sizes,
    sizes,
    small,
    small,
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from(["ws", "is", "os"]),
)
def test_equals_the_walk(batch, m, n, k, rows, cols, arrays, double, dataflow):
    fast = cost(batch, m, n, k, rows=rows, cols=cols, arrays=arrays, dataflow=dataflow, double=double)[
        folds.CYCLES
    ]
    if dataflow == "os":
        slow = slow_output(batch, m, n, k, rows, cols, arrays, double)
    elif dataflow == "ws":
        slow = slow_stationary(batch, m, n, k, rows, cols, arrays, double)
    else:
        slow = slow_stationary(batch, n, m, k, rows, cols, arrays, double)
    assert fast == pytest.approx(slow, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, sizes, small, small, st.booleans(), st.sampled_from(["ws", "is", "os"]))
def test_never_slower_than_scalesim(m, n, k, rows, cols, double, dataflow):
    """Short edges and overlapped folds can only save cycles."""
    physical = cost(m=m, n=n, k=k, rows=rows, cols=cols, dataflow=dataflow, double=double)[folds.CYCLES]
    assert physical <= scalesim.layer(m, n, k, rows, cols, dataflow).total_cycles + 1


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 40), sizes, sizes, sizes, st.floats(0.02, 1.0),
    st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 4.0]),
    small, small, st.integers(1, 6), st.booleans(), st.sampled_from(["ws", "is", "os", "rs"]),
)  # fmt: skip
def test_never_faster_than_the_elements_allow(
    batch, m, n, k, share, rate, rows, cols, arrays, double, dataflow
):
    found = cost(
        batch,
        m,
        n,
        k,
        share=share,
        rate=rate,
        rows=rows,
        cols=cols,
        arrays=arrays,
        dataflow=dataflow,
        double=double,
    )
    bound = batch * m * n * k * share / (rows * cols * arrays * rate)
    assert found[folds.CYCLES] >= bound * (1 - 1e-12)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9), sizes, sizes, sizes, small, small, st.integers(1, 6), st.booleans(),
    st.sampled_from(["ws", "is", "os", "rs"]),
)  # fmt: skip
def test_more_arrays_and_faster_elements_never_hurt(batch, m, n, k, rows, cols, arrays, double, dataflow):
    base = cost(batch, m, n, k, rows=rows, cols=cols, arrays=arrays, dataflow=dataflow, double=double)
    more = cost(batch, m, n, k, rows=rows, cols=cols, arrays=arrays + 1, dataflow=dataflow, double=double)
    assert more[folds.CYCLES] <= base[folds.CYCLES]
    slow = cost(
        batch, m, n, k, rate=0.5, rows=rows, cols=cols, arrays=arrays, dataflow=dataflow, double=double
    )
    fast = cost(
        batch, m, n, k, rate=2.0, rows=rows, cols=cols, arrays=arrays, dataflow=dataflow, double=double
    )
    assert slow[folds.CYCLES] >= base[folds.CYCLES] >= fast[folds.CYCLES]


def test_double_buffering_hides_loads():
    """2 x 2 folds of an 8 x 8 array: 100 beats each, all loads but the first hidden, one drain."""
    found = cost(m=100, n=16, k=16, rows=8, cols=8)
    assert found[folds.CYCLES] == 8 + 4 * 100 + 8 + 8 - 2
    assert (
        cost(m=3, n=16, k=16, rows=8, cols=8)[folds.CYCLES] == 8 + 3 * 8 + 3 + 14
    )  # loads bound short streams
    assert cost(m=100, n=16, k=16, rows=8, cols=8, double=False)[folds.CYCLES] == 4 * (8 + 100 + 14)


def test_depthwise_groups_lie_on_the_diagonal():
    """3x3 depthwise convolution on 128 x 128: 14 groups of 9 rows and one column share a fold."""
    found = cost(batch=112, m=1000, n=1, k=9, rows=128, cols=128)
    assert found[folds.PACKED] == 14
    assert found[folds.CYCLES] == 8 * 1000 + 126 + 126 + 14 - 2
    macs = 112 * 1000 * 9
    assert macs / (found[folds.CYCLES] * 128 * 128) < 14 * 9 / 128**2


def test_arrays_share_columns_then_the_stream():
    assert cost(m=64, n=32, k=8, arrays=4)[folds.CYCLES] == 8 + 64 + 14
    one_column = cost(m=64, n=8, k=8, arrays=4)
    assert one_column[folds.SPLIT] == 4
    assert one_column[folds.CYCLES] == 8 + 16 + 14


def test_row_stationary_matches_eyeriss_active_elements():
    """AlexNet on 12 x 14: the mapping keeps 154, 135, 156, 156, 156 elements busy (Eyeriss, ISCA 2016)."""
    layers = [(11, 55, 96, 3), (5, 27, 256, 48), (3, 13, 384, 256), (3, 13, 384, 192), (3, 13, 256, 192)]
    for (kernel, out, filters, channels), active in zip(layers, (154, 135, 156, 156, 156)):
        m, k = out * out, kernel * kernel * channels
        found = cost(m=m, n=filters, k=k, sets=(kernel, out, kernel, out), rows=12, cols=14, dataflow="rs")
        busy = m * filters * k / (found[folds.CYCLES] - 24)
        assert busy == pytest.approx(active, rel=0.02)


def test_causal_mask_saves_about_half():
    full = cost(m=4096, n=4096, k=128, rows=128, cols=128)[folds.CYCLES]
    causal = cost(m=4096, n=4096, k=128, share=0.5, rows=128, cols=128)[folds.CYCLES]
    assert 0.5 < causal / full < 0.55


@settings(max_examples=100, deadline=None)
@given(sizes, sizes, sizes, small, small, st.sampled_from(["ws", "is", "os"]))
def test_operand_accesses_are_those_of_scalesim(m, n, k, rows, cols, dataflow):
    """Overlap changes when operands are read, not how often; all partial sums but the first are read back."""
    found = cost(m=m, n=n, k=k, rows=rows, cols=cols, dataflow=dataflow)
    tool = scalesim.layer(m, n, k, rows, cols, dataflow)
    assert found[folds.LEFT_READS] == tool.ifmap_reads
    assert found[folds.RIGHT_READS] == tool.filter_reads
    writes = m * n if dataflow == "os" else tool.ofmap_writes
    assert found[folds.OUTPUT_ACCESSES] == 2 * writes - m * n
