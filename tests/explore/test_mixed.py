"""Mixed precision on real trained networks: budgets are met, uniform plans are never better."""

from __future__ import annotations

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.errors import RequestError
from accelsim.core.precision import plan
from tests.techniques.networks import minilm, orientation, wheel_file, write_encoder

pytest.importorskip("onnx", reason="the extra quant is not installed")
pytest.importorskip("onnxruntime", reason="the extra quant is not installed")

FORMATS = ["fp16", "bf16", "int8", "weight=int4,activation=fp16"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = write_encoder(tmp_path_factory.mktemp("mixed") / "minilm.onnx", layers=1)
    return path, ax.sensitivity(path, FORMATS, samples=4)


@pytest.fixture(scope="module")
def network():
    path = orientation()
    return path, ax.sensitivity(path, ["fp16", "int8"], samples=1)


def uniform(path, device, text, **settings):
    return ax.simulate(path, device, precision=text, **settings)


@pytest.mark.parametrize("objective", ["latency", "energy"])
@pytest.mark.parametrize("device", ["t4", "tpu-v4"])
def test_at_the_cost_of_uniform_int8_the_error_is_never_larger(encoder, device, objective):
    path, measured = encoder
    formats = ["fp16" if device == "t4" else "bf16", "int8"]
    name = "latency_s" if objective == "latency" else "energy_j"
    limit = uniform(path, device, "int8", batch=64).summary[name]
    if np.isnan(limit):
        with pytest.raises(RequestError, match="the energy is not known"):
            ax.mixed_precision(path, device, limit=1.0, objective=objective, sensitivity_of=measured)
        return
    found = ax.mixed_precision(
        path, device, limit=limit, objective=objective, formats=formats, sensitivity_of=measured, batch=64
    )
    assert found.cost <= limit
    assert found.error <= measured.error("int8")
    assert found.bound <= found.predicted_error * (1 + 1e-9)


def test_within_the_error_of_uniform_int8_the_cost_is_never_larger(network):
    path, measured = network
    budget = measured.error("int8")
    int8 = uniform(path, "t4", "int8", batch=8).summary["latency_s"]
    found = ax.mixed_precision(
        path, "t4", budget=budget, formats=["fp16", "int8"], sensitivity_of=measured, batch=8
    )
    assert found.error <= budget
    assert found.cost <= int8
    assert found.exact
    assert found.bound <= found.cost * 1.05


def test_a_tighter_budget_costs_more_and_is_met_as_measured(network):
    path, measured = network
    settings = {"formats": ["fp16", "int8"], "sensitivity_of": measured, "batch": 64}
    half = 0.5 * measured.error("int8")
    found = ax.mixed_precision(path, "t4", budget=half, **settings)
    fp16, int8 = (uniform(path, "t4", f, batch=64).summary["latency_s"] for f in ("fp16", "int8"))
    assert int8 < found.cost < fp16
    assert measured.error(found.choice) == found.error <= half
    assert set(found.choice.values()) == {"fp16", "int8"}
    again = ax.simulate(path, "t4", batch=64, precision=found.plan)
    assert again.summary["latency_s"] == found.cost
    assert plan(found.plan.name) == found.plan
    assert found.frame.precision.tolist() == list(found.choice.values())
    assert found.frame.latency_s.sum() == pytest.approx(found.cost, rel=0.25)
    assert len(found.compared) == len(found.trials)
    assert any("measured" in note for note in found.notes)


def test_default_formats_are_those_of_the_device(encoder):
    path, _ = encoder
    found = ax.mixed_precision(path, "t4", budget=0.01, samples=2)
    known = {"fp16", "int8", "int4", "weight=int8,activation=fp16", "weight=int4,activation=fp16"}
    assert set(found.measured_formats) == known
    assert found.error <= 0.01


def test_what_cannot_be_met_is_infeasible_with_the_best_there_is(encoder):
    path, measured = encoder
    nothing = ax.mixed_precision(path, "t4", budget=1e-7, formats=FORMATS, sensitivity_of=measured)
    assert not nothing.feasible
    assert nothing.reason == "accuracy"
    assert "at the least" in nothing.have
    slow = ax.mixed_precision(path, "t4", limit=1e-9, formats=FORMATS, sensitivity_of=measured)
    assert slow.reason == "latency"


def test_mistakes_are_one_line(encoder):
    path, measured = encoder
    with pytest.raises(RequestError, match="either budget"):
        ax.mixed_precision(path, "t4")
    with pytest.raises(RequestError, match="budget -1 is not a positive number"):
        ax.mixed_precision(path, "t4", budget=-1)
    with pytest.raises(RequestError, match="unknown objective 'power'"):
        ax.mixed_precision(path, "t4", budget=0.1, objective="power")
    with pytest.raises(RequestError, match=r"fp8_e4m3 was not measured"):
        ax.mixed_precision(path, "h100-sxm", budget=0.1, formats=["fp8"], sensitivity_of=measured)
    only = ax.sensitivity(minilm(), "int8", layers=["pooler.dense.weight"])
    with pytest.raises(RequestError, match="only weights were measured"):
        ax.mixed_precision(path, "t4", budget=0.1, formats=["int8"], sensitivity_of=only)


def test_a_streaming_pipeline_gets_the_plan_of_fewest_bit_operations_that_is_really_faster():
    path = wheel_file("qonnx", "data", "onnx", "mnist-conv", "model.onnx")
    formats = ["int8", "int4", "weight=int4,activation=int8"]
    measured = ax.sensitivity(path, formats, samples=16)
    loose = 0.5 * measured.error("int4")
    found = ax.mixed_precision(path, "pynq-z2-finn", budget=loose, formats=formats, sensitivity_of=measured)
    assert found.error <= loose
    assert np.isnan(found.bound)
    assert not found.exact
    for name in formats:
        if measured.error(name) <= loose:
            assert found.cost <= uniform(path, "pynq-z2-finn", name).summary["latency_s"]
    assert "bit_operations" in found.frame
    with pytest.raises(RequestError, match="give a budget of error"):
        ax.mixed_precision(path, "pynq-z2-finn", limit=1.0, formats=formats, sensitivity_of=measured)
