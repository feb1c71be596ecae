"""The event loop, its simpy twin and a slow Python twin tell the same times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures import architecture_of
from accelsim.architectures.base import Options
from accelsim.architectures.neuromorphic import events, twin
from accelsim.architectures.neuromorphic.coding import read
from tests.architectures.neuromorphic.networks import perceptron

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def slow(t: events.Traffic, steps: int) -> np.ndarray:
    """The same by lists and sorting."""
    cores = range(len(t.update))
    begin, ends = [0] * len(t.update), []
    for step in range(steps):
        busy = [begin[c] + int(t.update[c]) for c in cores]
        inbox = [[] for _ in cores]
        for m, (a, b) in enumerate(zip(t.source, t.target)):
            before = math.floor(step * t.spikes[m] + t.phase[m])
            count = math.floor((step + 1) * t.spikes[m] + t.phase[m]) - before
            if count:
                busy[a] += math.ceil(count * t.send[m])
                inbox[b].append((busy[a] + int(t.hop[m]), math.ceil(count * t.serve[m])))
        for c in cores:
            for arrival, work in sorted(inbox[c]):
                busy[c] = max(busy[c], arrival) + work
        ends.append(busy)
        after = [max(busy) + t.barrier] * len(busy) if t.barrier >= 0 else busy
        begin = [max(a, b + t.tick) for a, b in zip(after, begin)]
    return np.array(ends)


@st.composite
def traffics(draw: st.DrawFn) -> events.Traffic:
    cores = draw(st.integers(1, 6))
    count = draw(st.integers(0, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return events.Traffic(
        rng.integers(0, 30, cores),
        np.sort(rng.integers(0, cores, count)),
        rng.integers(0, cores, count),
        rng.choice([0.0, 0.3, 1.0, 2.7], count),
        rng.random(count),
        rng.choice([1.0, 0.5, 2.0], count),
        rng.choice([0.0, 1.0, 3.3, 20.0], count),
        rng.integers(0, 12, count),
        draw(st.sampled_from([-1, 0, 7])),
        draw(st.sampled_from([0, 0, 50])),
    )


@QUIET
@given(traffic=traffics(), steps=st.integers(1, 6))
def test_the_loop_and_its_twins_agree_exactly(traffic: events.Traffic, steps: int) -> None:
    ends = events.run(traffic, steps)
    assert (ends == slow(traffic, steps)).all()
    assert (ends == twin.run(traffic, steps)).all()


def _program(device, network, fidelity="event"):
    device = ax.load_hardware(device)
    return architecture_of("neuromorphic").lower(
        network, device, Options(fidelity=fidelity, coding=read({"steps": 5, "rates": 0.2}, device))
    )


@pytest.mark.parametrize("device", ["loihi", "loihi-2", "spinnaker-2", "neuro-grid"])
def test_twins_agree_on_a_mapped_network(device: str) -> None:
    t = events.traffic(_program(device, perceptron(64, 48, 10)))
    ends = events.run(t, 5)
    assert (ends == twin.run(t, 5)).all()
    assert (np.diff(ends, axis=0) >= 0).all()


@pytest.mark.parametrize("device", ["loihi", "neuro-grid"])
def test_messages_carry_the_synaptic_events(device: str) -> None:
    program = _program(device, perceptron(64, 48, 10))
    t = events.traffic(program)
    network = program.network
    per_step = sum(network.events(p, s) for p in network.populations for s in p.inputs)
    served = (t.spikes * t.serve).sum() / events.PARTS * program.device.cores.synapses_per_clock
    assert served == pytest.approx(per_step)
    assert per_step == pytest.approx(0.2 * (64 * 48 + 48 * 10))


@pytest.mark.parametrize("device", ["loihi", "loihi-2", "neuro-grid"])
def test_event_steps_are_no_shorter_than_the_fullest_core_and_close_to_the_closed_form(device: str) -> None:
    for sizes in ((64, 48, 10), (390, 256, 256, 29)):
        program = _program(device, perceptron(*sizes))
        clock = program.device.cores.clock_hz
        step_s, _ = events.follow(program, 64)
        fullest = max(program.mapping.core_cycles) / clock
        print(device, sizes, step_s, fullest, program.mapping.step_s)


def test_barriers_wait_for_the_slowest_and_free_cores_do_not() -> None:
    """Two cores without messages: with a barrier both take the slow one's step, else each its own."""
    none = np.zeros(0, np.int64)
    held = {
        "source": none,
        "target": none,
        "spikes": none + 0.0,
        "phase": none + 0.0,
        "send": none + 0.0,
        "serve": none + 0.0,
    }
    update = np.array([10, 3])
    barrier = events.run(events.Traffic(update, hop=none, barrier=2, tick=0, **held), 3)
    free = events.run(events.Traffic(update, hop=none, barrier=-1, tick=0, **held), 3)
    assert barrier.tolist() == [[10, 3], [22, 15], [34, 27]]
    assert free.tolist() == [[10, 3], [20, 6], [30, 9]]
    ticked = events.run(events.Traffic(update, hop=none, barrier=-1, tick=100, **held), 3)
    assert ticked.tolist() == [[10, 3], [110, 103], [210, 203]]
