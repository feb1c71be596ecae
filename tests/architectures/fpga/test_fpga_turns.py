"""Networks that are too large for one pipeline: parts that run in turn."""

import math
from dataclasses import replace
from itertools import combinations, pairwise

import pytest

import accelsim as ax
from accelsim.architectures.base import Options
from accelsim.architectures.fpga import ARCHITECTURE
from accelsim.architectures.fpga.build import build
from accelsim.architectures.fpga.folding import least_cost
from accelsim.architectures.fpga.partition import SLACK, crossing, part, points, spans
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import precision
from accelsim.workload.builders.layers import GraphBuilder

CHANGE = 0.05
SMALL = {
    "fabric.bram36": 14,
    "fabric.uram": 0,
    "fabric.lut": 12000,
    "memory.capacity": "64 GB",
    "dataflow.reconfiguration": "50 ms",
}


def run(graph, board, **options):
    program = ARCHITECTURE.lower(graph, board, Options(**options))
    costs = ARCHITECTURE.cost(program)
    return program, costs, ARCHITECTURE.pipeline(program, costs)


def tower(layers=4, batch=1, channels=64):
    """3x3 convolutions of 36 KiB of weights each, with residual adds; 14 block RAMs hold one or two."""
    b = GraphBuilder("tower", "int8")
    x = b.activation(b.conv(b.input("x", 1, 3, 16, 16), channels, 3))
    for _ in range(layers):
        x = b.activation(b.add(b.conv(x, channels, 3), x))
    b.linear(b.flatten(b.global_pool(x)), 10)
    return b.build(item="image").with_batch(batch)


def test_resnet50_in_int8_runs_in_turns_on_a_zcu104():
    """25 MB of weights, 4.9 MB of memory on the chip."""
    for batch in (1, 100):
        result = ax.simulate("resnet50", "zcu104-finn", precision="int8", batch=batch)
        assert result.feasible
        s = result.summary
        note = next(text for text in result.notes if "take a batch of" in text)
        count = int(note.split("one pipeline: ")[1].split()[0])
        assert count >= 2
        assert f"batch of {batch:,} in turn" in note
        assert f"{80 * count} ms of every batch" in note or f"{0.08 * count:g} s of every batch" in note
        assert "per item" in note
        assert s["latency_s"] > 0.08 * count
        assert s["throughput_per_s"] == pytest.approx(batch / s["latency_s"])
        for name in ("lut", "dsp", "bram36", "uram"):
            assert s[f"resource_{name}"] <= s[f"resource_{name}_available"]
        assert result.ops.flops.sum() == pytest.approx(s["flops"])


def test_a_device_that_is_still_too_small_names_what_it_needs():
    outcome = ax.simulate("resnet50", "pynq-z2-finn", precision="int8")
    assert outcome.reason == "resources"
    for name in ("LUT", "DSP", "BRAM36"):
        assert name in outcome.need
        assert name in outcome.have
    assert "would run in turn" in outcome.need
    assert "too much BRAM36 by" in outcome.hint


def test_boards_that_load_one_bitstream_refuse(make_board):
    with pytest.raises(InfeasibleError) as caught:
        run(tower(), make_board(**{**SMALL, "dataflow.reconfiguration": None}))
    assert "in turn" not in caught.value.outcome.need


def test_a_batch_takes_the_sum_of_its_turns(make_board):
    """T(b) = sum of change + driver + T_k(1) + (b - 1) II_k, and every batch loads all bitstreams again."""
    for batch in (1, 50):
        program, _, timing = run(tower(batch=batch), make_board(**SMALL))
        designs = program.turns.designs
        assert program.parameters["pipelines"] == len(designs) > 1
        each = [CHANGE + 10e-6 + (d.first + (batch - 1) * d.interval) / d.clock_hz for d in designs]
        assert timing.latency_s == pytest.approx(sum(each))
        assert timing.interval_s == pytest.approx(sum(each) / batch)
        for kernel, start, finish in zip(program.kernels, timing.start_s, timing.finish_s):
            since = sum(each[: kernel.turn])
            assert since < start < finish <= since + each[kernel.turn] * (1 + 1e-9)
        assert math.fsum(k.flops for k in program.kernels) == pytest.approx(tower().flops)
        told = run(tower(batch=batch), make_board(**SMALL), fidelity="event")[2]
        assert told.latency_s == pytest.approx(timing.latency_s, rel=0.01)
        least = run(tower(batch=batch), make_board(**SMALL), fidelity="analytic")[2]
        assert least.latency_s <= timing.latency_s


def test_tensors_between_parts_pass_through_memory(make_board):
    program, costs, _ = run(tower(), make_board(**SMALL))
    moved = {k.name: c.bytes_by_level["dram"] for k, c in zip(program.kernels, costs)}
    stores = [name for name in moved if name.endswith(".store")]
    assert stores
    for name in stores:
        assert moved[name] == 64 * 16 * 16 == moved[name.replace(".store", ".load")]
    ends = sum(t.size_bytes for t in (*program.graph.inputs, *program.graph.outputs))
    assert program.memory_bytes >= ends + 64 * 16 * 16


@pytest.mark.parametrize("batch", [1, 1000, 10**6])
def test_more_memory_or_quicker_loading_is_never_slower(make_board, batch):
    """Across the threshold from several pipelines to one."""
    times = []
    for blocks in (14, 16, 18, 20, 25, 30, 35, 40, 60, 100, 200):
        board = make_board(**{**SMALL, "fabric.bram36": blocks})
        times.append(run(tower(batch=batch), board)[2].latency_s)
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(times))
    slow, quick = (
        run(tower(batch=batch), make_board(**{**SMALL, "dataflow.reconfiguration": t}))[2].latency_s
        for t in ("1 s", "1 ms")
    )
    assert quick <= slow


def test_cuts_are_even_and_move_little():
    """Against every cut of a small network into three."""
    graph = tower(5).map_tensors(lambda t: replace(t, precision=precision("int8")))
    network = build(graph)
    costs = [least_cost(s.unit, "ultrascale+") for s in network.stages]
    places = points(network)

    def worst(cut):
        ends = [0, *cut, len(costs)]
        return max(sum(costs[a:b]) for a, b in pairwise(ends))

    def moved(cut):
        return sum(
            network.stages[s].unit.pixels * network.stages[s].unit.mh
            for p in cut
            for s in crossing(network, p)
        )

    best = min(worst(c) for c in combinations(places, 2))
    found = next(c for c in spans(network, "ultrascale+", embedded=False) if len(c) == 3)
    cut = [low for low, _ in found][1:]
    assert worst(cut) <= SLACK * best * (1 + 1e-9)
    assert moved(cut) == min(
        moved(c) for c in combinations(places, 2) if worst(c) <= SLACK * best * (1 + 1e-9)
    )
    assert [b for _, b in found[:-1]] == [a for a, _ in found[1:]]


def test_parts_hold_every_stage_once_and_are_in_order():
    network = build(tower(5))
    for cuts in spans(network, "ultrascale+", embedded=False):
        pieces = [part(network, span) for span in cuts]
        units = [s.unit.kind for p in pieces for s in p.stages if not s.unit.kind.startswith("dma")]
        assert units == [s.unit.kind for s in network.stages if not s.unit.kind.startswith("dma")]
        for piece in pieces:
            assert all(e.source < i for i, s in enumerate(piece.stages) for e in s.edges)
            assert [len(h) for h in piece.depths] == [len(s.edges) for s in piece.stages]
