"""Published results through the front door: folding files, resources, latency, batch curves, overlays."""

import json
from pathlib import Path

import numpy as np
import pytest

import accelsim as ax
from accelsim.architectures.base import Options
from accelsim.architectures.fpga import ARCHITECTURE
from accelsim.architectures.fpga.designs import nearest_reuse, unrolled, valid_reuse
from accelsim.core.errors import AccelsimError, RequestError
from accelsim.core.outcome import InfeasibleError

FOLDINGS = Path(__file__).resolve().parents[3].parent / "shared" / "facts" / "finn_folding"
needs_foldings = pytest.mark.skipif(not FOLDINGS.is_dir(), reason="no folder shared/facts/finn_folding")

CNV = [(16, 3), (32, 32), (16, 32), (16, 32), (4, 32), (1, 32), (1, 4), (1, 8), (1, 1)]
FINN_CNV = {
    "Defaults": {},
    "Thresholding_rtl_0": {"PE": 1},
    **{f"ConvolutionInputGenerator_rtl_{i}": {"SIMD": s, "ram_style": "distributed"} for i, s in
       enumerate([3, 32, 32, 32, 32, 32])},
    **{f"MVAU_hls_{i}": {"PE": p, "SIMD": s, "ram_style": "auto", "resType": "lut"} for i, (p, s) in
       enumerate(CNV)},
    "LabelSelect_hls_0": {"PE": 1},
}  # fmt: skip


def layers(*last):
    return {"layers": [{"pe": p, "simd": s} for p, s in CNV[:-1]] + list(last)}


def test_a_finn_folding_file_is_a_drop_in(tmp_path):
    path = tmp_path / "folding.json"
    path.write_text(json.dumps(FINN_CNV))
    result = ax.simulate("finn-cnv", "ultra96-finn", folding=path)
    assert result.summary["throughput_per_s"] == pytest.approx(300e6 / 32768)
    assert any("Thresholding_rtl_0, LabelSelect_hls_0 was not used" in note for note in result.notes)
    same = ax.simulate("finn-cnv", "ultra96-finn", folding=CNV)
    assert same.summary["latency_s"] == result.summary["latency_s"]
    assert same.stamp != result.stamp


def test_the_last_layer_may_be_padded():
    result = ax.simulate("finn-cnv", "ultra96-finn", folding=layers({"pe": 4, "simd": 1, "mh": 64}))
    assert "fc2: padded from 10 to 64 outputs, as the design says" in result.notes
    assert result.ops.set_index("op").cycles_compute["fc2"] == 512 * 64 / 4


@pytest.mark.parametrize(
    ("workload", "folding", "words"),
    [
        ("finn-cnv", [(16, 5)], ["conv0", "SIMD 5 does not divide 27", "legal values: 1, 3, 9, 27"]),
        ("finn-cnv", [(7, 3)], ["PE 7 does not divide 64", "legal values: 1, 2, 4, 8, 16, 32, 64"]),
        ("finn-tfc", FINN_CNV, ["'MVAU_hls_4' has no match among 4", "of another network", "fc0"]),
        ("finn-tfc", CNV, ["9 foldings for 4 matrix units", "of another network"]),
        ("finn-tfc", layers({"pe": 1, "simd": 1}), ["9 foldings for 4 matrix units"]),
        ("finn-cnv", layers({"pe": 1, "simd": 1, "mw": 128}), ["fc2", "of a 128 x 10 layer", "512 x 10"]),
        ("finn-cnv", {"MVAU_hls_0": {"PE": 1}, "MVAU_rtl_0": {"PE": 1}}, ["numbered apart"]),
        ("finn-vgg10", {"MVAU_hls_0": {"PE": 1, "SIMD": 1}}, ["1 mvau nodes for 10 mvau units"]),
        ("finn-cnv", {"conv0": {"PE": 0}}, ["PE '0' is not a whole number above zero"]),
        ("finn-cnv", {"conv9": (1, 1)}, ["no stage 'conv9'", "conv"]),
        ("finn-cnv", {"target_fps": -1}, ["target_fps '-1' is not a rate"]),
        ("finn-cnv", "nothing.json", ["nothing.json"]),
    ],
)
def test_wrong_foldings_are_named_in_one_line(workload, folding, words):
    with pytest.raises(AccelsimError) as caught:
        ax.simulate(workload, "ultra96-finn", folding=folding)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataflow.clock": "0 MHz"}, "must be positive"),
        ({"dataflow": None}, "neither a 'dataflow' nor an 'overlay' section"),
    ],
)
def test_boards_without_a_clock_or_an_engine_do_not_load(changes, words):
    with pytest.raises(AccelsimError) as caught:
        ax.load_hardware("pynq-z2-finn").replace(**changes)
    assert words in str(caught.value)


def test_only_pipelines_have_a_folding():
    with pytest.raises(RequestError, match="overlay has no folding"):
        ax.simulate("finn-cnv", "zcu104-dpu", folding=CNV, precision="int8")
    with pytest.raises(RequestError, match="only streaming pipelines"):
        ax.simulate("resnet50", "tpu-v4", folding=CNV)


def reuse_by_its_rule(n_in, n_out):
    """The three conditions of hls4ml's backend, one after the other."""
    return [
        rf
        for rf in range(1, n_in * n_out + 1)
        if (n_in * n_out) % rf == 0
        and (rf < n_in or rf % n_in == 0)
        and ((-(-n_in * n_out // min(n_in, rf))) % n_out == 0 or rf >= n_in)
        and (rf >= n_in or n_in % rf == 0)
    ]


@pytest.mark.parametrize(("n_in", "n_out"), [(16, 64), (64, 32), (10, 5), (27, 6), (1, 7), (49, 1)])
def test_valid_reuse_factors_follow_the_rule(n_in, n_out):
    valid = valid_reuse(n_in, n_out)
    assert valid == reuse_by_its_rule(n_in, n_out)
    for rf in valid:
        pe, simd = unrolled(rf, n_in, n_out)
        assert (n_in // simd) * (n_out // pe) == rf
        assert pe * simd == n_in * n_out // rf
    assert nearest_reuse(10**9, n_in, n_out) == n_in * n_out


def test_an_hls4ml_configuration_folds_by_reuse(tmp_path):
    path = tmp_path / "hls4ml_config.yml"
    path.write_text(
        "HLSConfig:\n  Model: {ReuseFactor: 16, Precision: 'fixed<16,6>'}\n"
        "  LayerName:\n    fc0: {ReuseFactor: 50}\n"
    )
    result = ax.simulate("finn-tfc", "zcu104-finn", folding=path)
    cycles = result.ops.set_index("op").cycles_compute
    assert cycles["fc0"] == 49  # the divisor of 784 next to 50
    assert cycles["fc1"] == cycles["fc2"] == cycles["fc3"] == 16
    assert "fc0: reuse factor 50 is not valid, 49 takes its place" in result.notes


@pytest.mark.parametrize(
    ("workload", "luts", "blocks"), [("finn-cnv", 26072, 124), ("finn-cnv-w1a2", 40321, 131.5)]
)
def test_implemented_resources_of_bnn_pynq(workload, luts, blocks):
    """Totals after implementation on the XC7Z020, LUT to 25 % and block RAM to 15 %."""
    s = ax.simulate(workload, "pynq-z2-finn", folding=layers({"pe": 4, "simd": 1, "mh": 64})).summary
    assert s["resource_lut"] == pytest.approx(luts, rel=0.25)
    assert s["resource_bram36"] == pytest.approx(blocks, rel=0.15)


@pytest.mark.parametrize(("workload", "seconds"), [("finn-cnv", 527e-6), ("finn-cnv-w1a2", 543e-6)])
def test_one_image_through_cnv(workload, seconds):
    one = ax.simulate(workload, "ultra96-finn", folding=CNV).summary["latency_s"]
    assert one == pytest.approx(seconds, rel=0.12)


@pytest.mark.parametrize("batch", [1, 2, 4, 100, 10000])
def test_batch_curve_of_cnv_against_the_processes(batch):
    """T(1) + (b - 1) II in closed form, and frames followed pixel by pixel."""
    closed, told = (
        ax.simulate("finn-cnv", "ultra96-finn", folding=CNV, batch=batch, fidelity=f).summary
        for f in ("tile", "event")
    )
    assert told["latency_s"] == pytest.approx(closed["latency_s"], rel=0.001)
    assert told["throughput_per_s"] == pytest.approx(closed["throughput_per_s"], rel=0.001)
    if batch == 10000:
        assert batch / closed["latency_s"] == pytest.approx(9149.98, rel=0.03)


def test_designs_are_aimed_at_a_rate_or_at_throughput():
    for rate in (100, 1000, 3000):
        s = ax.simulate("finn-cnv", "ultra96-finn", folding={"target_fps": rate}).summary
        assert s["throughput_per_s"] >= rate
    few = ax.simulate("finn-cnv", "ultra96-finn", folding={"target_fps": 100}).summary
    assert few["resource_lut"] < s["resource_lut"]
    assert ax.simulate("finn-cnv", "ultra96-finn", folding={"target_fps": 1e6}).reason == "resources"
    most = ax.simulate("finn-tfc", "ultra96-finn", folding={"objective": "throughput"})
    assert (
        most.summary["throughput_per_s"]
        >= ax.simulate("finn-tfc", "ultra96-finn").summary["throughput_per_s"]
    )


def test_a_design_that_does_not_fit_says_what_overflows():
    folding = [(32, 6), (16, 96), (8, 96), (4, 96), (2, 96), (1, 96), (1, 96), (2, 32), (1, 32), (1, 8)]
    outcome = ax.simulate("finn-vgg10", "pynq-z2-finn", folding=folding)
    assert outcome.reason == "resources"
    for name in ("LUT", "DSP", "BRAM36"):
        assert name in outcome.need
        assert name in outcome.have
    assert "too much LUT by" in outcome.hint
    graph, board = ax.load_workload("finn-vgg10"), ax.load_hardware("pynq-z2-finn")
    for lanes in (8, 4, 2):
        point = Options(folding=[(32, 6), (16, 96), (lanes, 96), *folding[3:]])
        with pytest.raises(InfeasibleError):
            ARCHITECTURE.lower(graph, board, point)


@pytest.mark.parametrize(
    ("workload", "device", "batch"),
    [("finn-cnv", "ultra96-finn", 1), ("resnet50", "zcu104-dpu", 4), ("resnet50", "zcu104-finn", 100)],
)
def test_energy_is_the_sum_of_its_parts_and_has_a_wide_band(workload, device, batch):
    result = ax.simulate(workload, device, batch=batch, precision=None if "cnv" in workload else "int8")
    s = result.summary
    assert sum(result.energy_parts.values()) == pytest.approx(s["energy_j"])
    assert s["power_static_w"] + s["power_dynamic_w"] == pytest.approx(s["power_w"])
    assert s["power_static_w"] == pytest.approx(ax.load_hardware(device).power.idle_w)
    assert s["power_dynamic_w"] > 0
    for name in ("energy_per_item_j", "power_w"):
        band = result.intervals[name]
        assert 0.33 * s[name] < band.low < 0.7 * s[name]
        assert 1.5 * s[name] < band.high < 3 * s[name]
        assert "assumed" in band.basis
    band = result.intervals["power_w"]
    assert band.low == pytest.approx(0.6 * s["power_static_w"] + s["power_dynamic_w"] / 3)


def test_large_models_stream_their_weights():
    """25 MB and 85 MB of weights: read once per frame, so no frame is faster than the memory."""
    for workload, device in (("bert-base", "u250-finn"), ("vgg16", "u250-finn")):
        result = ax.simulate(workload, device, precision="int8")
        assert any("do not stay on chip" in note for note in result.notes)
        rate = 77e9 * 0.8
        moved = result.ops.dram_bytes.sum()
        assert moved > 30e6
        assert 1 / result.summary["throughput_per_s"] >= moved / rate * (1 - 1e-9)


def test_full_parts_and_several_dies_are_slower():
    from accelsim.architectures.fpga.clock import reached, tiers

    board, small = ax.load_hardware("u250-finn"), ax.load_hardware("zcu104-finn")
    one, half, full = (reached(board.fabric, share, 400e6) for share in (0.18, 0.4, 0.75))
    assert one > half > full
    assert 180e6 < full < 230e6
    assert reached(board.fabric, 0.75, 150e6) == 150e6
    assert [t.clock_hz for t in tiers(small.fabric, 250e6)] == [250e6]
    found = tiers(board.fabric, 250e6)
    assert np.all(np.diff([t.share for t in found]) < 0)
    assert found[-1].clock_hz == 250e6
    assert found[0].share == 0.75


@needs_foldings
def test_the_mobilenet_build_from_its_file():
    path = FOLDINGS / "mobilenetv1_ZCU104.json"
    result = ax.simulate("mobilenet-v1", "zcu104-finn", precision="int4", folding=path)
    document = json.loads(path.read_text())
    assert 1 / result.summary["throughput_per_s"] == pytest.approx(document["bottleneck_cycles"] / 250e6)
    expected = [max(x["mvau_cycles"], x.get("swg_cycles", 0)) for x in document["layers"] if "pool" not in x]
    found = result.ops[result.ops.kind.isin(["conv", "matmul"])].cycles_compute
    assert found.tolist() == pytest.approx(expected, rel=1e-2)  # the file pads one more row and column


def test_overlay_on_networks_that_were_held_out():
    """Median of the families that were not fitted on to 20 %, with one host thread and with several."""
    from accelsim.validate.fpga import table

    rows = table()
    errors = rows[rows.split == "held out"].groupby("quantity").error_pct.apply(lambda e: e.abs().median())
    assert errors["single_fps"] < 20
    assert errors["multi_fps"] < 20
    others = rows[rows.hardware != "zcu104-dpu"].dropna(subset=["target_pct"])
    assert (others.error_pct.abs() <= others.target_pct).all()
    assert 3 < rows[rows.split == "held out"].what.nunique() < rows[rows.split == "fitted"].what.nunique()
