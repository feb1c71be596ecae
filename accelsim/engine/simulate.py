"""The one orchestrator: workload and hardware in, Result out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelsim.architectures import architecture_of
from accelsim.architectures.base import (
    STALLS,
    Architecture,
    Interval,
    Kernel,
    KernelCost,
    Options,
    Pipeline,
    Program,
)
from accelsim.core.errors import RequestError, did_you_mean
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.core.precision import PrecisionPlan, plan
from accelsim.core.version import MODEL_VERSION, VERSION
from accelsim.engine import execute
from accelsim.engine.answer import Figures, static_j, summary
from accelsim.engine.request import Request, check_memory
from accelsim.engine.result import Result, Stamp
from accelsim.engine.timeline import Segment
from accelsim.hardware.energy import reasons
from accelsim.hardware.schema import Device
from accelsim.techniques import accuracy
from accelsim.techniques.parallel import Parallel, shard, stages
from accelsim.techniques.precision import widened
from accelsim.workload.graph import Graph


@dataclass(frozen=True)
class Part:
    """A program on one device (one stage of a pipeline-parallel run), costed."""

    program: Program
    costs: tuple[KernelCost, ...]
    pipeline: Pipeline | None

    @property
    def runs(self) -> int:
        """Times that each kernel cost counts: a streaming pipeline's costs are per item."""
        return self.program.graph.batch if self.pipeline is not None else 1

    def kernels(self) -> Iterator[tuple[Kernel, KernelCost, int]]:
        """Each kernel with its cost and how often it runs in the batch."""
        for kernel, cost in zip(self.program.kernels, self.costs):
            yield kernel, cost, kernel.repeat * self.runs


def simulate(
    workload: Any,
    hardware: str | Path | Device,
    *,
    batch: int = 1,
    precision: str | Mapping[str, Any] | PrecisionPlan | None = None,
    stack: str = "graph",
    devices: int = 1,
    parallel: Mapping[str, int] | None = None,
    phase: str | None = None,
    context: int | None = None,
    fidelity: str = "tile",
    sparsity: str = "dense",
    dims: Mapping[str, int] | None = None,
    cold: bool = False,
    governor: bool = True,
    folding: Any = None,
    coding: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Result | Infeasible:
    """Simulate one workload on one device.

    Parameters
    ----------
    workload : str or Path or Graph
        Name, file or graph; see `load_workload`.
    hardware : str or Path or Device
        Name, file or device.
    batch : int
        Items per run.
    precision : str or mapping, optional
        Format of weights, activations and KV cache, or formats by role (``{"weight": "int4", "activation":
        "fp16"}``) and by layer (``"int8; fc*: fp16"``), see `accelsim.core.precision.plan`. By default the
        model's own; where the device lacks that, the nearest that it has, and a
        note says so.
    stack : {"eager", "graph", "tensorrt", "vllm", "trtllm", "sglang"}
        Software stack; see `Options`.
    devices : int
        Devices that work together.
    parallel : mapping, optional
        How: ``{"tensor": 2, "pipeline": 2, "data": 1}``; the product is the number of devices. By default all
        are tensor-parallel.
    phase, context, dims
        See `load_workload`.
    fidelity : {"analytic", "tile", "event"}
        ``analytic`` is a lower bound, ``tile`` the default, ``event`` a discrete-event simulation.
    sparsity : str
        Pattern that weights are assumed to carry, such as ``2:4``.
    cold : bool
        Nothing is on chip when a kernel starts.
    governor : bool
        Model power capping.
    folding : path, sequence or mapping, optional
        How a streaming pipeline is folded: FINN's folding JSON, an hls4ml configuration, or (PE, SIMD) pairs
        of its matrix units; see `accelsim.architectures.fpga.designs.apply`. Without it a search decides.
    coding : mapping, optional
        How a network becomes spikes: ``code``, ``steps``, ``rates``. By default the device's.
    seed : int
        Of anything random; part of the stamp.

    Returns
    -------
    Result or Infeasible
        `Infeasible` says why the device cannot do it; both have ``.summary`` and ``.feasible``.

    Raises
    ------
    AccelsimError
        The request itself is wrong: unknown name, bad file, batch 0 ...
    """
    settings: dict[str, Any] = {
        "precision": precision,
        "stack": stack,
        "devices": devices,
        "parallel": parallel,
        "phase": phase,
        "context": context,
        "fidelity": fidelity,
        "sparsity": sparsity,
        "dims": dims,
        "cold": cold,
        "governor": governor,
        "folding": folding,
        "coding": coding,
    }
    asked = Request.of(workload, hardware, **settings)
    request = asked.named(batch)
    notes = list(asked.notes)
    sized = asked.sized(batch)
    if asked.architecture.widens:
        notes.extend(widened(sized))
    if asked.formats.layers:
        notes.append(
            "layers differ in format: each reads its input in its own, and conversion takes no kernel"
        )
    shared = shard(sized, asked.split.tensor)
    try:
        asked.check_accumulators()
        parts = tuple(
            _part(asked.architecture, stage, asked.device, asked.options)
            for stage in stages(shared, asked.split.pipeline)
        )
    except InfeasibleError as error:
        return replace(error.outcome, request=request)
    arguments = {"workload": workload, "hardware": hardware, "batch": batch, **settings, "seed": seed}
    if precision is not None:
        arguments["precision"] = asked.formats.name
    return _result(parts, asked.split, asked.graph, request, arguments, notes, asked.accuracy)


def rerun(result: Result, **changes: Any) -> Result | Infeasible:
    """Simulate the point of a result again, as this version does, or changed.

    Parameters
    ----------
    result : Result
        Made here, or read from a file.
    **changes
        Arguments of `simulate` to replace, such as ``fidelity="event"``. Of a result from a file, a graph or
        device that was in no file has to be given again.

    Raises
    ------
    RequestError
        The workload or the hardware is needed, or an argument does not exist.
    """
    arguments = {**result.arguments, **changes}
    for name in ("workload", "hardware"):
        if arguments.get(name) is None:
            raise RequestError(f"the {name} of this result was in no file", hint=f"give {name}=")
    if unknown := changes.keys() - result.arguments.keys():
        name = min(unknown)
        raise RequestError(f"simulate has no argument '{name}'", hint=did_you_mean(name, result.arguments))
    return simulate(**arguments)


def _part(architecture: Architecture, graph: Graph, device: Any, options: Options) -> Part:
    program = architecture.lower(graph, device, options)
    graph = program.graph
    check_memory(
        device, program.memory_bytes, graph.weight_bytes, graph.kv_bytes, graph.peak_activation_bytes
    )
    costs = architecture.cost(program)
    return Part(
        program, costs, architecture.pipeline(program, costs) if program.style == "pipeline" else None
    )


def _result(
    parts: tuple[Part, ...],
    split: Parallel,
    graph: Graph,
    request: dict[str, Any],
    arguments: dict[str, Any],
    notes: list[str],
    known: accuracy.Accuracy,
) -> Result:
    program, batch = parts[0].program, arguments["batch"]
    device: Any = program.device
    architecture = architecture_of(device.kind)
    timed = [_times(part, notes) for part in parts]
    latency_s = math.fsum(t.latency_s for t in timed)
    interval_s = max(t.interval_s for t in timed)
    band = architecture.interval(program, parts[0].costs, latency_s)
    energy, missing = _energy(parts, split, interval_s, request["precision"])
    missing.update(program.parameters.get("missing", {}))
    if device.cost.hourly_usd is None:
        missing["usd_per_million_items"] = f"{device.name} has no hourly price"
    if not all(cost.stalls_s for part in parts for cost in part.costs):
        missing["stall_s"] = f"the model of {device.kind} devices does not divide the time of a kernel"
    missing.update(known.missing)
    found = Figures(
        batch,
        latency_s,
        band.low,
        band.high,
        interval_s,
        energy,
        _bound(parts),
        graph.flops / graph.batch * batch,
        sum(c.bytes_by_level["dram"] * n for part in parts for _, c, n in part.kernels())
        * split.devices
        / len(parts),
        max(part.program.memory_bytes for part in parts),
    )
    activation = plan(request["precision"]).activation.name
    row = summary(
        request, device, activation, split.devices, graph.item, known.summary, program.options.fidelity, found
    )
    resources = program.parameters.get("resources", {})
    row.update({f"resource_{name}": value for name, value in resources.items()})
    for part in parts:
        notes.extend(part.program.notes)
    return Result(
        row,
        energy,
        {"latency_s": band, **_power_bands(program, energy, batch, interval_s)},
        missing,
        tuple(dict.fromkeys(notes)),
        _stamp(program, graph, request, arguments["seed"]),
        lambda: [row for index, part in enumerate(parts) for row in _rows(part, _label(parts, index))],
        lambda: _segments(parts, timed),
        request,
        arguments,
        tuple(part.program for part in parts),
    )


@dataclass(frozen=True)
class _Timed:
    """Latency of a batch through one part, time between batches in steady state [s], and what ran when."""

    latency_s: float
    interval_s: float
    segments: Callable[[], list[Segment]]


def _times(part: Part, notes: list[str]) -> _Timed:
    program, costs, timing = part.program, part.costs, part.pipeline
    event = program.options.fidelity == "event"
    if timing is not None:
        interval_s = timing.interval_s * program.graph.batch
        if not event or timing.simulated:
            return _Timed(timing.latency_s, interval_s, lambda: execute.pipelined(program, costs, timing))
        held, latency_s = execute.event_pipeline(program, costs, timing)
        if program.graph.batch > execute.EVENT_ITEMS:
            notes.append(
                f"event fidelity followed {execute.EVENT_ITEMS} items; the rest repeat the steady state"
            )
        return _Timed(latency_s, interval_s, lambda: held)
    if event:
        segments = execute.event_sequential(program, costs)
        segments += execute.host(program, max((s.end_s for s in segments), default=0.0))
        latency_s = max((s.end_s for s in segments), default=0.0)
        return _Timed(latency_s, latency_s, lambda: segments)
    total = math.fsum(cost.latency_s * times for _, cost, times in part.kernels()) + program.host_s
    return _Timed(total, total, lambda: execute.in_order(program, costs))


def _label(parts: tuple[Part, ...], index: int) -> str:
    return f"stage{index}." if len(parts) > 1 else ""


def _segments(parts: tuple[Part, ...], timed: list[_Timed]) -> list[Segment]:
    """Segments of all parts on one clock, lanes prefixed by their stage."""
    if len(parts) == 1:
        return timed[0].segments()
    moved, offset = [], 0.0
    for index, t in enumerate(timed):
        prefix = _label(parts, index)
        moved += [
            s._replace(
                op=prefix + s.op, lane=prefix + s.lane, start_s=s.start_s + offset, end_s=s.end_s + offset
            )
            for s in t.segments()
        ]
        offset += t.latency_s
    return moved


def _energy(
    parts: tuple[Part, ...], split: Parallel, interval_s: float, precision: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Energy of the batch on all devices by part [J]: dynamic parts, and static power from one batch to the
    next. Reasons for what is NaN come with it.
    """
    copies = split.tensor * split.data
    total: dict[str, float] = {}
    for part in parts:
        for _, cost, times in part.kernels():
            for name, value in cost.energy_j.items():
                total[name] = total.get(name, 0.0) + value * times * copies
    device = parts[0].program.device
    total["static"] = static_j(device, interval_s, split.devices)
    formats = plan(precision)
    why = reasons(device, total, (formats.weight.name, formats.activation.name, formats.kv.name))
    missing = {f"energy_{name}_j": reason for name, reason in why.items()}
    lacking = [f"{name} ({why[name]})" for name, value in total.items() if math.isnan(value)]
    if lacking:
        reason = f"{device.name} has no coefficient for: {', '.join(lacking)}"
        missing.update({"energy_j": reason, "energy_per_item_j": reason, "power_w": reason})
        missing |= {f"power_{name}_w": reason for name in ("static", "dynamic")}
    return total, missing


def _power_bands(
    program: Program, energy: Mapping[str, float], batch: int, interval_s: float
) -> dict[str, Interval]:
    """Error bands of energy and power where an architecture says how far their parts can be off.

    Both ends take all parts at theirs: parts of one device err together.
    """
    factors = program.parameters.get("power_band")
    if factors is None:
        return {}
    dynamic = math.fsum(value for name, value in energy.items() if name != "static")
    low, high = (
        energy["static"] * static + dynamic * moving
        for static, moving in zip(factors["static"], factors["dynamic"])
    )
    if math.isnan(low):
        return {}
    return {
        name: Interval(low / per, high / per, factors["level"], factors["basis"])
        for name, per in (("energy_per_item_j", batch), ("power_w", interval_s))
    }


def _bound(parts: tuple[Part, ...]) -> str:
    """What limits most of the time."""
    if parts[0].pipeline is not None:
        name, _ = max(
            ((k.name, c.latency_s * k.repeat) for p in parts for k, c, _ in p.kernels()),
            key=lambda pair: pair[1],
        )
        return f"stage {name}"
    total: dict[str, float] = {}
    for part in parts:
        for _, cost, times in part.kernels():
            total[cost.bound] = total.get(cost.bound, 0.0) + cost.latency_s * times
    return max(total, key=lambda b: total[b]) if total else "nothing"


def _rows(part: Part, prefix: str) -> list[dict[str, Any]]:
    program = part.program
    architecture = architecture_of(program.device.kind)
    rows = []
    for index, (kernel, cost, times) in enumerate(part.kernels()):
        rows.append(
            {
                "op": prefix + kernel.name,
                "kind": kernel.anchor.kind,
                "lane": prefix + kernel.lane,
                "repeat": kernel.repeat,
                "latency_s": cost.latency_s,
                "total_s": cost.latency_s * times,
                "bound": cost.bound,
                "flops": kernel.flops * times,
                "vector_ops": sum(op.work.vector_ops for op in kernel.ops) * times,
                **{f"{level}_bytes": size * times for level, size in cost.bytes_by_level.items()},
                "compulsory_bytes": kernel.bytes_compulsory * times,
                "cycles_compute": cost.cycles_compute,
                "cycles_memory": cost.cycles_memory,
                "cycles_overhead": cost.cycles_overhead,
                "clock_hz": cost.clock_hz,
                "energy_j": sum(cost.energy_j.values()) * times,
                **{f"energy_{name}_j": value * times for name, value in cost.energy_j.items()},
                **_stalls(cost),
                "mapping": cost.mapping,
                "fused": " + ".join(op.name for op in kernel.ops[1:]),
                "approximated": next((op.approximated for op in kernel.ops if op.approximated), ""),
                "formula": architecture.explain(program, index, cost),
            }
        )
    return rows


def _stalls(cost: KernelCost) -> dict[str, float]:
    """What one execution is spent on [s]; NaN where the model has no breakdown."""
    absent = 0.0 if cost.stalls_s else math.nan
    return {f"stall_{name}_s": cost.stalls_s.get(name, absent) for name in STALLS}


def _stamp(program: Program, graph: Graph, request: Mapping[str, Any], seed: int) -> Stamp:
    text = repr((sorted(request.items()), program.options))
    return Stamp(
        VERSION,
        MODEL_VERSION,
        program.device.hash,
        graph.hash,
        hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        seed,
        program.options.fidelity,
    )
