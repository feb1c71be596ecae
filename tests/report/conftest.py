"""A few results that the tests of reports share."""

from __future__ import annotations

import pytest

import accelsim as ax


@pytest.fixture(scope="session")
def gpu():
    return ax.simulate("resnet18", "a100-sxm", batch=8, precision="int8")


@pytest.fixture(scope="session")
def systolic():
    return ax.simulate("resnet18", "gemmini", batch=2)


@pytest.fixture(scope="session")
def pipeline():
    return ax.simulate("finn-tfc", "pynq-z2-finn", batch=4)


@pytest.fixture(scope="session")
def impossible():
    return ax.simulate("llama-3.1-70b", "t4")


@pytest.fixture(scope="session")
def study():
    return ax.sweep(
        "resnet18",
        ["a100-sxm", "t4", "gemmini"],
        batch=ax.pow2(1, 16),
        precision=["fp16", "int8", "fp8_e4m3"],
    )


@pytest.fixture(scope="session")
def served():
    return ax.serve(ax.LinearService(0.004, 0.0005), arrivals=ax.Poisson(400), requests=2000, slo_s=0.02)
