"""The pixel-level simulation and the FIFO depths."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.fpga import event, timing
from accelsim.architectures.fpga.fifo import classes, depths, occupied, smallest, unlimited, wiring
from accelsim.architectures.fpga.network import Edge, Network, Stage, Unit, Window
from accelsim.architectures.fpga.options import options
from accelsim.architectures.fpga.resources import place_fifo
from accelsim.architectures.fpga.timing import Pace, with_registers
from accelsim.core.errors import GraphError


def twin(frames, stream, tail, latency, early, accept, stages, capacities):
    """Pixel by pixel in plain Python, from the words of the model: when each frame leaves each stage."""
    outputs = [frames * s.unit.pixels for s in stages]
    done = [[] for _ in stages]  # per pixel (first, last, taken)
    free = [0.0] * len(stages)
    stored = {}

    def last_needed(edge, unit, o):
        frame, o = divmod(o, unit.pixels)
        return frame * edge.pixels + last_of_frame(edge, unit, o)

    def first_needed(edge, unit, o):
        frame, o = divmod(o, unit.pixels)
        return frame * edge.pixels + first_of_frame(edge, unit, o)

    def last_of_frame(edge, unit, o):
        if edge.mode == "all":
            return edge.pixels - 1
        if edge.mode == "window":
            w = unit.window
            r, c = divmod(o, w.out_w)
            rows = [r * w.stride_h - w.pad_h + k * w.dilation_h for k in range(w.kernel_h)]
            columns = [c * w.stride_w - w.pad_w + k * w.dilation_w for k in range(w.kernel_w)]
            row, column = min(max(rows[-1], 0), w.height - 1), min(max(columns[-1], 0), w.width - 1)
            return row * w.width + column
        return -(-(o + 1) * edge.pixels // unit.pixels) - 1

    def first_of_frame(edge, unit, o):
        if edge.mode == "all":
            return 0
        if edge.mode == "window":
            w = unit.window
            r, c = divmod(o, w.out_w)
            here = max(r * w.stride_h - w.pad_h, 0) * w.width + max(c * w.stride_w - w.pad_w, 0)
            after = max((r + 1) * w.stride_h - w.pad_h, 0) * w.width if r + 1 < w.out_h else here
            return min(here, after)
        return o * edge.pixels // unit.pixels

    readers = [[] for _ in stages]
    for t, stage in enumerate(stages):
        for i, edge in enumerate(stage.edges):
            readers[edge.source].append((t, i))
    moved = True
    while moved:
        moved = False
        for s, stage in enumerate(stages):
            o = len(done[s])
            if o == outputs[s]:
                continue
            ready = complete = room = 0.0
            possible = True
            for i, edge in enumerate(stage.edges):
                need = last_needed(edge, stage.unit, o)
                if need >= len(done[edge.source]):
                    possible = False
                    break
                if edge.mode == "window":
                    held = stored.setdefault((s, i), [])
                    while len(held) <= need:
                        before = held[-1] if held else 0.0
                        held.append(max(before + accept[s], done[edge.source][len(held)][1]))
                    ready = max(ready, held[need])
                else:
                    oldest = min(first_needed(edge, stage.unit, o), need)
                    ready = max(ready, done[edge.source][oldest][0])
                    complete = max(complete, done[edge.source][need][1])
            for t, i in readers[s]:
                slot = o - capacities[t][i]
                if not possible or slot < 0:
                    continue
                edge, unit = stages[t].edges[i], stages[t].unit
                until = next(q for q in range(outputs[t]) if first_needed(edge, unit, q + 1) > slot)
                if until >= len(done[t]):
                    possible = False
                else:
                    room = max(room, done[t][until][2])
            if not possible:
                continue
            begin = max(free[s], ready)
            streamed = max(begin + stream[s], complete)
            end = max(streamed + tail[s], room)
            first = max(begin + 1 if early[s] else streamed, room) + latency[s]
            done[s].append((first, end + latency[s], streamed))
            free[s] = end
            moved = True
    return [
        [d[(f + 1) * n // frames - 1][1] if len(d) == n else None for d, n in zip(done, outputs)]
        for f in range(frames)
    ]


def run(stages, capacities, stream, tail=None, latency=None, early=None, accept=None, frames=1):
    from accelsim.architectures.fpga.stages import simulate

    n = len(stages)
    zero = np.zeros(n)
    w = wiring(stages, capacities)
    start, finish, fill = np.zeros(n), np.zeros((frames, n)), np.zeros(len(w.edges), dtype=np.int64)
    stuck = simulate(
        frames,
        w.outputs,
        np.asarray(stream, dtype=float),
        zero if tail is None else np.asarray(tail, dtype=float),
        zero if latency is None else np.asarray(latency, dtype=float),
        np.ones(n, dtype=bool) if early is None else np.asarray(early, dtype=bool),
        zero if accept is None else np.asarray(accept, dtype=float),
        w.offsets, w.edges, w.reader_offsets, w.readers, w.reader_stages, start, finish, fill,
    )  # fmt: skip
    return stuck, start, finish if frames > 1 else finish[0], fill


def unit(kind, pixels, pixels_in, window=None):
    return Unit(kind, 9 if window else 1, 8, pixels, 8, 4, 4, window=window, pixels_in=pixels_in)


def three_by_three(size, stride=1, pad=1):
    out = (size + 2 * pad - 3) // stride + 1
    return Window(size, size, 3, 3, stride, stride, 1, 1, pad, pad, pad, pad, out, out)


def residual(size, convolutions=1):
    """dma -> a chain of 3x3 convolutions -> add <- dma."""
    n = size * size
    stages = [Stage("in", 0, unit("dma_in", n, n), ())]
    for i in range(convolutions):
        edge = Edge(len(stages) - 1, "window", n)
        stages.append(Stage(f"conv{i}", i + 1, unit("mvau", n, n, three_by_three(size)), (edge,)))
    join = (Edge(len(stages) - 1, "stream", n), Edge(0, "stream", n))
    stages.append(Stage("add", len(stages), unit("channelwise", n, n), join))
    return stages


@st.composite
def pipelines(draw):
    """A random chain with windows, strides and residual joins."""
    size = draw(st.sampled_from([4, 5, 8]))
    stages = [Stage("in", 0, unit("dma_in", size * size, size * size), ())]
    for i in range(draw(st.integers(1, 4))):
        n = size * size
        before = len(stages) - 1
        stride, pad = draw(st.sampled_from([1, 1, 2])), draw(st.sampled_from([0, 1]))
        if size + 2 * pad < 3 or draw(st.booleans()):
            stages.append(Stage(f"point{i}", i, unit("channelwise", n, n), (Edge(before, "stream", n),)))
        else:
            w = three_by_three(size, stride, pad)
            size = w.out_h
            stages.append(Stage(f"conv{i}", i, unit("mvau", size * size, n, w), (Edge(before, "window", n),)))
        if stages[-1].unit.pixels == stages[before].unit.pixels and draw(st.booleans()):
            n = size * size
            edges = (Edge(len(stages) - 1, "stream", n), Edge(before, "stream", n))
            stages.append(Stage(f"add{i}", i, unit("channelwise", n, n), edges))
    if draw(st.booleans()):
        pool = Edge(len(stages) - 1, "all", size * size)
        stages.append(Stage("pool", 9, unit("global_pool", 1, size * size), (pool,)))
    times = st.lists(st.integers(0, 9), min_size=len(stages), max_size=len(stages))
    flags = st.lists(st.booleans(), min_size=len(stages), max_size=len(stages))
    stream = [s + 1 for s in draw(times)]
    return stages, stream, draw(times), draw(times), draw(flags), draw(times)


@settings(max_examples=200, deadline=None)
@given(pipelines(), st.data())
def test_simulation_equals_its_twins(pipeline, data):
    """The sweep over pixels, the simpy processes and plain Python give the same cycle for every frame and
    stage."""
    stages, *times = pipeline
    frames = data.draw(st.sampled_from([2, 3]))
    capacities = [[max(1, c - data.draw(st.integers(0, 3))) for c in held] for held in depths(tuple(stages))]
    stuck, start, finish, _ = run(stages, capacities, *times, frames=frames)
    expected = twin(frames, *times, stages, capacities)
    if stuck >= 0:
        assert expected[-1][stuck] is None
        with pytest.raises(GraphError, match="deadlock"):
            event.simulate(stages, capacities, paces(times), frames)
    else:
        assert finish.tolist() == expected
        told = event.simulate(stages, capacities, paces(times), frames)
        assert told.finish.tolist() == expected
        assert told.start.tolist() == start.tolist()


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_depths_never_deadlock_and_every_stage_is_busy_for_its_work(pipeline):
    stages, stream, tail, *rest = pipeline
    stuck, start, finish, fill = run(stages, depths(tuple(stages)), stream, tail, *rest)
    assert stuck == -1
    work = np.array([s.unit.pixels for s in stages]) * (np.array(stream) + np.array(tail))
    assert np.all(finish - start >= work - 1e-9)
    assert np.all(fill <= np.concatenate([h for h in depths(tuple(stages)) if h]))


@settings(max_examples=40, deadline=None)
@given(pipelines(), st.integers(0, 20), st.integers(1, 5))
def test_a_faster_stage_or_a_deeper_fifo_is_never_later(pipeline, which, more):
    stages, stream, *rest = pipeline
    capacities = depths(tuple(stages))
    _, _, before, _ = run(stages, capacities, stream, *rest)
    slower = [s + more * (i == which % len(stages)) for i, s in enumerate(stream)]
    _, _, after, _ = run(stages, capacities, slower, *rest)
    assert np.all(after >= before - 1e-9)
    _, _, deeper, _ = run(stages, [[c + more for c in held] for held in capacities], stream, *rest)
    assert np.all(deeper <= before + 1e-9)


def test_a_chain_of_points_takes_the_slowest_stage_and_its_fill():
    """n pixels through a 5-cycle stage between two 1-cycle ones: 5 n and one cycle before and after."""
    n = 50
    stages = [Stage("in", 0, unit("dma_in", n, n), ())]
    stages += [Stage(f"s{i}", i, unit("channelwise", n, n), (Edge(i - 1, "stream", n),)) for i in (1, 2)]
    stuck, start, finish, _ = run(stages, depths(tuple(stages)), [1, 5, 1])
    assert stuck == -1
    assert start.tolist() == [0, 1, 2]
    assert finish[-1] == 1 + 5 * n


def test_a_window_waits_for_its_last_pixel():
    """A 3x3 window with padding 1 on rows of 8 needs pixel 8 + 1 before its first output."""
    size = 8
    stages = residual(size)[:2]
    _, start, finish, _ = run(stages, depths(tuple(stages)), [1, 1])
    assert start[1] == size + 2
    assert finish[1] == start[1] + size * size  # then one output per cycle


@pytest.mark.parametrize("size", [8, 16, 33])
def test_a_residual_fifo_holds_a_row_for_each_window(size):
    """The bypass holds what the window looks ahead: a row and a pixel each, plus the pixels in flight."""
    for convolutions in (1, 2, 3):
        stages = residual(size, convolutions)
        main, bypass = depths(tuple(stages))[-1]
        assert bypass >= convolutions * (size + 1)
        assert bypass <= convolutions * (size + 1) + 2 * convolutions + 4
        assert main <= 4


def test_a_shallow_bypass_deadlocks():
    stages = residual(8)
    capacities = [list(c) for c in depths(tuple(stages))]
    capacities[-1][1] = 4
    stuck, *_ = run(stages, capacities, [1, 1, 1])
    assert stuck >= 0


def test_a_shared_scale_needs_the_whole_frame_in_the_bypass():
    """Squeeze and excitation: the scale exists once all pixels have been averaged."""
    n = 49
    stages = [
        Stage("in", 0, unit("dma_in", n, n), ()),
        Stage("pool", 1, unit("global_pool", 1, n), (Edge(0, "all", n),)),
        Stage("mul", 2, unit("channelwise", n, n), (Edge(0, "stream", n), Edge(1, "stream", 1))),
    ]
    assert depths(tuple(stages))[-1][0] >= n
    assert run(stages, depths(tuple(stages)), [1, n, 1])[0] == -1
    assert run([replace(s) for s in stages], [[], [2 * n], [4, 2]], [1, n, 1])[0] >= 0


def paces(times):
    return Pace(*(np.asarray(t, dtype=bool if i == 3 else float) for i, t in enumerate(times)))


@settings(max_examples=40, deadline=None)
@given(pipelines())
def test_fifo_depths_delay_no_frame_and_none_can_be_a_class_smaller(pipeline):
    stages, *rest = pipeline
    times, frames = paces(rest), 3
    words = [1 + i % 3 for i in range(len(stages))]
    found = smallest(stages, times, words, frames)

    def ends(capacities):
        held = with_registers(stages, capacities, times)
        try:
            return timing.run(stages, held, times, frames).finish[:, -1]
        except GraphError:
            return np.full(frames, np.inf)

    goal = timing.run(stages, unlimited(stages, frames), times, frames).finish[:, -1]
    assert ends(found.capacities).tolist() == goal.tolist()
    for i, stage in enumerate(stages):
        for k, edge in enumerate(stage.edges):
            sizes = classes(found.words[i][k])
            assert found.words[i][k] in sizes
            position = sizes.index(found.words[i][k])
            if position == 0:
                continue
            less = [list(c) for c in found.capacities]
            per = words[edge.source]
            less[i][k] += -(-sizes[position - 1] // per) - -(-found.words[i][k] // per)
            if less[i][k] < found.capacities[i][k]:
                assert np.any(ends(less) > goal)


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_charged_fifos_keep_the_interval(pipeline):
    """With the depths that a pipeline fed at its interval fills, no frame is later than in that run."""
    stages, *rest = pipeline
    times = paces(rest)
    words = [1 + i % 3 for i in range(len(stages))]
    interval = steady(stages, rest[0], rest[1], rest[-1])
    network = Network(tuple(stages), (), (), depths(tuple(stages)))
    found = occupied(network, times, interval, words, 0)
    capacities = []
    for stage, held, deep in zip(stages, network.depths, found):
        own = [stage.unit.window.buffer if e.mode == "window" else 0 for e in stage.edges]
        joins = len(stage.edges) > 1
        charged = [max(o, h) if joins or e.mode == "all" else o for e, o, h in zip(stage.edges, own, held)]
        capacities.append([c + -(-d // words[e.source]) for e, c, d in zip(stage.edges, charged, deep)])
    fed = times.stream.copy()
    fed[0] = max(fed[0], interval / stages[0].unit.pixels)
    slow = timing.run(stages, unlimited(stages, 2), replace(times, stream=fed), 2).finish[:, -1]
    room = with_registers(stages, [[max(c, 1) for c in held] for held in capacities], times)
    assert np.all(timing.run(stages, room, times, 2).finish[:, -1] <= slow + 1e-6)


def test_a_fifo_lies_in_luts_then_block_ram_then_ultra_ram():
    def left(width, depth, **room):
        placed = place_fifo(width, depth, 32, room, intel=False)
        return placed, room

    plenty = {"lut": 1e5, "bram18": 10.0, "uram": 10.0}
    # 2 ceil(log2 d) + ceil(d / 32) ceil(w / 2), less that of 32 words
    assert left(8, 256, **plenty) == (True, {**plenty, "lut": 1e5 - (16 + 8 * 4) + (10 + 4)})
    assert left(8, 4096, **plenty) == (True, {**plenty, "bram18": 8.0})
    assert left(8, 4096, lut=0.0, bram18=1.0, uram=1.0) == (True, {"lut": 0.0, "bram18": 1.0, "uram": 0.0})
    assert not left(8, 4096, lut=0.0, bram18=1.0, uram=0.0)[0]


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_the_quick_bound_is_a_bound(pipeline):
    from accelsim.architectures.fpga.stages import earliest

    stages, *rest = pipeline
    times = paces(rest)
    w = wiring(stages, unlimited(stages))
    least = earliest(w.outputs, times.stream, times.tail, times.latency, w.offsets, w.edges)
    assert least <= timing.run(stages, unlimited(stages), times).finish.max() + 1e-9


def steady(stages, stream, tail, accept):
    """Cycles between frames: the slowest stage, or the slowest intake of a window's buffer."""
    works = [s.unit.pixels * (a + b) for s, a, b in zip(stages, stream, tail)]
    intakes = [e.pixels * a for s, a in zip(stages, accept) for e in s.edges if e.mode == "window"]
    return max(works + intakes)


@settings(max_examples=30, deadline=None)
@given(pipelines(), st.integers(5, 40))
def test_frames_follow_each_other_by_the_slowest_stage(pipeline, slow):
    """With FIFOs that delay nothing T(b) = T(1) + (b - 1) II to 5 % once one stage is clearly the slowest."""
    stages, stream, tail, *rest = pipeline
    stream = [*stream[:-1], stream[-1] + slow * max(s.unit.pixels for s in stages)]
    times = paces((stream, tail, *rest))
    finish = timing.run(stages, unlimited(stages, 6), times, 6).finish[:, -1]
    interval = steady(stages, stream, tail, rest[-1])
    assert finish[-1] == pytest.approx(finish[0] + 5 * interval, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(pipelines())
def test_any_pipeline_settles_at_its_interval(pipeline):
    """Windows take the next frame in while they still read this one, so frames end up exactly II apart, and
    T(b) is never more than T(1) + (b - 1) II."""
    stages, stream, tail, *rest = pipeline
    frames = 10
    times = paces((stream, tail, *rest))
    finish = timing.run(stages, unlimited(stages, frames), times, frames).finish.max(axis=1)
    interval = steady(stages, stream, tail, rest[-1])
    assert finish[-1] - finish[-2] == interval
    assert np.all(finish <= finish[0] + interval * np.arange(frames))


@pytest.mark.parametrize("size", [8, 9, 10, 11])
@pytest.mark.parametrize("kind", ["mvau", "vvau", "pool"])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (2, 2), (3, 1), (3, 2), (5, 3)])
def test_a_folding_is_no_faster_than_its_pixels(kind, size, kernel, stride):
    """Cycles of a frame cover what the simulation spends on it, the rows that no window needs included."""
    out = (size - kernel) // stride + 1
    w = Window(size, size, kernel, kernel, stride, stride, 1, 1, 0, 0, 0, 0, out, out)
    mw = kernel**2 * (8 if kind == "mvau" else 1)
    u = Unit(kind, mw, 8, out * out, 8, 4, 4, window=w, weights=mw * 8, weight_bits=4, pixels_in=size * size)
    found = options(u, "ultrascale+")
    assert np.all(found.cycles >= out * out * (found.stream + found.tail) - 1e-9)
    assert np.all(found.cycles >= size * size * found.accept - 1e-9)
