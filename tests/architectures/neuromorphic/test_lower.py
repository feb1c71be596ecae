"""Conversion, mapping, time and energy of spiking networks, and what is refused."""

from __future__ import annotations

import math

import pytest

import accelsim as ax
from accelsim.architectures.neuromorphic.coding import Coding, read
from accelsim.architectures.neuromorphic.population import convert
from accelsim.core.errors import ConfigError, RequestError
from accelsim.hardware import energy
from tests.architectures.neuromorphic.networks import convolutional, perceptron


def test_populations_have_the_neurons_and_synapses_of_their_layers() -> None:
    device = ax.load_hardware("loihi")
    graph = convolutional()
    network = convert(graph, Coding("rate", 8, 0.25), device)
    found = {p.name: p for p in network.populations}
    assert list(found) == ["conv1", "conv2", "add", "avgpool", "fc"]
    assert found["conv1"].neurons == 8 * 12 * 12
    assert found["conv1"].fan_in == 2 * 9
    assert found["fc"].synapses == 8 * 36 * 10
    assert [found[n].depth for n in found] == [1, 2, 3, 4, 5]
    assert network.read_out == ("softmax",)
    macs = sum(found[n].synapses for n in ("conv1", "conv2", "fc"))
    assert macs == graph.macs
    assert sum(network.events(found["fc"], s) for s in found["fc"].inputs) == pytest.approx(
        0.25 * 8 * 36 * 10
    )


def test_barrier_time_is_steps_plus_depth() -> None:
    """(T b + D - 1) steps, and the step is the fullest core, the longest way and the barrier."""
    graph = perceptron(64, 48, 32, 10)
    for steps, batch in ((1, 1), (16, 1), (16, 5)):
        result = ax.simulate(graph, "loihi", batch=batch, coding={"steps": steps, "rates": 0.2})
        step_s = 1 / result.summary["throughput_per_s"] / steps
        assert result.summary["latency_s"] == pytest.approx((steps * batch + 2) * step_s)
        device = ax.load_hardware("loihi")
        assert step_s >= device.step.barrier_s + max(result.ops.cycles_compute) / steps / 286e6


def test_ticks_hold_the_step() -> None:
    result = ax.simulate(perceptron(64, 48, 10), "spinnaker-2", coding={"steps": 10, "rates": 0.1})
    assert result.summary["throughput_per_s"] == pytest.approx(1 / 10e-3)
    assert result.summary["latency_s"] == pytest.approx(11e-3)


def test_energy_is_counted_by_hand() -> None:
    """Synaptic events, weight fetches, updates and spikes with their hops of a layer that fits one core."""
    device = ax.load_hardware("neuro-grid").replace(**{"cores.count": 16})
    one = device.replace(**{"cores.count": 1, "cores.columns": 1})
    result = ax.simulate(perceptron(100, 50), one, coding={"steps": 20, "rates": 0.1})
    parts = result.energy_parts
    events = 20 * 0.1 * 100 * 50
    assert parts["mac"] == pytest.approx(events * 0.5e-12)
    assert parts["sram"] == pytest.approx(events * energy.sram_byte(128 * 1024, 14).value_j)
    assert parts["vector"] == pytest.approx(20 * 50 * 5e-12)
    assert parts["network"] == pytest.approx(20 * 0.1 * 100 * 2e-12)  # one core: no hop
    assert parts["dram"] == pytest.approx(4 * 20 * 0.1 * 100 * 10e-12)
    assert parts["static"] == pytest.approx(0.05 / result.summary["throughput_per_s"])


def test_a_fetch_inside_the_event_is_taken_out_of_it() -> None:
    result = ax.simulate(perceptron(390, 256, 29), "loihi", coding={"steps": 10, "rates": 0.1})
    events = 10 * 0.1 * (390 * 256 + 256 * 29)
    assert result.energy_parts["mac"] + result.energy_parts["sram"] == pytest.approx(events * 23.6e-12)
    assert result.energy_parts["sram"] > 0


def test_events_follow_the_rates() -> None:
    graph = perceptron(64, 48, 10)

    def events_j(**coding) -> float:
        parts = ax.simulate(graph, "neuro-grid", coding=coding).energy_parts
        return parts["mac"] + parts["sram"]

    base = events_j(steps=10, rates=0.1)
    assert events_j(steps=20, rates=0.1) == pytest.approx(2 * base)
    assert events_j(steps=10, rates=0.3) == pytest.approx(3 * base)
    # Time to first spike: once at the most, however many steps there are.
    assert events_j(steps=10, rates=0.5, code="ttfs") == pytest.approx(
        events_j(steps=40, rates=0.5, code="ttfs")
    )
    assert events_j(steps=10, rates=0.5, code="ttfs") == pytest.approx(5 * base / 10)
    # By layer: spikes of a layer cost synapses of the one behind it.
    silent = events_j(steps=10, rates={"fc1": 0.0, "input": 0.1})
    assert silent == pytest.approx(base * 64 * 48 / (64 * 48 + 48 * 10))


def test_graded_spikes_need_the_hardware() -> None:
    graph = perceptron(64, 48, 10)
    found = ax.simulate(graph, "loihi", coding={"code": "sigma_delta"})
    assert (found.reason, found.have) == ("coding", "binary spikes")
    assert ax.simulate(graph, "loihi-2", coding={"code": "sigma_delta", "steps": 2}).feasible
    # Graded neurons compute functions that integrate-and-fire neurons have not.
    smooth = perceptron(64, 48, 10, function="gelu")
    assert ax.simulate(smooth, "loihi-2", coding={"code": "sigma_delta"}).feasible
    refused = ax.simulate(smooth, "loihi-2", coding={"code": "rate"})
    assert refused.reason == "operator"
    assert "gelu" in refused.need
    assert "relu" in refused.hint


def test_more_cores_are_never_slower_and_all_are_on_the_chip() -> None:
    graph = convolutional()
    last = math.inf
    for count in (16, 32, 64, 128, 256):
        device = ax.load_hardware("loihi").replace(**{"cores.count": count})
        result = ax.simulate(graph, device)
        if not result.feasible:
            continue
        assert result.summary["resource_cores"] <= count
        assert result.summary["latency_s"] <= last
        last = result.summary["latency_s"]
    assert last < math.inf


def test_shared_kernels_need_less_memory() -> None:
    graph = convolutional(32)
    alone = ax.load_hardware("loihi-2").replace(**{"cores.shares_weights": False})
    single = {"cores.count": 1, "cores.columns": 1}
    found = [ax.simulate(graph, d.replace(**single)) for d in (ax.load_hardware("loihi-2"), alone)]
    need = [float(f.need.split()[0]) for f in found]
    assert need[0] < need[1]


@pytest.mark.parametrize(
    ("changes", "need", "have"),
    [
        ({"cores.fan_in": 100}, "390 inputs of each neuron of 'fc1'", "100 inputs per core"),
        (
            {"cores.synapse_memory": "99 B"},
            "390 B for the synapses of one neuron of 'fc1'",
            "99 B per core",
        ),
        ({"cores.count": 1, "cores.columns": 1}, "3 cores ('fc1' alone 1)", "1 cores"),
    ],
)
def test_what_no_core_holds(changes: dict, need: str, have: str) -> None:
    device = ax.load_hardware("loihi").replace(**changes)
    found = ax.simulate(perceptron(390, 256, 256, 29), device)
    assert not found.feasible
    assert found.reason == "cores"
    assert (found.need, found.have) == (need, have)


def test_what_has_no_spiking_form_is_named() -> None:
    found = ax.simulate("bert-base", "loihi")
    assert found.reason == "operator"
    assert "gather" in found.need
    assert "conv" in found.have
    wide = ax.simulate(perceptron(64, 10), "truenorth", precision="int8")
    assert wide.reason == "precision"


@pytest.mark.parametrize(
    ("coding", "match"),
    [
        ({"steps": 0}, "0 time steps"),
        ({"steps": 2.5}, "2.5 time steps"),
        ({"rates": 1.2}, "firing rate 1.2 of 'every layer' is above one spike per step"),
        ({"rates": {"fc1": 3.0}}, "firing rate 3 of 'fc1' is above one"),
        ({"rates": -0.1}, "-0.1"),
        ({"code": "rates"}, "unknown spike code 'rates'; did you mean rate"),
        ({"step": 4}, "unknown key 'step'.*steps"),
    ],
)
def test_bad_codings(coding: dict, match: str) -> None:
    with pytest.raises(RequestError, match=match):
        ax.simulate(perceptron(8, 4), "loihi", coding=coding)


def test_codings_belong_to_spiking_devices() -> None:
    with pytest.raises(RequestError, match="only devices of spiking neurons"):
        ax.simulate("resnet50", "t4", coding={"steps": 4})
    found = ax.simulate(perceptron(8, 4), "loihi", coding={"rates": {"fc9": 0.1}})
    assert found.reason == "coding"
    with pytest.raises(ConfigError):
        ax.load_hardware("loihi").replace(**{"coding.steps": 0})


def test_every_time_is_in_the_stamp() -> None:
    graph = perceptron(64, 48, 10)
    runs = [ax.simulate(graph, "loihi", coding={"steps": steps}) for steps in (4, 4, 5)]
    assert runs[0].stamp == runs[1].stamp != runs[2].stamp
    assert read({}, ax.load_hardware("loihi")).steps == 64
