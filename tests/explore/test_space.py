"""Spaces count their points exactly, and find mistakes before anything runs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.core.errors import AccelsimError
from accelsim.explore.conditions import condition
from accelsim.explore.space import Space, linear, log

BASE = {"workload": "resnet18", "hardware": ["t4", "l4"]}


@given(
    batches=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    contexts=st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True),
    limit=st.integers(0, 64),
)
def test_a_space_is_the_filtered_product(batches, contexts, limit):
    axes = {**BASE, "batch": batches, "context": contexts}
    expected = [
        {"workload": "resnet18", "hardware": h, "batch": b, "context": c, "precision": None}
        for h, b, c in itertools.product(BASE["hardware"], batches, contexts)
        if b >= limit or c % 2
    ]
    if not expected:
        with pytest.raises(AccelsimError, match="no point"):
            Space(axes, where=f"batch >= {limit} or context % 2 == 1")
        return
    space = Space(axes, where=f"batch >= {limit} or context % 2 == 1")
    assert list(space.points()) == expected
    assert len(space) == len(expected)


def test_zipped_axes_advance_together():
    space = Space({**BASE, "batch": [1, 2], "precision": ["fp16", "int8"]}, zipped=[("batch", "precision")])
    assert [(p["hardware"], p["batch"], p["precision"]) for p in space.points()] == [
        ("t4", 1, "fp16"),
        ("t4", 2, "int8"),
        ("l4", 1, "fp16"),
        ("l4", 2, "int8"),
    ]


def test_formats_only_where_the_device_has_them():
    space = Space(
        {"workload": "resnet18", "hardware": ["t4", "l4"], "precision": ["fp16", "fp8_e4m3"]},
        where="computes(hardware, precision)",
    )
    assert [(p["hardware"], p["precision"]) for p in space.points()] == [
        ("t4", "fp16"),
        ("l4", "fp16"),
        ("l4", "fp8_e4m3"),
    ]


def test_ranges():
    assert linear(0, 10, 3) == [0, 5, 10]
    assert linear(0, 1, 3) == [0.0, 0.5, 1.0]
    assert log(1, 1000, 4) == [1, 10, 100, 1000]
    assert log("1 GB/s", "100 GB/s", 3) == ["1 GB/s", "10 GB/s", "100 GB/s"]
    for bad in (
        lambda: linear(1, 1, 3),
        lambda: linear(0, 1, 1),
        lambda: log(0, 1, 3),
        lambda: linear("1 GB", "2 MB", 3),
        lambda: log("x", "y", 3),
    ):
        with pytest.raises(AccelsimError):
            bad()


def test_hardware_parameters_change_the_device():
    study = ax.sweep(
        "resnet18", "tpu-v4", batch=8, precision="bf16", **{"memory.bandwidth": ["0.6 TB/s", "2.4 TB/s"]}
    )
    slow, fast = study.frame.latency_s
    assert slow > fast
    assert study.frame["memory.bandwidth"].tolist() == ["0.6 TB/s", "2.4 TB/s"]
    assert set(study.frame.hardware) == {"tpu-v4"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bacth": [1, 2]}, "batch"),
        ({"memory.bandwith": ["1 TB/s"]}, "memory.bandwidth"),
        ({"batch": []}, "batch"),
        ({"workload": "resnet5"}, "resnet"),
        ({"workload": "no/such.onnx"}, "no such file"),
        ({"memory.bandwidth": ["1 GB"]}, "1 GB"),
    ],
)
def test_mistakes_are_named(change, named):
    with pytest.raises(AccelsimError, match=named):
        Space({**BASE, **change})


@pytest.mark.parametrize(
    "text",
    [
        "batch >",
        "bacth > 1",
        "open('x')",
        "batch.real > 1",
        "[b for b in batch]",
        "batch > 'x'",
        "1 / 0 == batch",
    ],
)
def test_conditions_that_cannot_be_read_are_refused(text):
    with pytest.raises(AccelsimError) as caught:
        Space({**BASE, "batch": [1, 2]}, where=text)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conditions_evaluate_like_python():
    names = {"a": 3, "b": "x", "c.d": 2.5}
    for text, value in {
        "a + 1 < 5 and not b == 'y'": True,
        "1 < a <= 3": True,
        "b in ['x', 'z']": True,
        "a // 2 * 2 == a or c.d > 3": False,
        "-a < 0": True,
    }.items():
        assert condition(text, names, {}).holds(names) is value
