"""One inference with everything around it: screened, voted on, explained, encrypted; in named parts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.engine.costs import cost
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
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
class _Runs:
    """A stage as runs of graphs, before anything is encrypted."""

    name: str
    graph: Graph
    results: tuple[tuple[Result, float], ...]
    reached: float
    basis: str

    @property
    def latency_s(self) -> float:
        return math.fsum(float(r.summary["latency_s"]) * n for r, n in self.results)

    def end_s(self, name: str) -> float:
        return math.fsum(float(getattr(r.intervals["latency_s"], name)) * n for r, n in self.results)

    @property
    def occupied_s(self) -> float:
        taken = (min(r.summary["latency_s"], _interval_s(r)) * n for r, n in self.results)
        return self.reached * math.fsum(taken)

    @property
    def energy_j(self) -> float:
        return self.reached * math.fsum(float(r.summary["energy_j"]) * n for r, n in self.results)

    @property
    def part(self) -> Part:
        runs = math.fsum(n for _, n in self.results)
        ends = self.end_s("low"), self.end_s("high")
        return Part(
            self.name, self.latency_s, *ends, self.occupied_s, self.energy_j, self.reached * runs, self.basis
        )


def compose(
    workload: Any,
    hardware: Any,
    measures: Sequence[Measure] | Measure = (),
    *,
    batch: int = 1,
    precision: Any = None,
    phase: str | None = None,
    context: int | None = None,
    cost_model: CostModel | None = None,
    **settings: Any,
) -> Composition | Infeasible:
    """A model on a device with what security and privacy add: latency, energy and cost of one inference.

    ``ax.compose("resnet18", "zcu104-dpu", [ax.Screen(), ax.Confidential()], precision="int8")``

    Parameters
    ----------
    workload, hardware, batch, precision, phase, context, **settings
        See `simulate`.
    measures : list of measures
        `Screen`, `Smoothing`, `Vote`, `OutputNoise`, `Encrypted`, `Confidential`. Their order does not
        matter but among screens; stages run one after the other.
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
    asked = {"precision": precision, **settings}
    try:
        plain = _run(graph, device, batch, asked)
        stages = tuple(_stages(graph, device, batch, asked, held, plain))
    except InfeasibleError as error:
        return error.outcome
    parts = [stage.part for stage in stages]
    parts += [_encrypted(parts, m) for m in held if isinstance(m, s.Encrypted)]
    if any(isinstance(m, s.Confidential) for m in held):
        parts.append(_sealed(stages, device, batch, settings))
    money = cost(plain, cost_model or CostModel(mode="purchase"), hardware=device)
    notes = ["stages run one after the other on one device", *_notes(held)]
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
    graph: Graph, device: Any, batch: int, asked: Mapping[str, Any], held: Sequence[Measure], plain: Result
) -> Iterator[_Runs]:
    reached = 1.0
    screens = [m for m in held if isinstance(m, s.Screen)]
    for number, screen in enumerate(screens):
        tail = f" {number + 1}" if len(screens) > 1 else ""
        if screen.model is None:
            checks = s.validation_graph(graph)
            run = _run(checks, device, batch, {**asked, "precision": None})
            yield _Runs(f"input validation{tail}", checks, ((run, 1.0),), reached, "a graph of range checks")
        else:
            detector = load_workload(screen.model)
            run = _run(detector, device, batch, asked)
            yield _Runs(f"detector{tail}", detector, ((run, 1.0),), reached, f"{detector.name}, simulated")
        reached *= 1.0 - screen.rejects
    smoothing = next((m for m in held if isinstance(m, s.Smoothing)), None)
    if smoothing is None:
        yield _Runs("model", graph, ((plain, 1.0),), reached, "simulated")
    else:
        runs = tuple(_passes(graph, device, batch, asked, smoothing))
        yield _Runs("model", graph, runs, reached, f"{smoothing.passes} noisy passes")
    for m in held:
        if isinstance(m, s.Vote):
            for other in m.models:
                member = load_workload(other)
                run = _run(member, device, batch, asked)
                yield _Runs(f"member {member.name}", member, ((run, 1.0),), reached, "simulated")
        elif isinstance(m, s.OutputNoise):
            noise = s.noise_graph(graph)
            run = _run(noise, device, batch, {**asked, "precision": None})
            yield _Runs("output noise", noise, ((run, 1.0),), reached, "one sum per output")


def _passes(
    graph: Graph, device: Any, batch: int, asked: Mapping[str, Any], smoothing: s.Smoothing
) -> Iterator[tuple[Result, float]]:
    """The passes in batches as large as asked for, or as fit the memory."""
    whole = smoothing.passes * batch
    size = min(whole, smoothing.together * batch)
    while True:
        try:
            run = _run(graph, device, size, asked)
            break
        except InfeasibleError as error:
            if error.outcome.reason != "memory" or size == 1:
                raise
            size //= 2
    full, rest = divmod(whole, size)
    yield run, float(full)
    if rest:
        yield _run(graph, device, rest, asked), 1.0


def _run(graph: Graph, device: Any, batch: int, asked: Mapping[str, Any]) -> Result:
    found = simulate(graph, device, batch=batch, **asked)
    if isinstance(found, Infeasible):
        raise InfeasibleError(found.reason, found.need, found.have, found.hint)
    return found


def _interval_s(result: Result) -> float:
    """Time until the device may take the next batch [s]."""
    return float(result.summary["batch"] / result.summary["throughput_per_s"])


def _encrypted(parts: Sequence[Part], measure: s.Encrypted) -> Part:
    held = multiplier_of(measure.scheme)
    latency, occupied, energy = (
        math.fsum(getattr(p, name) for p in parts) for name in ("latency_s", "occupied_s", "energy_j")
    )
    low, high = ((m - 1.0) * latency for m in (held.low, held.high))
    more = held.typical - 1.0
    basis = f"assumed: {held.typical:g} times, published {held.low:g} to {held.high:g} times on a CPU"
    return Part(held.title, more * latency, low, high, more * occupied, more * energy, 0.0, basis)


def _sealed(stages: Sequence[_Runs], device: Any, batch: int, settings: Mapping[str, Any]) -> Part:
    """Encrypted transfers: each stage's inputs and answers cross once, each of its runs is submitted."""
    seal = seal_of(device)
    stack = str(settings.get("stack", "graph")) if device.kind == "gpu" else ""
    rows: list[tuple[float, ...]] = []
    for stage in stages:
        kernels = math.fsum(int(r.ops["repeat"].sum()) * n for r, n in stage.results)
        moved = s.traffic(stage.graph, batch, stack, math.fsum(n for _, n in stage.results), kernels)
        added, low, high = (
            s.sealed_s(moved, seal, copy_s) for copy_s in (seal.copy_s, seal.copy_low_s, seal.copy_high_s)
        )
        drawn = added * stage.results[0][0].summary["power_static_w"] + moved.size_bytes * seal.byte_j
        rows.append((added, low, high, stage.reached * added, stage.reached * drawn))
    rate = f"{seal.sealed_bytes_per_s / 1e9:g} GB/s and {seal.copy_s * 1e6:g} us a copy"
    basis = f"bytes, copies and submissions of the runs; {rate} assumed for a {seal.title}"
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


def confidential_query(
    workload: Any,
    hardware: Any,
    *,
    prompt: int,
    output: int,
    batch: int = 1,
    stack: str = "vllm",
    **settings: Any,
) -> dict[str, float]:
    """What confidential computing adds to a query of a language model: prompt in, tokens out.

    Decode steps at the first, the middle and the last context stand for all (Simpson's rule: their time is
    close to linear in the context).

    Parameters
    ----------
    workload, hardware, batch, stack, **settings
        See `simulate`.
    prompt, output : int
        Tokens.

    Returns
    -------
    dict
        ``plain_s added_s overhead_pct overhead_low_pct overhead_high_pct throughput_drop_pct``.

    Raises
    ------
    RequestError
        No prompt or no output.
    InfeasibleError
        The model does not fit.
    """
    for name, value in (("prompt", prompt), ("output", output)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(f"{name} {value!r} is not a positive number of tokens")
    weights = [("prefill", prompt, 1.0)]
    last = prompt + output - 1
    for share, context in ((1 / 6, prompt + 1), (4 / 6, (prompt + 1 + last) // 2), (1 / 6, last)):
        weights.append(("decode", max(context, 1), share * (output - 1)))
    plain = added = low = high = 0.0
    for phase, context, times in weights:
        if not times:
            continue
        options = {"phase": phase, "context": context, "batch": batch, "stack": stack, **settings}
        found = compose(workload, hardware, s.Confidential(), **options)
        if isinstance(found, Infeasible):
            raise InfeasibleError(found.reason, found.need, found.have, found.hint)
        sealed = found.part("encrypted transfers")
        plain += times * found.plain.summary["latency_s"]
        added += times * sealed.latency_s
        low, high = low + times * sealed.low_s, high + times * sealed.high_s
    return {
        "plain_s": plain,
        "added_s": added,
        "overhead_pct": 100.0 * added / plain,
        "overhead_low_pct": 100.0 * low / plain,
        "overhead_high_pct": 100.0 * high / plain,
        "throughput_drop_pct": 100.0 * added / (plain + added),
    }
