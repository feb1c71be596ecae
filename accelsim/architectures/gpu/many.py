"""Many batches of one graph on one GPU: lowered at a few batches, costed at all of them in one call.

Sizes, traffic and distances of a lowered program grow by the same amount with each item of the batch, but
where a maximum changes sides. So programs are lowered at the ends of a range of batches and at batches
between: where everything there lies exactly on the line through the ends, the range is that line; where not,
each half is tried in turn. What has a constant but inexact factor (the address arithmetic of convolutions)
is kept apart from its factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.architectures.base import BOUNDS, BatchCosts, Options, Program
from accelsim.architectures.gpu import attention_rows as A
from accelsim.architectures.gpu import conv as C
from accelsim.architectures.gpu import intervals, power
from accelsim.architectures.gpu import rows as R
from accelsim.architectures.gpu.attention import run_kernel
from accelsim.architectures.gpu.cost import SPLIT_ARRAY, device_array
from accelsim.architectures.gpu.finish import of_device
from accelsim.architectures.gpu.lower import RESERVE, Plan, as_arrays, compressed_bytes, lower
from accelsim.workload.graph import Graph

Array = npt.NDArray[np.float64]

CHUNK = 2048
"""Batches costed at once."""


@dataclass(frozen=True)
class Shot:
    """A lowered program: its figures that may grow with the batch, and everything else.

    Attributes
    ----------
    numbers : list of ndarray
        Rows, address arithmetic of convolutions, attention rows, FLOP and elementwise operations by kernel,
        bytes of weights, KV cache and activations with the FLOP of the graph.
    frame : tuple
        What must be equal at two batches for a line between them.
    """

    batch: int
    program: Program
    numbers: list[Array]
    frame: tuple[Any, ...]

    @property
    def plan(self) -> Plan:
        plan: Plan = self.program.parameters["plan"]
        return plan


@dataclass(frozen=True)
class Line:
    """Programs of all batches from one to another."""

    shot: Shot
    last: int
    slopes: list[Array]

    def at(self, which: int, steps: Array) -> Array:
        """Figures `which` at some batches above the first, one line each."""
        base, slope = self.shot.numbers[which], self.slopes[which]
        found: Array = base[None] + slope[None] * steps.reshape(-1, *[1] * base.ndim)
        return found


ROWS, GATHER, ATTENTION, WORK, TOTALS = range(5)


def cost_batches(
    sized: Callable[[int], Graph], device: Any, options: Options, batches: Sequence[int]
) -> BatchCosts | None:
    """See `base.CostsBatches`.

    Products of experts and collectives are not covered, nor is the analytic fidelity.
    """
    if options.fidelity == "analytic":
        return None
    held: dict[int, Shot] = {}

    def shot(batch: int) -> Shot:
        if batch not in held:
            held[batch] = _shot(lower(sized(batch), device, options), batch)
        return held[batch]

    plan = shot(batches[0]).plan
    if plan.grouped or plan.link:
        return None
    found, totals = [], []
    wanted = np.array(batches, dtype=np.int64)
    for line in _lines(shot, batches):
        here = wanted[(wanted >= line.shot.batch) & (wanted <= line.last)]
        coster = _Coster.of(line, device, options)
        for start in range(0, len(here), CHUNK):
            steps = (here[start : start + CHUNK] - line.shot.batch).astype(np.float64)
            found.append(coster.run(line, steps))
            totals.append(line.at(TOTALS, steps))
    return _costs(np.concatenate(found), np.concatenate(totals))


def _costs(found: Array, totals: Array) -> BatchCosts:
    from accelsim.architectures.gpu import many_kernel as K

    weights, kv, activations, flops, saved = totals.T
    names = np.array([*BOUNDS, "nothing"], dtype=object)
    return BatchCosts(
        found[:, K.OUT_LATENCY],
        found[:, K.OUT_LOW],
        found[:, K.OUT_HIGH],
        {name: found[:, K.OUT_ACTIVE + i] for i, name in enumerate(K.PARTS)},
        names[found[:, K.OUT_LIMIT].astype(np.intp)],
        flops,
        found[:, K.OUT_DRAM],
        (weights + kv + activations) * (1.0 + RESERVE) - saved,
        weights,
        kv,
        activations,
    )


# -- lines
# ---------------------------------------------------------------------------------------------------------


def _lines(shot: Callable[[int], Shot], batches: Sequence[int]) -> Iterator[Line]:
    """Lines that cover ascending batches."""
    stack = [(0, len(batches) - 1)]
    while stack:
        low, high = stack.pop()
        if high - low < 3:  # as many programs as batches
            for position in range(low, high + 1):
                own = shot(batches[position])
                yield Line(own, own.batch, [np.zeros_like(a) for a in own.numbers])
            continue
        between = ((low + high) // 2, low + (high - low) // 7 or low + 1)
        line = _line(*(shot(batches[p]) for p in (low, high, *between)))
        if line is not None:
            yield line
            continue
        middle = between[0]
        stack += [(middle + 1, high), (low, middle)]


def _line(first: Shot, last: Shot, *between: Shot) -> Line | None:
    """The line between two batches, where the programs between lie on it."""
    if any(s.frame != first.frame for s in (last, *between)):
        return None
    slopes = []
    for a, b in zip(first.numbers, last.numbers):
        same = a == b  # infinite distances have no slope
        slopes.append(np.where(same, 0.0, (b - np.where(same, 0.0, a)) / (last.batch - first.batch)))
    line = Line(first, last.batch, slopes)
    for one in between:
        step = np.array([one.batch - first.batch], dtype=np.float64)
        if not all(np.array_equal(line.at(i, step)[0], held) for i, held in enumerate(one.numbers)):
            return None
    return line


def _shot(program: Program, batch: int) -> Shot:
    plan: Plan = program.parameters["plan"]
    device: Any = program.device
    graph = program.graph
    rows = np.array(plan.rows, dtype=np.float64).reshape(-1, R.WIDTH)
    gather, factors = _gathered(plan, device, program.options.stack)
    rows[factors != 0.0, R.VECTOR_OPS] = gather[factors != 0.0, 1]
    attention = np.array([row for row, _ in plan.attention.values()]).reshape(-1, A.WIDTH)
    work = np.array([plan.flops, plan.vector_ops])
    saved = (graph.weight_bytes, graph.kv_bytes, graph.peak_activation_bytes, graph.flops)
    totals = np.array([*saved, compressed_bytes(graph, device, program.options)])
    kept = rows[:, [R.KIND, R.TABLE]]
    frame = (
        len(program.kernels),
        plan.owner,
        plan.times,
        plan.launches,
        plan.choice,
        plan.serial_s,
        plan.operands,
        plan.constants,
        [model for _, model in plan.attention.values()],
        plan.names,
        plan.families,
        factors.tolist(),
        kept.tolist(),
    )
    return Shot(batch, program, [rows, gather[:, 0], attention, work, totals], frame)


def _gathered(plan: Plan, device: Any, stack: str) -> tuple[Array, Array]:
    """Gathers of each row and the elementwise operations beside them; operations per gather, 0 for none."""
    counts, factors = np.zeros((len(plan.rows), 2)), np.zeros(len(plan.rows))
    if not plan.convolutions:
        return counts, factors
    layers = C.Layers.of([record for _, record in plan.convolutions])
    model = C.conv_model(device, stack)
    each, gathers = C.gathering(layers, model)
    lanes, _ = C.gathering(layers.on_lanes(), model)
    depthwise = C.is_depthwise(layers)
    of = {index: i for i, (index, _) in enumerate(plan.convolutions) if not depthwise[i]}
    seen: set[tuple[int, int]] = set()
    for position, (owner, choice) in enumerate(zip(plan.owner, plan.choice)):
        if owner in of and choice in (C.IMPLICIT, C.LANES) and (owner, choice) not in seen:
            seen.add((owner, choice))
            i = of[owner]
            counts[position] = gathers[i], layers.vector_ops[i]
            factors[position] = each[i] if choice == C.IMPLICIT else lanes[i]
    return counts, factors


# -- costs
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Coster:
    """Everything of a line that the numba kernel reads, beside the batches."""

    before: tuple[Any, ...]
    after: tuple[Any, ...]
    models: list[Any]
    device: Any

    @classmethod
    def of(cls, line: Line, device: Any, options: Options) -> _Coster:
        program, plan = line.shot.program, line.shot.plan
        base, slope = line.shot.numbers[ROWS], line.slopes[ROWS]
        gather = np.stack(
            [np.array(line.shot.frame[11]), line.shot.numbers[GATHER], line.slopes[GATHER]], axis=1
        ).reshape(-1, 3)
        models = [device.kernels.product]
        model = np.zeros(len(base), dtype=np.int64)
        for position, held in plan.constants.items():
            if held not in models:
                models.append(held)
            model[position] = models.index(held)
        twin = _twins(base, slope, gather, model)
        _, tables = as_arrays(plan, device)
        rows = (base, slope, gather, model, twin, np.stack([m.array for m in models]), tables, SPLIT_ARRAY)
        kernels = _kernels(program, plan, line, device)
        launch_s, host_s = of_device(device, options.stack)
        after = (
            *_candidates(plan, launch_s, device),
            *kernels,
            *_bands(program, device, options),
            options.stack == "eager",
            NormalDist().inv_cdf(0.5 + intervals.LEVEL / 2.0),
            host_s,
            program.host_s,
        )
        attention = [held for _, held in plan.attention.values()]
        return cls((*rows, device_array(device), options.governor), after, attention, device)

    def run(self, line: Line, steps: Array) -> Array:
        """Columns of `many_kernel`, one line per batch."""
        from accelsim.architectures.gpu import many_kernel as K

        attention = line.at(ATTENTION, steps)
        count = attention.shape[1]
        attention[:, :, A.MODEL] = np.arange(count)
        lines = run_kernel(attention.reshape(-1, A.WIDTH), self.models, self.device)
        out = np.empty((len(steps), K.OUT))
        fused = lines.reshape(len(steps), count, A.OUT_WIDTH)
        first, rows, times, launched, serial, owner, place, clocks, *after = self.after
        K.cost_programs(
            steps,
            *self.before,
            first,
            rows,
            times,
            launched,
            serial,
            owner,
            place,
            fused,
            clocks,
            *after,
            out,
        )
        return out


def _twins(base: Array, slope: Array, gather: Array, model: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row before each that is the same product or stream but for the distances of its data."""
    distances = [R.A_DISTANCE, R.B_DISTANCE, R.C_DISTANCE, R.EXTRA_DISTANCE]
    alike = np.hstack(
        [np.delete(base, distances, axis=1), np.delete(slope, distances, axis=1), gather, model[:, None]]
    )
    last: dict[bytes, int] = {}
    found = np.full(len(base), -1, dtype=np.int64)
    for position, row in enumerate(alike):
        key = row.tobytes()
        found[position] = last.get(key, -1)
        last[key] = position
    return found


def _candidates(plan: Plan, launch_s: float, device: Any) -> tuple[Any, ...]:
    """Ways to run each kernel, in the order in which `cost` tries them."""
    of: dict[int, dict[int, list[int]]] = {}
    for position, index in enumerate(plan.owner):
        of.setdefault(index, {}).setdefault(plan.choice[position], []).append(position)
    fused = {index: place for place, index in enumerate(plan.attention)}
    first, rows, times = [0], [], []
    launched, serial, owner, place, clocks = [], [], [], [], []
    for index in range(len(plan.flops)):
        if index in fused:
            ways: list[tuple[list[int], int, float]] = [([], fused[index], plan.attention[index][0][A.CLOCK])]
        else:
            ways = [(held, -1, plan.rows[held[0]][R.CLOCK]) for held in of[index].values()]
        for held, attention, clock in ways:
            rows += held
            times += [float(plan.times[p]) for p in held]
            launches = 0.0
            for p in held:
                launches += plan.launches[p]
            first.append(len(rows))
            launched.append((launches if held else 1.0) * launch_s)
            direct = bool(held) and plan.choice[held[0]] == 0
            serial.append(plan.serial_s.get(index, 0.0) if direct else 0.0)
            owner.append(index)
            place.append(attention)
            clocks.append(clock)
    whole, real = np.int64, np.float64
    return (
        np.array(first, dtype=whole), np.array(rows, dtype=whole), np.array(times, dtype=real),
        np.array(launched, dtype=real), np.array(serial, dtype=real), np.array(owner, dtype=whole),
        np.array(place, dtype=whole), np.array(clocks, dtype=real),
    )  # fmt: skip


def _kernels(program: Program, plan: Plan, line: Line, device: Any) -> tuple[Any, ...]:
    """Repeats, arithmetic and coefficients of energy of each kernel."""
    base, slope = line.shot.numbers[WORK], line.slopes[WORK]
    work = np.array([base[0], slope[0], base[1], slope[1]])
    coefficients = []
    for name, family in zip(plan.names, plan.families):
        c = power.coefficients(device, family)
        held = (c.head_w, c.active_w, c.mac, c.dram_j, c.l2_j, c.vector_j, power.mac_j(device, name))
        coefficients.append(held)
    repeat = np.array([k.repeat for k in program.kernels], dtype=np.float64)
    return repeat, work, np.array(coefficients, dtype=np.float64)


def _bands(program: Program, device: Any, options: Options) -> tuple[Any, ...]:
    """The band of each kernel's operator and formats, by index, and the bands."""
    groups: dict[tuple[str, str], int] = {}
    of = [groups.setdefault(intervals.row_of(k.anchor), len(groups)) for k in program.kernels]
    slopes, constants = np.zeros((len(groups), 2, intervals.FEATURES)), []
    for place, (op, formats) in enumerate(groups):
        line = intervals.line_of(op, formats, device, options)
        share = intervals.evidence(device, op).common_share
        if line is None:
            constants.append((*np.log(intervals.ASSUMED), 0.0, np.inf, 1.0, share))
        else:
            band = line.band
            for row, given in enumerate((band.middle, band.spread)):
                slopes[place, row, : len(given)] = given
            ends = np.log(band.low), np.log(band.high)
            constants.append((*ends, band.shortest_s, band.longest_s, line.wider, share))
    # Every row is at one place between the knots, so what the stack adds may be added to them.
    knots = len(intervals.KNOTS_S)
    if options.stack in intervals.STACKS:
        slopes[:, :, :knots] += slopes[:, :, [intervals.STACKS.index(options.stack) - len(intervals.STACKS)]]
    return np.array(of, dtype=np.int64), slopes, np.array(constants)
