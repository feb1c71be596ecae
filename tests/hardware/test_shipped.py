"""The shipped devices: they load, every number has its evidence, and they agree with the published tables."""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path

import pytest

from accelsim.core.catalog import catalog
from accelsim.core.paths import data_folder
from accelsim.core.precision import PRECISIONS
from accelsim.core.yamlfile import read_yaml
from accelsim.hardware import energy
from accelsim.hardware.schema import FpgaDevice, GpuDevice, NeuromorphicDevice, SystolicDevice
from accelsim.hardware.spec import load_hardware

_FACTS = Path(__file__).resolve().parents[3] / "shared" / "facts"
_needs_facts = pytest.mark.skipif(
    not _FACTS.is_dir(), reason="the tables of published facts are not beside this repository"
)

_SHIPPED = sorted(p.stem for p in data_folder("hwconfigs").rglob("[!_]*.yaml"))
_GPUS = sorted(p.stem for p in (data_folder("hwconfigs") / "gpu").glob("[!_]*.yaml"))
_SYSTOLIC = sorted(p.stem for p in (data_folder("hwconfigs") / "systolic").glob("[!_]*.yaml"))
_FPGAS = sorted(p.stem for p in (data_folder("hwconfigs") / "fpga").glob("[!_]*.yaml"))
_SPIKING = sorted(p.stem for p in (data_folder("hwconfigs") / "neuromorphic").glob("[!_]*.yaml"))

_IN_THE_TABLE = {
    "p100": "P100 SXM2",
    "v100-sxm": "V100 SXM2 16GB",
    "v100-pcie": "V100 PCIe 16GB",
    "t4": "T4",
    "a2": "A2",
    "a10": "A10",
    "a30": "A30",
    "a40": "A40",
    "a100-40-sxm": "A100 40GB SXM4",
    "a100-40-pcie": "A100 40GB PCIe",
    "a100-sxm": "A100 80GB SXM4",
    "a100-pcie": "A100 80GB PCIe",
    "l4": "L4",
    "l40s": "L40S",
    "h100-sxm": "H100 SXM5 80GB",
    "h100-pcie": "H100 PCIe 80GB",
    "h100-nvl": "H100 NVL 94GB",
    "h200-sxm": "H200 SXM 141GB",
    "h20": "H20",
    "b200": "B200 SXM",
    "b300": "B300 SXM",
    "gb200": "GB200 (per GPU)",
    "gb300": "GB300 (per GPU)",
    "rtx-2080-ti": "RTX 2080 Ti",
    "rtx-3090": "RTX 3090",
    "rtx-4090": "RTX 4090",
    "rtx-5090": "RTX 5090",
    "rtx-pro-6000": "RTX PRO 6000 Blackwell",
    "jetson-orin": "Jetson AGX Orin 64GB",
    "jetson-orin-nano": "Jetson Orin Nano Super 8GB",
    "jetson-thor": "Jetson AGX Thor (T5000)",
    "mi100": "MI100",
    "mi210": "MI210",
    "mi250x": "MI250X",
    "mi300x": "MI300X",
    "mi325x": "MI325X",
    "mi355x": "MI355X",
}
_DIES = {"mi250x": 2}  # devices of which the table's module has several
_GEFORCE = ("rtx-2080-ti", "rtx-3090", "rtx-4090", "rtx-5090")


@cache
def _rows(name: str, key: str) -> dict[str, dict[str, str]]:
    with (_FACTS / name).open(newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def test_what_is_shipped() -> None:
    assert set(_GPUS) == set(_IN_THE_TABLE)
    assert {
        "tpu-v1",
        "tpu-v4",
        "tpu-v5e",
        "tpu-v6e",
        "edge-tpu",
        "gemmini",
        "eyeriss",
        "systolic-128x128",
    } < set(_SYSTOLIC)
    assert {f"nvdla-{n}" for n in (64, 128, 256, 512, 1024, 2048)} < set(_SYSTOLIC)
    assert {"pynq-z2-finn", "u250-finn", "zcu104-dpu", "vck190-dpu", "agilex7-hls4ml", "arria10-dla"} < set(
        _FPGAS
    )
    assert (
        len(_SHIPPED) == len(set(_SHIPPED)) == len(_GPUS) + len(_SYSTOLIC) + len(_FPGAS) + len(_SPIKING) >= 65
    )
    assert {"loihi", "loihi-2", "truenorth", "spinnaker-2", "neuro-grid"} == set(_SPIKING)
    assert set(_SHIPPED) <= set(catalog("hardware").names())


@pytest.mark.parametrize("name", _SHIPPED)
def test_every_number_has_its_evidence(name: str) -> None:
    device = load_hardware(name)
    assert device.name == name
    assert device.title
    assert device.placement
    assert device.kind in ("gpu", "systolic", "fpga", "neuromorphic")
    numbers = [
        path
        for path, value in _numbers(device.model_dump(by_alias=True, exclude_defaults=True))
        if path not in ("year",) and not path.startswith("name")
    ]
    assert len(numbers) >= 15
    for path in numbers:
        assert path in device.quantities, f"{path} has no source"
    for path, quantity in device.quantities.items():
        assert quantity.status in ("cited", "measured", "assumed"), path
        assert len(quantity.source.strip()) >= 5, path
        if quantity.status != "assumed":
            for word in ("recalled", "guess", "one table", "inferred", "secondary", "no measurement"):
                assert word not in quantity.source, f"{path}: {quantity.source}"
    assert device.assumed == [p for p, q in device.numbers.items() if q.status == "assumed"]


def _numbers(node: object, prefix: str = "") -> list[tuple[str, float]]:
    if isinstance(node, dict):
        return [
            found
            for key, value in node.items()
            for found in _numbers(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, float(node))] if isinstance(node, int | float) and not isinstance(node, bool) else []


@pytest.mark.parametrize("path", sorted(data_folder("hwconfigs").rglob("_*.yaml")), ids=lambda p: p.stem)
def test_families_are_used(path: Path) -> None:
    children = [p for p in path.parent.glob("*.yaml") if read_yaml(p).get("extends") == path.stem]
    # The common file of a kind is under every device of that kind; software stacks and protection are tables
    # of their own.
    assert children or path.stem in (f"_{path.parent.name}", "_stacks", "_protection")


@pytest.mark.parametrize("name", _SHIPPED)
def test_plausible_numbers(name: str) -> None:
    device = load_hardware(name)
    assert 1e8 <= device.memory.capacity_bytes <= 1e12
    assert 1e8 <= device.memory.bandwidth_bytes_per_s <= 1e13
    assert 0 < device.memory.latency_s <= 10e-6
    if device.power.tdp_w is not None and device.power.idle_w is not None:
        assert 0.03 <= device.power.idle_w / device.power.tdp_w <= 0.75
    if device.link is not None:
        assert device.link.bandwidth_bytes_per_s <= 1e12
        assert 0.1e-6 <= device.link.latency_s <= 20e-6
    found = {row["precision"]: row["value"] for row in energy.table(device) if row["part"] == "mac"}
    assert found
    if device.kind == "neuromorphic":  # a synaptic event is a product with its weight, neuron and way
        assert all(1e-15 <= joules <= 1e-9 for joules in found.values())
        return
    assert all(1e-15 <= joules <= 2e-11 for joules in found.values())
    assert energy.coefficient(device, "sram").value_j < energy.coefficient(device, "dram").value_j
    order = [found[p] for p in ("int4", "int8", "fp16", "tf32") if p in found]
    assert order == sorted(order)


@pytest.mark.parametrize("name", _GPUS)
def test_gpu_power_covers_its_arithmetic(name: str) -> None:
    """The multipliers alone, at the peak rate of a precision, draw less than 1.2 times the board power."""
    device = load_hardware(name)
    for precision, joules in device.energy.mac_j.items():
        assert device.peak_flop_per_s(precision) / 2 * joules <= 1.2 * device.power.tdp_w, precision


@_needs_facts
@pytest.mark.parametrize("name", _GPUS)
def test_gpu_peaks_are_the_published_ones(name: str) -> None:
    device = load_hardware(name)
    row = _rows("gpus.csv", "name")[_IN_THE_TABLE[name]]
    columns = {
        "tf32": ("tf32",),
        "fp16": ("fp16",),
        "bf16": ("bf16",),
        "fp8": ("fp8_e4m3", "fp8_e5m2"),
        "fp4": ("mxfp4",) if device.vendor == "AMD" else ("nvfp4", "mxfp4"),
        "int8": ("int8",),
        "int4": ("int4",),
        "int1": ("int1",),
        "fp32": ("fp32",),
    }
    for column, precisions in columns.items():
        for precision in precisions:
            peak = device.peak_flop_per_s(precision) / 1e12
            if not row[column]:
                assert column == "int1" or peak == 0 or (column, device.family) == ("bf16", "volta"), column
                continue
            if (name, column) == ("h20", "fp32"):
                continue  # recalled, and above what the lanes do at the boost clock
            published = float(row[column]) / _DIES.get(name, 1)
            if name in _GEFORCE and column in ("fp16", "fp8"):
                published /= 2  # the table has fp16 accumulation; frameworks accumulate in fp32
            tolerance = (
                0.03 if column == "fp32" else 0.02
            )  # fp32 of B300, GB200 and GB300 is rounded to 75 and 80
            assert peak == pytest.approx(published, rel=tolerance), precision


@_needs_facts
@pytest.mark.parametrize("name", _GPUS)
def test_gpu_facts_are_the_published_ones(name: str) -> None:
    device = load_hardware(name)
    row = _rows("gpus.csv", "name")[_IN_THE_TABLE[name]]
    dies = _DIES.get(name, 1)
    assert device.sm.count * dies == int(row["sm"])
    assert device.sm.clock_hz == pytest.approx(float(row["boost_mhz"]) * 1e6, rel=1e-3)
    assert device.memory.capacity_bytes * dies == float(row["mem_gb"]) * 1e9
    assert device.memory.bandwidth_bytes_per_s * dies == pytest.approx(float(row["mem_gbs"]) * 1e9, rel=1e-3)
    assert device.memory.type == row["mem_type"]
    assert device.power.tdp_w * dies == float(row["tdp_w"])
    assert device.year == int(row["year"])
    expected_cache = float(row["l3_mb"] or row["l2_mb"])
    assert device.l2.capacity_bytes * dies == expected_cache * 2**20
    assert device.sm.registers * 4 == int(row["rf_kb"]) * 1024
    assert device.sm.shared_memory_bytes == int(row["max_smem_kb"]) * 1024
    assert (device.sm.sparse_speedup > 1) == (row["sparsity"] == "2")
    if device.link is not None and device.link.type.startswith("NVLink"):
        assert (
            device.link.bandwidth_bytes_per_s == float(row["link_gbs"]) / 2 * 1e9
        )  # the table has both directions


@_needs_facts
@pytest.mark.parametrize("name", _GPUS)
def test_gpu_cites_only_what_was_verified(name: str) -> None:
    device = load_hardware(name)
    with (_FACTS / "gpus_provenance.csv").open(newline="") as file:
        status = {r["field"]: r["status"] for r in csv.DictReader(file) if r["gpu"] == _IN_THE_TABLE[name]}
    fields = {
        "sm.count": "sm",
        "sm.clock": "boost_mhz",
        "sm.base_clock": "base_mhz",
        "memory.capacity": "mem_gb",
        "memory.bandwidth": "mem_gbs",
        "l2.capacity": "l3_mb" if device.family in ("cdna3", "cdna4") else "l2_mb",
        "power.tdp": "tdp_w",
        "silicon.area": "die_mm2",
        "cost.price": "price_usd",
    }
    for path, field in fields.items():
        if path in device.quantities:
            assert device.quantities[path].status == (
                "cited" if status[field] == "verified" else "assumed"
            ), path


@_needs_facts
def test_measured_values_are_the_measured_ones() -> None:
    cases = {
        "v100-pcie": "V100 PCIe 16GB",
        "a100-40-sxm": "A100 40GB SXM4",
        "a100-sxm": "A100 80GB SXM4",
        "h100-pcie": "H100 PCIe 80GB",
        "h200-sxm": "H200 SXM 141GB",
        "a40": "A40",
        "mi210": "MI210",
    }
    rows = _rows("microbench_measured.csv", "gpu")
    for name, key in cases.items():
        device, row = load_hardware(name), rows[key]
        memory = device.memory
        read = memory.efficiency * memory.bandwidth_bytes_per_s / 1e9
        if name == "h200-sxm":  # products were measured above the benchmark's 0.81
            assert read > float(row["dram_read_gbs"])
        else:
            assert read == pytest.approx(float(row["dram_read_gbs"]), rel=5e-3)
        pairs = {
            "l2.bandwidth": "l2_bw_gbs",
            "l2.latency": "l2_near_latency_cyc",
            "memory.latency": "dram_latency_cyc_128MB",
        }
        pairs |= {"launch.stream": "launch_us_stream_64kB", "launch.graph": "launch_us_graph_64kB"}
        for path, column in pairs.items():
            assert (device.quantities[path].status == "measured") == bool(row[column]), (name, path)
        if row["l2_near_latency_cyc"]:
            cycles = device.l2.latency_s * float(row["clock_mhz"]) * 1e6
            assert cycles == pytest.approx(float(row["l2_near_latency_cyc"]), rel=5e-3)
        if row["l2_bw_gbs"]:
            assert device.l2.bandwidth_bytes_per_s == pytest.approx(float(row["l2_bw_gbs"]) * 1e9, rel=1e-3)


def test_gpu_architecture_rules() -> None:
    """FP16 FLOP per SM and clock, the clock behind the peak, and precisions that are cut or missing."""
    fp16 = {"v100-sxm": 1024, "t4": 1024, "a40": 1024, "l40s": 1024, "rtx-pro-6000": 1024, "mi210": 1024}
    fp16 |= {
        "a100-sxm": 2048,
        "a30": 2048,
        "mi300x": 2048,
        "h100-sxm": 4096,
        "b200": 8192,
        **dict.fromkeys(_GEFORCE, 512),
    }
    for name, rate in fp16.items():
        assert load_hardware(name).sm.tensor_flop_per_clock["fp16"] == rate
    h100 = load_hardware("h100-sxm")
    assert h100.sm.tensor_clock_hz < h100.sm.clock_hz
    assert h100.peak_flop_per_s("bf16") == pytest.approx(989.4e12, rel=1e-3)
    assert load_hardware("b300").peak_flop_per_s("int8") < 0.3 * load_hardware("a100-sxm").peak_flop_per_s(
        "int8"
    )
    assert load_hardware("a100-sxm").peak_flop_per_s("fp8_e4m3") == 0
    assert load_hardware("h100-sxm").peak_flop_per_s("int4") == 0
    assert load_hardware("t4").peak_flop_per_s("bf16") == 0
    v100 = load_hardware("v100-pcie")
    assert "int8" not in v100.sm.tensor_flop_per_clock
    assert v100.peak_flop_per_s("int8") == pytest.approx(56e12, rel=0.02)
    assert load_hardware("p100").sm.tensor_flop_per_clock == {}


@pytest.mark.parametrize("name", _GPUS)
def test_gpu_tables_are_consistent(name: str) -> None:
    device = load_hardware(name)
    assert isinstance(device, GpuDevice)
    rates = device.sm.tensor_flop_per_clock
    bf16 = 2 if device.family == "cdna1" else 1  # CDNA 1 does bf16 at half the rate
    for wide, narrow, ratio in (("tf32", "fp16", 2), ("int8", "int4", 2), ("bf16", "fp16", bf16)):
        if wide in rates and narrow in rates:
            assert rates[narrow] == ratio * rates[wide]
    assert all(rate == int(rate) for rate in rates.values())
    assert device.sm.tensor_clock_hz <= device.sm.clock_hz
    if device.sm.base_clock_hz:
        assert device.sm.base_clock_hz <= device.sm.clock_hz
    assert device.l2.bandwidth_bytes_per_s > device.memory.bandwidth_bytes_per_s
    assert device.l2.latency_s < device.memory.latency_s
    assert device.launch.graph_s <= device.launch.stream_s < device.launch.eager_s
    assert set(rates) | set(device.sm.vector_flop_per_clock) <= set(PRECISIONS)
    assert set(rates) <= set(device.energy.mac_j)


@pytest.mark.parametrize(
    ("name", "bf16_tflops", "int8_tops"),
    [
        ("tpu-v1", None, 92),
        ("tpu-v2", 46, None),
        ("tpu-v3", 123, None),
        ("tpu-v4i", 138, 138),
        ("tpu-v4", 275, 275),
        ("tpu-v5e", 197, 393),
        ("tpu-v5p", 459, 918),
        ("tpu-v6e", 918, 1836),
    ],
)
def test_tpu_peaks(name: str, bf16_tflops: float | None, int8_tops: float | None) -> None:
    device = load_hardware(name)
    a = device.array
    arrays_per_s = a.rows * a.cols * a.count * a.clock_hz * 2
    assert device.peak_flop_per_s("fp16") == 0
    for precision, published in (("bf16", bf16_tflops), ("int8", int8_tops)):
        expected = (published or 0) * 1e12
        assert device.peak_flop_per_s(precision) == pytest.approx(expected, rel=0.01)
        if published:
            assert arrays_per_s * a.macs_per_pe[precision] == pytest.approx(expected, rel=0.01)


@_needs_facts
@pytest.mark.parametrize(
    ("name", "row_name"),
    [
        ("tpu-v1", "TPU v1"),
        ("tpu-v2", "TPU v2"),
        ("tpu-v3", "TPU v3"),
        ("tpu-v4i", "TPU v4i"),
        ("tpu-v4", "TPU v4"),
        ("tpu-v5e", "TPU v5e"),
        ("tpu-v5p", "TPU v5p"),
        ("tpu-v6e", "TPU v6e (Trillium)"),
    ],
)
def test_tpu_facts_are_the_published_ones(name: str, row_name: str) -> None:
    device, row = load_hardware(name), _rows("asics.csv", "name")[row_name]
    verified = row["fields_verified"].split()
    for path, value, column, scale in (
        ("memory.capacity", device.memory.capacity_bytes, "dram_gib", 2.0**30),
        ("memory.bandwidth", device.memory.bandwidth_bytes_per_s, "dram_gbs", 1e9),
        ("power.tdp", device.power.tdp_w, "tdp_w", 1.0),
    ):
        if row[column]:
            assert value == pytest.approx(float(row[column]) * scale)
            assert (device.quantities[path].status == "cited") == (column in verified), path


def test_small_arrays() -> None:
    for macs in (64, 128, 256, 512, 1024, 2048):
        nvdla = load_hardware(f"nvdla-{macs}")
        assert nvdla.array.rows * nvdla.array.cols == macs
        assert nvdla.peak_flop_per_s("int8") == 2 * macs * 1e9
    edge = load_hardware("edge-tpu")
    assert edge.peak_flop_per_s("int8") == pytest.approx(4e12, rel=0.02)
    eyeriss = load_hardware("eyeriss")
    assert (eyeriss.array.dataflow, eyeriss.array.rows * eyeriss.array.cols) == ("rs", 168)


@pytest.mark.parametrize("name", _SYSTOLIC)
def test_systolic_tables_are_consistent(name: str) -> None:
    device = load_hardware(name)
    assert isinstance(device, SystolicDevice)
    parts = [
        p
        for p in (device.sram.ifmap_bytes, device.sram.filter_bytes, device.sram.ofmap_bytes)
        if p is not None
    ]
    assert math.fsum(parts) <= device.sram.capacity_bytes
    for precision in device.array.macs_per_pe:
        assert energy.coefficient(device, "mac", precision).value_j > 0


@pytest.mark.parametrize("name", _FPGAS)
def test_fpga_tables_are_consistent(name: str) -> None:
    device = load_hardware(name)
    assert isinstance(device, FpgaDevice)
    assert (device.dataflow is None) != (device.overlay is None)
    assert name.endswith(("-finn", "-hls4ml") if device.dataflow else ("-dpu", "-dla"))
    fabric = device.fabric
    assert (fabric.lut is None) != (fabric.alm is None)
    assert (fabric.bram36 is None) != (fabric.m20k is None)
    assert (fabric.lut is not None) == (device.vendor == "AMD")
    assert set(device.precisions) <= set(device.energy.mac_j)
    if device.overlay:
        engine = device.overlay
        macs = engine.pixel_parallel * engine.input_parallel * engine.output_parallel
        assert macs in (1024, 2048, 4096)


def test_dpu_peaks() -> None:
    """B4096 is 4096 operations per cycle: 1.23 TOP/s per core at 300 MHz."""
    for name, cores, clock in (("zcu102-dpu", 3, 281e6), ("zcu104-dpu", 2, 300e6), ("kv260-dpu", 1, 300e6)):
        engine = load_hardware(name).overlay
        macs = engine.pixel_parallel * engine.input_parallel * engine.output_parallel
        assert (engine.cores, engine.clock_hz, 2 * macs) == (cores, pytest.approx(clock), 4096)


@_needs_facts
@pytest.mark.parametrize(
    ("name", "row_name"),
    [
        ("pynq-z2-finn", "XC7Z020"),
        ("ultra96-finn", "XCZU3EG"),
        ("zcu102-finn", "XCZU9EG"),
        ("zcu104-dpu", "XCZU7EV"),
        ("kv260-dpu", "XCK26 (ZU5EV-class)"),
        ("u50-finn", "XCU50 (VU35P-class)"),
        ("u250-finn", "XCU250"),
        ("u280-finn", "XCU280"),
        ("vck190-finn", "XCVC1902"),
        ("stratix10-hls4ml", "1SG280"),
        ("arria10-dla", "10AX115"),
        ("agilex7-dla", "AGFB027"),
    ],
)
def test_fpga_resources_are_the_published_ones(name: str, row_name: str) -> None:
    device, row = load_hardware(name), _rows("fpga_devices.csv", "device")[row_name]
    fabric = device.fabric
    assert (fabric.lut or fabric.alm) == int(row["logic(LUT or ALM)"])
    assert fabric.ff == int(row["FF"])
    assert fabric.dsp == int(row["DSP"])
    assert (fabric.bram36 if fabric.lut else fabric.m20k) == int(row["BRAM36 or M20K"])
    logic = device.quantities["fabric.lut" if fabric.lut else "fabric.alm"]
    expected = (
        "cited" if row["status_resources"].startswith("verified") and row_name != "XCVC1902" else "assumed"
    )
    assert logic.status == expected


@pytest.mark.parametrize("name", _SPIKING)
def test_spiking_tables_are_consistent(name: str) -> None:
    device = load_hardware(name)
    assert isinstance(device, NeuromorphicDevice)
    c = device.cores
    assert c.count % c.columns == 0
    assert set(c.precisions) <= set(device.energy.mac_j)
    assert c.graded or device.coding.code != "sigma_delta"
    assert device.spikes.fetch_included or device.energy.sram_byte_j or device.silicon.node_nm
    # Nothing of these chips could be read here: every number is recalled or a choice.
    assert all(q.status == "assumed" for q in device.quantities.values())


def test_spiking_coefficients_are_the_attributed_ones() -> None:
    """Widely attributed to Davies et al. 2018 and Merolla et al. 2014; not read there, so assumed."""
    loihi, truenorth = load_hardware("loihi"), load_hardware("truenorth")
    assert loihi.energy.mac_j["int8"] == pytest.approx(23.6e-12)
    assert loihi.spikes.neuron_update_j == pytest.approx(81e-12)
    assert truenorth.energy.mac_j["int1"] == pytest.approx(26e-12)
    assert loihi.cores.count * loihi.cores.neurons == 131072
    assert truenorth.cores.count * truenorth.cores.neurons == 2**20
