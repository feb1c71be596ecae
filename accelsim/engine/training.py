"""What a training step takes on a device, and what training costs with attacks or with privacy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelsim.core.errors import RequestError
from accelsim.core.outcome import Infeasible
from accelsim.core.precision import PRECISIONS
from accelsim.engine.costs import cost
from accelsim.engine.result import Result
from accelsim.engine.simulate import simulate
from accelsim.hardware.cost import CostModel
from accelsim.hardware.spec import load_hardware
from accelsim.techniques.security import attack_passes, per_sample
from accelsim.workload.autograd import backward, together, training_step
from accelsim.workload.graph import Graph
from accelsim.workload.load import load_workload


@dataclass(frozen=True)
class Step:
    """One training step of a batch: forward pass, backward pass, update.

    Attributes
    ----------
    forward, step : Result
        The forward pass alone, and the whole step.
    notes : tuple of str
    """

    forward: Result
    step: Result
    notes: tuple[str, ...]

    feasible = True

    @property
    def hardware(self) -> str:
        return str(self.step.summary["hardware"])

    @property
    def batch(self) -> int:
        return int(self.step.summary["batch"])

    @property
    def latency_s(self) -> float:
        """The whole step [s]."""
        return float(self.step.summary["latency_s"])

    @property
    def energy_j(self) -> float:
        """Of the whole step [J]."""
        return float(self.step.summary["energy_j"])

    @property
    def over_forward(self) -> float:
        """Time of the step over that of its forward pass."""
        return self.latency_s / float(self.forward.summary["latency_s"])


def local_step(
    workload: Any,
    hardware: Any,
    *,
    batch: int = 1,
    precision: Any = None,
    optimiser: str = "sgd",
    **settings: Any,
) -> Step | Infeasible:
    """A training step of a batch on a device, from the model's backward graph.

    Parameters
    ----------
    workload, hardware, batch, precision, **settings
        See `simulate`.
    optimiser : str
        See `training_step`.

    Returns
    -------
    Step or Infeasible

    Raises
    ------
    UnsupportedOpError
        An operator has no backward rule.
    """
    graph = load_workload(workload)
    whole = training_step(graph, optimiser)
    options = {"batch": batch, "precision": precision, **settings}
    step = simulate(whole, hardware, **options)
    if isinstance(step, Infeasible):
        return step
    name = str(step.summary["precision"])
    saved = saved_bytes(whole, batch, name)
    have = float(step.summary["memory_capacity_bytes"])
    if saved > have:
        need = f"{saved / 1e9:.3g} GB of saved activations"
        return Infeasible("memory", need, f"{have / 1e9:.3g} GB", "use a smaller batch", step.request)
    forward = simulate(graph, hardware, **options)
    if isinstance(forward, Infeasible):
        return forward
    notes = [f"a training step of {graph.name} from its backward graph, {optimiser}, in {name}"]
    if name in PRECISIONS and PRECISIONS[name].is_integer:
        notes.append(f"training in {name} is a cost here; whether it converges is another question")
    return Step(forward, step, tuple(notes))


def saved_bytes(graph: Graph, batch: int, precision: str) -> float:
    """Activations that a backward pass reads, with all copies of repeated layers [B]."""
    saved = float(graph.metadata.get("saved_bytes", 0.0)) / graph.batch * batch
    own = next((t.precision.bits for t in graph.inputs if t.role == "activation"), 16)
    return saved * (PRECISIONS[precision].bits / own if precision in PRECISIONS else 1.0)


@dataclass(frozen=True)
class Bill:
    """What training takes.

    Attributes
    ----------
    parts : mapping of str to tuple
        Time [s] and energy [J] of ``updates``, ``attack`` and ``per-sample gradients``.
    steps : int
    usd_per_hour : float
        NaN where unknown.
    notes : tuple of str
    """

    parts: Mapping[str, tuple[float, float]]
    steps: int
    usd_per_hour: float
    notes: tuple[str, ...]

    feasible = True

    @property
    def summary(self) -> dict[str, float]:
        """``time_s energy_j usd multiplier``; the multiplier is over plain training."""
        time_s = math.fsum(t for t, _ in self.parts.values())
        return {
            "steps": self.steps,
            "time_s": time_s,
            "energy_j": math.fsum(e for _, e in self.parts.values()),
            "usd": self.usd_per_hour / 3600 * time_s,
            "multiplier": time_s / self.parts["updates"][0],
        }


def training_bill(
    workload: Any,
    hardware: Any,
    *,
    samples: int,
    epochs: int = 1,
    batch: int = 1,
    attack_steps: int = 0,
    private: bool = False,
    precision: Any = None,
    optimiser: str = "sgd",
    cost_model: CostModel | None = None,
    **settings: Any,
) -> Bill | Infeasible:
    """Time, energy and money of training on one device, plain, adversarial or private.

    Parameters
    ----------
    workload, hardware, batch, precision, **settings
        See `simulate`.
    samples, epochs : int
        Samples that are seen: samples times epochs.
    attack_steps : int
        Steps of PGD before each update: each is a forward pass and a backward pass to the inputs.
    private : bool
        DP-SGD with the gradient of every sample, see `accelsim.techniques.security.per_sample`.
    optimiser : str
    cost_model : CostModel, optional
        A purchase by default.

    Returns
    -------
    Bill or Infeasible
        Hours, energy and money, and what of it the attack and the privacy take.

    Raises
    ------
    RequestError
        A number that is not positive.
    """
    for name, value in (("samples", samples), ("epochs", epochs), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise RequestError(f"{name} {value!r} is not a positive integer")
    attacks = attack_passes(attack_steps) - 1
    device: Any = load_hardware(hardware)
    graph = load_workload(workload)
    options = {"batch": batch, "precision": precision, **settings}
    step = local_step(graph, device, optimiser=optimiser, **options)
    if isinstance(step, Infeasible):
        return step
    steps = -(-samples * epochs // batch)
    parts = {"updates": (steps * step.latency_s, steps * step.energy_j)}
    if attacks:
        attack = simulate(together(graph, backward(graph, "inputs")), device, **options)
        if isinstance(attack, Infeasible):
            return attack
        passes = steps * attacks
        parts["attack"] = (passes * attack.summary["latency_s"], passes * attack.summary["energy_j"])
    notes = step.notes
    if private:
        more = per_sample(graph.parameters, batch)
        need = more["memory_bytes"] + step.step.summary["memory_bytes"]
        have = device.memory.capacity_bytes
        if need > have:
            words = f"{need / 1e9:.3g} GB with the gradient of each of {batch} samples"
            hint = "use a smaller batch, or microbatches"
            return Infeasible("memory", words, f"{have / 1e9:.3g} GB", hint, step.step.request)
        spent = more["bytes_moved"] / (device.memory.bandwidth_bytes_per_s * device.memory.efficiency)
        byte_j = math.nan if device.energy.dram_byte_j is None else device.energy.dram_byte_j
        used = spent * step.step.summary["power_static_w"] + more["bytes_moved"] * byte_j
        parts["per-sample gradients"] = (steps * spent, steps * used)
        notes = (*notes, "per-sample gradients cost their memory traffic; their arithmetic hides behind it")
    hourly = cost(step.forward, cost_model or CostModel(mode="purchase"), hardware=device)
    return Bill(parts, steps, hourly.summary["hourly_usd"], notes)
