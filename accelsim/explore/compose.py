"""One inference with everything around it: screened, voted on, explained, encrypted; in named parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.engine.costs import cost
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.explore.explain import METHODS, explain
from accelsim.hardware.cost import CostModel
from accelsim.hardware.protection import multiplier_of, seal_of
from accelsim.hardware.spec import load_hardware
from accelsim.techniques import security as s
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload

if TYPE_CHECKING:
    import pandas as pd

Measure = s.Screen | s.Smoothing | s.Vote | s.Confidential | s.Encrypted | s.OutputNoise
MEASURES: tuple[type, ...] = (s.Screen, s.Smoothing, s.Vote, s.Confidential, s.Encrypted, s.OutputNoise)


_KERNELS_OF_A_GRADIENT = 3
"""Kernels of a forward and backward pass over those of the forward pass (assumed; counts with the eager
stack only).
"""


@dataclass(frozen=True)
class Part:
    """One stage of a composed inference; times and energies are of the whole batch.

    Attributes
    ----------
    name : str
    latency_s, low_s, high_s : float
        Added to an answer that passes every stage, and the range that its constants allow [s].
    occupied_s : float
        Time that the device is taken, as expected over all requests [s]: less where screens refuse some.
    energy_j : float
        As expected over all requests [J].
    runs : float
        Runs of the device.
    basis : str
    """

    name: str
    latency_s: float
    low_s: float
    high_s: float
    occupied_s: float
    energy_j: float
    runs: float
    basis: str


@dataclass(frozen=True)
class Composition:
    """A model with its measures on a device.

    Attributes
    ----------
    plain : Result
        The model alone.
    parts : tuple of Part
        In order; latencies and energies add up to the whole.
    usd_per_hour : float
        Of the devices; NaN where unknown.
    usd_basis : str
    notes : tuple of str
    """

    plain: Result
    parts: tuple[Part, ...]
    usd_per_hour: float
    usd_basis: str
    notes: tuple[str, ...]

    feasible = True

    @property
    def latency_s(self) -> float:
        """A batch through every stage [s]."""
        return math.fsum(p.latency_s for p in self.parts)

    @property
    def energy_j(self) -> float:
        """Of a batch, as expected [J]."""
        return math.fsum(p.energy_j for p in self.parts)

    @property
    def overhead(self) -> float:
        """Latency over that of the model alone, less one."""
        return self.latency_s / float(self.plain.summary["latency_s"]) - 1.0

    @cached_property
    def summary(self) -> dict[str, Any]:
        """One row, per inference where it says so."""
        plain = self.plain.summary
        batch = plain["batch"]
        occupied = math.fsum(p.occupied_s for p in self.parts)
        return {
            "workload": plain["workload"],
            "hardware": plain["hardware"],
            "batch": batch,
            "precision": plain["precision"],
            "status": "ok",
            "latency_s": self.latency_s,
            "latency_low_s": math.fsum(p.low_s for p in self.parts),
            "latency_high_s": math.fsum(p.high_s for p in self.parts),
            "throughput_per_s": batch / occupied,
            "energy_per_item_j": self.energy_j / batch,
            "usd_per_million_items": self.usd_per_hour / 3600 * occupied / batch * 1e6,
            "plain_latency_s": plain["latency_s"],
            "overhead_pct": 100.0 * self.overhead,
            "robustness": "unknown",
            **{f"{_key(p.name)}_s": p.latency_s for p in self.parts},
        }

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The parts as a table."""
        import pandas as pd

        return pd.DataFrame([vars(p) for p in self.parts])

    def part(self, name: str) -> Part:
        """A part by name.

        Raises
        ------
        RequestError
            There is none; the parts are listed.
        """
        for held in self.parts:
            if held.name == name:
                return held
        raise RequestError(f"no part '{name}'", hint=f"parts: {', '.join(p.name for p in self.parts)}")

    def __repr__(self) -> str:
        from accelsim.core.units import si

        row = self.summary
        head = f"{row['workload']} on {row['hardware']}, {row['precision']}: {si(row['latency_s'], 's')}, "
        head += (
            f"{si(row['energy_per_item_j'], 'J')} per item, {row['overhead_pct']:.3g} % over the model alone"
        )
        lines = [f"  {p.name}: {si(p.latency_s, 's')}, {si(p.energy_j, 'J')}; {p.basis}" for p in self.parts]
        return "\n".join([head, *lines, *(f"note: {n}" for n in self.notes)])


@dataclass(frozen=True)
class _Run:
    """A run of a batch and how often it happens; times of one run [s], energy [J]."""

    latency_s: float
    low_s: float
    high_s: float
    occupied_s: float
    energy_j: float
    kernels: float
    count: float = 1.0

    @classmethod
    def of(cls, result: Result, count: float = 1.0) -> _Run:
        row, band = result.summary, result.intervals["latency_s"]
        latency = float(row["latency_s"])
        taken = min(latency, float(row["batch"] / row["throughput_per_s"]))
        kernels = float(result.ops["repeat"].sum())
        return cls(latency, band.low, band.high, taken, float(row["energy_j"]), kernels, count)


@dataclass(frozen=True)
class _Stage:
    """A stage as runs, before anything is encrypted, and what of it crosses to the host."""

    name: str
    runs: tuple[_Run, ...]
    reached: float
    basis: str
    moved: Callable[[float, float], s.Traffic]
    notes: tuple[str, ...] = ()

    def total(self, name: str) -> float:
        return math.fsum(getattr(run, name) * run.count for run in self.runs)

    @property
    def traffic(self) -> s.Traffic:
        return self.moved(math.fsum(run.count for run in self.runs), self.total("kernels"))

    @property
    def part(self) -> Part:
        return Part(
            self.name,
            self.total("latency_s"),
            self.total("low_s"),
            self.total("high_s"),
            self.reached * self.total("occupied_s"),
            self.reached * self.total("energy_j"),
            self.reached * math.fsum(run.count for run in self.runs),
            self.basis,
        )


@dataclass(frozen=True)
class _Request:
    """What all stages of a composition share."""

    graph: Graph
    device: Any
    batch: int
    asked: Mapping[str, Any]

    @property
    def stack(self) -> str:
        return str(self.asked.get("stack", "graph")) if self.device.kind == "gpu" else ""

    def run(self, graph: Graph, batch: int, **changes: Any) -> Result:
        """Simulate a graph as asked.

        Raises
        ------
        InfeasibleError
            The device cannot.
        """
        found = simulate(graph, self.device, batch=batch, **{**self.asked, **changes})
        if isinstance(found, Infeasible):
            raise InfeasibleError(found.reason, found.need, found.have, found.hint)
        return found

    def moved(self, graph: Graph) -> Callable[[float, float], s.Traffic]:
        """Traffic of a stage: its inputs and answers cross once."""
        return lambda runs, kernels: s.traffic(graph, self.batch, self.stack, runs, kernels)

    def around(self, name: str, graph: Graph, reached: float, basis: str, plain: Result) -> _Stage:
        """A stage of elementwise work; where the device has no such operator, the host's cores do it at the
        rate of a memory copy.
        """
        try:
            return self.stage(name, graph, reached, basis, precision=None)
        except InfeasibleError as error:
            if error.outcome.reason not in ("operator", "precision"):
                raise
        seal = seal_of(self.device)
        size = graph.with_batch(self.batch).bytes_compulsory
        t = size / seal.plain_bytes_per_s
        run = _Run(t, t, t, t, t * plain.summary["power_static_w"] + size * seal.byte_j, 0.0)
        words = "on the host: the device has no such operator; rate of a memory copy, assumed"
        return _Stage(name, (run,), reached, words, lambda runs, kernels: s.Traffic(0.0, 0, 0))

    def stage(self, name: str, graph: Graph, reached: float, basis: str, **changes: Any) -> _Stage:
        """A stage of one run."""
        run = _Run.of(self.run(graph, self.batch, **changes))
        return _Stage(name, (run,), reached, basis, self.moved(graph))


def compose(
    workload: Any,
    hardware: Any,
    measures: Sequence[Measure] | Measure = (),
    *,
    explain_with: str | Mapping[str, Any] | None = None,
    batch: int = 1,
    precision: Any = None,
    phase: str | None = None,
    context: int | None = None,
    cost_model: CostModel | None = None,
    **settings: Any,
) -> Composition | Infeasible:
    """A model on a device with what security and privacy add: latency, energy and cost of one inference.

    ``ax.compose("resnet18", "zcu104-dpu", ax.techniques.Confidential(), explain_with="occlusion")``

    Parameters
    ----------
    workload, hardware, batch, precision, phase, context, **settings
        See `simulate`.
    measures : list of measures
        `Screen`, `Smoothing`, `Vote`, `OutputNoise`, `Encrypted`, `Confidential`. Their order does not
        matter but among screens; stages run one after the other.
    explain_with : str or mapping, optional
        A method of `explain`, or its arguments: ``{"method": "lime", "steps": 200}``.
    cost_model : CostModel, optional
        A purchase by default: edge devices have no rent.

    Returns
    -------
    Composition or Infeasible

    Raises
    ------
    RequestError
        A measure twice, or something that is no measure.
    """
    held = _sorted(measures)
    device: Any = load_hardware(hardware)
    graph = load_workload(workload, phase=phase, context=context)
    asked = {"method": explain_with} if isinstance(explain_with, str) else explain_with
    request = _Request(graph, device, batch, {"precision": precision, **settings})
    try:
        plain = request.run(graph, batch)
        stages = tuple(_stages(request, held, plain, asked))
    except InfeasibleError as error:
        named = {"workload": graph.name, "hardware": device.name, "batch": batch}
        return replace(error.outcome, request=named)
    parts = [stage.part for stage in stages]
    parts += [_encrypted(parts, m) for m in held if isinstance(m, s.Encrypted)]
    if any(isinstance(m, s.Confidential) for m in held):
        parts.append(_sealed(stages, device, plain))
    money = cost(plain, cost_model or CostModel(mode="purchase"), hardware=device)
    notes = ["stages run one after the other on one device", *_notes(held)]
    notes += [note for stage in stages for note in stage.notes]
    return Composition(
        plain,
        tuple(parts),
        money.summary["hourly_usd"],
        money.basis["hourly_usd"],
        tuple(dict.fromkeys((*notes, *plain.notes))),
    )


def _sorted(measures: Sequence[Measure] | Measure) -> list[Measure]:
    held: list[Any] = [measures] if isinstance(measures, MEASURES) else list(measures)  # type: ignore[arg-type]
    for measure in held:
        if not isinstance(measure, MEASURES):
            known = ", ".join(kind.__name__ for kind in MEASURES)
            raise RequestError(f"{measure!r} is no measure", hint=f"known: {known}")
    for kind in MEASURES[1:]:
        if sum(isinstance(m, kind) for m in held) > 1:
            raise RequestError(f"{kind.__name__} is given twice")
    return held


def _stages(
    request: _Request, held: Sequence[Measure], plain: Result, explained: Mapping[str, Any] | None
) -> Iterator[_Stage]:
    graph, reached = request.graph, 1.0
    screens = [m for m in held if isinstance(m, s.Screen)]
    for number, screen in enumerate(screens):
        tail = f" {number + 1}" if len(screens) > 1 else ""
        if screen.model is None:
            checks = s.validation_graph(graph)
            basis = "a graph of range checks"
            yield request.around(f"input validation{tail}", checks, reached, basis, plain)
        else:
            detector = load_workload(screen.model)
            yield request.stage(f"detector{tail}", detector, reached, f"{detector.name}, simulated")
        reached *= 1.0 - screen.rejects
    smoothing = next((m for m in held if isinstance(m, s.Smoothing)), None)
    if smoothing is None:
        yield _Stage("model", (_Run.of(plain),), reached, "simulated", request.moved(graph))
    else:
        runs = tuple(_passes(request, smoothing))
        yield _Stage("model", runs, reached, f"{smoothing.passes} noisy passes", request.moved(graph))
    if explained is not None:
        yield _explained(request, plain, explained, reached)
    for m in held:
        if isinstance(m, s.Vote):
            for other in m.models:
                member = load_workload(other)
                yield request.stage(f"member {member.name}", member, reached, "simulated")
        elif isinstance(m, s.OutputNoise):
            noise = s.noise_graph(graph)
            yield request.around("output noise", noise, reached, "one sum per output", plain)


def _passes(request: _Request, smoothing: s.Smoothing) -> Iterator[_Run]:
    """The passes in batches as large as asked for, or as fit the memory."""
    whole = smoothing.passes * request.batch
    size = min(whole, smoothing.together * request.batch)
    while True:
        try:
            run = request.run(request.graph, size)
            break
        except InfeasibleError as error:
            if error.outcome.reason != "memory" or size == 1:
                raise
            size //= 2
    full, rest = divmod(whole, size)
    yield _Run.of(run, full)
    if rest:
        yield _Run.of(request.run(request.graph, rest))


def _explained(request: _Request, plain: Result, asked: Mapping[str, Any], reached: float) -> _Stage:
    """The passes of an explanation; what crosses to the host is one map as large as the inputs."""
    found = explain(request.graph, request.device, batch=request.batch, **{**request.asked, **asked})
    if isinstance(found, Infeasible):
        raise InfeasibleError(found.reason, found.need, found.have, found.hint)
    own = _Run.of(plain)
    low, high = own.low_s / own.latency_s, own.high_s / own.latency_s
    kernels = own.kernels * (_KERNELS_OF_A_GRADIENT if METHODS[found.method].gradient else 1)
    runs = tuple(
        _Run(t, low * t, high * t, t, float(row["energy_j"]), kernels, float(row["runs"]))
        for row in found.rows
        for t in (float(row["latency_s"]),)
    )
    recorded = s.traffic(request.graph, request.batch, request.stack, 0, 1).launches == 0
    inputs = [t for t in request.graph.inputs if t.role == "activation"]
    size = sum(t.size_bytes for t in inputs) * request.batch / request.graph.batch

    def moved(count: float, launched: float) -> s.Traffic:
        return s.Traffic(size, len(inputs), count if recorded else launched)

    return _Stage("explanation", runs, reached, f"{found.method}, {found.passes} passes", moved, found.notes)


def _encrypted(parts: Sequence[Part], measure: s.Encrypted) -> Part:
    held = multiplier_of(measure.scheme)
    latency, occupied, energy = (
        math.fsum(getattr(p, name) for p in parts) for name in ("latency_s", "occupied_s", "energy_j")
    )
    low, high = ((m - 1.0) * latency for m in (held.low, held.high))
    more = held.typical - 1.0
    basis = f"assumed: {held.typical:g} times, published {held.low:g} to {held.high:g} times on a CPU"
    return Part(held.title, more * latency, low, high, more * occupied, more * energy, 0.0, basis)


def _sealed(stages: Sequence[_Stage], device: Any, plain: Result) -> Part:
    """Encrypted transfers: each stage's inputs and answers cross once, each of its runs is submitted."""
    seal = seal_of(device)
    rows: list[tuple[float, ...]] = []
    for stage in stages:
        moved = stage.traffic
        added, low, high = (
            s.sealed_s(moved, seal, copy_s) for copy_s in (seal.copy_s, seal.copy_low_s, seal.copy_high_s)
        )
        drawn = added * plain.summary["power_static_w"] + moved.size_bytes * seal.byte_j
        rows.append((added, low, high, stage.reached * added, stage.reached * drawn))
    rate = f"{seal.sealed_bytes_per_s / 1e9:g} GB/s and {seal.copy_s * 1e6:g} us a copy"
    basis = f"bytes, copies and submissions of the runs; {rate}, assumed ({seal.title})"
    latency, least, most, taken, energy = (math.fsum(column) for column in zip(*rows))
    return Part("encrypted transfers", latency, least, most, taken, energy, 0.0, basis)


def _notes(held: Sequence[Measure]) -> Iterator[str]:
    for m in held:
        if isinstance(m, s.Smoothing):
            yield "making the noise and counting the votes is not counted"
        elif isinstance(m, s.Confidential):
            yield "attestation and the exchange of keys happen once per session and are not counted"
        elif isinstance(m, s.Encrypted):
            yield "multipliers of computation on encrypted data were published on CPUs and taken over"
        elif isinstance(m, s.Vote):
            yield "averaging the votes is not counted"


def _key(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.lower())
