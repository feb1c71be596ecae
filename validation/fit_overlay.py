"""Fit the ZCU104 overlay's constants, and its error band: ``python validation/fit_overlay.py [--json]``.

Data: single-thread rates of the Vitis AI 2.0 model zoo (``fpga/vitis-ai-2.0-zcu104.yaml``), the families
whose name has an odd SHA-256; `accelsim.validate.fpga.held_out` says which the others are, and those are
never read here. Objective: mean absolute logarithm of predicted over measured time; every family weighs the
same. The search is Nelder-Mead on the logarithms of the constants from the shipped ones and from fixed other
starts, so it repeats itself.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from accelsim.architectures.base import Options
from accelsim.architectures.fpga import ARCHITECTURE
from accelsim.core.paths import data_folder
from accelsim.core.yamlfile import read_yaml
from accelsim.hardware.spec import load_hardware
from accelsim.validate.fpga import OVERLAY, ZOO, held_out
from accelsim.validate.fpga_networks import network

NAMES = ("overlay.port [GB/s]", "overlay.instruction [us]", "overlay.driver [us]", "overlay.preprocess [ns]",
         "overlay.depthwise")  # fmt: skip
UNITS = np.array([1e9, 1e-6, 1e-6, 1e-9, 1.0])

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One network: what its layers ask for, and what was measured.

    Attributes
    ----------
    plain_s, depthwise_s : array
        Compute of each layer; a depthwise layer's with all lanes at work [s].
    moved_bytes : array
        Of each layer [B].
    elements : float
        That the host prepares.
    measured_s : float
    """

    name: str
    family: str
    plain_s: Floats
    depthwise_s: Floats
    moved_bytes: Floats
    elements: float
    measured_s: float

    def predicted_s(self, constants: Floats) -> float:
        """As `accelsim.architectures.fpga.overlay` adds a batch of one up [s]."""
        port, instruction, driver, preprocess, share = constants
        compute = self.plain_s + self.depthwise_s / min(share, 1.0)
        layers = np.maximum(compute, self.moved_bytes / port) + instruction
        return float(layers.sum() + driver + preprocess * self.elements)


def rows() -> list[Row]:
    """The networks of the families that may be fitted on."""
    device = load_hardware(OVERLAY)
    clock = device.overlay.clock_hz
    shares = [device.replace(**{"overlay.depthwise": value}) for value in (1.0, 0.5)]
    found = []
    for entry in read_yaml(data_folder("validation") / "fpga" / ZOO)["networks"]:
        if held_out(entry["family"]):
            continue
        graph = network(entry["builder"], **entry["parameters"])
        programs = [ARCHITECTURE.lower(graph, d, Options()) for d in shares]
        full, half = (np.array([c.cycles_compute for c in ARCHITECTURE.cost(p)]) / clock for p in programs)
        repeats = np.array([k.repeat for k in programs[0].kernels])
        moved = np.array([c.bytes_by_level["dram"] for c in ARCHITECTURE.cost(programs[0])])
        depthwise = half > 1.5 * full
        times = np.repeat(np.arange(len(full)), repeats)
        found.append(
            Row(
                entry["name"],
                entry["family"],
                np.where(depthwise, 0.0, full)[times],
                np.where(depthwise, full, 0.0)[times],
                moved[times],
                float(sum(t.elements for t in graph.inputs)),
                1.0 / entry["single_fps"],
            )
        )
    return found


def errors(data: list[Row], constants: Floats) -> Floats:
    """log(predicted / measured) of each network."""
    return np.array([np.log(r.predicted_s(constants) / r.measured_s) for r in data])


def loss(data: list[Row], constants: Floats) -> float:
    """Mean absolute error, every family weighing the same."""
    found = np.abs(errors(data, constants))
    families = sorted({r.family for r in data})
    return float(np.mean([found[[r.family == f for r in data]].mean() for f in families]))


def fit(data: list[Row], first: Floats) -> Floats:
    """The constants with the least loss of all starts."""
    best, least = first, loss(data, first)
    for port, instruction, driver in product((0.7, 1.0, 1.4), (0.5, 2.0), (0.5, 2.0)):
        start = first * np.array([port, instruction, driver, 1.0, 1.0])
        told = minimize(
            lambda x: loss(data, np.exp(x)),
            np.log(start),
            method="Nelder-Mead",
            options={"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-6},
        )
        if told.fun < least - 1e-6:
            best, least = np.exp(told.x), float(told.fun)
    best[-1] = min(best[-1], 1.0)
    return best


def shipped() -> Floats:
    """The constants of the hardware file."""
    e = load_hardware(OVERLAY).overlay
    return np.array([e.port_bytes_per_s, e.instruction_s, e.driver_s, e.preprocess_s, e.depthwise])


def main() -> None:
    data, now = rows(), shipped()
    best = fit(data, now)
    found = {}
    for name, constants in (("shipped", now), ("fitted", best)):
        ratio = np.exp(-errors(data, constants))  # measured over predicted
        found[name] = {
            **dict(zip(NAMES, (constants / UNITS).tolist())),
            "loss": loss(data, constants),
            "median_ape_pct": 100 * float(np.median(np.abs(1 / ratio - 1))),
            "band_low": float(np.quantile(ratio, 0.1)),
            "band_high": float(np.quantile(ratio, 0.9)),
        }
    if "--json" in sys.argv:
        lines = [json.dumps(found)]
    else:
        lines = [f"{len(data)} networks of {len({r.family for r in data})} families"]
        lines.append(f"{'':<28}{'shipped':>12}{'fitted':>12}")
        for name, value in found["shipped"].items():
            lines.append(f"{name:<28}{value:>12.4g}{found['fitted'][name]:>12.4g}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
