"""Rounds of federated learning on many unequal devices: time, energy, bytes, and what becomes of updates.

One round: the server selects devices among those that are there, each downloads the model, trains, uploads;
the server closes the round at the k-th update or at the deadline. Two engines, arrays and simpy processes
(`accelsim.serving.federated_events`), draw the same numbers and give the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible, InfeasibleError
from accelsim.engine.training import local_step
from accelsim.serving.federated_round import NEVER, Closed, Draw, Floats, Ints, Plan, close_round
from accelsim.techniques.federation import Compression, SecureAggregation

if TYPE_CHECKING:
    import pandas as pd

ENGINES = ("arrays", "simpy")


@dataclass(frozen=True)
class Participants:
    """Devices of one kind.

    Parameters
    ----------
    name : str
    count : int
    step_s, step_j : float
        Mean time [s] and energy [J] of one local step; NaN energy where it is unknown.
    downlink_bytes_per_s, uplink_bytes_per_s : float
        [B/s]
    availability : float
        Probability that a device is there when a round starts.
    dropout : float
        Probability that a selected device leaves before it is done, at a point of its work that is uniform.
    cv : float
        Standard deviation over mean of the training time from device to device and round to round (gamma):
        0 is deterministic, 1 exponential.
    share : float
        Share of the device that training gets beside inference; steps take 1 / share as long.
    radio_j_per_byte : float
        Energy of transfers [J/B].
    notes : tuple of str
    """

    name: str
    count: int
    step_s: float
    step_j: float = math.nan
    downlink_bytes_per_s: float = math.inf
    uplink_bytes_per_s: float = math.inf
    availability: float = 1.0
    dropout: float = 0.0
    cv: float = 0.0
    share: float = 1.0
    radio_j_per_byte: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise RequestError(f"{self.count!r} devices are not a positive number", self.name)
        for name in ("step_s", "downlink_bytes_per_s", "uplink_bytes_per_s"):
            if not getattr(self, name) > 0:
                raise RequestError(f"{name} must be positive, got {getattr(self, name)}", self.name)
        for name in ("availability", "share"):
            if not 0 < getattr(self, name) <= 1:
                raise RequestError(f"{name} {getattr(self, name)} is not above 0 and up to 1", self.name)
        if not 0 <= self.dropout < 1:
            raise RequestError(f"a dropout of {self.dropout} is not from 0 to below 1", self.name)
        if not (self.cv >= 0 and self.radio_j_per_byte >= 0):
            raise RequestError("cv and radio_j_per_byte must not be negative", self.name)

    @classmethod
    def of(
        cls, model: Any, hardware: Any, *, count: int, batch: int = 1, precision: Any = None, **fields: Any
    ) -> Participants:
        """Devices whose step is simulated: forward and backward pass of a batch.

        Parameters
        ----------
        model, hardware, precision
            See `simulate`.
        count, **fields
            See `Participants`.
        batch : int
            Samples of a local step.

        Raises
        ------
        InfeasibleError
            The device cannot run a step.
        """
        step = local_step(model, hardware, batch=batch, precision=precision)
        if isinstance(step, Infeasible):
            raise InfeasibleError(step.reason, step.need, step.have, step.hint)
        named = {"name": step.hardware, **fields}
        return cls(count=count, step_s=step.latency_s, step_j=step.energy_j, notes=step.notes, **named)


@dataclass(frozen=True, eq=False, repr=False)
class FederatedResult:
    """Rounds, and what they took.

    Attributes
    ----------
    rows : tuple of dict
        One per round, see `rounds`.
    energy_j : array
        Of each device over all rounds [J]; NaN where its step's energy is unknown.
    busy_s : array
        Time that each device worked for the rounds [s].
    names : tuple of str
        Kind of each device.
    summary : dict
    notes : tuple of str
    """

    rows: tuple[dict[str, Any], ...]
    energy_j: Floats = field(repr=False)
    busy_s: Floats = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    summary: dict[str, Any]
    notes: tuple[str, ...]

    feasible = True

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """``round round_s wait_s server_s available selected accepted late dropped discarded bytes_down
        bytes_up energy_j failed``.
        """
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    @cached_property
    def devices(self) -> pd.DataFrame:
        """By kind of device: ``name devices energy_per_device_j busy_pct``, means over the whole run."""
        import pandas as pd

        frame = pd.DataFrame({"name": self.names, "energy_j": self.energy_j, "busy_s": self.busy_s})
        grouped = frame.groupby("name", sort=False)
        whole = sum(row["round_s"] for row in self.rows)
        return pd.DataFrame(
            {
                "devices": grouped.size(),
                "energy_per_device_j": grouped["energy_j"].mean(),
                "busy_pct": 100.0 * grouped["busy_s"].mean() / whole,
            }
        ).reset_index()

    def __repr__(self) -> str:
        s = self.summary
        fates = ", ".join(f"{s[name]} {name}" for name in ("accepted", "late", "dropped", "discarded"))
        lines = [
            f"{s['rounds']} rounds of {s['devices']} devices: mean {s['round_mean_s']:.4g} s, "
            f"p95 {s['round_p95_s']:.4g} s",
            f"updates: {fates}",
            f"up {s['bytes_up']:.4g} B, down {s['bytes_down']:.4g} B",
            f"energy: {s['energy_per_device_j']:.4g} J per device",
            *(f"note: {n}" for n in self.notes),
        ]
        return "\n".join(lines)


def federated(
    clients: Participants | Sequence[Participants],
    *,
    parameters: int,
    local_steps: int = 1,
    select: int | None = None,
    accept: int | None = None,
    deadline_s: float | None = None,
    minimum: int = 1,
    compression: Compression | None = None,
    secure: SecureAggregation | None = None,
    weight_bits: int = 32,
    server_bytes_per_s: float = 10e9,
    rounds: int = 1,
    seed: int = 0,
    engine: str = "arrays",
) -> FederatedResult:
    """Run rounds of federated learning.

    Parameters
    ----------
    clients : Participants or list of Participants
    parameters : int
        Trained parameters of the model.
    local_steps : int
        Steps of each device in a round.
    select : int, optional
        Devices that a round asks, at random among those that are there; all by default.
    accept : int, optional
        Updates that close a round (over-selection: fewer than `select`); by default the server waits for all.
    deadline_s : float, optional
        The round closes at the latest then [s].
    minimum : int
        With fewer updates than this the round fails and its updates are discarded.
    compression : Compression, optional
        Of updates; 32 bits each by default.
    secure : SecureAggregation, optional
    weight_bits : int
        Format of the model that is sent out.
    server_bytes_per_s : float
        Rate at which the server adds up updates [B/s] (assumed).
    rounds, seed : int
    engine : {"arrays", "simpy"}
        Both give the same numbers.

    Returns
    -------
    FederatedResult
        In every round, selected = accepted + late + dropped + discarded.

    Raises
    ------
    RequestError
        The request makes no sense.
    """
    groups = [clients] if isinstance(clients, Participants) else list(clients)
    if not groups:
        raise RequestError("there is no client")
    devices = _Devices(groups)
    asked = devices.count if select is None else select
    plan = Plan(
        parameters,
        local_steps,
        asked,
        asked if accept is None else accept,
        NEVER if deadline_s is None else _deadline(deadline_s),
        minimum,
        compression or Compression(),
        secure,
        weight_bits,
    )
    _check(plan, devices.count, rounds, server_bytes_per_s, engine)
    close = _engine(engine)
    random = np.random.default_rng([seed, 7])
    energy, busy = np.zeros(devices.count), np.zeros(devices.count)
    rows = []
    for number in range(rounds):
        draw = devices.draw(plan, random)
        closed = close(plan, draw)
        rows.append(_account(number, plan, devices, draw, closed, server_bytes_per_s, energy, busy))
    notes = [note for group in groups for note in group.notes]
    notes.append("updates meet no queue at the server; devices that are not selected take no part")
    if secure:
        notes.append("secure aggregation: round trips of its four message rounds are not counted")
    summary = _summary(plan, devices, rows, energy, engine)
    names = tuple(groups[g].name for g in devices.group)
    return FederatedResult(tuple(rows), energy, busy, names, summary, tuple(dict.fromkeys(notes)))


class _Devices:
    """All devices, side by side."""

    def __init__(self, groups: Sequence[Participants]) -> None:
        self.group: Ints = np.repeat(np.arange(len(groups)), [g.count for g in groups])
        self.count = len(self.group)

        def column(name: str) -> Floats:
            return np.asarray([getattr(g, name) for g in groups], dtype=np.float64)[self.group]

        self.step_s, self.step_j = column("step_s") / column("share"), column("step_j")
        self.power_w = self.step_j / column("step_s")
        self.down, self.up = column("downlink_bytes_per_s"), column("uplink_bytes_per_s")
        self.availability, self.dropout = column("availability"), column("dropout")
        self.cv, self.radio = column("cv"), column("radio_j_per_byte")

    def draw(self, plan: Plan, random: np.random.Generator) -> Draw:
        there = np.flatnonzero(random.random(self.count) < self.availability)
        chosen = np.sort(random.permutation(there)[: plan.select])
        cv = self.cv[chosen]
        shape = 1.0 / np.maximum(cv, 1e-9) ** 2
        factor = np.where(cv > 0, random.gamma(np.minimum(shape, 1e12)) / shape, 1.0)
        masks = plan.secure.client_s(plan.select, plan.parameters) if plan.secure else 0.0
        down = _ns(plan.down_bytes / self.down[chosen])
        train = _ns(plan.local_steps * self.step_s[chosen] * factor + masks)
        up = _ns(plan.up_bytes / self.up[chosen])
        leaves = random.random(len(chosen)) < self.dropout[chosen]
        point = random.random(len(chosen))
        drop = np.where(leaves, (point * (down + train + up)).astype(np.int64), NEVER)
        return Draw(chosen, len(there), down, train, up, drop)


def _account(
    number: int,
    plan: Plan,
    devices: _Devices,
    draw: Draw,
    closed: Closed,
    server_bytes_per_s: float,
    energy: Floats,
    busy: Floats,
) -> dict[str, Any]:
    """A round's row; devices stop when they finish, leave, or hear that the round has closed."""
    fate = closed.fate
    stop = np.minimum(np.minimum(draw.finish_ns, draw.drop_ns), closed.close_ns)
    down = _part(stop, draw.down_ns)
    trained = np.clip(stop - draw.down_ns, 0, draw.train_ns)
    up = _part(stop - draw.down_ns - draw.train_ns, draw.up_ns)
    bytes_down, bytes_up = down * plan.down_bytes, up * plan.up_bytes
    own = trained / 1e9 * devices.power_w[draw.device] * _share_of_step(devices, draw)
    own = own + (bytes_down + bytes_up) * devices.radio[draw.device]
    energy[draw.device] += own
    busy[draw.device] += stop / 1e9
    counts = np.bincount(fate, minlength=3)
    accepted, late, dropped = (int(c) for c in counts)
    failed = accepted < plan.minimum
    server_s = 0.0
    if not failed:
        server_s = accepted * plan.up_bytes / server_bytes_per_s
        if plan.secure:
            server_s += plan.secure.server_s(len(fate), late + dropped, plan.parameters) if len(fate) else 0.0
    return {
        "round": number,
        "round_s": closed.close_ns / 1e9 + server_s,
        "wait_s": closed.close_ns / 1e9,
        "server_s": server_s,
        "available": draw.available,
        "selected": len(fate),
        "accepted": 0 if failed else accepted,
        "late": late,
        "dropped": dropped,
        "discarded": accepted if failed else 0,
        "bytes_down": float(bytes_down.sum()),
        "bytes_up": float(bytes_up.sum()),
        "energy_j": float(own.sum()),
        "failed": failed,
    }


def _share_of_step(devices: _Devices, draw: Draw) -> Floats:
    """Training that shares a device takes longer, not more energy: power over the same factor."""
    whole = devices.step_j[draw.device] / devices.power_w[draw.device]
    return np.asarray(whole / devices.step_s[draw.device], dtype=np.float64)


def _part(elapsed: Ints, whole: Ints) -> Floats:
    """Share of a transfer that is over; one that takes no time is over once it has begun."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip(elapsed / whole, 0.0, 1.0)
    return np.where(whole > 0, share, (elapsed >= 0).astype(np.float64))


def _ns(seconds: Floats) -> Ints:
    return np.rint(np.minimum(seconds, 1e9) * 1e9).astype(np.int64)


def _deadline(seconds: float) -> int:
    if not 0 < seconds < math.inf:
        raise RequestError(f"a deadline of {seconds!r} s is not positive", hint="leave it out to have none")
    return round(seconds * 1e9)


def _check(plan: Plan, devices: int, rounds: int, server_bytes_per_s: float, engine: str) -> None:
    whole = {"parameters": plan.parameters, "local_steps": plan.local_steps, "rounds": rounds}
    for name, value in (whole | {"select": plan.select, "accept": plan.accept}).items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(f"{name} {value!r} is not a positive integer")
    if plan.select > devices:
        raise RequestError(f"a round selects {plan.select} devices, there are {devices}")
    if plan.accept > plan.select:
        raise RequestError(f"a round accepts {plan.accept} updates of {plan.select} devices")
    if not 0 <= plan.minimum <= plan.accept:
        raise RequestError(f"a minimum of {plan.minimum} updates, but {plan.accept} close the round")
    if plan.secure and plan.compression.keep < 1:
        hint = "compress by bits, or leave secure aggregation out"
        raise RequestError("masks cover every element: top-k updates cannot be summed under them", hint=hint)
    if not server_bytes_per_s > 0:
        raise RequestError(f"server_bytes_per_s must be positive, got {server_bytes_per_s}")
    if engine not in ENGINES:
        raise RequestError(f"unknown engine '{engine}'", hint=f"known: {', '.join(ENGINES)}")


def _engine(name: str) -> Callable[[Plan, Draw], Closed]:
    if name == "arrays":
        return close_round
    from accelsim.serving.federated_events import run_round

    return run_round


def _summary(
    plan: Plan, devices: _Devices, rows: list[dict[str, Any]], energy: Floats, engine: str
) -> dict[str, Any]:
    times = np.asarray([row["round_s"] for row in rows])
    total = {k: sum(row[k] for row in rows) for k in ("selected", "accepted", "late", "dropped", "discarded")}
    took = max(1, total["selected"])
    return {
        "status": "ok",
        "devices": devices.count,
        "rounds": len(rows),
        "failed_rounds": sum(row["failed"] for row in rows),
        "round_mean_s": float(times.mean()),
        "round_p50_s": float(np.percentile(times, 50)),
        "round_p95_s": float(np.percentile(times, 95)),
        "round_max_s": float(times.max()),
        **total,
        "update_bytes": plan.up_bytes,
        "model_bytes": plan.down_bytes,
        "bytes_down": sum(row["bytes_down"] for row in rows),
        "bytes_up": sum(row["bytes_up"] for row in rows),
        "energy_j": float(energy.sum()),
        "energy_per_device_j": float(energy.mean()),
        "energy_per_selected_j": float(energy.sum()) / took,
        "engine": engine,
    }
