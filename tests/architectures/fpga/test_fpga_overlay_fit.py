"""The script that fits the overlay's constants."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import accelsim as ax
from accelsim.core.paths import data_folder
from accelsim.core.yamlfile import read_yaml
from accelsim.validate.fpga import OVERLAY, ZOO, held_out
from accelsim.validate.fpga_networks import network

SCRIPT = Path(__file__).resolve().parents[3] / "validation" / "fit_overlay.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fit_overlay", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(script):
    return script.rows()


def test_it_reads_no_family_that_is_scored(data):
    zoo = read_yaml(data_folder("validation") / "fpga" / ZOO)["networks"]
    assert {r.name for r in data} == {e["name"] for e in zoo if not held_out(e["family"])}
    assert not {r.family for r in data} & {e["family"] for e in zoo if held_out(e["family"])}


def test_its_times_are_those_of_the_model(script, data):
    zoo = {e["name"]: e for e in read_yaml(data_folder("validation") / "fpga" / ZOO)["networks"]}
    for row in data[::6]:
        graph = network(zoo[row.name]["builder"], **zoo[row.name]["parameters"])
        told = ax.simulate(graph, OVERLAY).summary["latency_s"]
        assert row.predicted_s(script.shipped()) == pytest.approx(told, rel=1e-9)


def test_the_shipped_constants_are_the_fit(script, data):
    """No constant that is moved alone gains more than 2 % of the loss, and the band is that of the rows."""
    now = script.shipped()
    least = script.loss(data, now)
    for i in range(len(now)):
        for factor in (0.8, 0.9, 1.1, 1.25):
            moved = now * np.where(np.arange(len(now)) == i, factor, 1.0)
            assert script.loss(data, moved) >= 0.98 * least
    ratio = np.exp(-script.errors(data, now))
    overlay = ax.load_hardware(OVERLAY).overlay
    assert np.quantile(ratio, 0.1) == pytest.approx(overlay.band_low, abs=0.02)
    assert np.quantile(ratio, 0.9) == pytest.approx(overlay.band_high, abs=0.02)
