"""Collectives: closed forms, limits, laws, and the same numbers from graphs and tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.architectures.base import Options
from accelsim.architectures.gpu import ARCHITECTURE
from accelsim.architectures.gpu.collectives import (
    SWITCH_RANKS,
    UNKNOWN,
    collective_models,
    collective_rows,
    ring_steps,
)
from accelsim.calibration.splits import held_out
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import plan, precision
from accelsim.hardware.spec import load_hardware
from accelsim.validate import aiconfigurator
from accelsim.workload.graph import Graph, Op, Tensor

OPS = ("allreduce", "allgather", "reducescatter", "alltoall", "sendrecv")
DEVICES = ("a100-sxm", "h100-sxm", "b200", "l40s", "rtx-pro-6000", "mi300x", "t4")


def one(op, size, ranks, device, stack="graph", **more):
    return float(collective_rows(op, np.array([size]), np.array([ranks]), device, stack, **more)[0])


def test_an_unknown_link_takes_the_means_of_the_measured_ones(toy):
    """A large reduction is the ring that reaches most of the link."""
    size, p = 640e6, 4
    steps = 2 * (p - 1)
    known = toy.kernels.collective
    simple = known[UNKNOWN]["up_to_8"].ring["simple"]
    shares = [known[f"NVLink{i}"]["up_to_8"].ring["simple"].efficiency for i in (3, 4, 5)]
    assert simple.efficiency == pytest.approx(np.prod(shares) ** (1 / 3), rel=1e-3)
    expected = simple.fixed_s + steps * simple.step_s
    expected += size / p * (steps + simple.copies) / (simple.efficiency * 100e9)
    assert one("allreduce", size, p, toy) == pytest.approx(expected)


def test_steps():
    p = np.array([2.0, 8.0])
    assert ring_steps("allreduce", p).tolist() == [2, 14]
    assert ring_steps("allgather", p).tolist() == [1, 7]
    assert ring_steps("sendrecv", p).tolist() == [1, 1]


def test_the_time_is_the_least_of_straight_lines():
    device = load_hardware("h100-sxm")
    ((_, model),) = collective_models(device)
    size, p = 3e6, 4.0
    lines = [
        q.fixed_s
        + q.step_s * 3
        + size / p * (3 + q.copies) / (q.efficiency * device.link.bandwidth_bytes_per_s)
        for q in model.ring.values()
    ]
    assert one("allgather", size, p, device) == pytest.approx(min(lines))


def test_the_switch_adds_floats_of_many_devices_only():
    device = load_hardware("h100-sxm")
    size = 512e6
    assert one("allreduce", size, SWITCH_RANKS, device) < one(
        "allreduce", size, SWITCH_RANKS, device, floats=False
    )
    assert one("allreduce", size, 4, device) == one("allreduce", size, 4, device, floats=False)


def test_nearest_generation_and_ranks():
    assert collective_models(load_hardware("v100-sxm")) == collective_models(load_hardware("a100-sxm"))
    assert collective_models(load_hardware("h100-pcie")) == collective_models(load_hardware("rtx-pro-6000"))
    reaches = [reach for reach, _ in collective_models(load_hardware("l40s"))]
    assert reaches == [2, 4, 8]
    # More devices than measured take the largest set.
    assert (
        one("alltoall", 1e6, 16, load_hardware("l40s")) > one("alltoall", 1e6, 8, load_hardware("l40s")) / 2
    )


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("op", OPS)
@settings(max_examples=30, deadline=None)
@given(size=st.floats(1, 1e10), ranks=st.integers(2, 16), stack=st.sampled_from(["graph", "vllm", "trtllm"]))
def test_laws(name, op, size, ranks, stack):
    device = load_hardware(name)
    took = one(op, size, ranks, device, stack)
    share = 1.0 if op == "sendrecv" else ring_steps(op, np.array(float(ranks))) / ranks
    assert took >= share * size / device.link.bandwidth_bytes_per_s
    assert one(op, 2 * size, ranks, device, stack) >= took
    assert one(op, 2 * size, ranks, device, stack) <= 2 * took * (1 + 1e-9)


def test_rows_are_independent():
    device = load_hardware("l40s")
    sizes, ranks = np.array([1e3, 1e6, 1e9, 1e6]), np.array([2.0, 4.0, 8.0, 2.0])
    together = collective_rows("allreduce", sizes, ranks, device)
    assert together.tolist() == [one("allreduce", a, b, device) for a, b in zip(sizes, ranks)]


@pytest.mark.parametrize(
    ("kind", "op", "shapes"),
    [
        ("all_reduce", "allreduce", ((1024, 4096), (1024, 4096))),
        ("all_gather", "allgather", ((256, 4096), (1024, 4096))),
        ("reduce_scatter", "reducescatter", ((1024, 4096), (256, 4096))),
        ("all_to_all", "alltoall", ((1024, 4096), (1024, 4096))),
        ("send", "sendrecv", ((1024, 4096), (1024, 4096))),
    ],
)
def test_graph_and_table_agree(kind, op, shapes):
    device = load_hardware("a100-sxm")
    x, y = (Tensor(n, s, precision("fp16"), batch_axis=0) for n, s in zip("xy", shapes))
    program = ARCHITECTURE.lower(Graph("g", [Op("c", kind, (x,), (y,), {"devices": 4})]), device, Options())
    (cost,) = ARCHITECTURE.cost(program)
    columns = {"bytes": np.array([1024 * 4096 * 2.0]), "ranks": np.array([4.0])}
    table = ARCHITECTURE.predict(op, columns, plan("fp16"), device, Options())
    assert cost.latency_s == pytest.approx(table.latency_s[0])


def test_a_device_without_a_link_says_so():
    with pytest.raises(InfeasibleError):
        one("allreduce", 1e6, 2, load_hardware("jetson-orin"))


@pytest.mark.parametrize("name", ["a100-sxm", "h100-sxm", "l40s", "rtx-pro-6000", "b200"])
def test_held_out_nccl_measurements(name):
    pytest.importorskip("aiconfigurator_core", reason="measurements are in aiconfigurator-core")
    device = load_hardware(name)
    frame = aiconfigurator.collectives(name)
    frame = frame[(frame["backend"] == "nccl") & held_out(frame)]
    errors = []
    for (op, fmt), rows in frame.groupby(["op", "precision"], observed=True):
        size, ranks = rows["bytes"].to_numpy(float), rows["ranks"].to_numpy(float)
        took = collective_rows(op, size, ranks, device, floats=fmt != "int8")
        errors.append(np.abs(took / rows["latency_s"].to_numpy() - 1))
    assert 100 * np.concatenate(errors).mean() < 10
