"""The choice of a design: which share of the board, which weights on chip, which folding, and what that
gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import Any

from accelsim.architectures.fpga import designs
from accelsim.architectures.fpga.build import build
from accelsim.architectures.fpga.clock import congested, one_die, reached, tiers
from accelsim.architectures.fpga.fifo import (
    occupied,
    pixel_bits,
    smallest,
    unlimited,
    wiring,
    with_fifos,
)
from accelsim.architectures.fpga.folding import Plan, best, cheapest, fold, packed, planned, plans
from accelsim.architectures.fpga.network import Network
from accelsim.architectures.fpga.partition import Span, held_bytes, part, spans
from accelsim.architectures.fpga.placement import Placement, place
from accelsim.architectures.fpga.resources import (
    FF_PER_LUT,
    FIFO_DEPTH,
    STREAM_WORDS,
    Budget,
    named,
    place_fifo,
)
from accelsim.architectures.fpga.streamed import levels, weight_bytes
from accelsim.architectures.fpga.timing import Port, Run, pace, port, run, words
from accelsim.core.errors import RequestError
from accelsim.core.outcome import InfeasibleError
from accelsim.hardware.schema import Dataflow, Fabric, FpgaDevice
from accelsim.workload.graph import Graph

GOALS = frozenset({"target_fps", "objective"})
"""What a folding may say instead of numbers."""


@dataclass(frozen=True)
class Design:
    """A network folded for a board.

    Attributes
    ----------
    ports : tuple of Port or None
        DMA of each stage that has one.
    clock_hz : float
        Clock that place and route reaches [Hz].
    interval : float
        Cycles between frames: the slowest stage, or the DRAM interface that all DMA share [cycles].
    first : float
        Cycles of the first frame [cycles].
    frame : Run
        The first frame through the pipeline.
    placement : Placement or None
        Where the stages lie on a part of several dies; None where whole stages find no place.
    """

    network: Network
    plan: Plan
    ports: tuple[Port | None, ...]
    clock_hz: float
    interval: float
    first: float
    frame: Run
    placement: Placement | None = None

    def batch_cycles(self, batch: int) -> float:
        """T(b) = T(1) + (b - 1) II [cycles]."""
        return self.first + (batch - 1) * self.interval

    def batch_s(self, batch: int) -> float:
        """`batch_cycles` at the clock [s]."""
        return self.batch_cycles(batch) / self.clock_hz


class Point:
    """A graph, or some of its stages, on a board; equal to any with the same content: the key of the design
    cache."""

    def __init__(self, graph: Graph, device: FpgaDevice, span: Span | None = None) -> None:
        self.graph, self.device, self.span = graph, device, span
        self._key = (graph.hash, device.hash, span)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self._key == other._key


def dataflow_of(device: FpgaDevice) -> Dataflow:
    if device.dataflow is None:
        raise InfeasibleError(
            "resources", "a dataflow section", f"none on {device.name}", "choose a device with a pipeline"
        )
    return device.dataflow


class _Content:
    """A graph, or some of its stages, equal to any with the same content, whatever the board."""

    def __init__(self, graph: Graph, span: Span | None) -> None:
        self.graph, self.span = graph, span
        self._key = (graph.hash, span)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._key == other._key


@lru_cache(maxsize=256)
def _built(content: _Content) -> Network:
    if content.span is not None:
        return part(_built(_Content(content.graph, None)), content.span)
    return with_fifos(build(content.graph))


def _network(point: Point) -> Network:
    return _built(_Content(point.graph, point.span))


@dataclass(frozen=True, eq=False)
class Candidate:
    """A folded network that has not been simulated; `first` is a lower bound of its first frame [cycles]."""

    network: Network
    plan: Plan
    clock_hz: float
    interval: float
    first: float
    budget: Budget

    def least_s(self, batch: int) -> float:
        """A lower bound of its time for a batch [s]."""
        return (max(self.first, self.interval) + (batch - 1) * self.interval) / self.clock_hz


@lru_cache(maxsize=1024)
def _candidates(point: Point) -> tuple[Candidate, ...]:
    """The pipelines that the search offers: for each share of the board, each part of the weights that may be
    streamed, and each price vector. None where no folding fits; `_refuse` says why."""
    from accelsim.architectures.fpga.stages import earliest

    device = point.device
    fabric, engine = device.fabric, dataflow_of(device)
    networks = levels(_network(point))
    wires = [wiring(network.stages, unlimited(network.stages)) for network in networks]
    found: list[Candidate] = []
    fits = [True] * len(networks)
    for tier in tiers(fabric, engine.clock_hz):
        budget = _budget(fabric, tier.share)
        for i, (network, wired) in enumerate(zip(networks, wires)):
            if not fits[i]:  # nor does it fit a smaller share
                continue
            ports = _ports(network, device, tier.clock_hz)
            units = tuple(stage.unit for stage in network.stages)
            offered = plans(units, budget, fabric.technology, _beats(ports), engine.weights == "embedded")
            fits[i] = bool(offered)
            shared = _dram_cycles(network, device, tier.clock_hz)
            for p in offered:
                times = pace(network, p.rows, ports, device.memory.latency_s * tier.clock_hz)
                least = earliest(
                    wired.outputs, times.stream, times.tail, times.latency, wired.offsets, wired.edges
                )
                found.append(
                    Candidate(network, p, tier.clock_hz, max(p.interval, shared), float(least), budget)
                )
    return tuple(found)


def _refuse(point: Point) -> None:
    """Say what all weights on chip would need of the whole board.

    Raises
    ------
    InfeasibleError
        Always, where `_candidates` has none.
    """
    network, device = _network(point), point.device
    fabric, engine = device.fabric, dataflow_of(device)
    tier = tiers(fabric, engine.clock_hz)[0]
    beats = _beats(_ports(network, device, tier.clock_hz))
    budget = _budget(fabric, tier.share)
    fold(network.stages, budget, fabric.technology, beats, embedded=engine.weights == "embedded")


def _budget(fabric: Fabric, share: float) -> Budget:
    """What a design may take that has a share of the LUTs: of all dies, or all of one."""
    whole = Budget.of(fabric)
    if fabric.slr > 1 and share <= one_die(fabric):
        return whole.die().sharing(share / one_die(fabric))
    return whole.sharing(share / fabric.usable)


@lru_cache(maxsize=1024)
def _simulated(candidate: Candidate, device: FpgaDevice) -> Design:
    """The candidate, placed; its clock falls as wires between dies run out."""
    network, plan, clock_hz, found = candidate.network, candidate.plan, candidate.clock_hz, None
    if device.fabric.slr > 1:
        found = _placed(network, plan, device, clock_hz, candidate.budget)
        clock_hz *= congested(found.fullest) if found else 1.0
    return replace(_timed(network, plan, device, clock_hz), placement=found)


def _placed(
    network: Network, plan: Plan, device: FpgaDevice, clock_hz: float, budget: Budget
) -> Placement | None:
    ports = _ports(network, device, clock_hz)
    widths = [
        p.width if p is not None else int(pe) * s.unit.out_bits
        for s, p, pe in zip(network.stages, ports, plan.rows.pe)
    ]
    return place(network.stages, widths, plan.rows, budget)


@dataclass(frozen=True)
class Turns:
    """The pipelines that a board runs for a batch, one after the other.

    Attributes
    ----------
    designs : tuple of Design
        One for most networks.
    change_s : float
        Loading of a bitstream; a single one stays [s].
    held_bytes : float
        The most that lies in external memory between two of them, for one item [B].
    """

    designs: tuple[Design, ...]
    change_s: float = 0.0
    held_bytes: float = 0.0

    def before_s(self, driver_s: float) -> float:
        """Time before each pipeline's first word [s]."""
        return driver_s + (self.change_s if len(self.designs) > 1 else 0.0)

    def batch_s(self, batch: int, driver_s: float) -> float:
        """Every pipeline takes the whole batch before the next one is loaded [s]."""
        return sum(self.before_s(driver_s) + d.batch_s(batch) for d in self.designs)


def fastest(point: Point, batch: int) -> Turns:
    """The pipeline, or the pipelines in turn, with the shortest time for a batch.

    Several bitstreams are tried in ascending number, until loading alone takes longer than the best answer so
    far.

    Raises
    ------
    InfeasibleError
        Neither one pipeline nor the parts of any cut fit.
    """
    engine = dataflow_of(point.device)
    change, driver = engine.reconfiguration_s, engine.driver_s
    chosen: Turns | None = None
    refused: InfeasibleError | None = None
    try:
        chosen = Turns((_fastest(point, batch),))
    except InfeasibleError as error:
        refused = error
    if change is None:
        if chosen is None and refused is not None:
            raise refused
    else:
        network = _network(point)
        cuts = spans(network, point.device.fabric.technology, embedded=engine.weights == "embedded")
        for cut in cuts:
            if chosen is not None and len(cut) * (change + driver) >= chosen.batch_s(batch, driver):
                break
            places = [Point(point.graph, point.device, span) for span in cut]
            limit = chosen.batch_s(batch, driver) if chosen is not None else inf
            designs = _folded(places, batch, change + driver, limit)
            if designs is None:
                continue
            if isinstance(designs, InfeasibleError):
                refused = designs
                continue
            found = Turns(designs, change, held_bytes(network, cut))
            if chosen is not None and found.held_bytes * batch > point.device.memory.capacity_bytes:
                continue
            if chosen is None or found.batch_s(batch, driver) < chosen.batch_s(batch, driver):
                chosen = found
    if chosen is None:
        raise refused or InfeasibleError("resources", "a folding that fits", "none", "use a larger part")
    return chosen


def _folded(
    parts: Sequence[Point], batch: int, before_s: float, limit_s: float
) -> tuple[Design, ...] | InfeasibleError | None:
    """The pipelines of all parts, or the refusal of the first one that does not fit.

    None once those that are known, with `before_s` for each, take no less than `limit_s`.
    """
    designs: list[Design] = []
    taken_s = len(parts) * before_s
    for piece in parts:
        try:
            designs.append(_fastest(piece, batch))
        except InfeasibleError as error:
            o, first = error.outcome, _network(piece).stages[0].name.removesuffix(".load")
            need = f"{o.need} for the part behind {first}, one of {len(parts)} that would run in turn"
            return InfeasibleError(o.reason, need, o.have, o.hint)
        taken_s += designs[-1].batch_s(batch)
        if taken_s >= limit_s:
            return None
    return tuple(designs)


def _fastest(point: Point, batch: int) -> Design:
    """The design with the shortest time for a batch; only those that could be it are simulated.

    Raises
    ------
    InfeasibleError
        No folding fits.
    """
    chosen: Design | None = None
    candidates = _candidates(point)
    if not candidates:
        _refuse(point)
    for candidate in sorted(candidates, key=lambda c: c.least_s(batch)):
        if chosen is not None and candidate.least_s(batch) >= chosen.batch_s(batch):
            break
        design = _simulated(candidate, point.device)
        if chosen is None or design.batch_s(batch) < chosen.batch_s(batch):
            chosen = design
    if chosen is None:
        raise InfeasibleError("resources", "a folding that fits", "none", "use a larger part")
    return chosen


def given(point: Point, folding: Any) -> tuple[Design, tuple[str, ...]]:
    """The pipeline of a design file, and what is to be said about it."""
    network, device = _network(point), point.device
    engine, fabric = dataflow_of(device), device.fabric
    embedded, beats = engine.weights == "embedded", _beats(_ports(network, device, engine.clock_hz))
    said: tuple[str, ...] = ()
    if isinstance(folding, Mapping) and GOALS & set(folding):
        plan = _aimed(network, device, folding, beats)
    else:
        found = designs.apply(network.stages, folding, fabric.technology, embedded=embedded)
        network, said = replace(network, stages=found.stages), found.notes
        plan = planned(found.rows, Budget.of(fabric), beats)
    share = plan.used["alm" if fabric.alm else "lut"] / (fabric.alm or fabric.lut or 1)
    if fabric.slr == 1:
        return _timed(network, plan, device, reached(fabric, share, engine.clock_hz)), said
    where = _placed(network, plan, device, engine.clock_hz, Budget.of(fabric))
    if where is None:
        said = (*said, f"the total fits, but whole layers do not fit {fabric.slr} dies in their order")
    clock_hz = reached(fabric, share, engine.clock_hz, len(where.ends) if where else fabric.slr)
    clock_hz *= congested(where.fullest) if where else 1.0
    return replace(_timed(network, plan, device, clock_hz), placement=where), said


def _aimed(network: Network, device: FpgaDevice, goal: Mapping[str, Any], beats: float) -> Plan:
    """The folding with the most throughput, or the smallest one that reaches a rate at the target clock."""
    engine, fabric = dataflow_of(device), device.fabric
    embedded = engine.weights == "embedded"
    common = (network.stages, Budget.of(fabric), fabric.technology)
    if len(goal) != 1 or goal.get("objective", "throughput") != "throughput":
        raise RequestError(
            f"'{dict(goal)}' is not a goal", hint="objective: throughput, or target_fps: a rate"
        )
    if "target_fps" not in goal:
        return best(*common, beats, embedded=embedded)
    rate = goal["target_fps"]
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0:
        raise RequestError(f"target_fps '{rate}' is not a rate above zero")
    return cheapest(*common, engine.clock_hz / rate, beats, embedded=embedded)


def _ports(network: Network, device: FpgaDevice, clock_hz: float) -> tuple[Port | None, ...]:
    engine = dataflow_of(device)
    return tuple(
        port(s.unit, device, clock_hz, engine.dma_bits) if s.unit.kind.startswith("dma") else None
        for s in network.stages
    )


def _beats(ports: Sequence[Port | None]) -> float:
    """Transfers per frame of the busiest DMA; folding faster gains nothing [cycles].

    The DRAM's own time is left out on purpose: it changes with the clock, and a folding that followed it
    could make a faster clock answer later.
    """
    return max((p.beats for p in ports if p is not None), default=0.0)


def _timed(network: Network, plan: Plan, device: FpgaDevice, clock_hz: float) -> Design:
    ports = _ports(network, device, clock_hz)
    # Builds size FIFOs to the schedule, so none delays a frame (`fifo.smallest`): as if they had no limit.
    times = pace(network, plan.rows, ports, device.memory.latency_s * clock_hz)
    frame = run(network.stages, unlimited(network.stages), times)
    interval = max(plan.interval, _dram_cycles(network, device, clock_hz))
    return Design(network, plan, ports, clock_hz, interval, max(float(frame.finish.max()), interval), frame)


def _dram_cycles(network: Network, device: FpgaDevice, clock_hz: float) -> float:
    """Time that the memory interface takes for the DMA and the streamed weights of a frame [cycles]."""
    moved = sum(p.memory_cycles for p in _ports(network, device, clock_hz) if p is not None)
    rate = device.memory.bandwidth_bytes_per_s * device.memory.efficiency / clock_hz
    return moved + sum(weight_bytes(s.unit) for s in network.stages) / rate


@dataclass(frozen=True)
class Streams:
    """The FIFOs of a design beyond the few words that every stream has.

    Attributes
    ----------
    used : mapping
        What the design and its FIFOs take together, by the vendor's names.
    fifos : mapping
        What the FIFOs take of it.
    homeless : int
        FIFOs that find no room; frames then wait for each other before a stage, and the first is later.
    """

    used: Mapping[str, float]
    fifos: Mapping[str, float]
    homeless: int


def streams(design: Design, device: FpgaDevice) -> Streams:
    """Memory of the FIFOs: see `fifo.occupied`; widest first into what the design leaves."""
    stages, rows, fabric = design.network.stages, design.plan.rows, device.fabric
    embedded = dataflow_of(device).weights == "embedded"
    held = STREAM_WORDS if embedded else FIFO_DEPTH
    times = pace(design.network, rows, design.ports, device.memory.latency_s * design.clock_hz)
    each = [words(s.unit, int(pe)) for s, pe in zip(stages, rows.pe)]
    depths = occupied(design.network, times, design.interval, each, held)
    budget = Budget.of(fabric)
    taken, _ = packed(rows, budget)
    before = {
        "lut": budget.lut - taken[0],
        "bram18": budget.bram18 - taken[2],
        "uram": budget.uram - taken[3],
    }
    room, homeless = {name: float(value) for name, value in before.items()}, 0
    wanted = [
        (-(-pixel_bits(stages[e.source].unit) // each[e.source]), depth)
        for stage, found in zip(stages, depths)
        for e, depth in zip(stage.edges, found)
        if depth
    ]
    for width, depth in sorted(wanted, reverse=True):
        homeless += not place_fifo(width, depth, held, room, intel=budget.intel)
    lut, blocks, ultra = (float(before[n] - room[n]) for n in ("lut", "bram18", "uram"))
    fifos = named(lut, lut * FF_PER_LUT, 0.0, blocks, ultra, budget.intel)
    return Streams({n: v + fifos[n] for n, v in design.plan.used.items()}, fifos, homeless)


def fifos(design: Design, device: FpgaDevice, frames: int = 3) -> dict[str, dict[str, int]]:
    """Depth of the FIFO in front of each stage, by writer, that delays no frame: see `fifo.smallest`
    [words]."""
    stages, rows = design.network.stages, design.plan.rows
    times = pace(design.network, rows, design.ports, device.memory.latency_s * design.clock_hz)
    found = smallest(stages, times, [words(s.unit, int(pe)) for s, pe in zip(stages, rows.pe)], frames)
    return {
        s.name: {stages[e.source].name: depth for e, depth in zip(s.edges, held)}
        for s, held in zip(stages, found.words)
        if s.edges
    }
