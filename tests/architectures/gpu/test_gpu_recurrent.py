"""Recurrent layers step by step and persistent, and software stacks as data."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.architectures.gpu.host import host_bound_s, launch_gap_s
from accelsim.architectures.gpu.recurrent import REGISTER_SHARE, step_s
from accelsim.architectures.gpu.recurrent_table import recurrent_rows
from accelsim.core.precision import plan
from accelsim.core.precision import precision as fmt
from accelsim.hardware.spec import load_hardware
from accelsim.workload.graph import Graph, Op, Tensor

V100 = load_hardware("v100-sxm")


def layer(hidden, steps, batch=16, kind="lstm", gates=4):
    fp16 = fmt("fp16")
    x = Tensor("x", (steps, batch, hidden), fp16, batch_axis=1)
    w_ih = Tensor("w_ih", (gates * hidden, hidden), fp16, role="weight")
    w_hh = Tensor("w_hh", (gates * hidden, hidden), fp16, role="weight")
    y = Tensor("y", (steps, batch, hidden), fp16, batch_axis=1)
    return Graph("layer", [Op("rnn", kind, (x, w_ih, w_hh), (y,), {"hidden": hidden, "directions": 1})])


def test_steps_wait_for_each_other(run):
    short, long = (run(layer(1024, t), V100)[1][0].latency_s for t in (50, 100))
    assert 1.9 < long / short < 2.1


def test_a_step_streams_weights_that_do_not_fit_the_l2(run):
    hidden, steps = 4096, 25
    _, (cost,) = run(layer(hidden, steps), V100)
    held = 4 * hidden * hidden * 2
    assert cost.bytes_by_level["dram"] >= steps * held * 0.99
    assert cost.latency_s >= steps * held / V100.memory.bandwidth_bytes_per_s


def test_persistent_kernels_keep_small_weights_in_registers(run):
    (stepwise,), (persistent,) = (
        run(layer(512, 100), V100)[1],
        run(layer(512, 100), V100, stack="tensorrt")[1],
    )
    assert persistent.mapping.startswith("persistent")
    assert persistent.latency_s < stepwise.latency_s / 3
    assert persistent.bytes_by_level["dram"] <= stepwise.bytes_by_level["dram"] * (1 + 1e-9)
    registers = 4 * V100.sm.registers * V100.sm.count
    assert REGISTER_SHARE * registers < 4 * 4096 * 4096 * 2
    assert not run(layer(4096, 10), V100, stack="tensorrt")[1][0].mapping.startswith("persistent")


@pytest.mark.parametrize("stack", ["graph", "tensorrt"])
def test_a_layer_never_beats_its_bound(run, stack):
    for hidden in (256, 1024, 3000):
        graph = layer(hidden, 20)
        tile = run(graph, V100, stack=stack, cold=True, governor=False)[1][0]
        assert tile.latency_s >= run(graph, V100, stack=stack, cold=True, fidelity="analytic")[1][0].latency_s


def test_rows_without_an_input_product_are_cheaper_and_scale_with_steps():
    columns = {"hidden": [1024] * 3, "steps": [10, 10, 20], "batch": [16] * 3, "input": [1024, 0, 0]}
    shapes = {name: np.array(values, dtype=float) for name, values in columns.items()}
    latency, bound, dram, *_ = recurrent_rows("lstm", shapes, plan("fp16"), V100, "graph", False)
    assert latency[1] < latency[0]
    assert latency[2] == pytest.approx(2 * latency[1])
    assert dram[2] == pytest.approx(2 * dram[1])
    assert latency[1] >= 10 * step_s(V100, "graph", "lstm")
    assert (bound >= 0).all()


def test_serving_stacks_replay_graphs_with_their_fusions(toy, run):
    for name in ("vllm", "trtllm", "sglang"):
        assert launch_gap_s(toy, name) == toy.launch.graph_s
        assert host_bound_s(toy, name) == 0
    assert launch_gap_s(toy, "eager") == toy.launch.stream_s
    assert host_bound_s(toy, "eager") == toy.launch.eager_s
