"""The fields of a device: one class per section, SI inside, quantities with units in the file.

A field ``bandwidth_bytes_per_s`` is written ``bandwidth: 3.35 TB/s`` in YAML, so the dotted path of a
parameter is ``memory.bandwidth``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from accelsim.core.precision import precision
from accelsim.core.quantity import Quantity
from accelsim.hardware.kernels import KernelModels
from accelsim.hardware.section import (
    ByPrecision,
    Bytes,
    BytesPerSecond,
    Count,
    Dollars,
    DollarsPerHour,
    Fraction,
    Hertz,
    Joules,
    JoulesByPrecision,
    PrecisionName,
    Seconds,
    Section,
    SquareMetres,
    Watts,
)


class Memory(Section):
    """External memory of one device."""

    type: str
    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    efficiency: Fraction = 1.0
    """Share of the peak that a long streaming read reaches."""
    latency_s: Seconds = Field(default=0.0, alias="latency")


class Link(Section):
    """Connection between devices of one system, per device and direction."""

    type: str
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    latency_s: Seconds = Field(alias="latency")


class Power(Section):
    """Board or chip power."""

    tdp_w: Watts | None = Field(default=None, alias="tdp")
    idle_w: Watts | None = Field(default=None, alias="idle")


class Silicon(Section):
    """The die."""

    node_nm: Annotated[float, Field(gt=0)] | None = None
    area_m2: SquareMetres | None = Field(default=None, alias="area")


class Cost(Section):
    """Prices; every one has a date in its source."""

    price_usd: Dollars | None = Field(default=None, alias="price")
    hourly_usd: DollarsPerHour | None = Field(default=None, alias="hourly")
    """On demand."""
    contract_usd: DollarsPerHour | None = Field(default=None, alias="contract")
    """Rented for three years."""


class Energy(Section):
    """Dynamic energy per action; `accelsim.hardware.energy` says where it looks for what is missing."""

    mac_j: JoulesByPrecision = Field(default_factory=dict, alias="mac")
    vector_op_j: Joules | None = Field(default=None, alias="vector_op")
    dram_byte_j: Joules | None = Field(default=None, alias="dram_byte")
    sram_byte_j: Joules | None = Field(default=None, alias="sram_byte")
    sum_byte_j: Joules | None = Field(default=None, alias="sum_byte")
    """Memory of partial sums, where it is not the one of operands."""
    register_byte_j: Joules | None = Field(default=None, alias="register_byte")
    """Register files beside the multipliers, where the MAC's coefficient does not hold them."""
    network_byte_j: Joules | None = Field(default=None, alias="network_byte")
    """Network between on-chip memory and arrays, where the memory's coefficient does not hold it."""
    link_byte_j: Joules | None = Field(default=None, alias="link_byte")
    """Links between devices."""


Placement = Literal["edge", "on-premises", "cloud"]


class Device(Section):
    """What every device has. Built by `load_hardware` from a YAML file, whose fields these are.

    Attributes
    ----------
    name, title, vendor, family : str
    year : int, optional
    placement : tuple
        Among edge, on-premises and cloud.
    note : str
    memory, link, power, silicon, cost, energy
        Sections of the file; `quantities` has each number with its source and status.
    """

    name: str
    title: str
    vendor: str
    family: str
    year: int | None = None
    placement: tuple[Placement, ...]
    note: str = ""
    memory: Memory
    link: Link | None = None
    power: Power = Power()
    silicon: Silicon = Silicon()
    cost: Cost = Cost()
    energy: Energy = Energy()
    quantities: Mapping[str, Quantity] = Field(default_factory=dict, exclude=True, repr=False)
    """Every number by dotted path, with its source and status."""
    document: Mapping[str, Any] = Field(default_factory=dict, exclude=True, repr=False)

    @cached_property
    def hash(self) -> str:
        """Hash of every value that a simulation can depend on."""
        from accelsim.hardware.spec import digest

        return digest(self)

    @cached_property
    def numbers(self) -> dict[str, Quantity]:
        """The hardware numbers by dotted path; constants of kernel models (``kernels.``) are not among them,
        since a result states their evidence with its error band.
        """
        return {path: q for path, q in self.quantities.items() if not path.startswith("kernels.")}

    @cached_property
    def assumed(self) -> list[str]:
        """Dotted paths of the hardware's numbers that are assumed rather than cited or measured."""
        return [path for path, q in self.numbers.items() if q.status == "assumed"]

    def replace(self, **changes: Any) -> Any:
        """A new device with some parameters changed, by dotted path: ``replace(**{"memory.bandwidth": "4.8
        TB/s"})``.
        """
        from accelsim.hardware.spec import replaced

        return replaced(self, changes)

    def diff(self, other: Any) -> Any:
        """Table of the parameters in which two devices differ (`other` is a name, a path or a device)."""
        from accelsim.hardware.spec import difference

        return difference(self, other)

    def __hash__(self) -> int:
        return hash(self.hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.hash == other.hash


class StreamingMultiprocessors(Section):
    """The compute of a GPU: SMs (CUs on AMD)."""

    count: Count
    clock_hz: Hertz = Field(alias="clock")
    """Boost clock, which vector work runs at."""
    tensor_clock_hz: Hertz = Field(alias="tensor_clock")
    """Clock behind the datasheet's tensor peak."""
    base_clock_hz: Hertz | None = Field(default=None, alias="base_clock")
    voltage_clock_hz: Hertz | None = Field(default=None, alias="voltage_clock")
    """Clock at whose voltage the energy of the power model holds: that of the sibling it was fitted on."""
    tensor_flop_per_clock: ByPrecision = Field(default_factory=dict)
    """Dense tensor-core FLOP per SM and clock, by precision; empty where there are no tensor cores."""
    vector_flop_per_clock: ByPrecision
    """FMA-pipe FLOP per SM and clock, by precision."""
    exp_per_clock: Annotated[float, Field(gt=0)] = 16.0
    """Exponentials per SM and clock of the special-function units."""
    sparse_speedup: Annotated[float, Field(ge=1)] = 1.0
    """Tensor-rate factor of 2:4 sparse weights; 1 where the hardware has none."""
    registers: Count = 65536
    """32-bit registers per SM."""
    shared_memory_bytes: Bytes = Field(alias="shared_memory")
    max_threads: Count = 2048
    max_blocks: Count = 32


class Cache(Section):
    """Last-level on-chip cache of a GPU."""

    capacity_bytes: Bytes = Field(alias="capacity")
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    latency_s: Seconds = Field(alias="latency")


class Launch(Section):
    """What the host adds to each kernel."""

    stream_s: Seconds = Field(alias="stream")
    """Gap between back-to-back kernels on a stream."""
    graph_s: Seconds = Field(alias="graph")
    """The same inside a replayed graph."""
    eager_s: Seconds = Field(alias="eager")
    """Host time per operator of an eager framework."""


class GpuDevice(Device):
    """A GPU."""

    kind: Literal["gpu"]
    sm: StreamingMultiprocessors
    l2: Cache
    launch: Launch
    kernels: KernelModels

    def peak_flop_per_s(self, name: str) -> float:
        """Dense datasheet peak of a precision [FLOP/s]; 0 where the device lacks it."""
        rate = self.sm.tensor_flop_per_clock.get(name)
        if rate is not None:
            return rate * self.sm.count * self.sm.tensor_clock_hz
        return self.sm.vector_flop_per_clock.get(name, 0.0) * self.sm.count * self.sm.clock_hz


class Array(Section):
    """Systolic arrays of one chip."""

    rows: Count
    cols: Count
    count: Count = 1
    clock_hz: Hertz = Field(alias="clock")
    dataflow: Literal["ws", "os", "is", "rs"]
    macs_per_pe: ByPrecision
    """Multiply-accumulates per processing element and cycle, by precision."""
    double_buffered: bool = True
    """The next fold's stationary operand loads while this one streams."""
    swaps_operands: bool = False
    """Of a product of two activations, either may be the one that stays in the array."""
    sparse_speedup: Annotated[float, Field(ge=1)] = 1.0
    """Rate factor of N:M sparse weights; 1 where the arrays have no such mode."""
    accumulator: PrecisionName | None = None
    """Format of partial sums, where it is not that of the precision."""
    skips_zeros: bool = False
    """Products with a zero weight take no time (ideal: elements never wait for each other)."""
    whole_tiles: bool = False
    """Weights lie in memory as whole tiles of the array, zeros at the edges."""


class Scratchpad(Section):
    """Software-managed on-chip memory, shared or split by operand."""

    capacity_bytes: Bytes = Field(alias="capacity")
    ifmap_bytes: Bytes | None = Field(default=None, alias="ifmap")
    filter_bytes: Bytes | None = Field(default=None, alias="filter")
    ofmap_bytes: Bytes | None = Field(default=None, alias="ofmap")
    bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="bandwidth")
    window_bytes: Bytes | None = Field(default=None, alias="window")
    """Where transfers do not overlap: operands that must be there before the arrays start; the rest streams
    behind them. All of them by default."""
    keeps_weights: bool = False
    """Weights that fit beside the largest activations stay from one run to the next."""
    bands: bool = False
    """Layers may run band by band of rows, so that what lies between them stays on chip although it does not
    fit whole."""


class VectorUnit(Section):
    """The unit for everything that is not a matmul."""

    ops_per_clock: Annotated[float, Field(gt=0)]


class SystolicDevice(Device):
    """A systolic-array ASIC."""

    kind: Literal["systolic"]
    array: Array
    sram: Scratchpad
    vector: VectorUnit
    dispatch_s: Seconds = Field(default=0.0, alias="dispatch")
    """Fixed cost of each operator."""
    host_s: Seconds = Field(default=0.0, alias="host")
    """Fixed cost of each run: the host hands the input over and collects the result."""
    transfers_overlap: bool = True
    """External transfers run while the arrays compute."""
    codes_zeros: bool = False
    """Activations cross the memory interface with their zeros run-length coded."""

    def peak_flop_per_s(self, name: str) -> float:
        a = self.array
        return 2.0 * a.rows * a.cols * a.count * a.clock_hz * a.macs_per_pe.get(name, 0.0)


class Fabric(Section):
    """Programmable resources of an FPGA. AMD parts count LUT6 and BRAM36, Intel parts ALM and M20K."""

    part: str
    technology: Literal["7series", "ultrascale", "ultrascale+", "versal", "arria10", "stratix10", "agilex"]
    lut: Count | None = None
    alm: Count | None = None
    ff: Count
    dsp: Count
    bram36: Annotated[int, Field(ge=0)] | None = None
    m20k: Annotated[int, Field(ge=0)] | None = None
    uram: Annotated[int, Field(ge=0)] = 0
    slr: Count = 1
    usable: Fraction = 1.0
    """Share of LUT/ALM that a design may take, the shell's part already off."""


class Dataflow(Section):
    """A streaming pipeline that is built for one network."""

    clock_hz: Hertz = Field(alias="clock")
    """Target clock."""
    dma_bits: Count = 32
    """Widest DMA interface."""
    driver_s: Seconds = Field(default=0.0, alias="driver")
    """Host time to start one batch."""
    reconfiguration_s: Seconds | None = Field(default=None, alias="reconfiguration")
    """Loading of another bitstream. Where it is missing, a network must fit as one pipeline."""
    weights: Literal["decoupled", "embedded"] = "decoupled"
    """``decoupled``: one memory per unit, all PE side by side. ``embedded``: high-level synthesis gives each
    PE a memory of its own, and arrays take the block RAMs that synthesis infers."""
    precisions: tuple[PrecisionName, ...] = ("int8", "int4", "int2", "int1")


class Overlay(Section):
    """One engine that runs layers in turn."""

    clock_hz: Hertz = Field(alias="clock")
    cores: Count = 1
    pixel_parallel: Count
    input_parallel: Count
    output_parallel: Count
    """MACs per cycle and core = pixel x input channels x output channels."""
    buffer_bytes: Bytes = Field(alias="buffer")
    instruction_s: Seconds = Field(default=0.0, alias="instruction")
    """Overhead of each layer."""
    driver_s: Seconds = Field(default=0.0, alias="driver")
    """Host time of a batch: runtime and scheduling."""
    preprocess_s: Seconds = Field(default=0.0, alias="preprocess")
    """Host time per input element of the first image; later images are prepared while the engine runs."""
    port_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="port")
    """What one core's memory ports take; by default all of the memory's rate."""
    depthwise: Fraction = 1.0
    """Share of the pixel x input lanes that a depthwise layer uses."""
    band_low: Annotated[float, Field(gt=0, le=1)] | None = None
    band_high: Annotated[float, Field(ge=1)] | None = None
    """Measured over predicted latency, 10 % and 90 % quantiles of the rows that the constants were fitted
    on."""
    precisions: tuple[PrecisionName, ...] = ("int8",)


class FpgaDevice(Device):
    """An FPGA board with the kind of engine that it carries."""

    kind: Literal["fpga"]
    fabric: Fabric
    dataflow: Dataflow | None = None
    overlay: Overlay | None = None

    @model_validator(mode="after")
    def _has_an_engine(self) -> FpgaDevice:
        if self.dataflow is None and self.overlay is None:
            raise ValueError("neither a 'dataflow' nor an 'overlay' section says what the fabric carries")
        return self

    @property
    def precisions(self) -> tuple[str, ...]:
        engine = self.dataflow or self.overlay
        return engine.precisions if engine else ()

    def peak_flop_per_s(self, name: str) -> float:
        """Dense peak of a precision [FLOP/s]: an overlay's multipliers, or what a pipeline could put into DSP
        blocks and LUTs.

        A pipeline's multiply-accumulate of b-bit operands takes 2 b (2 ceil(2 b / 6) + 1) LUTs, or part of a
        DSP block: a quarter to 4 bits, half to 8. NaN on Intel parts: their logic is not counted in LUTs.
        """
        if name not in self.precisions:
            return 0.0
        if self.dataflow is None:
            o = self.overlay
            macs = o.cores * o.pixel_parallel * o.input_parallel * o.output_parallel if o else 0
            return 2.0 * macs * o.clock_hz if o else 0.0
        if self.fabric.lut is None:
            return float("nan")
        bits = precision(name).bits
        packed = 0 if bits == 1 else 4 if bits <= 4 else 2
        in_luts = self.fabric.lut * self.fabric.usable / (2 * bits * (2 * -(-2 * bits // 6) + 1))
        return 2.0 * (in_luts + packed * self.fabric.dsp) * self.dataflow.clock_hz


class SpikingCores(Section):
    """Cores that hold neurons and their synapses, in a mesh."""

    count: Count
    columns: Count
    """Of the mesh; core i lies at (i mod columns, i div columns)."""
    clock_hz: Hertz = Field(alias="clock")
    neurons: Count
    """Per core."""
    synapse_memory_bytes: Bytes = Field(alias="synapse_memory")
    """Per core."""
    fan_in: Count | None = None
    """Different inputs that a core takes."""
    synapses_per_clock: Annotated[float, Field(gt=0)]
    """Synaptic events per core and cycle."""
    neurons_per_clock: Annotated[float, Field(gt=0)]
    """Neuron updates per core and cycle; every neuron is updated in every time step."""
    spikes_per_clock: Annotated[float, Field(gt=0)] = 1.0
    """Spikes that a core puts on the mesh per cycle."""
    hop_s: Seconds = Field(alias="hop")
    """Latency of one hop of the mesh."""
    shares_weights: bool = False
    """Convolutions keep one kernel per core instead of one weight per synapse."""
    graded: bool = False
    """Spikes carry a value."""
    precisions: tuple[PrecisionName, ...] = ("int8", "int4", "int2", "int1")
    """Of weights."""


class TimeStep(Section):
    """How cores agree on time."""

    mode: Literal["barrier", "free"] = "barrier"
    """``barrier``: all cores end a step before any begins the next. ``free``: a core goes on when its own
    inputs of the step are there."""
    barrier_s: Seconds = Field(default=0.0, alias="barrier")
    tick_s: Seconds = Field(default=0.0, alias="tick")
    """Shortest step where steps follow a clock."""


class SpikeCoding(Section):
    """What a conversion to spikes takes where a run does not say."""

    code: Literal["rate", "ttfs", "sigma_delta"] = "rate"
    steps: Count
    rate: Fraction
    """Spikes per neuron and step; with ``ttfs`` the share of neurons that fire."""


class SpikeEnergy(Section):
    """Energy per action beside the synaptic event, which is the ``mac`` of the energy section."""

    neuron_update_j: Joules | None = Field(default=None, alias="neuron_update")
    spike_j: Joules | None = Field(default=None, alias="spike")
    """A spike that leaves a core."""
    hop_j: Joules | None = Field(default=None, alias="hop")
    fetch_included: bool = True
    """The synaptic event's figure holds the fetch of the weight."""


class NeuromorphicDevice(Device):
    """A grid of event-driven cores of spiking neurons."""

    kind: Literal["neuromorphic"]
    cores: SpikingCores
    step: TimeStep
    coding: SpikeCoding
    spikes: SpikeEnergy

    @property
    def precisions(self) -> tuple[str, ...]:
        return self.cores.precisions

    def peak_flop_per_s(self, name: str) -> float:
        """Two per synaptic event that all cores could take [FLOP/s]; 0 where they lack the format."""
        c = self.cores
        return 2.0 * c.count * c.clock_hz * c.synapses_per_clock if name in c.precisions else 0.0


DEVICES: dict[str, type[Device]] = {
    "gpu": GpuDevice,
    "systolic": SystolicDevice,
    "fpga": FpgaDevice,
    "neuromorphic": NeuromorphicDevice,
}
