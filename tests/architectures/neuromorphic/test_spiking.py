"""Converted networks say what the network says, and their measured rates reach the cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.architectures.neuromorphic.spiking import integrate, spike_rates
from accelsim.core.errors import RequestError
from tests.architectures.neuromorphic.networks import perceptron

RNG = np.random.default_rng(7)


@given(st.floats(0, 1), st.integers(1, 200))
def test_a_neuron_fires_as_often_as_its_input_says(value: float, steps: int) -> None:
    """Subtraction keeps what is left: after T steps floor(T a) spikes, give or take rounding."""
    v, count = np.zeros(1), 0.0
    for _ in range(steps):
        count += float(integrate(v, np.array([value]), signed=False)[0])
    assert abs(count - steps * value) <= 1 + 1e-6
    assert 0 <= v[0] < 1 + 1e-9


@given(st.floats(0.01, 0.9), st.floats(0, 0.95))
def test_a_leaky_neuron_fires_only_above_its_leak(value: float, leak: float) -> None:
    """The potential under a constant input tends to value / leak: below one the neuron never fires."""
    v, count = np.zeros(1), 0.0
    for _ in range(300):
        count += float(integrate(v, np.array([value]), False, leak)[0])
    if value < leak * (1 - 1e-6):
        assert count == 0
    elif value > 1.05 * leak:
        assert count > 0
    assert count <= 300 * value + 1


def weights_of(graph):
    found = {}
    for op in graph:
        if op.kind in ("matmul", "conv"):
            w = RNG.normal(size=op.inputs[1].shape) / np.sqrt(np.prod(op.inputs[1].shape[:1]))
            found[op.name] = (w, 0.05 * RNG.normal(size=op.outputs[0].shape[1]))
    return found


def test_spikes_say_what_the_network_says() -> None:
    """The error falls as steps are added, and answers agree in the end."""
    graph = perceptron(20, 16, 5)
    weights, x = weights_of(graph), RNG.random((40, 20))
    runs = [spike_rates(graph, weights, x, steps=steps) for steps in (8, 64, 512)]
    errors = [run.error for run in runs]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    assert runs[2].agreement >= 0.9
    assert all(0 <= rate <= 1 for run in runs for rate in run.rates.values())


def test_convolutions_and_sums_run() -> None:
    b = ax.GraphBuilder("cnn", "int8")
    x = b.input("x", 1, 2, 8, 8)
    y = b.activation(b.conv(x, 4, 3, stem="conv1"))
    z = b.activation(b.conv(y, 4, 3, groups=2, stem="conv2"))
    b.linear(b.flatten(b.pool(b.add(y, z), "avg", 2)), 6, stem="fc")
    graph = b.build(item="image")
    weights, inputs = weights_of(graph), RNG.random((6, 2, 8, 8))
    run = spike_rates(graph, weights, inputs, steps=256)
    assert set(run.rates) == {"input", "conv1", "conv2", "add", "avgpool", "fc"}
    assert run.error < 0.05
    torch = pytest.importorskip("torch")
    t = torch.nn.functional
    first, second, last = (
        [torch.tensor(a, dtype=torch.float64) for a in weights[n]] for n in ("conv1", "conv2", "fc")
    )
    a = torch.relu(t.conv2d(torch.tensor(inputs), first[0], first[1], padding=1))
    c = torch.relu(t.conv2d(a, second[0], second[1], padding=1, groups=2))
    expected = t.avg_pool2d(a + c, 2).flatten(1) @ last[0] + last[1]
    assert np.allclose(run.reference, expected.numpy())


def test_measured_rates_reach_the_cost() -> None:
    graph = perceptron(20, 16, 5)
    weights, x = weights_of(graph), RNG.random((40, 20))
    run = spike_rates(graph, weights, x, steps=32)
    result = ax.simulate(graph, "neuro-grid", coding=run.coding)
    rates = run.rates
    events = 32 * (rates["input"] * 20 * 16 + rates["fc1"] * 16 * 5)
    assert result.energy_parts["mac"] == pytest.approx(events * 0.5e-12)


def test_other_codes_spike_less() -> None:
    graph = perceptron(20, 16, 5)
    weights, x = weights_of(graph), RNG.random((40, 20))
    once = spike_rates(graph, weights, x, code="ttfs", steps=32)
    assert all(0 <= rate <= 1 for rate in once.rates.values())
    still = np.repeat(x[:1], 10, axis=0)
    frames = spike_rates(graph, weights, still, code="sigma_delta", steps=1)
    # A picture that does not change is sent once.
    assert max(frames.rates.values()) <= 0.1 + 1e-9
    moving = spike_rates(graph, weights, x, code="sigma_delta", steps=1)
    assert moving.rates["fc1"] > frames.rates["fc1"]
    assert moving.error <= 1 / 16


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"steps": 0}, "0 time steps"),
        ({"code": "burst"}, "unknown spike code 'burst'"),
        ({"threshold": 0.0}, "threshold"),
        ({"leak": 1.0}, "leak"),
        ({"inputs": np.ones((2, 7))}, "do not fit"),
        ({"weights": {}}, "no weight for 'fc1'"),
    ],
)
def test_bad_runs(more: dict, match: str) -> None:
    graph = perceptron(20, 16, 5)
    held = {"weights": weights_of(graph), "inputs": np.ones((2, 20)), **more}
    with pytest.raises(RequestError, match=match):
        spike_rates(graph, held.pop("weights"), held.pop("inputs"), **held)


def test_what_cannot_run_is_named() -> None:
    b = ax.GraphBuilder("norm", "int8")
    b.softmax(b.layer_norm(b.input("x", 1, 8)))
    with pytest.raises(RequestError, match=r"'norm' \(layer_norm\)"):
        spike_rates(b.build(), {}, np.ones((1, 8)))
