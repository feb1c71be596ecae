"""Overlays: layer times by hand, laws."""

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.architectures.base import Options
from accelsim.architectures.fpga import ARCHITECTURE
from accelsim.architectures.fpga.overlay import traffic
from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError
from accelsim.core.precision import precision
from accelsim.engine.simulate import simulate
from accelsim.workload.builders.layers import GraphBuilder


def one_conv(channels=64, filters=128, size=28, groups=1, batch=1):
    b = GraphBuilder("one", "int8")
    b.conv(b.input("x", 1, channels, size, size), filters, 3, groups=groups)
    return b.build(item="image").with_batch(batch)


def run(graph, board, **options):
    program = ARCHITECTURE.lower(graph, board, Options(**options))
    return program, ARCHITECTURE.cost(program)


def total(program, costs):
    return sum(k.repeat * c.latency_s for k, c in zip(program.kernels, costs))


def test_a_dense_convolution_by_hand(make_overlay):
    _, (cost,) = run(one_conv(), make_overlay())
    assert cost.cycles_compute == 28 * ceil(28 / 8) * ceil(64 / 16) * ceil(128 / 16) * 9
    assert cost.cycles_overhead == pytest.approx((5e-6 + 100e-6) * 300e6)
    assert cost.bytes_by_level["dram"] == 64 * 784 + 128 * 784 + 9 * 64 * 128
    assert cost.energy_j["mac"] == pytest.approx(784 * 9 * 64 * 128 * 2e-12)


def test_channels_are_padded_to_the_parallelism(make_overlay):
    """Three input channels take as long as sixteen."""
    few, many = run(one_conv(3), make_overlay())[1][0], run(one_conv(16), make_overlay())[1][0]
    assert few.cycles_compute == many.cycles_compute


def test_depthwise_uses_one_input_channel_per_output(make_overlay):
    depthwise = run(one_conv(64, 64, groups=64), make_overlay())[1][0]
    assert depthwise.cycles_compute == 28 * ceil(28 / 8) * ceil(64 / 16) * 9
    dense = run(one_conv(64, 64), make_overlay())[1][0]
    assert dense.cycles_compute == depthwise.cycles_compute * ceil(64 / 16)


def test_cores_take_images_in_turn(make_overlay):
    """Two cores: two images take as long as one in compute, three as long as four."""
    cycles = [run(one_conv(batch=b), make_overlay())[1][0].cycles_compute for b in (1, 2, 3, 4)]
    assert cycles[0] == cycles[1] == cycles[2] / 2 == cycles[3] / 2


def test_traffic_rereads_the_cheaper_operand():
    assert traffic(100, 200, 50, 1000) == 350
    assert traffic(1000, 10, 5, 1000) == 1015  # maps fit: weights once
    assert traffic(10, 1000, 5, 1000) == 1015
    assert traffic(2000, 1500, 5, 1000) == min(2000 + 1500 * 4, 1500 + 2000 * 3) + 5


def test_layers_without_an_instruction_run_on_the_host_and_say_so(make_overlay):
    b = GraphBuilder("host", "int8")
    b.softmax(b.linear(b.input("x", 1, 64), 64))
    program, costs = run(b.build(), make_overlay())
    assert any("host" in note and "softmax" in note for note in program.notes)
    assert costs[-1].mapping == "host"
    assert costs[-1].bound == "memory"


def test_floats_and_large_models_are_refused(make_overlay):
    graph = one_conv().map_tensors(lambda t: replace(t, precision=precision("fp16")))
    with pytest.raises(InfeasibleError) as caught:
        run(graph, make_overlay())
    assert caught.value.outcome.reason == "precision"
    assert simulate(one_conv(), make_overlay(**{"memory.capacity": "100 kB"})).reason == "memory"
    program, costs = run(one_conv(), make_overlay())
    with pytest.raises(RequestError, match="in turn"):
        ARCHITECTURE.pipeline(program, costs)


nets = st.builds(
    one_conv,
    st.sampled_from([3, 16, 64, 100]),
    st.sampled_from([8, 64, 200]),
    st.sampled_from([7, 28]),
    batch=st.sampled_from([1, 3, 8]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    graph=nets,
    path=st.sampled_from(["bandwidth", "clock", "cores", "buffer"]),
    factor=st.sampled_from([1.5, 2, 4]),
)
def test_laws(make_overlay, graph, path, factor):
    program, costs = run(graph, make_overlay())
    bound = run(graph, make_overlay(), fidelity="analytic")
    assert total(program, costs) >= total(*bound)
    for kernel, cost in zip(program.kernels, costs):
        assert cost.bytes_by_level["dram"] >= kernel.bytes_compulsory
    change = {
        "bandwidth": {"memory.bandwidth": f"{10 * factor} GB/s"},
        "clock": {"overlay.clock": f"{300 * factor} MHz"},
        "cores": {"overlay.cores": round(2 * factor)},
        "buffer": {"overlay.buffer": f"{factor} MiB"},
    }[path]
    assert total(*run(graph, make_overlay(**change))) <= total(program, costs) * (1 + 1e-12)
