"""Overlays: one engine with fixed parallelism that runs layers in turn (DPU, DLA)."""

from __future__ import annotations

from math import ceil, prod
from typing import Any

from accelsim.architectures.base import Interval, Kernel, KernelCost, Options, Program
from accelsim.architectures.fpga import power
from accelsim.architectures.fpga.dataflow import NAN, PRODUCTS, check_precision
from accelsim.architectures.fusion import EPILOGUES, fuse
from accelsim.core.outcome import InfeasibleError
from accelsim.core.units import si
from accelsim.hardware.schema import FpgaDevice, Overlay
from accelsim.workload.graph import Graph, Op
from accelsim.workload.ops import LoopNest

ON_ENGINE = frozenset({"conv", "matmul", "attention", "lstm", "gru"})
"""Kinds that the multiplier array runs."""

ON_CHANNELS = frozenset(
    {
        "pool",
        "elementwise",
        "concat",
        "split",
        "slice",
        "pad",
        "copy",
        "resize",
        "reduce",
        "batch_norm",
        "activation",
        "quantize",
    }
    | {"dequantize", "cast", "multi_threshold", "transpose"}
)
"""Kinds that run beside the array, `pixel x input` lanes wide."""

BUFFER_SHARE = 0.5  # assumed: half of the buffer holds weights, half feature maps


def joins(anchor: Op, op: Op) -> bool:
    """Pointwise work rides on the layer that feeds it; a residual add is an instruction of its own."""
    return op.kind in EPILOGUES and sum(t.role in ("activation", "kv") for t in op.inputs) == 1


def lower(graph: Graph, device: FpgaDevice, options: Options) -> Program:
    """One instruction group per layer.

    Raises
    ------
    InfeasibleError
        ``precision``: a product in a format that the engine lacks.
    """
    engine = _engine(device)
    check_precision(graph, engine.precisions)
    memory_bytes = graph.weight_bytes + graph.kv_bytes + graph.peak_activation_bytes
    kernels = []
    hosted = []
    for group in fuse(graph, joins):
        lane = (
            "array"
            if group.anchor.kind in ON_ENGINE
            else "channels"
            if group.anchor.kind in ON_CHANNELS
            else "host"
        )
        if lane == "host":
            hosted.append(group.anchor.name)
        kernels.append(
            Kernel(
                group.anchor.name, group.ops, group.inputs, group.outputs, lane, group.after, group.repeat, {}
            )
        )
    notes = ["layers run one after the other; feature maps go through external memory between them"]
    if hosted:
        notes.append(
            f"{len(hosted)} of {len(kernels)} layers have no instruction and run on the host, timed by their "
            f"memory traffic alone: {', '.join(hosted[:5])}"
        )
    if options.sparsity != "dense":
        notes.append("sparse weights save nothing: the array multiplies zeros as well")
    parameters = {
        "power_band": power.band(),
        "peak_ops_per_s": 2.0
        * engine.cores
        * engine.pixel_parallel
        * engine.input_parallel
        * engine.output_parallel
        * engine.clock_hz,
    }
    return Program(
        graph, device, options, tuple(kernels), "sequential", memory_bytes, tuple(notes), parameters
    )


def _engine(device: FpgaDevice) -> Overlay:
    if device.overlay is None:
        raise InfeasibleError(
            "resources",
            "a dataflow or an overlay section",
            f"neither on {device.name}",
            "add one to the hardware file",
        )
    return device.overlay


def array_cycles(op: Op, nest: LoopNest, engine: Overlay, images: int) -> float:
    """Cycles of one image of a product: rows ceil(width / PP) ceil(C / ICP) ceil(K / OCP) taps [cycles].

    The pixels that are computed at once lie in one row. A depthwise convolution has one input channel per
    output channel, so a share of PP x ICP lanes works at the most: rows ceil(width / PP) ceil(C / ICP) taps /
    share. Other groups run one after the other.
    """
    pp, icp, ocp = engine.pixel_parallel, engine.input_parallel, engine.output_parallel
    pixels, batch, share = float(nest.m), float(nest.batch), nest.share
    if nest.m % images == 0:
        pixels /= images
    elif nest.batch % images == 0:
        batch /= images
    else:
        share /= images
    width = op.outputs[0].shape[-1] if op.kind == "conv" else pixels
    rows = pixels / width * ceil(width / pp)
    channels = nest.k_loops.get("c", nest.k)
    taps = nest.k // channels
    if op.kind == "conv" and channels == 1 and nest.n == 1 and nest.batch > 1:
        return rows * ceil(batch / icp) * taps * share / engine.depthwise
    return batch * rows * ceil(channels / icp) * ceil(nest.n / ocp) * taps * share * nest.steps


def roofline_cycles(nest: LoopNest, engine: Overlay, images: int) -> float:
    """The same with no padding of the parallel dimensions: a lower bound [cycles]."""
    return nest.macs / images / (engine.pixel_parallel * engine.input_parallel * engine.output_parallel)


def traffic(weights: float, maps_in: float, maps_out: float, buffer_bytes: float) -> float:
    """DRAM bytes of one layer and image: each operand once when one of them fits its half of the buffer; else
    the cheaper of rereading the
    maps for each part of the weights or the weights for each part of the maps [B]."""
    half = BUFFER_SHARE * buffer_bytes
    again_maps = weights + maps_in * max(ceil(weights / half), 1)
    again_weights = maps_in + weights * max(ceil(maps_in / half), 1)
    return min(again_maps, again_weights) + maps_out


def cost(program: Program) -> tuple[KernelCost, ...]:
    """Cost of each layer for the whole batch; cores work on different images."""
    device: FpgaDevice = program.device
    engine = _engine(device)
    costs = [
        _layer(kernel, program, device, engine, first=i == 0) for i, kernel in enumerate(program.kernels)
    ]
    return tuple(costs)


def _layer(
    kernel: Kernel, program: Program, device: FpgaDevice, engine: Overlay, *, first: bool
) -> KernelCost:
    clock, images = engine.clock_hz, program.graph.batch
    analytic = program.options.fidelity == "analytic"
    rounds = ceil(images / engine.cores)
    op = kernel.anchor
    rate = _rate(device, engine, images)
    weights = sum(t.size_bytes for t in kernel.inputs if t.role == "weight")
    compulsory = kernel.bytes_compulsory
    maps = max(compulsory - weights, 0.0)
    maps_out = sum(t.size_bytes for t in kernel.outputs)
    maps_in = max(maps - maps_out, 0.0)
    overhead = 0.0 if analytic else rounds * engine.instruction_s * clock
    if first:
        overhead += engine.driver_s * clock
        if not analytic:
            entering = sum(t.elements for t in program.graph.inputs) / images
            overhead += engine.preprocess_s * entering * clock
    if kernel.lane == "array":
        nests = op.work.nests
        cycles = sum((roofline_cycles if analytic else _padded(op))(nest, engine, images) for nest in nests)
        compute = cycles * (images / engine.cores if analytic else rounds)
        if analytic:
            moved = compulsory
        else:
            moved = max(
                images * traffic(weights, maps_in / images, maps_out / images, engine.buffer_bytes),
                compulsory,
            )
    else:
        lanes = engine.pixel_parallel * engine.input_parallel
        work = max(sum(t.elements for t in (*op.inputs, *op.outputs) if t.role == "activation") / 2, 1)
        if op.kind == "pool":
            work = op.outputs[0].elements * prod(_kernel_size(op))
        shared = images / engine.cores if analytic else rounds
        compute = work / images / lanes * shared if kernel.lane == "channels" else 0.0
        moved = compulsory
    memory = moved / rate * clock
    bound = "memory" if memory > compute else "compute"
    if overhead > max(memory, compute):
        bound = "launch"
    return KernelCost(
        clock,
        compute,
        memory,
        overhead,
        {"dram": moved, "onchip": moved},
        bound if kernel.lane != "host" else "memory",
        _mapping(kernel, engine),
        _energy(device, kernel, moved),
    )


def _rate(device: FpgaDevice, engine: Overlay, images: int) -> float:
    """DRAM rate of the cores that have an image: the memory's, or what their ports take [B/s]."""
    rate = device.memory.bandwidth_bytes_per_s * device.memory.efficiency
    if engine.port_bytes_per_s is None:
        return rate
    # In a last round that is not full fewer ports move data; on average images / rounds cores are at work.
    active = images / ceil(images / engine.cores)
    return min(rate, active * engine.port_bytes_per_s)


def explain(program: Program, cost: KernelCost) -> str:
    """The formula behind a layer's time, with its numbers in."""
    device = program.device
    rate, moved = _rate(device, _engine(device), program.graph.batch), cost.bytes_by_level["dram"]
    return (
        f"max({cost.cycles_compute:,.0f} cycles of compute, {si(moved, 'B')} at {si(rate, 'B/s')} = "
        f"{cost.cycles_memory:,.0f} cycles) + {cost.cycles_overhead:,.0f} cycles of instructions"
    )


def _mapping(kernel: Kernel, engine: Overlay) -> str:
    if kernel.lane != "array":
        return kernel.lane
    lanes = f"{engine.pixel_parallel} pixels x {engine.input_parallel} in x {engine.output_parallel} out"
    return f"{engine.cores} cores x {lanes}"


def _padded(op: Op) -> Any:
    return lambda nest, engine, images: array_cycles(op, nest, engine, images)


def _kernel_size(op: Op) -> tuple[int, ...]:
    kernel = op.attribute("kernel", 1)
    return (kernel,) if isinstance(kernel, int) else tuple(kernel)


def _energy(device: FpgaDevice, kernel: Kernel, moved: float) -> dict[str, float]:
    energy = device.energy
    names = {
        t.precision.name: t.precision.bits for op in kernel.ops if op.kind in PRODUCTS for t in op.inputs[:2]
    }
    wide = max(names, key=lambda n: names[n], default="")
    parts = {
        "mac": (kernel.flops / 2, energy.mac_j.get(wide)),
        "vector": (sum(op.work.vector_ops for op in kernel.ops), energy.vector_op_j),
        "sram": (moved, energy.sram_byte_j),
        "dram": (moved, energy.dram_byte_j),
    }
    return {
        k: 0.0 if amount == 0 else NAN if each is None else amount * each
        for k, (amount, each) in parts.items()
    }


def interval(program: Program, latency_s: float) -> Interval:
    """Error band of an overlay's latency: that of the rows its constants were fitted on, else assumed."""
    engine = _engine(program.device)
    if engine.band_low is not None and engine.band_high is not None:
        source = program.device.quantities["overlay.band_low"].source
        return Interval(engine.band_low * latency_s, engine.band_high * latency_s, 0.8, source)
    return Interval(
        0.6 * latency_s,
        1.8 * latency_s,
        0.8,
        "assumed: overlays reach 0.14 to 0.76 of their peak across published networks",
    )
