"""Streaming pipelines: from a graph and a board to a folded pipeline, its cost and its timing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from accelsim.architectures.base import Interval, Kernel, KernelCost, Options, Pipeline, Program
from accelsim.architectures.fpga import power
from accelsim.architectures.fpga.clock import BAND
from accelsim.architectures.fpga.design import (
    Design,
    Point,
    Streams,
    Turns,
    dataflow_of,
    fastest,
    given,
    streams,
)
from accelsim.architectures.fpga.fifo import unlimited
from accelsim.architectures.fpga.network import Network, Part, Stage
from accelsim.architectures.fpga.options import Floats
from accelsim.architectures.fpga.options import Options as Folding
from accelsim.architectures.fpga.placement import WIRES
from accelsim.architectures.fpga.resources import STAGE, Budget
from accelsim.architectures.fpga.streamed import weight_bytes
from accelsim.architectures.fpga.timing import analytic_cycles, pace
from accelsim.core.outcome import InfeasibleError
from accelsim.core.units import si
from accelsim.hardware.schema import FpgaDevice
from accelsim.workload.graph import Graph, Op, Tensor

NAN = float("nan")
EVENT_FRAMES = 4
"""Frames that the event simulation follows through a pipeline."""

EVENT_PIXELS = 5e5
"""Pixels of all stages that it follows at the most; then fewer frames."""

PRODUCTS = frozenset({"conv", "matmul", "attention", "lstm", "gru"})


@dataclass(frozen=True)
class StageKernel(Kernel):
    """A kernel whose neighbours feed it on chip: only what crosses the DRAM interface is external.

    Attributes
    ----------
    external_bytes : float
        Compulsory DRAM traffic of one item [B].
    stages : tuple of int
        The streaming stages that it consists of.
    turn : int
        The pipeline that it is part of, where several run in turn.
    """

    external_bytes: float = 0.0
    stages: tuple[int, ...] = ()
    turn: int = 0

    @property
    def bytes_compulsory(self) -> float:
        return self.external_bytes


@dataclass(frozen=True)
class PipelineProgram(Program):
    """A program with the designs behind it."""

    turns: Turns = field(default_factory=lambda: Turns(()))

    def design(self, kernel: StageKernel) -> Design:
        """The pipeline that a kernel is part of."""
        return self.turns.designs[kernel.turn]


def check_precision(graph: Graph, supported: Sequence[str]) -> None:
    """Refuse products of formats that an engine lacks.

    Raises
    ------
    InfeasibleError
        With the formats that it has.
    """
    for op in graph:
        if op.kind not in PRODUCTS:
            continue
        for t in op.inputs[:2]:
            fits = t.precision.name in supported if t.role == "weight" else t.precision.is_integer
            if not fits:
                raise InfeasibleError(
                    "precision",
                    f"{t.precision.name} products ({op.name})",
                    ", ".join(supported),
                    f"run the model in {' or '.join(supported)}",
                )


def lower(graph: Graph, device: FpgaDevice, options: Options) -> PipelineProgram:
    """Build the pipeline of a graph.

    Raises
    ------
    InfeasibleError
        ``precision``, ``operator``, ``resources`` or ``memory``.
    """
    engine = dataflow_of(device)
    check_precision(graph, engine.precisions)
    base = graph.with_batch(1) if graph.batch > 1 else graph
    point = Point(base, device)
    said: tuple[str, ...] = ()
    if options.folding is None:
        turns = fastest(point, graph.batch)
    else:
        design, said = given(point, options.folding)
        turns = Turns((design,))
    kernels: list[StageKernel] = []
    for turn, design in enumerate(turns.designs):
        kernels += _kernels(design.network, turn, len(kernels))
    resident = sum(t.size_bytes for t in (*graph.inputs, *graph.outputs)) + turns.held_bytes * graph.batch
    tables = sum(t.size_bytes for op in graph if op.kind == "gather" for t in op.weights)
    tables += sum(weight_bytes(s.unit) for d in turns.designs for s in d.network.stages)
    if resident + tables > device.memory.capacity_bytes:
        raise InfeasibleError(
            "memory",
            si(resident + tables, "B"),
            si(device.memory.capacity_bytes, "B"),
            "use a smaller batch: inputs and outputs of a batch lie in external memory",
        )
    filled = [streams(design, device) for design in turns.designs]
    notes = (*said, *_notes(turns, filled, device, options, graph.batch))
    parameters = _parameters(turns, filled, device)
    return PipelineProgram(
        graph, device, options, tuple(kernels), "pipeline", resident + tables, notes, parameters, turns
    )


def _parameters(turns: Turns, filled: Sequence[Streams], device: FpgaDevice) -> dict[str, Any]:
    """What a program says of its design; of pipelines in turn the most that any of them takes."""
    designs, have = turns.designs, Budget.of(device.fabric).named()
    used = {name: max(f.used[name] for f in filled) for name in filled[0].used}
    fifos = {f"fifo_{name}": max(f.fifos[name] for f in filled) for name in used if name not in ("ff", "dsp")}
    return {
        "resources": {**used, **{f"{name}_available": value for name, value in have.items()}, **fifos},
        "resources_stage": STAGE,
        "clock_hz": min(d.clock_hz for d in designs),
        "interval_cycles": sum(d.interval for d in designs),
        "interval_bound_cycles": sum(d.plan.bound for d in designs),
        "interval_exact": all(d.plan.exact for d in designs),
        "pipelines": len(designs),
        "power_band": power.band(),
        "dies": [
            {"last": d.network.stages[end - 1].name, **used}
            for d in designs
            if d.placement is not None
            for end, used in zip(d.placement.ends, d.placement.used)
        ],
        "folding": {
            s.name: (int(pe), int(simd))
            for d in designs
            for s, pe, simd in zip(d.network.stages, d.plan.rows.pe, d.plan.rows.simd)
        },
    }


def _notes(
    turns: Turns, filled: Sequence[Streams], device: FpgaDevice, options: Options, batch: int
) -> tuple[str, ...]:
    designs = turns.designs
    design = min(designs, key=lambda d: d.clock_hz)
    clock, target = design.clock_hz, dataflow_of(device).clock_hz
    low, high = (si(factor * clock, "Hz") for factor in BAND)
    met = "the target" if clock >= target else f"below the target of {si(target, 'Hz')}, as the part fills up"
    notes = [
        f"timed at {si(clock, 'Hz')}, {met}; builds of this size may reach {low} to {high} (assumed)",
        "resources are estimates before synthesis; they leave out the shell of the board",
    ]
    if len(designs) > 1:
        loading = len(designs) * turns.change_s
        share = loading / turns.batch_s(batch, dataflow_of(device).driver_s)
        notes.append(
            f"the network does not run as one pipeline: {len(designs)} pipelines take a batch of {batch:,} "
            f"in turn, and loading their bitstreams takes {si(loading, 's')} of every batch ({share:.0%}; "
            f"{si(loading / batch, 's')} per item); resources are those of the largest"
        )
    elif design.plan.bound and not design.plan.exact:
        notes.append(
            f"the folding search proves its interval of {design.interval:,.0f} cycles to within "
            f"{design.interval / design.plan.bound - 1:.1%} of the smallest"
        )
    homeless = sum(f.homeless for f in filled)
    if homeless:
        notes.append(f"{homeless} FIFOs find no room at their full depth: the first frame may be later")
    crossed = max((d.placement for d in designs if d.placement), key=lambda p: p.fullest, default=None)
    if crossed is not None and crossed.wires:
        wires = ", ".join(f"{count:,}" for count in crossed.wires)
        notes.append(
            f"whole layers lie on {len(crossed.ends)} dies in their order, each within its own resources; "
            f"{wires} of {WIRES:,} wires cross between neighbours"
        )
    streamed = sum(s.unit.streamed for d in designs for s in d.network.stages)
    if streamed:
        notes.append(
            f"weights of {streamed} layers do not stay on chip: every frame reads them once from memory"
        )
    if options.sparsity != "dense":
        notes.append("sparse weights save nothing: a folded matrix unit multiplies zeros as well")
    return (*notes, *dict.fromkeys(text for d in designs for text in d.network.approximated))


def _kernels(network: Network, turn: int, first: int) -> list[StageKernel]:
    """One kernel per part, in the order of their first stages, so that all that feeds a kernel precedes it.

    `first` kernels run in earlier turns; those that nothing feeds start after the last of them.
    """
    members: dict[int, list[int]] = {}
    for index, stage in enumerate(network.stages):
        members.setdefault(stage.part, []).append(index)
    order = sorted(members, key=lambda part: members[part][0])
    position = {part: i for i, part in enumerate(order)}
    kernels = []
    for part, stages in ((p, members[p]) for p in order):
        sources = {network.stages[e.source].part for i in stages for e in network.stages[i].edges} - {part}
        after = tuple(sorted(first + position[s] for s in sources if position[s] < position[part]))
        if first and not after:
            after = (first - 1,)
        ops, inputs, outputs, external = _external(network.parts[part])
        weights = sum(weight_bytes(network.stages[i].unit) for i in stages)
        if weights:
            inputs, external = (*inputs, *ops[0].weights), external + weights
        name = network.parts[part].name
        names = {"stages": [network.stages[i].name for i in stages]}
        lane = f"stage {name}"
        kernels.append(
            StageKernel(name, ops, inputs, outputs, lane, after, 1, names, external, tuple(stages), turn)
        )
    return kernels


def _external(part: Part) -> tuple[tuple[Op, ...], tuple[Tensor, ...], tuple[Tensor, ...], float]:
    """(ops, DRAM inputs, DRAM outputs, their bytes) of a kernel; only DMA and embedding tables touch DRAM."""
    t = part.tensor
    if t is not None:
        twin = replace(t, name=f"{t.name}@{'stream' if part.inward else 'dram'}")
        op = Op(part.name, "copy", (t,), (twin,), origin="dma")
        return (op,), (t,) if part.inward else (), () if part.inward else (twin,), t.size_bytes
    anchor = part.ops[0]
    if anchor.kind == "gather" and anchor.inputs[0].role == "weight":
        return part.ops, anchor.inputs[:1], (), anchor.work.bytes_read
    return part.ops, (), (), 0.0


def cost(program: PipelineProgram) -> tuple[KernelCost, ...]:
    """Cost of each kernel for one item."""
    return tuple(
        _kernel_cost(kernel, program, program.design(kernel))
        for kernel in program.kernels
        if isinstance(kernel, StageKernel)
    )


def _kernel_cost(kernel: StageKernel, program: PipelineProgram, design: Design) -> KernelCost:
    device: FpgaDevice = program.device
    clock = design.clock_hz
    analytic = program.options.fidelity == "analytic"
    onchip = _onchip_bytes(design, kernel.stages)
    dma = design.ports[kernel.stages[0]]
    if dma is not None:
        moved = max(dma.frame_bytes, kernel.external_bytes)
        return KernelCost(
            clock,
            0.0 if analytic else dma.beats,
            dma.memory_cycles,
            0.0,
            {"dram": moved, "onchip": onchip},
            "memory",
            f"DMA {dma.width} bit",
            _energy(device, kernel, moved, onchip),
        )
    stage, row, cycles, windowed = _slowest(kernel, design, analytic)
    moved = kernel.external_bytes
    reading = moved / (device.memory.bandwidth_bytes_per_s * device.memory.efficiency) * clock
    return KernelCost(
        clock,
        cycles,
        reading,
        0.0,
        {"dram": moved, "onchip": onchip},
        "memory" if reading > cycles else "window" if windowed else "compute",
        _mapping(stage, row),
        _energy(device, kernel, moved, onchip),
    )


def _slowest(kernel: StageKernel, design: Design, analytic: bool) -> tuple[Stage, Folding, float, bool]:
    """The slowest stage of a kernel, its folding, its cycles, and whether its sliding window limits it."""
    stages, rows = design.network.stages, design.plan.rows
    least = [analytic_cycles(stages[i].unit, rows[i]) for i in kernel.stages]
    cycles = least if analytic else [float(rows[i].cycles[0]) for i in kernel.stages]
    at = max(range(len(cycles)), key=lambda i: cycles[i])
    return stages[kernel.stages[at]], rows[kernel.stages[at]], cycles[at], cycles[at] > least[at]


def explain(program: PipelineProgram, index: int) -> str:
    """The formula behind a stage's cycles, with its numbers in."""
    kernel = program.kernels[index]
    if not isinstance(kernel, StageKernel):
        return ""
    design = program.design(kernel)
    dma = design.ports[kernel.stages[0]]
    if dma is not None:
        return (
            f"{dma.frame_bytes:,.0f} B / {dma.width} bit = {dma.beats:,.0f} beats; "
            f"DRAM {dma.memory_cycles:,.1f} cycles"
        )
    return _formula(*_slowest(kernel, design, program.options.fidelity == "analytic"))


def _onchip_bytes(design: Design, stages: Sequence[int]) -> float:
    """Weight reads and streams of one frame: every product reads its weight once per PE and SIMD lane [B]."""
    total = 0.0
    for i in stages:
        u = design.network.stages[i].unit
        streams = u.pixels_in * u.channels * u.act_bits + u.pixels * u.mh * u.rounds * u.out_bits
        if u.kind.startswith("dma"):
            streams = u.pixels_in * u.act_bits
        products = u.pixels * u.rounds * u.mw * u.mh * u.weight_bits if u.weights else 0
        total += (streams + products) / 8
    return total


def _energy(
    device: FpgaDevice, kernel: StageKernel, dram_bytes: float, onchip_bytes: float
) -> dict[str, float]:
    """Dynamic energy by component; NaN where the device has no coefficient [J]."""
    energy = device.energy
    flops = kernel.flops
    names = {
        t.precision.name: t.precision.bits for op in kernel.ops if op.kind in PRODUCTS for t in op.inputs[:2]
    }
    wide = max(names, key=lambda n: names[n], default="")
    vector = sum(op.work.vector_ops for op in kernel.ops)

    def part(amount: float, coefficient: float | None) -> float:
        if amount == 0:
            return 0.0
        return NAN if coefficient is None else amount * coefficient

    return {
        "mac": part(flops / 2, energy.mac_j.get(wide)),
        "vector": part(vector, energy.vector_op_j),
        "sram": part(onchip_bytes, energy.sram_byte_j),
        "dram": part(dram_bytes, energy.dram_byte_j),
    }


def _mapping(stage: Stage, row: Folding) -> str:
    unit = stage.unit
    text = f"PE {int(row.pe[0])}"
    if unit.kind in ("mvau", "vvau"):
        text += f" x SIMD {int(row.simd[0])}"
        if unit.weights:
            held = float(row.bram18[0, 0])
            text += f", {held / 2:g} BRAM36" if held else ", LUTRAM"
    return text


def _formula(stage: Stage, row: Folding, cycles: float, windowed: bool) -> str:
    unit, pe, simd = stage.unit, int(row.pe[0]), int(row.simd[0])
    total = f"{cycles:,.0f} cycles"
    if windowed:
        return f"sliding window of {unit.channels} channels in front of PE {pe} x SIMD {simd}: {total}"
    if unit.kind == "mvau":
        vectors = unit.pixels * unit.rounds
        return f"(MW {unit.mw} / SIMD {simd}) x (MH {unit.mh} / PE {pe}) x {vectors} vectors = {total}"
    if unit.kind in ("vvau", "pool"):
        return f"C {unit.mh} x {unit.mw} taps / (PE {pe} x SIMD {simd}) x {unit.pixels} pixels = {total}"
    return f"C {unit.mh} / PE {pe} x {unit.pixels} pixels = {total}"


def pipeline(program: PipelineProgram, costs: tuple[KernelCost, ...]) -> Pipeline:
    """Timing of a batch: T(b) = T(1) + (b - 1) II, and the driver's start once; of pipelines in turn the sum
    with the loading of their bitstreams, which every batch repeats.

    At fidelity ``analytic`` there is no fill: b II with the cycles of `cost`.
    """
    device: FpgaDevice = program.device
    turns, batch, fidelity = program.turns, program.graph.batch, program.options.fidelity
    before = turns.before_s(dataflow_of(device).driver_s)
    at = [k.turn if isinstance(k, StageKernel) else 0 for k in program.kernels]
    start, finish, now, interval_s = [], [], 0.0, 0.0
    for turn, design in enumerate(turns.designs):
        now += before
        members = [i for i, of in enumerate(at) if of == turn]
        if fidelity == "analytic":
            interval_s = max(costs[i].latency_s for i in members)
            start += [now] * len(members)
            finish += [now + interval_s * batch] * len(members)
            now += interval_s * batch
            continue
        clock = design.clock_hz
        event = fidelity == "event"
        starts, ends, interval = _followed(design, device, batch) if event else _closed(design, batch)
        for i in members:
            kernel = program.kernels[i]
            inside = list(kernel.stages) if isinstance(kernel, StageKernel) else []
            start.append(now + float(starts[inside].min()) / clock)
            finish.append(now + float(ends[inside].max()) / clock)
        interval_s = interval / clock
        now += max(float(ends.max()), batch * design.interval) / clock
    if len(turns.designs) > 1:
        interval_s = now / batch
    return Pipeline(now, interval_s, tuple(start), tuple(finish), fidelity == "event")


def _closed(design: Design, batch: int) -> tuple[Floats, Floats, float]:
    """(start, end, interval) of each stage: the first frame, then one frame per interval [cycles]."""
    later = (batch - 1) * design.interval
    return design.frame.start, design.frame.finish[0] + later, design.interval


def _followed(design: Design, device: FpgaDevice, batch: int) -> tuple[Floats, Floats, float]:
    """The same from simpy processes that pass every pixel of the first frames; later ones repeat the last
    interval."""
    from accelsim.architectures.fpga.event import simulate

    stages = design.network.stages
    frames = max(1, min(batch, EVENT_FRAMES, int(EVENT_PIXELS // sum(s.unit.pixels for s in stages))))
    times = pace(design.network, design.plan.rows, design.ports, device.memory.latency_s * design.clock_hz)
    told = simulate(stages, unlimited(stages, frames), times, frames)
    last = told.finish[-1].max() - told.finish[-2].max() if frames > 1 else design.interval
    interval = max(float(last), design.interval)
    return told.start, told.finish[-1] + (batch - frames) * interval, interval


def interval(program: Program, latency_s: float) -> Interval:
    """Error band of a pipeline's latency; assumed until it is calibrated on measured designs."""
    return Interval(
        0.85 * latency_s,
        1.5 * latency_s,
        0.8,
        "assumed: published pipelines ran up to half longer than their stages, at a known clock",
    )
