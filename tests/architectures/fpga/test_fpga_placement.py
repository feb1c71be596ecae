"""Stages on the dies of a large part."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures.base import Options
from accelsim.architectures.fpga import ARCHITECTURE
from accelsim.architectures.fpga import options as folding
from accelsim.architectures.fpga.clock import congested, reached
from accelsim.architectures.fpga.folding import packed
from accelsim.architectures.fpga.network import Edge, Stage, Unit
from accelsim.architectures.fpga.placement import HANDSHAKE, WIRES, crossing_wires, place
from accelsim.architectures.fpga.resources import Budget
from accelsim.architectures.fpga.search import place as placed


def rows_of(luts, brams):
    n, zero = len(luts), np.zeros(len(luts))
    memory = np.zeros((n, folding.MEMORIES))
    memory[:, 0] = brams
    ones = np.ones(n, dtype=np.int64)
    none = np.zeros((n, folding.MEMORIES))
    luts = np.asarray(luts, dtype=float)
    return folding.Options(
        ones, ones, zero, zero, zero, zero, luts, zero, zero, zero, memory, none, none, zero
    )


def chain_of(edges):
    """Stages that read others by index."""
    unit = Unit("channelwise", 1, 8, 4, 8, 4, 4)
    return [Stage(f"s{i}", i, unit, tuple(Edge(e, "stream", 4) for e in es)) for i, es in enumerate(edges)]


@st.composite
def designs(draw):
    n = draw(st.integers(3, 7))
    edges = [[], *(sorted({i - 1, draw(st.integers(0, i - 1))}) for i in range(1, n))]
    numbers = st.lists(st.integers(1, 30), min_size=n, max_size=n)
    return chain_of(edges), draw(numbers), draw(numbers), draw(numbers), draw(st.integers(2, 4))


@settings(max_examples=150, deadline=None)
@given(designs(), st.integers(30, 90))
def test_placements_are_the_best_of_all(design, room):
    """Against every way to cut the pipeline: the fewest dies, and on those the fewest crossing nets."""
    stages, widths, luts, brams, dies = design
    rows = rows_of(luts, brams)
    budget = Budget(room * dies, 1e9, 0.0, room * dies, 0.0, False, dies)
    found = place(stages, widths, rows, budget)
    n = len(stages)
    across = [
        sum(
            widths[e.source] + HANDSHAKE for i, s in enumerate(stages) for e in s.edges if e.source < cut <= i
        )
        for cut in range(n)
    ]
    assert crossing_wires(stages, widths)[:n] == across
    ways = {}
    for count in range(1, dies + 1):
        for cut in combinations(range(1, n), count - 1):
            ends = [0, *cut, n]
            if all(max(sum(x[a:b]) for x in (luts, brams)) <= room for a, b in pairwise(ends)):
                ways.setdefault(count, []).append(sum(across[c] for c in cut))
    flat = (rows.bram18.ravel(), rows.uram.ravel(), rows.lutram.ravel())
    have = np.array([budget.lut, budget.dsp, budget.bram18, budget.uram])
    columns = (rows.lut, rows.multiplier_lut, rows.dsp, rows.multiplier_dsp)
    assert placed(*columns, *flat, have, dies, np.zeros(4)) == bool(ways)
    if not ways:
        assert found is None
        return
    assert len(found.ends) == min(ways)
    assert sum(found.wires) == min(ways[min(ways)])
    for (low, high), used in zip(pairwise([0, *found.ends]), found.used):
        assert used["lut"] == sum(luts[low:high]) <= room
        assert used["bram36"] == sum(brams[low:high]) / 2 <= room / 2


def test_every_die_of_a_u250_stays_within_its_own():
    graph = ax.load_workload("mobilenet-v1")
    from accelsim.core.precision import plan
    from accelsim.techniques.precision import with_precision

    board = ax.load_hardware("u250-finn")
    program = ARCHITECTURE.lower(with_precision(graph, plan("int8")), board, Options())
    design = program.turns.designs[0]
    die = Budget.of(board.fabric).die()
    place = design.placement
    assert place is not None
    assert place.ends[-1] == len(design.network.stages)
    for low, high in pairwise([0, *place.ends]):
        assert packed(design.plan.rows.take(slice(low, high)), die)[1]
    assert all(0 < w <= WIRES for w in place.wires)
    assert len(program.parameters["dies"]) == len(place.ends)
    if len(place.ends) == 1:
        assert design.clock_hz == reached(board.fabric, 0.1, board.dataflow.clock_hz)


def test_crossings_and_wires_cost_clock():
    fabric = ax.load_hardware("u250-finn").fabric
    assert reached(fabric, 0.18, 400e6, 2) == pytest.approx(0.6 * reached(fabric, 0.18, 400e6, 1))
    assert congested(0.3) == 1.0
    assert congested(1.0) == pytest.approx(0.6)
