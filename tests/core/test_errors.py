"""Errors: one line, hints, and a trip through a worker process."""

from __future__ import annotations

import pickle

import pytest

from accelsim.core.errors import AccelsimError, ConfigError, MissingExtraError, UnitError, did_you_mean
from accelsim.core.outcome import Infeasible, InfeasibleError


def test_text_has_place_what_and_hint() -> None:
    assert str(ConfigError("what", "where", "hint")) == "where: what; hint"
    assert str(ConfigError("what")) == "what"
    assert str(ConfigError("what", hint="hint")) == "what; hint"


@pytest.mark.parametrize(
    "error",
    [
        UnitError("a", "b", "c"),
        MissingExtraError("onnx", "onnx", "reading ONNX files"),
        InfeasibleError("memory", "80 GB", "24 GB", "quantise"),
    ],
)
def test_survives_pickling(error: AccelsimError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_did_you_mean() -> None:
    names = [f"name-{i}" for i in range(30)] + ["h100-sxm", "h200-sxm"]
    assert did_you_mean("h100-smx", names).startswith("did you mean h100-sxm")
    assert did_you_mean("H100", names).startswith("did you mean h100-sxm")
    assert did_you_mean("zzz", names) == "there are 32 known names"
    assert did_you_mean("zzz", ["a", "b"]) == "known names: a, b"


def test_infeasible_is_a_row() -> None:
    outcome = Infeasible("memory", "80 GB", "24 GB", "quantise", {"workload": "w", "hardware": "h"})
    assert not outcome.feasible
    assert outcome.summary["status"] == "infeasible"
    assert outcome.summary["workload"] == "w"
    assert str(outcome) == "w on h: infeasible (memory): needs 80 GB, has 24 GB; quantise"
