"""The folding search: legality, optimality against brute force, monotony, given foldings."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.fpga.designs import apply
from accelsim.architectures.fpga.folding import PRICES, best, cheapest, fold, planned
from accelsim.architectures.fpga.network import Edge, Stage, Unit, Window
from accelsim.architectures.fpga.options import divisors, options
from accelsim.architectures.fpga.resources import Budget
from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError


def pack_twin(lut, mult, dsp, mult_dsp, memories, have):
    """Whether a design fits, by the words of `pack`."""
    need_lut, need_dsp = sum(lut), sum(dsp)
    order = sorted(range(len(lut)), key=lambda i: -(mult[i] / mult_dsp[i] if mult_dsp[i] else -1))
    for i in order:
        if mult_dsp[i] and need_dsp + mult_dsp[i] <= have[1]:
            need_dsp += mult_dsp[i]
        else:
            need_lut += mult[i]
    if need_lut > have[0] or need_dsp > have[1]:
        return False
    if sum(b for b, _, _ in memories) <= have[2]:
        return True
    order = sorted(range(len(memories)), key=lambda j: -(memories[j][0] / (memories[j][2] or 1e18)))
    for quarters in (0, 1, 2, 4):
        out = set(order[: len(memories) * quarters // 4])
        luts = need_lut + sum(memories[j][2] for j in out)
        left, urams = sum(m[0] for j, m in enumerate(memories) if j not in out), 0
        inside = [m for j, m in enumerate(memories) if j not in out and m[1]]
        for bram, uram, _ in sorted(inside, key=lambda m: -m[0] / m[1]):
            if left > have[2] and urams + uram <= have[3]:
                urams, left = urams + uram, left - bram
        if luts <= have[0] and left <= have[2]:
            return True
    return False


amounts = st.integers(0, 20)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_pack_equals_its_twin_and_more_never_fails(data):
    from accelsim.architectures.fpga.search import pack

    n = data.draw(st.integers(1, 4))
    column = lambda: np.array(data.draw(st.lists(amounts, min_size=n, max_size=n)), dtype=float)  # noqa: E731
    lut, mult, dsp, mult_dsp = column(), column(), column(), column()
    # distinct gains, so that the order of equals does not matter
    memory = st.tuples(st.integers(1, 30), st.integers(0, 9), st.integers(1, 400))
    memories = data.draw(st.lists(memory, min_size=2 * n, max_size=2 * n))
    bram, uram, lutram = (np.array(c, dtype=float) for c in zip(*memories))
    have = np.array([data.draw(st.integers(0, h)) for h in (400, 60, 90, 20)], dtype=float)
    gains = [m / d for m, d in zip(mult, mult_dsp) if d]
    distinct = [
        len(set(g)) == len(g) for g in (gains, list(bram / lutram), list(bram[uram > 0] / uram[uram > 0]))
    ]
    used = np.zeros(4)
    fits = pack(lut, mult, dsp, mult_dsp, bram, uram, lutram, have, used)
    if all(distinct):
        assert fits == pack_twin(lut, mult, dsp, mult_dsp, list(zip(bram, uram, lutram)), have)
    if fits:
        assert np.all(used <= have)
        for i in range(4):
            more = have + np.eye(4)[i] * data.draw(st.integers(1, 40))
            assert pack(lut, mult, dsp, mult_dsp, bram, uram, lutram, more, used)


def dense(mw, mh, bits=4, pixels=1):
    return Unit("mvau", mw, mh, pixels, mw, bits, bits, weights=mw * mh, weight_bits=bits, pixels_in=pixels)


def conv(channels, height, size, bits=4):
    out = size - 2
    w = Window(size, size, 3, 3, 1, 1, 1, 1, 0, 0, 0, 0, out, out)
    return Unit(
        "mvau", 9 * channels, height, out * out, channels, bits, bits, window=w,
        weights=9 * channels * height, weight_bits=bits, requantised=True, pixels_in=size * size,
    )  # fmt: skip


def chain(*units):
    return tuple(
        Stage(f"s{i}", i, u, (Edge(i - 1, "stream", u.pixels_in),) if i else ()) for i, u in enumerate(units)
    )


units = st.one_of(
    st.builds(
        dense,
        st.sampled_from([4, 8, 16]),
        st.sampled_from([2, 4, 16]),
        st.sampled_from([1, 2, 4, 8]),
        st.just(3),
    ),
    st.builds(conv, st.sampled_from([2, 4]), st.sampled_from([4, 8]), st.just(5), st.sampled_from([1, 4])),
)
budgets = st.builds(
    Budget,
    lut=st.integers(1500, 20000).map(float),
    ff=st.just(1e9),
    dsp=st.integers(0, 60).map(float),
    bram18=st.integers(0, 6).map(float),
    uram=st.integers(0, 2).map(float),
    intel=st.just(False),
)


def brute(stages, budget, technology="ultrascale+"):
    """Smallest interval of all combinations of foldings that fit, or None."""
    tables = [options(s.unit, technology) for s in stages]
    rows = [[t.take(slice(i, i + 1)) for i in range(len(t))] for t in tables]
    best = None
    for combination in product(*rows):
        interval = max(float(r.cycles[0]) for r in combination)
        if best is not None and interval >= best:
            continue
        try:
            planned(combination, budget)
        except InfeasibleError:
            continue
        best = interval
    return best


@settings(max_examples=25, deadline=None)
@given(st.lists(units, min_size=1, max_size=2), budgets)
def test_search_against_brute_force(found_units, budget):
    """The bound is a bound, the search is legal, and it is at the optimum or at most one step of a divisor
    away."""
    stages = chain(*found_units)
    best = brute(stages, budget)
    try:
        plans = fold(stages, budget, "ultrascale+")
    except InfeasibleError:
        assert best is None
        return
    interval = min(p.interval for p in plans)
    assert best is not None
    assert max(p.bound for p in plans) <= best <= interval
    assert interval <= 2 * best
    if any(p.exact for p in plans):
        assert interval == best


@settings(max_examples=40, deadline=None)
@given(st.lists(units, min_size=1, max_size=3), budgets)
def test_small_networks_are_folded_optimally(found_units, budget):
    """Trying every combination proves the interval; the bound says so."""
    stages = chain(*found_units)
    expected = brute(stages, budget) if len(found_units) < 3 else None
    try:
        plan = best(stages, budget, "ultrascale+")
    except InfeasibleError:
        assert expected is None
        return
    assert plan.exact
    assert expected in (None, plan.interval)
    for name, used in (("lut", plan.used["lut"]), ("dsp", plan.used["dsp"]), ("uram", plan.used["uram"])):
        assert used <= getattr(budget, name)


@settings(max_examples=40, deadline=None)
@given(st.lists(units, min_size=1, max_size=4), st.sampled_from([100.0, 1000.0, 10000.0]))
def test_a_target_is_met_with_less_than_the_fastest_takes(found_units, target):
    stages = chain(*found_units)
    budget = Budget(1e5, 1e9, 1000, 500, 100, False)
    try:
        plan = cheapest(stages, budget, "ultrascale+", target)
    except InfeasibleError:
        assert min(p.interval for p in fold(stages, budget, "ultrascale+")) > target
        return
    assert plan.interval <= target
    looser = cheapest(stages, budget, "ultrascale+", 10 * target)
    assert max(looser.used["lut"] / 1e5, looser.used["dsp"] / 1000) <= max(
        plan.used["lut"] / 1e5, plan.used["dsp"] / 1000
    ) * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(units, min_size=1, max_size=2), st.integers(1500, 20000))
def test_search_is_optimal_when_only_logic_is_scarce(found_units, luts):
    """With memories and DSP blocks to spare the interval equals brute force within one chain step; mostly
    exactly."""
    stages = chain(*found_units)
    budget = Budget(float(luts), 1e9, 1e6, 1e6, 1e6, False)
    best = brute(stages, budget)
    if best is None:
        with pytest.raises(InfeasibleError):
            fold(stages, budget, "ultrascale+")
        return
    assert min(p.interval for p in fold(stages, budget, "ultrascale+")) <= 1.5 * best


@settings(max_examples=60, deadline=None)
@given(st.lists(units, min_size=1, max_size=5), budgets, st.integers(0, 3), st.floats(1.0, 4.0))
def test_more_of_any_resource_is_never_slower(found_units, budget, which, factor):
    stages = chain(*found_units)
    try:
        before = min(p.interval for p in fold(stages, budget, "ultrascale+"))
    except InfeasibleError:
        return
    name = ("lut", "dsp", "bram18", "uram")[which]
    more = Budget(**{f: getattr(budget, f) for f in ("lut", "ff", "dsp", "bram18", "uram", "intel")} | {
        name: getattr(budget, name) * factor + 1
    })  # fmt: skip
    assert min(p.interval for p in fold(stages, more, "ultrascale+")) <= before


@settings(max_examples=60, deadline=None)
@given(units)
def test_every_folding_is_legal_and_a_chain_only_gets_faster(unit):
    from accelsim.architectures.fpga.folding import _table

    table = _table(unit, "ultrascale+")
    every = table.every
    assert np.all(unit.mh % every.pe == 0)
    assert np.all(unit.mw % every.simd == 0)
    assert every.cycles.min() == table.chains[0].cycles[0]
    for ways in table.chains:
        for part in (ways.cycles, ways.stream, ways.tail, ways.accept):
            assert np.all(np.diff(part) >= -1e-9)
    assert len(table.chains) == 2 * len(PRICES)


@settings(max_examples=60, deadline=None)
@given(st.lists(units, min_size=1, max_size=4), budgets, st.sampled_from([0.0, 30.0, 400.0]))
def test_the_search_equals_a_walk_along_every_chain(found_units, budget, floor):
    """Each chain's first target that fits, every stage at its slowest folding that meets it, packed alone."""
    from accelsim.architectures.fpga.folding import _table

    tables = [_table(u, "ultrascale+").chains for u in found_units]
    walked = {}
    for chained in zip(*tables):
        fastest = max(floor, *(float(ways.cycles[0]) for ways in chained))
        targets = {fastest, *(float(c) for ways in chained for c in ways.cycles if c > fastest)}
        for target in sorted(targets):
            rows = [ways.take([int(np.searchsorted(ways.cycles, target, "right")) - 1]) for ways in chained]
            try:
                plan = planned(rows, budget, floor)
            except InfeasibleError:
                continue
            walked[(*plan.rows.pe, *plan.rows.simd)] = plan.interval
            break
    try:
        plans = fold(chain(*found_units), budget, "ultrascale+", floor)
    except InfeasibleError:
        assert not walked
        return
    assert {(*p.rows.pe, *p.rows.simd): p.interval for p in plans} == walked


def test_memory_is_what_a_refusal_names():
    stages = chain(dense(4096, 4096, 8))
    with pytest.raises(InfeasibleError) as caught:
        fold(stages, Budget(1e6, 1e9, 2000, 100, 0, False), "ultrascale+")
    outcome = caught.value.outcome
    assert outcome.reason == "resources"
    assert "3,648 BRAM36" in outcome.need
    assert "50 BRAM36" in outcome.have
    assert "too much BRAM36 by" in outcome.hint


def test_logic_is_what_a_refusal_names():
    with pytest.raises(InfeasibleError) as caught:
        fold(chain(conv(4, 8, 5)), Budget(100, 1e9, 0, 100, 0, False), "ultrascale+")
    assert "LUT" in caught.value.outcome.need


def test_given_foldings_apply_in_order_and_by_name():
    stages = chain(conv(4, 8, 8), dense(288, 16))
    rows = apply(stages, [(4, 2), (2, 8)]).rows
    assert [(int(r.pe[0]), int(r.simd[0])) for r in rows] == [(4, 2), (2, 8)]
    assert rows[0].cycles[0] == (36 // 2) * (8 // 4) * 36
    assert rows[1].cycles[0] == (288 // 8) * (16 // 2)
    named = apply(stages, {"s1": {"PE": 1, "SIMD": 4}}).rows
    assert named[1].cycles[0] == 72 * 16
    assert named[0].cycles[0] <= 72 * 16  # what is not named keeps up


@pytest.mark.parametrize(
    ("folding", "match"),
    [
        ([(3, 1)], "does not divide"),
        ([(1, 5)], "does not divide"),
        ({"x": (1, 1)}, "no stage 'x'"),
        ([(1, 1)] * 3, "3 foldings"),
    ],
)
def test_given_foldings_that_are_wrong(folding, match):
    with pytest.raises(RequestError, match=match):
        apply(chain(conv(4, 8, 8)), folding)


@settings(max_examples=30, deadline=None)
@given(st.lists(units, min_size=1, max_size=4), budgets, st.integers(0, 2**32 - 1))
def test_scores_of_many_designs_equal_the_plans(found_units, budget, seed):
    from accelsim.architectures.fpga.folding import _table, scored

    stages = chain(*found_units)
    tables = [_table(s.unit, "ultrascale+").every for s in stages]
    choices = np.random.default_rng(seed).integers(0, [len(t) for t in tables], (20, len(stages)))
    interval, fits = scored(stages, choices, budget, "ultrascale+")
    for row, cycles, ok in zip(choices, interval, fits):
        rows = [t.take([i]) for t, i in zip(tables, row)]
        try:
            assert planned(rows, budget).interval == cycles
        except InfeasibleError:
            assert not ok
        else:
            assert ok


def set_folding(stages, target):
    """FINN's SetFolding: the smallest divisor with fewer cycles than the target for each unit; matrix units
    raise SIMD first while weights stay within 36 bits, then PE; a second pass with the interval that came
    out."""
    from accelsim.architectures.fpga.options import evaluate

    def cycles(unit, pe, simd):
        return float(evaluate(unit, "ultrascale+", np.array([pe]), np.array([simd])).cycles[0])

    def folded(unit, goal):
        pe = simd = 1
        if unit.kind == "mvau":
            for simd in divisors(unit.mw):
                if cycles(unit, 1, simd) < goal or simd * unit.weight_bits > 36:
                    break
            while simd * unit.weight_bits > 36 and simd > 1:
                simd = max(d for d in divisors(unit.mw) if d < simd)
        for pe in divisors(unit.mh) if not unit.kind.startswith("dma") else [1]:
            if cycles(unit, pe, simd) < goal:
                break
        return evaluate(unit, "ultrascale+", np.array([pe]), np.array([simd]))

    for _ in range(2):
        rows = [folded(s.unit, target) for s in stages]
        target = max(float(r.cycles[0]) for r in rows)
    return rows


@pytest.mark.parametrize(
    ("workload", "cycles"),
    [
        ("finn-cnv", 32768),
        ("finn-cnv-w1a2", 32768),
        ("finn-tfc", 196),
        ("finn-vgg10", 1028),
        ("mobilenet-v1", 401408),
        ("gtsrb", 32768),
    ],
)
def test_never_worse_than_set_folding(workload, cycles):
    """At the interval of each published folding, and at a half and a tenth of it: within the LUT, DSP, BRAM
    and URAM that SetFolding's answer takes, the search is at least as fast."""
    from accelsim.architectures.fpga.build import build
    from accelsim.architectures.fpga.fifo import with_fifos
    from accelsim.core.precision import plan
    from accelsim.techniques.precision import with_precision
    from accelsim.workload.builders.finn import build as finn
    from accelsim.workload.load import load_workload

    if workload == "gtsrb":  # CNV with the 43 signs of GTSRB, padded to 44
        sizes = {"convolutions": [64, 64, "pool", 128, 128, "pool", 256, 256], "dense": [512, 512, 44]}
        graph = finn("gtsrb", {"inputs": [3, 32, 32], **sizes}, None, None)
    else:
        graph = load_workload(workload)
        graph = with_precision(graph, plan("int4")) if workload == "mobilenet-v1" else graph
    stages = with_fifos(build(graph)).stages
    wide = Budget(1e9, 1e9, 1e9, 1e9, 1e9, False)
    for target in (cycles, cycles / 2, cycles / 10):
        theirs = planned(set_folding(stages, target), wide)
        used = theirs.used
        room = Budget(used["lut"], 1e9, used["dsp"], 2 * used["bram36"], used["uram"], False)
        assert best(stages, room, "ultrascale+").interval <= theirs.interval, (workload, target)
