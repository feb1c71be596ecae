"""The power fit finds constants that made the rows, and the readings' rule tells one from several."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import accelsim as ax
from accelsim.calibration.power import Sensor, fit_power, fit_sensor, predict_power
from accelsim.core.errors import RequestError
from accelsim.hardware.power_kernels import PowerModel
from accelsim.validate.power import errors, single_reading

TRUTH = PowerModel(active=0.2, mac=3.0, dram=2.0)


def layers(count: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "op": "moe",
            "precision": "bf16",
            "tokens": 2.0 ** random.integers(2, 13, count),
            "hidden": random.choice([2048, 4096, 6144], count),
            "intermediate": random.choice([1024, 2048], count),
            "experts": 64,
            "topk": 4,
        }
    )
    return frame.assign(latency_s=ax.predict_ops(frame, "b200", stack="vllm")["latency_s"] * 1.5)


def test_the_fit_finds_the_constants_behind_the_rows():
    device = ax.load_hardware("b200")
    kernels = device.kernels.model_copy(update={"power": {"product": TRUTH}})
    made = device.model_copy(update={"kernels": kernels, "hash": "made"})
    frame = layers()
    frame["power_w"] = predict_power(frame, made, "vllm")
    (found,) = fit_power(frame, device, "vllm")
    assert found.family == "product"
    assert found.error < 1e-3
    for name in ("active", "mac", "dram"):
        assert getattr(found.model, name) == pytest.approx(getattr(TRUTH, name), rel=0.05)


def test_a_table_without_power_is_refused():
    with pytest.raises(RequestError, match="power_w"):
        fit_power(layers(3), ax.load_hardware("b200"), "vllm")


def test_means_of_several_readings_are_told_from_one_reading():
    readings = [700_123, 701_500, 698_001]  # milliwatts
    frame = pd.DataFrame({"power_w": [readings[0] / 1e3, sum(readings) / 3e3 + 1e-4]})
    assert single_reading(frame).tolist() == [True, False]


def test_errors_are_in_percent_of_the_measurement():
    frame = pd.DataFrame(
        {"quality": ["a", "a", "b"], "power_w": [100.0, 200, 400], "predicted_w": [110.0, 180, 400]}
    )
    table = errors(frame, ["quality"]).set_index("quality")
    assert table.loc["a", "mape_pct"] == pytest.approx(10)
    assert table.loc["all", "rows"] == 3


def test_the_sensor_shows_what_ran_before_and_then_the_kernel():
    sensor = Sensor(before_w=300.0, settling_s=1e-4)
    assert sensor.reading_w(np.array([900.0]), np.array([1e-9]))[0] == pytest.approx(300, abs=0.1)
    assert sensor.reading_w(np.array([900.0]), np.array([1e-2]))[0] == pytest.approx(900)
    assert sensor.reading_w(np.array([900.0]), np.array([1e-4 * np.log(2)]))[0] == pytest.approx(600)


def test_the_fit_finds_the_sensor_behind_the_readings():
    random = np.random.default_rng(5)
    taken, true = 10 ** random.uniform(-5.3, -3, 400), random.uniform(250, 950, 400)
    made = {"moe": Sensor(420.0, 9e-5), "attention_decode": Sensor(350.0, 2e-5)}
    frames = [
        pd.DataFrame({"op": op, "latency_s": taken, "predicted_w": true, "power_w": s.reading_w(true, taken)})
        for op, s in made.items()
    ]
    found = fit_sensor(pd.concat(frames, ignore_index=True))
    for op, sensor in made.items():
        assert found[op].before_w == pytest.approx(sensor.before_w, rel=0.01)
        assert found[op].settling_s == pytest.approx(sensor.settling_s, rel=0.02)
